//! What a build can be given: build args, secrets, agents, cache mounts.

use std::collections::{BTreeMap, BTreeSet};

use super::scene::Scene;
use crate::dockerfile::Instruction;
use crate::plan::stages::Stage;

/// What a build of a stage can be given, its own and that of the stages that it needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Outline {
    /// Name of the stage, if it has one.
    pub name: Option<String>,
    /// The comment above its `FROM`, if it begins with its name.
    pub description: Option<String>,
    /// Build args.
    pub args: Vec<OutlineArg>,
    /// Secrets that commands may read.
    pub secrets: Vec<OutlineMount>,
    /// ssh agents that commands may ask.
    pub ssh: Vec<OutlineMount>,
    /// Cache mounts.
    pub caches: Vec<OutlineCache>,
}

/// A build arg that makes a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// The comment above its `ARG`, if it begins with its name.
    pub description: Option<String>,
    /// The value it has in this build.
    pub value: Option<String>,
    /// First and last line of its `ARG`.
    pub lines: (usize, usize),
}

/// A secret or an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutlineMount {
    /// Its id.
    pub id: String,
    /// Whether the build fails without it.
    pub required: bool,
    /// First and last line of the first `RUN` that has it.
    pub lines: (usize, usize),
}

/// A cache mount.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutlineCache {
    /// Its id.
    pub id: String,
    /// First and last line of the first `RUN` that has it.
    pub lines: (usize, usize),
}

/// `ARG`s by name, and which of them make a difference.
#[derive(Debug, Clone, Default)]
pub(super) struct Definitions {
    all: BTreeMap<String, Definition>,
    used: BTreeSet<String>,
}

#[derive(Debug, Clone)]
struct Definition {
    arg: OutlineArg,
    /// Names in its default.
    depends_on: BTreeSet<String>,
}

impl Definitions {
    /// Takes note of what `instruction` defines.
    pub(super) fn define(
        &mut self,
        name: &str,
        value: Option<&str>,
        instruction: &Instruction,
        depends_on: BTreeSet<String>,
    ) {
        let description = comment_about(&instruction.comments, name);
        let lines = instruction.lines;
        let arg = OutlineArg { name: name.to_owned(), description, value: value.map(str::to_owned), lines };
        self.all.insert(name.to_owned(), Definition { arg, depends_on });
    }

    /// Takes note of a name whose value makes a difference.
    pub(super) fn uses(&mut self, name: impl Into<String>) {
        self.used.insert(name.into());
    }

    /// Returns the names, with and without values.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.all.keys().map(String::as_str)
    }

    /// Returns those that make a difference, also by way of others' defaults.
    fn used(&self) -> Vec<OutlineArg> {
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut todo: Vec<&str> = self.used.iter().map(String::as_str).collect();
        while let Some(name) = todo.pop() {
            if seen.insert(name)
                && let Some(definition) = self.all.get(name)
            {
                todo.extend(definition.depends_on.iter().map(String::as_str));
            }
        }
        seen.into_iter().filter_map(|name| self.all.get(name)).map(|definition| definition.arg.clone()).collect()
    }
}

/// Secrets, agents and caches of one stage.
#[derive(Debug, Clone, Default)]
pub(super) struct Mounts {
    pub(super) secrets: Vec<OutlineMount>,
    pub(super) ssh: Vec<OutlineMount>,
    pub(super) caches: Vec<OutlineCache>,
}

/// Adds a secret or an agent, or makes the one that is there required.
pub(super) fn add_mount(mounts: &mut Vec<OutlineMount>, mount: OutlineMount) {
    match mounts.iter_mut().find(|known| known.id == mount.id) {
        Some(known) => known.required |= mount.required,
        None => mounts.push(mount),
    }
}

/// Returns what a comment says of `name`: the rest of the line that begins with it.
pub(crate) fn comment_about(comments: &[String], name: &str) -> Option<String> {
    let of = |comment: &String| comment.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
    comments.iter().find_map(of)
}

/// Collects the outline of `stage`, which is number `target` of `done`.
pub(super) fn of(stage: &Stage<'_>, target: usize, done: &[Scene<'_>]) -> Outline {
    let name = stage.name.map(|name| name.text.clone());
    let description = name.as_ref().and_then(|name| comment_about(&stage.from.comments, name));
    let mut outline = Outline { name, description, ..Outline::default() };
    let mut seen = BTreeSet::new();
    let mut todo = vec![target];
    while let Some(number) = todo.pop() {
        let Some(scene) = done.get(number).filter(|_| seen.insert(number)) else { continue };
        for arg in scene.definitions.used() {
            if !outline.args.iter().any(|known| known.name == arg.name) {
                outline.args.push(arg);
            }
        }
        scene.mounts.secrets.iter().for_each(|mount| add_mount(&mut outline.secrets, mount.clone()));
        scene.mounts.ssh.iter().for_each(|mount| add_mount(&mut outline.ssh, mount.clone()));
        for cache in &scene.mounts.caches {
            if !outline.caches.iter().any(|known| known.id == cache.id) {
                outline.caches.push(cache.clone());
            }
        }
        todo.extend(scene.needs.iter().rev());
    }
    outline.args.sort_by_key(|arg| arg.lines);
    outline.secrets.sort_by_key(|mount| mount.lines);
    outline.ssh.sort_by_key(|mount| mount.lines);
    outline.caches.sort_by_key(|cache| cache.lines);
    outline
}
