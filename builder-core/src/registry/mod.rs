//! Registries: names of images, and a client that reads and writes what stands behind them (distribution-spec 1.1).
//!
//! Bytes come out as readers and values; what becomes of them is the caller's business. Nothing is returned that does
//! not have the digest it was asked by: manifests are checked before they are handed out, blobs when their last byte is
//! read. Passing faults (broken connections, 5xx, 429, short bodies) are retried by [`RetryPolicy`] and a blob goes on
//! where it broke off; everything else fails at once with the registry's own words.
//!
//! Not here: platform choice, the store, reading of credential files and `registries.conf` (values in [`ClientConfig`]),
//! and the `urls` of foreign layers, which are never followed.
//!
//! ```text
//! client, push ─▶ blob, manifest               what is asked for, and whether it is that
//!   └─▶ exchange ─▶ endpoint, retry            where to ask, and when again
//!         ├─▶ auth ─▶ challenge, credentials   as whom
//!         └─▶ transport ─▶ tls                 one request
//! ```

mod auth;
mod blob;
mod challenge;
mod client;
mod config;
mod credentials;
mod download;
mod endpoint;
mod error;
mod exchange;
mod manifest;
mod notice;
mod parallel;
mod push;
mod reason;
mod reference;
mod retry;
mod tls;
mod transport;

#[cfg(test)]
mod tests;

pub(crate) use blob::BlobReader;
#[cfg(any(test, fuzzing))]
pub(crate) use challenge::exercise as exercise_challenge;
pub(crate) use client::{Client, CredentialSource};
pub use config::{
    ClientConfig, ClientIdentity, HelperHosts, HostRule, Mirror, MirrorPull, PlainHttp, ProxyConfig, RegistryRule,
    RetryPolicy, Roots, Secret, Timeouts, VerifyTls,
};
pub use credentials::{Access, Credential, Credentials};
pub(crate) use download::{Answer, Downloader, Validators, Wanted, shown};
pub(crate) use error::{Cause, Error};
pub(crate) use manifest::ResolvedManifest;
pub(crate) use notice::Notice;
pub(crate) use parallel::for_each;
pub(crate) use push::Upload;
#[cfg(test)]
pub(crate) use push::Uploaded;
pub(crate) use reference::{Reference, ReferenceError};
