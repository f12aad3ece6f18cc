//! Layers that want to reach the machine they are unpacked on. Every one ends in an error or inside its directory, and
//! what lies outside is as it was.

use super::*;
use crate::layer::tar::Writer;

/// A tar of entries with names that [`Entry`] would not have; `@` stands for the canary directory.
fn tar(lines: &[&str], canary: &Path) -> Vec<u8> {
    let canary = canary.to_str().unwrap();
    let mut writer = Writer::new(Vec::new());
    for line in lines {
        let line = line.replace('@', canary);
        let mut words = line.split(' ');
        let (kind, path) = (words.next().unwrap(), words.next().unwrap());
        let target = words.next().unwrap_or_default().as_bytes().to_vec();
        let mut entry = file(path, 4);
        entry.meta.mode = 0o4777;
        entry.meta.uid = 12_345;
        if matches!(kind, "f" | "d" | "o") {
            entry.meta.xattrs.insert(b"user.evil".to_vec(), b"1".to_vec());
        }
        match kind {
            "f" => {}
            "d" => entry.kind = Kind::Directory { opaque: false },
            "o" => entry.kind = Kind::Directory { opaque: true },
            "s" => entry.kind = Kind::Symlink { target },
            "h" => entry.kind = Kind::Hardlink { target },
            "w" => entry.kind = Kind::Whiteout,
            "p" => entry.kind = Kind::Fifo,
            _ => panic!("{line}"),
        }
        writer.append(&entry).unwrap();
        if kind == "f" {
            writer.write_content(b"evil").unwrap();
        }
    }
    writer.finish().unwrap()
}

/// Everything of the canary that an attack could change.
fn state(canary: &Path) -> Vec<String> {
    let describe = |entry: walkdir::Result<walkdir::DirEntry>| {
        let entry = entry.unwrap();
        let meta = entry.path().symlink_metadata().unwrap();
        let content = if meta.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
        let facts =
            (meta.mode(), meta.uid(), meta.gid(), meta.nlink(), meta.mtime(), meta.mtime_nsec(), meta.ctime_nsec());
        format!("{:?} {facts:?} {content:?} {:?}", entry.path(), xattr(entry.path(), "user.evil"))
    };
    walkdir::WalkDir::new(canary).sort_by_file_name().into_iter().map(describe).collect()
}

#[test]
fn nothing_outside_is_touched() {
    let (dir, store) = store();
    let canary = dir.path().join("canary");
    fs::create_dir_all(canary.join("sub")).unwrap();
    fs::write(canary.join("file"), "safe").unwrap();
    fs::write(canary.join("sub/file"), "safe").unwrap();
    let before = state(&canary);
    // How the canary is reached from below `unpacked/` or `tmp/…/`, by too many steps upwards.
    let up = "../".repeat(12);
    let escapes: Vec<Vec<String>> = [
        &["f ../outside"][..],
        &["f @/new"],
        &["f UP@/file"],
        &["s d @", "f d/file", "f d/new", "d d/sub", "w d/file", "o d/sub"],
        &["s d UP@", "f d/file", "w d/sub/file"],
        &["s d /", "f d@/file"],
        &["s a UP", "s b a@", "f b/file"],
        &["s d @", "d d/", "f d/file"],
        &["s d @/file", "f d"],
        &["s d @/file", "h l d", "f l"],
        &["h l @/file", "f l"],
        &["h l UP@/file"],
        &["s d @", "h l d/file", "f l"],
        &["s d @", "h d/l d/file"],
        &["s . @", "f file"],
        &["s ./ @", "f file"],
        &["s / @", "f file"],
        &["f a/.."],
        &["d ..", "f ../x"],
        &["s d @", "p d/pipe"],
        &["s d @/sub", "s d/x y", "o d"],
        &["s sub @/sub", "w sub/../file"],
        &["d d", "s d/up UP@", "f d/up/file", "d d/up"],
        &["s etc @", "d etc", "f etc/file"],
    ]
    .iter()
    .map(|lines| lines.iter().map(|line| line.replace("UP", &up)).collect())
    .collect();
    for lines in escapes {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let layer = foreign(&store, &tar(&lines, &canary));
        let outcome = unpack_one(&store, &layer);
        assert_eq!(state(&canary), before, "HOST PATH WAS CHANGED by {lines:?}");
        let inside = listing(dir.path());
        assert!(!inside.iter().any(|path| path == "outside" || path == "new" || path == "x"), "{lines:?}");
        if let Ok((path, _)) = outcome {
            check_tree(&path, &store.tree(&layer.diff_id).unwrap().unwrap());
        }
    }
}

#[test]
fn what_goes_through_a_symlink_lands_inside() {
    let (dir, store) = store();
    let canary = dir.path().join("canary");
    fs::create_dir(&canary).unwrap();
    let layer = foreign(&store, &tar(&["s d /", "f d/etc/x", "s e ../../../..", "f e/y"], &canary));
    let (path, _) = unpack_one(&store, &layer).unwrap();
    assert_eq!(listing(&path), ["d", "e", "etc", "etc/x", "y"]);
}

#[test]
fn a_link_target_is_never_taken_from_the_working_directory() {
    // Cargo runs tests in the package directory, which has this file.
    assert!(Path::new("Cargo.toml").exists());
    let (dir, store) = store();
    let layer = foreign(&store, &tar(&["h stolen Cargo.toml"], dir.path()));
    let error = unpack_one(&store, &layer).unwrap_err();
    assert!(matches!(&error, Error::Layer { source, .. } if matches!(**source, Error::LinkTarget { .. })), "{error:?}");
}

#[test]
fn no_change_of_bytes_makes_it_panic_or_escape() {
    let (dir, store) = store();
    let canary = dir.path().join("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("file"), "safe").unwrap();
    let before = state(&canary);
    let good = tar(&["d a", "f a/b", "s l a", "f l/c", "h a/d a/b", "w a/x", "o o"], &canary);
    for at in (0..good.len() - 1024).step_by(7) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x15;
        let layer = foreign(&store, &bytes);
        unpack_one(&store, &layer).ok();
    }
    assert_eq!(state(&canary), before);
}
