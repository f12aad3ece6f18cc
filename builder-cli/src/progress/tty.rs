//! Live steps with elapsed time and the tail of their output.

use std::collections::BTreeMap;
use std::time::Duration;

use builder_core::{Event, StepId, StepInfo};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Findings, Lines, Progress, duration};

/// Lines of output shown below a running step.
const TAIL: usize = 4;
/// Running steps that get a tail: many lines flicker, and a screen is only so high.
const MOST_LIVE: usize = 6;

struct Live {
    bar: ProgressBar,
    tail: Vec<String>,
    lines: Lines,
}

/// Draws on the terminal behind standard error.
pub(super) struct Tty {
    screen: MultiProgress,
    steps: BTreeMap<StepId, StepInfo>,
    live: BTreeMap<StepId, Live>,
    /// Caches that results came from.
    found: BTreeMap<StepId, String>,
    findings: Findings,
}

impl Tty {
    /// Starts with an empty screen part below the cursor.
    pub(super) fn new() -> Self {
        let screen = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        let (steps, live, found) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { screen, steps, live, found, findings: Findings::default() }
    }

    fn name(&self, step: StepId) -> String {
        self.steps.get(&step).map(|info| info.name.clone()).unwrap_or_default()
    }

    fn println(&self, line: &str) {
        // Drawing fails when the terminal went away; the build goes on.
        drop(self.screen.println(line));
    }

    fn start(&mut self, step: StepId) {
        // A step may start over.
        if let Some(before) = self.live.remove(&step) {
            before.bar.finish_and_clear();
            self.screen.remove(&before.bar);
        }
        let bar = self.screen.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {prefix:.bold} {elapsed:.dim}{msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(clip(&self.name(step), 12));
        bar.enable_steady_tick(Duration::from_millis(100));
        self.live.insert(step, Live { bar, tail: Vec::new(), lines: Lines::default() });
    }

    fn output(&mut self, step: StepId, bytes: &[u8]) {
        let shows_tail = self.live.keys().take(MOST_LIVE).any(|live| *live == step);
        let Some(live) = self.live.get_mut(&step) else { return };
        live.tail.extend(live.lines.push(bytes));
        let excess = live.tail.len().saturating_sub(TAIL);
        live.tail.drain(..excess);
        if shows_tail {
            let text: String = live.tail.iter().map(|line| format!("\n  \x1b[2m{}\x1b[0m", clip(line, 3))).collect();
            live.bar.set_message(text);
        }
    }

    fn end(&mut self, step: StepId, mark: &str, note: &str) {
        if let Some(live) = self.live.remove(&step) {
            live.bar.finish_and_clear();
            self.screen.remove(&live.bar);
        }
        let line = format!("{mark} {} {note}", clip(&self.name(step), 14));
        self.println(&line);
    }
}

/// Cuts a text so that it fits on one line of the terminal with `reserve` columns left.
fn clip(text: &str, reserve: usize) -> String {
    let width = usize::from(console::Term::stderr().size().1).saturating_sub(reserve).max(20);
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

impl Progress for Tty {
    fn event(&mut self, event: Event) {
        match event {
            Event::Plan { steps } => self.steps.extend(steps.into_iter().map(|info| (info.step, info))),
            Event::Warning { code, message } => self.println(&format!("\x1b[33mwarning[{code}]\x1b[0m: {message}")),
            Event::Finding { text, .. } => self.findings.push(text),
            Event::StepFound { step, from } => drop(self.found.insert(step, from)),
            Event::StepStarted { step, reason } => {
                self.start(step);
                if let (Some(live), Some(reason)) = (self.live.get(&step), reason) {
                    // Until there is output.
                    live.bar.set_message(format!("\n  \x1b[2mnot cached: {}\x1b[0m", clip(&reason, 15)));
                }
            }
            Event::StepCached { step } => {
                let from = self.found.remove(&step).map(|from| format!(" from {from}")).unwrap_or_default();
                self.end(step, "\x1b[36m=\x1b[0m", &format!("\x1b[36mCACHED\x1b[0m{}", clip(&from, 40)));
            }
            Event::StepOutput { step, bytes, .. } => self.output(step, &bytes),
            Event::StepProgress { step, label, current, total } => {
                if let Some(live) = self.live.get(&step) {
                    let of = total.map(|total| format!(" / {:.1} MB", megabytes(total))).unwrap_or_default();
                    live.bar.set_message(format!("  {label} {:.1} MB{of}", megabytes(current)));
                }
            }
            Event::StepFinished { step, duration_ms } => self.end(step, "\x1b[32m✔\x1b[0m", &duration(duration_ms)),
            Event::StepFailed { step, .. } => self.end(step, "\x1b[31m✘\x1b[0m", "\x1b[31mERROR\x1b[0m"),
            Event::Exported { output, .. } => self.println(&format!("\x1b[32m→\x1b[0m {output}")),
            _ => {}
        }
    }

    fn finish(&mut self) {
        for live in std::mem::take(&mut self.live).into_values() {
            live.bar.finish_and_clear();
        }
        for line in self.findings.take_lines() {
            match line.strip_prefix("warning[").and_then(|rest| rest.split_once(']')) {
                Some((rule, message)) => self.println(&format!("\x1b[33mwarning[{rule}]\x1b[0m{message}")),
                None => self.println(&line),
            }
        }
        drop(self.screen.clear());
    }
}

/// Bytes as megabytes, for display alone.
#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
