//! Images between the store and registries, without a build. Needs no build process: only files that belong to the
//! caller are touched.

use std::sync::{Arc, Mutex, PoisonError};

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::export::{self, Push, Sender};
use crate::image::{Descriptor, Platform};
use crate::plan::{ImageName, ImageResolver as _};
use crate::registry::{self, Client, ClientConfig, Credential, Reference};
use crate::request::{PullPlatforms, PullPolicy};
use crate::shelf;
use crate::store::{self, Store};
use crate::worker::{ImageError, Images, MirrorLayers, noted_origins};

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
    send(store, client, &image.descriptor, origin.as_ref(), target)?;
    Ok(image.descriptor.digest)
}

/// Sends an image of the store. `origin` is a repository that may have its blobs, besides those that are noted to.
pub(crate) fn send(
    store: &Store,
    client: &Client,
    image: &Descriptor,
    origin: Option<&Reference>,
    target: Reference,
) -> Result<()> {
    let blobs: Vec<Digest> = blobs_of(store, image)?.iter().map(|blob| blob.digest).collect();
    let origins = |blob: &Digest| {
        let guessed = origin.filter(|_| blobs.contains(blob)).cloned();
        noted_origins(store, blob).into_iter().chain(guessed).collect()
    };
    let sender = Sender::new(store, client, &origins).through();
    let push = Push { sender: &sender, image };
    push.run(&[target]).map_err(|error| push_error(&error))
}

/// Fetches the layers of an image of the store that are still elsewhere.
pub(crate) fn bring(store: &Store, image: &Descriptor) -> Result<()> {
    registry::for_each(&blobs_of(store, image)?, |blob| {
        // What is nowhere is for the reader to complain about: it may not need it.
        store
            .bring_blob(&blob.digest, &|_| ())
            .map(drop)
            .map_err(|error| Error::from_source(ErrorKind::Registry, &error))
    })
}

/// The error of a push, with what to do about it.
fn push_error(error: &export::Error) -> Error {
    match error {
        export::Error::Registry { source, .. } => {
            source.hint().into_iter().fold(Error::from_source(ErrorKind::Registry, error), Error::hint)
        }
        _ => Error::from_source(ErrorKind::Store, error),
    }
}

/// Layers and configs of an image of the store, of all its platforms.
fn blobs_of(store: &Store, image: &Descriptor) -> Result<Vec<Descriptor>> {
    let manifests = shelf::manifests(store, image)?;
    Ok(manifests.into_iter().flat_map(|manifest| manifest.layers.into_iter().chain([manifest.config])).collect())
}

/// Fetches an image and names it in the store. Returns the digest of what the name then means.
pub(crate) fn pull(store: &Store, client: &Client, name: &str, platforms: &PullPlatforms) -> Result<Digest> {
    let store_error = |error: store::Error| Error::from_source(ErrorKind::Store, &error);
    let reference = reference(name)?;
    let name = reference.to_string();
    let images = Images::new(store.clone(), client.clone(), Vec::new(), PullPolicy::Always);
    let texts = match platforms {
        PullPlatforms::All => {
            let image = images.mirror(&reference, None, MirrorLayers::Fetched)?;
            store.tag_image(&name, &image).map_err(store_error)?;
            return Ok(image.digest);
        }
        PullPlatforms::These(texts) => texts.as_slice(),
        PullPlatforms::Host => &[],
    };
    let asked = texts.iter().map(|text| text.parse::<Platform>()).collect::<Result<Vec<_>, _>>();
    let mut asked = asked.map_err(|error| Error::from_source(ErrorKind::Request, &error))?;
    if asked.is_empty() {
        asked.push(Platform::host());
    }
    // All are known to be there before the first is fetched.
    let resolve = |platform: &Platform| {
        let resolved = images.resolve(&ImageName::Reference(name.clone()), platform);
        resolved.map_err(|error| match error.downcast::<ImageError>() {
            Ok(error) => Error::from(*error),
            Err(error) => Error::from_source(ErrorKind::Registry, &*error),
        })
    };
    let resolved = asked.iter().map(resolve).collect::<Result<Vec<_>>>()?;
    for image in &resolved {
        images.fetch(image, &|_, _, _| {})?;
    }
    store.sync().map_err(store_error)?;
    let found = store.resolve_image(&name).map_err(store_error)?;
    found.map(|image| image.digest).ok_or_else(|| Error::new(ErrorKind::Store, format!("{name} was removed meanwhile")))
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
