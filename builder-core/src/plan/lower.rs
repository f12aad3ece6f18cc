//! Walks the stages that the target needs, each after those it needs itself.
//!
//! A stage may turn out to need another one in the middle (`COPY --from=$NAME`, a trigger of its base image): it waits
//! on a stack of its own until that one is done. Stages take only from earlier ones, so the stack is never deeper than
//! the file has stages and never holds one twice.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use super::expand::Expander;
use super::graph::{BuildGraph, ImageName, ResolvedImage, TargetImage};
use super::resolve::Contexts;
use super::scope::{self, BuildArgs, Env};
use super::stages::{self, Stage, Stages};
use super::state::StageState;
use super::steps::{Source, Steps};
use super::{Error, ImageResolver, PlanRequest, config, epoch};
use crate::diagnostic::{Diagnostic, Span, nearest};
use crate::dockerfile::{Dockerfile, Instruction, InstructionKind};
use crate::image::Platform;

/// Everything that lowering reads and adds to.
pub(super) struct Planner<'a> {
    pub(super) request: &'a PlanRequest<'a>,
    pub(super) resolver: &'a dyn ImageResolver,
    pub(super) stages: Stages<'a>,
    pub(super) target: usize,
    pub(super) args: BuildArgs,
    /// Variables of the global scope.
    pub(super) globals: Env,
    pub(super) contexts: Contexts,
    pub(super) expander: Expander,
    pub(super) steps: Steps,
    /// Images found so far.
    pub(super) images: BTreeMap<(ImageName, String), Arc<ResolvedImage>>,
    /// Stages that are done.
    done: Vec<Option<Rc<StageState>>>,
    /// Names that triggers of base images declared.
    trigger_args: Vec<String>,
    epoch: Option<i64>,
}

/// An instruction on its way to be done.
pub(super) struct Item<'a> {
    /// It.
    pub(super) instruction: Cow<'a, Instruction>,
    /// Where it comes from.
    pub(super) origin: Origin,
}

/// Where an instruction comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// The stage itself.
    Stage,
    /// An `ONBUILD` of the stage below, in this file.
    Onbuild,
    /// An `ONBUILD` of the base image: its spans mean nothing here.
    BaseImage {
        /// The trigger as the image has it.
        trigger: String,
        /// The `FROM` that brought it in.
        from: Span,
        /// First line of that.
        line: usize,
    },
}

impl Item<'_> {
    /// Returns where a step of this instruction, done at the place of `state`, comes from.
    pub(super) fn source(&self, state: &StageState) -> Source {
        let (span, line) = match &self.origin {
            Origin::BaseImage { from, line, .. } => (*from, *line),
            Origin::Stage | Origin::Onbuild => (self.instruction.span, self.instruction.lines.0),
        };
        Source { place: state.place(), span: Some(span), line: Some(line) }
    }

    /// Returns `text` as the name of a step of this instruction.
    pub(super) fn label(&self, text: &str) -> super::steps::Label {
        let prefix = if self.origin == Origin::Stage { "" } else { "ONBUILD " };
        super::steps::Label::Counted(format!("{prefix}{text}"))
    }
}

/// A stage being lowered, or waiting.
struct Lowering<'a> {
    stage: Stage<'a>,
    state: Option<StageState>,
    items: VecDeque<Item<'a>>,
}

enum Progress {
    Needs(usize),
    Done(Box<StageState>),
}

/// How a stage starts.
pub(super) enum Start {
    /// Another stage must be done first.
    Needs(usize),
    /// With this, and the triggers of the base image.
    With(Box<StageState>, Vec<String>),
    /// This is all of it: something else stands for the stage.
    Replaced(Box<StageState>),
}

impl<'a> Planner<'a> {
    /// Reads everything that stands before the first stage.
    pub(super) fn new(request: &'a PlanRequest<'a>, resolver: &'a dyn ImageResolver) -> Result<Self, Error> {
        let stages = Stages::split(request.dockerfile)?;
        let target = stages.target(request.target)?;
        let mut args = BuildArgs::new(request);
        let platform = request.platform.unwrap_or(request.build_platform);
        let mut globals = scope::predefined(&args, request.build_platform, platform, &target_name(request, &stages));
        let mut expander = Expander::new(request.dockerfile.escape);
        for declared in &stages.globals {
            let value = match (args.get(&declared.name.text), &declared.default) {
                (Some(value), _) => Some(value.to_owned()),
                (None, Some(default)) => Some(expander.base_word(default, &globals)?),
                (None, None) => None,
            };
            if let Some(value) = value {
                globals.set(&declared.name.text, value);
            }
        }
        let contexts = Contexts::new(request.contexts);
        let epoch = epoch::resolve(&mut args, &mut globals, &stages, &contexts)?;
        Ok(Self {
            request,
            resolver,
            done: vec![None; stages.all.len()],
            stages,
            target,
            args,
            globals,
            contexts,
            expander,
            steps: Steps::default(),
            images: BTreeMap::new(),
            trigger_args: vec![],
            epoch,
        })
    }

    /// Returns the platform of the image.
    pub(super) fn platform(&self) -> &'a Platform {
        self.request.platform.unwrap_or(self.request.build_platform)
    }

    /// Lowers the target and what it needs.
    pub(super) fn run(mut self) -> Result<BuildGraph, Error> {
        self.prefetch();
        let mut waiting = vec![self.lowering(self.target)];
        while let Some(top) = waiting.last_mut() {
            match self.advance(top)? {
                Progress::Needs(stage) => waiting.push(self.lowering(stage)),
                Progress::Done(state) => {
                    let stage = state.stage;
                    self.done[stage] = Some(Rc::from(state));
                    waiting.pop();
                }
            }
        }
        let state = self.stage_done(self.target).expect("the target was at the bottom of the stack");
        let warnings = self.warnings();
        let target = self.target_image(&state);
        let is_unused = |stage: &&Stage<'_>| self.done[stage.index].is_none();
        let unused_stages = self.stages.all.iter().filter(is_unused).map(|stage| stage.name_or_number()).collect();
        Ok(BuildGraph { unused_stages, ..self.steps.finish(target, warnings, &self.stages) })
    }

    fn target_image(&self, state: &StageState) -> TargetImage {
        let mut config = state.config.clone();
        for (key, value) in self.request.labels {
            config::set_label(&mut config, key, value);
        }
        if let Some(platform) = self.request.platform {
            config::set_platform(&mut config, platform);
        }
        config::normalize_platform(&mut config);
        TargetImage {
            root: state.root,
            base: state.base,
            config,
            history: state.history.clone(),
            source_date_epoch: self.epoch,
        }
    }

    fn warnings(&mut self) -> Vec<Diagnostic> {
        let mut declared = self.stages.declared_args();
        declared.extend(self.trigger_args.iter().map(String::as_str));
        let mut warnings = std::mem::take(&mut self.expander.warnings);
        for name in self.args.unknown(&declared, &self.globals) {
            let near = nearest(name, declared.iter().copied());
            let warning = Diagnostic::warning("unused-build-arg", format!("no ARG declares the build arg {name:?}"))
                .with_hint_if(near.map(|near| format!("did you mean {near:?}?")));
            warnings.push(warning);
        }
        // A stage that waited has expanded the same words twice.
        let mut unique: Vec<Diagnostic> = vec![];
        for warning in warnings {
            if !unique.contains(&warning) {
                unique.push(warning);
            }
        }
        unique.sort_by_key(|warning| warning.primary.as_ref().map_or(usize::MAX, |label| label.span.start));
        unique
    }

    fn lowering(&self, stage: usize) -> Lowering<'a> {
        Lowering { stage: self.stages.all[stage], state: None, items: VecDeque::new() }
    }

    /// Returns a stage that is done.
    pub(super) fn stage_done(&self, stage: usize) -> Option<Rc<StageState>> {
        self.done[stage].clone()
    }

    fn advance(&mut self, lowering: &mut Lowering<'a>) -> Result<Progress, Error> {
        let mut state = match lowering.state.take() {
            Some(state) => state,
            None => match self.start(lowering.stage)? {
                Start::Needs(stage) => return Ok(Progress::Needs(stage)),
                Start::Replaced(state) => return Ok(Progress::Done(state)),
                Start::With(state, triggers) => {
                    lowering.items = self.items(lowering.stage, triggers)?;
                    *state
                }
            },
        };
        while let Some(item) = lowering.items.pop_front() {
            state.position += 1;
            let warned = self.expander.warnings.len();
            match self.missing_stage(&state, &item).map_err(|err| relocate(err, &item)) {
                Err(err) => return Err(err),
                Ok(Some(stage)) => {
                    state.position -= 1;
                    lowering.items.push_front(item);
                    lowering.state = Some(state);
                    return Ok(Progress::Needs(stage));
                }
                Ok(None) => {}
            }
            self.dispatch(&mut state, &item).map_err(|err| relocate(err, &item))?;
            for warning in &mut self.expander.warnings[warned..] {
                relocate_diagnostic(warning, &item);
            }
        }
        Ok(Progress::Done(Box::new(state)))
    }

    /// Collects the instructions of `stage` behind the triggers of what it builds on.
    fn items(&mut self, stage: Stage<'a>, triggers: Vec<String>) -> Result<VecDeque<Item<'a>>, Error> {
        let mut items = VecDeque::new();
        for trigger in triggers {
            let origin =
                Origin::BaseImage { trigger: trigger.clone(), from: stage.image.span, line: stage.from.lines.0 };
            let parsed = Dockerfile::parse_trigger(&trigger, '\\');
            let instruction = parsed.map_err(|problem| relocate(Error::from(Box::new(problem)), &origin))?;
            let names = stages::arguments(&instruction).iter().map(|arg| arg.name.text.clone());
            self.trigger_args.extend(names);
            items.push_back(Item { instruction: Cow::Owned(instruction), origin });
        }
        let below = self
            .base_stage(stage)?
            .filter(|&below| self.replacement(self.stages.all[below], self.platform()).is_none());
        if let Some(below) = below {
            for instruction in self.stages.all[below].instructions {
                if let InstructionKind::Onbuild { instruction, .. } = &instruction.kind {
                    items.push_back(Item { instruction: Cow::Borrowed(&**instruction), origin: Origin::Onbuild });
                }
            }
        }
        for instruction in stage.instructions {
            items.push_back(Item { instruction: Cow::Borrowed(instruction), origin: Origin::Stage });
        }
        Ok(items)
    }

    /// Returns a stage that `item` takes files from and that is not done yet.
    fn missing_stage(&mut self, state: &StageState, item: &Item<'_>) -> Result<Option<usize>, Error> {
        let needed = match &item.instruction.kind {
            InstructionKind::Copy(copy) => self.copy_stage(state, copy)?.into_iter().collect(),
            InstructionKind::Run(run) => self.mount_stages(state, run)?,
            _ => vec![],
        };
        Ok(needed.into_iter().find(|&stage| self.done[stage].is_none()))
    }

    fn dispatch(&mut self, state: &mut StageState, item: &Item<'_>) -> Result<(), Error> {
        match &item.instruction.kind {
            InstructionKind::From { .. } => unreachable!("stages are split at FROM, and no trigger is one"),
            InstructionKind::Run(run) => self.run_instruction(state, item, run)?,
            InstructionKind::Copy(copy) => self.copy_instruction(state, item, copy)?,
            InstructionKind::Add(add) => self.add_instruction(state, item, add)?,
            InstructionKind::Workdir(path) => self.workdir_instruction(state, item, path)?,
            InstructionKind::Env(pairs) => self.env_instruction(state, pairs)?,
            InstructionKind::Label(pairs) => self.label_instruction(state, pairs)?,
            InstructionKind::Arg(declarations) => self.arg_instruction(state, declarations)?,
            InstructionKind::User(user) => self.user_instruction(state, user)?,
            InstructionKind::Expose(ports) => self.expose_instruction(state, ports)?,
            InstructionKind::Volume(paths) => self.volume_instruction(state, paths)?,
            InstructionKind::StopSignal(signal) => self.stop_signal_instruction(state, signal)?,
            other => super::metadata::plain_instruction(state, other),
        }
        Ok(())
    }
}

/// Returns what `TARGETSTAGE` says: the target as the user wrote it, the name of the last stage, or `default`.
pub(super) fn target_name(request: &PlanRequest<'_>, stages: &Stages<'_>) -> String {
    let asked = request.target.filter(|target| !target.is_empty()).map(str::to_owned);
    let last = || stages.all.last().and_then(|stage| stage.name).map(|name| name.text.clone());
    asked.or_else(last).unwrap_or_else(|| "default".to_owned())
}

/// Points the problems of a base image's trigger at the `FROM` that brought it in.
fn relocate<O: AsRef<Origin>>(error: Error, origin: &O) -> Error {
    match error {
        Error::Dockerfile { mut diagnostics } => {
            diagnostics.iter_mut().for_each(|diagnostic| relocate_diagnostic(diagnostic, origin));
            Error::Dockerfile { diagnostics }
        }
        Error::Resolve { mut diagnostic, source } => {
            relocate_diagnostic(&mut diagnostic, origin);
            Error::Resolve { diagnostic, source }
        }
    }
}

fn relocate_diagnostic<O: AsRef<Origin>>(diagnostic: &mut Diagnostic, origin: &O) {
    if let Origin::BaseImage { trigger, from, .. } = origin.as_ref() {
        let moved = std::mem::replace(diagnostic, Diagnostic::error("", ""));
        let note = format!("in the trigger {trigger:?} of this image");
        *diagnostic = Diagnostic { secondary: vec![], ..moved }.at(*from).with_note(note);
    }
}

impl AsRef<Self> for Origin {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl AsRef<Origin> for Item<'_> {
    fn as_ref(&self) -> &Origin {
        &self.origin
    }
}
