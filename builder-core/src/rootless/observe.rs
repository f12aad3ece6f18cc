//! What a probe does inside the build process: each thing an engine will need, once, for real.
//!
//! Works in a directory of its own below the state directory, which it removes; mounts go with the mount namespace.
//! Changes the working directory of the process, which has no other business.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags, UnmountFlags};
use serde::{Deserialize, Serialize};

use super::diagnosis::{Failure, Feature};
use super::handshake::Namespaces;

/// One thing that was tried; what came of it, in words where there is something to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Observation {
    pub(super) feature: Feature,
    pub(super) result: Result<Option<String>, Failure>,
}

impl Observation {
    fn of_call(feature: Feature, result: io::Result<()>) -> Self {
        Self { feature, result: result.map(|()| None).map_err(|error| Failure::of_call(feature, &error)) }
    }
}

/// Tries everything that can be tried in these namespaces.
pub(super) fn observe(state_dir: &Path, namespaces: Namespaces) -> Vec<Observation> {
    let mut observations = vec![Observation::of_call(Feature::Openat2, resolve_below())];
    if namespaces == Namespaces::Enter {
        observations.push(Observation::of_call(Feature::MountByDescriptor, mount_by_descriptor()));
        observations.extend(observe_in_directory(state_dir));
    }
    observations
}

fn resolve_below() -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat2(CWD, ".", flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
    Ok(())
}

fn mount_by_descriptor() -> io::Result<()> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    // With all below, because mounts that another user namespace made cannot be uncovered.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(CWD, "/", flags)?;
    Ok(())
}

fn observe_in_directory(state_dir: &Path) -> Vec<Observation> {
    let work = match WorkDirectory::enter(state_dir) {
        Ok(work) => work,
        Err(error) => {
            let detail = Some(format!("no directory can be made in {}", state_dir.display()));
            let failure = Failure { detail, ..Failure::of_call(Feature::MountOverlay, &error) };
            return vec![Observation { feature: Feature::MountOverlay, result: Err(failure) }];
        }
    };
    let observations = vec![
        Observation::of_call(Feature::MountTmpfs, mount_tmpfs()),
        Observation { feature: Feature::MountOverlay, result: overlay().map(|()| None) },
    ];
    drop(work);
    observations
}

/// A new directory, entered, so that mount options need no escaped paths.
struct WorkDirectory(PathBuf);

impl WorkDirectory {
    fn enter(state_dir: &Path) -> io::Result<Self> {
        let work = Self(nix::unistd::mkdtemp(&state_dir.join("probe-XXXXXX"))?);
        std::env::set_current_dir(&work.0)?;
        Ok(work)
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.0) {
            // Nobody is there to be told, and what the probe found is not changed by it.
            Ok(()) | Err(_) => {}
        }
    }
}

fn mount_tmpfs() -> io::Result<()> {
    fs::create_dir("tmpfs")?;
    rustix::mount::mount("tmpfs", "tmpfs", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, None)?;
    fs::write("tmpfs/file", "x")?;
    Ok(rustix::mount::unmount("tmpfs", UnmountFlags::DETACH)?)
}

const OVERLAY_OPTIONS: &CStr = c"lowerdir=lower,upperdir=upper,workdir=work,userxattr,volatile";

/// Mounts an overlay as a step would and looks whether deletions are recorded as they must be.
fn overlay() -> Result<(), Failure> {
    let failed = |part: &str, error: &io::Error| Failure {
        detail: Some(part.to_owned()),
        ..Failure::of_call(Feature::MountOverlay, error)
    };
    for dir in ["lower", "lower/dir", "upper", "work", "merged"] {
        fs::create_dir(dir).map_err(|error| failed("make directories", &error))?;
    }
    fs::write("lower/file", "x").map_err(|error| failed("write a file", &error))?;
    rustix::mount::mount("overlay", "merged", "overlay", MountFlags::empty(), OVERLAY_OPTIONS)
        .map_err(|errno| Failure::of_call(Feature::MountOverlay, &errno.into()))?;
    let checked = check_whiteout()
        .map_err(|error| failed("delete a file of a lower layer", &error))
        .and_then(|()| check_opaque().map_err(|error| failed("recreate a directory of a lower layer", &error)));
    rustix::mount::unmount("merged", UnmountFlags::DETACH).map_err(|errno| failed("unmount", &errno.into()))?;
    checked
}

fn check_whiteout() -> io::Result<()> {
    fs::remove_file("merged/file")?;
    let whiteout = fs::symlink_metadata("upper/file")?;
    match whiteout.file_type().is_char_device() && whiteout.rdev() == 0 {
        true => Ok(()),
        false => Err(io::Error::other("there is no whiteout")),
    }
}

fn check_opaque() -> io::Result<()> {
    fs::remove_dir("merged/dir")?;
    fs::create_dir("merged/dir")?;
    let mut value = [0_u8; 8];
    let size = rustix::fs::lgetxattr("upper/dir", "user.overlay.opaque", &mut value)?;
    match value.get(..size) {
        Some(b"y") => Ok(()),
        _ => Err(io::Error::other("the directory is not opaque")),
    }
}
