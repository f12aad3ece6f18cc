//! `FROM`: what stages build on, and the variables that it sees.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::outline::Definitions;
use super::{Place, Surveyor};
use crate::diagnostic::{Diagnostic, Span, nearest};
use crate::dockerfile::{InstructionKind, Word, expand_word};
use crate::image::Platform;
use crate::lint::{
    FROM_PLATFORM_FLAG_CONST_DISALLOWED, INVALID_DEFAULT_ARG_IN_FROM, REDUNDANT_TARGET_PLATFORM, UNDEFINED_ARG_IN_FROM,
};
use crate::plan::scope::{self, BuildArgs, Env};
use crate::plan::stages::Stage;

/// A word with the variables of the global scope replaced.
pub(super) struct Expanded {
    pub(super) text: String,
    /// Names that have values.
    pub(super) matched: BTreeSet<String>,
    /// Names that have none.
    pub(super) unmatched: BTreeSet<String>,
}

/// Expands `word`; `None` if that fails, which a plan says better.
pub(super) fn expand(word: &Word, escape: char, env: &Env) -> Option<Expanded> {
    let matched = RefCell::default();
    let get = |name: &str| {
        let value = env.get(name).map(str::to_owned);
        if value.is_some() {
            RefCell::<BTreeSet<String>>::borrow_mut(&matched).insert(name.to_owned());
        }
        value
    };
    let expanded = expand_word(&word.text, escape, &get).ok()?;
    Some(Expanded { text: expanded.text, matched: matched.into_inner(), unmatched: expanded.unmatched })
}

impl<'a> Surveyor<'a> {
    /// Works out the global scope with the build args `args`.
    pub(super) fn global_scope(&self, args: &BuildArgs) -> (Env, Definitions) {
        let request = self.subject.request;
        let target = crate::plan::lower::target_name(request, &self.stages);
        let mut globals = scope::predefined(&self.args, request.build_platform, self.platform(), &target);
        let mut definitions = Definitions::default();
        let is_from = |kind: &InstructionKind| matches!(kind, InstructionKind::From { .. });
        let instructions = request.dockerfile.instructions.iter().take_while(|one| !is_from(&one.kind));
        for instruction in instructions {
            let InstructionKind::Arg(declarations) = &instruction.kind else { continue };
            for declared in declarations {
                let name = &declared.name.text;
                let default = declared.default.as_ref().and_then(|word| expand(word, self.escape(), &globals));
                let (value, depends_on) = match (args.get(name), default) {
                    (Some(value), _) => (Some(value.to_owned()), BTreeSet::new()),
                    (None, Some(default)) => (Some(default.text), default.matched),
                    (None, None) => (None, BTreeSet::new()),
                };
                definitions.define(name, value.as_deref(), instruction, depends_on);
                if let Some(value) = value {
                    globals.set(name, value);
                }
            }
        }
        (globals, definitions)
    }

    /// Rules about every `FROM`, needed or not.
    pub(super) fn froms(&mut self) {
        for stage in self.stages.all.clone() {
            let place = Place { instruction: stage.from, span: None };
            if let Some(base) = expand(stage.image, self.escape(), &self.globals) {
                self.undeclared(place, stage.image.span, &base);
            }
            let Some(word) = stage.platform else { continue };
            let Some(platform) = expand(word, self.escape(), &self.globals) else { continue };
            self.undeclared(place, word.span, &platform);
            self.redundant_platform(place, word, &platform);
            self.constant_platform(stage, word, &platform);
        }
    }

    fn undeclared(&mut self, place: Place<'a>, span: Span, expanded: &Expanded) {
        for name in &expanded.unmatched {
            let known = || self.globals.names().chain(self.definitions.names());
            if known().any(|known| known == name) {
                continue;
            }
            let near = nearest(name, known()).map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
            let message = format!("FROM argument '{name}' is not declared{near}");
            let warning = Diagnostic::warning("", message).at(span);
            let warning = warning.with_note("only ARGs before the first FROM are visible here");
            self.linter.report_as(&UNDEFINED_ARG_IN_FROM, place.instruction, warning);
        }
    }

    fn redundant_platform(&mut self, place: Place<'a>, word: &Word, platform: &Expanded) {
        const NAME: &str = "TARGETPLATFORM";
        let only = platform.matched.len() == 1 && platform.matched.contains(NAME) && platform.unmatched.is_empty();
        if only && self.globals.get(NAME) == Some(&platform.text) {
            let message = format!(
                "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
                word.text
            );
            self.linter.report(&REDUNDANT_TARGET_PLATFORM, place.instruction, word.span, message);
        }
    }

    fn constant_platform(&mut self, stage: Stage<'a>, word: &Word, expanded: &Expanded) {
        let is_constant = expanded.matched.is_empty() && expanded.unmatched.is_empty();
        let Some(platform) = expanded.text.parse::<Platform>().ok().filter(|_| is_constant) else { return };
        // A stage for one platform says so in its name.
        let name = stage.name.map_or("", |name| name.text.as_str());
        if name.contains(&platform.os) || name.contains(&platform.architecture) {
            return;
        }
        let message = format!("FROM --platform flag should not use constant value {:?}", expanded.text);
        self.linter.report(&FROM_PLATFORM_FLAG_CONST_DISALLOWED, stage.from, word.span, message);
    }

    /// Reports base images that are no names if no build arg is given.
    pub(super) fn default_bases(&mut self) {
        let (globals, _) = self.global_scope(&BuildArgs::default());
        for stage in self.stages.all.clone() {
            let Some(base) = expand(stage.image, self.escape(), &globals) else { return };
            let is_constant = base.matched.is_empty() && base.unmatched.is_empty();
            if !is_constant && !self.subject.bases.is_name(&base.text) {
                let name = &stage.image.text;
                let message = format!("Default value for ARG {name} results in empty or invalid base image name");
                self.linter.report(&INVALID_DEFAULT_ARG_IN_FROM, stage.from, stage.image.span, message);
            }
        }
    }
}
