//! Annotations on the command line: `--annotation [PLACE[PLATFORM],…:]KEY=VALUE`, and `annotation-PLACE[PLATFORM].KEY`
//! as a key of an output.

use builder_core::{Annotation, AnnotationPlace};

use crate::failure::Failure;

const PLACES: [(&str, AnnotationPlace); 4] = [
    ("manifest", AnnotationPlace::Manifest),
    ("manifest-descriptor", AnnotationPlace::ManifestDescriptor),
    ("index", AnnotationPlace::Index),
    ("index-descriptor", AnnotationPlace::IndexDescriptor),
];

/// A place, and the platform that it is for.
type Place = (AnnotationPlace, Option<String>);

/// Reads one `--annotation`: an annotation for each place that it names, the manifest where it names none.
pub(crate) fn option(text: &str) -> Result<Vec<Annotation>, Failure> {
    let fail = |what: String| Failure::usage(format!("--annotation {text:?}: {what}"));
    let (left, value) = text.split_once('=').ok_or_else(|| fail("want [PLACE:]KEY=VALUE".to_owned()))?;
    let (places, key) = match left.split_once(':').filter(|(places, _)| is_places(places)) {
        Some((places, key)) => (places.split(',').map(place).collect::<Result<Vec<_>, _>>().map_err(fail)?, key),
        None => (vec![(AnnotationPlace::Manifest, None)], left),
    };
    if key.is_empty() {
        return Err(fail("the key is missing".to_owned()));
    }
    let annotation = |(place, platform)| Annotation { place, platform, key: key.to_owned(), value: value.to_owned() };
    Ok(places.into_iter().map(annotation).collect())
}

/// Reads `key=value` of an output, `None` if the key is not about annotations.
pub(crate) fn field(key: &str, value: &str) -> Option<Result<Annotation, String>> {
    let rest = key.strip_prefix("annotation").filter(|rest| rest.starts_with(['.', '-', '[']))?;
    // The platform may have no dot, the key may.
    let Some((left, name)) = rest.split_once('.').filter(|(_, name)| !name.is_empty()) else {
        return Some(Err(format!("{key:?} is not annotation[-PLACE][[PLATFORM]].KEY")));
    };
    let found = match left.strip_prefix('-') {
        Some(left) => place(left),
        None => place(&format!("manifest{left}")),
    };
    Some(found.map(|(place, platform)| Annotation { place, platform, key: name.to_owned(), value: value.to_owned() }))
}

/// Whether what stands before a colon names places, rather than being the beginning of a key.
fn is_places(text: &str) -> bool {
    let is_place = |text: &str| {
        let name = text.split_once('[').map_or(text, |(name, _)| name);
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
    };
    text.split(',').all(is_place)
}

/// Reads `PLACE` or `PLACE[PLATFORM]`.
fn place(text: &str) -> Result<Place, String> {
    let (name, platform) = match text.split_once('[') {
        Some((name, rest)) => {
            let platform = rest.strip_suffix(']').filter(|platform| !platform.is_empty());
            (name, Some(platform.ok_or_else(|| format!("{text:?} is not PLACE[PLATFORM]"))?.to_owned()))
        }
        None => (text, None),
    };
    let found = PLACES.iter().find(|(known, _)| *known == name).ok_or_else(|| {
        let known: Vec<&str> = PLACES.iter().map(|(known, _)| *known).collect();
        format!("there is no place {name:?} for annotations (known: {})", known.join(", "))
    })?;
    Ok((found.1, platform))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotation(place: AnnotationPlace, platform: Option<&str>, key: &str, value: &str) -> Annotation {
        Annotation { place, platform: platform.map(str::to_owned), key: key.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn options() {
        use AnnotationPlace::{Index, IndexDescriptor, Manifest, ManifestDescriptor};
        for (text, want) in [
            ("k=v", vec![annotation(Manifest, None, "k", "v")]),
            ("a.b/c:d=e=f, g", vec![annotation(Manifest, None, "a.b/c:d", "e=f, g")]),
            ("index:k=", vec![annotation(Index, None, "k", "")]),
            (
                "manifest[linux/arm/v7],index-descriptor:k=v",
                vec![annotation(Manifest, Some("linux/arm/v7"), "k", "v"), annotation(IndexDescriptor, None, "k", "v")],
            ),
            ("manifest-descriptor:x:y=v", vec![annotation(ManifestDescriptor, None, "x:y", "v")]),
        ] {
            assert_eq!(option(text).unwrap(), want, "{text}");
        }
        for (bad, part) in [
            ("k", "KEY=VALUE"),
            ("=v", "key is missing"),
            ("index:=v", "key is missing"),
            ("config:k=v", "no place \\\"config\\\""),
            ("manifest[]:k=v", "not PLACE"),
        ] {
            let text = format!("{:?}", option(bad).unwrap_err());
            assert!(text.contains(part), "{bad}: {text}");
        }
    }

    #[test]
    fn fields() {
        use AnnotationPlace::{Index, Manifest, ManifestDescriptor};
        for (key, want) in [
            ("annotation.a.b", annotation(Manifest, None, "a.b", "v")),
            ("annotation[linux/amd64].k", annotation(Manifest, Some("linux/amd64"), "k", "v")),
            ("annotation-index.k", annotation(Index, None, "k", "v")),
            (
                "annotation-manifest-descriptor[linux/arm/v7].k",
                annotation(ManifestDescriptor, Some("linux/arm/v7"), "k", "v"),
            ),
        ] {
            assert_eq!(field(key, "v").unwrap().unwrap(), want, "{key}");
        }
        assert!(field("annotations", "v").is_none() && field("name", "v").is_none());
        for bad in ["annotation.", "annotation-config.k", "annotation-index", "annotation[x.k"] {
            assert!(field(bad, "v").unwrap().is_err(), "{bad}");
        }
    }
}
