//! What a name stands for: named context, then stage, then image; and how a stage starts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::graph::{
    ContextName, CopyKind, CopyOp, CopySourceOp, FileInput, ImageName, ImageSource, Op, PlannedHistory, ResolvedImage,
    RootInput,
};
use super::lower::{Planner, Start};
use super::stages::{FromName, Stage};
use super::state::StageState;
use super::steps::{Label, Source};
use super::{Error, NamedContext, Problem, config, mount_options};
use crate::diagnostic::{Diagnostic, Span, nearest};
use crate::dockerfile::{InstructionKind, Word};
use crate::event::StepId;
use crate::image::Platform;

/// Named contexts by the short form of their names.
#[derive(Debug)]
pub(super) struct Contexts(BTreeMap<String, (String, NamedContext)>);

impl Contexts {
    /// Takes the contexts of a request.
    pub(super) fn new(contexts: &[(String, NamedContext)]) -> Self {
        let short = |name: &str| match name.split_once("::") {
            Some((name, platform)) => format!("{}::{platform}", familiar(name)),
            None => familiar(name).to_owned(),
        };
        Self(contexts.iter().map(|(name, context)| (short(name), (name.clone(), *context))).collect())
    }

    /// Returns whether a context is called `name`, for any platform.
    pub(super) fn is_known(&self, name: &str) -> bool {
        self.0.keys().any(|key| key.split("::").next() == Some(familiar(name)))
    }

    /// Returns their names, without platforms.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().filter_map(|key| key.split("::").next())
    }

    /// Returns the context called `name`, best the one for `platform`, with its name as the user gave it.
    pub(super) fn get(&self, name: &str, platform: &Platform) -> Option<(&str, NamedContext)> {
        if name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context") {
            return None;
        }
        let name = familiar(name);
        let found = self.0.get(&format!("{name}::{platform}")).or_else(|| self.0.get(name));
        found.map(|(given, context)| (given.as_str(), *context))
    }
}

/// Returns the short form of a reference: no `docker.io/library/`, no `:latest`.
fn familiar(name: &str) -> &str {
    let name = name.strip_prefix("index.docker.io/").or_else(|| name.strip_prefix("docker.io/")).unwrap_or(name);
    let name = match name.strip_prefix("library/") {
        Some(rest) if !rest.contains('/') => rest,
        _ => name,
    };
    name.strip_suffix(":latest").unwrap_or(name)
}

/// What a name that is no stage stands for.
enum Outside {
    Scratch,
    Directory(String),
    Image(ImageName),
}

impl<'a> Planner<'a> {
    fn outside(&self, name: &str, platform: &Platform) -> Outside {
        match self.contexts.get(name, platform) {
            Some((_, NamedContext::Scratch)) => Outside::Scratch,
            Some((given, NamedContext::Directory)) => Outside::Directory(given.to_owned()),
            Some((given, NamedContext::Image)) => Outside::Image(ImageName::Context(given.to_owned())),
            None if name == "scratch" => Outside::Scratch,
            None => Outside::Image(ImageName::Reference(name.to_owned())),
        }
    }

    /// Returns the earlier stage that `stage` builds on, if it builds on one.
    pub(super) fn base_stage(&mut self, stage: Stage<'a>) -> Result<Option<usize>, Problem> {
        let name = self.base_name(stage)?;
        Ok(self.stages.named(&name, stage.index))
    }

    fn base_name(&mut self, stage: Stage<'a>) -> Result<String, Problem> {
        let name = self.expander.base_word(stage.image, &self.globals)?;
        if name.is_empty() {
            let problem = Diagnostic::error("from-empty", format!("the image name {:?} is empty", stage.image.text))
                .at(stage.image.span)
                .with_note("only ARGs before the first FROM are visible here")
                .with_hint("give the ARG a default, or pass it with --build-arg");
            return Err(Box::new(problem));
        }
        Ok(name)
    }

    fn stage_platform(&mut self, stage: Stage<'a>) -> Result<Option<Platform>, Problem> {
        let Some(word) = stage.platform else { return Ok(None) };
        let text = self.expander.base_word(word, &self.globals)?;
        let problem = match text.parse::<Platform>() {
            Ok(platform) => return Ok(Some(platform)),
            Err(_) if text.is_empty() => {
                Diagnostic::error("platform-invalid", format!("the platform {:?} is empty", word.text))
            }
            Err(err) => Diagnostic::error("platform-invalid", err.to_string()),
        };
        Err(Box::new(problem.at(word.span).with_hint("write OS/ARCH[/VARIANT], for example linux/arm64")))
    }

    /// Starts `stage`: on another stage, an image or nothing.
    pub(super) fn start(&mut self, stage: Stage<'a>) -> Result<Start, Error> {
        let platform = self.stage_platform(stage)?;
        let platform = platform.unwrap_or_else(|| self.platform().clone());
        if let Some(name) = self.replacement(stage, &platform) {
            return self.replaced_stage(stage, name, platform).map(Start::Replaced);
        }
        let name = self.base_name(stage)?;
        if let Some(below) = self.stages.named(&name, stage.index) {
            let Some(below) = self.stage_done(below) else { return Ok(Start::Needs(below)) };
            let mut state = below.child(stage.index);
            state.load_env();
            return Ok(Start::With(Box::new(state), vec![]));
        }
        let mut state = self.outside_state(stage, &name, platform, stage.image.span)?;
        let triggers = config::take_triggers(&mut state.config);
        state.load_env();
        Ok(Start::With(Box::new(state), triggers))
    }

    /// Returns the name of `stage` if a named context stands for it.
    pub(super) fn replacement(&self, stage: Stage<'a>, platform: &Platform) -> Option<&'a Word> {
        stage.name.filter(|name| self.contexts.get(&name.text, platform).is_some())
    }

    /// A named context stands for the whole stage: none of its instructions are done.
    fn replaced_stage(&mut self, stage: Stage<'a>, name: &Word, platform: Platform) -> Result<Box<StageState>, Error> {
        let mut state = self.outside_state(stage, &name.text, platform, name.span)?;
        config::take_triggers(&mut state.config);
        state.load_env();
        Ok(Box::new(state))
    }

    fn outside_state(
        &mut self,
        stage: Stage<'a>,
        name: &str,
        platform: Platform,
        span: Span,
    ) -> Result<StageState, Error> {
        let source = Source { place: (stage.index, 0), span: Some(stage.from.span), line: Some(stage.from.lines.0) };
        let scratch = config::empty(&platform);
        match self.outside(name, &platform) {
            Outside::Scratch => Ok(StageState::new(stage.index, RootInput::Scratch, scratch, platform)),
            Outside::Directory(context) => {
                let mut state = StageState::new(stage.index, RootInput::Scratch, scratch, platform);
                self.start_from_directory(&mut state, context, source);
                Ok(state)
            }
            Outside::Image(name) => {
                let image = self.image(name.clone(), &platform, span)?;
                let label = match &name {
                    ImageName::Reference(_) => Label::Counted(format!("FROM {}", image.name)),
                    ImageName::Context(context) => Label::Plain(format!("[context {context}] {}", image.name)),
                };
                let config = config::inherit(&image.config);
                let op = Op::Image(ImageSource { name, platform: platform.clone(), image });
                let step = self.steps.add(op, source, label);
                let mut state = StageState::new(stage.index, RootInput::Step(step), config, platform);
                state.base = Some(step);
                Ok(state)
            }
        }
    }

    /// Makes the files of a directory the file system of a stage: as one layer.
    fn start_from_directory(&mut self, state: &mut StageState, context: String, source: Source) {
        let created_by = format!("[context {context}] load from client");
        let files = FileInput::Context(self.context(ContextName::Named(context), &source));
        let op = CopyOp {
            parent: RootInput::Scratch,
            workdir: "/".to_owned(),
            dest: "/".to_owned(),
            sources: vec![CopySourceOp::Path { from: files, pattern: "/".to_owned() }],
            chown: None,
            chmod: None,
            link: false,
            parents: false,
            excludes: vec![],
            kind: CopyKind::Copy,
        };
        let step = self.steps.add(Op::Copy(Box::new(op)), source, Label::Plain(created_by.clone()));
        state.set_root(step);
        state.files = files;
        state.history.push(PlannedHistory { created_by, comment: "buildkit.exporter.image.v0", layer: Some(step) });
    }

    /// Returns the step that provides the context `name`.
    pub(super) fn context(&mut self, name: ContextName, user: &Source) -> StepId {
        let label = match &name {
            ContextName::Main => "[internal] load build context".to_owned(),
            ContextName::Named(name) => format!("[context {name}] load from client"),
        };
        let source = Source { place: user.place, span: None, line: None };
        self.steps.add(Op::Context(name), source, Label::Plain(label))
    }

    /// Returns the files that `from` at `span` means in a stage.
    pub(super) fn files(&mut self, from: &FromName, span: Span, source: &Source) -> Result<FileInput, Error> {
        let name = match from {
            FromName::Stage(stage) => {
                let state = self.stage_done(*stage).expect("an instruction waits for the stages it takes from");
                return Ok(state.files);
            }
            FromName::External(name) => name,
        };
        let platform = self.platform().clone();
        match self.outside(name, &platform) {
            Outside::Scratch => Ok(FileInput::Root(RootInput::Scratch)),
            Outside::Directory(context) => Ok(FileInput::Context(self.context(ContextName::Named(context), source))),
            Outside::Image(name) => {
                let image = self.image(name.clone(), &platform, span)?;
                let label = match &name {
                    ImageName::Reference(_) => format!("FROM {}", image.name),
                    ImageName::Context(context) => format!("[context {context}] {}", image.name),
                };
                let op = Op::Image(ImageSource { name, platform, image });
                let step = self.steps.add(op, source.clone(), Label::Plain(label));
                Ok(FileInput::Root(RootInput::Step(step)))
            }
        }
    }

    fn image(&mut self, name: ImageName, platform: &Platform, span: Span) -> Result<Arc<ResolvedImage>, Error> {
        let key = (name, platform.to_string());
        if let Some(image) = self.images.get(&key) {
            return Ok(Arc::clone(image));
        }
        match self.resolver.resolve(&key.0, platform) {
            Ok(image) => Ok(Arc::clone(self.images.entry(key).or_insert(Arc::new(image)))),
            Err(source) => {
                let (ImageName::Reference(name) | ImageName::Context(name)) = &key.0;
                let diagnostic = Diagnostic::error("image-not-found", format!("the image {name:?} cannot be used"))
                    .at(span)
                    .with_hint_if(self.meant(&key.0));
                Err(Error::Resolve { diagnostic: Box::new(diagnostic), source })
            }
        }
    }

    /// What a name that is no image may be a slip of: a stage, or a named context.
    fn meant(&self, name: &ImageName) -> Option<String> {
        let ImageName::Reference(name) = name else { return None };
        let stages = self.stages.names().map(|stage| (stage, "stage"));
        let known: Vec<_> = stages.chain(self.contexts.names().map(|context| (context, "context"))).collect();
        let near = nearest(name, known.iter().map(|(name, _)| *name))?;
        let (_, kind) = known.iter().find(|(name, _)| *name == near)?;
        Some(format!("did you mean the {kind} {near:?}?"))
    }

    /// Tells the resolver which images will be needed for certain: those that the stages say in plain words.
    pub(super) fn prefetch(&mut self) {
        let warned = self.expander.warnings.len();
        let mut wanted = vec![];
        let mut todo = vec![self.target];
        let mut seen = vec![false; self.stages.all.len()];
        while let Some(index) = todo.pop() {
            if std::mem::replace(&mut seen[index], true) {
                continue;
            }
            // Whatever is wrong is told when the stage is really done.
            todo.extend(self.prefetch_stage(self.stages.all[index], &mut wanted).unwrap_or_default());
        }
        self.expander.warnings.truncate(warned);
        if wanted.len() > 1 {
            self.resolver.prefetch(&wanted);
        }
    }

    fn prefetch_stage(
        &mut self,
        stage: Stage<'a>,
        wanted: &mut Vec<(ImageName, Platform)>,
    ) -> Result<Vec<usize>, Problem> {
        let own = self.stage_platform(stage)?.unwrap_or_else(|| self.platform().clone());
        let mut names = vec![];
        match self.replacement(stage, &own) {
            Some(name) => names.push((FromName::External(name.text.clone()), own)),
            None => {
                let base = self.base_name(stage)?;
                let below = self.stages.named(&base, stage.index);
                names.push((below.map_or(FromName::External(base), FromName::Stage), own));
                for word in stage.instructions.iter().flat_map(plain_froms) {
                    let from = self.stages.means(&word.0, word.1, stage.index)?;
                    names.push((from, self.platform().clone()));
                }
            }
        }
        let mut stages = vec![];
        for (name, platform) in names {
            match name {
                FromName::Stage(index) => stages.push(index),
                FromName::External(name) => {
                    if let Outside::Image(image) = self.outside(&name, &platform)
                        && !wanted.contains(&(image.clone(), platform.clone()))
                    {
                        wanted.push((image, platform));
                    }
                }
            }
        }
        Ok(stages)
    }
}

/// Returns the `--from`s of an instruction that hold no variable.
fn plain_froms(instruction: &crate::dockerfile::Instruction) -> Vec<(String, Span)> {
    let froms = match &instruction.kind {
        InstructionKind::Copy(copy) => copy.from.iter().map(|from| (from.text.clone(), from.span)).collect(),
        InstructionKind::Run(run) => {
            run.mounts.iter().filter_map(|mount| Some((mount_options::plain_from(&mount.text)?, mount.span))).collect()
        }
        _ => vec![],
    };
    froms.into_iter().filter(|(name, _)| !name.is_empty() && !name.contains(['$', '\\', '`', '"', '\''])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names() {
        for (name, want) in [
            ("alpine", "alpine"),
            ("docker.io/library/alpine:latest", "alpine"),
            ("library/alpine:3", "alpine:3"),
            ("docker.io/user/app", "user/app"),
            ("library/a/b", "library/a/b"),
            ("quay.io/x:latest", "quay.io/x"),
        ] {
            assert_eq!(familiar(name), want);
        }
    }
}
