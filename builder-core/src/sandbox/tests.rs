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
        for applet in [
            "sh", "cat", "ls", "id", "sleep", "kill", "ps", "env", "true", "dd", "grep", "head", "seq", "setsid",
            "test",
        ] {
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
            shm_bytes: None,
            limits: Vec::new(),
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
    try_run_with(spec, |_| {})
}

/// Runs what `change` makes of the prepared program.
fn try_run_with(spec: &Spec, change: impl FnOnce(&mut Program)) -> Result<Ran, Error> {
    // A volatile overlay leaves a mark in its workdir that forbids a second mount.
    let Rootfs::Overlay { workdir, .. } = &spec.rootfs;
    std::fs::remove_dir_all(workdir).unwrap();
    std::fs::create_dir(workdir).unwrap();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (pipes, child_pipes) = Pipes::create().unwrap();
    let mut program = prepare::prepare(spec, child_pipes.stdout, child_pipes.stderr)?;
    change(&mut program);
    let ends = (pipes, &child_pipes.report);
    let exit = run_program(spec, &program, ends, &KillSwitch::default(), &mut |stream, bytes| match stream {
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

/// `Name: value` of `/proc/self/status` as the command saw it.
fn status_field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim()
}

#[track_caller]
fn setup_error(spec: &Spec) -> (String, rustix::io::Errno) {
    match try_run(spec) {
        Err(Error::Setup { operation, source, .. }) => (operation, source),
        other => panic!("{other:?}"),
    }
}

in_namespaces! {
    fn pid_1_of_a_step_has_a_name() {
        let image = Image::new();
        // It gets a new one when it executes its last program.
        let script = "until test $(cat /proc/1/comm) = builder-step; do :; done; echo so it is called";
        assert_eq!(stdout_of(&image.sh(script)), "so it is called\n");
    }

    fn pid_1_of_a_step_holds_next_to_nothing() {
        let image = Image::new();
        // Pages of 4 to 64 KiB: the whole address space of the program, its stack among it, not of the build process.
        let script = "for try in $(seq 1000); do read pages rest </proc/1/statm; test $pages -lt 100 && break; done; echo $pages";
        let pages: u64 = stdout_of(&image.sh(script)).trim().parse().unwrap();
        assert!((1..100).contains(&pages), "{pages} pages");
    }

    fn without_its_own_program_pid_1_reaps_as_well() {
        let image = Image::new();
        let ran = try_run_with(&image.sh("setsid sleep 1000 & (exit 7) & exit 5"), |program| program.reaper = None);
        assert_eq!(ran.unwrap().exit, Exit::Code(5));
        let ran = try_run_with(&image.sh("kill -9 -1; kill -TERM $$"), |program| program.reaper = None);
        assert_eq!(ran.unwrap().exit, Exit::Signal(15));
    }

    fn exit_code_and_output() {
        let image = Image::new();
        let ran = ran(&image.sh("echo out; echo err >&2; exit 42"));
        assert_eq!(ran.exit, Exit::Code(42));
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
        assert_eq!(entries(&image.upper("")), Vec::<String>::new(), "a command that changes nothing leaves no change");
    }

    fn death_by_signal() {
        let image = Image::new();
        assert_eq!(ran(&image.sh("kill -SEGV $$")).exit, Exit::Signal(11));
        assert_eq!(ran(&image.sh("kill -KILL $$")).exit, Exit::Signal(9));
    }

    fn fifty_megabytes_on_both_streams() {
        let image = Image::new();
        let script = "dd if=/dev/zero bs=1M count=50 2>/dev/null & dd if=/dev/zero bs=1M count=50 >&2 2>/dev/null; wait";
        let (mut stdout, mut stderr) = (0, 0);
        let exit = run(&image.sh(script), &KillSwitch::default(), &mut |stream, bytes| match stream {
            OutputStream::Stdout => stdout += bytes.len(),
            OutputStream::Stderr => stderr += bytes.len(),
        });
        assert_eq!(exit.unwrap(), Exit::Code(0));
        assert_eq!((stdout, stderr), (50 << 20, 50 << 20));
    }

    fn what_the_command_leaves_running_is_killed() {
        let image = Image::new();
        // The straggler holds the pipes, ignores signals and writes until it is killed.
        let script = "setsid sh -c 'trap \"\" TERM HUP; while :; do echo x >> /tmp/log; done' & sleep 0.1; exit 3";
        assert_eq!(ran(&image.sh(script)).exit, Exit::Code(3));
        let length = std::fs::metadata(image.upper("tmp/log")).unwrap().len();
        assert!(length > 0);
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(std::fs::metadata(image.upper("tmp/log")).unwrap().len(), length, "still written to");
    }

    fn orphans_are_reaped_while_the_command_runs() {
        let image = Image::new();
        // Double fork: the inner shell's parent is gone, pid 1 inherits it.
        let script = "sh -c 'sh -c \"sleep 0.05\" & exit 0'; sleep 0.3; cat /proc/[0-9]*/stat";
        let stat = stdout_of(&image.sh(script));
        assert!(!stat.lines().any(|line| line.contains(") Z ")), "{stat}");
    }

    fn killing_everything_spares_the_build_process() {
        let image = Image::new();
        let ran = ran(&image.sh("kill -9 -1; kill -9 1; echo alive"));
        // busybox's kill spares the shell itself; pid 1 shrugs it off.
        assert_eq!(ran.exit, Exit::Code(0));
        assert_eq!(ran.stdout, "alive\n");
    }

    fn descriptors_are_the_standard_three() {
        use std::os::fd::AsRawFd;
        let image = Image::new();
        // One that the build process leaks on purpose.
        let leak = std::fs::File::open("/").unwrap();
        rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
        assert!(leak.as_raw_fd() > 2);
        let listing = stdout_of(&image.spec(&["ls", "-l", "/proc/self/fd"]));
        let targets: Vec<_> = listing.lines().filter_map(|line| line.split(" -> ").nth(1)).collect();
        assert_eq!(targets.len(), 3, "{listing}");
        assert_eq!(targets[0], "/dev/null", "{listing}");
        assert!(targets[1].starts_with("pipe:") && targets[2].starts_with("pipe:"), "{listing}");
        // The fourth is ls's own handle of the directory, gone when it looks.
        assert_eq!(stdout_of(&image.spec(&["ls", "/proc/self/fd"])), "0\n1\n2\n3\n");
    }

    fn environment_is_exact() {
        let image = Image::new();
        let mut spec = image.spec(&["/bin/env"]);
        spec.env = vec![(b"B".to_vec(), b"2 = two".to_vec()), (b"A".to_vec(), Vec::new())];
        assert_eq!(stdout_of(&spec), "B=2 = two\nA=\n");
        spec.env.clear();
        assert_eq!(stdout_of(&spec), "");
    }

    fn process_attributes() {
        let image = Image::new();
        let status = stdout_of(&image.spec(&["cat", "/proc/self/status"]));
        assert_eq!(status_field(&status, "Umask"), "0022");
        for set in ["SigBlk", "SigIgn", "SigCgt"] {
            assert_eq!(status_field(&status, set), "0000000000000000", "{set}");
        }
        assert_eq!(status_field(&status, "NoNewPrivs"), "0");
        assert_eq!(status_field(&status, "Seccomp"), "2");
        assert_eq!(status_field(&status, "Pid"), "2");
        assert_eq!(status_field(&status, "PPid"), "1");
        assert_eq!(status_field(&status, "NSsid").split_whitespace().last(), Some("2"), "a session of its own");
        let hostname = stdout_of(&image.sh("cat /proc/sys/kernel/hostname; pwd"));
        assert_eq!(hostname, "sandbox\n/\n");
    }

    fn default_capabilities() {
        const DOCKER: &str = "00000000a80425fb";
        const NONE: &str = "0000000000000000";
        let image = Image::new();
        let mut spec = image.spec(&["cat", "/proc/self/status"]);
        let capabilities = |status: &str| {
            ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|name| status_field(status, name).to_owned())
        };
        assert_eq!(capabilities(&stdout_of(&spec)), [NONE, DOCKER, DOCKER, DOCKER, NONE]);
        spec.uid = 1000;
        assert_eq!(capabilities(&stdout_of(&spec)), [NONE, NONE, NONE, DOCKER, NONE], "a user has none");
        spec.security = Security::Insecure;
        spec.uid = 0;
        let [inheritable, permitted, _, bounding, ambient] = capabilities(&stdout_of(&spec));
        assert_eq!((inheritable.as_str(), ambient.as_str()), (NONE, NONE));
        assert_eq!(permitted, bounding);
        let bits = u64::from_str_radix(&permitted, 16).unwrap();
        assert_eq!((bits >> 21 & 1, bits >> 19 & 1), (1, 0), "CAP_SYS_ADMIN, but no CAP_SYS_PTRACE: {permitted}");
    }

    fn user_and_groups_are_exact() {
        let image = Image::new();
        let mut spec = image.spec(&["cat", "/proc/self/status"]);
        spec.uid = 1000;
        spec.gid = 1001;
        spec.groups = vec![7, 42];
        let status = stdout_of(&spec);
        assert_eq!(status_field(&status, "Uid"), "1000\t1000\t1000\t1000");
        assert_eq!(status_field(&status, "Gid"), "1001\t1001\t1001\t1001");
        assert_eq!(status_field(&status, "Groups"), "7 42");
        spec.groups.clear();
        assert_eq!(status_field(&stdout_of(&spec), "Groups"), "");
        let opened = ran(&Spec { argv: image.sh("echo out > /dev/stdout; echo err > /dev/stderr").argv, ..spec });
        assert_eq!((opened.stdout.as_str(), opened.stderr.as_str()), ("out\n", "err\n"), "a user may reopen its output");
    }

    fn setuid_programs_work() {
        let image = Image::new();
        std::fs::set_permissions(image.lower("bin/busybox"), std::fs::Permissions::from_mode(0o4755)).unwrap();
        std::fs::write(image.lower("etc/passwd"), "root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n").unwrap();
        // busybox drops setuid root for all but a few applets, `su` among them.
        symlink("busybox", image.lower("bin/su")).unwrap();
        std::fs::write(image.lower("etc/shadow"), "root::::::::\n").unwrap();
        let mut spec = image.spec(&["su", "root", "-c", "id -u"]);
        spec.uid = 1000;
        assert_eq!(stdout_of(&spec), "0\n");
    }

    fn a_working_directory_is_looked_up_in_the_image() {
        let image = Image::new();
        std::fs::create_dir_all(image.lower("srv/app")).unwrap();
        symlink("/srv/app", image.lower("app")).unwrap();
        std::fs::write(image.lower("srv/file"), "").unwrap();
        let in_dir = |cwd: &[u8]| Spec { cwd: cwd.to_vec(), ..image.sh("pwd -P") };
        assert_eq!(stdout_of(&in_dir(b"srv/app")), "/srv/app\n");
        assert_eq!(stdout_of(&in_dir(b"app")), "/srv/app\n");
        assert_eq!(stdout_of(&in_dir(b"../../srv")), "/srv\n");
        // As runc does with a base whose working directory is not there.
        assert_eq!(stdout_of(&in_dir(b"srv/not/there")), "/srv/not/there\n");
        let errors = [
            (b"srv/file".as_slice(), rustix::io::Errno::NOTDIR),
            (b"proc/self/cwd", rustix::io::Errno::LOOP),
        ];
        for (cwd, expected) in errors {
            let (operation, errno) = setup_error(&in_dir(cwd));
            assert_eq!(errno, expected, "{operation}");
            assert!(operation.contains(&*String::from_utf8_lossy(cwd)), "{operation}");
        }
        for descriptor in 0..30 {
            let (_, errno) = setup_error(&in_dir(format!("proc/self/fd/{descriptor}").as_bytes()));
            assert!(matches!(errno, rustix::io::Errno::LOOP | rustix::io::Errno::NOENT), "{descriptor}: {errno}");
        }
    }

    fn a_directory_of_the_user_only_is_a_working_directory() {
        let image = Image::new();
        std::fs::create_dir(image.lower("private")).unwrap();
        std::fs::set_permissions(image.lower("private"), std::fs::Permissions::from_mode(0o700)).unwrap();
        let spec = Spec { uid: 1000, cwd: b"private".to_vec(), ..image.spec(&["true"]) };
        assert_eq!(ran(&spec).exit, Exit::Code(0), "Docker changes directory as root");
    }
}

mod filesystems;
mod limits;
mod programs;
