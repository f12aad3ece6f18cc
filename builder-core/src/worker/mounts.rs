//! `RUN --mount`: what a command is shown besides its file system, and for how long.
//!
//! | type | is | key |
//! |---|---|---|
//! | `bind` | a view of the selected files ([`view`]); what is written is thrown away | content of what is selected |
//! | `cache` | a directory of the store ([`cache`]), filled by another machine's at first if there is one ([`travel`]) | identity and seed, not its content |
//! | `tmpfs` | memory | size |
//! | `secret` | a file in memory, or a variable | id and place, never its value |
//! | `ssh` | a socket in front of the caller's agent ([`agent`]) | id and place |
//! | `--device` | nodes and files of this machine ([`devices`]) | name |
//!
//! Mount points that the image lacks exist only while the command runs: those on the image in the layer of stubs, those
//! on a bind mount in its view. Everything that [`Prepared`] holds ends with it, before the step's work directory does.

mod agent;
mod cache;
mod devices;
mod grants;
mod redact;
mod select;
mod travel;
mod view;

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

pub(crate) use grants::{Grants, Refusal};
pub(super) use redact::Redactor;
pub(crate) use select::Selection;
pub(super) use view::SharedCopy;

use super::{BuildWorker, Inputs};
use crate::error::{Error, ErrorKind};
use crate::plan::{Access, MountKind, MountOp, MountOwner, Need, RunOp};
use crate::sandbox::{Content, Mount};
use crate::snapshot::MountPoint;
use crate::sys::file;
use crate::sys::mount::Attributes;
use crate::tree::path::{join, strip_dir};
use agent::Agent;
use cache::Held;
use view::View;

/// Permissions of a `tmpfs` mount's root directory: anyone's, as `/tmp`.
const TMPFS_MODE: u32 = 0o1777;

/// Mounts for the sandbox, with all that must live as long as the command.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// In the order of the instruction.
    pub(super) mounts: Vec<Mount>,
    /// Mount points on the image's own file system.
    pub(super) points: Vec<(Vec<u8>, MountPoint)>,
    /// Variables with secrets.
    pub(super) env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Variables of devices.
    pub(super) device_env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Supplementary groups of devices.
    pub(super) device_groups: Vec<u32>,
    views: Vec<View>,
    agents: Vec<Agent>,
    held: Held,
}

impl Prepared {
    /// Hides the secrets that the command is given.
    pub(super) fn redactor(&self) -> Redactor {
        let contents = self.mounts.iter().filter_map(|mount| match mount {
            Mount::File { content, .. } => Some(content.0.as_slice()),
            Mount::Bind { .. } | Mount::Tmpfs { .. } => None,
        });
        Redactor::new(contents.chain(self.env.iter().map(|(_, value)| value.as_slice())))
    }
}

/// What will be at a target.
enum Shown<'a> {
    Files { selection: &'a Selection, access: Access },
    Handle { handle: Arc<OwnedFd>, access: Access },
    Host { handle: Arc<OwnedFd>, attributes: Attributes },
    Tmpfs { size: Option<u64>, access: Access },
    Content { content: Content, owner: MountOwner },
}

struct Placed<'a> {
    target: Vec<u8>,
    point: MountPoint,
    shown: Shown<'a>,
}

impl BuildWorker<'_> {
    /// Finds the files that the mounts show, for the key and for the run: one for each mount that has any.
    pub(super) fn select_mounts(&self, op: &RunOp, inputs: &Inputs<'_>) -> Result<Vec<Option<Selection>>, Error> {
        let select = |mount: &MountOp| match &mount.kind {
            MountKind::Bind { from, source, .. } => self.select_files(*from, source, inputs).map(Some),
            MountKind::Cache(cache) if cache::is_seeded(cache) => {
                self.select_files(cache.from, &cache.source, inputs).map(Some)
            }
            MountKind::Cache(_) | MountKind::Tmpfs { .. } | MountKind::Secret { .. } | MountKind::Ssh { .. } => {
                Ok(None)
            }
        };
        let selections: Vec<_> = op.mounts.iter().map(select).collect::<Result<_, _>>()?;
        self.note_caches(op, &selections);
        Ok(selections)
    }

    /// Makes everything ready. `dir` is the step's work directory.
    pub(super) fn prepare_mounts(
        &self,
        op: &RunOp,
        selections: &[Option<Selection>],
        dir: &Path,
    ) -> Result<Prepared, Error> {
        let mut prepared = Prepared { held: self.lock_caches(op, selections)?, ..Prepared::default() };
        let mut placed: Vec<Placed<'_>> = Vec::new();
        for (number, (mount, selection)) in op.mounts.iter().zip(selections).enumerate() {
            let dir = dir.join(format!("mount-{number}"));
            placed.extend(self.place(mount, selection.as_ref(), &dir, &mut prepared)?);
        }
        placed.extend(self.place_devices(op, &mut prepared)?);
        for (at, mount) in placed.iter().enumerate() {
            if !placed.iter().take(at).any(|earlier| strip_dir(&mount.target, &earlier.target).is_some()) {
                prepared.points.push((mount.target.clone(), mount.point));
            }
        }
        for at in 0..placed.len() {
            let dir = dir.join(format!("view-{at}"));
            let mount = self.mount(&placed, at, &dir, &mut prepared)?;
            prepared.mounts.push(mount);
        }
        Ok(prepared)
    }

    fn place<'a>(
        &self,
        mount: &'a MountOp,
        selection: Option<&'a Selection>,
        dir: &Path,
        prepared: &mut Prepared,
    ) -> Result<Option<Placed<'a>>, Error> {
        let found = match (&mount.kind, selection) {
            (MountKind::Bind { access, .. }, Some(selection)) => {
                let point = if selection.is_dir() { MountPoint::Directory } else { MountPoint::File };
                Some((point, Shown::Files { selection, access: *access }))
            }
            (MountKind::Bind { .. }, None) => return Err(Error::new(ErrorKind::Internal, "a mount has no files")),
            (MountKind::Cache(cache), seed) => {
                let handle = self.cache(cache, seed, &mut prepared.held)?;
                let stat = file::stat(handle.as_fd()).map_err(|e| Error::from_source(ErrorKind::Store, &e))?;
                let point = if stat.is_dir() { MountPoint::Directory } else { MountPoint::File };
                Some((point, Shown::Handle { handle, access: cache.access }))
            }
            (MountKind::Tmpfs { size_bytes, access }, _) => {
                Some((MountPoint::Directory, Shown::Tmpfs { size: *size_bytes, access: *access }))
            }
            (MountKind::Secret { id, env, need, owner }, _) => {
                let secret = self.secret(id, *need)?;
                if let (Some(name), Some(value)) = (env, secret) {
                    prepared.env.push((name.clone().into_bytes(), value.to_vec()));
                }
                let content = |value: &[u8]| Shown::Content { content: Content(value.to_vec()), owner: *owner };
                secret.map(|value| (MountPoint::File, content(value)))
            }
            (MountKind::Ssh { id, need, owner }, _) => {
                let socket = self.agent_socket(id, *need, *owner, dir, prepared)?;
                socket.map(|handle| (MountPoint::File, Shown::Handle { handle, access: Access::ReadWrite }))
            }
        };
        let target = mount.target.as_deref().map(|target| target.trim_start_matches('/').as_bytes().to_vec());
        Ok(found.zip(target).map(|((point, shown), target)| Placed { target, point, shown }))
    }

    fn secret(&self, id: &str, need: Need) -> Result<Option<&[u8]>, Error> {
        match self.options.grants.secrets.get(id) {
            Some(secret) => Ok(Some(secret.value())),
            None if need == Need::Optional => Ok(None),
            None => {
                Err(Error::new(ErrorKind::Request, format!("the step needs the secret {id:?}, and it was not given"))
                    .hint(format!("give it with --secret id={id},src=FILE or --secret id={id},env=VARIABLE")))
            }
        }
    }

    fn agent_socket(
        &self,
        id: &str,
        need: Need,
        owner: MountOwner,
        dir: &Path,
        prepared: &mut Prepared,
    ) -> Result<Option<Arc<OwnedFd>>, Error> {
        let Some(socket) = self.options.grants.agents.get(id) else {
            return match need {
                Need::Optional => Ok(None),
                Need::Required => {
                    let what = format!("the step needs the ssh agent {id:?}, and none was given");
                    Err(Error::new(ErrorKind::Request, what).hint(format!("give it with --ssh {id}=SOCKET")))
                }
            };
        };
        let start = || {
            std::fs::create_dir(dir)?;
            let agent = Agent::start(dir, "agent", owner, socket)?;
            let handle = file::open_handle_in_root(file::open_host_dir(dir)?.as_fd(), b"agent")?;
            debug_assert!(agent.socket().exists(), "the agent listens");
            Ok::<_, std::io::Error>((agent, handle))
        };
        let (agent, handle) = start().map_err(|error| {
            Error::from_source(ErrorKind::Request, &error).context(format!("reach the ssh agent at {socket:?}"))
        })?;
        prepared.agents.push(agent);
        Ok(Some(Arc::new(handle)))
    }

    fn mount(&self, placed: &[Placed<'_>], at: usize, dir: &Path, prepared: &mut Prepared) -> Result<Mount, Error> {
        let Some(Placed { target, shown, .. }) = placed.get(at) else {
            return Err(Error::new(ErrorKind::Internal, "a mount is not there"));
        };
        let target = target.clone();
        let bind = |handle, access| Mount::Bind {
            source: handle,
            target: target.clone(),
            attributes: if access == Access::ReadOnly { Attributes::MOUNT_ATTR_RDONLY } else { Attributes::empty() },
        };
        Ok(match shown {
            Shown::Files { selection, access } => {
                let view = self.view(dir, selection, &nested(placed, at, &selection.path))?;
                let handle = view.handle(&selection.path)?;
                prepared.views.push(view);
                bind(handle, *access)
            }
            Shown::Handle { handle, access } => bind(handle.clone(), *access),
            Shown::Host { handle, attributes } => {
                Mount::Bind { source: handle.clone(), target, attributes: *attributes }
            }
            Shown::Tmpfs { size, access } => {
                Mount::Tmpfs { target, size: *size, mode: TMPFS_MODE, read_only: *access == Access::ReadOnly }
            }
            Shown::Content { content, owner } => {
                Mount::File { target, content: content.clone(), mode: owner.mode, uid: owner.uid, gid: owner.gid }
            }
        })
    }
}

/// Mount points of later mounts that lie on the mount number `at`, whose files are at `path` in their source.
fn nested(placed: &[Placed<'_>], at: usize, path: &[u8]) -> Vec<(Vec<u8>, MountPoint)> {
    let Some(this) = placed.get(at) else { return Vec::new() };
    let mut covers: Vec<&[u8]> = Vec::new();
    let mut found = Vec::new();
    for later in placed.iter().skip(at + 1) {
        let Some(relative) = strip_dir(&later.target, &this.target) else { continue };
        if !covers.iter().any(|cover| strip_dir(&later.target, cover).is_some()) {
            found.push((join(path, relative), later.point));
        }
        covers.push(&later.target);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tmpfs(target: &str) -> Placed<'static> {
        let shown = Shown::Tmpfs { size: None, access: Access::ReadWrite };
        Placed { target: target.into(), point: MountPoint::Directory, shown }
    }

    #[test]
    fn mount_points_are_made_where_they_will_be_seen() {
        let placed: Vec<_> = ["src", "src/target", "src/target/deep", "srcs", "src/x/y"].map(tmpfs).into();
        let paths = |at| nested(&placed, at, b"app").into_iter().map(|(path, _)| path).collect::<Vec<_>>();
        assert_eq!(paths(0), [b"app/target".to_vec(), b"app/x/y".to_vec()]);
        assert_eq!(paths(1), [b"app/deep".to_vec()]);
        assert!(paths(3).is_empty());
    }
}
