//! Variables: the environment of a stage, build args, and what is predefined.

use std::collections::BTreeMap;

use super::PlanRequest;
use crate::image::Platform;

/// Proxy variables, usable without `ARG`.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Build args that mean something by themselves, so that giving one undeclared is no mistake.
const BUILT_IN: [&str; 11] = [
    "BUILDKIT_BUILD_NAME",
    "BUILDKIT_CACHE_MOUNT_NS",
    "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
    "BUILDKIT_DOCKERFILE_CHECK",
    "BUILDKIT_INLINE_CACHE",
    "BUILDKIT_MULTI_PLATFORM",
    "BUILDKIT_SANDBOX_HOSTNAME",
    "BUILDKIT_SBOM_SCAN_CONTEXT",
    "BUILDKIT_SBOM_SCAN_STAGE",
    "BUILDKIT_SYNTAX",
    "SOURCE_DATE_EPOCH",
];

/// Variables with their values, each name once, in the order they got their values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Env(Vec<(String, String)>);

impl Env {
    /// Returns the value of `name`.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Sets `name`; it is the last one now.
    pub(super) fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let name = name.into();
        self.remove(&name);
        self.0.push((name, value.into()));
    }

    /// Forgets `name`.
    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|(key, _)| key != name);
    }

    /// Returns the names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Returns the pairs.
    pub(super) fn to_pairs(&self) -> Vec<(String, String)> {
        self.0.clone()
    }
}

/// A name that `ARG` declared in a stage, with the value it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeclaredArg {
    /// The name.
    pub(super) name: String,
    /// The value, if it has one.
    pub(super) value: Option<String>,
}

/// The request's build args.
#[derive(Debug, Clone, Default)]
pub(super) struct BuildArgs(BTreeMap<String, String>);

impl BuildArgs {
    /// Takes the build args of `request`, with its `source_date_epoch` as one of them.
    pub(super) fn new(request: &PlanRequest<'_>) -> Self {
        let mut args: BTreeMap<_, _> = request.build_args.iter().cloned().collect();
        if let Some(epoch) = request.source_date_epoch {
            args.entry("SOURCE_DATE_EPOCH".to_owned()).or_insert_with(|| epoch.to_string());
        }
        Self(args)
    }

    /// Returns the value of `name`.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Forgets `name`.
    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Returns the proxy variables for a command, each in upper and lower case.
    pub(super) fn proxies(&self) -> Vec<(String, String)> {
        let mut pairs = vec![];
        for name in PROXIES {
            // Sorted names: of `HTTP_PROXY` and `http_proxy` the lower-case one comes last and counts.
            let value = self.0.iter().rfind(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                pairs.push((name.to_owned(), value.clone()));
                pairs.push((name.to_ascii_lowercase(), value.clone()));
            }
        }
        pairs
    }

    /// Returns the names that nobody knows: not in `declared`, not predefined, not built in.
    pub(super) fn unknown<'a>(&'a self, declared: &[&str], globals: &Env) -> Vec<&'a str> {
        let known = |name: &str| {
            declared.contains(&name)
                || BUILT_IN.contains(&name)
                || globals.get(name).is_some()
                || PROXIES.iter().any(|proxy| proxy.eq_ignore_ascii_case(name))
        };
        self.0.keys().map(String::as_str).filter(|name| !known(name)).collect()
    }
}

/// Returns the predefined platform args of the global scope: `platform` is the image's, `target` the stage asked for.
pub(super) fn predefined(args: &BuildArgs, build: &Platform, platform: &Platform, target: &str) -> Env {
    let mut env = Env::default();
    for (prefix, platform) in [("BUILD", build), ("TARGET", platform)] {
        for (suffix, value) in [
            ("PLATFORM", platform.to_string()),
            ("OS", platform.os.clone()),
            ("OSVERSION", platform.os_version.clone().unwrap_or_default()),
            ("ARCH", platform.architecture.clone()),
            ("VARIANT", platform.variant.clone().unwrap_or_default()),
        ] {
            let name = format!("{prefix}{suffix}");
            let value = args.get(&name).map_or(value, str::to_owned);
            env.set(name, value);
        }
    }
    env.set("TARGETSTAGE", args.get("TARGETSTAGE").unwrap_or(target));
    env
}

/// Returns whether `ARG name` is for the builder alone and must not get into the environment.
pub(super) fn is_not_environment(name: &str) -> bool {
    matches!(name, "BUILDKIT_SBOM_SCAN_CONTEXT" | "BUILDKIT_SBOM_SCAN_STAGE")
}
