//! `RUN --mount`: one CSV record a flag, values expanded, options checked against the type.
//!
//! An option that is unknown, or forbidden for its type, is an error; one that merely means nothing there is a warning,
//! since BuildKit builds such files.

use super::graph::{
    Access, CacheMount, ContextName, FileInput, MountKind, MountOp, MountOwner, Need, RootInput, Sharing,
};
use super::lower::Planner;
use super::stages::FromName;
use super::state::StageState;
use super::steps::Source;
use super::{Error, Problem, path, remote, size};
use crate::diagnostic::{Diagnostic, Span, nearest};
use crate::dockerfile::{RunInstruction, Word, mount_fields};

const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARING: [&str; 3] = ["shared", "private", "locked"];
const KEYS: [&str; 19] = [
    "type", "from", "source", "target", "readonly", "id", "sharing", "required", "size", "mode", "uid", "gid", "src",
    "dst", "destination", "ro", "rw", "readwrite", "env",
];
/// Where secrets lie by default.
const SECRETS: &str = "/run/secrets";
/// Where sockets of ssh agents lie by default, numbered within the step.
const SSH_SOCKET: &str = "/run/buildkit/ssh_agent";

/// A mount as it is written, values expanded.
#[derive(Debug, Default)]
struct Options {
    kind: Option<String>,
    from: Option<String>,
    source: Option<String>,
    target: Option<String>,
    access: Option<Access>,
    need: Option<Need>,
    size_bytes: Option<u64>,
    id: Option<String>,
    sharing: Option<Sharing>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    env: Option<String>,
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
    let fields = mount_fields(text).ok()?;
    fields.iter().find_map(|field| {
        let (key, value) = field.split_once('=')?;
        key.eq_ignore_ascii_case("from").then(|| value.to_owned())
    })
}

impl Planner<'_> {
    /// Lowers the mounts of one `RUN`.
    pub(super) fn mounts(
        &mut self,
        state: &StageState,
        words: &[Word],
        user: &Source,
    ) -> Result<Vec<MountOp>, Error> {
        let mut mounts: Vec<MountOp> = vec![];
        for word in words {
            let options = self.mount_options(state, word)?;
            let sockets = mounts.iter().filter(|mount| matches!(mount.kind, MountKind::Ssh { .. })).count();
            let mount = match options.kind.as_deref() {
                Some("cache") => self.cache_mount(state, word, options, user)?,
                Some("tmpfs") => self.tmpfs_mount(state, word, &options)?,
                Some("secret") => self.secret_mount(state, word, &options)?,
                Some("ssh") => self.ssh_mount(state, word, &options, sockets)?,
                _ => self.bind_mount(state, word, options, user)?,
            };
            mounts.push(mount);
        }
        Ok(mounts)
    }

    /// Returns the stages that the mounts of `run` take from.
    pub(super) fn mount_stages(&mut self, state: &StageState, run: &RunInstruction) -> Result<Vec<usize>, Problem> {
        let mut stages = vec![];
        for word in &run.mounts {
            let options = self.mount_options(state, word)?;
            let takes = matches!(options.kind.as_deref(), None | Some("bind" | "cache"));
            if let Some(name) = options.from.filter(|name| takes && !name.is_empty()) {
                if let FromName::Stage(stage) = self.stages.from_name(&name, word.span, state.stage)? {
                    stages.push(stage);
                }
            }
        }
        Ok(stages)
    }

    fn mount_options(&mut self, state: &StageState, word: &Word) -> Result<Options, Problem> {
        let fields = mount_fields(&word.text).map_err(|why| {
            let problem = Diagnostic::error("mount-option", format!("the mount is not a list of options: {why}"));
            Box::new(problem.at(word.span))
        })?;
        let mut options = Options::default();
        for text in fields {
            let (key, value) = text.split_once('=').map_or((text.as_str(), None), |(key, value)| (key, Some(value)));
            let field = Field { word, key: key.to_lowercase(), text: text.clone() };
            match value {
                Some(value) => {
                    let place = Word { text: value.to_owned(), span: field.value_span(value) };
                    let value = self.expander.word(&place, state.scope())?;
                    options.set(&field, value)?;
                }
                None => options.set_bare(&field)?,
            }
        }
        options.check(word)?;
        Ok(options)
    }

    fn mount_files(
        &mut self,
        state: &StageState,
        word: &Word,
        from: Option<&str>,
        user: &Source,
    ) -> Result<Option<FileInput>, Error> {
        let Some(name) = from.filter(|name| !name.is_empty()) else { return Ok(None) };
        let from = self.stages.from_name(name, word.span, state.stage)?;
        self.files(&from, word.span, user).map(Some)
    }

    fn bind_mount(
        &mut self,
        state: &StageState,
        word: &Word,
        options: Options,
        user: &Source,
    ) -> Result<MountOp, Error> {
        self.warn_unused(word, "bind", &[("id", options.id.is_some())]);
        let from = match self.mount_files(state, word, options.from.as_deref(), user)? {
            Some(files) => files,
            None => FileInput::Context(self.context(ContextName::Main, user)),
        };
        let source = path::absolute("/", options.source.as_deref().unwrap_or_default());
        let access = options.access.unwrap_or(Access::ReadOnly);
        let target = mount_target(state, word, options.target.as_deref())?;
        Ok(MountOp { target: Some(target), kind: MountKind::Bind { from, source, access } })
    }

    fn cache_mount(
        &mut self,
        state: &StageState,
        word: &Word,
        options: Options,
        user: &Source,
    ) -> Result<MountOp, Error> {
        let from = self.mount_files(state, word, options.from.as_deref(), user)?;
        let target = options.target.as_deref();
        let id = options.id.clone().filter(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| path::clean(target.unwrap_or_default()));
        let namespace = self.args.get("BUILDKIT_CACHE_MOUNT_NS").unwrap_or_default();
        let has_owner = options.uid.is_some() || options.gid.is_some() || options.mode.is_some();
        let cache = CacheMount {
            id: format!("{namespace}/{id}"),
            from: from.unwrap_or(FileInput::Root(RootInput::Scratch)),
            source: path::absolute("/", options.source.as_deref().unwrap_or_default()),
            sharing: options.sharing.unwrap_or_default(),
            access: options.access.unwrap_or(Access::ReadWrite),
            owner: has_owner.then(|| options.owner(0o755)),
        };
        let target = mount_target(state, word, target)?;
        Ok(MountOp { target: Some(target), kind: MountKind::Cache(cache) })
    }

    fn tmpfs_mount(&mut self, state: &StageState, word: &Word, options: &Options) -> Result<MountOp, Problem> {
        let unused =
            [("id", options.id.is_some()), ("from", options.from.is_some()), ("source", options.source.is_some())];
        self.warn_unused(word, "tmpfs", &unused);
        let size_bytes = options.size_bytes.filter(|size| *size > 0);
        let kind = MountKind::Tmpfs { size_bytes, access: options.access.unwrap_or(Access::ReadWrite) };
        Ok(MountOp { target: Some(mount_target(state, word, options.target.as_deref())?), kind })
    }

    fn secret_mount(&mut self, state: &StageState, word: &Word, options: &Options) -> Result<MountOp, Problem> {
        self.warn_unused(word, "secret", &[("rw", options.access == Some(Access::ReadWrite))]);
        let target = options.target.as_deref().filter(|target| !target.is_empty());
        let named = options.source.as_ref().or(options.id.as_ref()).filter(|id| !id.is_empty());
        let id = match (named, target) {
            (Some(id), _) => id.clone(),
            (None, Some(target)) => path::base_name(target).to_owned(),
            (None, None) => {
                let problem = Diagnostic::error("mount-option", "the secret has neither an id nor a target");
                return Err(Box::new(problem.at(word.span).with_hint("add id=NAME")));
            }
        };
        let default = || format!("{SECRETS}/{}", path::base_name(&id));
        let target = match (target, &options.env) {
            (Some(target), _) => Some(mount_target(state, word, Some(target))?),
            (None, Some(_)) => None,
            (None, None) => Some(mount_target(state, word, Some(&default()))?),
        };
        let need = options.need.unwrap_or(Need::Optional);
        Ok(MountOp {
            target,
            kind: MountKind::Secret { id, env: options.env.clone(), need, owner: options.owner(0o400) },
        })
    }

    fn ssh_mount(
        &mut self,
        state: &StageState,
        word: &Word,
        options: &Options,
        sockets: usize,
    ) -> Result<MountOp, Problem> {
        if options.source.is_some() {
            let problem = Diagnostic::error("mount-option", "an ssh mount has no source").at(word.span);
            return Err(Box::new(problem.with_hint("name the agent with id=NAME")));
        }
        let unused = [("from", options.from.is_some()), ("rw", options.access == Some(Access::ReadWrite))];
        self.warn_unused(word, "ssh", &unused);
        let target = options.target.clone().filter(|target| !target.is_empty());
        let target = target.unwrap_or_else(|| format!("{SSH_SOCKET}.{sockets}"));
        let id = options.id.clone().filter(|id| !id.is_empty()).unwrap_or_else(|| "default".to_owned());
        let need = options.need.unwrap_or(Need::Optional);
        let kind = MountKind::Ssh { id, need, owner: options.owner(0o600) };
        Ok(MountOp { target: Some(mount_target(state, word, Some(&target))?), kind })
    }

    fn warn_unused(&mut self, word: &Word, kind: &str, options: &[(&str, bool)]) {
        for (name, _) in options.iter().filter(|(_, given)| *given) {
            let message = format!("{name:?} means nothing for a {kind} mount");
            self.expander.warnings.push(Diagnostic::warning("mount-option-unused", message).at(word.span));
        }
    }
}

/// Returns the absolute target of a mount; a relative one, or none, starts at the working directory.
fn mount_target(state: &StageState, word: &Word, target: Option<&str>) -> Result<String, Problem> {
    let absolute = path::absolute(&state.workdir(), target.unwrap_or_default());
    if absolute != "/" {
        return Ok(absolute);
    }
    let problem = Diagnostic::error("mount-target", "nothing can be mounted on \"/\"").at(word.span);
    Err(Box::new(match target {
        Some(_) => problem.with_hint("choose a directory below it"),
        None => problem.with_hint("add target=PATH"),
    }))
}

impl Options {
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
    fn owner(&self, mode: u32) -> MountOwner {
        MountOwner { uid: self.uid.unwrap_or(0), gid: self.gid.unwrap_or(0), mode: self.mode.unwrap_or(mode) }
    }
}
