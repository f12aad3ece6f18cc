//! What a Dockerfile says of its stages, as far as it can be told without building: findings of the rules that need
//! variables and stages, and what a build of a stage can be given.
//!
//! Unlike a plan, a survey looks at every stage, goes on behind what a plan would fail at, and does without images: a
//! base image that nobody has looked up is unknown, and what depends on it is not told. Two things do: whether a variable
//! is defined, and the platform of the image. That a base image has a shell of its own is so rare that it is taken for
//! granted that it has none.

mod from;
mod needs;
mod outline;
mod scene;
#[cfg(test)]
mod tests;
mod transfer;
mod walk;

pub(crate) use outline::comment_about;
pub use outline::{Outline, OutlineArg, OutlineCache, OutlineMount};

use std::path::Path;

use super::graph::ImageName;
use super::resolve::Contexts;
use super::scope::{self, BuildArgs, Env};
use super::stages::Stages;
use super::{PlanRequest, Problem};
use crate::diagnostic::Span;
use crate::dockerfile::Instruction;
use crate::image::{ImageConfig, Platform};
use crate::lint::{Finding, Linter};
use crate::tree::pattern::PatternSet;
use outline::Definitions;
use scene::Scene;

/// What is known of images without asking anybody.
pub(crate) trait Bases {
    /// Returns the config of the image `name` for `platform`, if it is known.
    fn config(&self, name: &ImageName, platform: &Platform) -> Option<ImageConfig>;
    /// Whether `text` can name an image.
    fn is_name(&self, text: &str) -> bool;
}

/// Which stages count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The target, and what it needs.
    Target,
    /// All of them.
    AllStages,
}

/// What a survey looks at.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// The Dockerfile, and what is asked of it.
    pub(crate) request: &'a PlanRequest<'a>,
    /// Ignore rules of the main context, if it has any.
    pub(crate) ignore: Option<&'a PatternSet>,
    /// The main context, if it is of this machine.
    pub(crate) directory: Option<&'a Path>,
    /// Whether a pattern means any file of a directory that the rules keep, if that can be told.
    pub(crate) selects: fn(&Path, Option<&PatternSet>, &str) -> Option<bool>,
    /// What is known of images.
    pub(crate) bases: &'a dyn Bases,
}

/// A base image that nobody has looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnknownBase {
    /// As the Dockerfile says it, variables expanded.
    pub(crate) name: String,
    /// Line of the `FROM`.
    pub(crate) line: usize,
}

/// What a survey came to.
#[derive(Debug)]
pub(crate) struct Survey<'a> {
    stages: Stages<'a>,
    target: usize,
    /// Findings that count for every build, whatever its target.
    linter: Linter<'a>,
    done: Vec<Scene<'a>>,
}

impl<'a> Survey<'a> {
    /// Looks at all stages. Findings go to `linter`, which may have some already.
    ///
    /// # Errors
    /// There is no stage at all, or not the one that is asked for.
    pub(crate) fn new(subject: Subject<'a>, linter: Linter<'a>) -> Result<Self, Problem> {
        let stages = Stages::split(subject.request.dockerfile)?;
        let target = stages.target(subject.request.target)?;
        let mut surveyor = Surveyor::new(subject, stages, linter);
        surveyor.froms();
        surveyor.default_bases();
        for index in 0..surveyor.stages.all.len() {
            let scene = surveyor.stage(index);
            surveyor.done.push(scene);
        }
        let Surveyor { stages, linter, done, .. } = surveyor;
        Ok(Self { stages, target, linter, done })
    }

    /// Returns the findings in the order of the source.
    pub(crate) fn findings(self, extent: Extent) -> Vec<Finding> {
        let counts = self.counting(extent);
        let of_stages = self.done.into_iter().zip(counts).filter(|(_, counts)| *counts);
        self.linter.finish(of_stages.flat_map(|(scene, _)| scene.findings).collect())
    }

    /// Returns the base images that are not known, in the order of the source.
    pub(crate) fn unknown_bases(&self, extent: Extent) -> Vec<UnknownBase> {
        let of_stages = self.done.iter().zip(self.counting(extent)).filter(|(_, counts)| *counts);
        of_stages.filter_map(|(scene, _)| scene.unknown_base.clone()).collect()
    }

    fn counting(&self, extent: Extent) -> Vec<bool> {
        match extent {
            Extent::AllStages => vec![true; self.done.len()],
            Extent::Target => self.reached(),
        }
    }

    /// Tells of each stage whether the target needs it.
    fn reached(&self) -> Vec<bool> {
        let mut reached = vec![false; self.done.len()];
        let mut todo = vec![self.target];
        while let Some(stage) = todo.pop() {
            if !std::mem::replace(&mut reached[stage], true) {
                todo.extend(&self.done[stage].needs);
            }
        }
        reached
    }

    /// Returns what a build of the target can be given.
    pub(crate) fn outline(&self) -> Outline {
        outline::of(&self.stages.all[self.target], self.target, &self.done)
    }
}

/// Where findings about an instruction are told.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    instruction: &'a Instruction,
    /// In place of any part of the instruction: a trigger of a base image is not in this file.
    span: Option<Span>,
}

impl Place<'_> {
    fn at(&self, span: Span) -> Span {
        self.span.unwrap_or(span)
    }
}

/// A survey under way.
struct Surveyor<'a> {
    subject: Subject<'a>,
    stages: Stages<'a>,
    args: BuildArgs,
    /// Variables of the global scope.
    globals: Env,
    /// `ARG`s of the global scope, with and without values.
    definitions: Definitions,
    contexts: Contexts,
    linter: Linter<'a>,
    done: Vec<Scene<'a>>,
}

impl<'a> Surveyor<'a> {
    fn new(subject: Subject<'a>, stages: Stages<'a>, linter: Linter<'a>) -> Self {
        let request = subject.request;
        let args = BuildArgs::new(request);
        let target = super::lower::target_name(request, &stages);
        let platform = request.platform.unwrap_or(request.build_platform);
        let globals = scope::predefined(&args, request.build_platform, platform, &target);
        let contexts = Contexts::new(request.contexts);
        let definitions = Definitions::default();
        let mut this = Self { subject, stages, args, globals, definitions, contexts, linter, done: vec![] };
        let args = this.args.clone();
        (this.globals, this.definitions) = this.global_scope(&args);
        this
    }

    fn escape(&self) -> char {
        self.subject.request.dockerfile.escape
    }

    fn platform(&self) -> &'a Platform {
        self.subject.request.platform.unwrap_or(self.subject.request.build_platform)
    }
}
