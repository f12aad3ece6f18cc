//! Values of `--cache-from`, `--cache-to`, `--cache-mount-from`, `--cache-mount-to` and `--cache-ttl`.

use builder_core::{CacheMode, CachePlace, CacheSource, CacheTarget};

use crate::failure::Failure;
use crate::output::csv_fields;

const TYPES: &str = "registry, local, inline";

/// The fields of one option, or a name alone.
enum Spec {
    Name(String),
    Fields(Vec<(String, String)>),
}

impl Spec {
    fn read(text: &str) -> Result<Self, String> {
        let fields = csv_fields(text)?;
        if let [field] = fields.as_slice()
            && !field.contains('=')
        {
            return if field.is_empty() { Err("it is empty".to_owned()) } else { Ok(Self::Name(field.clone())) };
        }
        let mut read: Vec<(String, String)> = Vec::new();
        for field in fields {
            let (key, value) = field.split_once('=').ok_or_else(|| format!("{field:?} is not key=value"))?;
            if read.iter().any(|(known, _)| known == key) {
                return Err(format!("{key} stands there twice"));
            }
            read.push((key.to_owned(), value.to_owned()));
        }
        Ok(Self::Fields(read))
    }
}

/// Takes a key out of the fields.
fn take(fields: &mut Vec<(String, String)>, key: &str) -> Option<String> {
    let at = fields.iter().position(|(known, _)| known == key)?;
    Some(fields.remove(at).1).filter(|value| !value.is_empty())
}

fn need(fields: &mut Vec<(String, String)>, key: &str) -> Result<String, String> {
    take(fields, key).ok_or_else(|| format!("{key} is missing"))
}

fn end(kind: &str, fields: &[(String, String)]) -> Result<(), String> {
    match fields.first() {
        Some((key, _)) => Err(format!("type={kind} has no key {key:?}")),
        None => Ok(()),
    }
}

fn kind_error(kind: &str) -> String {
    format!("there is no type {kind:?} (known: {TYPES})")
}

/// Reads one `--cache-from` or `--cache-mount-from`: `type=registry,ref=REF`, `type=local,src=DIR`, or the name of a
/// repository.
pub(crate) fn source_of(option: &str, text: &str) -> Result<CacheSource, Failure> {
    let read = || -> Result<CacheSource, String> {
        let mut fields = match Spec::read(text)? {
            Spec::Name(name) => return Ok(CacheSource::Registry(name)),
            Spec::Fields(fields) => fields,
        };
        let kind = need(&mut fields, "type")?;
        let source = match kind.as_str() {
            "registry" => CacheSource::Registry(need(&mut fields, "ref")?),
            "local" => CacheSource::Directory(need(&mut fields, "src")?.into()),
            "inline" => return Err("an inline cache is read with type=registry,ref=IMAGE".to_owned()),
            _ => return Err(kind_error(&kind)),
        };
        end(&kind, &fields)?;
        Ok(source)
    };
    read().map_err(|what| Failure::usage(format!("{option} {text:?}: {what}")))
}

/// Reads one `--cache-to`: `type=registry,ref=REF`, `type=local,dest=DIR`, `type=inline`, or the name of a repository,
/// which gets the results of all steps, as Buildah does it.
pub(crate) fn target(text: &str) -> Result<CacheTarget, Failure> {
    let read = || -> Result<CacheTarget, String> {
        let mut fields = match Spec::read(text)? {
            Spec::Name(name) => {
                return Ok(CacheTarget { place: CachePlace::Registry(name), mode: CacheMode::Max, strict: false });
            }
            Spec::Fields(fields) => fields,
        };
        let kind = need(&mut fields, "type")?;
        let strict = match take(&mut fields, "ignore-error").as_deref() {
            None | Some("true") => false,
            Some("false") => true,
            Some(value) => return Err(format!("ignore-error={value:?} is neither true nor false")),
        };
        let place = match kind.as_str() {
            "registry" => CachePlace::Registry(need(&mut fields, "ref")?),
            "local" => CachePlace::Directory(need(&mut fields, "dest")?.into()),
            "inline" => CachePlace::Inline,
            _ => return Err(kind_error(&kind)),
        };
        let mut mode = CacheMode::Min;
        if place != CachePlace::Inline {
            mode = match take(&mut fields, "mode").as_deref() {
                None | Some("min") => CacheMode::Min,
                Some("max") => CacheMode::Max,
                Some(value) => return Err(format!("there is no mode {value:?} (known: min, max)")),
            };
            // What is written is one OCI manifest anyway.
            for key in ["image-manifest", "oci-mediatypes"] {
                if let Some(value) = take(&mut fields, key).filter(|value| value != "true") {
                    return Err(format!("{key}={value:?} is not supported: a cache is an OCI image manifest"));
                }
            }
        }
        end(&kind, &fields)?;
        Ok(CacheTarget { place, mode, strict })
    };
    read().map_err(|what| Failure::usage(format!("--cache-to {text:?}: {what}")))
}

/// Reads one `--cache-mount-to`: `type=registry,ref=REF`, `type=local,dest=DIR`, or the name of a repository.
pub(crate) fn mount_target(text: &str) -> Result<CachePlace, Failure> {
    let read = || -> Result<CachePlace, String> {
        let mut fields = match Spec::read(text)? {
            Spec::Name(name) => return Ok(CachePlace::Registry(name)),
            Spec::Fields(fields) => fields,
        };
        let kind = need(&mut fields, "type")?;
        let place = match kind.as_str() {
            "registry" => CachePlace::Registry(need(&mut fields, "ref")?),
            "local" => CachePlace::Directory(need(&mut fields, "dest")?.into()),
            _ => return Err(format!("there is no type {kind:?} (known: registry, local)")),
        };
        end(&kind, &fields)?;
        Ok(place)
    };
    read().map_err(|what| Failure::usage(format!("--cache-mount-to {text:?}: {what}")))
}

/// Reads `--cache-ttl`: numbers with the units `s`, `m`, `h`, `d`, `w` in any number, or 0. Returns seconds.
pub(crate) fn ttl(text: &str) -> Result<u64, String> {
    if text == "0" {
        return Ok(0);
    }
    let malformed = || format!("{text:?} is no duration (90s, 30m, 1h30m, 2d, 1w)");
    let (mut total, mut rest) = (0_u64, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(malformed)?;
        let number: u64 = rest[..digits].parse().map_err(|_| malformed())?;
        let mut after = rest[digits..].chars();
        let unit = match after.next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            Some('w') => 604_800,
            _ => return Err(malformed()),
        };
        total = number.checked_mul(unit).and_then(|part| total.checked_add(part)).ok_or_else(malformed)?;
        rest = after.as_str();
    }
    if text.is_empty() { Err(malformed()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(place: CachePlace, mode: CacheMode, strict: bool) -> CacheTarget {
        CacheTarget { place, mode, strict }
    }

    fn source(text: &str) -> Result<CacheSource, Failure> {
        source_of("--cache-from", text)
    }

    #[test]
    fn sources() {
        for (text, expected) in [
            ("type=registry,ref=h:5/app:cache", CacheSource::Registry("h:5/app:cache".into())),
            ("h:5/app", CacheSource::Registry("h:5/app".into())),
            ("type=local,src=/tmp/c", CacheSource::Directory("/tmp/c".into())),
        ] {
            assert_eq!(source(text).unwrap(), expected, "{text}");
        }
        for (bad, part) in [
            ("", "empty"),
            ("type=registry", "ref is missing"),
            ("ref=x", "type is missing"),
            ("type=local,dest=x", "src is missing"),
            ("type=registry,ref=x,mode=max", "has no key"),
            ("type=inline", "type=registry"),
            ("type=gha,scope=x", "known: registry"),
            ("type=registry,ref=a,ref=b", "twice"),
        ] {
            let text = format!("{:?}", source(bad).unwrap_err());
            assert!(text.contains(part), "{bad}: {text}");
        }
    }

    #[test]
    fn targets() {
        let registry = || CachePlace::Registry("h/a:c".into());
        for (text, expected) in [
            ("type=registry,ref=h/a:c", to(registry(), CacheMode::Min, false)),
            ("type=registry,ref=h/a:c,mode=max,ignore-error=false", to(registry(), CacheMode::Max, true)),
            ("type=registry,ref=h/a:c,image-manifest=true,oci-mediatypes=true", to(registry(), CacheMode::Min, false)),
            ("h/a:c", to(registry(), CacheMode::Max, false)),
            ("type=local,\"dest=/a,b\"", to(CachePlace::Directory("/a,b".into()), CacheMode::Min, false)),
            ("type=inline", to(CachePlace::Inline, CacheMode::Min, false)),
        ] {
            assert_eq!(target(text).unwrap(), expected, "{text}");
        }
        for (bad, part) in [
            ("type=inline,mode=max", "has no key"),
            ("type=registry,ref=x,mode=all", "known: min, max"),
            ("type=registry,ref=x,compression=zstd", "has no key"),
            ("type=registry,ref=x,image-manifest=false", "not supported"),
            ("type=local,src=x", "dest is missing"),
            ("type=s3,bucket=x", "known: registry"),
        ] {
            let text = format!("{:?}", target(bad).unwrap_err());
            assert!(text.contains(part), "{bad}: {text}");
        }
    }

    #[test]
    fn targets_of_mounts() {
        assert_eq!(mount_target("h/a").unwrap(), CachePlace::Registry("h/a".into()));
        assert_eq!(mount_target("type=registry,ref=h/a:m").unwrap(), CachePlace::Registry("h/a:m".into()));
        assert_eq!(mount_target("type=local,dest=d").unwrap(), CachePlace::Directory("d".into()));
        for (bad, part) in [("type=inline", "known: registry, local"), ("type=local,dest=d,mode=max", "has no key")] {
            let text = format!("{:?}", mount_target(bad).unwrap_err());
            assert!(text.contains(part), "{bad}: {text}");
        }
    }

    #[test]
    fn durations() {
        for (text, seconds) in [("0", 0), ("90s", 90), ("1h30m", 5400), ("2d", 172_800), ("1w", 604_800), ("0s", 0)] {
            assert_eq!(ttl(text), Ok(seconds), "{text}");
        }
        for bad in ["", "h", "1", "-1h", "1.5h", "1y", "99999999999999999999w", "99999999999999999w"] {
            assert!(ttl(bad).is_err(), "{bad}");
        }
    }
}
