//! Which rules count: `skip=A,B;experimental=C;error=true`, each part at most once, in any order.
//!
//! The directive at the top of the file ends at its first blank, as BuildKit reads it.

use std::collections::BTreeSet;

use super::{Linter, RULES, Rule, UNKNOWN_CHECK_OPTION};
use crate::diagnostic::{Diagnostic, Span, nearest};
use crate::dockerfile::Dockerfile;

/// The build arg that replaces the directive.
const BUILD_ARG: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// All rules, or some by name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Selection {
    All,
    Named(BTreeSet<String>),
}

impl Default for Selection {
    fn default() -> Self {
        Self::Named(BTreeSet::new())
    }
}

impl Selection {
    fn parse(text: &str) -> Self {
        match text.trim() {
            "all" => Self::All,
            list => Self::Named(
                list.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect(),
            ),
        }
    }

    fn has(&self, rule: &Rule) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(rule.name),
        }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let names = match self {
            Self::All => None,
            Self::Named(names) => Some(names),
        };
        names.into_iter().flatten().map(String::as_str)
    }
}

/// What findings do to a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Effect {
    /// They are told.
    #[default]
    Warn,
    /// They make it fail before anything runs.
    Fail,
}

/// Which rules count, and how much.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Options {
    skip: Selection,
    experimental: Selection,
    effect: Effect,
}

impl Options {
    /// Reads `skip=…;experimental=…;error=…`.
    ///
    /// # Errors
    /// One phrase that says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut options = Self::default();
        if text.trim().is_empty() {
            return Ok(options);
        }
        let mut seen = BTreeSet::new();
        for part in text.split(';') {
            let Some((key, value)) = part.split_once('=') else {
                return Err(format!("invalid check option {part:?}: want skip=…, experimental=… or error=…"));
            };
            let key = key.trim();
            if !seen.insert(key) {
                return Err(format!("the check option {key:?} is given twice"));
            }
            match key {
                "skip" => options.skip = Selection::parse(value),
                "experimental" => options.experimental = Selection::parse(value),
                "error" => {
                    options.effect = match parse_bool(value.trim()) {
                        Some(true) => Effect::Fail,
                        Some(false) => Effect::Warn,
                        None => return Err(format!("the check option error is true or false, not {:?}", value.trim())),
                    };
                }
                _ => {
                    let near = nearest(key, ["skip", "experimental", "error"]);
                    let near = near.map(|near| format!(", did you mean {near:?}?")).unwrap_or_default();
                    return Err(format!("invalid check option {key:?}{near}"));
                }
            }
        }
        Ok(options)
    }

    /// Returns what holds for `dockerfile`: `given` in place of its directive.
    ///
    /// # Errors
    /// The directive is wrong.
    pub(crate) fn of(dockerfile: &Dockerfile, given: Option<Self>) -> Result<Self, Box<Diagnostic>> {
        let Some(word) = dockerfile.check.as_ref().filter(|_| given.is_none()) else {
            return Ok(given.unwrap_or_default());
        };
        let text = word.text.split(' ').next().unwrap_or_default();
        Self::parse(text).map_err(|why| {
            let error = Diagnostic::error("check-directive", why).at(word.span);
            Box::new(error.with_hint("write \"# check=skip=RULE,RULE;experimental=RULE;error=true\""))
        })
    }

    /// Whether findings of `rule` are wanted, with what the comment above an instruction says in addition.
    pub(super) fn wants(&self, rule: &Rule, own: Option<&Self>) -> bool {
        let either = |has: fn(&Self) -> &Selection| has(self).has(rule) || own.is_some_and(|own| has(own).has(rule));
        match rule.experimental {
            true => either(|options| &options.experimental),
            false => !either(|options| &options.skip),
        }
    }

    /// Whether findings make a build fail.
    pub(crate) fn is_strict(&self) -> bool {
        self.effect == Effect::Fail
    }

    fn unknown_names(&self) -> impl Iterator<Item = &str> {
        let known = |name: &&str| !RULES.iter().any(|rule| rule.name == *name);
        self.skip.names().chain(self.experimental.names()).filter(known)
    }
}

/// Returns the options that the build args give in place of the directive.
///
/// # Errors
/// One phrase that says what is wrong with them.
pub(crate) fn from_build_args(build_args: &[(String, String)]) -> Result<Option<Options>, String> {
    let given = build_args.iter().rfind(|(name, _)| name == BUILD_ARG);
    given
        .map(|(_, value)| Options::parse(value).map_err(|why| format!("the build arg {BUILD_ARG} is wrong: {why}")))
        .transpose()
}

/// Returns what a comment above an instruction says; the first that says something counts.
pub(super) fn of_comments(comments: &[String]) -> Option<Options> {
    Options::parse(comments.iter().find_map(|comment| directive(comment))?).ok()
}

/// Returns the value of a comment of the form `check=…`, up to the first blank.
fn directive(comment: &str) -> Option<&str> {
    let (name, value) = comment.split_once('=')?;
    name.trim_end().eq_ignore_ascii_case("check").then(|| value.trim_start().split(' ').next()).flatten()
}

/// Reports what the directives of `dockerfile` say and nobody understands. BuildKit takes it without a word, and then
/// does not skip what should be skipped.
pub(super) fn check_directives(dockerfile: &Dockerfile, linter: &mut Linter<'_>) {
    if let Some(word) = &dockerfile.check {
        let text = word.text.split(' ').next().unwrap_or_default();
        if text.len() < word.text.len() {
            let surplus = Span::new(word.span.start + text.len(), word.span.end);
            let rest = word.text[text.len()..].trim();
            let warning =
                Diagnostic::warning("", format!("{rest:?} is not read: the directive ends at the first blank"));
            linter.report_at(&UNKNOWN_CHECK_OPTION, warning.at(surplus).with_hint("write it without blanks"));
        }
        for name in Options::parse(text).iter().flat_map(Options::unknown_names) {
            linter.report_at(&UNKNOWN_CHECK_OPTION, unknown(name).at(word.span));
        }
    }
    for instruction in &dockerfile.instructions {
        let Some(text) = instruction.comments.iter().find_map(|comment| directive(comment)) else { continue };
        // Comments have no place of their own.
        let span = instruction.keyword;
        match Options::parse(text) {
            Err(why) => {
                let warning = Diagnostic::warning("", format!("the check comment is not read: {why}"));
                linter.report_at(&UNKNOWN_CHECK_OPTION, warning.labelled(span, "the comment is above this"));
            }
            Ok(options) => {
                for name in options.unknown_names() {
                    let warning = unknown(name).labelled(span, "the comment is above this");
                    linter.report_at(&UNKNOWN_CHECK_OPTION, warning);
                }
            }
        }
    }
}

fn unknown(name: &str) -> Diagnostic {
    let near = nearest(name, RULES.iter().map(|rule| rule.name));
    Diagnostic::warning("", format!("there is no rule {name:?}"))
        .with_hint_if(near.map(|near| format!("did you mean {near:?}?")))
}

/// Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{INVALID_DEFINITION_DESCRIPTION as EXPERIMENTAL, STAGE_NAME_CASING as USUAL};
    use super::*;

    #[test]
    fn options() {
        // Text, whether the usual rule, the experimental one counts, whether builds fail.
        for (text, want) in [
            ("", (true, false, false)),
            ("skip=all", (false, false, false)),
            ("skip=all;error=true", (false, false, true)),
            (" skip = FromAsCasing , StageNameCasing ; error = 1 ", (false, false, true)),
            ("experimental=all;skip=X", (true, true, false)),
            ("error=false;experimental=InvalidDefinitionDescription", (true, true, false)),
            ("skip=InvalidDefinitionDescription;experimental=all", (true, true, false)),
            ("skip=stagenamecasing", (true, false, false)),
        ] {
            let options = Options::parse(text).unwrap();
            let got = (options.wants(&USUAL, None), options.wants(&EXPERIMENTAL, None), options.is_strict());
            assert_eq!(got, want, "{text:?}");
        }
        for text in ["skip", "skip=A;", "error=maybe", "skpi=A", "skip=A;skip=B"] {
            assert!(Options::parse(text).is_err(), "{text:?}");
        }
        assert!(Options::parse("skpi=A").unwrap_err().contains("did you mean \"skip\""));
    }

    #[test]
    fn a_comment_adds_to_the_file() {
        let file = Options::parse("skip=FromAsCasing").unwrap();
        let comment = of_comments(&["words".to_owned(), "Check = skip=StageNameCasing because".to_owned()]);
        assert!(!file.wants(&USUAL, comment.as_ref()));
        assert!(file.wants(&USUAL, of_comments(&["check it = twice".to_owned()]).as_ref()));
        let comment = of_comments(&["check=experimental=all".to_owned()]);
        assert!(file.wants(&EXPERIMENTAL, comment.as_ref()));
    }
}
