//! From rules to BPF: a switch over architectures, in each a binary search over intervals of call numbers.
//!
//! Program, per architecture: load the number, descend a tree of `>=` comparisons, end in a verdict; about nine steps for
//! any call. Every piece of code ends in a `return`, so pieces are position-independent and simply concatenated. All
//! jumps go forward. Conditional jumps reach 255 instructions, longer ones go through an unconditional jump.
//! Source: the kernel's `seccomp_filter.rst` and `filter.rst`.

use super::table::{self, Numbers};
use crate::sys::seccomp::{Filter, Instruction};

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It runs.
    Allow,
    /// It fails as if the kernel did not have it.
    Missing,
    /// It runs if its first argument passes one of the tests, else it is refused.
    If(Vec<Test>),
}

/// A test of a call's first argument, as the 64-bit value the kernel was given: a 32-bit value with anything in the
/// upper half passes no test except [`Test::NoneOf`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    /// Less than this.
    Below(u32),
    /// This.
    Equal(u32),
    /// Has none of these bits.
    NoneOf(u32),
}

/// The verdict on one call.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    /// Which call.
    pub(super) numbers: Numbers,
    /// What happens to it.
    pub(super) verdict: Verdict,
}

/// A calling convention that the kernel announces in `seccomp_data.arch`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Architecture {
    /// `AUDIT_ARCH_…`.
    pub(super) audit: u32,
    /// Its tables of call numbers: column and a bit that marks numbers of that column.
    pub(super) columns: &'static [(usize, u32)],
}

/// `__X32_SYSCALL_BIT`.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// What x86-64 kernels run.
pub(super) const X86_64: [Architecture; 2] = [
    Architecture { audit: 0xc000_003e, columns: &[(table::X86_64, 0), (table::X32, X32_BIT)] },
    Architecture { audit: 0x4000_0003, columns: &[(table::I386, 0)] },
];

/// What 64-bit ARM kernels run.
pub(super) const AARCH64: [Architecture; 2] = [
    Architecture { audit: 0xc000_00b7, columns: &[(table::AARCH64, 0)] },
    Architecture { audit: 0x4000_0028, columns: &[(table::ARM, 0)] },
];

// Offsets in `struct seccomp_data`; both halves of arguments as little-endian machines have them.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENT_LOW: u32 = 16;
const ARGUMENT_HIGH: u32 = 20;

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

pub(super) const ALLOW: u32 = 0x7fff_0000;
pub(super) const REFUSE: u32 = 0x0005_0001;
pub(super) const MISSING: u32 = 0x0005_0026;
pub(super) const KILL: u32 = 0x8000_0000;

type Code = Vec<Instruction>;

/// Compiles the filter for a machine that runs these architectures.
pub(super) fn filter(architectures: &[Architecture], rules: &[Rule]) -> Filter {
    let mut code = vec![instruction(LOAD, ARCHITECTURE)];
    for architecture in architectures {
        let mut section = vec![instruction(LOAD, NUMBER)];
        section.extend(search(&intervals(architecture, rules)));
        code.extend(branch(JUMP_EQUAL, architecture.audit, section, Vec::new()));
    }
    code.push(instruction(RETURN, KILL));
    Filter::new(code)
}

/// Verdicts by the first number they hold for, from number 0 without gaps; equal neighbours are joined.
fn intervals(architecture: &Architecture, rules: &[Rule]) -> Vec<(u32, Code)> {
    let mut calls: Vec<(u32, &Verdict)> = Vec::new();
    for &(column, mark) in architecture.columns {
        let numbers = rules.iter().filter_map(|rule| Some((u32::try_from(rule.numbers[column]).ok()?, &rule.verdict)));
        calls.extend(numbers.map(|(number, verdict)| (number | mark, verdict)));
    }
    calls.sort_unstable_by_key(|(number, _)| *number);
    let refused = vec![instruction(RETURN, REFUSE)];
    let mut intervals: Vec<(u32, Code)> = Vec::new();
    let mut next = 0;
    for (number, verdict) in calls {
        if number > next || intervals.is_empty() {
            push_interval(&mut intervals, next, refused.clone());
        }
        push_interval(&mut intervals, number, verdict_code(verdict));
        next = number + 1;
    }
    push_interval(&mut intervals, next, refused);
    intervals
}

fn push_interval(intervals: &mut Vec<(u32, Code)>, start: u32, code: Code) {
    match intervals.last_mut() {
        Some((_, last)) if same_code(last, &code) => {}
        Some((last_start, last)) if *last_start == start => *last = code,
        _ => intervals.push((start, code)),
    }
}

fn same_code(left: &Code, right: &Code) -> bool {
    let fields = |code: &Code| -> Vec<_> { code.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect() };
    fields(left) == fields(right)
}

fn verdict_code(verdict: &Verdict) -> Code {
    match verdict {
        Verdict::Allow => vec![instruction(RETURN, ALLOW)],
        Verdict::Missing => vec![instruction(RETURN, MISSING)],
        Verdict::If(tests) => {
            let mut code = Vec::new();
            let exact: Vec<&Test> = tests.iter().filter(|test| !matches!(test, Test::NoneOf(_))).collect();
            if !exact.is_empty() {
                // A set upper half ends it for all tests that compare the whole value.
                code.push(instruction(LOAD, ARGUMENT_HIGH));
                code.push(conditional(JUMP_EQUAL, 0, 1, 0));
                code.push(instruction(RETURN, REFUSE));
            }
            code.push(instruction(LOAD, ARGUMENT_LOW));
            code.extend(tests.iter().flat_map(|test| test_code(*test)));
            code.push(instruction(RETURN, REFUSE));
            code
        }
    }
}

/// Allows if the loaded value passes, else falls through.
fn test_code(test: Test) -> [Instruction; 2] {
    let jump = match test {
        Test::Below(limit) => conditional(JUMP_GREATER_OR_EQUAL, limit, 1, 0),
        Test::Equal(value) => conditional(JUMP_EQUAL, value, 0, 1),
        Test::NoneOf(bits) => conditional(JUMP_ANY_BIT, bits, 1, 0),
    };
    [jump, instruction(RETURN, ALLOW)]
}

/// A balanced tree over sorted intervals.
fn search(intervals: &[(u32, Code)]) -> Code {
    match intervals {
        [] => vec![instruction(RETURN, REFUSE)],
        [(_, code)] => code.clone(),
        _ => {
            let (low, high) = intervals.split_at(intervals.len() / 2);
            branch(JUMP_GREATER_OR_EQUAL, high[0].0, search(high), search(low))
        }
    }
}

/// `then` if the comparison holds, else `otherwise`, which stands behind and may be empty to fall through.
fn branch(comparison: u16, value: u32, then: Code, otherwise: Code) -> Code {
    let mut code = match u8::try_from(then.len()) {
        Ok(distance) => vec![conditional(comparison, value, 0, distance)],
        Err(_) => {
            let distance = u32::try_from(then.len()).unwrap_or(u32::MAX);
            vec![conditional(comparison, value, 1, 0), instruction(JUMP, distance)]
        }
    };
    code.extend(then);
    code.extend(otherwise);
    code
}

fn instruction(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

fn conditional(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}
