//! Images from one place to another, byte for byte, with all their platforms unless one is asked for.
//!
//! From registry to registry layers go without touching the disk, and only those that the other lacks. What else comes
//! from elsewhere lies in the store on its way, where the next copy finds it, and is freed like all that has no name. Needs
//! no build process.

use crate::digest::Digest;
use crate::distribute::{bring, reference, registry_error, send};
use crate::error::{Error, ErrorKind, Result};
use crate::export;
use crate::image::{
    ANNOTATION_REF_NAME, Descriptor, ImageSource, Index, MANIFEST_LIMIT, Platform, SourceError, import_docker_archive,
    is_index,
};
use crate::registry::Client;
use crate::request::{ImagePlace, PullPolicy};
use crate::shelf;
use crate::store::Store;
use crate::worker::{Images, MirrorLayers};

/// Copies, and returns the digest of the manifest or index.
pub(crate) fn copy(
    store: &Store,
    client: &Client,
    from: &ImagePlace,
    to: &ImagePlace,
    platform: Option<&str>,
) -> Result<Digest> {
    let asked = platform.map(str::parse::<Platform>).transpose();
    let asked = asked.map_err(|error| Error::from_source(ErrorKind::Request, &error))?;
    // An archive for Docker holds one image.
    let platform = match to {
        ImagePlace::DockerArchive { .. } => Some(asked.unwrap_or_else(Platform::host)),
        _ => asked,
    };
    // A registry may have the layers already, or take them over from the other repository.
    let layers = match to {
        ImagePlace::Registry(_) => MirrorLayers::Promised,
        _ => MirrorLayers::Fetched,
    };
    let mut image = fetch(store, client, from, platform.as_ref(), layers)?;
    image.annotations.remove(ANNOTATION_REF_NAME);
    put(store, client, image.clone(), to, origin(from))?;
    store.sync().map_err(|error| Error::from_source(ErrorKind::Store, &error))?;
    Ok(image.digest)
}

/// The registry's name of an image that comes from one.
fn origin(from: &ImagePlace) -> Option<&str> {
    match from {
        ImagePlace::Registry(name) => Some(name),
        _ => None,
    }
}

/// Brings an image into the store, with all its platforms unless one is asked for. `layers` is about those that only a
/// registry has.
pub(crate) fn fetch(
    store: &Store,
    client: &Client,
    from: &ImagePlace,
    platform: Option<&Platform>,
    layers: MirrorLayers,
) -> Result<Descriptor> {
    let source_error = |error: SourceError| Error::from_source(ErrorKind::Request, &error);
    let (source, wanted) = match from {
        ImagePlace::Store(name) => return choose(store, shelf::find(store, name)?.descriptor, platform),
        ImagePlace::Registry(name) => {
            let images = Images::new(store.clone(), client.clone(), Vec::new(), PullPolicy::Always);
            return Ok(images.mirror(&reference(name)?, platform, layers)?);
        }
        ImagePlace::OciLayout { path, reference } => (ImageSource::open_layout(path), reference),
        ImagePlace::OciArchive { path, reference } => (ImageSource::open_archive(path), reference),
        ImagePlace::DockerArchive { path, name } => {
            let full = name.as_deref().map(reference).transpose()?.map(|name| name.to_string());
            let is_wanted = |tag: &str| match &full {
                Some(full) => reference(tag).is_ok_and(|tag| tag.to_string() == *full),
                None => true,
            };
            return import_docker_archive(store, path, full.as_deref(), &is_wanted).map_err(source_error);
        }
    };
    let source = source.map_err(source_error)?;
    let image = source.resolve(wanted.as_deref()).map_err(source_error)?;
    let image = match platform {
        Some(platform) => source.select(image, platform).map_err(source_error)?,
        None => image,
    };
    source.copy_all(store, &image).map_err(source_error)?;
    Ok(image)
}

/// Names an image without fetching it.
pub(crate) fn describe(store: &Store, client: &Client, place: &ImagePlace) -> Result<Descriptor> {
    let source_error = |error: SourceError| Error::from_source(ErrorKind::Request, &error);
    let (source, wanted) = match place {
        ImagePlace::Store(name) => return shelf::find(store, name).map(|image| image.descriptor),
        ImagePlace::Registry(name) => {
            let resolved = client.resolve(&reference(name)?).map_err(|error| registry_error(&error))?;
            return Ok(Descriptor::new(resolved.media_type, resolved.digest, resolved.bytes.len() as u64));
        }
        ImagePlace::OciLayout { path, reference } => (ImageSource::open_layout(path), reference),
        ImagePlace::OciArchive { path, reference } => (ImageSource::open_archive(path), reference),
        ImagePlace::DockerArchive { .. } => {
            let error = Error::new(ErrorKind::Request, "an image in an archive for Docker has no manifest");
            return Err(error.hint("copy it into the store first, with `builder copy`"));
        }
    };
    source.and_then(|source| source.resolve(wanted.as_deref())).map_err(source_error)
}

/// The image for one platform of an index in the store.
fn choose(store: &Store, image: Descriptor, platform: Option<&Platform>) -> Result<Descriptor> {
    let Some(platform) = platform.filter(|_| is_index(&image.media_type)) else { return Ok(image) };
    let bytes = store.read_blob(&image.digest, MANIFEST_LIMIT);
    let bytes = bytes.map_err(|error| Error::from_source(ErrorKind::Store, &error))?;
    let index = Index::parse(&bytes).map_err(|error| Error::from_source(ErrorKind::Store, &error))?;
    let chosen = index.choose(platform).map_err(|error| Error::from_source(ErrorKind::Request, &error))?;
    Ok(chosen.clone())
}

/// Takes an image from the store to where it shall be.
fn put(store: &Store, client: &Client, mut image: Descriptor, to: &ImagePlace, origin: Option<&str>) -> Result<()> {
    let written = |result: Result<(), export::Error>| result.map_err(|e| Error::from_source(ErrorKind::Output, &e));
    if let ImagePlace::OciLayout { reference: Some(name), .. } | ImagePlace::OciArchive { reference: Some(name), .. } =
        to
    {
        if name.parse::<Digest>().is_ok() {
            return Err(Error::new(ErrorKind::Request, "an image is copied under a tag, not under a digest"));
        }
        image.annotations.insert(ANNOTATION_REF_NAME.to_owned(), name.clone());
    }
    if !matches!(to, ImagePlace::Registry(_)) {
        bring(store, &image)?;
    }
    let unnamed = export::Image { descriptor: &image, names: &[] };
    match to {
        ImagePlace::Store(name) => {
            let name = reference(name)?.to_string();
            store.tag_image(&name, &image).map_err(|error| Error::from_source(ErrorKind::Store, &error))
        }
        ImagePlace::Registry(name) => {
            let origin = origin.map(reference).transpose()?;
            send(store, client, &image, origin.as_ref(), reference(name)?)
        }
        ImagePlace::OciLayout { path, .. } => written(export::export_layout(store, unnamed, path)),
        ImagePlace::OciArchive { path, .. } => {
            written(export::export_archive(store, unnamed, &crate::Destination::File(path.clone())))
        }
        ImagePlace::DockerArchive { path, name } => {
            let names: Vec<String> = match name {
                Some(name) => vec![reference(name)?.to_string()],
                None => Vec::new(),
            };
            let image = export::Image { descriptor: &image, names: &names };
            written(export::export_docker_archive(store, image, &crate::Destination::File(path.clone())))
        }
    }
}
