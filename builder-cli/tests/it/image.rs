//! Reads an OCI layout the way a suspicious stranger would: every digest is checked, layers are applied in memory.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// One path of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// `dir`, `file`, `symlink`, `char`, `block` or `fifo`.
    pub(crate) kind: &'static str,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: u64,
    /// Bytes of a file, target of a link, numbers of a device.
    pub(crate) content: Vec<u8>,
    /// First name of the same file in the layer.
    pub(crate) link_of: Option<String>,
    /// The same for all names of a file, else different; 0 until flattened.
    pub(crate) inode: usize,
    /// PAX records `SCHILY.xattr.*`.
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
}

/// An image in an OCI layout directory.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) manifest: Value,
    pub(crate) config: Value,
    /// Entries of each layer in their order, names as stored.
    pub(crate) layers: Vec<Vec<(String, Option<Node>)>>,
}

impl Image {
    /// Reads the image `tag` of the layout, or its only one.
    pub(crate) fn open(layout: &Path, tag: Option<&str>) -> Self {
        let index: Value = read_json(&layout.join("index.json"));
        let manifests = index["manifests"].as_array().unwrap();
        let named = |m: &&Value| tag.is_none_or(|t| m["annotations"]["org.opencontainers.image.ref.name"] == t);
        let found: Vec<&Value> = manifests.iter().filter(named).collect();
        assert_eq!(found.len(), 1, "want one manifest for {tag:?} in {index:#}");
        let manifest: Value = serde_json::from_slice(&blob(layout, found[0])).unwrap();
        let config: Value = serde_json::from_slice(&blob(layout, &manifest["config"])).unwrap();
        let diff_ids = config["rootfs"]["diff_ids"].as_array().cloned().unwrap_or_default();
        let descriptors = manifest["layers"].as_array().unwrap();
        assert_eq!(diff_ids.len(), descriptors.len(), "as many diff IDs as layers");
        let history = config["history"].as_array().cloned().unwrap_or_default();
        let full = history.iter().filter(|h| h["empty_layer"] != true).count();
        assert_eq!(full, diff_ids.len(), "the history must account for the layers: {history:#?}");
        let layers = descriptors.iter().zip(&diff_ids).map(|(descriptor, diff_id)| {
            let bytes = blob(layout, descriptor);
            let tar = decompress(descriptor["mediaType"].as_str().unwrap(), &bytes);
            assert_eq!(sha256(&tar), diff_id.as_str().unwrap(), "diff ID of a layer");
            entries(&tar)
        });
        let layers = layers.collect();
        Self { manifest, config, layers }
    }

    /// Applies all layers and returns what stands at each path.
    pub(crate) fn flatten(&self) -> BTreeMap<String, Node> {
        let mut fs: BTreeMap<String, Node> = BTreeMap::new();
        let mut inodes = 0;
        for layer in &self.layers {
            for (name, node) in layer {
                let (dir, base) = name.rsplit_once('/').unwrap_or(("", name));
                let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
                if base == ".wh..wh..opq" {
                    fs.retain(|path, _| !path.starts_with(&prefix) || layer.iter().any(|(n, _)| n == path));
                } else if let Some(hidden) = base.strip_prefix(".wh.") {
                    remove(&mut fs, &format!("{prefix}{hidden}"));
                } else if let Some(node) = node {
                    if node.kind != "dir" {
                        remove(&mut fs, name);
                    }
                    inodes += 1;
                    let mut node = Node { inode: inodes, ..node.clone() };
                    if let Some(target) = &node.link_of {
                        let of = fs.get(target).unwrap_or_else(|| panic!("{name} links to {target}, not there"));
                        node = Node { link_of: node.link_of.clone(), ..of.clone() };
                    }
                    fs.insert(name.clone(), node);
                }
            }
        }
        fs
    }

    /// Text of a file of the flattened image.
    pub(crate) fn text(&self, path: &str) -> String {
        let fs = self.flatten();
        let node = fs.get(path).unwrap_or_else(|| panic!("no {path} in {:?}", fs.keys()));
        String::from_utf8(node.content.clone()).unwrap()
    }

    /// `created_by` of the history, empty layers in parentheses.
    pub(crate) fn history(&self) -> Vec<String> {
        let show = |h: &Value| {
            let text = h["created_by"].as_str().unwrap_or_default();
            if h["empty_layer"] == true { format!("({text})") } else { text.to_owned() }
        };
        self.config["history"].as_array().unwrap().iter().map(show).collect()
    }
}

/// Media type and file of each layer of the only image of a layout, without reading them.
pub(crate) fn layer_files(layout: &Path) -> Vec<(String, PathBuf)> {
    let index = read_json(&layout.join("index.json"));
    let manifest: Value = serde_json::from_slice(&blob(layout, &index["manifests"][0])).unwrap();
    let file = |layer: &Value| {
        let digest = layer["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        (layer["mediaType"].as_str().unwrap().to_owned(), layout.join("blobs/sha256").join(digest))
    };
    manifest["layers"].as_array().unwrap().iter().map(file).collect()
}

fn remove(fs: &mut BTreeMap<String, Node>, path: &str) {
    let below = format!("{path}/");
    fs.retain(|at, _| at != path && !at.starts_with(&below));
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

fn blob(layout: &Path, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().unwrap();
    let path: PathBuf = layout.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(sha256(&bytes), digest);
    assert_eq!(bytes.len() as u64, descriptor["size"].as_u64().unwrap());
    bytes
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn decompress(media_type: &str, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if media_type.ends_with("+gzip") {
        flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut out).unwrap();
    } else if media_type.ends_with("+zstd") {
        zstd::stream::copy_decode(bytes, &mut out).unwrap();
    } else {
        assert_eq!(media_type, "application/vnd.oci.image.layer.v1.tar");
        out.extend_from_slice(bytes);
    }
    out
}

fn entries(tar: &[u8]) -> Vec<(String, Option<Node>)> {
    let mut archive = tar::Archive::new(tar);
    archive.entries().unwrap().map(|entry| entry_of(entry.unwrap())).collect()
}

fn entry_of(mut entry: tar::Entry<'_, &[u8]>) -> (String, Option<Node>) {
    let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").trim_end_matches('/').to_owned();
    let header = entry.header().clone();
    let link = entry.link_name_bytes().map(|l| String::from_utf8_lossy(&l).into_owned());
    let mut xattrs = BTreeMap::new();
    for extension in entry.pax_extensions().unwrap().into_iter().flatten().flatten() {
        if let Some(key) = extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) {
            xattrs.insert(key.to_owned(), extension.value_bytes().to_vec());
        }
    }
    let mut content = Vec::new();
    let (kind, link_of) = match header.entry_type() {
        tar::EntryType::Directory => ("dir", None),
        tar::EntryType::Regular => {
            entry.read_to_end(&mut content).unwrap();
            ("file", None)
        }
        tar::EntryType::Link => ("file", link),
        tar::EntryType::Symlink => {
            content = link.unwrap_or_default().into_bytes();
            ("symlink", None)
        }
        tar::EntryType::Char | tar::EntryType::Block => {
            let numbers = (header.device_major().unwrap(), header.device_minor().unwrap());
            content = format!("{numbers:?}").into_bytes();
            (if header.entry_type() == tar::EntryType::Char { "char" } else { "block" }, None)
        }
        tar::EntryType::Fifo => ("fifo", None),
        other => panic!("{name}: entry type {other:?}"),
    };
    let node = Node {
        kind,
        mode: header.mode().unwrap() & 0o7777,
        uid: header.uid().unwrap(),
        gid: header.gid().unwrap(),
        mtime: header.mtime().unwrap(),
        content,
        link_of,
        inode: 0,
        xattrs,
    };
    (name, Some(node))
}
