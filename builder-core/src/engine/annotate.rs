//! Annotations: what the caller wants to stand on the image, and which base it has.

use std::collections::BTreeMap;

use super::assemble::Shape;
use super::platforms::Platforms;
use crate::error::{Error, ErrorKind};
use crate::image::Platform;
use crate::plan::ResolvedImage;
use crate::registry::Reference;
use crate::request::{Annotation, AnnotationPlace, BuildRequest, ImageForm, MediaTypes};

/// Name of the base image, as the build was told (image-spec `annotations.md`).
const BASE_NAME: &str = "org.opencontainers.image.base.name";
/// Digest of the manifest of the base image.
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// Annotations by key.
pub(super) type Annotations = BTreeMap<String, String>;

/// Those of `all` for a place; later ones win.
pub(super) fn at(all: &[Annotation], place: AnnotationPlace, platform: Option<&Platform>) -> Annotations {
    let is_for = |wanted: &Option<String>| match (wanted, platform) {
        (None, _) => true,
        (Some(wanted), Some(platform)) => wanted.parse::<Platform>().is_ok_and(|wanted| wanted == *platform),
        (Some(_), None) => false,
    };
    let here = all.iter().filter(|annotation| annotation.place == place && is_for(&annotation.platform));
    here.map(|annotation| (annotation.key.clone(), annotation.value.clone())).collect()
}

/// What says on which image this one is built. One that has no name elsewhere, a layout, has its digest alone.
pub(super) fn of_base(base: &ResolvedImage) -> Annotations {
    let mut annotations = Annotations::from([(BASE_DIGEST.to_owned(), base.digest.to_string())]);
    if let Ok(name) = base.name.parse::<Reference>() {
        let named = match name.tag() {
            Some(tag) => format!("{}:{tag}", name.name()),
            None => name.to_string(),
        };
        annotations.insert(BASE_NAME.to_owned(), named);
    }
    annotations
}

/// Refuses annotations that no document of the image can have, before anything is done.
pub(super) fn check(request: &BuildRequest, platforms: &Platforms) -> Result<(), Error> {
    one_by_one(&request.annotations, platforms)?;
    for form in request.outputs.iter().filter_map(|output| output.form()) {
        one_by_one(&form.annotations, platforms)?;
        docker_has_none(request, form)?;
    }
    Ok(())
}

fn docker_has_none(request: &BuildRequest, form: &ImageForm) -> Result<(), Error> {
    let any = !request.annotations.is_empty() || !form.annotations.is_empty();
    if any && form.media_types == MediaTypes::Docker {
        let error = Error::new(ErrorKind::Request, "Docker's media types have no annotations");
        return Err(error.hint("leave out oci-mediatypes=false, or the annotations"));
    }
    Ok(())
}

fn one_by_one(annotations: &[Annotation], platforms: &Platforms) -> Result<(), Error> {
    for Annotation { place, platform, key, .. } in annotations {
        let refuse = |what: &str, hint: &str| {
            Err(Error::new(ErrorKind::Request, format!("the annotation {key:?} {what}")).hint(hint))
        };
        if key.is_empty() {
            return refuse("has no key", "write KEY=VALUE");
        }
        if place.is_index() && platforms.shape == Shape::Manifest {
            return refuse(
                "is for an index, and an image of one platform has none",
                "annotate the manifest, or build for several platforms",
            );
        }
        let Some(text) = platform else { continue };
        if place.is_index() {
            return refuse("is for an index, and names a platform", "an index is for all of its platforms");
        }
        let wanted: Platform = text.parse().map_err(|error| Error::from_source(ErrorKind::Request, &error))?;
        let built = match platforms.asked.as_slice() {
            [] => Platform::host() == wanted,
            asked => asked.contains(&wanted),
        };
        if !built {
            return refuse(&format!("is for {text}, which is not built"), "name one of the platforms of the build");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::image::ImageConfig;

    #[test]
    fn a_base_is_named_as_others_find_it() {
        let digest = Digest::of(b"x");
        for (name, want) in [
            (format!("docker.io/library/busybox:latest@{digest}"), Some("docker.io/library/busybox:latest".to_owned())),
            (format!("h:5000/a/b:1@{digest}"), Some("h:5000/a/b:1".to_owned())),
            (format!("docker.io/library/busybox@{digest}"), Some(format!("docker.io/library/busybox@{digest}"))),
            (format!("base (/some/folder)@{digest}"), None),
        ] {
            let found = of_base(&ResolvedImage { name: name.clone(), digest, config: ImageConfig::default() });
            assert_eq!(found.get(BASE_NAME), want.as_ref(), "{name}");
            assert_eq!(found[BASE_DIGEST], digest.to_string());
        }
    }
}
