//! From a [`Spec`] to a [`Program`]: opens, makes and mounts all that can be made outside of the step's namespaces, as
//! detached mounts that vanish with their descriptors, so that failures here are ordinary errors and nothing is left to clean
//! up. What belongs to the new namespaces (`/proc`, message queues, a new network's `/sys`) is mounted by the child.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::child::{PRIVATE, ROOT};
use super::error::Error;
use super::program::{Handle, Links, Operation, Program, Slot, Target};
use super::seccomp;
use super::spec::{Mount, Network, Rootfs, Security, Source, Spec};
use crate::sys::clone::StringArray;
use crate::sys::mount::{self, Attributes, Configuration, Overlay, Reach};

/// Docker's default capabilities.
const DEFAULT_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::AUDIT_WRITE)
    .union(CapabilitySet::SETFCAP);

/// Device nodes that programs take for granted. `tty` is missing where the build runs without one.
const DEVICES: [&CStr; 6] = [c"null", c"zero", c"full", c"random", c"urandom", c"tty"];
/// Symbolic links of `/dev`, name and target.
const DEVICE_LINKS: [(&CStr, &CStr); 6] = [
    (c"fd", c"/proc/self/fd"),
    (c"stdin", c"/proc/self/fd/0"),
    (c"stdout", c"/proc/self/fd/1"),
    (c"stderr", c"/proc/self/fd/2"),
    (c"core", c"/proc/kcore"),
    (c"ptmx", c"pts/ptmx"),
];
/// Files of `/proc` that read as empty, as in Docker.
const MASKED_FILES: [&CStr; 7] =
    [c"interrupts", c"kcore", c"keys", c"latency_stats", c"timer_list", c"timer_stats", c"sched_debug"];
/// Directories of `/proc` that look empty, as in Docker.
const MASKED_PROC: [&CStr; 3] = [c"acpi", c"asound", c"scsi"];
/// Directories of `/sys` that look empty, as in Docker.
const MASKED_SYS: [&CStr; 2] = [c"firmware", c"devices/virtual/powercap"];
/// Parts of `/proc` that cannot be written, as in Docker.
const READ_ONLY: [&CStr; 5] = [c"bus", c"fs", c"irq", c"sys", c"sysrq-trigger"];

const NOSUID: Attributes = Attributes::MOUNT_ATTR_NOSUID;
/// Nothing on it is a program or a device.
const DATA_ONLY: Attributes = NOSUID.union(Attributes::MOUNT_ATTR_NODEV).union(Attributes::MOUNT_ATTR_NOEXEC);

/// Room on the private filesystem for `/dev` and what the step adds to its files.
const PRIVATE_SIZE: u64 = 64 << 20;

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
    writer.dev()?;
    if spec.security == Security::Sandbox {
        writer.restrict_proc();
    }
    writer.user_mounts(spec)?;
    writer.setup.push(Operation::EnterRoot);
    let stdout = writer.add(stdout);
    let stderr = writer.add(stderr);
    let command = command_operations(spec, stdout, stderr)?;
    Ok(Program {
        handles: writer.handles,
        setup: writer.setup,
        command,
        candidates: candidates(spec)?,
        arguments: StringArray::from(c_strings(&spec.argv, "an argument")?),
        environment: StringArray::from(environment(spec)?),
    })
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

/// A filesystem in memory that only this step sees.
struct Private {
    mount: OwnedFd,
}

impl Private {
    /// `dev` becomes `/dev`, `empty` covers directories, numbered files are bound over the image's.
    fn create(spec: &Spec) -> Result<Self, Error> {
        let contents: u64 = spec
            .mounts
            .iter()
            .map(|mount| if let Mount::File { content, .. } = mount { content.0.len() as u64 } else { 0 })
            .sum();
        let mount = tmpfs(Some(PRIVATE_SIZE + contents), 0o755, NOSUID).map_err(failed("mount a private tmpfs"))?;
        let private = Self { mount };
        private.fill_dev().map_err(failed("make /dev"))?;
        private.write_file(0, &spec.resolv_conf, 0o644, 0, 0)?;
        private.write_file(1, &spec.hosts, 0o644, 0, 0)?;
        for (index, mount) in spec.mounts.iter().enumerate() {
            if let Mount::File { content, mode, uid, gid, .. } = mount {
                private.write_file(index + 2, &content.0, *mode, *uid, *gid)?;
            }
        }
        Ok(private)
    }

    fn fill_dev(&self) -> Result<(), Errno> {
        let root = self.mount.as_fd();
        make_directory(root, c"empty")?;
        make_directory(root, c"dev")?;
        let dev = rustix::fs::openat(root, c"dev", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        for name in [c"pts", c"shm", c"mqueue"] {
            rustix::fs::mkdirat(&dev, name, Mode::RWXU)?;
        }
        for name in DEVICES {
            make_file(dev.as_fd(), name)?;
        }
        for (name, target) in DEVICE_LINKS {
            rustix::fs::symlinkat(target, &dev, name)?;
        }
        Ok(())
    }

    fn write_file(&self, number: usize, content: &[u8], mode: u32, uid: u32, gid: u32) -> Result<(), Error> {
        let write = || {
            let file = make_file(self.mount.as_fd(), &CString::new(number.to_string()).map_err(|_| Errno::INVAL)?)?;
            let mut rest = content;
            while !rest.is_empty() {
                rest = rest.get(rustix::io::write(&file, rest)?..).unwrap_or_default();
            }
            // The process's umask has nothing to say here, and chown clears setuid bits: owner first, then mode.
            if (uid, gid) != (0, 0) {
                rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            }
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))
        };
        write().map_err(failed("write a file of the sandbox"))
    }
}

fn make_directory(dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    rustix::fs::mkdirat(dir, name, Mode::RWXU)?;
    rustix::fs::chmodat(dir, name, Mode::from_raw_mode(0o755), rustix::fs::AtFlags::empty())
}

fn make_file(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)
}

fn tmpfs(size: Option<u64>, mode: u32, attributes: Attributes) -> Result<OwnedFd, Errno> {
    let tmpfs = Configuration::open(c"tmpfs")?;
    let text = |value: String| CString::new(value).map_err(|_| Errno::INVAL);
    tmpfs.set(c"mode", &text(format!("{mode:o}"))?)?;
    if let Some(size) = size {
        tmpfs.set(c"size", &text(size.to_string())?)?;
    }
    tmpfs.mount(attributes)
}

/// New pseudo terminals. Group 5 is `tty` everywhere; a user namespace with a single id has no such group.
fn devpts() -> Result<OwnedFd, Errno> {
    let mount = |group: &[(&CStr, &CStr)]| {
        let devpts = Configuration::open(c"devpts")?;
        devpts.set_flag(c"newinstance")?;
        for (key, value) in [(c"ptmxmode", c"0666"), (c"mode", c"0620")].iter().chain(group) {
            devpts.set(key, value)?;
        }
        devpts.mount(NOSUID.union(Attributes::MOUNT_ATTR_NOEXEC))
    };
    match mount(&[(c"gid", c"5")]) {
        Err(Errno::INVAL) => mount(&[]),
        result => result,
    }
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
        let sys = match (spec.network, host_sys(attributes)) {
            (Network::Host, Ok(sys)) => self.add(sys),
            (Network::Host, Err(_)) => {
                let empty = tmpfs(None, 0o555, DATA_ONLY.union(Attributes::MOUNT_ATTR_RDONLY));
                self.add(empty.map_err(failed("mount an empty /sys"))?)
            }
            (Network::None, _) => {
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

    fn dev(&mut self) -> Result<(), Error> {
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
        let shm = self.add(tmpfs(Some(64 << 20), 0o1777, DATA_ONLY).map_err(failed("mount /dev/shm"))?);
        self.setup.push(Operation::AttachIn { mount: pts, dir: dev, name: c"pts" });
        self.setup.push(Operation::AttachIn { mount: shm, dir: dev, name: c"shm" });
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
        let mut covered: Vec<&[u8]> = Vec::new();
        for (index, mount) in spec.mounts.iter().enumerate() {
            let (target, kind) = match mount {
                Mount::Bind { source, target, read_only, recursive } => {
                    let reach = if *recursive { Reach::Recursive } else { Reach::Single };
                    let (clone, kind) = clone_source(source, reach, *read_only)?;
                    let handle = self.add(clone);
                    (target, Some((handle, kind)))
                }
                Mount::Tmpfs { target, size, mode } => {
                    let attributes = NOSUID.union(Attributes::MOUNT_ATTR_NODEV);
                    let handle = self.add(tmpfs(*size, *mode, attributes).map_err(failed("mount a tmpfs"))?);
                    (target, Some((handle, FileType::Directory)))
                }
                Mount::File { target, .. } => (target, None),
            };
            let path = image_path(target)?;
            self.ensure_below_earlier(&covered, target, kind.map_or(FileType::RegularFile, |(_, kind)| kind))?;
            match kind {
                Some((mount, _)) => {
                    self.setup.push(Operation::Attach { mount, target: Target { path, links: Links::Follow } })
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

fn clone_source(source: &Source, reach: Reach, read_only: bool) -> Result<(OwnedFd, FileType), Error> {
    let name = format!("{source:?}");
    let clone = || {
        let clone = match source {
            Source::Handle(handle) => mount::clone_tree(handle.as_fd(), c"", reach)?,
            Source::Path(path) => mount::clone_host_tree(path, reach)?,
        };
        if read_only {
            mount::restrict(clone.as_fd(), Attributes::MOUNT_ATTR_RDONLY, reach)?;
        }
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&clone)?.st_mode);
        Ok((clone, kind))
    };
    clone().map_err(failed(format!("clone {name}")))
}

/// The order matters: what needs a capability comes before it is given up, and the filter before the user changes, as
/// installing it needs `CAP_SYS_ADMIN`. The filter allows all that follows it.
fn command_operations(spec: &Spec, stdout: Handle, stderr: Handle) -> Result<Vec<Operation>, Error> {
    let (uid, gid) = (Uid::from_raw(spec.uid), Gid::from_raw(spec.gid));
    let owner = ((spec.uid, spec.gid) != (0, 0)).then_some((uid, gid));
    let groups = spec.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    let held = rustix::thread::capabilities(None).map_err(failed("read capabilities"))?.permitted;
    let kept = match spec.security {
        Security::Sandbox => held.intersection(DEFAULT_CAPABILITIES),
        Security::Insecure => held,
    };
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    let mut operations = vec![
        Operation::NewSession,
        Operation::SetStdio { stdout, stderr, owner },
        Operation::ChangeDirectory { path: image_path(&spec.cwd)? },
        Operation::CloseOnExec,
        Operation::SetGroups(groups),
        Operation::SetGroup(gid),
    ];
    match spec.security {
        Security::Sandbox => {
            operations.push(Operation::LimitCapabilities(DEFAULT_CAPABILITIES.bits()));
            operations.push(Operation::InstallFilter(seccomp::default_filter().ok_or(Error::NoProfile)?));
        }
        // The filter forbids keyctl; without it, the caller's keys would be in reach.
        Security::Insecure => operations.push(Operation::LeaveKeyring),
    }
    operations.push(Operation::SetCapabilities(sets));
    operations.push(Operation::SetUser(uid));
    Ok(operations)
}

fn environment(spec: &Spec) -> Result<Vec<CString>, Error> {
    let joined = |(name, value): &(Vec<u8>, Vec<u8>)| {
        let mut variable = name.clone();
        variable.push(b'=');
        variable.extend_from_slice(value);
        c_string(&variable, "a variable of the environment")
    };
    spec.env.iter().map(joined).collect()
}

/// Where programs are looked for when the environment has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Paths to try for `argv[0]`, in order.
fn candidates(spec: &Spec) -> Result<Vec<CString>, Error> {
    let program = spec.argv.first().filter(|program| !program.is_empty()).ok_or(Error::EmptyCommand)?;
    if program.contains(&b'/') {
        return Ok(vec![c_string(program, "the program's name")?]);
    }
    // The last of a name counts, as in the shell that would read it.
    let path = spec.env.iter().rev().find(|(name, _)| name == b"PATH").map_or(DEFAULT_PATH, |(_, value)| value);
    let candidate = |directory: &[u8]| {
        let mut candidate = if directory.is_empty() { b".".to_vec() } else { directory.to_vec() };
        candidate.push(b'/');
        candidate.extend_from_slice(program);
        c_string(&candidate, "the program's name")
    };
    path.split(|byte| *byte == b':').map(candidate).collect()
}
