//! What a step may ask of the kernel: Docker's default seccomp profile as a BPF program.
//!
//! Everything not allowed fails with `EPERM`, so that programs take it for a missing privilege; `clone3` fails with
//! `ENOSYS`, so that libc falls back to `clone`, whose flags a filter can see. A system call of an architecture that this
//! machine does not run natively or as its 32-bit companion kills the process.
//! `no_new_privs` stays off: sudo and su must work in a step.

mod compile;
mod table;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use crate::sys::seccomp::Filter;
use compile::{Architecture, Rule, Test, Verdict};

/// Flags of `clone(2)` that make namespaces; allowed only to whoever has `CAP_SYS_ADMIN`, which no step has.
const NAMESPACE_FLAGS: u32 = 0x7e02_0000;

/// Values of `personality(2)` that steps may set: Linux, 32-bit, without address randomisation, both; and asking.
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Address families below this one are allowed, and those of [`FAMILIES`]. Refused are `AF_VSOCK` (which reaches the
/// hypervisor), `AF_ALG` and old protocols that kernels load modules for.
const FAMILIES_BELOW: u32 = 12;
const FAMILIES: [u32; 25] =
    [13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44, 45];

/// The filter for this machine's architecture, compiled once; `None` where the profile has no table for it.
pub(super) fn default_filter() -> Option<&'static Filter> {
    static FILTER: OnceLock<Option<Filter>> = OnceLock::new();
    FILTER.get_or_init(|| native().map(profile)).as_ref()
}

/// The architecture of this program and those whose programs the kernel runs beside it.
fn native() -> Option<&'static [Architecture]> {
    if cfg!(target_arch = "x86_64") {
        Some(&compile::X86_64)
    } else if cfg!(target_arch = "aarch64") {
        Some(&compile::AARCH64)
    } else {
        None
    }
}

fn profile(architectures: &[Architecture]) -> Filter {
    compile::filter(architectures, &rules())
}

/// All rules; a call may appear once. What no rule names is refused.
fn rules() -> Vec<Rule> {
    let families = FAMILIES.iter().map(|family| Test::Equal(*family));
    let mut rules = vec![
        Rule { numbers: table::CLONE, verdict: Verdict::If(vec![Test::NoneOf(NAMESPACE_FLAGS)]) },
        Rule { numbers: table::CLONE3, verdict: Verdict::Missing },
        Rule {
            numbers: table::PERSONALITY,
            verdict: Verdict::If(PERSONALITIES.iter().map(|value| Test::Equal(*value)).collect()),
        },
        Rule {
            numbers: table::SOCKET,
            verdict: Verdict::If(std::iter::once(Test::Below(FAMILIES_BELOW)).chain(families).collect()),
        },
    ];
    rules.extend(table::ALLOWED.iter().map(|(_, numbers)| Rule { numbers: *numbers, verdict: Verdict::Allow }));
    rules
}
