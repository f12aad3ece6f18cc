//! One stage after the other, one instruction after the other.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::outline::{OutlineCache, OutlineMount, add_mount};
use super::scene::{Knowledge, Scene, Shell, Workdir};
use super::{Place, Surveyor, UnknownBase};
use crate::diagnostic::{Diagnostic, Span, nearest};
use crate::dockerfile::{
    ArgDeclaration, Command, Dockerfile, Instruction, InstructionKind, KeyValue, RunInstruction, Word, csv,
    expand_word, expand_words,
};
use crate::image::Platform;
use crate::lint::{
    EXPOSE_INVALID_FORMAT, EXPOSE_PROTO_CASING, INVALID_BASE_IMAGE_PLATFORM, JSON_ARGS_RECOMMENDED,
    LEGACY_KEY_VALUE_FORMAT, MULTIPLE_INSTRUCTIONS_DISALLOWED, SECRETS_USED_IN_ARG_OR_ENV, UNDEFINED_VAR,
    WORKDIR_RELATIVE_PATH,
};
use crate::plan::expand::Expander;
use crate::plan::graph::{ImageName, Need};
use crate::plan::mount_options::Options;
use crate::plan::scope::{self, DeclaredArg};
use crate::plan::stages::Stage;
use crate::plan::{NamedContext, config};

/// An instruction to look at, and where findings about it are told.
type Item<'a> = (Cow<'a, Instruction>, Place<'a>);

impl<'a> Surveyor<'a> {
    /// Looks at stage `index`; those before it are done.
    pub(super) fn stage(&mut self, index: usize) -> Scene<'a> {
        let stage = self.stages.all[index];
        let count = self.linter.count();
        let (mut scene, items) = self.start(stage);
        for (instruction, place) in items {
            self.instruction(&mut scene, &instruction, place);
        }
        scene.findings = self.linter.split_off(count);
        scene
    }

    fn start(&mut self, stage: Stage<'a>) -> (Scene<'a>, Vec<Item<'a>>) {
        let own = stage.platform.and_then(|word| super::from::expand(word, self.escape(), &self.globals));
        let platform = own.and_then(|own| own.text.parse().ok()).unwrap_or_else(|| self.platform().clone());
        if let Some(name) = stage.name
            && let Some((given, context)) = self.contexts.get(&name.text, &platform)
        {
            // A named context stands for the whole stage: none of its instructions are done.
            let (given, mut scene) = (given.to_owned(), Scene::new(platform));
            if context == NamedContext::Image {
                self.image(&mut scene, stage, &ImageName::Context(given));
            }
            return (scene, vec![]);
        }
        let base = super::from::expand(stage.image, self.escape(), &self.globals);
        let (name, used) = base.map_or_else(|| (stage.image.text.clone(), BTreeSet::new()), |b| (b.text, b.matched));
        let below = self.stages.named(&name, stage.index);
        let (mut scene, triggers) = match below {
            Some(below) => (self.done[below].child(below), vec![]),
            None => self.base(stage, &name, platform),
        };
        if below.is_none() {
            scene.definitions = self.definitions.clone();
        }
        used.into_iter().for_each(|name| scene.definitions.uses(name));
        if scene.env.get("PATH").is_none() {
            scene.env.set("PATH", "");
        }
        (scene, self.items(stage, below, triggers))
    }

    /// Starts a stage on what is no stage. Returns the triggers of the image as well.
    fn base(&mut self, stage: Stage<'a>, name: &str, platform: Platform) -> (Scene<'a>, Vec<String>) {
        let context = self.contexts.get(name, &platform).map(|(given, context)| (given.to_owned(), context));
        let image = match context {
            Some((_, NamedContext::Scratch | NamedContext::Directory)) => None,
            Some((given, NamedContext::Image)) => Some(ImageName::Context(given)),
            None if name == "scratch" => None,
            None => Some(ImageName::Reference(name.to_owned())),
        };
        let mut scene = Scene::new(platform);
        let triggers = image.map(|image| self.image(&mut scene, stage, &image)).unwrap_or_default();
        (scene, triggers)
    }

    /// Takes over what is known of an image.
    fn image(&mut self, scene: &mut Scene<'a>, stage: Stage<'a>, name: &ImageName) -> Vec<String> {
        let (ImageName::Reference(shown) | ImageName::Context(shown)) = name;
        let Some(mut image) = self.subject.bases.config(name, &scene.platform) else {
            scene.knowledge = Knowledge::Partial;
            self.stage_typo(stage.index, Place { instruction: stage.from, span: None }, stage.image.span, shown);
            if self.subject.bases.is_name(shown) {
                scene.unknown_base = Some(UnknownBase { name: shown.clone(), line: stage.from.lines.0 });
            }
            return vec![];
        };
        if let Some(found) = config::platform(&image)
            && (found.os != scene.platform.os || found.architecture != scene.platform.architecture)
        {
            let message = format!(
                "Base image {shown} was pulled with platform {:?}, expected {:?} for current build",
                found.normalized().to_string(),
                scene.platform.normalized().to_string(),
            );
            self.linter.report(&INVALID_BASE_IMAGE_PLATFORM, stage.from, stage.image.span, message);
        }
        for (name, value) in config::env(&image) {
            scene.env.set(name, value);
        }
        if !image.config.shell.is_empty() {
            scene.shell = Shell::Named;
        }
        config::take_triggers(&mut image)
    }

    /// Collects the instructions of a stage behind the triggers of what it builds on.
    fn items(&self, stage: Stage<'a>, below: Option<usize>, triggers: Vec<String>) -> Vec<Item<'a>> {
        let mut items = vec![];
        let from = Place { instruction: stage.from, span: Some(stage.image.span) };
        for trigger in triggers {
            // What is wrong with a trigger is told by the plan.
            items.extend(Dockerfile::parse_trigger(&trigger, '\\').ok().map(|trigger| (Cow::Owned(trigger), from)));
        }
        for instruction in below.iter().flat_map(|&below| self.stages.all[below].instructions) {
            if let InstructionKind::Onbuild { instruction: trigger, .. } = &instruction.kind {
                items.push((Cow::Borrowed(&**trigger), Place { instruction, span: None }));
            }
        }
        let own = |instruction: &'a Instruction| (Cow::Borrowed(instruction), Place { instruction, span: None });
        items.extend(stage.instructions.iter().map(own));
        items
    }

    fn instruction(&mut self, scene: &mut Scene<'a>, instruction: &Instruction, place: Place<'a>) {
        match &instruction.kind {
            InstructionKind::Env(pairs) => self.env(scene, instruction, place, pairs),
            InstructionKind::Label(pairs) => {
                for pair in pairs {
                    self.pair(scene, instruction, place, pair);
                }
            }
            InstructionKind::Arg(declarations) => self.arg(scene, place, declarations),
            InstructionKind::Workdir(path) => self.workdir(scene, place, path),
            InstructionKind::User(word) | InstructionKind::StopSignal(word) => drop(self.word(scene, place, word)),
            InstructionKind::Volume(words) => words.iter().for_each(|word| drop(self.word(scene, place, word))),
            InstructionKind::Expose(words) => self.expose(scene, place, words),
            InstructionKind::Shell(_) => scene.shell = Shell::Named,
            InstructionKind::Cmd(command) => {
                let last = scene.last.cmd.replace(place);
                self.only_last(last, instruction);
                self.json_form(scene, instruction, place, command);
            }
            InstructionKind::Entrypoint(command) => {
                let last = scene.last.entrypoint.replace(place);
                self.only_last(last, instruction);
                self.json_form(scene, instruction, place, command);
            }
            InstructionKind::Healthcheck(_) => {
                let last = scene.last.healthcheck.replace(place);
                self.only_last(last, instruction);
            }
            InstructionKind::Copy(copy) => self.transfer(scene, place, super::transfer::Verb::Copy, copy),
            InstructionKind::Add(add) => self.transfer(scene, place, super::transfer::Verb::Add, add),
            InstructionKind::Run(run) => self.run(scene, place, run),
            InstructionKind::From { .. } | InstructionKind::Onbuild { .. } | InstructionKind::Maintainer(_) => {}
        }
    }

    /// Expands `word` and reports names that are not defined. `None` if it cannot be expanded, or not for certain.
    pub(super) fn word(&mut self, scene: &Scene<'a>, place: Place<'a>, word: &Word) -> Option<String> {
        let get = |name: &str| scene.env.get(name).map(str::to_owned);
        let expanded = expand_word(&word.text, self.escape(), &get).ok()?;
        let is_certain = expanded.unmatched.is_empty() || scene.knowledge == Knowledge::Complete;
        self.undefined(scene, place, word.span, expanded.unmatched);
        is_certain.then_some(expanded.text)
    }

    pub(super) fn undefined(&mut self, scene: &Scene<'a>, place: Place<'a>, span: Span, names: BTreeSet<String>) {
        if scene.knowledge == Knowledge::Partial {
            return;
        }
        for name in names {
            if scope::is_not_environment(&name) || scene.declared.iter().any(|arg| arg.name == name) {
                continue;
            }
            let near = nearest(&name, scene.env.names());
            let near = near.map(|near| format!(" (did you mean ${near}?)")).unwrap_or_default();
            let message = format!("Usage of undefined variable '${name}'{near}");
            self.linter.report(&UNDEFINED_VAR, place.instruction, place.at(span), message);
        }
    }

    /// Expands a pair of `ENV` or `LABEL`.
    fn pair(
        &mut self,
        scene: &Scene<'a>,
        instruction: &Instruction,
        place: Place<'a>,
        pair: &KeyValue,
    ) -> Option<(String, String)> {
        if pair.legacy {
            let keyword = keyword(instruction);
            let message =
                format!("\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format");
            let value = pair.value.text.trim();
            let is_plain = !value.contains([' ', '\t', '"', '\'', '\\']);
            let value = if is_plain { value.to_owned() } else { "\"…\"".to_owned() };
            let span = place.at(pair.key.span.to(pair.value.span));
            let warning = Diagnostic::warning("", message).at(span);
            let warning = warning.with_hint(format!("write {keyword} {}={value}", pair.key.text));
            self.linter.report_as(&LEGACY_KEY_VALUE_FORMAT, place.instruction, warning);
        }
        let key = self.word(scene, place, &pair.key);
        let value = self.word(scene, place, &pair.value);
        // A value that is not known for certain is a value all the same.
        Some((key?, value.unwrap_or_default()))
    }

    fn env(&mut self, scene: &mut Scene<'a>, instruction: &Instruction, place: Place<'a>, pairs: &[KeyValue]) {
        let expanded: Vec<_> =
            pairs.iter().map(|pair| (self.pair(scene, instruction, place, pair), pair.key.span)).collect();
        for (pair, span) in expanded {
            let Some((name, value)) = pair else { continue };
            self.secret(place, "ENV", &name, span);
            scene.env.set(name, value);
        }
    }

    fn arg(&mut self, scene: &mut Scene<'a>, place: Place<'a>, declarations: &[ArgDeclaration]) {
        for declared in declarations {
            let name = &declared.name.text;
            self.secret(place, "ARG", name, declared.name.span);
            let inherited = self.globals.get(name).map(str::to_owned);
            let (value, is_global) = match (self.args.get(name).map(str::to_owned), &declared.default) {
                (Some(value), _) => (Some(value), false),
                (None, Some(default)) => (Some(self.word(scene, place, default).unwrap_or_default()), false),
                (None, None) => (inherited.clone(), inherited.is_some()),
            };
            // What the global scope defines is told there.
            if !is_global {
                scene.definitions.define(name, value.as_deref(), place.instruction, BTreeSet::new());
            }
            scene.definitions.uses(name);
            if let Some(value) = value.clone().filter(|_| !scope::is_not_environment(name)) {
                scene.env.set(name, value);
            }
            scene.declared.push(DeclaredArg { name: name.clone(), value });
        }
    }

    /// A name that sounds like a secret: values of `ARG` and `ENV` can be read in the image or its history.
    fn secret(&mut self, place: Place<'a>, keyword: &str, name: &str, span: Span) {
        if sounds_secret(name) {
            let message = format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {name:?})");
            let warning = Diagnostic::warning("", message).at(place.at(span));
            let warning = warning.with_hint("read it in the RUN that needs it: RUN --mount=type=secret,id=NAME …");
            self.linter.report_as(&SECRETS_USED_IN_ARG_OR_ENV, place.instruction, warning);
        }
    }

    fn workdir(&mut self, scene: &mut Scene<'a>, place: Place<'a>, word: &Word) {
        let path = self.word(scene, place, word);
        if let Some(path) = path.filter(|path| scene.workdir == Workdir::Inherited && !path.starts_with('/')) {
            let message = format!("Relative workdir {path:?} can have unexpected results if the base image changes");
            let warning = Diagnostic::warning("", message).at(place.at(word.span));
            let warning = warning.with_hint("begin with an absolute path: WORKDIR /PATH");
            self.linter.report_as(&WORKDIR_RELATIVE_PATH, place.instruction, warning);
        }
        scene.workdir = Workdir::Set;
    }

    fn expose(&mut self, scene: &Scene<'a>, place: Place<'a>, words: &[Word]) {
        let get = |name: &str| scene.env.get(name).map(str::to_owned);
        for word in words {
            for port in expand_words(&word.text, self.escape(), &get).unwrap_or_default() {
                let (host, container) = port.rsplit_once(':').unwrap_or(("", &port));
                let (number, protocol) = container.split_once('/').unwrap_or((container, ""));
                if number.is_empty() {
                    continue;
                }
                let span = place.at(word.span);
                if protocol != protocol.to_lowercase() {
                    let message = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
                    let warning = Diagnostic::warning("", message).at(span);
                    let warning = warning.with_hint(format!("write {}", port.to_lowercase()));
                    self.linter.report_as(&EXPOSE_PROTO_CASING, place.instruction, warning);
                }
                if !host.trim_matches(':').is_empty() {
                    let message = format!(
                        "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
                    );
                    let warning = Diagnostic::warning("", message).at(span);
                    let warning = warning.with_hint(format!("write EXPOSE {container}"));
                    self.linter.report_as(&EXPOSE_INVALID_FORMAT, place.instruction, warning);
                }
            }
        }
    }

    /// Of `CMD` and its like only the last counts: the one before is told of.
    fn only_last(&mut self, before: Option<Place<'a>>, instruction: &Instruction) {
        let Some(before) = before else { return };
        let message = format!(
            "Multiple {} instructions should not be used in the same stage because only the last one will be used",
            keyword(instruction)
        );
        let warning = Diagnostic::warning("", message).at(before.at(before.instruction.keyword));
        self.linter.report_as(&MULTIPLE_INSTRUCTIONS_DISALLOWED, before.instruction, warning);
    }

    fn json_form(&mut self, scene: &Scene<'a>, instruction: &Instruction, place: Place<'a>, command: &Command) {
        let Command::Shell(text) = command else { return };
        if scene.shell == Shell::Named {
            return;
        }
        let keyword = keyword(instruction);
        let message =
            format!("JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals");
        let warning = Diagnostic::warning("", message).at(place.at(instruction.keyword));
        let is_plain = !text.is_empty() && !text.contains(|c: char| "$`\"'\\|&;<>()*?[#~=%{}!\n".contains(c));
        let words: Vec<String> = text.split_whitespace().map(|word| format!("{word:?}")).collect();
        let hint = is_plain.then(|| format!("write {keyword} [{}]", words.join(", ")));
        self.linter.report_as(&JSON_ARGS_RECOMMENDED, place.instruction, warning.with_hint_if(hint));
    }

    fn run(&mut self, scene: &mut Scene<'a>, place: Place<'a>, run: &RunInstruction) {
        for word in &run.mounts {
            for field in csv::fields(&word.text).unwrap_or_default() {
                let Some((_, value)) = field.split_once('=') else { continue };
                drop(self.word(scene, place, &Word { text: value.to_owned(), span: word.span }));
            }
            self.mount(scene, place, word);
        }
    }

    /// Takes note of what a mount asks of the build.
    fn mount(&mut self, scene: &mut Scene<'a>, place: Place<'a>, word: &Word) {
        let mut expander = Expander::new(self.escape());
        let variables = crate::plan::expand::Scope { env: &scene.env };
        // What is wrong with it is told by the plan.
        let Ok(options) = Options::parse(word, &mut expander, variables) else { return };
        let lines = place.instruction.lines;
        let required = options.need == Some(Need::Required);
        let id = options.id.clone().filter(|id| !id.is_empty());
        let target = options.target.as_deref().unwrap_or_default();
        match options.kind.as_deref() {
            Some("secret") => {
                let id = options.source.or(id).unwrap_or_else(|| crate::plan::path::base_name(target).to_owned());
                add_mount(&mut scene.mounts.secrets, OutlineMount { id, required, lines });
            }
            Some("ssh") => {
                let id = id.unwrap_or_else(|| "default".to_owned());
                add_mount(&mut scene.mounts.ssh, OutlineMount { id, required, lines });
            }
            kind => {
                if kind == Some("cache") {
                    let id = id.unwrap_or_else(|| target.to_owned());
                    if !scene.mounts.caches.iter().any(|cache| cache.id == id) {
                        scene.mounts.caches.push(OutlineCache { id, lines });
                    }
                }
                let from = options.from.filter(|from| !from.is_empty());
                from.iter().for_each(|from| self.needs(scene, place, from, word.span));
            }
        }
    }
}

/// The keyword as written, also in a trigger that is not in this file.
fn keyword(instruction: &Instruction) -> &str {
    instruction.original.split_whitespace().next().unwrap_or_default()
}

/// Whether a name, taken apart at underscores, has a word for a secret and none for something public.
fn sounds_secret(name: &str) -> bool {
    const SECRET: [&str; 10] =
        ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
    const PUBLIC: [&str; 3] = ["public", "file", "version"];
    let has = |words: &[&str]| name.split('_').any(|part| words.iter().any(|word| word.eq_ignore_ascii_case(part)));
    has(&SECRET) && !has(&PUBLIC)
}
