use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::sys::testing::in_namespaces;

/// An image with busybox and the standard mount points, in a directory of its own.
struct Image {
    dir: tempfile::TempDir,
    lowerdirs: Vec<std::path::PathBuf>,
}

impl Image {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let root = dir.path().join("lower");
        for path in ["bin", "dev", "proc", "sys", "etc", "tmp", "upper", "work"] {
            std::fs::create_dir_all(root.join(path)).unwrap();
        }
        for path in ["upper", "work"] {
            std::fs::remove_dir(root.join(path)).unwrap();
            std::fs::create_dir(dir.path().join(path)).unwrap();
        }
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in ["sh", "cat", "ls", "id", "sleep", "kill", "ps", "env", "true", "dd", "grep", "head", "setsid"] {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        for path in ["etc/hosts", "etc/resolv.conf"] {
            std::fs::write(root.join(path), "image's own\n").unwrap();
        }
        std::fs::set_permissions(root.join("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
        Self { lowerdirs: vec![root], dir }
    }

    fn lower(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join("lower").join(path)
    }

    fn upper(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join("upper").join(path)
    }

    fn spec(&self, argv: &[&str]) -> Spec {
        Spec {
            rootfs: Rootfs::Overlay {
                lowerdirs: self.lowerdirs.clone(),
                upperdir: self.dir.path().join("upper"),
                workdir: self.dir.path().join("work"),
            },
            mounts: Vec::new(),
            argv: argv.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
            env: vec![(b"PATH".to_vec(), b"/bin".to_vec())],
            cwd: Vec::new(),
            uid: 0,
            gid: 0,
            groups: Vec::new(),
            hostname: "sandbox".into(),
            network: Network::Host,
            security: Security::Sandbox,
            resolv_conf: b"nameserver 192.0.2.1\n".to_vec(),
            hosts: b"127.0.0.1 localhost\n".to_vec(),
        }
    }

    fn sh(&self, script: &str) -> Spec {
        self.spec(&["/bin/sh", "-c", script])
    }
}

/// What a run gave.
#[derive(Debug)]
struct Ran {
    exit: Exit,
    stdout: String,
    stderr: String,
}

fn try_run(spec: &Spec) -> Result<Ran, Error> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let exit = run(spec, &KillSwitch::default(), &mut |stream, bytes| match stream {
        OutputStream::Stdout => stdout.extend_from_slice(bytes),
        OutputStream::Stderr => stderr.extend_from_slice(bytes),
    })?;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ok(Ran { exit, stdout: text(stdout), stderr: text(stderr) })
}

#[track_caller]
fn ran(spec: &Spec) -> Ran {
    match try_run(spec) {
        Ok(ran) => ran,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            panic!("{error}: {cause:?} ({:?})", error.hint())
        }
    }
}

#[track_caller]
fn stdout_of(spec: &Spec) -> String {
    let ran = ran(spec);
    assert_eq!(ran.exit, Exit::Code(0), "stdout: {}\nstderr: {}", ran.stdout, ran.stderr);
    ran.stdout
}

fn entries(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

in_namespaces! {
    fn exit_code_and_output() {
        let image = Image::new();
        let ran = ran(&image.sh("echo out; echo err >&2; exit 42"));
        assert_eq!(ran.exit, Exit::Code(42));
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
        assert_eq!(entries(&image.upper("")), Vec::<String>::new(), "a command that changes nothing leaves no change");
    }
}
