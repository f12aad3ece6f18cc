//! Values of `--output`: one CSV record, as `docker build --output` takes them.

use std::path::PathBuf;

use builder_core::{Compression, CompressionKind, Destination, ImageForm, MediaTypes, Output, PlatformSplit};

use crate::annotation;
use crate::failure::Failure;
use crate::options::compression;

/// The keys and the types that they mean something for.
const KEYS: [(&str, &[&str]); 14] = [
    ("type", TYPES),
    ("dest", &["oci", "docker", "tar", "local"]),
    ("tar", &["oci"]),
    ("name", IMAGES),
    ("push", &["image", "registry"]),
    ("push-by-digest", &["image", "registry"]),
    ("compression", IMAGES),
    ("compression-level", IMAGES),
    ("force-compression", IMAGES),
    ("oci-mediatypes", IMAGES),
    ("rewrite-timestamp", IMAGES),
    ("store", &["image"]),
    ("unpack", &["image"]),
    ("platform-split", &["tar", "local"]),
];
/// Keys of BuildKit that mean something which is not done here, and what to do instead.
const ELSEWHERE: [(&str, &str); 6] = [
    ("registry.insecure", "say --tls-verify=false, or insecure=true for it in registries.conf"),
    ("name-canonical", "the digest is on standard output and in --metadata-file"),
    ("dangling-name-prefix", "name the image, or take its digest from --iidfile"),
    ("attestation-prefix", "there are no attestations"),
    ("attestation-inline", "there are no attestations"),
    ("mode", "what the directory holds stays; make it anew to be rid of that"),
];
const TYPES: &[&str] = &["oci", "docker", "image", "registry", "tar", "local", "cacheonly"];
const IMAGES: &[&str] = &["oci", "docker", "image", "registry"];

/// Reads one `--output`. A name alone is a directory for the root filesystem, `-` a tar of it on standard output.
pub(crate) fn parse(text: &str) -> Result<Vec<Output>, Failure> {
    let fields = csv_fields(text).map_err(|what| Failure::usage(format!("--output {text:?}: {what}")))?;
    if let [field] = fields.as_slice()
        && !field.contains('=')
    {
        return match field.as_str() {
            "" => Err(Failure::usage("--output is empty")),
            "-" => Ok(vec![Output::RootfsTar { dest: Destination::Stdout, split: PlatformSplit::Auto }]),
            dir => Ok(vec![Output::RootfsDirectory { dest: dir.into(), split: PlatformSplit::Auto }]),
        };
    }
    Spec::read(&fields).and_then(Spec::outputs).map_err(|what| Failure::usage(format!("--output {text:?}: {what}")))
}

/// The fields of one output.
#[derive(Default)]
struct Spec {
    kind: String,
    dest: Option<String>,
    no_tar: bool,
    names: Vec<String>,
    push: Option<bool>,
    store: Option<bool>,
    by_digest: bool,
    codec: Option<CompressionKind>,
    level: Option<u8>,
    split: PlatformSplit,
    form: ImageForm,
}

impl Spec {
    fn read(fields: &[String]) -> Result<Self, String> {
        let mut spec = Self::default();
        let mut keys = Vec::new();
        for field in fields {
            let (key, value) = field.split_once('=').ok_or_else(|| format!("{field:?} is not key=value"))?;
            if keys.contains(&key) {
                return Err(format!("{key} stands there twice"));
            }
            keys.push(key);
            spec.set(key, value)?;
        }
        if spec.kind.is_empty() {
            return Err("type is missing".to_owned());
        }
        if !TYPES.contains(&spec.kind.as_str()) {
            return Err(format!("there is no type {:?} (known: {})", spec.kind, TYPES.join(", ")));
        }
        for key in keys.into_iter().filter(|key| !key.starts_with("annotation")) {
            let (_, types) =
                KEYS.iter().find(|(known, _)| *known == key).ok_or_else(|| format!("unknown key {key:?}"))?;
            if !types.contains(&spec.kind.as_str()) {
                return Err(format!("type={} has no key {key:?}", spec.kind));
            }
        }
        if !spec.form.annotations.is_empty() && !IMAGES.contains(&spec.kind.as_str()) {
            return Err(format!("type={} has no annotations", spec.kind));
        }
        Ok(spec)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let bool = || boolean(value).ok_or_else(|| format!("{key}={value:?} is neither true nor false"));
        if let Some(annotation) = annotation::field(key, value) {
            self.form.annotations.push(annotation?);
            return Ok(());
        }
        if let Some((_, instead)) = ELSEWHERE.iter().find(|(known, _)| *known == key) {
            return Err(format!("there is no {key}: {instead}"));
        }
        match key {
            "type" => self.kind = value.to_owned(),
            "dest" => self.dest = Some(value.to_owned()).filter(|dest| !dest.is_empty()),
            "tar" => self.no_tar = !bool()?,
            "name" => self.names = value.split(',').map(str::to_owned).collect(),
            "push" => self.push = Some(bool()?),
            "store" => self.store = Some(bool()?),
            "unpack" if bool()? => {
                return Err("unpack=true is not needed: layers are unpacked when a RUN reads them".to_owned());
            }
            "unpack" => {}
            "rewrite-timestamp" => self.form.rewrite_timestamp = Some(bool()?),
            "push-by-digest" => self.by_digest = bool()?,
            "compression" => self.codec = Some(codec(value).ok_or_else(|| format!("no codec {value:?}"))?),
            "compression-level" => self.level = Some(value.parse().map_err(|_| format!("{value:?} is no level"))?),
            "force-compression" => self.form.force_compression = bool()?,
            "platform-split" => {
                self.split = if bool()? { PlatformSplit::Always } else { PlatformSplit::Never };
            }
            "oci-mediatypes" => {
                self.form.media_types = if bool()? { MediaTypes::Oci } else { MediaTypes::Docker };
            }
            _ => {
                let known: Vec<&str> = KEYS.iter().map(|(key, _)| *key).collect();
                return Err(format!("unknown key {key:?} (known: {})", known.join(", ")));
            }
        }
        Ok(())
    }

    fn outputs(mut self) -> Result<Vec<Output>, String> {
        self.form.compression = self.compression()?;
        let Self { by_digest, split, .. } = self;
        let (form, names) = (self.form.clone(), self.names.clone());
        let stored = self.store.unwrap_or(!by_digest);
        let output = match self.kind.as_str() {
            "oci" if self.no_tar => Output::OciLayout { dest: self.directory()?, names, form },
            "oci" => Output::OciArchive { dest: self.destination()?, names, form },
            "docker" => Output::DockerArchive { dest: self.destination()?, names, form },
            "tar" => Output::RootfsTar { dest: self.destination()?, split },
            "local" => Output::RootfsDirectory { dest: self.directory()?, split },
            "cacheonly" => Output::CacheOnly,
            "registry" if self.push == Some(false) => {
                return Err("type=registry pushes; without that write type=image".to_owned());
            }
            "registry" => Output::Registry { names, form, by_digest },
            _ if self.push == Some(true) => {
                let pushed = Output::Registry { names: names.clone(), form: form.clone(), by_digest };
                // What has no tag there has none here, unless that is asked for.
                return Ok(if stored { vec![Output::Store { names, form }, pushed] } else { vec![pushed] });
            }
            _ if by_digest => return Err("push-by-digest without push=true".to_owned()),
            _ if !stored => return Err("type=image,store=false without push=true goes nowhere".to_owned()),
            _ => Output::Store { names, form },
        };
        Ok(vec![output])
    }

    fn compression(&self) -> Result<Option<Compression>, String> {
        match (self.codec, self.level) {
            (None, None) => Ok(None),
            (codec, level) => compression(codec.unwrap_or(CompressionKind::Gzip), level).map(Some),
        }
    }

    fn destination(&self) -> Result<Destination, String> {
        match self.dest.as_deref() {
            None => Err("dest is missing".to_owned()),
            Some("-") => Ok(Destination::Stdout),
            Some(path) => Ok(Destination::File(path.into())),
        }
    }

    fn directory(&self) -> Result<PathBuf, String> {
        match self.dest.as_deref() {
            None => Err("dest is missing".to_owned()),
            Some("-") => Err("a directory cannot go to standard output".to_owned()),
            Some(path) => Ok(path.into()),
        }
    }
}

/// What Go, and so BuildKit, takes for a boolean.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn codec(text: &str) -> Option<CompressionKind> {
    match text {
        "gzip" => Some(CompressionKind::Gzip),
        "zstd" => Some(CompressionKind::Zstd),
        "uncompressed" => Some(CompressionKind::Uncompressed),
        _ => None,
    }
}

/// Fields of one CSV record (RFC 4180): a field may be quoted, a quote inside is doubled.
pub(crate) fn csv_fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        let field = fields.last_mut().ok_or("no field")?;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    if quoted { Err("a quote is not closed".to_owned()) } else { Ok(fields) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs() {
        let form = ImageForm::default;
        let zstd = Some(Compression { kind: CompressionKind::Zstd, level: Some(9) });
        let zstd = ImageForm { compression: zstd, ..form() };
        let docker = || ImageForm { media_types: MediaTypes::Docker, force_compression: true, ..form() };
        let rewritten = ImageForm { rewrite_timestamp: Some(true), ..form() };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let file = |name: &str| Destination::File(name.into());
        for (text, outputs) in [
            ("type=oci,dest=a.tar", vec![Output::OciArchive { dest: file("a.tar"), names: vec![], form: form() }]),
            (
                "type=oci,dest=-,name=x,rewrite-timestamp=true",
                vec![Output::OciArchive { dest: Destination::Stdout, names: names(&["x"]), form: rewritten }],
            ),
            (
                "type=oci,tar=false,\"dest=a,b\",compression=zstd,compression-level=9",
                vec![Output::OciLayout { dest: "a,b".into(), names: vec![], form: zstd }],
            ),
            (
                "type=docker,dest=d.tar",
                vec![Output::DockerArchive { dest: file("d.tar"), names: vec![], form: form() }],
            ),
            (
                "type=registry,\"name=h/a,h/b:1\"",
                vec![Output::Registry { names: names(&["h/a", "h/b:1"]), form: form(), by_digest: false }],
            ),
            (
                "type=image,name=x,push=true,oci-mediatypes=false,force-compression=true",
                vec![
                    Output::Store { names: names(&["x"]), form: docker() },
                    Output::Registry { names: names(&["x"]), form: docker(), by_digest: false },
                ],
            ),
            (
                "type=image,name=x,push=true,push-by-digest=true",
                vec![Output::Registry { names: names(&["x"]), form: form(), by_digest: true }],
            ),
            (
                "type=image,name=x,push=1,store=false,unpack=false",
                vec![Output::Registry { names: names(&["x"]), form: form(), by_digest: false }],
            ),
            ("type=image,name=x", vec![Output::Store { names: names(&["x"]), form: form() }]),
            ("type=tar,dest=r.tar", vec![Output::RootfsTar { dest: file("r.tar"), split: PlatformSplit::Auto }]),
            ("-", vec![Output::RootfsTar { dest: Destination::Stdout, split: PlatformSplit::Auto }]),
            ("out", vec![Output::RootfsDirectory { dest: "out".into(), split: PlatformSplit::Auto }]),
            (
                "type=local,dest=out,platform-split=true",
                vec![Output::RootfsDirectory { dest: "out".into(), split: PlatformSplit::Always }],
            ),
            (
                "type=tar,dest=r.tar,platform-split=false",
                vec![Output::RootfsTar { dest: file("r.tar"), split: PlatformSplit::Never }],
            ),
            ("type=cacheonly", vec![Output::CacheOnly]),
        ] {
            assert_eq!(parse(text).unwrap(), outputs, "{text}");
        }
    }

    #[test]
    fn what_an_output_does_not_know_is_an_error() {
        for (bad, part) in [
            ("", "empty"),
            ("out,x=y", "is not key=value"),
            ("type=tarball,dest=x", "tarball"),
            ("type=oci", "dest is missing"),
            ("type=local,dest=-", "standard output"),
            ("dest=x", "type is missing"),
            ("type=oci,dest=x,dest=y", "twice"),
            ("type=oci,dest=x,compression=lzma", "lzma"),
            ("type=oci,dest=x,compression-level=10", "out of range 0 to 9"),
            ("type=oci,dest=x,colour=red", "colour"),
            ("type=local,dest=x,name=y", "has no key"),
            ("type=tar,dest=x,annotation.k=v", "has no annotations"),
            ("type=oci,dest=x,annotation-config.k=v", "no place"),
            ("type=image,name=x,store=false", "goes nowhere"),
            ("type=image,name=x,unpack=true", "not needed"),
            ("type=image,name=x,registry.insecure=true", "--tls-verify=false"),
            ("type=image,name=x,dangling-name-prefix=y", "--iidfile"),
            ("type=local,dest=x,compression=gzip", "has no key"),
            ("type=registry,push=false", "type=image"),
            ("type=image,name=x,push-by-digest=true", "push=true"),
            ("type=image,push=perhaps", "neither"),
            ("type=oci,\"dest=x", "not closed"),
        ] {
            let text = format!("{:?}", parse(bad).unwrap_err());
            assert!(text.contains(part), "{bad}: {text}");
        }
    }
}
