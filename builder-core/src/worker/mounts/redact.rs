//! Keeps secrets out of what is shown of a command: where it writes a secret's value, `****` is shown.
//!
//! Of a value of several lines, each line counts, for programs print line by line. Short ones are left alone: they would
//! turn up in harmless words, and showing where would tell what they are.

use crate::event::OutputStream;

/// Shorter values and lines are not hidden, in bytes.
const SHORTEST: usize = 6;
const MASK: &[u8] = b"****";

/// The secrets of one command, and what cannot be shown yet because a secret may have begun.
#[derive(Debug, Default)]
pub(in super::super) struct Redactor {
    /// Longest first.
    values: Vec<Vec<u8>>,
    held: [Vec<u8>; 2],
}

impl Redactor {
    /// Hides `secrets`.
    pub(in super::super) fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let lines = |secret: &'a [u8]| std::iter::once(secret.trim_ascii()).chain(secret.split(|byte| *byte == b'\n'));
        let values = secrets.into_iter().flat_map(lines).map(<[u8]>::trim_ascii);
        let mut values: Vec<Vec<u8>> = values.filter(|value| value.len() >= SHORTEST).map(<[u8]>::to_vec).collect();
        values.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        values.dedup();
        Self { values, held: Default::default() }
    }

    /// Takes what a command wrote and returns what may be shown of it and of what came before.
    pub(in super::super) fn pass(&mut self, stream: OutputStream, bytes: &[u8]) -> Vec<u8> {
        if self.values.is_empty() {
            return bytes.to_vec();
        }
        let held = &mut self.held[stream as usize];
        held.extend_from_slice(bytes);
        let (shown, rest) = redact(&self.values, held, More::Comes);
        held.drain(..held.len() - rest);
        shown
    }

    /// Returns what may be shown of what was held back of a stream that has ended.
    pub(in super::super) fn finish(&mut self, stream: OutputStream) -> Vec<u8> {
        redact(&self.values, &std::mem::take(&mut self.held[stream as usize]), More::Never).0
    }
}

/// Whether a text goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    Comes,
    Never,
}

/// `text` with values replaced, and how many bytes at its end may be the begin of one and were left out.
fn redact(values: &[Vec<u8>], text: &[u8], more: More) -> (Vec<u8>, usize) {
    let mut shown = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        // A longer value that may still come wins over a shorter one that is there.
        let begins = |value: &[u8]| more == More::Comes && value.starts_with(rest);
        match values.iter().find(|value| rest.starts_with(value) || begins(value)) {
            Some(value) if rest.len() >= value.len() => {
                shown.extend_from_slice(MASK);
                at += value.len();
            }
            Some(_) => return (shown, rest.len()),
            None => {
                shown.push(rest[0]);
                at += 1;
            }
        }
    }
    (shown, 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(secrets: &[&str], pieces: &[&[u8]]) -> String {
        let mut redactor = Redactor::new(secrets.iter().map(|secret| secret.as_bytes()));
        let mut out: Vec<u8> = pieces.iter().flat_map(|piece| redactor.pass(OutputStream::Stdout, piece)).collect();
        out.extend(redactor.finish(OutputStream::Stdout));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_and_their_lines_are_hidden() {
        for (secrets, text, expected) in [
            (&["hunter22\n"][..], "a hunter22b hunter2", "a ****b hunter2"),
            (&["first line\nsecond line\n"], "x second line\nfirst line y", "x ****\n**** y"),
            (&["abcdef", "abcdefgh"], "abcdefgh abcdefg", "**** ****g"),
            (&["aaaaaa"], "aaaaaaaaaaaaa", "********a"),
            (&["x", ""], "x marks", "x marks"),
        ] {
            assert_eq!(shown(secrets, &[text.as_bytes()]), expected, "{secrets:?} in {text:?}");
        }
    }

    #[test]
    fn streams_do_not_mix() {
        let mut redactor = Redactor::new([b"hunter22".as_slice()]);
        assert_eq!(redactor.pass(OutputStream::Stdout, b"hunt"), b"");
        assert_eq!(redactor.pass(OutputStream::Stderr, b"er22"), b"er22");
        assert_eq!(redactor.pass(OutputStream::Stdout, b"er22!"), b"****!");
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_output_is_cut(text in "[ab]{0,40}", cuts in prop::collection::vec(0usize..41, 0..5)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            let secrets = ["abaabb", "aabbab"];
            let out = shown(&secrets, &pieces);
            prop_assert_eq!(&out, &shown(&secrets, &[text.as_bytes()]));
            prop_assert!(secrets.iter().all(|secret| !out.contains(secret)));
        }
    }
}
