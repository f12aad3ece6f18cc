//! The Dockerfile language: text to typed instructions with spans. Pure: no file, no environment, no network.

mod ast;

pub use ast::{
    ArgDeclaration, Command, CopySource, Dockerfile, Healthcheck, Heredoc, Instruction, InstructionKind, KeyValue,
    RunInstruction, TransferInstruction, Word,
};
