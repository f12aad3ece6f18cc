//! One event a line on standard output, as `builder_core::Event` serialises.

use std::io::Write as _;

use builder_core::Event;

use super::Progress;

/// Writes JSON lines.
pub(super) struct Json;

impl Progress for Json {
    fn event(&mut self, event: Event) {
        let mut out = std::io::stdout().lock();
        // A reader that went away ends nothing: the build's result is still wanted.
        if let Ok(line) = serde_json::to_string(&event) {
            drop(writeln!(out, "{line}"));
        }
    }

    fn finish(&mut self) {
        drop(std::io::stdout().flush());
    }
}
