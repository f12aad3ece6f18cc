//! Archives of `docker save` without an OCI layout in them, as all were before Docker 25 and as Podman writes them.
//!
//! The config is taken byte for byte, so that the image ID stays; the layers are, too, and are checked against it. The
//! manifest is made here, for such an archive has none.

use std::fs::File;
use std::path::Path;

use super::archive::{self, Contents, ScanError};
use super::copy::copy;
use super::{ImageSource, Section, SourceError, open_regular};
use crate::image::{
    CONFIG_LIMIT, Descriptor, Family, ImageConfig, MEDIA_TYPE_DOCKER_CONFIG, MEDIA_TYPE_DOCKER_MANIFEST, Manifest,
    layer_media_type,
};
use crate::request::CompressionKind;
use crate::store::{self, Store};

/// Links that are followed to a layer.
const MAX_LINKS: usize = 4;

/// An image of `manifest.json`.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Brings an image of an archive for Docker into the store: the one with a name that `is_wanted` takes, or the only one.
/// `layout_name` is that name where an OCI layout is in the archive, which then counts.
pub(crate) fn import_docker_archive(
    store: &Store,
    path: &Path,
    layout_name: Option<&str>,
    is_wanted: &dyn Fn(&str) -> bool,
) -> Result<Descriptor, SourceError> {
    let file = open_regular(path);
    let file = file.map_err(|source| SourceError::Io { operation: "open", path: path.to_owned(), source })?;
    let contents = archive::scan(&file).map_err(|error| match error {
        ScanError::Io(source) => SourceError::Io { operation: "read", path: path.to_owned(), source },
        ScanError::Form(reason) => SourceError::NotForDocker { path: path.to_owned(), reason },
    })?;
    if contents.index.is_some() {
        let source = ImageSource::open_archive(path)?;
        let image = source.resolve(layout_name)?;
        source.copy_all(store, &image)?;
        return Ok(image);
    }
    Archive { path, file: &file, contents: &contents, store }.import(is_wanted)
}

struct Archive<'a> {
    path: &'a Path,
    file: &'a File,
    contents: &'a Contents,
    store: &'a Store,
}

impl Archive<'_> {
    fn import(&self, is_wanted: &dyn Fn(&str) -> bool) -> Result<Descriptor, SourceError> {
        let Some(text) = &self.contents.docker else { return Err(self.form("no manifest.json")) };
        let entries: Vec<Entry> = serde_json::from_slice(text)
            .map_err(|error| self.form(format!("manifest.json does not parse: {error}")))?;
        let entry = self.choose(&entries, is_wanted)?;
        let (at, size) = self.find(&entry.config)?;
        if size > CONFIG_LIMIT {
            return Err(self.form(format!("its config has {size} bytes, at most {CONFIG_LIMIT} are read")));
        }
        let mut config = Vec::new();
        self.read(at, size, &mut config)?;
        let parsed = ImageConfig::parse(&config).map_err(|error| self.form(format!("its config: {error}")))?;
        let diff_ids = &parsed.rootfs.diff_ids;
        if diff_ids.len() != entry.layers.len() {
            return Err(self.form(format!("{} diff IDs for {} layers", diff_ids.len(), entry.layers.len())));
        }
        let mut layers = Vec::new();
        for (name, diff_id) in entry.layers.iter().zip(diff_ids) {
            let layer = self.layer(name)?;
            let plain = layer_media_type(Family::Docker, CompressionKind::Uncompressed);
            if layer.media_type == plain && layer.digest.to_string() != diff_id.to_string() {
                return Err(self.form(format!("the layer {name:?} is {}, its config says {diff_id}", layer.digest)));
            }
            layers.push(layer);
        }
        let digest = self.store.put_blob(&config).map_err(|source| self.store_error(source))?;
        let mut manifest = Manifest::new(Descriptor::new(MEDIA_TYPE_DOCKER_CONFIG, digest, size), layers);
        manifest.media_type = Some(MEDIA_TYPE_DOCKER_MANIFEST.to_owned());
        self.store.put_blob(&manifest.to_canonical_json()).map_err(|source| self.store_error(source))?;
        Ok(manifest.descriptor())
    }

    fn choose<'e>(&self, entries: &'e [Entry], is_wanted: &dyn Fn(&str) -> bool) -> Result<&'e Entry, SourceError> {
        let names = |entry: &'e Entry| entry.repo_tags.iter().flatten();
        let mut fitting = entries.iter().filter(|entry| match entries {
            // Asked for by no name, an image needs none.
            [_] if entry.repo_tags.as_ref().is_none_or(Vec::is_empty) => is_wanted(""),
            _ => names(entry).any(|name| is_wanted(name)),
        });
        match (fitting.next(), fitting.next()) {
            (Some(only), None) => Ok(only),
            (found, _) => Err(SourceError::Reference {
                path: self.path.to_owned(),
                problem: if found.is_some() { "holds several images, name one" } else { "has no such image" }
                    .to_owned(),
                available: entries.iter().flat_map(names).take(20).cloned().collect(),
            }),
        }
    }

    /// Copies a layer into the store.
    fn layer(&self, name: &str) -> Result<Descriptor, SourceError> {
        let (at, size) = self.find(name)?;
        let mut magic = Vec::new();
        self.read(at, size.min(4), &mut magic)?;
        let compression = match magic.as_slice() {
            [0x1f, 0x8b, ..] => CompressionKind::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] => {
                return Err(self.form(format!("the layer {name:?} is zstd, which Docker's types lack")));
            }
            _ => CompressionKind::Uncompressed,
        };
        let mut writer = self.store.blob_writer().map_err(|source| self.store_error(source))?;
        self.read(at, size, &mut writer)?;
        let (digest, size) = writer.commit().map_err(|source| self.store_error(source))?;
        Ok(Descriptor::new(layer_media_type(Family::Docker, compression), digest, size))
    }

    fn read(&self, at: u64, size: u64, out: &mut impl std::io::Write) -> Result<(), SourceError> {
        let failed = |source| SourceError::Io { operation: "read", path: self.path.to_owned(), source };
        let file = self.file.try_clone().map_err(failed)?;
        copy(Section { file, at, end: at + size }, out).map_err(failed)
    }

    /// Offset and size of a file, links followed: old archives have a layer once and links to it.
    fn find(&self, name: &str) -> Result<(u64, u64), SourceError> {
        let mut path = clean(name.as_bytes());
        for _ in 0..=MAX_LINKS {
            if let Some(place) = self.contents.files.get(&path) {
                return Ok(*place);
            }
            let Some(target) = self.contents.links.get(&path) else { break };
            let dir = path.iter().rposition(|byte| *byte == b'/').map_or(&[][..], |at| &path[..at]);
            path = clean(&[dir, b"/", target].concat());
        }
        Err(self.form(format!("{name:?} is not in it")))
    }

    fn form(&self, reason: impl Into<String>) -> SourceError {
        SourceError::NotForDocker { path: self.path.to_owned(), reason: reason.into() }
    }

    fn store_error(&self, source: store::Error) -> SourceError {
        SourceError::Store { path: self.path.to_owned(), source }
    }
}

/// The path without `.`, `..` and empty components; nothing is above the top.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut clean: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(clean.pop()),
            part => clean.push(part),
        }
    }
    clean.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    /// A tar of these files and links.
    fn archive(dir: &Path, files: &[(&str, &[u8])], links: &[(&str, &str)]) -> std::path::PathBuf {
        let path = dir.join("docker.tar");
        let mut tar = tar::Builder::new(File::create(&path).unwrap());
        for (name, bytes) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            tar.append_data(&mut header, name, *bytes).unwrap();
        }
        for (name, target) in links {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, name, target).unwrap();
        }
        tar.finish().unwrap();
        path
    }

    fn import(files: &[(&str, &[u8])], links: &[(&str, &str)], name: &str) -> Result<(Manifest, Vec<u8>), SourceError> {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        let path = archive(dir.path(), files, links);
        let image = import_docker_archive(&store, &path, None, &|tag| name.is_empty() || tag == name)?;
        let manifest = Manifest::parse(&store.read_blob(&image.digest, 1 << 20).unwrap()).unwrap();
        let config = store.read_blob(&manifest.config.digest, 1 << 20).unwrap();
        let layers = manifest.layers.iter().all(|layer| store.has_blob(&layer.digest).unwrap());
        assert!(layers);
        Ok((manifest, config))
    }

    fn config(layers: &[&[u8]]) -> String {
        let ids: Vec<String> = layers.iter().map(|layer| format!("\"{}\"", Digest::of(layer))).collect();
        // Not as this program would write it.
        format!(
            "{{ \"os\":\"linux\", \"architecture\":\"arm64\",\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[{}]}} }}",
            ids.join(",")
        )
    }

    #[test]
    fn an_image_of_an_old_archive_keeps_its_id() {
        let text = config(&[b"one", b"two", b"one"]);
        let table = r#"[{"Config":"c.json","RepoTags":["a:1","b:1"],"Layers":["x/layer.tar","y/layer.tar","z/layer.tar"]},
            {"Config":"other.json","RepoTags":["o:1"],"Layers":[]}]"#;
        let files: [(&str, &[u8]); 4] = [
            ("x/layer.tar", b"one"),
            ("y/layer.tar", b"two"),
            ("c.json", text.as_bytes()),
            ("manifest.json", table.as_bytes()),
        ];
        let (manifest, found) = import(&files, &[("z/layer.tar", "../x/layer.tar")], "b:1").unwrap();
        assert_eq!(found, text.as_bytes());
        assert_eq!(manifest.layers.len(), 3);
        assert_eq!(manifest.layers[0], manifest.layers[2]);
        for (name, part) in [("", "several"), ("c:1", "no such image")] {
            let error = import(&files, &[], name).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("a:1"), "{error}");
        }
        let error = import(&files, &[("z/layer.tar", "z/layer.tar")], "a:1").unwrap_err().to_string();
        assert!(error.contains("z/layer.tar"), "{error}");
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let text = config(&[b"one"]);
        let table = |layers: &str| format!("[{{\"Config\":\"c.json\",\"Layers\":[{layers}]}}]");
        let import = |layer: &[u8], table: &str| {
            let files: [(&str, &[u8]); 3] =
                [("l.tar", layer), ("c.json", text.as_bytes()), ("manifest.json", table.as_bytes())];
            super::tests::import(&files, &[], "").map(|(manifest, _)| manifest)
        };
        assert!(import(b"one", &table("\"l.tar\"")).is_ok(), "without a name it is the only one");
        for (layer, table, part) in [
            (&b"other"[..], table("\"l.tar\""), "its config says"),
            (b"one", table("\"l.tar\",\"l.tar\""), "1 diff IDs for 2 layers"),
            (b"one", table("\"../../etc/passwd\""), "is not in it"),
            (b"one", "{".to_owned(), "does not parse"),
        ] {
            let error = import(layer, &table).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        let path = archive(dir.path(), &[("x", b"y")], &[]);
        let error = import_docker_archive(&store, &path, None, &|_| true).unwrap_err().to_string();
        assert!(error.contains("no manifest.json"), "{error}");
    }
}
