use super::*;
use crate::sys::seccomp::Instruction;

const EPERM: u32 = compile::REFUSE;
const ENOSYS: u32 = compile::MISSING;
const ALLOW: u32 = compile::ALLOW;

/// Runs a filter as the kernel would; also counts instructions.
fn run(program: &[Instruction], arch: u32, number: u32, argument: u64) -> (u32, usize) {
    let low = u32::try_from(argument & 0xffff_ffff).unwrap();
    let high = u32::try_from(argument >> 32).unwrap();
    let (mut at, mut accumulator, mut steps) = (0_usize, 0_u32, 0);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        steps += 1;
        at += 1;
        let mut jump = |taken: bool| at += usize::from(if taken { jt } else { jf });
        match code {
            0x20 => accumulator = *[number, arch, 0, 0, low, high].get(k as usize / 4).unwrap(),
            0x05 => at += k as usize,
            0x15 => jump(accumulator == k),
            0x35 => jump(accumulator >= k),
            0x45 => jump(accumulator & k != 0),
            0x06 => return (k, steps),
            other => panic!("instruction {other:#x} at {}", at - 1),
        }
    }
}

const AMD64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const ARM64: u32 = 0xc000_00b7;
const ARM32: u32 = 0x4000_0028;
const X32: u32 = compile::X32_BIT;

#[test]
fn verdicts() {
    let x86 = profile(&compile::X86_64);
    let arm = profile(&compile::AARCH64);
    let newuser = 0x1000_0000_u64;
    let cases: &[(&Filter, u32, &str, u32, u64, u32)] = &[
        (&x86, AMD64, "read", 0, 0, ALLOW),
        (&x86, AMD64, "write", 1, 0, ALLOW),
        (&x86, AMD64, "ptrace", 101, 0, ALLOW),
        (&x86, AMD64, "chroot", 161, 0, ALLOW),
        (&x86, AMD64, "arch_prctl", 158, 0, ALLOW),
        (&x86, AMD64, "mount", 165, 0, EPERM),
        (&x86, AMD64, "umount2", 166, 0, EPERM),
        (&x86, AMD64, "unshare", 272, 0, EPERM),
        (&x86, AMD64, "setns", 308, 0, EPERM),
        (&x86, AMD64, "keyctl", 250, 0, EPERM),
        (&x86, AMD64, "add_key", 248, 0, EPERM),
        (&x86, AMD64, "bpf", 321, 0, EPERM),
        (&x86, AMD64, "io_uring_setup", 425, 0, EPERM),
        (&x86, AMD64, "userfaultfd", 323, 0, EPERM),
        (&x86, AMD64, "open_by_handle_at", 304, 0, EPERM),
        (&x86, AMD64, "reboot", 169, 0, EPERM),
        (&x86, AMD64, "fsopen", 430, 0, EPERM),
        (&x86, AMD64, "clone as fork", 56, 17, ALLOW),
        (&x86, AMD64, "clone as thread", 56, 0x003d_0f00, ALLOW),
        (&x86, AMD64, "clone with NEWUSER", 56, newuser, EPERM),
        (&x86, AMD64, "clone with NEWNS", 56, 0x0002_0000 | 17, EPERM),
        (&x86, AMD64, "clone3", 435, 0, ENOSYS),
        (&x86, AMD64, "personality(0)", 135, 0, ALLOW),
        (&x86, AMD64, "personality(ask)", 135, 0xffff_ffff, ALLOW),
        (&x86, AMD64, "personality(ADDR_NO_RANDOMIZE)", 135, 0x4_0000, EPERM),
        (&x86, AMD64, "personality with upper half", 135, 1 << 32, EPERM),
        (&x86, AMD64, "socket(AF_UNIX)", 41, 1, ALLOW),
        (&x86, AMD64, "socket(AF_INET6)", 41, 10, ALLOW),
        (&x86, AMD64, "socket(AF_DECnet)", 41, 12, EPERM),
        (&x86, AMD64, "socket(AF_NETLINK)", 41, 16, ALLOW),
        (&x86, AMD64, "socket(AF_ALG)", 41, 38, EPERM),
        (&x86, AMD64, "socket(AF_VSOCK)", 41, 40, EPERM),
        (&x86, AMD64, "socket(AF_MCTP)", 41, 45, ALLOW),
        (&x86, AMD64, "socket(46)", 41, 46, EPERM),
        (&x86, AMD64, "socket(AF_VSOCK) with upper half", 41, (1 << 32) | 40, EPERM),
        (&x86, AMD64, "mseal", 462, 0, ALLOW),
        (&x86, AMD64, "a call of the future", 999, 0, EPERM),
        (&x86, AMD64, "skipped by a tracer", u32::MAX, 0, EPERM),
        (&x86, AMD64, "x32 read", X32, 0, ALLOW),
        (&x86, AMD64, "x32 mount", X32 | 165, 0, EPERM),
        (&x86, AMD64, "x32 execve", X32 | 520, 0, ALLOW),
        (&x86, AMD64, "x32 clone with NEWUSER", X32 | 56, newuser, EPERM),
        (&x86, X86, "i386 write", 4, 0, ALLOW),
        (&x86, X86, "i386 mount", 21, 0, EPERM),
        (&x86, X86, "i386 unshare", 310, 0, EPERM),
        (&x86, X86, "i386 clone with NEWUSER", 120, newuser, EPERM),
        (&x86, X86, "i386 socket(AF_VSOCK)", 359, 40, EPERM),
        (&x86, X86, "i386 socketcall", 102, 0, ALLOW),
        (&x86, ARM64, "foreign architecture", 0, 0, compile::KILL),
        (&arm, ARM64, "arm64 read", 63, 0, ALLOW),
        (&arm, ARM64, "arm64 mount", 40, 0, EPERM),
        (&arm, ARM64, "arm64 unshare", 97, 0, EPERM),
        (&arm, ARM64, "arm64 clone with NEWUSER", 220, newuser, EPERM),
        (&arm, ARM64, "arm64 clone as fork", 220, 17, ALLOW),
        (&arm, ARM64, "arm64 clone3", 435, 0, ENOSYS),
        (&arm, ARM64, "arm64 socket(AF_VSOCK)", 198, 40, EPERM),
        (&arm, ARM32, "arm cacheflush", 0xf_0002, 0, ALLOW),
        (&arm, ARM32, "arm mount", 21, 0, EPERM),
        (&arm, AMD64, "foreign architecture", 0, 0, compile::KILL),
    ];
    for (filter, arch, name, number, argument, expected) in cases {
        let (verdict, _) = run(filter.instructions(), *arch, *number, *argument);
        assert_eq!(verdict, *expected, "{name}: {verdict:#x}, not {expected:#x}");
    }
}

#[test]
fn every_row_of_the_table_is_allowed_and_every_other_number_is_not() {
    for (architectures, columns) in [
        (&compile::X86_64, [(AMD64, 0, 0), (AMD64, 1, X32), (X86, 2, 0)].as_slice()),
        (&compile::AARCH64, &[(ARM64, 3, 0), (ARM32, 4, 0)]),
    ] {
        let filter = profile(architectures);
        for &(arch, column, mark) in columns {
            let allowed =
                |number: u32| table::ALLOWED.iter().any(|(_, numbers)| u32::try_from(numbers[column]) == Ok(number));
            let by_argument = [table::CLONE, table::CLONE3, table::PERSONALITY, table::SOCKET]
                .map(|numbers| u32::try_from(numbers[column]).unwrap());
            for number in (0..700).chain(0xf_0000..0xf_0010).filter(|number| !by_argument.contains(number)) {
                let (verdict, steps) = run(filter.instructions(), arch, number | mark, 0);
                let expected = if allowed(number) { ALLOW } else { EPERM };
                assert_eq!(verdict, expected, "call {number} of {arch:#x}");
                assert!(steps <= 20, "call {number} takes {steps} steps");
            }
        }
    }
}

#[test]
fn the_table_names_each_call_once() {
    let mut names: Vec<_> = table::ALLOWED.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    for column in 0..5 {
        let mut numbers: Vec<_> =
            table::ALLOWED.iter().map(|(_, numbers)| numbers[column]).filter(|number| *number >= 0).collect();
        numbers.sort_unstable();
        let count = numbers.len();
        numbers.dedup();
        assert_eq!(numbers.len(), count, "a number stands twice in column {column}");
    }
}
