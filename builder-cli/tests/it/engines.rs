//! Engines of others run what is written here: Docker, containerd, podman and buildah; and what they push is a base.
//!
//! Every daemon runs below a folder of its test, in mount and process namespaces of its own: whatever it starts or
//! mounts ends with it. It makes no network and no rules.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::registry::Distribution;
use crate::support::{Env, Run, have, is_root, processes, skip};

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// A file of a command, one with an owner, a user and an entrypoint.
const DOCKERFILE: &str = "FROM busybox\n\
    RUN echo made > /made && ln -s made /link && rm /bin/yes\n\
    COPY --chown=1000:1000 --chmod=400 own /own\n\
    ENV WHO=me\n\
    USER 1000:1000\n\
    ENTRYPOINT [\"/bin/sh\", \"-c\"]\n\
    CMD [\"cat /link /own; echo $WHO $(id -u) $(stat -c %U:%g /own) $(ls /bin/yes 2>/dev/null)\"]\n";
const SAID: &str = "made\nown\nme 1000 app:1000";

/// A command with nothing of the caller's environment; credentials are those that the test stored.
fn command(env: &Env, program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", PATH).env("HOME", env.dir.path()).env("TMPDIR", env.dir.path());
    command.current_dir(env.dir.path()).stdin(Stdio::null());
    command
}

/// Where programs leave things whatever their options say.
const COVERED: &str =
    "for dir in /run /opt /etc/docker; do [ ! -d $dir ] || mount -t tmpfs tmpfs $dir; done; exec \"$@\"";

/// A command that takes with it whatever it started, mounted and wrote down, and ends with the thread that started it.
fn isolated(env: &Env, program: &str) -> Command {
    let mut command = command(env, "setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child=KILL"]);
    command.args(["sh", "-c", COVERED, "sh", program]);
    command
}

/// Whether the test can be done: as root, with these programs.
fn possible(test: &str, programs: &[&str]) -> bool {
    if !is_root() {
        skip(test, "needs root");
        return false;
    }
    have(test, programs)
}

/// An engine: a daemon with its client.
struct Engine<'a> {
    env: &'a Env,
    child: Child,
    client: Vec<String>,
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        // The daemon is the first process of its namespace: the others end with it, and `unshare` with all of them.
        let below = processes().into_iter().filter(|(_, (parent, _))| *parent == self.child.id());
        let daemons: Vec<u32> = below.map(|(process, _)| process).collect();
        for daemon in &daemons {
            kill(Pid::from_raw(i32::try_from(*daemon).unwrap()), Signal::SIGKILL).ok();
        }
        if daemons.is_empty() {
            drop(self.child.kill());
        }
        drop(self.child.wait());
        remove_cgroups(&group(self.env), Path::new("/sys/fs/cgroup"));
    }
}

/// Name of the control group that the containers of a test are in.
fn group(env: &Env) -> String {
    env.dir.path().file_name().unwrap().to_string_lossy().replace('.', "-")
}

/// Removes the control groups of this name, of all controllers: an engine leaves the one above its containers.
fn remove_cgroups(name: &str, root: &Path) {
    let folders = |dir: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
    };
    for dir in folders(root).into_iter().map(|dir| dir.join(name)).chain([root.join(name)]) {
        for inner in folders(&dir).into_iter().chain([dir]) {
            // It is empty once the kernel has taken away who was killed in it.
            let patience = Instant::now() + Duration::from_secs(10);
            while fs::remove_dir(&inner).is_err() && inner.exists() && Instant::now() < patience {
                sleep(Duration::from_millis(10));
            }
        }
    }
}

impl<'a> Engine<'a> {
    /// Docker's engine.
    fn docker(env: &'a Env, test: &str) -> Option<Self> {
        let path = |name: &str| env.path(name).display().to_string();
        let socket = format!("unix://{}", path("docker.sock"));
        let mut daemon = isolated(env, "dockerd");
        daemon.args(["--data-root", &path("docker"), "--exec-root", &path("docker-run"), "--host", &socket]);
        daemon.args(["--pidfile", &path("docker.pid"), "--storage-driver", "vfs", "--bridge", "none"]);
        daemon.args(["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]);
        daemon.args(["--cgroup-parent", &format!("/{}", group(env))]);
        Self::start(env, test, daemon, &["docker", "--host", &socket])
    }

    fn containerd(env: &'a Env, test: &str) -> Option<Self> {
        let path = |name: &str| env.path(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            path("containerd"),
            path("containerd-run"),
            path("containerd.sock"),
            path("containerd.ttrpc"),
        );
        fs::write(env.path("containerd.toml"), config).unwrap();
        let mut daemon = isolated(env, "containerd");
        daemon.args(["--config", "containerd.toml"]);
        // The name space is the name of the control group, too.
        Self::start(env, test, daemon, &["ctr", "--address", &path("containerd.sock"), "--namespace", &group(env)])
    }

    /// Starts a daemon and waits until its client gets an answer; says so where there is none.
    fn start(env: &'a Env, test: &str, mut daemon: Command, client: &[&str]) -> Option<Self> {
        let log = fs::File::create(env.path("daemon.log")).unwrap();
        let child = daemon.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let client = client.iter().map(|word| (*word).to_owned()).collect();
        let mut engine = Self { env, child, client };
        let patience = Instant::now() + Duration::from_secs(60);
        while engine.run(&["version"]).code != 0 {
            if engine.child.try_wait().unwrap().is_some() || Instant::now() > patience {
                let log = fs::read_to_string(env.path("daemon.log")).unwrap();
                skip(test, &format!("the engine does not start: {}", log.lines().last().unwrap_or_default()));
                return None;
            }
            sleep(Duration::from_millis(50));
        }
        Some(engine)
    }

    fn run(&self, args: &[&str]) -> Run {
        Run::of(&command(self.env, &self.client[0]).args(&self.client[1..]).args(args).output().unwrap())
    }

    /// Runs the image once, with what its config says.
    fn said(&self, image: &str) -> String {
        match self.client[0].as_str() {
            "docker" => self.run(&["run", "--rm", "--network", "none", "--ulimit", "nofile=1024", image]).ok(),
            _ => {
                let pipes = self.env.path("pipes").display().to_string();
                self.run(&["run", "--rm", "--fifo-dir", &pipes, image, "container"]).ok()
            }
        }
    }
}

/// Builds the image that the engines run.
fn build(env: &Env, options: &[&str]) {
    env.import_busybox();
    env.file("own", "own\n");
    env.file("Dockerfile", DOCKERFILE);
    env.run(&[&["build", "-q"], options, &["context"]].concat()).ok();
}

#[test]
fn docker_loads_and_runs_an_archive() {
    const TEST: &str = "docker_loads_and_runs_an_archive";
    if !possible(TEST, &["dockerd", "docker", "runc", "unshare"]) {
        return;
    }
    let env = Env::new();
    build(&env, &["-t", "app:1", "-t", "h.example/app:2", "--iidfile", "id", "--output", "type=docker,dest=app.tar"]);
    let Some(docker) = Engine::docker(&env, TEST) else { return };
    let loaded = docker.run(&["load", "-i", "app.tar"]).ok();
    assert_eq!(loaded, "Loaded image: app:1\nLoaded image: h.example/app:2");
    assert_eq!(docker.said("app:1"), SAID);
    let id = fs::read_to_string(env.path("id")).unwrap();
    let inspect = |image: &str| docker.run(&["inspect", "--format", "{{.Id}}", image]).ok();
    assert_eq!(inspect("h.example/app:2"), id, "the image ID is the digest of the config");
    // Docker's own archive of it is a base, too.
    docker.run(&["save", "-o", "saved.tar", "app:1"]).ok();
    env.run(&["copy", "docker-archive:saved.tar", "store:saved:1", "--state-dir", "other"]).ok();
    is_a_base(&env, "saved:1", &["--pull=never"]);
}

#[test]
fn containerd_imports_and_runs_archives() {
    const TEST: &str = "containerd_imports_and_runs_archives";
    if !possible(TEST, &["containerd", "ctr", "runc", "unshare"]) {
        return;
    }
    let env = Env::new();
    let outputs = [
        "type=oci,dest=gzip.tar",
        "type=oci,dest=zstd.tar,compression=zstd,force-compression=true",
        "type=oci,dest=plain.tar,compression=uncompressed,force-compression=true",
        "type=docker,dest=docker.tar",
    ];
    let outputs = outputs.iter().flat_map(|output| ["--output", *output]);
    build(&env, &["-t", "app:1"].into_iter().chain(outputs).collect::<Vec<_>>());
    let Some(containerd) = Engine::containerd(&env, TEST) else { return };
    for archive in ["gzip.tar", "zstd.tar", "plain.tar", "docker.tar"] {
        containerd.run(&["images", "import", archive]).ok();
        assert_eq!(containerd.said("docker.io/library/app:1"), SAID, "{archive}");
        containerd.run(&["images", "rm", "--sync", "docker.io/library/app:1"]).ok();
    }
}

/// Pushes the image in all forms to a registry of the test. Returns the names.
fn push_all(env: &Env, registry: &Distribution) -> Vec<String> {
    env.run(&["login", &registry.host, "-u", "me", "-p", "sesame"]).ok();
    let forms = ["oci", "docker,oci-mediatypes=false", "zstd,compression=zstd,force-compression=true"];
    let outputs: Vec<String> =
        forms.iter().map(|form| format!("type=registry,name={}/app:{form}", registry.host)).collect();
    build(env, &outputs.iter().flat_map(|output| ["--output", output.as_str()]).collect::<Vec<_>>());
    let index = format!("type=registry,name={}/app:index", registry.host);
    env.run(&["build", "-q", "--build-arg", "BUILDKIT_MULTI_PLATFORM=1", "--output", &index, "context"]).ok();
    ["oci", "docker", "index", "zstd"].map(|tag| format!("{}/app:{tag}", registry.host)).into()
}

#[test]
fn docker_pulls_what_is_pushed() {
    const TEST: &str = "docker_pulls_what_is_pushed";
    if !possible(TEST, &["dockerd", "docker", "docker-registry", "runc", "unshare"]) {
        return;
    }
    let env = Env::new();
    let Some(docker) = Engine::docker(&env, TEST) else { return };
    let registry = Distribution::start(env.dir.path());
    let names = push_all(&env, &registry);
    // Docker reads zstd from version 23 on.
    let version = docker.run(&["version", "--format", "{{.Server.Version}}"]).ok();
    let reads_zstd = version.split('.').next().unwrap().parse::<u32>().unwrap() >= 23;
    for name in names.iter().filter(|name| reads_zstd || !name.ends_with(":zstd")) {
        docker.run(&["pull", "-q", name]).ok();
        assert_eq!(docker.said(name), SAID, "{name}");
        docker.run(&["rmi", name]).ok();
    }
    // And the other way: what Docker pushes is a base.
    docker.run(&["pull", "-q", &names[0]]).ok();
    let name = format!("{}/docker:1", registry.host);
    docker.run(&["tag", &names[0], &name]).ok();
    docker.run(&["push", "-q", &name]).ok();
    is_a_base(&env, &name, &["--pull"]);
}

#[test]
fn containerd_pulls_what_is_pushed() {
    const TEST: &str = "containerd_pulls_what_is_pushed";
    if !possible(TEST, &["containerd", "ctr", "docker-registry", "runc", "unshare"]) {
        return;
    }
    let env = Env::new();
    let Some(containerd) = Engine::containerd(&env, TEST) else { return };
    let registry = Distribution::start(env.dir.path());
    for name in push_all(&env, &registry) {
        containerd.run(&["images", "pull", "--plain-http", "--user", "me:sesame", &name]).ok();
        assert_eq!(containerd.said(&name), SAID, "{name}");
        containerd.run(&["images", "rm", "--sync", &name]).ok();
    }
    let name = format!("{}/containerd:1", registry.host);
    containerd
        .run(&["images", "pull", "--plain-http", "--user", "me:sesame", &format!("{}/app:oci", registry.host)])
        .ok();
    let source = format!("{}/app:oci", registry.host);
    containerd.run(&["images", "push", "--plain-http", "--user", "me:sesame", &name, &source]).ok();
    is_a_base(&env, &name, &["--pull"]);
}

/// Builds on an image that another tool made, on a machine that knows nothing of ours.
#[track_caller]
fn is_a_base(env: &Env, name: &str, options: &[&str]) {
    let dockerfile = format!(
        "FROM {name}\nUSER 0\nRUN test \"$(cat /link /own | tr -d '\\n')\" = madeown && test $WHO = me && test ! -e /bin/yes \
         && test \"$(stat -c %U:%g:%a /own)\" = app:1000:400 && echo more > /more\n"
    );
    env.file("base/Dockerfile", dockerfile);
    env.run(&[&["build", "-q", "--state-dir", "other"], options, &["context/base"]].concat()).ok();
}

#[test]
fn buildah_works_on_what_is_pushed_and_its_images_are_bases() {
    const TEST: &str = "buildah_works_on_what_is_pushed_and_its_images_are_bases";
    if !possible(TEST, &["buildah", "docker-registry"]) {
        return;
    }
    let env = Env::new();
    let registry = Distribution::start(env.dir.path());
    let names = push_all(&env, &registry);
    let buildah = |args: &[&str]| {
        let mut command = command(&env, "buildah");
        command.args(["--root", "b", "--runroot", "b.run", "--storage-driver", "vfs"]).args(args);
        Run::of(&command.output().unwrap()).ok()
    };
    for name in &names {
        let container = buildah(&["from", "--tls-verify=false", "--pull-always", name]);
        let script = "cat /link /own; echo $WHO $(id -u) $(stat -c %U:%g /own)";
        let run = ["run", "--isolation", "chroot", "--network", "host", &container, "--", "/bin/sh", "-c", script];
        assert_eq!(buildah(&run), SAID, "{name}");
        buildah(&["rm", &container]);
    }
    for (number, format) in ["oci", "docker"].into_iter().enumerate() {
        let container = buildah(&["from", "--tls-verify=false", &names[number]]);
        let script =
            ["run", "--isolation", "chroot", "--network", "host", "--user", "0", &container, "--", "rm", "/etc/group"];
        buildah(&script);
        let name = format!("{}/buildah:{format}", registry.host);
        buildah(&["commit", "--format", format, "--rm", "--tls-verify=false", &container, &format!("docker://{name}")]);
        is_a_base(&env, &name, &["--pull"]);
    }
    buildah(&["rmi", "--all", "--force"]);
}

#[test]
fn what_skopeo_and_podman_push_is_a_base() {
    const TEST: &str = "what_skopeo_and_podman_push_is_a_base";
    if !possible(TEST, &["skopeo", "podman", "docker-registry"]) {
        return;
    }
    let env = Env::new();
    let registry = Distribution::start(env.dir.path());
    let names = push_all(&env, &registry);
    let tool = |program: &str, args: &[&str]| Run::of(&command(&env, program).args(args).output().unwrap()).ok();
    for format in ["oci", "v2s2"] {
        let (source, name) = (format!("docker://{}", names[0]), format!("{}/skopeo:{format}", registry.host));
        let tls = ["--src-tls-verify=false", "--dest-tls-verify=false"];
        let dest = format!("docker://{name}");
        tool(
            "skopeo",
            &[&["--insecure-policy", "copy", "-q", "--format", format], &tls[..], &[&source, &dest]].concat(),
        );
        is_a_base(&env, &name, &["--pull"]);
    }
    let podman = |args: &[&str]| {
        tool("podman", &[&["--root", "p", "--runroot", "p.run", "--storage-driver", "vfs"], args].concat())
    };
    podman(&["pull", "-q", "--tls-verify=false", &names[0]]);
    for options in [["--format", "oci"], ["--format", "v2s2"], ["--compression-format", "zstd"]] {
        let name = format!("{}/podman:{}", registry.host, options[1]);
        podman(&[&["push", "-q", "--tls-verify=false"], &options[..], &[&names[0], &name]].concat());
        is_a_base(&env, &name, &["--pull"]);
    }
    podman(&["rmi", "--all", "--force"]);
}

#[test]
fn podman_runs_a_kubernetes_pod_of_an_image() {
    const TEST: &str = "podman_runs_a_kubernetes_pod_of_an_image";
    if !possible(TEST, &["podman", "runc", "catatonit", "unshare"]) {
        return;
    }
    let env = Env::new();
    build(&env, &["-t", "localhost/app:1", "--output", "type=oci,dest=app.tar"]);
    let conf = "[containers]\ndefault_ulimits=[\"nofile=1024:1024\",\"nproc=1024:1024\"]\nnetns=\"host\"\n\
        [engine]\nruntime=\"runc\"\ncgroup_manager=\"cgroupfs\"\n";
    fs::write(env.path("containers.conf"), conf).unwrap();
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: pod}\nspec:\n  hostNetwork: true\n  restartPolicy: Never\n  \
        containers:\n  - {name: app, image: 'localhost/app:1', imagePullPolicy: Never}\n";
    fs::write(env.path("pod.yaml"), pod).unwrap();
    // One script, because the processes of the pod end with the namespace that they are in.
    let script = "podman() { command podman --root k --runroot k.run --tmpdir k.tmp --storage-driver vfs \"$@\"; }\n\
        podman load -q -i app.tar >&2 && podman play kube pod.yaml >&2 && podman wait pod-app >&2 && podman logs pod-app\n\
        status=$?\npodman play kube --down pod.yaml >&2\npodman rmi --all --force >&2\nexit $status\n";
    let mut command = isolated(&env, "sh");
    command.args(["-c", script]).env("CONTAINERS_CONF", env.path("containers.conf"));
    assert_eq!(Run::of(&command.output().unwrap()).ok(), SAID);
}
