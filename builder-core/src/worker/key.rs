//! What decides the result of a step. Change the number of a domain when the meaning of its parts changes. A part that
//! differs is told to people in the words of `trace/changes.rs`.
//!
//! | input | `RUN` | `COPY`, `ADD`, `WORKDIR` |
//! |---|---|---|
//! | file system before it | chain ID | what of it decides the entries: they are the key |
//! | instruction after expansion | argv, form, script | – (its result is in the entries) |
//! | ENV, declared ARG | name and value, in order | – |
//! | USER, WORKDIR, host name | yes | resolved to ids and paths in the entries |
//! | network it gets, security mode, platform | yes | – |
//! | names of extra hosts, size of `/dev/shm`, limits | yes | – |
//! | mounts | kind, target, options; content of what a bind or a cache's seed selects | – |
//! | devices | name, and whether they are needed | – |
//! | content of caches; secrets and agents, and whether they are there | no | – |
//! | files | – | path, kind, mode, owner, link target, xattrs, content of every entry |
//! | mtime | – | no; with `SOURCE_DATE_EPOCH` the time as it will be written |
//! | `SOURCE_DATE_EPOCH` | yes: it is in the layer | yes |
//! | predefined proxy args, secrets, host facts, number of threads | no | no |
//! | compression | no: a layer is found under its diff ID and compressed again if need be | no |

use crate::digest::{CacheKey, DiffId};
use crate::plan::{CommandForm, MountKind, MountOp, RunOp};
use crate::request::Ulimit;
use crate::sandbox::Network;
use crate::solver::{KeyHasher, KeyParts};
use crate::store::LayerDescriptor;
use crate::tree::{Kind, Timestamp};
use crate::worker::WorkerOptions;
use crate::worker::copy::Planned;
use crate::worker::mounts::Selection;
use crate::worker::root::Root;

/// The key of a command.
pub(crate) fn run(
    op: &RunOp,
    parent: &Root,
    selections: &[Option<Selection>],
    network: Network,
    options: &WorkerOptions,
) -> KeyParts {
    let mut key = KeyParts::new("run/2");
    key.add("file system", parent.chain_id().map_or_else(|| "scratch".to_owned(), |id| id.to_string()));
    let form = match op.form {
        CommandForm::Shell => "shell",
        CommandForm::Exec => "exec",
    };
    key.add("form", form);
    for argument in &op.argv {
        key.add("command", argument);
    }
    if let Some(script) = &op.script {
        key.add("script path", &script.path);
        key.add("script", &script.content);
    }
    for (name, value) in &op.env {
        key.add(format!("env {name}"), value);
    }
    key.add("working directory", &op.cwd);
    key.add("user", &op.user);
    key.add("host name", &op.hostname);
    key.add("network", format!("{network:?}"));
    key.add("security", format!("{:?}", op.security));
    key.add("platform", op.platform.to_string());
    for (mount, selection) in op.mounts.iter().zip(selections) {
        add_mount(&mut key, mount, selection.as_ref());
    }
    for device in &op.devices {
        key.add(format!("device {}", device.name), format!("{:?}", device.need));
    }
    for host in &options.run.extra_hosts {
        key.add("extra host", &host.name);
    }
    if let Some(bytes) = options.run.shm_bytes {
        key.add("size of /dev/shm", bytes.to_string());
    }
    for Ulimit { resource, soft, hard } in &options.run.ulimits {
        key.add(format!("limit {resource:?}"), format!("{soft:?} {hard:?}"));
    }
    add_epoch(&mut key, options.clamp);
    key
}

/// How a source is written and who else uses a cache does not decide what a command sees; what is there does.
fn add_mount(key: &mut KeyParts, mount: &MountOp, selection: Option<&Selection>) {
    let options = match &mount.kind {
        MountKind::Bind { access, .. } => format!("bind {access:?}"),
        MountKind::Cache(cache) => {
            let part = if selection.is_none() { cache.source.as_str() } else { "/" };
            format!("cache {:?} {part:?} {:?} {:?}", cache.id, cache.access, cache.owner)
        }
        MountKind::Tmpfs { size_bytes, access } => format!("tmpfs {size_bytes:?} {access:?}"),
        MountKind::Secret { id, env, need, owner } => format!("secret {id:?} {env:?} {need:?} {owner:?}"),
        MountKind::Ssh { id, need, owner } => format!("ssh {id:?} {need:?} {owner:?}"),
    };
    let target = mount.target.as_deref().unwrap_or("variable");
    key.add(format!("mount {target}"), options);
    if let Some(selection) = selection {
        key.add(format!("mounted at {target}"), selection.content.to_string());
    }
}

/// The key of a layer whose entries are all known.
pub(crate) fn entries(domain: &'static str, planned: &[Planned], clamp: Option<i64>) -> KeyParts {
    let mut key = KeyParts::new(domain);
    let mut hasher = KeyHasher::new("entries/1");
    for planned in planned {
        hash_entry(&mut hasher, planned, clamp);
    }
    key.add("entries", planned.len().to_string());
    key.add("content", hasher.finish().to_string());
    add_epoch(&mut key, clamp);
    key
}

/// Everything of an entry that is in a key, for comparing it with itself later.
pub(crate) fn entry(planned: &Planned) -> CacheKey {
    let mut hasher = KeyHasher::new("entry/1");
    hash_entry(&mut hasher, planned, None);
    hasher.finish()
}

fn add_epoch(key: &mut KeyParts, clamp: Option<i64>) {
    key.add("SOURCE_DATE_EPOCH", clamp.map_or_else(String::new, |epoch| epoch.to_string()));
}

fn hash_entry(hasher: &mut KeyHasher, planned: &Planned, clamp: Option<i64>) {
    let entry = &planned.entry;
    hasher.field(&entry.path);
    let meta = &entry.meta;
    for number in [meta.mode, meta.uid, meta.gid] {
        hasher.number(u64::from(number));
    }
    if let Some(epoch) = clamp {
        let written = meta.mtime.min(Timestamp { secs: epoch, nanos: 0 });
        hasher.field(&written.secs.to_le_bytes());
        hasher.number(u64::from(written.nanos));
    }
    hasher.number(meta.xattrs.len() as u64);
    for (name, value) in &meta.xattrs {
        hasher.field(name);
        hasher.field(value);
    }
    match &entry.kind {
        Kind::Directory { opaque } => hasher.field(if *opaque { b"opaque" } else { b"directory" }),
        Kind::File { size, content } => {
            hasher.field(b"file");
            hasher.number(*size);
            hasher.field(&content.0);
        }
        Kind::Hardlink { target } => {
            hasher.field(b"hard link");
            hasher.field(target);
        }
        Kind::Symlink { target } => {
            hasher.field(b"symlink");
            hasher.field(target);
        }
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            hasher.field(if matches!(entry.kind, Kind::CharDevice { .. }) { b"char" } else { b"block" });
            hasher.number(u64::from(*major));
            hasher.number(u64::from(*minor));
        }
        Kind::Fifo => hasher.field(b"fifo"),
        Kind::Whiteout => hasher.field(b"whiteout"),
    }
}

/// Where the blob of a layer under another compression is recorded.
pub(crate) fn variant(layer: &LayerDescriptor, codec: &str, level: u8) -> CacheKey {
    let mut key = KeyParts::new("compressed layer/1");
    key.add("diff ID", layer.diff_id.to_string());
    key.add("codec", codec);
    key.add("level", [level]);
    key.key()
}

/// Where it is recorded what layers from the index `first` on come to as one, on top of those before.
pub(crate) fn squash(layers: &[LayerDescriptor], first: usize, clamp: Option<i64>) -> CacheKey {
    let mut key = KeyParts::new("squashed layer/1");
    key.add("layers below", first.to_string());
    for layer in layers {
        key.add("diff ID", layer.diff_id.to_string());
    }
    add_epoch(&mut key, clamp);
    key.key()
}

/// Where it is recorded what the layers of a base image hold.
pub(crate) fn base(layers: &[DiffId]) -> CacheKey {
    let mut key = KeyParts::new("base/1");
    for layer in layers {
        key.add("diff ID", layer.to_string());
    }
    key.key()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::ContentHash;
    use crate::tree::{Entry, Metadata};

    fn file(path: &str, change: impl FnOnce(&mut Entry)) -> Vec<Planned> {
        let kind = Kind::File { size: 1, content: ContentHash::of(b"x") };
        let mut entry = Entry { path: path.into(), meta: Metadata::default(), kind };
        change(&mut entry);
        vec![Planned { entry, origin: None }]
    }

    #[test]
    fn every_property_of_an_entry_but_its_time_is_in_the_key() {
        let key = |planned: &[Planned]| entries("copy/1", planned, None).key();
        let base = key(&file("a", |_| {}));
        let changes: Vec<Vec<Planned>> = vec![
            file("b", |_| {}),
            file("a", |e| e.meta.mode = 0o7),
            file("a", |e| e.meta.uid = 1),
            file("a", |e| e.meta.gid = 1),
            file("a", |e| drop(e.meta.xattrs.insert(b"user.x".to_vec(), b"y".to_vec()))),
            file("a", |e| e.kind = Kind::File { size: 2, content: ContentHash::of(b"x") }),
            file("a", |e| e.kind = Kind::File { size: 1, content: ContentHash::of(b"y") }),
            file("a", |e| e.kind = Kind::Symlink { target: b"x".to_vec() }),
            file("a", |e| e.kind = Kind::Fifo),
        ];
        for change in &changes {
            assert_ne!(key(change), base, "{change:?}");
        }
        assert_eq!(key(&file("a", |e| e.meta.mtime.secs = 5)), base);
    }

    #[test]
    fn with_an_epoch_the_written_time_counts() {
        let key = |secs: i64| entries("copy/1", &file("a", |e| e.meta.mtime.secs = secs), Some(100)).key();
        assert_eq!(key(150), key(200), "both are written as 100");
        assert_ne!(key(50), key(60));
    }
}
