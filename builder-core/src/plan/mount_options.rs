//! Options of `RUN --mount`: one CSV record a flag, values expanded, checked against the type.

use super::expand::{Expander, Scope};
use super::graph::{Access, MountOwner, Need, Sharing};
use super::{Problem, remote, size};
use crate::diagnostic::{Diagnostic, Span, nearest};
use crate::dockerfile::{Word, csv};

const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARING: [&str; 3] = ["shared", "private", "locked"];
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];
/// A mount as it is written, values expanded.
#[derive(Debug, Default)]
pub(super) struct Options {
    /// `type`, in lower case; `None` is bind.
    pub(super) kind: Option<String>,
    /// `from`
    pub(super) from: Option<String>,
    /// `source`, `src`
    pub(super) source: Option<String>,
    /// `target`, `dst`, `destination`
    pub(super) target: Option<String>,
    /// `ro`, `rw` and their like.
    pub(super) access: Option<Access>,
    /// `required`
    pub(super) need: Option<Need>,
    /// `size`
    pub(super) size_bytes: Option<u64>,
    /// `id`
    pub(super) id: Option<String>,
    /// `sharing`
    pub(super) sharing: Option<Sharing>,
    /// `mode`
    pub(super) mode: Option<u32>,
    /// `uid`
    pub(super) uid: Option<u32>,
    /// `gid`
    pub(super) gid: Option<u32>,
    /// `env`
    pub(super) env: Option<String>,
}

/// An option's name as written, in lower case, with where it stands.
struct Field<'w> {
    word: &'w Word,
    text: String,
    key: String,
}

impl Field<'_> {
    /// Where the field stands: exactly, unless quotes or line ends moved it.
    fn span(&self) -> Span {
        let whole = self.word.span;
        let straight = whole.end - whole.start == self.word.text.len();
        match self.word.text.find(&self.text) {
            Some(at) if straight && !self.text.is_empty() => {
                Span::new(whole.start + at, whole.start + at + self.text.len())
            }
            _ => whole,
        }
    }

    /// Where `value`, its end, stands.
    fn value_span(&self, value: &str) -> Span {
        let span = self.span();
        if span.end - span.start == self.text.len() { Span::new(span.end - value.len(), span.end) } else { span }
    }

    fn problem(&self, message: String) -> Diagnostic {
        Diagnostic::error("mount-option", message).at(self.span())
    }

    fn invalid(&self, value: &str, hint: &str) -> Problem {
        Box::new(self.problem(format!("{value:?} is no value for {:?}", self.key)).with_hint(hint))
    }

    fn unknown(&self, what: &str, value: &str, known: &[&'static str]) -> Problem {
        let problem = self.problem(format!("{value:?} is not a {what}"));
        Box::new(match nearest(value, known.iter().copied()) {
            Some(near) => problem.with_hint(format!("did you mean {near:?}?")),
            None => problem.with_hint(format!("known are {}", known.join(", "))),
        })
    }
}

/// Returns the `from` of a mount that is written without quotes.
pub(super) fn plain_from(text: &str) -> Option<String> {
    let fields = csv::fields(text).ok()?;
    fields.iter().find_map(|field| {
        let (key, value) = field.split_once('=')?;
        key.eq_ignore_ascii_case("from").then(|| value.to_owned())
    })
}

impl Options {
    /// Reads the options of `word`.
    ///
    /// # Errors
    /// They are no CSV record, an option is unknown, its value does not fit, or its type forbids it.
    pub(super) fn parse(word: &Word, expander: &mut Expander, scope: Scope<'_>) -> Result<Self, Problem> {
        let fields = csv::fields(&word.text).map_err(|why| {
            let problem = Diagnostic::error("mount-option", format!("the mount is not a list of options: {why}"));
            Box::new(problem.at(word.span))
        })?;
        let mut options = Self::default();
        for text in fields {
            let (key, value) = text.split_once('=').map_or((text.as_str(), None), |(key, value)| (key, Some(value)));
            let field = Field { word, key: key.to_lowercase(), text: text.clone() };
            match value {
                Some(value) => {
                    let place = Word { text: value.to_owned(), span: field.value_span(value) };
                    let expanded = expander.word(&place, scope)?;
                    // Written empty, it is the build context; a variable that is empty by mistake must not be.
                    if field.key == "from" && expanded.is_empty() && !value.is_empty() {
                        return Err(field.invalid("", "name a stage, a context or an image"));
                    }
                    options.set(&field, expanded)?;
                }
                None => options.set_bare(&field)?,
            }
        }
        options.check(word)?;
        Ok(options)
    }

    /// Sets an option without a value.
    fn set_bare(&mut self, field: &Field<'_>) -> Result<(), Problem> {
        match field.key.as_str() {
            "readonly" | "ro" => self.access = Some(Access::ReadOnly),
            "readwrite" | "rw" => self.access = Some(Access::ReadWrite),
            "required" => self.need = Some(Need::Required),
            key if KEYS.contains(&key) => {
                let problem = field.problem(format!("{key:?} has no value"));
                return Err(Box::new(problem.with_hint(format!("write {key}=VALUE"))));
            }
            key => return Err(field.unknown("mount option", key, &KEYS)),
        }
        Ok(())
    }

    fn set(&mut self, field: &Field<'_>, value: String) -> Result<(), Problem> {
        let flag = || remote::parse_bool(&value).ok_or_else(|| field.invalid(&value, "write true or false"));
        let number = |radix: u32, hint: &str| {
            let digits = value.bytes().all(|byte| byte.is_ascii_digit());
            let number = if digits { u32::from_str_radix(&value, radix).ok() } else { None };
            number.ok_or_else(|| field.invalid(&value, hint))
        };
        match field.key.as_str() {
            "type" => {
                let kind = value.to_lowercase();
                if !TYPES.contains(&kind.as_str()) {
                    return Err(field.unknown("mount type", &value, &TYPES));
                }
                self.kind = Some(kind);
            }
            "from" => self.from = Some(value),
            "source" | "src" => self.source = Some(value),
            "target" | "dst" | "destination" => self.target = Some(value),
            "readonly" | "ro" => self.access = Some(if flag()? { Access::ReadOnly } else { Access::ReadWrite }),
            "readwrite" | "rw" => self.access = Some(if flag()? { Access::ReadWrite } else { Access::ReadOnly }),
            "required" => self.need = Some(if flag()? { Need::Required } else { Need::Optional }),
            "size" => {
                let bytes = size::parse(&value).ok_or_else(|| field.invalid(&value, "write bytes, or 64k, 512m, 1.5g"));
                self.size_bytes = Some(bytes?);
            }
            "id" => self.id = Some(value),
            "sharing" => {
                self.sharing = Some(match value.to_lowercase().as_str() {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    _ => return Err(field.unknown("way of sharing", &value, &SHARING)),
                });
            }
            "mode" => {
                let mode = number(8, "write an octal number up to 7777")?;
                if mode > 0o7777 {
                    return Err(field.invalid(&value, "write an octal number up to 7777"));
                }
                self.mode = Some(mode);
            }
            "uid" => self.uid = Some(number(10, "write a number")?),
            "gid" => self.gid = Some(number(10, "write a number")?),
            "env" => self.env = Some(value),
            key => return Err(field.unknown("mount option", key, &KEYS)),
        }
        Ok(())
    }

    /// Refuses options that their type forbids.
    fn check(&self, word: &Word) -> Result<(), Problem> {
        let kind = self.kind.as_deref().unwrap_or("bind");
        let refuse = |option: &str| {
            let problem = Diagnostic::error("mount-option", format!("{option:?} is not for a {kind} mount"));
            Err(Box::new(problem.at(word.span)))
        };
        let has_owner = matches!(kind, "secret" | "ssh" | "cache");
        let can_need = matches!(kind, "secret" | "ssh");
        for (option, given, allowed) in [
            ("mode", self.mode.is_some(), has_owner),
            ("uid", self.uid.is_some(), has_owner),
            ("gid", self.gid.is_some(), has_owner),
            ("required", self.need.is_some(), can_need),
            ("size", self.size_bytes.is_some(), kind == "tmpfs"),
            ("sharing", self.sharing.is_some(), kind == "cache"),
            ("env", self.env.is_some(), kind == "secret"),
            ("from", self.from.as_ref().is_some_and(|from| !from.is_empty()), kind != "secret"),
        ] {
            if given && !allowed {
                return refuse(option);
            }
        }
        if kind == "secret" && self.id.is_some() && self.source.is_some() {
            let problem = Diagnostic::error("mount-option", "\"source\" and \"id\" are the same for a secret");
            return Err(Box::new(problem.at(word.span).with_hint("write one of them")));
        }
        Ok(())
    }

    /// Returns owner and mode, where nothing is said 0:0 and `mode`.
    pub(super) fn owner(&self, mode: u32) -> MountOwner {
        MountOwner { uid: self.uid.unwrap_or(0), gid: self.gid.unwrap_or(0), mode: self.mode.unwrap_or(mode) }
    }
}
