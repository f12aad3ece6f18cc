//! Platforms: `os/arch[/variant]` in Go's words, which of them run which images, and the choice from an index.
//!
//! Names are normalised as containerd does (`x86_64` is `amd64`, `arm64/v8` is `arm64`, `arm` is `arm/v7`). A newer
//! CPU runs images of older variants of its architecture, never the other way; no image is chosen across architectures.

use std::fmt;
use std::str::FromStr;

use super::media_type::is_config;
use super::{Descriptor, Index, Platform};

/// A text is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a platform (want os/arch or os/arch/variant, such as linux/arm64)")]
pub struct ParsePlatformError(String);

/// An image has nothing for the wanted platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no image for {wanted}, there is {}", if available.is_empty() { "none at all".to_owned() } else { available.join(", ") })]
pub struct NoMatchingPlatform {
    /// What was asked for.
    pub wanted: String,
    /// What there is.
    pub available: Vec<String>,
}

/// Operating systems that may stand alone or tell `os` from `arch`.
const SYSTEMS: [&str; 15] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
];
/// Architectures that may stand alone.
const ARCHITECTURES: [&str; 13] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64",
    "s390x",
];

impl Platform {
    /// A platform, normalised.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.unwrap_or_default().to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386" | "i486" | "i586" | "i686" | "386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
            ("aarch64" | "arm64", variant) => ("arm64", variant),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            (architecture, variant) => (architecture, variant),
        };
        Self {
            architecture: architecture.to_owned(),
            os,
            os_version: None,
            os_features: Vec::new(),
            variant: Some(variant.to_owned()).filter(|variant| !variant.is_empty()),
            features: Vec::new(),
        }
    }

    /// The machine that this code was compiled for.
    pub fn host() -> Self {
        Self::new(std::env::consts::OS, host_architecture(), None)
    }

    /// The same in normal form.
    #[must_use]
    pub fn normalized(&self) -> Self {
        Self {
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            features: self.features.clone(),
            ..Self::new(&self.os, &self.architecture, self.variant.as_deref())
        }
    }

    /// How well an image of platform `image` suits this platform: 0 best, `None` not at all.
    pub fn rank(&self, image: &Self) -> Option<usize> {
        let (wanted, image) = (self.normalized(), image.normalized());
        if wanted.os != image.os || wanted.architecture != image.architecture {
            return None;
        }
        let older = older_variants(&wanted.architecture, wanted.variant.as_deref().unwrap_or_default());
        older.iter().position(|variant| *variant == image.variant.as_deref().unwrap_or_default())
    }
}

fn host_architecture() -> &'static str {
    match (std::env::consts::ARCH, cfg!(target_endian = "little")) {
        ("powerpc64", true) => "ppc64le",
        ("powerpc64", false) => "ppc64",
        ("loongarch64", _) => "loong64",
        ("mips64", true) => "mips64le",
        ("mips", true) => "mipsle",
        (other, _) => other,
    }
}

/// The variant and those that its CPUs also run, best first.
fn older_variants<'a>(architecture: &str, variant: &'a str) -> Vec<&'a str> {
    let known: &[&str] = match architecture {
        "amd64" => &["v4", "v3", "v2", ""],
        "arm" => &["v8", "v7", "v6", "v5"],
        // Minor versions of v8 and v9 are rarely used as variants; what is asked for comes first, then any arm64.
        "arm64" if !variant.is_empty() => return vec![variant, ""],
        _ => return vec![variant],
    };
    match known.iter().position(|known| *known == variant) {
        Some(at) => known[at..].to_vec(),
        None => vec![variant],
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    /// Reads `os/arch`, `os/arch/variant`, or an architecture or system alone (then Linux, or this machine's CPU).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParsePlatformError(text.to_owned());
        let plain = |part: &&str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        let parts: Vec<_> = text.split('/').collect();
        if !parts.iter().all(plain) {
            return Err(error());
        }
        match parts[..] {
            [one] => {
                let (system, cpu) = (Self::new(one, "", None), Self::new("linux", one, None));
                if SYSTEMS.contains(&system.os.as_str()) {
                    Ok(Self::new(one, &Self::host().architecture, None))
                } else if ARCHITECTURES.contains(&cpu.architecture.as_str()) {
                    Ok(cpu)
                } else {
                    Err(error())
                }
            }
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl Descriptor {
    /// Whether this entry of an index is an attestation about an image, not an image.
    pub fn is_attestation(&self) -> bool {
        let unknown = |platform: &Platform| platform.os == "unknown" || platform.architecture == "unknown";
        self.annotations.contains_key("vnd.docker.reference.type") || self.platform.as_ref().is_some_and(unknown)
    }
}

impl Descriptor {
    /// Whether this entry of an index is an artifact of another kind, not an image.
    pub fn is_artifact(&self) -> bool {
        self.artifact_type.as_deref().is_some_and(|kind| !is_config(kind))
    }
}

impl Index {
    /// The entry that suits `wanted` best, the first of equals.
    ///
    /// An index with a single image that names no platform gives that one; its config says what it is.
    pub fn choose(&self, wanted: &Platform) -> Result<&Descriptor, NoMatchingPlatform> {
        let images = || self.manifests.iter().filter(|entry| !entry.is_attestation() && !entry.is_artifact());
        let ranked = images().filter_map(|entry| Some((wanted.rank(entry.platform.as_ref()?)?, entry)));
        if let Some((_, entry)) = ranked.min_by_key(|(rank, _)| *rank) {
            return Ok(entry);
        }
        let mut all = images();
        if let (Some(only @ Descriptor { platform: None, .. }), None) = (all.next(), all.next()) {
            return Ok(only);
        }
        let name =
            |entry: &Descriptor| entry.platform.as_ref().map_or("one without platform".to_owned(), Platform::to_string);
        Err(NoMatchingPlatform { wanted: wanted.to_string(), available: images().map(name).collect() })
    }
}
