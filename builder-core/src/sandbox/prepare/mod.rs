//! From a [`Spec`] to a [`Program`]: opens, makes and mounts all that can be made outside of the step's namespaces, as
//! detached mounts that vanish with their descriptors, so that failures here are ordinary errors and nothing is left to clean
//! up. What belongs to the new namespaces (`/proc`, message queues, a new network's `/sys`) is mounted by the child.

mod command;
mod private;

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::child::{NAME, PRIVATE, ROOT};
use super::error::Error;
use super::program::{Handle, Links, Operation, Program, Slot, Target};
use super::report;
use super::spec::{Mount, Network, Rootfs, Security, Spec};
use crate::sys::clone::StringArray;
use crate::sys::mount::{self, Attributes, Overlay, Reach};
use crate::sys::reaper::Reaper;
use private::{DEVICES, Private, devpts, tmpfs};

/// Files of `/proc` that read as empty, as in Docker.
const MASKED_FILES: [&CStr; 7] =
    [c"interrupts", c"kcore", c"keys", c"latency_stats", c"timer_list", c"timer_stats", c"sched_debug"];
/// Directories of `/proc` that look empty, as in Docker.
const MASKED_PROC: [&CStr; 3] = [c"acpi", c"asound", c"scsi"];
/// Directories of `/sys` that look empty, as in Docker.
const MASKED_SYS: [&CStr; 2] = [c"firmware", c"devices/virtual/powercap"];
/// Parts of `/proc` that cannot be written, as in Docker.
const READ_ONLY: [&CStr; 5] = [c"bus", c"fs", c"irq", c"sys", c"sysrq-trigger"];

/// Size of `/dev/shm` in bytes, as in Docker.
const SHM_BYTES: u64 = 64 << 20;

const NOSUID: Attributes = Attributes::MOUNT_ATTR_NOSUID;
/// Nothing on it is a program or a device.
const DATA_ONLY: Attributes = NOSUID.union(Attributes::MOUNT_ATTR_NODEV).union(Attributes::MOUNT_ATTR_NOEXEC);

/// Prepares everything. `stdout` and `stderr` are the ends the command writes to.
pub(super) fn prepare(spec: &Spec, stdout: OwnedFd, stderr: OwnedFd) -> Result<Program, Error> {
    let private = Private::create(spec)?;
    let Rootfs::Overlay { lowerdirs, upperdir, workdir } = &spec.rootfs;
    let root = Overlay { lowerdirs, upperdir, workdir }.mount().map_err(|source| Error::Overlay { source })?;
    let mut writer = Writer { handles: vec![private.mount, root], setup: Vec::new() };
    writer.begin(spec)?;
    for (name, path) in [(c"0", c"etc/resolv.conf"), (c"1", c"etc/hosts")] {
        writer.bind_own_file(name.to_owned(), path.to_owned());
    }
    writer.proc();
    writer.sys(spec)?;
    writer.dev(spec)?;
    if spec.security == Security::Sandbox {
        writer.restrict_proc();
    }
    writer.user_mounts(spec)?;
    writer.setup.push(Operation::EnterRoot);
    let stdout = writer.add(stdout);
    let stderr = writer.add(stderr);
    let command = command::operations(spec, stdout, stderr)?;
    Ok(Program {
        handles: writer.handles,
        setup: writer.setup,
        command,
        candidates: command::candidates(spec)?,
        arguments: StringArray::from(c_strings(&spec.argv, "an argument")?),
        environment: StringArray::from(command::environment(spec)?),
        reaper: reaper(),
    })
}

/// Where programs in memory are forbidden (`vm.memfd_noexec`), the step goes without.
fn reaper() -> Option<Reaper> {
    let (before, after) = report::around_status();
    Reaper::create(NAME, before, after).ok()
}

fn failed(operation: impl Into<String>) -> impl FnOnce(Errno) -> Error {
    let operation = operation.into();
    move |source| Error::Prepare { operation, source }
}

fn c_string(bytes: &[u8], what: &'static str) -> Result<CString, Error> {
    CString::new(bytes).map_err(|_| Error::NulByte { what })
}

fn c_strings(all: &[Vec<u8>], what: &'static str) -> Result<Vec<CString>, Error> {
    all.iter().map(|bytes| c_string(bytes, what)).collect()
}

/// `path` as the kernel takes it relative to a root.
fn image_path(path: &[u8]) -> Result<CString, Error> {
    let start = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
    let relative = path.get(start..).unwrap_or_default();
    c_string(if relative.is_empty() { b"." } else { relative }, "a path in the image")
}

/// Writes the setup part of a program.
struct Writer {
    handles: Vec<OwnedFd>,
    setup: Vec<Operation>,
}

impl Writer {
    fn add(&mut self, descriptor: OwnedFd) -> Handle {
        self.handles.push(descriptor);
        Handle::Prepared(self.handles.len() - 1)
    }

    fn begin(&mut self, spec: &Spec) -> Result<(), Error> {
        self.setup.push(Operation::TieToParent);
        self.setup.push(Operation::SetHostname(spec.hostname.clone()));
        if spec.network == Network::None {
            self.setup.push(Operation::LoopbackUp);
        }
        self.setup.push(Operation::StopPropagation);
        // The private filesystem must be attached somewhere, because only then may parts of it be cloned. The workdir is a
        // directory that nobody looks at. It must not be the root: pivot_root would put both on the new one, and
        // detaching the upper would leave the other, with the machine's files, in the step's reach.
        let Rootfs::Overlay { workdir, .. } = &spec.rootfs;
        let workdir = c_string(workdir.as_os_str().as_bytes(), "the workdir's path")?;
        self.setup.push(Operation::AttachOutside { mount: PRIVATE, path: workdir });
        self.setup.push(Operation::AttachOutside { mount: ROOT, path: c"/".to_owned() });
        Ok(())
    }

    /// Binds a file of the private filesystem. Before `/proc` and `/dev` are mounted, so that a symlink into them ends in
    /// the image.
    fn bind_own_file(&mut self, name: CString, path: CString) {
        let add = Attributes::empty();
        self.setup.push(Operation::Clone { dir: PRIVATE, name, add, into: Slot::Scratch });
        let target = Target { path, links: Links::Follow };
        self.setup.push(Operation::Attach { mount: Handle::Made(Slot::Scratch), target });
    }

    fn attach_standard(&mut self, mount: Handle, path: &CStr) {
        let target = Target { path: path.to_owned(), links: Links::Refuse };
        self.setup.push(Operation::Attach { mount, target });
    }

    fn proc(&mut self) {
        let proc = Slot::Proc;
        self.setup.push(Operation::MountFresh { filesystem: c"proc", attributes: DATA_ONLY, into: proc });
        self.attach_standard(Handle::Made(proc), c"proc");
    }

    /// The host's `/sys` shows the host's network, so it is cloned only for steps that share it; a fresh one belongs to the
    /// step's own network. Where the kernel refuses, an empty directory stands there, so that nothing is written
    /// into the image's.
    fn sys(&mut self, spec: &Spec) -> Result<(), Error> {
        let read_only = match spec.security {
            Security::Sandbox => Attributes::MOUNT_ATTR_RDONLY,
            Security::Insecure => Attributes::empty(),
        };
        let attributes = DATA_ONLY.union(read_only);
        let empty = || tmpfs(None, 0o555, DATA_ONLY.union(Attributes::MOUNT_ATTR_RDONLY));
        let sys = match spec.network {
            Network::Host => {
                let sys = host_sys(attributes).or_else(|_| empty());
                self.add(sys.map_err(failed("mount an empty /sys"))?)
            }
            Network::None => {
                let into = Slot::Sys;
                let filesystem = c"sysfs";
                self.setup.push(Operation::MountFreshOr { filesystem, attributes, into, dir: PRIVATE, name: c"empty" });
                Handle::Made(into)
            }
        };
        self.attach_standard(sys, c"sys");
        if spec.security == Security::Sandbox {
            self.mask(sys, &MASKED_SYS, PRIVATE, c"empty");
        }
        Ok(())
    }

    fn dev(&mut self, spec: &Spec) -> Result<(), Error> {
        let dev = Handle::Made(Slot::Dev);
        let name = c"dev".to_owned();
        self.setup.push(Operation::Clone { dir: PRIVATE, name, add: Attributes::empty(), into: Slot::Dev });
        self.attach_standard(dev, c"dev");
        for name in DEVICES {
            let path = Path::new("/dev").join(name.to_string_lossy().as_ref());
            match mount::clone_host_tree(&path, Reach::Single) {
                Ok(node) => {
                    let mount = self.add(node);
                    self.setup.push(Operation::AttachIn { mount, dir: dev, name });
                }
                Err(Errno::NOENT) if name == c"tty" => {}
                Err(source) => return Err(failed(format!("clone {path:?}"))(source)),
            }
        }
        let pts = self.add(devpts().map_err(failed("mount devpts"))?);
        self.setup.push(Operation::AttachIn { mount: pts, dir: dev, name: c"pts" });
        // A mount of the step's takes its place; below that, it would still take part of what `mount` prints.
        if !spec.mounts.iter().any(|mount| mount.target() == b"dev/shm") {
            let shm = self.add(
                tmpfs(Some(spec.shm_bytes.unwrap_or(SHM_BYTES)), 0o1777, DATA_ONLY)
                    .map_err(failed("mount /dev/shm"))?,
            );
            self.setup.push(Operation::AttachIn { mount: shm, dir: dev, name: c"shm" });
        }
        let into = Slot::Scratch;
        self.setup.push(Operation::MountFresh { filesystem: c"mqueue", attributes: DATA_ONLY, into });
        self.setup.push(Operation::AttachIn { mount: Handle::Made(into), dir: dev, name: c"mqueue" });
        Ok(())
    }

    fn mask(&mut self, dir: Handle, paths: &[&'static CStr], cover: Handle, with: &'static CStr) {
        self.setup.extend(paths.iter().map(|path| Operation::Mask { dir, path, cover, with }));
    }

    fn restrict_proc(&mut self) {
        let proc = Handle::Made(Slot::Proc);
        self.mask(proc, &MASKED_FILES, Handle::Made(Slot::Dev), c"null");
        self.mask(proc, &MASKED_PROC, PRIVATE, c"empty");
        self.setup.extend(READ_ONLY.iter().map(|path| Operation::MakeReadOnly { dir: proc, path }));
    }

    fn user_mounts(&mut self, spec: &Spec) -> Result<(), Error> {
        // `/dev` is a mount of our own: what is to be mounted in it is made in it.
        let mut covered: Vec<&[u8]> = vec![b"dev"];
        for (index, mount) in spec.mounts.iter().enumerate() {
            let (target, kind) = match mount {
                Mount::Bind { source, target, attributes } => {
                    let (clone, kind) = clone_source(source, *attributes)?;
                    let handle = self.add(clone);
                    (target, Some((handle, kind)))
                }
                Mount::Tmpfs { target, size, mode, read_only } => {
                    let read_only = if *read_only { Attributes::MOUNT_ATTR_RDONLY } else { Attributes::empty() };
                    let attributes = NOSUID.union(read_only);
                    let handle = self.add(tmpfs(*size, *mode, attributes).map_err(failed("mount a tmpfs"))?);
                    (target, Some((handle, FileType::Directory)))
                }
                Mount::File { target, .. } => (target, None),
            };
            let path = image_path(target)?;
            if path.as_c_str() == c"." {
                return Err(failed("mount over the image's root directory")(Errno::INVAL));
            }
            self.ensure_below_earlier(&covered, target, kind.map_or(FileType::RegularFile, |(_, kind)| kind))?;
            match kind {
                Some((mount, _)) => {
                    self.setup.push(Operation::Attach { mount, target: Target { path, links: Links::Follow } });
                }
                None => {
                    let name =
                        CString::new((index + 2).to_string()).map_err(|_| Error::NulByte { what: "a number" })?;
                    self.bind_own_file(name, path);
                }
            }
            covered.push(target);
        }
        Ok(())
    }

    /// Mount points below an earlier mount are made in it, as it hides those of the image. Anywhere else they must exist:
    /// making them would change the layer.
    fn ensure_below_earlier(&mut self, covered: &[&[u8]], target: &[u8], kind: FileType) -> Result<(), Error> {
        let Some(cover) = covered.iter().filter(|cover| is_below(cover, target)).max_by_key(|cover| cover.len()) else {
            return Ok(());
        };
        let ends = (cover.len() + 1..target.len()).filter(|end| target.get(*end) == Some(&b'/'));
        for end in ends {
            let path = image_path(target.get(..end).unwrap_or_default())?;
            self.setup.push(Operation::EnsureDirectory { path });
        }
        let path = image_path(target)?;
        self.setup.push(match kind {
            FileType::Directory => Operation::EnsureDirectory { path },
            _ => Operation::EnsureFile { path },
        });
        Ok(())
    }
}

fn is_below(directory: &[u8], path: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.first() == Some(&b'/'))
}

fn host_sys(attributes: Attributes) -> Result<OwnedFd, Errno> {
    // Mounts below it are locked to it in a user namespace: all of them or none.
    let sys = mount::clone_host_tree(Path::new("/sys"), Reach::Recursive)?;
    mount::restrict(sys.as_fd(), attributes, Reach::Recursive)?;
    Ok(sys)
}

fn clone_source(source: &OwnedFd, attributes: Attributes) -> Result<(OwnedFd, FileType), Error> {
    let clone = || {
        let clone = mount::clone_tree(source.as_fd(), c"", Reach::Single)?;
        if !attributes.is_empty() {
            mount::restrict(clone.as_fd(), attributes, Reach::Single)?;
        }
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&clone)?.st_mode);
        Ok((clone, kind))
    };
    clone().map_err(failed("clone the source of a bind mount"))
}
