//! `RUN`: unpack what is below, run the command over it, and make a layer of what it changed.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::process::{Resource, Rlimit};

use super::mounts::{Prepared, Redactor, Selection};
use super::root::Root;
use super::users::Identity;
use super::{BuildWorker, StepOutput, stub};
use crate::error::{Error, ErrorKind};
use crate::event::{Event, OutputStream, StepId};
use crate::layer::{self, Change, LayerWriter};
use crate::plan::{RunOp, SecurityMode, Step};
use crate::request::{LimitedResource, Ulimit};
use crate::sandbox::{self, Content, Exit, Mount, Rootfs, Security, Spec};
use crate::snapshot::{MountPoint, Snapshot};
use crate::sys::{file, memory};
use crate::tree::{Kind, LayerTree, MergedTree};

/// Lines of output that the error of a failed command repeats.
const LAST_LINES: usize = 20;
/// A line of those is cut here.
const LINE_BYTES: usize = 500;
/// Names of this machine inside, and nothing of its own hosts file.
const HOSTS: &[u8] = b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

fn store_error(error: &dyn std::error::Error) -> Error {
    Error::from_source(ErrorKind::Store, error)
}

fn limit(ulimit: &Ulimit) -> (Resource, Rlimit) {
    let resource = match ulimit.resource {
        LimitedResource::Core => Resource::Core,
        LimitedResource::Cpu => Resource::Cpu,
        LimitedResource::Data => Resource::Data,
        LimitedResource::Fsize => Resource::Fsize,
        LimitedResource::Locks => Resource::Locks,
        LimitedResource::Memlock => Resource::Memlock,
        LimitedResource::Msgqueue => Resource::Msgqueue,
        LimitedResource::Nice => Resource::Nice,
        LimitedResource::Nofile => Resource::Nofile,
        LimitedResource::Nproc => Resource::Nproc,
        LimitedResource::Rss => Resource::Rss,
        LimitedResource::Rtprio => Resource::Rtprio,
        LimitedResource::Rttime => Resource::Rttime,
        LimitedResource::Sigpending => Resource::Sigpending,
        LimitedResource::Stack => Resource::Stack,
    };
    (resource, Rlimit { current: ulimit.soft, maximum: ulimit.hard })
}

impl BuildWorker<'_> {
    /// Runs the command and returns the file system that it leaves.
    pub(super) fn run(
        &self,
        step: &Step,
        op: &RunOp,
        parent: &Root,
        selections: &[Option<Selection>],
    ) -> Result<StepOutput, Error> {
        if let Some(reason) = &self.options.no_exec {
            return Err(reason.clone());
        }
        self.bring_for_unpacking(step.id(), parent)?;
        let tree = self.tree(parent)?;
        let identity = self.identity(&op.user, parent)?;
        let work_dir = self.store.work_dir().map_err(|e| store_error(&e))?;
        let mut mounts = self.prepare_mounts(op, selections, work_dir.path())?;
        let snapshot = self.snapshot(work_dir.path(), op, parent, &tree, &mounts.points)?;
        let redactor = mounts.redactor();
        let spec = self.spec(op, &identity, &snapshot, &mut mounts);
        memory::trim();
        self.supervise(step.id(), op, &spec, redactor)?;
        drop(mounts);
        self.commit(&snapshot, parent, &tree)
    }

    fn snapshot(
        &self,
        work_dir: &Path,
        op: &RunOp,
        parent: &Root,
        tree: &MergedTree,
        points: &[(Vec<u8>, MountPoint)],
    ) -> Result<Snapshot, Error> {
        let mut lowerdirs = self.unpack(parent)?;
        lowerdirs.reverse();
        // Overlayfs refuses the same directory twice. What a layer says that stands again above hides it anyway.
        let mut seen = HashSet::new();
        lowerdirs.retain(|dir| seen.insert(dir.clone()));
        if lowerdirs.is_empty() {
            // Overlayfs wants a lower directory, also below nothing.
            let empty = work_dir.join("empty");
            std::fs::create_dir(&empty).map_err(|e| store_error(&e).context("make an empty layer"))?;
            lowerdirs.push(empty);
        }
        let script = script_target(op).into_iter().map(|path| (path, MountPoint::File));
        let more: Vec<_> = script.chain(points.iter().cloned()).collect();
        let root = tree.get(b"").map(|node| node.meta.clone()).unwrap_or_default();
        Snapshot::create(work_dir, lowerdirs, &stub::attributes(&root), &stub::stubs(tree, &more))
            .map_err(|e| store_error(&e))
    }

    /// Unpacks all layers of `root`; the directories, lowest first.
    pub(super) fn unpack(&self, root: &Root) -> Result<Vec<PathBuf>, Error> {
        let unpacked = layer::unpack_all(self.store, &root.layers(), self.options.threads);
        let unpacked = unpacked.map_err(|e| store_error(&e))?;
        for message in layer::describe_notes(&unpacked.notes) {
            (self.events)(Event::Warning { code: "unpacked-otherwise".to_owned(), message });
        }
        Ok(unpacked.paths)
    }

    fn spec(&self, op: &RunOp, identity: &Identity, snapshot: &Snapshot, mounts: &mut Prepared) -> Spec {
        let mut env: Vec<(Vec<u8>, Vec<u8>)> =
            op.env.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone().into_bytes())).collect();
        let has = |env: &[(Vec<u8>, Vec<u8>)], name: &[u8]| env.iter().any(|(known, _)| known == name);
        // The request's proxies win over what the image says.
        for (name, value) in &op.proxy_env {
            env.retain(|(known, _)| known != name.as_bytes());
            env.push((name.clone().into_bytes(), value.clone().into_bytes()));
        }
        for (name, value) in mounts.device_env.drain(..).chain(mounts.env.drain(..)) {
            env.retain(|(known, _)| *known != name);
            env.push((name, value));
        }
        if !has(&env, b"HOME") {
            env.push((b"HOME".to_vec(), identity.home.clone()));
        }
        if !has(&env, b"HOSTNAME") {
            env.push((b"HOSTNAME".to_vec(), op.hostname.clone().into_bytes()));
        }
        let script = op.script.iter().map(|script| Mount::File {
            target: script_target(op).unwrap_or_else(|| script.path.clone().into_bytes()),
            content: Content(script.content.clone().into_bytes()),
            mode: 0o755,
            uid: 0,
            gid: 0,
        });
        Spec {
            rootfs: Rootfs::Overlay {
                lowerdirs: snapshot.lowerdirs().to_vec(),
                upperdir: snapshot.upperdir().to_owned(),
                workdir: snapshot.workdir().to_owned(),
            },
            mounts: script.chain(mounts.mounts.drain(..)).collect(),
            argv: op.argv.iter().map(|argument| argument.clone().into_bytes()).collect(),
            env,
            cwd: op.cwd.trim_start_matches('/').as_bytes().to_vec(),
            uid: identity.uid,
            gid: identity.gid,
            groups: [identity.groups.as_slice(), mounts.device_groups.as_slice()].concat(),
            hostname: op.hostname.clone(),
            network: self.options.grants.network(op.network),
            security: match op.security {
                SecurityMode::Sandbox => Security::Sandbox,
                SecurityMode::Insecure => Security::Insecure,
            },
            resolv_conf: self.options.resolv_conf.clone(),
            hosts: self.hosts(),
            shm_bytes: self.options.run.shm_bytes,
            limits: self.options.run.ulimits.iter().map(limit).collect(),
        }
    }

    /// Runs the command; anything but exit code 0 is an error with the last lines it wrote.
    fn hosts(&self) -> Vec<u8> {
        let extra = self.options.run.extra_hosts.iter().map(|host| format!("{}\t{}\n", host.address, host.name));
        extra.fold(HOSTS.to_vec(), |all, line| [all, line.into_bytes()].concat())
    }

    fn supervise(&self, id: StepId, op: &RunOp, spec: &Spec, mut redactor: Redactor) -> Result<(), Error> {
        let rest = memory::Rest::start();
        let mut tail = Tail::default();
        let mut show = |stream: OutputStream, bytes: Vec<u8>| {
            if !bytes.is_empty() {
                tail.push(&bytes);
                (self.events)(Event::StepOutput { step: id, stream, bytes });
                rest.soon();
            }
        };
        let mut output = |stream: OutputStream, bytes: &[u8]| show(stream, redactor.pass(stream, bytes));
        let exit = sandbox::run(spec, &self.kill_switch, &mut output);
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            show(stream, redactor.finish(stream));
        }
        let exit = match exit {
            Ok(exit) => exit,
            Err(sandbox::Error::Cancelled) => return Err(Error::new(ErrorKind::Cancelled, "the build was cancelled")),
            Err(error) => return Err(sandbox_error(&error)),
        };
        if self.kill_switch.is_thrown() {
            return Err(Error::new(ErrorKind::Cancelled, "the build was cancelled"));
        }
        let (what, status) = match exit {
            Exit::Code(0) => return Ok(()),
            Exit::Code(code) => (format!("exit code {code}"), u8::try_from(code).unwrap_or(1)),
            Exit::Signal(signal) => (format!("signal {signal}"), u8::try_from(128 + signal).unwrap_or(255)),
        };
        let command = op.argv.last().map(String::as_str).unwrap_or_default();
        let shown = if op.argv.len() > 1 { op.argv.join(" ") } else { command.to_owned() };
        let mut error = Error::new(ErrorKind::StepFailed, format!("the command {shown:?} ended with {what}"));
        let lines = tail.finish();
        if !lines.is_empty() {
            error = error.note(format!("its last lines:\n{}", lines.join("\n")));
        }
        if exit == Exit::Signal(9) {
            error = error.hint("signal 9 is what the kernel sends when memory runs out");
        }
        Err(error.with_exit_status(status))
    }

    /// Makes the layer of what the command changed.
    fn commit(&self, snapshot: &Snapshot, parent: &Root, tree: &MergedTree) -> Result<StepOutput, Error> {
        let io_error = |error: io::Error| store_error(&error).context("read what the command changed");
        let upper = file::open_host_dir(snapshot.upperdir()).map_err(io_error)?;
        self.keep_mount_points(snapshot.upperdir(), tree).map_err(io_error)?;
        let changes = layer::diff(upper.as_fd(), tree, self.options.clamp).map_err(|e| store_error(&e))?;
        if changes.is_empty() {
            return Ok(StepOutput::Root(parent.clone()));
        }
        let mut writer = LayerWriter::create(self.store, self.layer_options()).map_err(|e| store_error(&e))?;
        for Change { entry } in changes {
            let mut content = match &entry.kind {
                Kind::File { .. } => {
                    Some(File::from(file::open_file_below(upper.as_fd(), &entry.path).map_err(io_error)?))
                }
                _ => None,
            };
            let content = content.as_mut().map(|file| file as &mut dyn Read);
            writer.append(entry, content).map_err(|e| store_error(&e))?;
        }
        let written = writer.finish().map_err(|e| store_error(&e))?;
        self.remember_variant(&written.layer)?;
        self.clamp_times(upper.as_fd(), &written.tree).map_err(io_error)?;
        let key = written.layer.diff_id.0.hex();
        self.store.adopt_unpacked(&key, snapshot.upperdir()).map_err(|e| store_error(&e))?;
        Ok(StepOutput::Root(parent.with(vec![written.layer])))
    }

    /// Gives the files on disk the times that the layer says they have, so that later commands see the same whether
    /// this one ran just now or its layer was unpacked.
    fn clamp_times(&self, upper: BorrowedFd<'_>, tree: &LayerTree) -> io::Result<()> {
        if self.options.clamp.is_none() {
            return Ok(());
        }
        for entry in tree.entries().iter().rev().filter(|entry| !matches!(entry.kind, Kind::Whiteout)) {
            file::set_mtime_below(upper, &entry.path, entry.meta.mtime.secs, entry.meta.mtime.nanos)?;
        }
        Ok(())
    }

    /// Makes `/proc`, `/sys` and `/dev` directories of the image where it has none.
    fn keep_mount_points(&self, upper: &Path, tree: &MergedTree) -> io::Result<()> {
        let missing = stub::KEPT.iter().filter(|path| tree.get(path).is_none());
        let secs = u64::try_from(self.options.now.secs).unwrap_or(0);
        let time = UNIX_EPOCH + Duration::new(secs, self.options.now.nanos);
        for path in missing {
            let path = upper.join(String::from_utf8_lossy(path).as_ref());
            match std::fs::create_dir(&path) {
                Ok(()) => {
                    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
                    File::open(&path)?.set_modified(time)?;
                }
                // The command made it, or something else in its place.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Where the script of a heredoc stands.
fn script_target(op: &RunOp) -> Option<Vec<u8>> {
    op.script.as_ref().map(|script| script.path.trim_start_matches('/').as_bytes().to_vec())
}

fn sandbox_error(error: &sandbox::Error) -> Error {
    let this = match error {
        // What a shell reports in these cases: 127 not found, 126 not executable.
        sandbox::Error::Execute { failure, .. } => {
            let status = if failure.is_not_found() { 127 } else { 126 };
            Error::from_source(ErrorKind::StepFailed, error).with_exit_status(status)
        }
        _ => Error::from_source(ErrorKind::HostUnsupported, error),
    };
    match error.hint() {
        Some(hint) => this.hint(hint),
        None => this,
    }
}

/// Keeps the last lines of an output of any length.
#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<Vec<u8>>,
    open: Vec<u8>,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                self.lines.push_back(std::mem::take(&mut self.open));
                if self.lines.len() > LAST_LINES {
                    self.lines.pop_front();
                }
            } else if self.open.len() < LINE_BYTES {
                self.open.push(*byte);
            }
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.open.is_empty() {
            self.lines.push_back(self.open);
        }
        let text = |line: &Vec<u8>| {
            String::from_utf8_lossy(line).chars().filter(|c| !c.is_control() || *c == '\t').collect::<String>()
        };
        self.lines.iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_has_the_last_lines_and_no_control_characters() {
        let mut tail = Tail::default();
        for number in 0..100 {
            tail.push(format!("line {number}\n").as_bytes());
        }
        tail.push(b"\x1b[31mopen");
        let lines = tail.finish();
        assert_eq!(lines.len(), LAST_LINES + 1);
        assert_eq!(lines.first().map(String::as_str), Some("line 80"));
        assert_eq!(lines.last().map(String::as_str), Some("[31mopen"));
    }

    #[test]
    fn a_line_without_end_stays_bounded() {
        let mut tail = Tail::default();
        for _ in 0..1000 {
            tail.push(&[b'x'; 4096]);
        }
        assert_eq!(tail.finish()[0].len(), LINE_BYTES);
    }
}
