//! One spec file, JSON or YAML, of which JSON is a part. What it says and this crate does not know is an error, as the
//! specification wants it: a container without it would not be the one that was described.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Number, Value};
use yaml_rust2::{Yaml, YamlLoader};

/// Newest version of the specification that is understood, and the oldest.
const VERSIONS: [(u32, u32); 2] = [(0, 3), (1, 1)];

/// What a file says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    cdi_version: String,
    /// `VENDOR/CLASS`
    pub(super) kind: String,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) devices: Vec<Device>,
    /// For whichever of the devices is used.
    #[serde(default)]
    pub(super) container_edits: Edits,
}

/// One device.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Device {
    pub(super) name: String,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) container_edits: Edits,
}

/// What a container must see.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Edits {
    /// `NAME=VALUE`
    pub(crate) env: Vec<String>,
    /// Nodes in `/dev`, mostly.
    pub(crate) device_nodes: Vec<DeviceNode>,
    /// Files of this machine.
    pub(crate) mounts: Vec<Mount>,
    /// Supplementary groups.
    #[serde(rename = "additionalGids")]
    pub(crate) additional_gids: Vec<u32>,
    /// Programs that the runtime would have to run outside of the container.
    pub(crate) hooks: Vec<Value>,
    /// Cache and bandwidth classes of the CPU.
    pub(crate) intel_rdt: Option<Value>,
    /// Network interfaces that would have to be moved.
    pub(crate) net_devices: Vec<Value>,
}

/// A device node.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DeviceNode {
    /// In the container.
    pub(crate) path: String,
    /// Here; the same by default.
    pub(crate) host_path: Option<String>,
    /// `b`, `c`, `u` or `p`
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    /// 0 is what the node on this machine has, as is 0 in `minor` then.
    #[serde(default)]
    pub(crate) major: u32,
    #[serde(default)]
    pub(crate) minor: u32,
    /// Permissions, if they should be others than those of this machine's node.
    pub(crate) file_mode: Option<u32>,
    /// `rwm`, what a device cgroup would allow.
    pub(crate) permissions: Option<String>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

/// A mount.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Mount {
    /// Here.
    pub(crate) host_path: String,
    /// In the container.
    pub(crate) container_path: String,
    /// As `mount` has them.
    #[serde(default)]
    pub(crate) options: Vec<String>,
    /// `bind` by default.
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
}

/// Reads a spec.
///
/// # Errors
/// One phrase.
pub(super) fn parse(text: &str) -> Result<Spec, String> {
    let mut documents = YamlLoader::load_from_str(text).map_err(|error| error.to_string())?;
    let (Some(yaml), true) = (documents.pop(), documents.is_empty()) else {
        return Err("it is not one document".to_owned());
    };
    let spec: Spec = serde_json::from_value(json(yaml)?).map_err(|error| error.to_string())?;
    check(&spec)?;
    Ok(spec)
}

fn json(yaml: Yaml) -> Result<Value, String> {
    Ok(match yaml {
        Yaml::Null => Value::Null,
        Yaml::Boolean(value) => Value::Bool(value),
        Yaml::Integer(value) => Value::Number(value.into()),
        Yaml::Real(text) => {
            let number = text.parse().ok().and_then(Number::from_f64);
            Value::Number(number.ok_or_else(|| format!("{text} is not a number"))?)
        }
        Yaml::String(text) => Value::String(text),
        Yaml::Array(items) => Value::Array(items.into_iter().map(json).collect::<Result<_, _>>()?),
        Yaml::Hash(pairs) => {
            let mut map = Map::new();
            for (key, value) in pairs {
                let Yaml::String(key) = key else { return Err("a key is not text".to_owned()) };
                map.insert(key, json(value)?);
            }
            Value::Object(map)
        }
        Yaml::Alias(_) | Yaml::BadValue => return Err("an alias leads nowhere".to_owned()),
    })
}

fn check(spec: &Spec) -> Result<(), String> {
    let version = || {
        let mut parts = spec.cdi_version.strip_prefix('v').unwrap_or(&spec.cdi_version).splitn(3, '.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    let [oldest, newest] = VERSIONS;
    if version().is_none_or(|version: (u32, u32)| version < oldest || version > newest) {
        return Err(format!("cdiVersion {:?} is not one from 0.3.0 to 1.1.0", spec.cdi_version));
    }
    if !is_kind(&spec.kind) {
        return Err(format!("{:?} is no kind of device: it has the form vendor.com/class", spec.kind));
    }
    if spec.devices.is_empty() {
        return Err("it has no devices".to_owned());
    }
    for (at, device) in spec.devices.iter().enumerate() {
        if !is_name(&device.name) {
            return Err(format!("{:?} is no name of a device", device.name));
        }
        if spec.devices.iter().take(at).any(|other| other.name == device.name) {
            return Err(format!("device {:?} is there twice", device.name));
        }
        check_edits(&device.container_edits)?;
    }
    check_edits(&spec.container_edits)
}

fn check_edits(edits: &Edits) -> Result<(), String> {
    if let Some(pair) = edits.env.iter().find(|pair| pair.find('=').is_none_or(|at| at == 0) || pair.contains('\0')) {
        return Err(format!("{pair:?} is no variable with a value"));
    }
    let nodes = edits.device_nodes.iter();
    let node_paths = nodes.clone().flat_map(|node| [Some(&node.path), node.host_path.as_ref()]).flatten();
    let mount_paths = edits.mounts.iter().flat_map(|mount| [&mount.host_path, &mount.container_path]);
    if let Some(path) = node_paths.chain(mount_paths).find(|path| !path.starts_with('/') || path.contains('\0')) {
        return Err(format!("{path:?} is not an absolute path"));
    }
    for node in nodes {
        if let Some(kind) = node.kind.as_deref().filter(|kind| !matches!(*kind, "" | "b" | "c" | "u" | "p")) {
            return Err(format!("{kind:?} is no type of a device node"));
        }
        if let Some(text) = node.permissions.as_deref().filter(|text| text.chars().any(|c| !"rwm".contains(c))) {
            return Err(format!("{text:?} are no permissions of a device node"));
        }
    }
    Ok(())
}

fn is_word(text: &str, more: &str) -> bool {
    let end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    end(text.chars().next())
        && end(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
}

/// `VENDOR/CLASS`
pub(super) fn is_kind(text: &str) -> bool {
    text.split_once('/').is_some_and(|(vendor, class)| is_word(vendor, "_-.") && is_word(class, "_-."))
}

/// Name of a device in its kind.
pub(super) fn is_name(text: &str) -> bool {
    is_word(text, "_-.:")
}
