//! One pattern of moby's patternmatcher.
//!
//! `**` is any number of directories, `**/` also none, and at the end everything. Patterns without other wildcards
//! take short cuts in moby that are not the same language: `**x` ends in `x` anywhere, but `**x*` wants `x` at the start
//! of a name; `x**` starts with `x`. [`Matcher`] has one variant for each.

use super::class::Class;
use super::first_char;

/// How a pattern matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Matcher {
    /// The path itself.
    Exact(Vec<u8>),
    /// `TEXT**`.
    Prefix(Vec<u8>),
    /// `**TEXT`; a TEXT that starts with `/` also matches without it.
    Suffix(Vec<u8>),
    /// Everything else.
    Ops(Vec<Op>),
}

/// A piece of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    Literal(Vec<u8>),
    /// `?`
    AnyButSlash,
    /// `*`
    Name,
    Class(Class),
    /// `**` before something: nothing, or anything up to and with a `/`.
    Directories,
    /// `**` at the end.
    Rest,
}

impl Matcher {
    /// Parses a cleaned pattern without `!`.
    pub(super) fn parse(pattern: &[u8]) -> Result<Self, &'static str> {
        let ops = parse_ops(pattern)?;
        // The short cuts want the pattern as text, so anything quoted rules them out.
        let plain = !pattern.iter().any(|byte| matches!(byte, b'\\' | b'[' | b']' | b'?'));
        Ok(match ops.as_slice() {
            [] => Self::Exact(Vec::new()),
            [Op::Literal(text)] if plain => Self::Exact(text.clone()),
            [Op::Literal(text), Op::Rest] if plain => Self::Prefix(text.clone()),
            [Op::Rest] => Self::Suffix(Vec::new()),
            [Op::Directories, Op::Literal(_)] if plain => Self::Suffix(pattern[2..].to_vec()),
            _ => Self::Ops(ops),
        })
    }

    /// Whether the whole of `path` matches.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(text) => path == text,
            Self::Prefix(text) => path.starts_with(text),
            Self::Suffix(text) => path.ends_with(text) || text.strip_prefix(b"/") == Some(path),
            Self::Ops(ops) => ends_fit(ops, path) && Positions::after(ops, path).reaches_end(),
        }
    }

    /// Whether some path below directory `dir` matches.
    pub(super) fn may_match_below(&self, dir: &[u8]) -> bool {
        let dir = [dir, b"/"].concat();
        match self {
            Self::Exact(text) => text.len() > dir.len() && text.starts_with(&dir),
            Self::Prefix(text) => text.starts_with(&dir) || dir.starts_with(text),
            Self::Suffix(_) => true,
            Self::Ops(ops) => lives_through(ops, &dir),
        }
    }
}

fn parse_ops(mut pattern: &[u8]) -> Result<Vec<Op>, &'static str> {
    let mut ops = Vec::new();
    let mut literal = Vec::new();
    while let Some((first, mut rest)) = pattern.split_first() {
        let op = match first {
            b'*' if rest.starts_with(b"*") => {
                rest = &rest[1..];
                rest = rest.strip_prefix(b"/").unwrap_or(rest);
                if rest.is_empty() { Op::Rest } else { Op::Directories }
            }
            b'*' => Op::Name,
            b'?' => Op::AnyButSlash,
            b'[' => {
                let (class, after) = parse_class(rest)?;
                rest = after;
                Op::Class(class)
            }
            b'\\' => {
                let (quoted, after) = rest.split_first().ok_or("nothing follows the last \"\\\"")?;
                literal.push(*quoted);
                pattern = after;
                continue;
            }
            byte => {
                literal.push(*byte);
                pattern = rest;
                continue;
            }
        };
        if !literal.is_empty() {
            ops.push(Op::Literal(std::mem::take(&mut literal)));
        }
        ops.push(op);
        pattern = rest;
    }
    if !literal.is_empty() {
        ops.push(Op::Literal(literal));
    }
    Ok(ops)
}

fn parse_class(text: &[u8]) -> Result<(Class, &[u8]), &'static str> {
    if text.starts_with(b"[:") || text.starts_with(b"^[:") {
        // moby takes it for a class of its regular expressions, filepath.Match for the characters `[`, `:` and so on.
        return Err("named classes such as \"[[:digit:]]\" are not supported: write \"[0-9]\"");
    }
    let (class, rest) = Class::parse(text)?;
    if class.has_reversed_range() {
        return Err("a range of the class ends before it starts");
    }
    Ok((class, rest))
}

/// Whether literals at the ends of `ops` are at the ends of `path`: cheap, and settles most paths.
fn ends_fit(ops: &[Op], path: &[u8]) -> bool {
    let starts = !matches!(ops.first(), Some(Op::Literal(text)) if !path.starts_with(text));
    starts && !matches!(ops.last(), Some(Op::Literal(text)) if !path.ends_with(text))
}

/// Whether `ops` can come to the end of `dir` with more to follow.
fn lives_through(ops: &[Op], dir: &[u8]) -> bool {
    let mut positions = Positions::start(dir);
    for op in ops {
        if positions.reaches_end() || matches!(op, Op::Literal(text) if positions.start_of(text)) {
            return true;
        }
        positions.step(op);
    }
    positions.reaches_end()
}

/// Every place in a path to which some way of matching has come. Takes time in proportion to operations times length,
/// where trying the ways one by one may take time without bound.
struct Positions<'p> {
    path: &'p [u8],
    /// `at[i]`: bytes before `i` are matched.
    at: Vec<bool>,
}

impl<'p> Positions<'p> {
    fn start(path: &'p [u8]) -> Self {
        let mut at = vec![false; path.len() + 1];
        at[0] = true;
        Self { path, at }
    }

    fn after(ops: &[Op], path: &'p [u8]) -> Self {
        let mut positions = Self::start(path);
        for op in ops {
            positions.step(op);
        }
        positions
    }

    fn reaches_end(&self) -> bool {
        self.at[self.path.len()]
    }

    /// Whether what is left of the path at some position is only the start of `text`.
    fn start_of(&self, text: &[u8]) -> bool {
        self.set().any(|from| text.starts_with(&self.path[from..]))
    }

    fn set(&self) -> impl Iterator<Item = usize> {
        self.at.iter().enumerate().filter_map(|(position, set)| set.then_some(position))
    }

    fn step(&mut self, op: &Op) {
        let mut next = vec![false; self.at.len()];
        match op {
            Op::Literal(text) => {
                for from in self.set().filter(|from| self.path[*from..].starts_with(text)) {
                    next[from + text.len()] = true;
                }
            }
            Op::AnyButSlash => self.step_char(&mut next, |c| c != '/'),
            Op::Class(class) => self.step_char(&mut next, |c| class.matches(c)),
            Op::Name => self.step_run(&mut next, |c| c != '/'),
            Op::Rest => self.step_run(&mut next, |_| true),
            Op::Directories => {
                let mut reached = false;
                for (position, set) in self.at.iter().enumerate() {
                    next[position] = *set || reached && self.path[position - 1] == b'/';
                    reached |= *set;
                }
            }
        }
        self.at = next;
    }

    fn step_char(&self, next: &mut [bool], fits: impl Fn(char) -> bool) {
        for from in self.set().filter(|from| *from < self.path.len()) {
            let (found, len) = first_char(&self.path[from..]);
            if fits(found) {
                next[from + len] = true;
            }
        }
    }

    /// Steps over any number of characters, none included.
    fn step_run(&self, next: &mut [bool], fits: impl Fn(char) -> bool) {
        let mut from = 0;
        let mut running = false;
        while from < self.path.len() {
            running |= self.at[from];
            next[from] |= running;
            let (found, len) = first_char(&self.path[from..]);
            // A literal that is not UTF-8 may end inside a character.
            let inside = self.at[from + 1..from + len].iter().any(|set| *set);
            running = (running || inside) && fits(found);
            from += len;
        }
        next[from] |= running || self.at[from];
    }
}
