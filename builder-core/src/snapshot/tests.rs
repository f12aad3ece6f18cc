use super::*;
use crate::sys::mount::{Overlay, OverlayApi};
use crate::sys::testing::in_namespaces;

fn attributes(mode: u32, uid: u32, mtime_secs: i64) -> Attributes {
    let xattrs = [(b"user.note".to_vec(), b"kept".to_vec())].into();
    Attributes { mode, uid, gid: uid + 1, mtime_secs, mtime_nanos: 123_456_789, xattrs }
}

/// A layer with directories of these attributes.
fn layer(dir: &Path, name: &str, directories: &[(&str, &Attributes)]) -> PathBuf {
    let root = dir.join(name);
    std::fs::create_dir(&root).unwrap();
    for (path, _) in directories {
        std::fs::create_dir_all(root.join(path)).unwrap();
    }
    for (path, attributes) in directories.iter().rev() {
        set_attributes(open_host(&root.join(path)).unwrap().as_fd(), attributes).unwrap();
    }
    root
}

fn mounted(snapshot: &Snapshot) -> OwnedFd {
    let (lowerdirs, upperdir, workdir) = (snapshot.lowerdirs(), snapshot.upperdir(), snapshot.workdir());
    Overlay { lowerdirs, upperdir, workdir }.mount_with(OverlayApi::Configuration).unwrap()
}

fn seen(overlay: &OwnedFd, path: &str) -> Attributes {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(overlay, if path.is_empty() { "." } else { path }, flags, Mode::empty()).unwrap();
    let stat = rustix::fs::fstat(&file).unwrap();
    let mut value = [0_u8; 64];
    let xattrs = match rustix::fs::fgetxattr(&file, "user.note", &mut value) {
        Ok(length) => [(b"user.note".to_vec(), value[..length].to_vec())].into(),
        Err(_) => BTreeMap::new(),
    };
    Attributes {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime_secs: stat.st_mtime,
        mtime_nanos: u32::try_from(stat.st_mtime_nsec).unwrap(),
        xattrs,
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

in_namespaces! {
    fn the_merged_view_shows_the_image_and_the_missing_mount_points() {
        let dir = tempfile::tempdir().unwrap();
        let (root, etc) = (attributes(0o751, 3, -5), attributes(0o2755, 7, 1_000_000_007));
        let lower = layer(dir.path(), "lower", &[("", &root), ("etc", &etc), ("run", &etc)]);
        let stubs = Stubs {
            missing: [
                (b"proc".to_vec(), MountPoint::Directory),
                (b"etc/hosts".to_vec(), MountPoint::File),
                (b"run/secrets/deep/key".to_vec(), MountPoint::File),
            ]
            .into(),
            parents: [(b"etc".to_vec(), etc.clone()), (b"run".to_vec(), etc.clone())].into(),
        };
        let snapshot = Snapshot::create(dir.path(), vec![lower.clone()], &root, &stubs).unwrap();
        assert_eq!(snapshot.lowerdirs(), [dir.path().join("stub"), lower]);
        let overlay = mounted(&snapshot);
        assert_eq!(seen(&overlay, ""), root);
        assert_eq!(seen(&overlay, "etc"), etc);
        assert_eq!(seen(&overlay, "run"), etc);
        assert_eq!(seen(&overlay, "proc"), made(0o755));
        assert_eq!(seen(&overlay, "run/secrets/deep"), made(0o755));
        assert_eq!(seen(&overlay, "etc/hosts"), made(0o644));
        assert!(names(snapshot.upperdir()).is_empty(), "looking changes nothing");
    }

    fn without_missing_mount_points_there_is_no_extra_layer() {
        let dir = tempfile::tempdir().unwrap();
        let root = attributes(0o755, 0, 1);
        let lower = layer(dir.path(), "lower", &[("", &root)]);
        let snapshot = Snapshot::create(dir.path(), vec![lower.clone()], &root, &Stubs::default()).unwrap();
        assert_eq!(snapshot.lowerdirs(), [lower]);
        assert_eq!(seen(&mounted(&snapshot), ""), root);
    }

    fn an_image_without_layers_still_mounts() {
        let dir = tempfile::tempdir().unwrap();
        let root = attributes(0o755, 0, 0);
        let snapshot = Snapshot::create(dir.path(), Vec::new(), &root, &Stubs::default()).unwrap();
        assert_eq!(seen(&mounted(&snapshot), ""), root);
    }

    fn paths_that_lead_out_are_refused() {
        for path in ["../out", "a/../../out", "/out", "a//b", "a/", "."] {
            let dir = tempfile::tempdir().unwrap();
            let stubs = Stubs {
                missing: [(path.as_bytes().to_vec(), MountPoint::File)].into(),
                parents: BTreeMap::new(),
            };
            let root = attributes(0o755, 0, 0);
            let error = Snapshot::create(dir.path(), Vec::new(), &root, &stubs).unwrap_err();
            assert!(matches!(error, Error::Path { .. }), "{path}: {error}");
        }
    }

    fn both_ways_to_mount_give_the_same_overlay() {
        // As the build process is; it must reach its own /proc/self/fd all the same.
        crate::sys::clone::hide_memory().unwrap();
        for api in [OverlayApi::Configuration, OverlayApi::Classic] {
            let dir = tempfile::tempdir().unwrap();
            let root = attributes(0o755, 0, 9);
            let lower = layer(dir.path(), "lo:wer,\\with signs", &[("", &root), ("etc", &root)]);
            let snapshot = Snapshot::create(dir.path(), vec![lower], &root, &Stubs::default()).unwrap();
            let (lowerdirs, upperdir, workdir) = (snapshot.lowerdirs(), snapshot.upperdir(), snapshot.workdir());
            let overlay = Overlay { lowerdirs, upperdir, workdir }.mount_with(api).unwrap();
            assert_eq!(seen(&overlay, "etc"), root, "{api:?}");
            rustix::fs::mkdirat(&overlay, "new", Mode::RWXU).unwrap();
            assert_eq!(names(upperdir), ["new"], "{api:?}");
            assert_eq!(names(workdir), ["work"], "{api:?} leaves nothing on the workdir");
        }
    }

    fn a_lowerdir_that_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let lower = vec![dir.path().join("absent")];
        let snapshot = Snapshot::create(dir.path(), lower, &attributes(0o755, 0, 0), &Stubs::default()).unwrap();
        let (lowerdirs, upperdir, workdir) = (snapshot.lowerdirs(), snapshot.upperdir(), snapshot.workdir());
        let error = Overlay { lowerdirs, upperdir, workdir }.mount().unwrap_err();
        assert!(error.to_string().contains("absent"), "{error}");
        assert_eq!(error.source, Errno::NOENT);
    }
}
