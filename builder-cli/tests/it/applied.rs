//! Applies images with the tools of others and lists what comes out, to be held against what a command of the build saw.
//!
//! Listings are made by `tests/manifest.c`, a static program that also runs inside the build.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_json::Value;

use crate::image::layer_files;
use crate::support::{Env, Run};

const SOURCE: &str = include_str!("../manifest.c");

/// Mount points of commands: not the image's.
pub(crate) const MOUNTED: [&str; 5] = ["dev", "proc", "sys", "etc/hosts", "etc/resolv.conf"];

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) kind: char,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    /// Bytes of a file, numbers of a device.
    pub(crate) size: String,
    pub(crate) mtime: (i64, u32),
    /// Checksum of a file, target of a link.
    pub(crate) content: String,
    /// First name of the same file.
    pub(crate) first_name: String,
    pub(crate) xattrs: Vec<String>,
}

/// A file system by escaped path.
pub(crate) type Listing = BTreeMap<String, Seen>;

/// Compiles the lister into the workplace.
pub(crate) fn compile(env: &Env) -> PathBuf {
    let (source, program) = (env.path("manifest.c"), env.path("manifest"));
    fs::write(&source, SOURCE).unwrap();
    let mut gcc = std::process::Command::new("gcc");
    Run::of(&gcc.args(["-O2", "-static", "-o"]).arg(&program).arg(&source).output().unwrap()).ok();
    program
}

/// The last command of a Dockerfile: shows the file system and changes nothing.
pub(crate) fn list_command() -> String {
    format!("RUN [\"/bin/manifest\", \"list\", \"/\", \"{}\"]\n", MOUNTED.join("\", \""))
}

/// What the last command of a build with JSON events saw.
pub(crate) fn seen_by(run: &Run) -> Listing {
    run.ok();
    let events: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last =
        events.iter().rfind(|event| event["event"] == "step_output").expect("the last command lists files")["step"]
            .clone();
    let output = events.iter().filter(|event| event["event"] == "step_output" && event["step"] == last);
    let decode =
        |event: &Value| base64::engine::general_purpose::STANDARD.decode(event["bytes"].as_str().unwrap()).unwrap();
    parse(&String::from_utf8(output.flat_map(decode).collect()).unwrap())
}

fn parse(text: &str) -> Listing {
    let mut listing = Listing::new();
    let mut names: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [path, kind, mode, uid, gid, size, secs, nanos, inode, _links, content, xattrs @ ..] = fields.as_slice()
        else {
            panic!("not a line of a listing: {line:?}");
        };
        let mut seen = Seen {
            kind: kind.chars().next().unwrap(),
            mode: u32::from_str_radix(mode, 8).unwrap(),
            owner: (uid.parse().unwrap(), gid.parse().unwrap()),
            size: (*size).to_owned(),
            mtime: (secs.parse().unwrap(), nanos.parse().unwrap()),
            content: (*content).to_owned(),
            first_name: (*path).to_owned(),
            xattrs: xattrs.iter().map(|text| (*text).to_owned()).collect(),
        };
        stand_in(&mut seen);
        if seen.kind != 'd' {
            names.entry(inode).or_default().push(path);
        }
        listing.insert((*path).to_owned(), seen);
    }
    for names in names.values() {
        let first = names.iter().min().unwrap();
        for name in names {
            listing.get_mut(*name).unwrap().first_name = (*first).to_owned();
        }
    }
    listing
}

/// In a user namespace nobody may make devices: commands see an empty file that says which device it stands for.
fn stand_in(seen: &mut Seen) {
    let Some(at) = seen.xattrs.iter().position(|text| text.starts_with("user.builder.node=")) else { return };
    let hex = seen.xattrs.remove(at);
    let hex = hex.split_once('=').unwrap().1;
    let text: String =
        (0..hex.len()).step_by(2).map(|at| char::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap())).collect();
    let fields: Vec<&str> = text.split(' ').collect();
    seen.kind = fields[0].chars().next().unwrap();
    seen.size = format!("{},{}", fields[1], fields[2]);
    seen.content = "-".to_owned();
}

/// Lists a directory.
pub(crate) fn list(env: &Env, dir: &Path) -> Listing {
    let mut command = env.as_image_root(env.path("manifest").to_str().unwrap());
    parse(&Run::of(&command.arg("list").arg(dir).args(MOUNTED).output().unwrap()).ok())
}

/// Unpacks the image `tag` of the layout `out` with umoci.
pub(crate) fn umoci(env: &Env, tag: &str) -> Listing {
    let mut command = env.as_image_root("umoci");
    let image = format!("out:{tag}");
    Run::of(&command.args(["unpack", "--image", &image, "bundle"]).output().unwrap()).ok();
    let listing = list(env, &env.path("bundle/rootfs"));
    remove(env, "bundle");
    listing
}

/// Unpacks the only image of the layout `out` with GNU tar and a script that knows whiteouts. Names that match `leave_out`
/// are not unpacked.
pub(crate) fn gnu_tar(env: &Env, leave_out: &[&str]) -> Listing {
    let root = env.path("applied");
    fs::create_dir(&root).unwrap();
    for (media_type, blob) in layer_files(&env.path("out")) {
        assert!(media_type.ends_with("+gzip"), "{media_type}");
        clear(env, &root, &blob);
        let mut tar = env.as_image_root("tar");
        tar.args(["--extract", "--gzip", "--preserve-permissions", "--same-owner", "--numeric-owner", "--sparse"]);
        tar.args(["--xattrs", "--xattrs-include=*", "--delay-directory-restore", "--exclude=.wh.*"]);
        tar.args(leave_out.iter().map(|pattern| format!("--exclude={pattern}")));
        Run::of(&tar.arg("--file").arg(&blob).arg("--directory").arg(&root).output().unwrap()).ok();
    }
    let listing = list(env, &root);
    remove(env, "applied");
    listing
}

fn remove(env: &Env, name: &str) {
    Run::of(&env.as_image_root("rm").args(["-rf", name]).output().unwrap()).ok();
}

/// Takes away what a layer deletes or replaces by something of another kind.
fn clear(env: &Env, root: &Path, blob: &Path) {
    const SCRIPT: &str = r#"
        for item; do
            path=${item#?}
            case $item in
            directory*) path=${item#directory}; [ -d "$path" ] && [ ! -L "$path" ] || rm -f -- "$path" ;;
            opaque*) path=${item#opaque}; [ ! -d "$path" ] || find "$path" -mindepth 1 -delete ;;
            gone*) rm -rf -- "${item#gone}" ;;
            esac
        done"#;
    let items = env.path("items");
    let mut file = File::create(&items).unwrap();
    let tar = flate2::read::MultiGzDecoder::new(File::open(blob).unwrap());
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let name = entry.path_bytes();
        let path = Path::new(std::ffi::OsStr::from_bytes(&name));
        let (dir, base) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default().as_bytes());
        let (word, path) = match base.strip_prefix(b".wh.") {
            Some(b".wh..opq") => ("opaque", dir.to_owned()),
            Some(hidden) => ("gone", dir.join(std::ffi::OsStr::from_bytes(hidden))),
            None if entry.header().entry_type().is_dir() => ("directory", path.to_owned()),
            None => ("gone", path.to_owned()),
        };
        let path = Path::new("./").join(path);
        file.write_all(&[word.as_bytes(), path.as_os_str().as_bytes(), &[0]].concat()).unwrap();
    }
    let mut xargs = env.as_image_root("xargs");
    xargs.args(["--null", "--no-run-if-empty", "--arg-file"]).arg(&items).args(["sh", "-euc", SCRIPT, "sh"]);
    Run::of(&xargs.current_dir(root).output().unwrap()).ok();
}

/// Asserts that two file systems are equal.
#[track_caller]
pub(crate) fn assert_same(what: &str, applied: &Listing, seen: &Listing) {
    let mut differences = Vec::new();
    for path in applied.keys().chain(seen.keys().filter(|path| !applied.contains_key(*path))) {
        match (applied.get(path), seen.get(path)) {
            (Some(a), Some(b)) if a == b => {}
            (a, b) => differences.push(format!("{path}\n  applied {a:?}\n  in RUN  {b:?}")),
        }
    }
    let shown: Vec<&str> = differences.iter().map(String::as_str).take(20).collect();
    assert!(differences.is_empty(), "{what}: {} paths differ\n{}", differences.len(), shown.join("\n"));
}

/// The listing without what GNU tar gets wrong of directories: it changes times of those that a layer does not name, and
/// leaves attributes that a layer no longer has.
pub(crate) fn as_tar_can(listing: &Listing) -> Listing {
    let mut listing = listing.clone();
    for seen in listing.values_mut().filter(|seen| seen.kind == 'd') {
        seen.mtime = (0, 0);
        seen.xattrs.clear();
    }
    listing
}
