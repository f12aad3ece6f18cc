//! Lines grouped by step: one step streams, the others are held back until it is done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Write;

use builder_core::{Event, StepId, StepInfo};

use super::{Findings, Lines, Progress, duration};

/// Writes plain lines.
pub(super) struct Plain<W> {
    out: W,
    steps: BTreeMap<StepId, StepInfo>,
    /// The step whose lines appear as they come.
    current: Option<StepId>,
    held: BTreeMap<StepId, VecDeque<String>>,
    open: BTreeMap<StepId, Lines>,
    done: Vec<StepId>,
    started: BTreeSet<StepId>,
    /// Caches that results came from.
    found: BTreeMap<StepId, String>,
    findings: Findings,
}

impl<W: Write> Plain<W> {
    /// Writes to `out`.
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            steps: BTreeMap::new(),
            current: None,
            held: BTreeMap::new(),
            open: BTreeMap::new(),
            done: Vec::new(),
            started: BTreeSet::new(),
            found: BTreeMap::new(),
            findings: Findings::default(),
        }
    }

    fn write(&mut self, line: &str) {
        // Whoever reads may have gone; the build goes on.
        drop(writeln!(self.out, "{line}"));
    }

    fn line(&mut self, step: StepId, text: &str) {
        let line = format!("#{} {text}", step.0 + 1);
        if *self.current.get_or_insert(step) == step {
            self.write(&line);
        } else {
            self.held.entry(step).or_default().push_back(line);
        }
    }

    fn name(&self, step: StepId) -> String {
        self.steps.get(&step).map(|info| info.name.clone()).unwrap_or_default()
    }

    fn end(&mut self, step: StepId, text: &str) {
        if let Some(open) = self.open.remove(&step).and_then(|mut lines| lines.take_open()) {
            self.line(step, &open);
        }
        self.line(step, text);
        self.done.push(step);
        while let Some(current) = self.current.filter(|current| self.done.contains(current)) {
            self.done.retain(|done| *done != current);
            self.write("");
            self.current = None;
            // Finished steps first: what is still running then streams.
            let next = self.done.iter().copied().find(|s| self.held.contains_key(s));
            if let Some(next) = next.or_else(|| self.held.keys().next().copied()) {
                self.current = Some(next);
                for line in self.held.remove(&next).unwrap_or_default() {
                    self.write(&line);
                }
            }
        }
    }
}

impl<W: Write> Progress for Plain<W> {
    fn event(&mut self, event: Event) {
        match event {
            Event::Plan { steps } => self.steps.extend(steps.into_iter().map(|info| (info.step, info))),
            Event::Warning { code, message } => self.write(&format!("warning[{code}]: {message}")),
            Event::Finding { text, .. } => self.findings.push(text),
            Event::StepStarted { step, reason } => {
                self.started.insert(step);
                let name = self.name(step);
                self.line(step, &name);
                if let Some(reason) = reason {
                    self.line(step, &format!("not cached: {reason}"));
                }
            }
            Event::StepFound { step, from } => drop(self.found.insert(step, from)),
            Event::StepCached { step } => {
                let name = self.name(step);
                self.line(step, &name);
                match self.found.remove(&step) {
                    Some(from) => self.end(step, &format!("CACHED from {from}")),
                    None => self.end(step, "CACHED"),
                }
            }
            Event::StepOutput { step, bytes, .. } => {
                for line in self.open.entry(step).or_default().push(&bytes) {
                    self.line(step, &line);
                }
            }
            Event::StepFinished { step, duration_ms } => self.end(step, &format!("DONE {}", duration(duration_ms))),
            Event::StepFailed { step, message } => {
                // A step may fail before it starts, when its inputs are looked at.
                if !self.started.contains(&step) {
                    let name = self.name(step);
                    self.line(step, &name);
                }
                self.end(step, &format!("ERROR {message}"));
            }
            Event::Exported { output, digest } => self.write(&format!("exported {output} {digest}")),
            _ => {}
        }
    }

    fn finish(&mut self) {
        for line in std::mem::take(&mut self.held).into_values().flatten() {
            self.write(&line);
        }
        for line in self.findings.take_lines() {
            self.write(&line);
        }
        drop(self.out.flush());
    }
}

#[cfg(test)]
mod tests {
    use builder_core::OutputStream;

    use super::*;

    fn show(events: Vec<Event>) -> String {
        let mut out = Vec::new();
        let mut plain = Plain::new(&mut out);
        let steps = (0..3).map(|n| StepInfo { step: StepId(n), name: format!("[{n}]"), stage: None, line: None });
        plain.event(Event::Plan { steps: steps.collect() });
        events.into_iter().for_each(|event| plain.event(event));
        plain.finish();
        String::from_utf8(out).unwrap()
    }

    fn output(step: usize, text: &str) -> Event {
        Event::StepOutput { step: StepId(step), stream: OutputStream::Stdout, bytes: text.as_bytes().to_vec() }
    }

    fn started(step: usize) -> Event {
        Event::StepStarted { step: StepId(step), reason: None }
    }

    fn finished(step: usize) -> Event {
        Event::StepFinished { step: StepId(step), duration_ms: 5 }
    }

    #[test]
    fn steps_that_run_together_are_shown_one_after_the_other() {
        let text = show(vec![
            started(0),
            started(1),
            output(1, "b1\n"),
            output(0, "a1\na2"),
            finished(1),
            started(2),
            output(2, "c1\n"),
            finished(0),
            output(2, "c2\n"),
            finished(2),
        ]);
        let expected =
            "#1 [0]\n#1 a1\n#1 a2\n#1 DONE 5ms\n\n#2 [1]\n#2 b1\n#2 DONE 5ms\n\n#3 [2]\n#3 c1\n#3 c2\n#3 DONE 5ms\n\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn cached_steps_say_so() {
        assert_eq!(show(vec![Event::StepCached { step: StepId(0) }]), "#1 [0]\n#1 CACHED\n\n");
    }

    #[test]
    fn what_another_machine_did_is_said_to_be() {
        let found = Event::StepFound { step: StepId(0), from: "h/cache".to_owned() };
        assert_eq!(show(vec![found, Event::StepCached { step: StepId(0) }]), "#1 [0]\n#1 CACHED from h/cache\n\n");
    }

    #[test]
    fn what_is_held_back_is_shown_at_the_end() {
        assert_eq!(show(vec![started(0), started(1), output(1, "x\n")]), "#1 [0]\n#2 [1]\n#2 x\n");
    }

    #[test]
    fn findings_are_shown_when_the_build_is_over() {
        let finding = |text: &str| Event::Finding {
            rule: "Rule".to_owned(),
            message: "message".to_owned(),
            line: 1,
            text: text.to_owned(),
        };
        let cached = Event::StepCached { step: StepId(0) };
        assert_eq!(
            show(vec![finding("one\n  two\n"), cached.clone()]),
            "#1 [0]\n#1 CACHED\n\n1 warning found:\n\none\n  two\n\n"
        );
        assert_eq!(
            show(vec![finding("one\n"), cached, finding("two\n")]),
            "#1 [0]\n#1 CACHED\n\n2 warnings found:\n\none\n\ntwo\n\n"
        );
    }
}
