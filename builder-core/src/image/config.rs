//! The image config: what a container of the image starts with, and how the image came to be.
//!
//! Keys are written in the order of the image-spec's structs (what people see from other tools), then Docker's
//! extensions, then unknown keys sorted. Empty texts, lists and maps are omitted; `null` reads as absent.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Platform;
use crate::digest::DiffId;
use crate::store::oci::{Extra, none_if_empty, or_default};

/// An image config.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made, RFC 3339.
    #[serde(default, deserialize_with = "none_if_empty", skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, deserialize_with = "none_if_empty", skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// CPU architecture in Go's words.
    #[serde(default, deserialize_with = "or_default")]
    pub architecture: String,
    /// Operating system in Go's words.
    #[serde(default, deserialize_with = "or_default")]
    pub os: String,
    /// Version of the operating system (Windows alone has one).
    #[serde(
        default,
        rename = "os.version",
        deserialize_with = "none_if_empty",
        skip_serializing_if = "Option::is_none"
    )]
    pub os_version: Option<String>,
    /// Features that the operating system must have.
    #[serde(default, rename = "os.features", deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// Variant of the CPU.
    #[serde(default, deserialize_with = "none_if_empty", skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// What a container starts with.
    #[serde(default, deserialize_with = "or_default")]
    pub config: Config,
    /// The layers by their uncompressed content.
    #[serde(default, deserialize_with = "or_default")]
    pub rootfs: RootFs,
    /// How the layers came to be.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryEntry>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Extra,
}

impl ImageConfig {
    /// An image without layers for `platform`.
    pub fn new(platform: &Platform) -> Self {
        Self {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            os_version: platform.os_version.clone(),
            os_features: platform.os_features.clone(),
            variant: platform.variant.clone(),
            ..Self::default()
        }
    }

    /// What the image runs on.
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            variant: self.variant.clone(),
            features: Vec::new(),
        }
    }

    /// Makes the history speak of every layer: [`HistoryEntry`]s that are not `empty_layer` are as many as layers.
    ///
    /// Bases whose history is missing, too short or too long are common. Missing entries are added at the end, with the
    /// creation time of the image; entries that speak of a layer too many become empty ones, from the end.
    pub fn repair_history(&mut self) {
        let told = self.history.iter().filter(|entry| !entry.empty_layer).count();
        let layers = self.rootfs.diff_ids.len();
        for _ in told..layers {
            self.history.push(HistoryEntry { created: self.created.clone(), ..HistoryEntry::default() });
        }
        let too_many = self.history.iter_mut().rev().filter(|entry| !entry.empty_layer);
        too_many.take(told.saturating_sub(layers)).for_each(|entry| entry.empty_layer = true);
    }
}

/// What a container starts with.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Config {
    /// User and group, by name or number: `app`, `1000:1000`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Ports with protocol: `80/tcp`.
    #[serde(default, with = "key_set", skip_serializing_if = "BTreeSet::is_empty")]
    pub exposed_ports: BTreeSet<String>,
    /// Environment, `NAME=value` in the order of definition.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Command that [`Config::cmd`] is given to.
    #[serde(default, deserialize_with = "text_or_list", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Default arguments, or the command where there is no entrypoint.
    #[serde(default, deserialize_with = "text_or_list", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Directories that get a volume.
    #[serde(default, with = "key_set", skip_serializing_if = "BTreeSet::is_empty")]
    pub volumes: BTreeSet<String>,
    /// Where the command starts.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Notes for people and tools.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Signal that ends the container: `SIGTERM`, `15`.
    #[serde(default, deserialize_with = "none_if_empty", skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Whether the command is one already escaped text (Windows).
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// How to see whether the container works. Docker's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Instructions for the builds of images based on this one. Docker's.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// Shell of the shell form of `RUN`, `CMD` and `ENTRYPOINT`. Docker's.
    #[serde(default, deserialize_with = "text_or_list", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    /// Seconds between the stop signal and the kill. Docker's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Everything else, such as Docker's `Hostname` and `Tty`.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Config {
    /// The value of an environment variable, the last of a name.
    pub fn env(&self, name: &str) -> Option<&str> {
        self.env.iter().rev().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    /// Sets an environment variable; one that is there keeps its place.
    pub fn set_env(&mut self, name: &str, value: &str) {
        let pair = format!("{name}={value}");
        let same = |pair: &String| pair.split_once('=').map_or(pair.as_str(), |(found, _)| found) == name;
        match self.env.iter_mut().find(|pair| same(pair)) {
            Some(found) => *found = pair,
            None => self.env.push(pair),
        }
    }
}

/// How to see whether a container works. Durations are nanoseconds; 0 inherits the default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["CMD", …]`, `["CMD-SHELL", text]`, or `["NONE"]` to switch off an inherited one.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Until a check counts as failed.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// In which failures do not count.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between two checks of that period.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make the container unhealthy.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub retries: i64,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The layers by their uncompressed content, lowest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default = "layers_type")]
    pub kind: String,
    /// Digest of each layer's tar.
    #[serde(default, deserialize_with = "or_default")]
    pub diff_ids: Vec<DiffId>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: layers_type(), diff_ids: Vec::new(), extra: Extra::new() }
    }
}

/// One step of how an image came to be.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// When, RFC 3339.
    #[serde(default, deserialize_with = "none_if_empty", skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By which command.
    #[serde(default, deserialize_with = "none_if_empty", skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// By whom.
    #[serde(default, deserialize_with = "none_if_empty", skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Anything else.
    #[serde(default, deserialize_with = "none_if_empty", skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the step made no layer.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Extra,
}

fn layers_type() -> String {
    "layers".to_owned()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Reads a list, or the single text that Docker once wrote for a list of one.
fn text_or_list<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum TextOrList {
        Text(String),
        List(Vec<String>),
    }
    Ok(match Option::deserialize(d)? {
        None => Vec::new(),
        Some(TextOrList::Text(text)) => vec![text],
        Some(TextOrList::List(list)) => list,
    })
}

/// A set that is written as a map with empty objects for values, as Go does for lack of sets.
mod key_set {
    use super::{BTreeMap, BTreeSet, Deserialize, Deserializer, IgnoredAny, Serializer};
    use serde::ser::SerializeMap;

    #[derive(serde::Serialize)]
    struct Empty {}

    pub(super) fn serialize<S: Serializer>(set: &BTreeSet<String>, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(set.len()))?;
        for key in set {
            map.serialize_entry(key, &Empty {})?;
        }
        map.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<String>, D::Error> {
        let map = Option::<BTreeMap<String, IgnoredAny>>::deserialize(deserializer)?;
        Ok(map.unwrap_or_default().into_keys().collect())
    }
}
