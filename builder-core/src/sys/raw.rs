//! System calls without libc: they leave `errno` alone. A child that shares its parent's memory shares the thread-local
//! variables of the thread that made it, so an error of one would show up in the other.
//! Sources: `syscall(2)`, the calling conventions table; errors are -1 to -4095.
#![allow(unsafe_code, reason = "a system call is an instruction")]

use std::arch::asm;

use rustix::io::Errno;

/// Arguments of a call, in order; unused ones are 0.
pub(super) type Arguments = [usize; 6];

/// Makes a system call.
///
/// # Safety
///
/// Whatever the kernel does with the arguments must be sound: pointers live and large enough for the call.
pub(super) unsafe fn call(number: libc::c_long, arguments: Arguments) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    let result = unsafe { instruction(number, arguments) };
    match usize::try_from(result) {
        Ok(value) => Ok(value),
        Err(_) => Err(i32::try_from(result).map_or(Errno::IO, |negative| Errno::from_raw_os_error(-negative))),
    }
}

/// An argument that the kernel takes as a signed number.
pub(super) fn signed(value: libc::c_int) -> usize {
    isize::try_from(value).unwrap_or_default().cast_unsigned()
}

/// An address as an argument.
pub(super) fn address<T>(value: *const T) -> usize {
    value.expose_provenance()
}

#[cfg(target_arch = "x86_64")]
unsafe fn instruction(number: libc::c_long, [a, b, c, d, e, f]: Arguments) -> isize {
    let result: isize;
    // SAFETY: the x86-64 convention; the kernel clobbers rcx and r11 and leaves the stack alone. The call itself is the caller's
    // responsibility. Memory is not marked untouched, so the compiler keeps it in order around the call.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn instruction(number: libc::c_long, [a, b, c, d, e, f]: Arguments) -> isize {
    let result: isize;
    // SAFETY: the AArch64 convention; all other registers are kept. Otherwise as above.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            options(nostack),
        );
    }
    result
}
