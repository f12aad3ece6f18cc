//! Devices that this machine describes for containers, by the Container Device Interface (CDI 1.1).
//!
//! A spec file says what a container must see to use a device: nodes, mounts, variables, groups. This module reads the files
//! of the directories it is given and finds devices by the names that `RUN --device` has; what becomes of them is the
//! worker's business. A file that cannot be read spoils its own devices only.
//!
//! Names, as in BuildKit: `VENDOR/CLASS=NAME` is one device, `VENDOR/CLASS=CLASS-ANNOTATION` those of an annotation,
//! `VENDOR/CLASS=*` all of a kind, `VENDOR/CLASS` the first of it. Of two files in different directories the later
//! directory counts, two in one directory are a conflict.

mod document;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use document::{DeviceNode, Edits, Mount};
use document::{Spec, is_name};

/// Largest spec file that is read.
const MAX_BYTES: u64 = 4 << 20;
/// The devices of a class, if no device has that name.
const CLASS: &str = "org.mobyproject.buildkit.device.class";
/// Whether the machine's owner lets every build use the device.
const AUTO_ALLOW: &str = "org.mobyproject.buildkit.device.autoallow";

/// Why no device is found.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Error {
    /// The name has another form.
    #[error("{name:?} is no device: a name has the form vendor.com/class=device")]
    Name {
        /// It.
        name: String,
    },
    /// No spec file has it.
    #[error("this machine has no device {name:?}")]
    Unknown {
        /// It.
        name: String,
    },
    /// Two files have it.
    #[error("device {name:?} is described twice, in {first:?} and {second:?}")]
    Conflict {
        /// It.
        name: String,
        /// One file.
        first: PathBuf,
        /// The other one.
        second: PathBuf,
    },
}

#[derive(Debug)]
struct Device {
    spec: Arc<Spec>,
    /// Which of the spec.
    index: usize,
    file: PathBuf,
    /// Number of the directory that the file is in.
    rank: usize,
    conflict: Option<PathBuf>,
}

impl Device {
    fn annotation(&self, key: &str) -> Option<&str> {
        let own = self.spec.devices.get(self.index).and_then(|device| device.annotations.get(key));
        own.or_else(|| self.spec.annotations.get(key)).map(String::as_str)
    }
}

/// All devices of some directories.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// By `VENDOR/CLASS=NAME`.
    devices: BTreeMap<String, Device>,
    /// Where was looked for them.
    pub(crate) dirs: Vec<PathBuf>,
    /// What is wrong with which file.
    pub(crate) problems: Vec<String>,
}

impl Registry {
    /// Reads the spec files of `dirs`; what is not there has none.
    pub(crate) fn load(dirs: &[PathBuf]) -> Self {
        let mut registry = Self { dirs: dirs.to_vec(), ..Self::default() };
        for (rank, dir) in dirs.iter().enumerate() {
            let mut files: Vec<PathBuf> = match std::fs::read_dir(dir) {
                Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => {
                    registry.problems.push(format!("{}: {error}", dir.display()));
                    continue;
                }
            };
            files.retain(|file| file.extension().is_some_and(|end| end == "json" || end == "yaml" || end == "yml"));
            files.sort();
            for file in files {
                match read(&file) {
                    Ok(spec) => registry.add(spec, &file, rank),
                    Err(problem) => registry.problems.push(format!("{}: {problem}", file.display())),
                }
            }
        }
        registry
    }

    fn add(&mut self, spec: Spec, file: &Path, rank: usize) {
        let spec = Arc::new(spec);
        for (index, device) in spec.devices.iter().enumerate() {
            let name = format!("{}={}", spec.kind, device.name);
            let new = Device { spec: spec.clone(), index, file: file.to_owned(), rank, conflict: None };
            match self.devices.get_mut(&name) {
                Some(old) if old.rank == rank => old.conflict = Some(file.to_owned()),
                _ => {
                    self.devices.insert(name, new);
                }
            }
        }
    }

    /// Returns the full names of the devices that `name` stands for, at least one.
    pub(crate) fn find(&self, name: &str) -> Result<Vec<&str>, Error> {
        if !is_request(name) {
            return Err(Error::Name { name: name.to_owned() });
        }
        let (kind, device) = name.split_once('=').unwrap_or((name, ""));
        let of_kind = || self.devices.iter().filter(|(full, _)| full.split_once('=').is_some_and(|(k, _)| k == kind));
        let names = |devices: &mut dyn Iterator<Item = (&'_ String, &'_ Device)>| -> Vec<String> {
            devices.map(|(full, _)| full.clone()).collect()
        };
        let found = match device {
            "" => names(&mut of_kind().take(1)),
            "*" => names(&mut of_kind()),
            _ if self.devices.contains_key(name) => vec![name.to_owned()],
            class => names(&mut of_kind().filter(|(_, device)| device.annotation(CLASS) == Some(class))),
        };
        if found.is_empty() {
            return Err(Error::Unknown { name: name.to_owned() });
        }
        let mut full = Vec::with_capacity(found.len());
        for name in found {
            let Some((key, device)) = self.devices.get_key_value(&name) else { continue };
            if let Some(second) = device.conflict.clone() {
                return Err(Error::Conflict { name, first: device.file.clone(), second });
            }
            full.push(key.as_str());
        }
        Ok(full)
    }

    /// Whether the machine lets every build use what `name` stands for.
    pub(crate) fn is_auto_allowed(&self, name: &str) -> bool {
        let allowed = |full: &&str| {
            let value = self.devices.get(*full).and_then(|device| device.annotation(AUTO_ALLOW));
            value.is_some_and(|value| matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"))
        };
        self.find(name).is_ok_and(|found| found.iter().all(allowed))
    }

    /// Returns what must be done for the devices `full`, each once: what a spec says of all its devices comes before what
    /// it says of its first one.
    pub(crate) fn edits<'r>(&'r self, full: &[&str]) -> Vec<(&'r Path, &'r Edits)> {
        let mut specs: Vec<*const Spec> = Vec::new();
        let mut done: Vec<&str> = Vec::new();
        let mut edits = Vec::new();
        for name in full {
            let Some(device) = self.devices.get(*name).filter(|_| !done.contains(name)) else { continue };
            done.push(name);
            if !specs.contains(&Arc::as_ptr(&device.spec)) {
                specs.push(Arc::as_ptr(&device.spec));
                edits.push((device.file.as_path(), &device.spec.container_edits));
            }
            if let Some(own) = device.spec.devices.get(device.index) {
                edits.push((device.file.as_path(), &own.container_edits));
            }
        }
        edits
    }
}

/// Whether `name` has a form that [`Registry::find`] takes.
pub(crate) fn is_request(name: &str) -> bool {
    let (kind, device) = name.split_once('=').unwrap_or((name, ""));
    document::is_kind(kind) && (matches!(device, "" | "*") || is_name(device))
}

fn read(file: &Path) -> Result<Spec, String> {
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(|error| error.to_string())?;
    opened.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("it has more than {MAX_BYTES} bytes"));
    }
    document::parse(&text)
}
