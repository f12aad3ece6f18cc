//! News of a running build. Every event can be sent as one line of JSON; the field names are stable.

use serde::{Deserialize, Serialize};

/// Number of a step in the plan, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(pub usize);

/// What a step is, as told once before anything runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepInfo {
    /// Its number.
    pub step: StepId,
    /// As shown: `[build 2/5] RUN make`, `[internal] load build context`.
    pub name: String,
    /// Name or number of its stage, if it belongs to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// First line of its instruction in the Dockerfile, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
}

/// Where output of a command came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// News of a running build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The steps that this build needs, in the order of the Dockerfile. May come again with further steps.
    Plan {
        /// The steps.
        steps: Vec<StepInfo>,
    },
    /// Something worth telling that stops nothing.
    Warning {
        /// Stable code, kebab-case.
        code: String,
        /// One or several lines, with the place in the Dockerfile where there is one.
        message: String,
    },
    /// A rule found something in the Dockerfile that works, but is likely not meant. Told before the first step.
    Finding {
        /// Name of the rule, as `# check=skip=` takes it.
        rule: String,
        /// One line.
        message: String,
        /// First line of the instruction, from 1.
        line: usize,
        /// The finding with the lines that it is about, for a person.
        text: String,
    },
    /// A step does work.
    StepStarted {
        /// The step.
        step: StepId,
        /// Why no earlier result could be used.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A step's result was already there.
    StepCached {
        /// The step.
        step: StepId,
    },
    /// A step's result was found in a shared cache; [`Event::StepCached`] follows.
    StepFound {
        /// The step.
        step: StepId,
        /// The cache, as the user named it.
        from: String,
    },
    /// A command wrote something.
    StepOutput {
        /// The step.
        step: StepId,
        /// Where it wrote.
        stream: OutputStream,
        /// The bytes, any encoding, base64 in JSON.
        #[serde(with = "base64_bytes")]
        bytes: Vec<u8>,
    },
    /// How far a long operation of a step is (a download, an upload).
    StepProgress {
        /// The step.
        step: StepId,
        /// What is going on, one word or a digest.
        label: String,
        /// Bytes done.
        current: u64,
        /// Bytes in all, when known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        total: Option<u64>,
    },
    /// A step is done.
    StepFinished {
        /// The step.
        step: StepId,
        /// How long it worked.
        duration_ms: u64,
    },
    /// A step failed; the build ends with the error that says why.
    StepFailed {
        /// The step.
        step: StepId,
        /// One line.
        message: String,
    },
    /// An output was written.
    Exported {
        /// The output as the user named it: `type=oci,dest=out.tar`, or the image's name in the store.
        output: String,
        /// Digest of the manifest.
        digest: crate::Digest,
    },
}

pub(crate) mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
