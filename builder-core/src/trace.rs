//! What became of the steps of a build, or would become of them, and why. Values: they are kept in a file of the state
//! directory, travel to the caller, and are shown by it.
//!
//! A step of one build is the same as one of an earlier build when it stands at the same place of its stage, as far as
//! the texts of both Dockerfiles tell ([`pair()`]). Why it was done again is the list of parts of its key that differ
//! ([`changed_parts()`]), the first of which is said.

mod changes;
mod pair;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) use changes::{FILES_PARTS, changed_parts};
pub(crate) use pair::pair;

use crate::digest::{DiffId, Digest};
use crate::event::{StepId, StepInfo};

/// What became of a step, or would become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StepState {
    /// An image or a context: it is provided, there is nothing to remember.
    Provided,
    /// An earlier result was there.
    Cached,
    /// It was done.
    Ran,
    /// It would be done.
    WouldRun,
    /// Whether an earlier result is there depends on a step that would be done, or on something that only a build fetches.
    Unknown,
    /// It would be done, but this machine cannot.
    Refused,
    /// It failed.
    Failed,
    /// The build ended before it was done.
    NotDone,
}

impl fmt::Display for StepState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Provided => "provided",
            Self::Cached => "cached",
            Self::Ran => "ran",
            Self::WouldRun => "would run",
            Self::Unknown => "unknown",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::NotDone => "not done",
        })
    }
}

/// Kind of a [`Reason`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ReasonCode {
    /// The caller wanted no earlier result.
    NoCache,
    /// No build that is remembered had this step.
    NoEarlierBuild,
    /// Parts of its key differ from those of the last build.
    Changed,
    /// Its key is that of the last build, whose result is not there any more.
    RecordGone,
    /// Its key is that of the last build, which did not finish it.
    NotFinished,
    /// A step that it builds on would be done, and what that yields is not known before.
    DependsOn,
    /// Something must be fetched first.
    NotFetched,
    /// This machine cannot run commands.
    HostUnsupported,
}

/// Why no earlier result of a step was used, or why nobody can tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Reason {
    /// Its kind.
    pub code: ReasonCode,
    /// One line for people; the first of `changes` if there are any.
    pub text: String,
    /// What differs from the last build of this step, in the order in which it counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// The step that it depends on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepId>,
}

impl Reason {
    /// A reason that its kind says all about but for the words.
    pub(crate) fn new(code: ReasonCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), changes: Vec::new(), step: None }
    }

    /// Something changed; `changes` is not empty.
    pub(crate) fn changed(changes: Vec<Change>) -> Self {
        let text = changes.first().map(|change| change.text.clone()).unwrap_or_default();
        Self { code: ReasonCode::Changed, text, changes, step: None }
    }

    /// The same, because of `step`.
    pub(crate) fn because_of(mut self, step: StepId) -> Self {
        self.step = Some(step);
        self
    }
}

/// One difference between a step and the same step of the last build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Change {
    /// Which part of the key: `command`, `env CC`, `file system`, `files`.
    pub part: String,
    /// One line for people.
    pub text: String,
    /// The value in the last build, where it is short enough to be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The value now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

impl Change {
    /// A change without values.
    pub(crate) fn new(part: impl Into<String>, text: impl Into<String>) -> Self {
        Self { part: part.into(), text: text.into(), before: None, after: None }
    }
}

/// A step of a build or of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StepReport {
    /// Which step.
    #[serde(flatten)]
    pub info: StepInfo,
    /// The steps whose results it reads, each once.
    pub inputs: Vec<StepId>,
    /// What became of it.
    pub state: StepState,
    /// Why no earlier result was used, where it was or would be done or that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Full name and digest of the image that it provides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Bytes of the image's layers that the store lacks; told by a plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_bytes: Option<u64>,
    /// The shared cache that has its result, as the caller named it; told by a plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_in: Option<String>,
    /// Its cache key, as far as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// What a build would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BuildPlan {
    /// The Dockerfile, as shown in messages.
    pub dockerfile: String,
    /// Stage that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The steps that the target needs, in the order of the Dockerfile; inputs of a step stand before it.
    pub steps: Vec<StepReport>,
    /// Stages that it does not need, by name or number.
    pub unused_stages: Vec<String>,
}

/// What a build did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BuildReport {
    /// Name of the build in the state directory.
    pub id: String,
    /// When it started, RFC 3339.
    pub started: String,
    /// The Dockerfile, as shown in messages.
    pub dockerfile: String,
    /// The main context, if there was one; credentials in a URL are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Stage that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Platform that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Names that the image got.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Digest of the image's manifest; a build that failed has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The steps.
    pub steps: Vec<StepReport>,
}

/// A build as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trace {
    /// What is told of it.
    #[serde(flatten)]
    pub(crate) report: BuildReport,
    /// For each step what the next build compares itself with.
    pub(crate) kept: Vec<Kept>,
}

/// What is kept of a step besides what is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Parts of the key, as in a record; empty when it never came to a key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) parts: Vec<(String, String)>,
    /// The layers that the step added, whose trees say which files it wrote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) layers: Vec<DiffId>,
    /// What its mounts showed, where those are not too many files.
    #[serde(default, skip_serializing_if = "Mounted::is_empty")]
    pub(crate) mounted: Mounted,
}

/// Files of mounts: by target, then by path below it, the start of a hash of everything that counts.
pub(crate) type Mounted = BTreeMap<String, BTreeMap<String, String>>;

/// A step of an earlier build.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Earlier {
    /// What was told of it.
    pub(crate) report: StepReport,
    /// What was kept of it.
    pub(crate) kept: Kept,
    /// Images that the same build built on, by step.
    pub(crate) images: Vec<(StepId, String)>,
}
