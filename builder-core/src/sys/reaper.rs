//! A program of some hundred bytes that waits: pid 1 of a step while its command runs.
//!
//! A process that was made with shared memory keeps that memory as its own for as long as it lives, and is counted with
//! all of it. What pid 1 of a step does after it has started the command needs none: it waits for every process of its
//! namespace. So it executes this program, which has no allocator, no loader and no relocations, from a file in memory,
//! and the step no longer has a process that shares anything with the build process.
//!
//! ```text
//! descriptor 0: where to tell. Process 2: the command. All signals blocked.
//! not dumpable, name ← NAME, close descriptors from 1 on
//! for each process that ends: is it 2? then keep its status, and kill all that are left
//! nobody left: write BEFORE, the status (4 bytes), AFTER; end
//! ```
//!
//! Sources: elf(5), `execveat(2)`, `prctl(2)`, `pid_namespaces(7)`; numbers of system calls from `syscalls(2)`.
#![allow(unsafe_code, reason = "a program without a runtime is written in instructions")]

use std::arch::naked_asm;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::MemfdFlags;
use rustix::io::Errno;

use super::clone::{self, StringArray};

/// What the kernel calls this machine in an executable (`e_machine`, elf(5)).
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = libc::EM_X86_64;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = libc::EM_AARCH64;

/// Where the program is mapped: anywhere that is not 0, at a multiple of every page size.
const BASE: u64 = 0x40_0000;
const PAGE: u64 = 0x1_0000;
/// One file header and two program headers.
const HEADERS: usize = 64 + 2 * 56;

/// Number of the command in the pid namespace whose pid 1 the program is: the first that pid 1 started.
pub(crate) const COMMAND: i32 = 2;

/// Longest name of a process with its terminating zero, `TASK_COMM_LEN` (`prctl(2)`, `PR_SET_NAME`).
const NAME: usize = 16;
/// Bytes that are written: eight, the status, four.
const REPORT: usize = 16;

/// The length of the program in bytes, then the program. Behind its last instruction lie, where it runs, the name and the
/// report, which has room for the status after eight bytes.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
extern "C" fn instructions() {
    naked_asm!(
        ".quad 9f - 8f",
        "8:",
        "mov edi, 4", // prctl(PR_SET_DUMPABLE, 0)
        "xor esi, esi",
        "mov eax, 157",
        "syscall",
        "mov edi, 15", // prctl(PR_SET_NAME, name)
        "lea rsi, [rip + 9f]",
        "mov eax, 157",
        "syscall",
        "mov edi, 1", // close_range(1, ~0, 0)
        "mov esi, -1",
        "xor edx, edx",
        "mov eax, 436",
        "syscall",
        "sub rsp, 32", // the report, then what wait4 stores
        "movups xmm0, [rip + 9f + 16]",
        "movups [rsp], xmm0",
        "xor ebx, ebx",
        "2:",
        "mov rdi, -1", // wait4(-1, &status, 0, NULL)
        "lea rsi, [rsp + 16]",
        "xor edx, edx",
        "xor r10d, r10d",
        "mov eax, 61",
        "syscall",
        "test rax, rax",
        "js 3f",
        "cmp eax, 2",
        "jne 2b",
        "mov eax, [rsp + 16]",
        "mov [rsp + 8], eax",
        "inc ebx",
        "mov rdi, -1", // kill(-1, SIGKILL)
        "mov esi, 9",
        "mov eax, 62",
        "syscall",
        "jmp 2b",
        "3:",
        "test ebx, ebx",
        "jz 4f",
        "xor edi, edi", // write(0, report, 16)
        "mov rsi, rsp",
        "mov edx, 16",
        "mov eax, 1",
        "syscall",
        "4:",
        "xor edi, edi", // exit_group(0)
        "mov eax, 231",
        "syscall",
        "ud2",
        ".balign 16",
        "9:",
    )
}

/// As above.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
extern "C" fn instructions() {
    naked_asm!(
        ".quad 9f - 8f",
        "8:",
        "mov x0, #4", // prctl(PR_SET_DUMPABLE, 0)
        "mov x1, #0",
        "mov x8, #167",
        "svc #0",
        "mov x0, #15", // prctl(PR_SET_NAME, name)
        "adr x1, 9f",
        "mov x8, #167",
        "svc #0",
        "mov x0, #1", // close_range(1, ~0, 0)
        "mov w1, #-1",
        "mov x2, #0",
        "mov x8, #436",
        "svc #0",
        "sub sp, sp, #32", // the report, then what wait4 stores
        "adr x1, 9f",
        "ldp x2, x3, [x1, #16]",
        "stp x2, x3, [sp]",
        "mov x19, #0",
        "2:",
        "mov x0, #-1", // wait4(-1, &status, 0, NULL)
        "add x1, sp, #16",
        "mov x2, #0",
        "mov x3, #0",
        "mov x8, #260",
        "svc #0",
        "tbnz x0, #63, 3f",
        "cmp x0, #2",
        "b.ne 2b",
        "ldr w2, [sp, #16]",
        "str w2, [sp, #8]",
        "mov x19, #1",
        "mov x0, #-1", // kill(-1, SIGKILL)
        "mov x1, #9",
        "mov x8, #129",
        "svc #0",
        "b 2b",
        "3:",
        "cbz x19, 4f",
        "mov x0, #0", // write(0, report, 16)
        "mov x1, sp",
        "mov x2, #16",
        "mov x8, #64",
        "svc #0",
        "4:",
        "mov x0, #0", // exit_group(0)
        "mov x8, #94",
        "svc #0",
        "brk #0",
        ".balign 16",
        "9:",
    )
}

/// The instructions, up to where the name and the report lie.
fn code() -> &'static [u8] {
    let start = (instructions as extern "C" fn() as *const u8).cast::<u64>();
    // SAFETY: `instructions` is not a function but its length in bytes, and behind that so many bytes of program.
    unsafe {
        let length = usize::try_from(start.read_unaligned()).unwrap_or_default();
        std::slice::from_raw_parts(start.add(1).cast(), length)
    }
}

/// The program, ready to be executed.
#[derive(Debug)]
pub(crate) struct Reaper {
    file: OwnedFd,
    arguments: StringArray,
    environment: StringArray,
}

impl Reaper {
    /// Makes the program. It calls itself `name`, of which 15 bytes are shown, and tells of the command's end with
    /// `before`, the status as `wait(2)` gives it, `after`.
    ///
    /// # Errors
    /// When no file can be made in memory.
    pub(crate) fn create(name: &CStr, before: [u8; 8], after: [u8; 4]) -> Result<Self, Errno> {
        let flags = MemfdFlags::CLOEXEC;
        let file = rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC)
            .or_else(|_| rustix::fs::memfd_create(name, flags))?;
        let image = image(name, before, after);
        let mut rest = image.as_slice();
        while !rest.is_empty() {
            let written = rustix::io::write(&file, rest)?;
            rest = rest.get(written..).unwrap_or_default();
        }
        // Only a file that nobody has open for writing can be executed.
        let readable = format!("/proc/self/fd/{}", file.as_raw_fd());
        let file = rustix::fs::open(readable, rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC, 0.into())?;
        let arguments = StringArray::from(vec![CString::from(name)]);
        Ok(Self { file, arguments, environment: StringArray::from(Vec::new()) })
    }

    /// Becomes the program, with `report` as its only descriptor. Returns only the reason why it could not; then
    /// descriptor 0 is `report` all the same. For pid 1 of a pid namespace whose first child is the command; allocates
    /// nothing.
    pub(crate) fn execute(&self, report: BorrowedFd<'_>) -> Errno {
        let file = self.file.as_fd();
        let become_it = || {
            clone::set_stdin(report)?;
            clone::execute_file(file, &self.arguments, &self.environment)
        };
        match become_it() {
            Err(errno) => errno,
            Ok(never) => match never {},
        }
    }
}

/// An ELF executable of one segment: headers, instructions, name, report.
fn image(name: &CStr, before: [u8; 8], after: [u8; 4]) -> Vec<u8> {
    let code = code();
    let length = HEADERS + code.len() + NAME + REPORT;
    let mut image = Image(Vec::with_capacity(length));
    image.put(b"\x7fELF\x02");
    image.put(&[if cfg!(target_endian = "little") { 1 } else { 2 }, 1, 0]);
    image.put(&[0; 8]);
    image.halves(&[libc::ET_EXEC, MACHINE]);
    image.words(&[1]);
    image.longs(&[BASE + HEADERS as u64, 64, 0]);
    image.words(&[0]);
    image.halves(&[64, 56, 2, 0, 0, 0]);
    image.words(&[libc::PT_LOAD, libc::PF_R | libc::PF_X]);
    image.longs(&[0, BASE, BASE, length as u64, length as u64, PAGE]);
    image.words(&[libc::PT_GNU_STACK, libc::PF_R | libc::PF_W]);
    image.longs(&[0, 0, 0, 0, 0, 16]);
    image.put(code);
    let mut shown = [0; NAME];
    for (to, from) in shown.iter_mut().take(NAME - 1).zip(name.to_bytes()) {
        *to = *from;
    }
    image.put(&shown);
    image.put(&before);
    image.put(&[0; 4]);
    image.put(&after);
    image.0
}

/// Bytes of an executable, in the byte order of this machine.
struct Image(Vec<u8>);

impl Image {
    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn halves(&mut self, values: &[u16]) {
        values.iter().for_each(|value| self.put(&value.to_ne_bytes()));
    }

    fn words(&mut self, values: &[u32]) {
        values.iter().for_each(|value| self.put(&value.to_ne_bytes()));
    }

    fn longs(&mut self, values: &[u64]) {
        values.iter().for_each(|value| self.put(&value.to_ne_bytes()));
    }
}
