//! Every system call wrapper and every `unsafe` of the library. What stands above works with safe functions.

pub(crate) mod clone;
pub(crate) mod file;
pub(crate) mod memory;
pub(crate) mod mount;
pub(crate) mod namespace;
pub(crate) mod process;
mod raw;
pub(crate) mod reaper;
pub(crate) mod seccomp;
pub(crate) mod socket;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod xattr;
