//! git by ssh, against an sshd of our own on loopback.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};

use crate::fetch::{Repository, build_context, example};
use crate::image::Image;
use crate::support::{Env, Run, have, is_root};

/// Logs in whoever runs the tests with the key `key` of the workplace; gone with the test.
struct Sshd {
    child: Child,
    port: u16,
    user: String,
}

impl Sshd {
    fn new(env: &Env) -> Self {
        let tool = |program: &str, args: &[&str]| {
            Run::of(&Command::new(program).args(args).current_dir(env.dir.path()).output().unwrap()).ok()
        };
        for (name, passphrase) in [("host_key", ""), ("key", ""), ("locked_key", "secret"), ("other_key", "")] {
            tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", passphrase, "-f", name]);
        }
        fs::copy(env.path("key.pub"), env.path("authorized_keys")).unwrap();
        if is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = env.dir.path().display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {dir}/host_key\nAuthorizedKeysFile {dir}/authorized_keys\n\
             PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n\
             SetEnv HOME={dir}\n"
        );
        fs::write(env.path("sshd_config"), config).unwrap();
        let config = env.path("sshd_config").display().to_string();
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f", &config])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(env.path("sshd.log")).unwrap())
            .spawn()
            .unwrap();
        let mut this = Self { child, port, user: tool("id", &["-un"]) };
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = this.child.try_wait().unwrap();
            assert!(ended.is_none(), "{}", fs::read_to_string(env.path("sshd.log")).unwrap());
            std::thread::yield_now();
        }
        this
    }

    /// Lets the user of the workplace believe the server.
    fn vouch(&self, env: &Env) {
        let key = fs::read_to_string(env.path("host_key.pub")).unwrap();
        fs::create_dir_all(env.path(".ssh")).unwrap();
        fs::write(env.path(".ssh/known_hosts"), format!("[127.0.0.1]:{} {key}", self.port)).unwrap();
    }

    fn url(&self, env: &Env, repository: &str) -> String {
        let path = env.path("repositories").join(repository);
        format!("ssh://{}@127.0.0.1:{}{}", self.user, self.port, path.display())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// An agent with the key of the workplace.
struct Agent {
    child: Child,
    socket: String,
}

impl Agent {
    fn new(env: &Env) -> Self {
        let socket = env.path("agent").display().to_string();
        let child = Command::new("ssh-agent").args(["-D", "-a", &socket]).stdout(Stdio::null()).spawn().unwrap();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            std::thread::yield_now();
        }
        let mut add = Command::new("ssh-add");
        add.args(["-q", "key"]).env("SSH_AUTH_SOCK", &socket).current_dir(env.dir.path());
        Run::of(&add.output().unwrap()).ok();
        Self { child, socket }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

const PROGRAMS: [&str; 4] = ["git", "sshd", "ssh-agent", "ssh-keygen"];

#[test]
fn a_repository_by_ssh_comes_with_an_agent_or_with_a_key() {
    if !have("git by ssh", &PROGRAMS) {
        return;
    }
    let env = Env::new();
    let (repository, _) = example(&env);
    let inner = Repository::new(&env, "inner");
    inner.file("deep", "in the submodule");
    inner.commit();
    repository.git(&["submodule", "add", "-q", "../inner", "module"]);
    repository.commit();
    let sshd = Sshd::new(&env);
    sshd.vouch(&env);
    let agent = Agent::new(&env);
    let url = sshd.url(&env, "app");
    let dockerfile = format!("FROM scratch\nADD {url}#main /x/\n");
    let socket = format!("default={}", agent.socket);
    for ssh in [socket.as_str(), "default=key", "=other_key,key"] {
        let run = env.build(&dockerfile, &["--no-cache", "--ssh", ssh]);
        run.ok();
        let image = Image::open(&env.path("out"), None);
        assert_eq!(
            (image.text("x/README").as_str(), image.text("x/module/deep").as_str()),
            ("one\n", "in the submodule")
        );
    }
    // As docker build takes it: the agent of the environment, for the context itself.
    env.file("x", "");
    let mut command = env.command(&["build", "--ssh", "default", "--progress", "plain", &format!("{url}#main")]);
    Run::of(&command.env("SSH_AUTH_SOCK", &agent.socket).output().unwrap()).ok();
    build_context(&env, &url, &["--ssh", "default=key"], b"").ok();
    let left: Vec<_> = fs::read_dir(env.state().join("tmp")).unwrap().flatten().collect();
    assert!(left.is_empty(), "sockets, lists of hosts: {left:?}");
}

#[test]
fn what_is_missing_for_ssh_is_said() {
    if !have("errors of ssh", &PROGRAMS) {
        return;
    }
    let env = Env::new();
    example(&env);
    let sshd = Sshd::new(&env);
    let url = sshd.url(&env, "app");
    let dockerfile = format!("FROM scratch\nADD {url} /x/\n");
    let fails = |options: &[&str], code: i32, words: &[&str]| {
        let run = env.build(&dockerfile, options);
        let text = run.fails(code);
        assert!(words.iter().all(|word| text.contains(word)), "want {words:?}: {text}");
    };
    fails(&[], 1, &["no ssh agent", "--ssh default", "Dockerfile:2:1"]);
    let unstarted = env.build(&format!("FROM scratch\nADD http://127.0.0.1:1/x /x\n{dockerfile}"), &[]);
    assert!(unstarted.fails(1).contains("no ssh agent"), "it is known before anything is tried: {}", unstarted.stderr);
    assert!(build_context(&env, &url, &[], b"").fails(1).contains("--ssh default"));
    fails(&["--ssh", "other=key"], 1, &["no ssh agent"]);
    fails(&["--ssh", "default=key"], 1, &["Host key verification failed", "ssh-keyscan"]);
    sshd.vouch(&env);
    fails(&["--ssh", "default=other_key"], 1, &["Permission denied", "ssh-add -l"]);
    fails(&["--ssh", "default=locked_key"], 2, &["locked_key", "passphrase"]);
    fs::set_permissions(env.path("key"), fs::Permissions::from_mode(0o644)).unwrap();
    fails(&["--ssh", "default=key"], 2, &["key", "closed to others"]);
    fails(&["--ssh", "default=host_key.pub"], 2, &["host_key.pub"]);
    fails(&["--ssh", "default=nowhere"], 2, &["nowhere"]);
    // Another server in the place of the one that is known.
    fs::set_permissions(env.path("key"), fs::Permissions::from_mode(0o600)).unwrap();
    let known = fs::read_to_string(env.path(".ssh/known_hosts")).unwrap();
    let other = fs::read_to_string(env.path("other_key.pub")).unwrap();
    fs::write(env.path(".ssh/known_hosts"), format!("{} {other}", known.split(' ').next().unwrap())).unwrap();
    fails(&["--ssh", "default=key"], 1, &["Host key verification failed"]);
}

#[test]
fn a_key_serves_commands_as_an_agent() {
    if !have("a key for RUN", &PROGRAMS) {
        return;
    }
    let env = Env::new();
    env.import_busybox();
    Run::of(
        &Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f", "key"])
            .current_dir(env.dir.path())
            .output()
            .unwrap(),
    )
    .ok();
    env.build("FROM busybox\nRUN --mount=type=ssh,required test -S $SSH_AUTH_SOCK\n", &["--ssh", "default=key"]).ok();
}
