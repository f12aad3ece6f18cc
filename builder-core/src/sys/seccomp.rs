//! Installing a seccomp filter. What the filter says is its owner's business (`sandbox::seccomp`).
//! Source: `seccomp(2)`.
#![allow(unsafe_code, reason = "seccomp(2) has no safe wrapper")]

use rustix::io::Errno;

use super::raw;

/// One instruction of classic BPF.
pub(crate) type Instruction = libc::sock_filter;

/// A program the kernel runs at every system call.
#[derive(Debug, Clone)]
pub(crate) struct Filter(Vec<Instruction>);

impl Filter {
    /// Takes a program; the kernel checks it when it is installed.
    pub(crate) fn new(instructions: Vec<Instruction>) -> Self {
        Self(instructions)
    }

    #[cfg(test)]
    /// The program.
    pub(crate) fn instructions(&self) -> &[Instruction] {
        &self.0
    }

    /// Installs the filter on the calling thread and all it will create. Needs `CAP_SYS_ADMIN` in the user namespace
    /// (`EACCES`), since `no_new_privs` would break sudo and su. Neither allocates nor locks.
    pub(crate) fn install(&self) -> Result<(), Errno> {
        let program = libc::sock_fprog {
            len: u16::try_from(self.0.len()).map_err(|_| Errno::INVAL)?,
            filter: self.0.as_ptr().cast_mut(),
        };
        // Without SPEC_ALLOW, kernels before 5.16 turn on mitigations that make every filtered process far slower.
        let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        let flags = usize::try_from(flags).map_err(|_| Errno::INVAL)?;
        let operation = usize::try_from(libc::SECCOMP_SET_MODE_FILTER).map_err(|_| Errno::INVAL)?;
        // SAFETY: `program` points to `len` instructions that outlive the call; the kernel copies and only reads them.
        unsafe { raw::call(libc::SYS_seccomp, [operation, flags, raw::address(&program), 0, 0, 0]) }.map(|_| ())
    }
}
