//! Daemonless builder of OCI images: a Dockerfile and a context go in, an OCI image comes out.
//!
//! The library parses Dockerfiles into a build graph, runs each `RUN` step inside rootless user namespaces, writes
//! what changed as tar layers and assembles an OCI image. It never prints, never reads the environment or the home
//! directory, and never exits: facts come in through values, news goes out as [`Event`]s.
//!
//! Modules stand in levels and import only from lower ones; `ARCHITECTURE.md` has the table and
//! `tests/imports.rs` holds it.

pub mod diagnostic;
pub mod dockerfile;
pub mod image;
pub mod lint;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;

mod builder;
mod cache;
mod cdi;
mod check;
mod context;
mod copy;
mod digest;
mod distribute;
mod engine;
mod error;
mod event;
mod export;
mod fetch;
mod index;
mod inventory;
mod layer;
mod plan;
mod registry;
mod request;
mod rootless;
mod sandbox;
mod shelf;
mod snapshot;
mod solver;
mod store;
mod sys;
mod trace;
mod tree;
mod worker;

pub use builder::{Builder, Canceller, DiskUsage, PruneExtent, Report, SpooledContext, init};
pub use check::{CheckReport, Target};
pub use digest::{ChainId, DiffId, Digest};
pub use error::{Error, ErrorKind, Result};
pub use event::{Event, OutputStream, StepId, StepInfo};
pub use inventory::{ContextEntry, ContextEntryKind, ContextInventory, IgnoreDecision, IgnoreRule, PathVerdict};
pub use plan::{Outline, OutlineArg, OutlineCache, OutlineMount};
pub use request::{
    Added, Annotation, AnnotationPlace, Artifact, ArtifactTitles, BuildOutcome, BuildRequest, CacheMode, CachePlace,
    CacheSource, CacheTarget, Compression, CompressionKind, ContextSource, Destination, DockerfileInContext,
    DockerfileSource, Entitlement, EntryChange, ExtraHost, IfIndexExists, ImageForm, ImagePart, ImagePlace,
    ImageSummary, IndexChange, LimitedResource, MediaTypes, Output, PlatformSplit, PullPlatforms, PullPolicy,
    RunSettings, Secret, StepNetwork, Ulimit,
};
pub use trace::{BuildPlan, BuildReport, Change, Reason, ReasonCode, StepReport, StepState};

pub mod registries {
    //! The way to registries, as values: who may enter where, proxies, certificates, mirrors, patience. The library
    //! looks nothing of this up.
    pub use crate::registry::{
        Access, ClientConfig, ClientIdentity, Credential, Credentials, HelperHosts, HostRule, Mirror, MirrorPull,
        PlainHttp, ProxyConfig, RegistryRule, RetryPolicy, Roots, Secret, Timeouts, VerifyTls,
    };
}

pub mod host {
    //! Where build processes run: how they are started, what this host allows, and what would allow more; memory for them.
    pub use crate::rootless::{
        Cause, Check, Diagnosis, Feature, HelperPrivilege, HostFacts, HostReport, IdMap, IdMapHelper, IdRange,
        Isolation, LaunchConfig, Outcome, Program, Rest, Rung, Stdout, SubordinateRange,
    };
}

/// The build process with any engine in it, for this crate's own tests. No promise of stability.
#[doc(hidden)]
pub mod testing {
    pub use crate::rootless::{
        AnswerHandle, BuildProcess, CancelHandle, Channel, ChannelError, Death, Ending, Engine, EngineEnvironment,
        EngineMain, Error, MAX_FRAME_BYTES, News, ProcView, Receiver, Sender, SupplementaryGroups,
        init_if_build_process, probe,
    };
}
