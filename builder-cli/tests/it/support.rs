//! A state directory, a context and the command, for one test; gone with it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::image::Image;

/// A workplace of its own.
pub(crate) struct Env {
    pub(crate) dir: TempDir,
}

/// What a run of the command gave.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Asserts success and returns standard output without its last line feed.
    #[track_caller]
    pub(crate) fn ok(&self) -> String {
        assert_eq!(self.code, 0, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self.stdout.trim_end().to_owned()
    }

    /// Asserts failure with `code` and returns standard error.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32) -> &str {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        &self.stderr
    }

    /// What became of each step, in the order of the events: `CACHED name` or `RAN name`; contexts and images left out.
    pub(crate) fn steps(&self) -> Vec<String> {
        let events: Vec<Value> = self.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let name = |step: &Value| {
            let steps = events.iter().filter(|e| e["event"] == "plan").flat_map(|e| e["steps"].as_array().unwrap());
            steps
                .into_iter()
                .find(|s| s["step"] == *step)
                .map_or("?".into(), |s| s["name"].as_str().unwrap().to_owned())
        };
        let mut out: Vec<(u64, String)> = events
            .iter()
            .filter_map(|event| {
                let word = match event["event"].as_str() {
                    Some("step_cached") => "CACHED",
                    Some("step_finished") => "RAN",
                    _ => return None,
                };
                Some((event["step"].as_u64().unwrap(), format!("{word} {}", name(&event["step"]))))
            })
            .filter(|(_, text)| !text.contains("[internal]") && !text.contains("] FROM "))
            .collect();
        out.sort();
        out.into_iter().map(|(_, text)| text).collect()
    }
}

/// The program under test.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("BUILDER_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_builder")), PathBuf::from)
}

/// Whether tests run as root.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Says that a test cannot run here, and why; the test script counts it.
pub(crate) fn skip(name: &str, reason: &str) {
    eprintln!("SKIP {name}: {reason}");
}

/// Whether a program is there; says so if not.
pub(crate) fn have(test: &str, programs: &[&str]) -> bool {
    let there = |p: &&&str| !["/usr/bin", "/bin", "/usr/sbin", "/sbin"].iter().any(|d| Path::new(d).join(p).exists());
    match programs.iter().find(there) {
        Some(missing) => {
            skip(test, &format!("{missing} is not installed"));
            false
        }
        None => true,
    }
}

/// Parent and start time of each live process; zombies are not.
pub(crate) fn processes() -> BTreeMap<u32, (u32, String)> {
    let process = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name before the parenthesis may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let alive = fields.first().is_some_and(|state| *state != "Z" && *state != "X");
        alive.then(|| Some((number, (fields.get(1)?.parse().ok()?, (*fields.get(19)?).to_owned()))))?
    };
    fs::read_dir("/proc").unwrap().flatten().filter_map(process).collect()
}

/// A process and all below it, with their start times, which tell them from later ones of the same number.
pub(crate) fn process_tree(root: u32) -> BTreeMap<u32, String> {
    let processes = processes();
    let mut found = BTreeMap::new();
    let mut todo = vec![root];
    while let Some(process) = todo.pop() {
        let Some((_, started)) = processes.get(&process) else { continue };
        if found.insert(process, started.clone()).is_none() {
            todo.extend(processes.iter().filter(|(_, (parent, _))| *parent == process).map(|(child, _)| *child));
        }
    }
    found
}

impl Env {
    /// An empty workplace. It lies in /var/tmp: /tmp may be memory, and nothing may write there by itself.
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("builder-it.").tempdir_in("/var/tmp").unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Writes a file of the context, its directories made.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path("context").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path("context").join(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The command with this workplace's state directory and a bare environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_of(&program(), args)
    }

    /// The same for a copy of the program, which makes its processes known by their executable.
    pub(crate) fn command_of(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", self.dir.path()).env("BUILDER_STATE_DIR", self.state());
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Run {
        Run::of(&self.command(args).output().unwrap())
    }

    /// Builds the context with JSON events; the image is in the layout `out` as well.
    pub(crate) fn build(&self, dockerfile: &str, options: &[&str]) -> Run {
        self.file("Dockerfile", dockerfile);
        let dest = format!("type=oci,tar=false,dest={}", self.path("out").display());
        let context = self.path("context").display().to_string();
        let mut args = vec!["build", "--progress", "json", "--output", &dest];
        args.extend(options);
        args.push(&context);
        if self.path("out").exists() {
            fs::remove_dir_all(self.path("out")).unwrap();
        }
        self.run(&args)
    }

    /// Builds, and reads the image.
    #[track_caller]
    pub(crate) fn image(&self, dockerfile: &str, options: &[&str]) -> Image {
        self.build(dockerfile, options).ok();
        Image::open(&self.path("out"), None)
    }

    /// Puts a root filesystem of a static busybox into the store as `busybox`.
    pub(crate) fn import_busybox(&self) {
        self.import(&busybox_rootfs(), "busybox");
    }

    /// Puts a root filesystem into the store.
    pub(crate) fn import(&self, rootfs: &[u8], name: &str) {
        let mut child = self.command(&["import", "-", name]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let child = child.as_mut().unwrap();
        child.stdin.take().unwrap().write_all(rootfs).unwrap();
        assert!(child.wait().unwrap().success(), "builder import failed");
    }

    /// Asserts that `builder du` says what `du` says, but for a block a file: the command's own session is counted.
    #[track_caller]
    pub(crate) fn assert_du(&self) {
        let usage: Value = serde_json::from_str(&self.run(&["du", "--json"]).ok()).unwrap();
        let total = usage["total_bytes"].as_u64().unwrap();
        let tool =
            |program: &str, args: &[&str]| Run::of(&self.as_image_root(program).args(args).output().unwrap()).ok();
        let files = tool("find", &["state", "-printf", "x"]).len() as u64;
        let du: u64 = tool("du", &["-s", "-B1", "state"]).split_whitespace().next().unwrap().parse().unwrap();
        assert!(total.abs_diff(du) <= 4096 * files, "builder du {total}, du {du}, {files} files");
    }

    /// A program as the root whose files a build makes: root itself, or root of the subordinate ids.
    pub(crate) fn as_image_root(&self, program: &str) -> Command {
        let mut command = Command::new(if is_root() { program } else { "unshare" });
        if !is_root() {
            command.args(["--user", "--map-root-user", "--map-auto", "--", program]);
        }
        command.current_dir(self.dir.path()).env("HOME", self.dir.path()).env_remove("XDG_RUNTIME_DIR");
        command.stdin(Stdio::null());
        command
    }
}

impl Drop for Env {
    fn drop(&mut self) {
        // Unpacked layers belong to subordinate ids, and exported directories have the modes of the image: only its root may
        // remove them.
        if !is_root() && self.state().exists() {
            let done = self.as_image_root("find").arg(self.path("")).args(["-mindepth", "1", "-delete"]).status();
            assert!(std::thread::panicking() || done.unwrap().success(), "the test leaves something behind");
        }
    }
}

/// SplitMix64: small, and the same everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// A small root filesystem as a tar, always the same bytes.
pub(crate) fn busybox_rootfs() -> Vec<u8> {
    busybox_rootfs_with(|_| {})
}

/// The same with more in it.
pub(crate) fn busybox_rootfs_with(more: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let busybox =
        fs::read("/bin/busybox").or_else(|_| fs::read("/usr/bin/busybox")).expect("busybox-static is installed");
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, data: &[u8], link: &str| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_600_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(data.len() as u64);
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        header.set_cksum();
        tar.append_data(&mut header, path, data).unwrap();
    };
    use tar::EntryType::{Directory, Regular, Symlink};
    for dir in ["bin", "dev", "etc", "proc", "root", "sys", "usr", "usr/bin", "var"] {
        add(dir, Directory, 0o755, &[], "");
    }
    add("tmp", Directory, 0o1777, &[], "");
    add("bin/busybox", Regular, 0o755, &busybox, "");
    for applet in BUSYBOX_APPLETS {
        add(&format!("bin/{applet}"), Symlink, 0o777, &[], "busybox");
    }
    let passwd = b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\napp:x:1000:1000::/home/app:/bin/sh\n";
    add("etc/passwd", Regular, 0o644, passwd, "");
    add("etc/group", Regular, 0o644, b"root:x:0:\ndaemon:x:1:\naudio:x:29:app\napp:x:1000:\n", "");
    more(&mut tar);
    tar.into_inner().unwrap()
}

const BUSYBOX_APPLETS: [&str; 56] = [
    "sh",
    "ash",
    "cat",
    "chmod",
    "chown",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "grep",
    "head",
    "hostname",
    "id",
    "kill",
    "ln",
    "ls",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mknod",
    "mount",
    "mv",
    "ps",
    "pwd",
    "readlink",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "sync",
    "tail",
    "tar",
    "tee",
    "test",
    "touch",
    "tr",
    "true",
    "truncate",
    "uname",
    "unshare",
    "wc",
    "which",
    "whoami",
    "xargs",
    "yes",
    "umount",
];
