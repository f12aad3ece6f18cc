//! Images between the store, registries, layouts and archives, for embedders.

use super::Builder;
use crate::Digest;
use crate::copy;
use crate::distribute;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::registry::Client;
use crate::request::{ImagePlace, PullPlatforms};
use crate::store::Store;
use crate::worker;

impl Builder {
    /// Pushes an image of the store, found by name or digest, under the name `dest`. Returns its digest.
    ///
    /// # Errors
    /// [`ErrorKind::Request`] for a bad name or when there is no such image, [`ErrorKind::Registry`], [`ErrorKind::Store`].
    pub fn push(&self, name: &str, dest: &str) -> Result<Digest> {
        let (store, client, complaints) = self.store_and_client()?;
        let pushed = distribute::push(&store, &client, name, dest);
        pushed.map_err(|error| distribute::explain(error, &complaints))
    }

    /// Fetches an image and names it in the store. Returns the digest of what the name then means: a manifest for one
    /// platform, an index of those that were fetched for several, the registry's own for all.
    ///
    /// # Errors
    /// [`ErrorKind::Request`] for a bad name or platform, [`ErrorKind::Registry`], [`ErrorKind::Store`].
    pub fn pull(&self, name: &str, platforms: &PullPlatforms) -> Result<Digest> {
        let (store, client, complaints) = self.store_and_client()?;
        let pulled = distribute::pull(&store, &client, name, platforms);
        pulled.map_err(|error| distribute::explain(error, &complaints))
    }

    /// Copies an image byte for byte, with all its platforms unless one is asked for. Returns the digest of what was
    /// copied.
    ///
    /// # Errors
    /// [`ErrorKind::Request`] for a bad name or when there is no such image, [`ErrorKind::Registry`],
    /// [`ErrorKind::Store`], [`ErrorKind::Output`].
    pub fn copy(&self, from: &ImagePlace, to: &ImagePlace, platform: Option<&str>) -> Result<Digest> {
        let (store, client, complaints) = self.store_and_client()?;
        let copied = copy::copy(&store, &client, from, to, platform);
        copied.map_err(|error| distribute::explain(error, &complaints))
    }

    /// The tags of a repository, in its registry's order.
    ///
    /// # Errors
    /// [`ErrorKind::Request`] for a bad name, [`ErrorKind::Registry`].
    pub fn remote_tags(&self, repository: &str) -> Result<Vec<String>> {
        let (client, complaints) = self.client();
        distribute::tags(&client, repository).map_err(|error| distribute::explain(error, &complaints))
    }

    /// Finds out whether a registry (`host[:port]`) lets in whoever has the credentials of this builder.
    ///
    /// # Errors
    /// [`ErrorKind::Registry`].
    pub fn check_login(&self, registry: &str) -> Result<()> {
        let (client, complaints) = self.client();
        distribute::check_login(&client, registry).map_err(|error| distribute::explain(error, &complaints))
    }

    /// The store, which fetches what it has noted to be elsewhere, and what it fetches with.
    pub(super) fn store_and_client(&self) -> Result<(Store, Client, distribute::Complaints)> {
        let (client, complaints) = self.client();
        let store = self.store()?;
        worker::fetch_from_elsewhere(&store, &client);
        Ok((store, client, complaints))
    }

    /// A client with the credentials of this builder, and what kept some away.
    pub(super) fn client(&self) -> (Client, distribute::Complaints) {
        let credentials = self.credentials.clone();
        distribute::client(self.registries.clone(), move |host| credentials.find(host))
    }
}
