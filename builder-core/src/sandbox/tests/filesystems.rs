//! What the command finds in `/proc`, `/sys`, `/dev` and `/etc`, and what it cannot reach.

use super::*;
use crate::sys::mount::Attributes;

fn tmpfs(target: &str, size: Option<u64>, mode: u32) -> Mount {
    Mount::Tmpfs { target: target.into(), size, mode, read_only: false }
}

fn bind(source: &Path, target: &str, read_only: bool) -> Mount {
    let handle = rustix::fs::open(source, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    let attributes = if read_only { Attributes::MOUNT_ATTR_RDONLY } else { Attributes::empty() };
    Mount::Bind { source: Arc::new(handle), target: target.into(), attributes }
}

in_namespaces! {
    fn proc_is_fresh_masked_and_read_only_in_part() {
        let image = Image::new();
        let script = "set -e; cd /proc; echo pids: [0-9]*; \
            for file in kcore keys timer_list interrupts; do if test -e $file; then head -c1 $file; fi; done; \
            for dir in scsi acpi; do if test -e $dir; then ls -A $dir; fi; done; \
            for file in sys/kernel/hostname sysrq-trigger; do if echo x 2>/dev/null > $file; then exit 9; fi; done";
        assert_eq!(stdout_of(&image.sh(script)), "pids: 1 2\n");
        let mounts = stdout_of(&image.spec(&["cat", "/proc/mounts"]));
        for path in ["bus", "fs", "irq", "sys"] {
            assert!(mounts.contains(&format!("proc /proc/{path} proc ro,")), "{path} in\n{mounts}");
        }
    }

    fn the_first_process_gives_nothing_away() {
        let image = Image::new();
        // The kernel lets root list the numbers of descriptors, not what they are.
        let script = "cd /proc/1; for name in environ mem maps auxv exe fd/*; do \
            if cat $name >/dev/null 2>&1; then echo $name; fi; done; ls cwd/ root/ 2>/dev/null";
        for security in [Security::Sandbox, Security::Insecure] {
            let ran = ran(&Spec { security, ..image.sh(script) });
            assert_eq!((ran.stdout.as_str(), ran.exit), ("", Exit::Code(1)), "{security:?}");
        }
    }

    fn sys_is_read_only() {
        let image = Image::new();
        for network in [Network::Host, Network::None] {
            let script = "ls /sys/class/net; grep -c ' /sys sysfs ro,' /proc/mounts; ls -A /sys/firmware; \
                ! mkdir /sys/fs/cgroup/x 2>/dev/null";
            let listing = stdout_of(&Spec { network, ..image.sh(script) });
            let mut lines: Vec<_> = listing.lines().collect();
            assert_eq!(lines.pop(), Some("1"), "{listing}");
            assert!(lines.contains(&"lo"), "{listing}");
            assert!(network == Network::Host || lines == ["lo"], "{listing}");
        }
    }

    fn dev_has_the_usual_nodes() {
        let image = Image::new();
        let listing = stdout_of(&image.sh("ls -1 /dev; echo --; ls -ld /dev /dev/shm /dev/pts/ptmx /dev/null"));
        let (names, long) = listing.split_once("--\n").unwrap();
        let mut names: Vec<_> = names.lines().collect();
        names.retain(|name| *name != "tty");
        let expected = [
            "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout",
            "urandom", "zero",
        ];
        assert_eq!(names, expected, "{listing}");
        assert!(long.contains("drwxr-xr-x"), "{long}");
        assert!(long.contains("drwxrwxrwt"), "{long}");
        assert_eq!(long.matches("crw-rw-rw-").count(), 2, "{long}");
        let script = "echo x > /dev/null; head -c2 /dev/zero > /dev/shm/z; head -c1 /dev/urandom > /dev/null; \
            if echo x 2>/dev/null > /dev/full; then exit 1; fi; \
            test -c /dev/ptmx && echo fine > /dev/stdout";
        assert!(stdout_of(&image.sh(script)).ends_with("fine\n"));
        let mounts = stdout_of(&image.spec(&["cat", "/proc/mounts"]));
        for mount in ["devpts /dev/pts devpts", "mqueue /dev/mqueue mqueue", "proc /proc proc rw,nosuid,nodev,noexec"] {
            assert!(mounts.contains(mount), "no {mount} in\n{mounts}");
        }
        assert_eq!(mounts.lines().next().map(|line| line.starts_with("overlay / overlay")), Some(true), "{mounts}");
    }

    fn nothing_of_the_host_is_mounted() {
        let image = Image::new();
        let mounts = stdout_of(&image.spec(&["cat", "/proc/self/mountinfo"]));
        let outside = mounts.lines().filter(|line| {
            let target = line.split(' ').nth(4).unwrap();
            !(target == "/" || ["/proc", "/sys", "/dev", "/etc/"].iter().any(|dir| target.starts_with(dir)))
        });
        assert_eq!(outside.collect::<Vec<_>>(), Vec::<&str>::new());
    }

    fn symlinks_in_place_of_kernel_filesystems_are_refused() {
        for name in ["proc", "sys", "dev"] {
            let image = Image::new();
            let canary = tempfile::tempdir().unwrap();
            std::fs::write(canary.path().join("canary"), "alive").unwrap();
            std::fs::remove_dir(image.lower(name)).unwrap();
            symlink(canary.path(), image.lower(name)).unwrap();
            let (operation, errno) = setup_error(&image.spec(&["true"]));
            assert_eq!((operation.as_str(), errno), (format!("mount at \"/{name}\"").as_str(), rustix::io::Errno::LOOP));
            assert_eq!(entries(canary.path()), ["canary"]);
        }
    }

    fn missing_mount_points_are_named() {
        let image = Image::new();
        std::fs::remove_dir(image.lower("sys")).unwrap();
        let error = try_run(&image.spec(&["true"])).unwrap_err();
        assert_eq!(error.to_string(), "set up the sandbox: mount at \"/sys\"");
        assert_eq!(error.hint().as_deref(), Some("the mount point does not exist in the image"));
    }

    fn resolv_conf_and_hosts_are_the_steps_own() {
        let image = Image::new();
        let script = "cat /etc/resolv.conf /etc/hosts; echo more >> /etc/hosts; cat /etc/hosts; ls -l /etc/hosts";
        let output = stdout_of(&image.sh(script));
        let (texts, listing) = output.split_at(output.find("-rw").unwrap());
        assert_eq!(texts, "nameserver 192.0.2.1\n127.0.0.1 localhost\n127.0.0.1 localhost\nmore\n");
        assert!(listing.starts_with("-rw-r--r--") && listing.contains("root") || listing.contains(" 0 "), "{listing}");
        assert_eq!(entries(&image.upper("")), Vec::<String>::new());
        assert_eq!(std::fs::read_to_string(image.lower("etc/hosts")).unwrap(), "image's own\n");
    }

    fn resolv_conf_behind_a_symlink_stays_in_the_image() {
        let image = Image::new();
        let host = tempfile::tempdir().unwrap();
        std::fs::write(host.path().join("resolv.conf"), "the host's").unwrap();
        // Absolute, and with enough dots to leave any directory.
        for target in [host.path().join("resolv.conf"), Path::new("../../../../../..").join("run/resolv.conf")] {
            std::fs::remove_file(image.lower("etc/resolv.conf")).unwrap();
            symlink(&target, image.lower("etc/resolv.conf")).unwrap();
            let (operation, errno) = setup_error(&image.spec(&["true"]));
            assert_eq!((operation.as_str(), errno), ("mount at \"/etc/resolv.conf\"", rustix::io::Errno::NOENT));
        }
        std::fs::create_dir(image.lower("run")).unwrap();
        std::fs::write(image.lower("run/resolv.conf"), "").unwrap();
        let output = stdout_of(&image.spec(&["cat", "/etc/resolv.conf", "/run/resolv.conf"]));
        assert_eq!(output, "nameserver 192.0.2.1\n".repeat(2));
        assert_eq!(std::fs::read_to_string(host.path().join("resolv.conf")).unwrap(), "the host's");
    }

    fn two_hundred_layers() {
        let mut image = Image::new();
        for number in 0..200 {
            let layer = image.dir.path().join(format!("layer-{number}"));
            std::fs::create_dir_all(layer.join("srv")).unwrap();
            std::fs::write(layer.join(format!("srv/{number}")), "").unwrap();
            std::fs::write(layer.join("srv/top"), number.to_string()).unwrap();
            image.lowerdirs.insert(0, layer);
        }
        assert_eq!(stdout_of(&image.sh("cat /srv/top; ls /srv | grep -c .")), "199201\n");
    }

    fn changes_land_in_the_upperdir_alone() {
        let image = Image::new();
        let before = std::fs::metadata(image.lower("tmp")).unwrap();
        stdout_of(&image.sh("echo new > /tmp/new; echo x > /dev/shm/gone; rm /bin/true"));
        assert_eq!(entries(&image.upper("")), ["bin", "tmp"]);
        assert_eq!(std::fs::read_to_string(image.upper("tmp/new")).unwrap(), "new\n");
        assert_eq!(std::fs::metadata(image.upper("bin/true")).unwrap().rdev(), 0, "a whiteout");
        let after = std::fs::metadata(image.lower("tmp")).unwrap();
        assert_eq!((before.mtime(), before.mtime_nsec()), (after.mtime(), after.mtime_nsec()));
    }

    fn mounts_of_every_kind() {
        let image = Image::new();
        for path in ["cache", "scratch", "src"] {
            std::fs::create_dir(image.lower(path)).unwrap();
        }
        std::fs::write(image.lower("secret"), "").unwrap();
        let host = tempfile::tempdir().unwrap();
        std::fs::set_permissions(host.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::write(host.path().join("file"), "from outside").unwrap();
        let content = Content(b"s3cret".to_vec());
        assert!(!format!("{content:?}").contains("s3cret"), "secrets are never shown");
        let mut spec = image.sh(
            "echo cached > /cache/made; cat /src/file /secret; ls -ln /secret; ! touch /src/x 2>/dev/null; \
             grep -c 'scratch tmpfs rw,nosuid,.*size=1024k,mode=711' /proc/mounts",
        );
        spec.mounts = vec![
            bind(host.path(), "cache", false),
            bind(host.path(), "src", true),
            tmpfs("scratch", Some(1 << 20), 0o711),
            Mount::File { target: b"secret".to_vec(), content, mode: 0o400, uid: 7, gid: 8 },
        ];
        let output = stdout_of(&spec);
        assert!(output.starts_with("from outsides3cret-r--------    1 7        8"), "{output}");
        assert!(output.ends_with("\n1\n"), "{output}");
        assert_eq!(std::fs::read_to_string(host.path().join("made")).unwrap(), "cached\n");
        assert_eq!(entries(&image.upper("")), Vec::<String>::new());
    }

    fn mount_points_below_an_earlier_mount_are_made() {
        let image = Image::new();
        let cache = tempfile::tempdir().unwrap();
        let file = cache.path().join("file");
        std::fs::write(&file, "a file").unwrap();
        let mut spec = image.sh("cat /tmp/deep/er/file; ls -d /tmp/deep/dir");
        spec.mounts =
            vec![tmpfs("tmp", None, 0o1777), bind(&file, "tmp/deep/er/file", true), tmpfs("tmp/deep/dir", None, 0o755)];
        assert_eq!(stdout_of(&spec), "a file/tmp/deep/dir\n");
        assert_eq!(entries(&image.upper("")), Vec::<String>::new());
        // Such a path may not run through a link that someone put into the mount.
        symlink("/etc", cache.path().join("link")).unwrap();
        spec.mounts = vec![bind(cache.path(), "tmp", false), tmpfs("tmp/link/new", None, 0o755)];
        assert_eq!(setup_error(&spec).1, rustix::io::Errno::LOOP);
        assert_eq!(entries(&image.upper("")), Vec::<String>::new());
    }

    fn mounts_onto_kernel_files_are_refused() {
        let image = Image::new();
        symlink("/proc/self/attr", image.lower("innocent")).unwrap();
        for target in ["innocent", "proc/sys", "sys/kernel"] {
            let mut spec = image.spec(&["true"]);
            spec.mounts = vec![tmpfs(target, None, 0o755)];
            let (operation, errno) = setup_error(&spec);
            assert_eq!(errno, rustix::io::Errno::XDEV, "{operation}");
        }
    }

    fn a_target_swapped_for_a_symlink_leads_nowhere() {
        let image = Image::new();
        let canary = tempfile::tempdir().unwrap();
        std::fs::set_permissions(canary.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        symlink(canary.path(), image.lower("out")).unwrap();
        symlink("../../../../../../../../", image.lower("up")).unwrap();
        let mut spec = image.sh("echo hello > /up/tmp/x && cat /tmp/x");
        spec.mounts = vec![tmpfs("up/tmp", None, 0o1777)];
        assert_eq!(stdout_of(&spec), "hello\n", "dots end at the image's root");
        spec.mounts = vec![tmpfs("out", None, 0o1777)];
        assert_eq!(setup_error(&spec).1, rustix::io::Errno::NOENT);
        assert_eq!(entries(canary.path()), Vec::<String>::new());
    }

    fn a_target_swapped_while_it_is_mounted_leads_nowhere() {
        let image = Image::new();
        let (cache, canary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(cache.path().join("dir")).unwrap();
        symlink(canary.path(), cache.path().join("link")).unwrap();
        std::fs::create_dir(cache.path().join("target")).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    for other in ["link", "dir"] {
                        let (other, target) = (cache.path().join(other), cache.path().join("target"));
                        let flags = rustix::fs::RenameFlags::EXCHANGE;
                        rustix::fs::renameat_with(rustix::fs::CWD, &other, rustix::fs::CWD, &target, flags).unwrap();
                    }
                }
            });
            let mut spec = image.sh("echo x > /tmp/target/x; ls /tmp/target/");
            spec.mounts = vec![bind(cache.path(), "tmp", false), tmpfs("tmp/target", None, 0o777)];
            for _ in 0..40 {
                match try_run(&spec) {
                    Ok(_) | Err(Error::Setup { source: rustix::io::Errno::LOOP | rustix::io::Errno::NOENT, .. }) => {}
                    Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
                }
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(entries(canary.path()), Vec::<String>::new());
    }

    fn nothing_is_mounted_over_the_root() {
        let image = Image::new();
        for target in ["", "/", "."] {
            let spec = Spec { mounts: vec![tmpfs(target, None, 0o755)], ..image.spec(&["true"]) };
            assert!(matches!(try_run(&spec), Err(Error::Prepare { .. })), "{target:?}");
        }
    }

    fn a_stub_layer_keeps_mount_points_out_of_the_changes() {
        use crate::snapshot::{Attributes, MountPoint, Snapshot, Stubs};
        let image = Image::new();
        for name in ["dev", "proc", "sys"] {
            std::fs::remove_dir(image.lower(name)).unwrap();
        }
        std::fs::remove_file(image.lower("etc/hosts")).unwrap();
        let root = Attributes {
            mode: 0o750,
            uid: 0,
            gid: 0,
            mtime_secs: 1_000,
            mtime_nanos: 5,
            xattrs: std::collections::BTreeMap::new(),
        };
        let etc = Attributes { mtime_secs: 2_000, ..root.clone() };
        let directory = |name: &str| (name.as_bytes().to_vec(), MountPoint::Directory);
        let stubs = Stubs {
            missing: [directory("dev"), directory("proc"), directory("sys"), (b"etc/hosts".to_vec(), MountPoint::File)]
                .into(),
            parents: [(b"etc".to_vec(), etc)].into(),
        };
        let work = tempfile::tempdir().unwrap();
        let snapshot = Snapshot::create(work.path(), image.lowerdirs.clone(), &root, &stubs).unwrap();
        let mut spec = image.sh("stat -c '%n %a %Y' / /etc; cat /etc/hosts");
        symlink("busybox", image.lower("bin/stat")).unwrap();
        spec.rootfs = Rootfs::Overlay {
            lowerdirs: snapshot.lowerdirs().to_vec(),
            upperdir: snapshot.upperdir().to_owned(),
            workdir: snapshot.workdir().to_owned(),
        };
        assert_eq!(stdout_of(&spec), "/ 750 1000\n/etc 750 2000\n127.0.0.1 localhost\n");
        assert_eq!(entries(snapshot.upperdir()), Vec::<String>::new());
    }
}
