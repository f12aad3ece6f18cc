//! Sources that are elsewhere: files by http, repositories by git, and archives that stand for a directory.
//!
//! What is fetched goes into the store, a file as a blob and a tree of files as a layer, with a record of how it was
//! found, so that the next build asks the server whether it changed and downloads nothing if not. Trees never lie
//! unpacked on the disk: names and links of a hostile archive have nothing to act on. A repository is checked out by
//! git, whose environment is made from nothing, into a directory that goes again.
//!
//! Not here: how `COPY` and `ADD` lay files out, and which URLs mean what.

mod access;
mod archive;
mod error;
mod git;
mod http;
mod ssh;

use std::collections::HashMap;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) use access::{Access, DEFAULT_AGENT};
pub(crate) use archive::Remote;
pub(crate) use error::FetchError;
pub(crate) use http::Download;
pub(crate) use ssh::KeyAgent;

use crate::digest::CacheKey;
use crate::layer::LayerOptions;
use crate::registry::{ClientConfig, Downloader};
use crate::request::{Compression, CompressionKind};
use crate::sandbox::KillSwitch;
use crate::store::{LayerDescriptor, StepLock, Store};

/// What all fetches of a build have in common.
#[derive(Debug)]
pub(crate) struct FetchOptions {
    /// What the caller gives for servers.
    pub(crate) access: Access,
    /// Time of the build, in seconds since 1970.
    pub(crate) now: i64,
    /// Ends everything when thrown.
    pub(crate) kill_switch: KillSwitch,
    /// Threads that compress.
    pub(crate) threads: usize,
}

/// Fetches for one build. Whatever was fetched stays as it is for the rest of the build.
#[derive(Debug)]
pub(crate) struct Fetcher {
    store: Store,
    downloader: Downloader,
    /// How to reach servers, as environment of git.
    network: Vec<(&'static str, OsString)>,
    access: Access,
    /// Time of this build, in seconds since 1970.
    now: i64,
    kill_switch: KillSwitch,
    threads: usize,
    downloads: Mutex<HashMap<CacheKey, Download>>,
    trees: Mutex<HashMap<CacheKey, LayerDescriptor>>,
}

impl Fetcher {
    /// Makes one. Nothing is opened yet.
    pub(crate) fn new(store: Store, config: ClientConfig, options: FetchOptions) -> Self {
        let FetchOptions { access, now, kill_switch, threads } = options;
        let network = git::network(&config);
        let downloader = Downloader::new(config);
        let (downloads, trees) = (Mutex::default(), Mutex::default());
        Self { store, downloader, network, access, now, kill_switch, threads, downloads, trees }
    }

    /// What stops it.
    pub(crate) fn kill_switch(&self) -> KillSwitch {
        self.kill_switch.clone()
    }

    fn check_cancelled(&self) -> Result<(), FetchError> {
        if self.kill_switch.is_thrown() { Err(FetchError::Cancelled) } else { Ok(()) }
    }

    /// Waits until nobody else fetches this.
    fn lock(&self, key: &CacheKey, what: &str) -> Result<StepLock, FetchError> {
        let mut busy = || match self.kill_switch.is_thrown() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let lock = self.store.lock_step(key, &mut busy).map_err(FetchError::store(what))?;
        lock.ok_or(FetchError::Cancelled)
    }

    /// Layers of sources are read here alone: the fastest codec will do.
    fn layer_options(&self) -> LayerOptions {
        let compression = Compression { kind: CompressionKind::Zstd, level: Some(1) };
        LayerOptions { compression, threads: self.threads, clamp_mtime: None }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
