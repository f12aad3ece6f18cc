//! `RUN --mount`: what each type makes of its options.
//!
//! An option that is forbidden for its type is an error (see `mount_options`); one that merely means nothing there is a
//! warning, since BuildKit builds such files.

use super::graph::{Access, CacheMount, ContextName, FileInput, MountKind, MountOp, Need, RootInput};
use super::lower::Planner;
use super::mount_options::Options;
use super::stages::FromName;
use super::state::StageState;
use super::steps::Source;
use super::{Error, Problem, path};
use crate::diagnostic::Diagnostic;
use crate::dockerfile::{RunInstruction, Word};

/// Where secrets lie by default.
const SECRETS: &str = "/run/secrets";
/// Where sockets of ssh agents lie by default, numbered within the step.
const SSH_SOCKET: &str = "/run/buildkit/ssh_agent";

impl Planner<'_> {
    /// Lowers the mounts of one `RUN`.
    pub(super) fn mounts(&mut self, state: &StageState, words: &[Word], user: &Source) -> Result<Vec<MountOp>, Error> {
        let mut mounts: Vec<MountOp> = vec![];
        for word in words {
            let options = Options::parse(word, &mut self.expander, state.scope())?;
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
            let options = Options::parse(word, &mut self.expander, state.scope())?;
            let takes = matches!(options.kind.as_deref(), None | Some("bind" | "cache"));
            if let Some(name) = options.from.filter(|name| takes && !name.is_empty())
                && let FromName::Stage(stage) = self.stages.means(&name, word.span, state.stage)?
            {
                stages.push(stage);
            }
        }
        Ok(stages)
    }

    fn mount_files(
        &mut self,
        state: &StageState,
        word: &Word,
        from: Option<&str>,
        user: &Source,
    ) -> Result<Option<FileInput>, Error> {
        let Some(name) = from.filter(|name| !name.is_empty()) else { return Ok(None) };
        let from = self.stages.means(name, word.span, state.stage)?;
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
