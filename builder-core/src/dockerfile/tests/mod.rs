//! Tests of the language as a whole: golden files, a corpus, properties, another parser.

mod corpus;
mod differential;
mod dump;
mod golden;
mod print;
mod properties;
mod units;
