//! The stages of a Dockerfile as a list of what can be built.

use crate::dockerfile::{Dockerfile, InstructionKind};
use crate::plan::comment_about;

/// A stage that can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Target {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Whether it is built if none is asked for.
    pub is_default: bool,
    /// The comment above its `FROM`, if it begins with its name.
    pub description: Option<String>,
    /// What it builds on, as written.
    pub base: String,
    /// `--platform` as written.
    pub platform: Option<String>,
    /// First and last line of its `FROM`.
    pub lines: (usize, usize),
}

impl Target {
    /// Lists the stages of `dockerfile` in order.
    pub(super) fn list(dockerfile: &Dockerfile) -> Vec<Self> {
        let mut targets: Vec<Self> = vec![];
        for instruction in &dockerfile.instructions {
            let InstructionKind::From { image, platform, name } = &instruction.kind else { continue };
            let name = name.as_ref().map(|name| name.text.clone());
            targets.push(Self {
                description: name.as_ref().and_then(|name| comment_about(&instruction.comments, name)),
                name,
                is_default: false,
                base: image.text.clone(),
                platform: platform.as_ref().map(|platform| platform.text.clone()),
                lines: instruction.lines,
            });
        }
        if let Some(last) = targets.last_mut() {
            last.is_default = true;
        }
        targets
    }
}
