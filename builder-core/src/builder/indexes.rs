//! Indexes of the store, for embedders.

use super::Builder;
use crate::Digest;
use crate::distribute;
use crate::error::Result;
use crate::index;
use crate::request::{IfIndexExists, IndexChange};
use crate::shelf;

impl Builder {
    /// Whether the store has an image or index of this name or digest.
    ///
    /// # Errors
    /// [`Request`](crate::ErrorKind::Request) for a bad name, [`Store`](crate::ErrorKind::Store).
    pub fn has_image(&self, name: &str) -> Result<bool> {
        shelf::has(&self.store()?, name)
    }

    /// Makes an index of images under a name of the store. Returns its digest.
    ///
    /// # Errors
    /// [`Request`](crate::ErrorKind::Request) for a bad name, one that is taken or an image that is not there,
    /// [`Registry`](crate::ErrorKind::Registry), [`Store`](crate::ErrorKind::Store).
    pub fn create_index(&self, name: &str, exists: IfIndexExists, changes: &[IndexChange]) -> Result<Digest> {
        let (store, client, complaints) = self.store_and_client()?;
        let created = index::create(&store, &client, name, exists, changes);
        created.map_err(|error| distribute::explain(error, &complaints))
    }

    /// Changes an index of the store, by all of `changes` or not at all. Returns its new digest.
    ///
    /// # Errors
    /// [`Request`](crate::ErrorKind::Request) when there is no such index, or for a change that cannot be made,
    /// [`Registry`](crate::ErrorKind::Registry), [`Store`](crate::ErrorKind::Store).
    pub fn change_index(&self, name: &str, changes: &[IndexChange]) -> Result<Digest> {
        let (store, client, complaints) = self.store_and_client()?;
        let changed = index::change(&store, &client, name, changes);
        changed.map_err(|error| distribute::explain(error, &complaints))
    }

    /// The bytes of the manifest or index that a registry has under a name.
    ///
    /// # Errors
    /// [`Request`](crate::ErrorKind::Request) for a bad name, [`Registry`](crate::ErrorKind::Registry).
    pub fn read_remote_manifest(&self, name: &str) -> Result<Vec<u8>> {
        let (client, complaints) = self.client();
        distribute::manifest(&client, name).map_err(|error| distribute::explain(error, &complaints))
    }

    /// The bytes of an index of the store.
    ///
    /// # Errors
    /// [`Request`](crate::ErrorKind::Request) when there is no such index, [`Store`](crate::ErrorKind::Store).
    pub fn read_index(&self, name: &str) -> Result<Vec<u8>> {
        let (client, _) = self.client();
        index::read(&self.store()?, &client, name)
    }
}
