//! From a commit to a layer: fetch as little as the server allows, check out, write down what lies there.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use super::super::{FetchError, Fetcher};
use super::command::Git;
use super::{Resolved, without_credentials};
use crate::digest::ContentHash;
use crate::layer::LayerWriter;
use crate::plan::GitSource;
use crate::store::LayerDescriptor;
use crate::tree::{Entry, Kind, Metadata, Timestamp};

/// Files of `.git` that say when and where it was made, and those that run something.
const NOT_KEPT: [&str; 7] = ["hooks", "logs", "branches", "description", "FETCH_HEAD", "ORIG_HEAD", "info"];

/// Checks the commit out into `dir`, which is made, and returns its time in seconds since 1970.
pub(super) fn checkout(git: &Git<'_>, source: &GitSource, resolved: &Resolved, dir: &Path) -> Result<i64, FetchError> {
    fs::create_dir(dir).map_err(FetchError::io("make a directory for git"))?;
    let format = if resolved.commit.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
    git.run(dir, "init", &["init", "--quiet", "--initial-branch=main", format])?;
    git.run(dir, "remote add", &["remote", "add", "--", "origin", &source.remote])?;
    fetch(git, source, resolved, dir)?;
    let commit = format!("{}^{{commit}}", resolved.commit);
    let commit = git.run(dir, "rev-parse", &["rev-parse", "--verify", "--end-of-options", &commit])?;
    let commit = String::from_utf8_lossy(commit.trim_ascii()).into_owned();
    git.run(dir, "checkout", &["checkout", "--quiet", "--force", "--detach", &commit, "--"])?;
    if source.submodules && dir.join(".gitmodules").symlink_metadata().is_ok_and(|meta| meta.is_file()) {
        let update = ["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1", "--force"];
        git.run(dir, "submodule update", &update)?;
    }
    let time = git.run(dir, "show", &["show", "--no-patch", "--no-show-signature", "--format=%ct", &commit, "--"])?;
    if source.keep_git_dir {
        keep(git, source, dir)?;
    }
    let time = String::from_utf8_lossy(&time).trim().parse();
    time.map_err(|_| FetchError::Git { what: "show".to_owned(), said: "the commit has no time".to_owned() })
}

/// Gets the commit with as little history as the server gives: by its name, by that of its branch or tag, or with
/// everything else.
fn fetch(git: &Git<'_>, source: &GitSource, resolved: &Resolved, dir: &Path) -> Result<(), FetchError> {
    let what = format!("fetch {}", without_credentials(&source.remote));
    let wanted = resolved.tag.as_ref().unwrap_or(&resolved.commit).as_str();
    let shallow = ["fetch", "--progress", "--no-tags", "--no-recurse-submodules", "--depth=1", "--", "origin"];
    let everything = [
        "fetch",
        "--progress",
        "--tags",
        "--no-recurse-submodules",
        "--",
        "origin",
        "+refs/heads/*:refs/remotes/origin/*",
    ];
    let name = resolved.full_name.as_deref();
    let tries = [
        Some([shallow.as_slice(), &[wanted]].concat()),
        name.map(|name| [shallow.as_slice(), &[name]].concat()),
        name.map(|name| [&everything[..4], &["--", "origin", name]].concat()),
        Some(everything.to_vec()),
    ];
    let mut last = None;
    for args in tries.iter().flatten() {
        match git.run(dir, &what, args) {
            Ok(_) if has(git, dir, &resolved.commit)? => return Ok(()),
            Ok(_) => {}
            Err(error @ FetchError::Git { .. }) => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| FetchError::GitReference {
        url: without_credentials(&source.remote),
        reference: resolved.commit.clone(),
    }))
}

fn has(git: &Git<'_>, dir: &Path, commit: &str) -> Result<bool, FetchError> {
    let commit = format!("{commit}^{{commit}}");
    match git.run(dir, "cat-file", &["cat-file", "-e", &commit]) {
        Ok(_) => Ok(true),
        Err(FetchError::Git { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes of `.git` what may stay: nothing of this machine, no hooks, no credentials.
fn keep(git: &Git<'_>, source: &GitSource, dir: &Path) -> Result<(), FetchError> {
    let clean = without_credentials(&source.remote);
    git.run(dir, "remote set-url", &["remote", "set-url", "--", "origin", &clean])?;
    // An index without the inode numbers and times of the files here.
    git.run(dir, "read-tree", &["read-tree", "HEAD"])?;
    let mut todo = vec![dir.join(".git")];
    while let Some(git_dir) = todo.pop() {
        let failed = |what: &str, path: &Path| FetchError::io(format!("{what} {}", path.display()));
        for name in NOT_KEPT {
            let path = git_dir.join(name);
            let removed = match path.symlink_metadata() {
                Ok(meta) if meta.is_dir() => fs::remove_dir_all(&path),
                Ok(_) => fs::remove_file(&path),
                Err(_) => Ok(()),
            };
            removed.map_err(failed("remove", &path))?;
        }
        let config = git_dir.join("config");
        if let Ok(text) = fs::read_to_string(&config) {
            fs::write(&config, without_credentials(&text)).map_err(failed("write", &config))?;
        }
        let modules = git_dir.join("modules");
        todo.extend(fs::read_dir(modules).into_iter().flatten().flatten().map(|entry| entry.path()));
    }
    Ok(())
}

/// The directory of the checkout that the source means; no link leads there.
pub(super) fn subdir(dir: &Path, source: &GitSource) -> Result<PathBuf, FetchError> {
    let Some(subdir) = &source.subdir else { return Ok(dir.to_owned()) };
    let wrong = || FetchError::GitSubdir { url: without_credentials(&source.url), subdir: subdir.clone() };
    let mut path = dir.to_owned();
    for component in Path::new(subdir).components() {
        match component {
            Component::Normal(name) if name != ".git" => path.push(name),
            Component::CurDir | Component::RootDir => continue,
            _ => return Err(wrong()),
        }
        if !path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            return Err(wrong());
        }
    }
    Ok(path)
}

/// Writes the files below `dir` as a layer.
pub(super) fn write_layer(
    fetcher: &Fetcher,
    dir: &Path,
    keep_git_dir: bool,
    time: i64,
) -> Result<LayerDescriptor, FetchError> {
    let mut found = BTreeMap::new();
    let mut todo = vec![(dir.to_owned(), Vec::new())];
    while let Some((at, prefix)) = todo.pop() {
        let list = |path: &Path| FetchError::io(format!("list {}", path.display()));
        for entry in fs::read_dir(&at).map_err(list(&at))? {
            let entry = entry.map_err(list(&at))?;
            if entry.file_name() == ".git" && !keep_git_dir {
                continue;
            }
            let path = [prefix.as_slice(), entry.file_name().as_bytes()].concat();
            let entry = describe(&entry.path(), &path, time)?;
            if entry.is_dir() {
                todo.push((dir.join(OsStr::from_bytes(&path)), [path.as_slice(), b"/"].concat()));
            }
            found.insert(path, entry);
        }
    }
    let failed = |source| FetchError::Unpack { what: "the checkout".to_owned(), source };
    let mut writer = LayerWriter::create(&fetcher.store, fetcher.layer_options()).map_err(failed)?;
    for entry in found.into_values() {
        fetcher.check_cancelled()?;
        let path = dir.join(OsStr::from_bytes(&entry.path));
        let mut file = match entry.kind {
            Kind::File { .. } => Some(File::open(&path).map_err(FetchError::io(format!("open {}", path.display())))?),
            _ => None,
        };
        writer.append(entry, file.as_mut().map(|file| file as &mut dyn Read)).map_err(failed)?;
    }
    Ok(writer.finish().map_err(failed)?.layer)
}

/// Git knows files that may be executed and files that may not.
fn describe(host: &Path, path: &[u8], time: i64) -> Result<Entry, FetchError> {
    let failed = |source| FetchError::Io { what: format!("look at {}", host.display()), source };
    let meta = host.symlink_metadata().map_err(failed)?;
    let (kind, mode) = if meta.is_dir() {
        (Kind::Directory { opaque: false }, 0o755)
    } else if meta.is_symlink() {
        (Kind::Symlink { target: fs::read_link(host).map_err(failed)?.into_os_string().into_vec() }, 0o777)
    } else {
        let mode = if meta.permissions().mode() & 0o100 != 0 { 0o755 } else { 0o644 };
        (Kind::File { size: meta.len(), content: ContentHash([0; 32]) }, mode)
    };
    let meta = Metadata { mode, mtime: Timestamp { secs: time, nanos: 0 }, ..Metadata::default() };
    Ok(Entry { path: path.to_vec(), meta, kind })
}
