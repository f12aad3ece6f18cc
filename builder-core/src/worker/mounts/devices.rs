//! `RUN --device`: what CDI specs of this machine say that a command must see.
//!
//! Nodes and files are bound from this machine, so that a node keeps its owner and permissions, and nothing of it can reach a
//! layer. Nobody may make device nodes in a user namespace, and no cgroup restrains a command: what a spec wants otherwise
//! is told as a warning. Hooks would be programs that run outside of the sandbox, and are refused.
//!
//! The key of a step has names, not what they stand for: a result is the same wherever it was made, as with secrets.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use super::{Placed, Prepared, Shown};
use crate::cdi::{DeviceNode, Edits, Mount};
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::plan::{Need, RunOp};
use crate::snapshot::MountPoint;
use crate::sys::file::{self, DeviceNumber, FileStat, FileType};
use crate::sys::mount::Attributes;
use crate::worker::BuildWorker;

fn failed(message: String) -> Error {
    Error::new(ErrorKind::HostUnsupported, message)
}

impl BuildWorker<'_> {
    /// Finds the devices of `op` and returns their mounts, which lie over those of the instruction.
    pub(super) fn place_devices(&self, op: &RunOp, prepared: &mut Prepared) -> Result<Vec<Placed<'static>>, Error> {
        if op.devices.is_empty() {
            return Ok(Vec::new());
        }
        let registry = self.options.grants.devices();
        let mut names = Vec::new();
        for device in &op.devices {
            match registry.find(&device.name) {
                Ok(found) => names.extend(found),
                Err(crate::cdi::Error::Unknown { .. }) if device.need == Need::Optional => {
                    let message = format!("the command runs without the device {:?}, which is not here", device.name);
                    (self.events)(Event::Warning { code: "device-missing".to_owned(), message });
                }
                Err(error) => {
                    let mut error = Error::from_source(ErrorKind::HostUnsupported, &error);
                    for problem in &registry.problems {
                        error = error.note(format!("a CDI spec cannot be used: {problem}"));
                    }
                    let dirs: Vec<_> = registry.dirs.iter().map(|dir| dir.display().to_string()).collect();
                    let hint = format!("CDI specs, JSON or YAML, in {} describe the devices", dirs.join(" and "));
                    return Err(error.hint(hint));
                }
            }
        }
        let mut placed = Vec::new();
        for (file, edits) in registry.edits(&names) {
            let told = |error: Error| error.context(format!("use devices of {}", file.display()));
            placed.extend(self.apply(edits, prepared).map_err(told)?);
        }
        Ok(placed)
    }

    fn apply(&self, edits: &Edits, prepared: &mut Prepared) -> Result<Vec<Placed<'static>>, Error> {
        refuse(edits)?;
        for (name, value) in edits.env.iter().filter_map(|pair| pair.split_once('=')) {
            prepared.device_env.push((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        }
        prepared.device_groups.extend(&edits.additional_gids);
        let mut placed = Vec::new();
        for node in &edits.device_nodes {
            let (found, differences) = place_node(node)?;
            for what in differences {
                let message = format!("device node {}: {what}", node.path);
                (self.events)(Event::Warning { code: "device-otherwise".to_owned(), message });
            }
            placed.push(found);
        }
        for mount in &edits.mounts {
            placed.push(place_mount(mount)?);
        }
        Ok(placed)
    }
}

fn refuse(edits: &Edits) -> Result<(), Error> {
    let wanted = [
        (!edits.hooks.is_empty(), "hooks, which are programs of this machine that would run outside of the sandbox"),
        (edits.intel_rdt.is_some(), "intelRdt"),
        (!edits.net_devices.is_empty(), "netDevices"),
    ];
    match wanted.iter().find(|(is_wanted, _)| *is_wanted) {
        Some((_, what)) => Err(failed(format!("the device wants {what}; that is not supported"))),
        None => Ok(()),
    }
}

fn open(path: &str) -> Result<(OwnedFd, FileStat), Error> {
    let open = || {
        let root = file::open_host_dir(Path::new("/"))?;
        let handle = file::open_handle_in_root(root.as_fd(), path.as_bytes())?;
        let stat = file::stat(handle.as_fd())?;
        Ok::<_, std::io::Error>((handle, stat))
    };
    open().map_err(|error| Error::from_source(ErrorKind::HostUnsupported, &error).context(format!("open {path:?}")))
}

/// Binds a node of this machine; also returns what of the spec it does not fulfil.
fn place_node(node: &DeviceNode) -> Result<(Placed<'static>, Vec<String>), Error> {
    let source = node.host_path.as_deref().unwrap_or(&node.path);
    let (handle, stat) = open(source)?;
    let kind = match stat.file_type {
        FileType::CharDevice => "c",
        FileType::BlockDevice => "b",
        FileType::Fifo => "p",
        _ => return Err(failed(format!("{source:?} is no device node"))),
    };
    // `u` is a character device by an older name.
    let wanted = node.kind.as_deref().filter(|kind| !kind.is_empty()).map(|kind| if kind == "u" { "c" } else { kind });
    if let Some(wanted) = wanted.filter(|wanted| *wanted != kind) {
        return Err(failed(format!("{source:?} is of type {kind}, not {wanted}")));
    }
    let DeviceNumber { major, minor } = stat.rdev;
    if (node.major, node.minor) != (0, 0) && (node.major, node.minor) != (major, minor) {
        let (wanted, found) = (format!("{}:{}", node.major, node.minor), format!("{major}:{minor}"));
        return Err(failed(format!("{source:?} is device {found}, not {wanted}")));
    }
    let mut differences = Vec::new();
    let mut compare = |what: &str, wanted: Option<u32>, found: u32, show: fn(u32) -> String| {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
            let (wanted, found) = (show(wanted), show(found));
            differences.push(format!("{what} stays {found}, as on this machine; the CDI spec wants {wanted}"));
        }
    };
    compare("mode", node.file_mode.map(|mode| mode & 0o7777), stat.mode, |mode| format!("{mode:04o}"));
    compare("owner", node.uid, stat.uid, |id| id.to_string());
    compare("group", node.gid, stat.gid, |id| id.to_string());
    let restrained =
        node.permissions.as_deref().filter(|text| !text.is_empty() && !("rw".chars().all(|c| text.contains(c))));
    if let Some(permissions) = restrained {
        differences.push(format!("the CDI spec's permissions {permissions:?} are not enforced, the node's mode is"));
    }
    Ok((bound(&node.path, MountPoint::File, handle, Attributes::empty()), differences))
}

fn place_mount(mount: &Mount) -> Result<Placed<'static>, Error> {
    let refuse = |what: String| failed(format!("mount {:?}: {what} is not supported", mount.container_path));
    if let Some(kind) = mount.kind.as_deref().filter(|kind| !matches!(*kind, "" | "bind" | "none")) {
        return Err(refuse(format!("type {kind:?}")));
    }
    let mut attributes = Attributes::empty();
    for option in &mount.options {
        attributes |= match option.as_str() {
            "ro" => Attributes::MOUNT_ATTR_RDONLY,
            "nosuid" => Attributes::MOUNT_ATTR_NOSUID,
            "nodev" => Attributes::MOUNT_ATTR_NODEV,
            "noexec" => Attributes::MOUNT_ATTR_NOEXEC,
            "noatime" => Attributes::MOUNT_ATTR_NOATIME,
            // What is so anyway: nothing of a step's mounts passes to or from this machine.
            "bind" | "rbind" | "rw" | "exec" | "suid" | "dev" | "private" | "rprivate" | "slave" | "rslave" => {
                Attributes::empty()
            }
            other => return Err(refuse(format!("option {other:?}"))),
        };
    }
    let (handle, stat) = open(&mount.host_path)?;
    let point = if stat.is_dir() { MountPoint::Directory } else { MountPoint::File };
    Ok(bound(&mount.container_path, point, handle, attributes))
}

fn bound(target: &str, point: MountPoint, handle: OwnedFd, attributes: Attributes) -> Placed<'static> {
    let target = target.trim_start_matches('/').as_bytes().to_vec();
    Placed { target, point, shown: Shown::Host { handle: Arc::new(handle), attributes } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(json: &str) -> Result<Vec<String>, String> {
        let node = serde_json::from_str(json).unwrap();
        place_node(&node).map(|(_, differences)| differences).map_err(|error| error.to_string())
    }

    #[test]
    fn nodes_are_held_against_those_of_the_machine() {
        assert_eq!(
            node(r#"{"path": "/dev/null", "type": "u", "major": 1, "minor": 3, "permissions": "rwm"}"#),
            Ok(vec![])
        );
        assert_eq!(node(r#"{"path": "/dev/x", "hostPath": "/dev/zero", "fileMode": 438}"#), Ok(vec![]));
        for (json, why) in [
            (r#"{"path": "/dev/null", "type": "b"}"#, "is of type c, not b"),
            (r#"{"path": "/dev/null", "major": 1, "minor": 5}"#, "is device 1:3, not 1:5"),
            (r#"{"path": "/dev/no-such-device"}"#, "No such file"),
            (r#"{"path": "/dev/x", "hostPath": "/proc"}"#, "is no device node"),
        ] {
            let error = node(json).unwrap_err();
            assert!(error.contains(why), "{json}: {error}");
        }
        let told = node(r#"{"path": "/dev/null", "fileMode": 384, "permissions": "r"}"#).unwrap();
        assert!(
            told[0].contains("stays 0666") && told[0].contains("wants 0600") && told[1].contains("\"r\""),
            "{told:?}"
        );
    }

    #[test]
    fn mounts_that_cannot_be_made_as_described_are_refused() {
        let place = |options: &str| {
            let json = format!(r#"{{"hostPath": "/usr", "containerPath": "/x", {options}}}"#);
            place_mount(&serde_json::from_str(&json).unwrap()).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(place(r#""options": ["ro", "nosuid", "nodev", "rbind", "rprivate"]"#), Ok(()));
        assert!(place(r#""options": ["size=1"]"#).unwrap_err().contains("option \"size=1\" is not supported"));
        assert!(place(r#""type": "tmpfs""#).unwrap_err().contains("type \"tmpfs\" is not supported"));
        for edits in [r#"{"hooks": [{}]}"#, r#"{"intelRdt": {}}"#, r#"{"netDevices": [{}]}"#] {
            assert!(refuse(&serde_json::from_str(edits).unwrap()).is_err(), "{edits}");
        }
    }
}
