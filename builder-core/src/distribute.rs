//! Images between the store and registries, without a build. Needs no build process: only files that belong to the
//! caller are touched.

use std::sync::{Arc, Mutex, PoisonError};

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::export::{self, Push, Sender};
use crate::image::{Descriptor, Platform};
use crate::plan::{ImageName, ImageResolver as _};
use crate::registry::{self, Client, ClientConfig, Credential, Reference};
use crate::request::PullPolicy;
use crate::shelf;
use crate::store::Store;
use crate::worker::{ImageError, Images};

/// Why the credential source could not look, by host.
pub(crate) type Complaints = Arc<Mutex<Vec<String>>>;

/// Makes a client of the caller's own process. What goes wrong in `find` is collected.
pub(crate) fn client(
    config: ClientConfig,
    find: impl Fn(&str) -> Result<Option<Credential>, String> + Send + Sync + 'static,
) -> (Client, Complaints) {
    let complaints = Complaints::default();
    let collected = complaints.clone();
    let source = move |host: &str| {
        find(host).unwrap_or_else(|reason| {
            let mut complaints = collected.lock().unwrap_or_else(PoisonError::into_inner);
            complaints.push(format!("no credentials for {host}: {reason}"));
            None
        })
    };
    (Client::with_credential_source(config, Arc::new(source)), complaints)
}

/// Adds what kept credentials away to the error that may come from that.
pub(crate) fn explain(error: Error, complaints: &Complaints) -> Error {
    let complaints = complaints.lock().unwrap_or_else(PoisonError::into_inner);
    complaints.iter().fold(error, |error, complaint| error.note(complaint))
}

/// The error of a registry, with what to do about it.
pub(crate) fn registry_error(error: &registry::Error) -> Error {
    let this = Error::from_source(ErrorKind::Registry, error);
    error.hint().into_iter().fold(this, Error::hint)
}

/// The image that a name means.
pub(crate) fn reference(name: &str) -> Result<Reference> {
    let parsed = name.parse::<Reference>();
    parsed.map_err(|error| Error::from_source(ErrorKind::Request, &error))
}

/// Pushes an image of the store. Returns the digest of its manifest or index.
pub(crate) fn push(store: &Store, client: &Client, name: &str, dest: &str) -> Result<Digest> {
    let image = shelf::find(store, name)?;
    let target = reference(dest)?;
    if let Some(wanted) = target.digest().filter(|wanted| *wanted != image.descriptor.digest) {
        let found = image.descriptor.digest;
        return Err(Error::new(ErrorKind::Request, format!("{} has the digest {found}, not {wanted}", image.name)));
    }
    // Where it was pulled from may be a repository of the same registry.
    let origin = image.name.parse::<Reference>().ok();
    let blobs = blobs_of(store, &image.descriptor)?;
    let origins = |blob: &Digest| origin.iter().filter(|_| blobs.contains(blob)).cloned().collect();
    let push = Push { sender: &Sender::new(store, client, &origins), image: &image.descriptor };
    push.run(&[target]).map_err(|error| push_error(&error))?;
    Ok(image.descriptor.digest)
}

/// The error of a push, with what to do about it.
pub(crate) fn push_error(error: &export::Error) -> Error {
    match error {
        export::Error::Registry { source, .. } => {
            source.hint().into_iter().fold(Error::from_source(ErrorKind::Registry, error), Error::hint)
        }
        _ => Error::from_source(ErrorKind::Store, error),
    }
}

/// Layers and configs of an image of the store, of all its platforms.
pub(crate) fn blobs_of(store: &Store, image: &Descriptor) -> Result<Vec<Digest>> {
    let manifests = shelf::manifests(store, image)?;
    let blobs = manifests.iter().flat_map(|manifest| manifest.layers.iter().chain([&manifest.config]));
    Ok(blobs.map(|blob| blob.digest).collect())
}

/// Fetches an image and names it in the store. Returns the digest of its manifest.
pub(crate) fn pull(store: &Store, client: &Client, name: &str, platform: Option<&str>) -> Result<Digest> {
    let platform = match platform {
        Some(text) => text.parse::<Platform>().map_err(|error| Error::from_source(ErrorKind::Request, &error))?,
        None => Platform::host(),
    };
    let name = reference(name)?.to_string();
    let images = Images::new(store.clone(), client.clone(), Vec::new(), PullPolicy::Always);
    let resolved = images.resolve(&ImageName::Reference(name), &platform);
    let resolved = resolved.map_err(|error| match error.downcast::<ImageError>() {
        Ok(error) => Error::from(*error),
        Err(error) => Error::from_source(ErrorKind::Registry, &*error),
    })?;
    images.fetch(&resolved, &|_, _, _| {})?;
    store.sync().map_err(|error| Error::from_source(ErrorKind::Store, &error))?;
    Ok(resolved.digest)
}

/// The manifest or index that a registry has under a name.
pub(crate) fn manifest(client: &Client, name: &str) -> Result<Vec<u8>> {
    let resolved = client.resolve(&reference(name)?).map_err(|error| registry_error(&error))?;
    Ok(resolved.bytes)
}

/// The tags of a repository.
pub(crate) fn tags(client: &Client, name: &str) -> Result<Vec<String>> {
    client.tags(&reference(name)?).map_err(|error| registry_error(&error))
}

/// Whether the registry lets in whoever has these credentials.
pub(crate) fn check_login(client: &Client, registry: &str) -> Result<()> {
    client.check_login(registry).map_err(|error| registry_error(&error))
}
