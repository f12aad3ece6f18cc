//! Images in and out of registries: requests that are made, bytes that arrive, credentials that stay where they belong.

#[path = "../../../builder-core/tests/support/registry.rs"]
#[allow(dead_code, reason = "the tests of the library use the rest")]
pub(crate) mod server;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use server::{Logged, Registry, sha256};

use crate::support::{Env, Run, busybox_rootfs, have, is_root};

/// A gzip layer of a tar.
pub(crate) fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, tar).unwrap();
    encoder.finish().unwrap()
}

/// Puts an image of busybox into the registry.
pub(crate) fn add_base(registry: &Registry, repository: &str, tag: &str) {
    let tar = busybox_rootfs();
    let layer = gzip(&tar);
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "config": {"Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [sha256(&tar)]},
        "history": [{"created_by": "base"}],
    });
    registry.add_image(repository, tag, &server::OCI, config.to_string().as_bytes(), &[&layer]);
}

/// Puts an image of these tars into the registry. Returns the digest of its manifest and its size.
pub(crate) fn add_layers(
    registry: &Registry,
    repository: &str,
    tag: &str,
    config: &Value,
    tars: &[&[u8]],
) -> (String, usize) {
    let layers: Vec<Vec<u8>> = tars.iter().map(|tar| gzip(tar)).collect();
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let digest = registry.add_image(repository, tag, &server::OCI, config.to_string().as_bytes(), &layers);
    (digest, manifest_of(registry, repository, tag).len())
}

/// The lines of the log with digests and numbers of uploads replaced, sorted.
fn lines(log: &[Logged]) -> Vec<String> {
    let mut lines: Vec<String> = log.iter().map(|logged| logged.line.clone()).collect();
    lines.sort();
    lines
}

pub(crate) fn count(lines: &[String], part: &str) -> usize {
    lines.iter().filter(|line| line.contains(part)).count()
}

/// Builds the context of `env`, whose Dockerfile is `dockerfile`.
fn build(env: &Env, dockerfile: &str, options: &[&str]) -> Run {
    env.file("Dockerfile", dockerfile);
    let mut args = vec!["build", "--progress", "plain"];
    args.extend(options);
    args.push("context");
    Run::of(&env.command(&args).env("SOURCE_DATE_EPOCH", "1700000000").output().unwrap())
}

#[test]
fn a_build_pulls_its_base_and_pushes_the_result_with_the_fewest_requests() {
    let env = Env::new();
    let registry = Registry::start();
    add_base(&registry, "base", "1");
    env.file("hello", "hello\n");
    let host = registry.host();
    let dockerfile = format!("FROM {host}/base:1\nCOPY hello /hello\n");
    let output = format!("type=registry,name={host}/app:x,compression=gzip");
    let digest = build(&env, &dockerfile, &["--output", &output]).ok();
    let log = lines(&registry.take_log());
    assert_eq!(count(&log, "GET /v2/base/manifests/"), 1, "{log:#?}");
    assert_eq!(count(&log, "GET /v2/base/blobs/"), 2, "config and layer, once: {log:#?}");
    // The permission is asked for once, the base's layer is taken over, config and new layer are sent.
    assert_eq!(count(&log, "DELETE /v2/app/blobs/uploads/"), 1, "{log:#?}");
    assert_eq!(count(&log, "mount="), 0, "the test registry has blobs of tests everywhere: {log:#?}");
    assert_eq!(count(&log, "HEAD /v2/app/blobs/"), 3, "{log:#?}");
    assert_eq!(count(&log, "PUT /v2/app/blobs/uploads/"), 2, "{log:#?}");
    assert_eq!(count(&log, "PUT /v2/app/manifests/x"), 1, "{log:#?}");
    assert_eq!(count(&log, "/manifests/"), 2, "{log:#?}");
    // Once more: nothing is sent but the tag.
    assert_eq!(build(&env, &dockerfile, &["--output", &output]).ok(), digest);
    let log = lines(&registry.take_log());
    assert_eq!(count(&log, "/v2/base/"), 0, "the base is in the store: {log:#?}");
    assert_eq!(count(&log, "PUT /v2/app/blobs/"), 0, "{log:#?}");
    assert_eq!(count(&log, "PUT /v2/app/manifests/x"), 1, "{log:#?}");
    // Another repository of the registry: what the first has is taken over.
    build(&env, &dockerfile, &["-t", &format!("{host}/app:x"), "-t", &format!("{host}/other:y"), "--push"]).ok();
    let log = lines(&registry.take_log());
    assert_eq!(count(&log, "PUT /v2/other/blobs/"), 0, "{log:#?}");
    assert_eq!(count(&log, "POST /v2/other/blobs/uploads/?mount="), 2, "config and layer: {log:#?}");
    assert_eq!(count(&log, "PUT /v2/other/manifests/y"), 1, "{log:#?}");
}

#[test]
fn an_image_without_a_name_is_not_pushed() {
    let env = Env::new();
    let run = build(&env, "FROM scratch\nCOPY Dockerfile /\n", &["--push"]);
    assert!(run.fails(2).contains("-t NAME"), "{}", run.stderr);
}

#[test]
fn a_push_that_is_not_allowed_fails_before_the_build_is_over() {
    let env = Env::new();
    let registry = Registry::start();
    registry.plan("POST /v2/app/blobs/uploads/", 9, server::Fault::Status(403, vec![], "{}".to_owned()));
    let name = format!("{}/app:x", registry.host());
    let run = build(&env, "FROM scratch\nCOPY Dockerfile /\n", &["-t", &name, "--push"]);
    assert!(run.fails(75).contains("denied"), "{}", run.stderr);
    let log = lines(&registry.take_log());
    assert_eq!(log, ["GET /v2/", "POST /v2/app/blobs/uploads/"], "one request was enough to know");
}

#[test]
fn media_types_and_compression_are_those_of_the_output() {
    let env = Env::new();
    let registry = Registry::start();
    add_base(&registry, "base", "1");
    let host = registry.host();
    let dockerfile = format!("FROM {host}/base:1\nCOPY Dockerfile /\n");
    let name = |tag: &str, options: &str| format!("type=registry,name={host}/app:{tag}{options}");
    let options = [
        name("docker", ",oci-mediatypes=false"),
        name("zstd", ",compression=zstd"),
        name("all", ",compression=zstd,force-compression=true"),
    ];
    let outputs: Vec<&str> = options.iter().flat_map(|output| ["--output", output.as_str()]).collect();
    build(&env, &dockerfile, &outputs).ok();
    let log = registry.take_log();
    let manifest = |tag: &str| -> Value {
        let put = log.iter().find(|logged| logged.line == format!("PUT /v2/app/manifests/{tag}")).unwrap();
        serde_json::from_slice(&put.body).unwrap()
    };
    let of = |tag: &str| -> Vec<String> {
        let layers = manifest(tag)["layers"].as_array().unwrap().clone();
        layers.iter().map(|layer| layer["mediaType"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(manifest("docker")["mediaType"], server::DOCKER.manifest);
    assert_eq!(manifest("docker")["config"]["mediaType"], server::DOCKER.config);
    assert_eq!(of("docker"), [server::DOCKER.layer; 2]);
    assert!(of("zstd")[0].ends_with("+gzip") && of("zstd")[1].ends_with("+zstd"), "{:?}", of("zstd"));
    assert!(of("all").iter().all(|text| text.ends_with("+zstd")), "{:?}", of("all"));
    let run = build(&env, &dockerfile, &["--output", &name("x", ",oci-mediatypes=false,compression=zstd")]);
    assert!(run.fails(2).contains("zstd"), "{}", run.stderr);
}

/// Writes Docker's file of credentials for `host`.
fn docker_config(env: &Env, config: &Value) {
    fs::create_dir_all(env.path(".docker")).unwrap();
    fs::write(env.path(".docker/config.json"), config.to_string()).unwrap();
}

/// `user:password` as HTTP and credential files write it.
fn base64(text: &str) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text)
}

#[test]
fn credentials_go_where_they_belong_and_nowhere_else() {
    let env = Env::new();
    let (public, private) = (Registry::start(), Registry::start());
    add_base(&public, "base", "1");
    private.set_auth(server::Auth::Bearer { realm: private.realm(), uses: 1000 });
    private.set_token_for(server::TokenFor::User("me", "secret"), None);
    let host = private.host();
    let secret = base64("me:secret");
    docker_config(&env, &json!({"auths": {(&host): {"auth": secret}, "docker.io": {"auth": base64("x:y")}}}));
    let dockerfile = format!("FROM {}/base:1\nCOPY Dockerfile /\n", public.host());
    let name = format!("{host}/app:x");
    build(&env, &dockerfile, &["-t", &name, "--push"]).ok();
    assert!(public.take_log().iter().all(|logged| logged.authorization.is_none()));
    let log = private.take_log();
    for logged in &log {
        let shown = logged.authorization.clone().unwrap_or_default();
        assert_eq!(shown.contains(&secret), logged.line.contains("/token"), "{logged:?}");
    }
    let tokens = count(&lines(&log), "GET /token");
    assert_eq!(tokens, 1, "one token serves check, blobs and manifest: {:#?}", lines(&log));
    // The same by other ways, and not without.
    fs::remove_file(env.path(".docker/config.json")).unwrap();
    let failed = env.run(&["pull", &name]);
    assert!(failed.fails(75).contains("no credentials for"), "{}", failed.stderr);
    env.run(&["pull", &name, "--creds", "me:secret"]).ok();
    let wrong = env.run(&["pull", &name, "--creds", "me:hunter2"]);
    assert!(!wrong.fails(75).contains("hunter2"), "{}", wrong.stderr);
    let config = json!({"auths": {(&host): {"auth": secret}}}).to_string();
    fs::write(env.path("auth.json"), &config).unwrap();
    env.run(&["ls-tags", &name, "--authfile", "auth.json"]).ok();
    let by_variable = |name: &str, value: &str| {
        Run::of(&env.command(&["ls-tags", &format!("{host}/app")]).env(name, value).output().unwrap())
    };
    assert_eq!(by_variable("DOCKER_AUTH_CONFIG", &config).ok(), "x");
    assert_eq!(by_variable("REGISTRY_AUTH_FILE", "auth.json").ok(), "x");
    by_variable("DOCKER_CONFIG", "/nonexistent").fails(75);
    env.run(&["ls-tags", &name, "--authfile", "missing.json"]).fails(2);
}

#[test]
fn a_credential_helper_is_started_once_and_only_for_its_host() {
    let env = Env::new();
    let (public, private) = (Registry::start(), Registry::start());
    add_base(&public, "base", "1");
    private.set_auth(server::Auth::Basic("helped", "secret"));
    fs::create_dir(env.path("bin")).unwrap();
    let helper = env.path("bin/docker-credential-test");
    let script = "#!/bin/sh\nread host\necho \"$1 $host\" >> \"$HOME/helper.log\"\nenv > \"$HOME/helper.env\"\n\
                  echo '{\"ServerURL\":\"x\",\"Username\":\"helped\",\"Secret\":\"secret\"}'\n";
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    docker_config(&env, &json!({"credHelpers": {(private.host()): "test", "other.example": "missing"}}));
    env.file("Dockerfile", format!("FROM {}/base:1\nCOPY Dockerfile /\n", public.host()));
    let name = format!("{}/app:x", private.host());
    let mut command = env.command(&["build", "-t", &name, "--push", "context"]);
    command.env("PATH", format!("{}:/usr/bin:/bin", env.path("bin").display())).env("CI_JOB_TOKEN", "t");
    Run::of(&command.output().unwrap()).ok();
    assert_eq!(fs::read_to_string(env.path("helper.log")).unwrap(), format!("get {}\n", private.host()));
    let environment = fs::read_to_string(env.path("helper.env")).unwrap();
    assert!(!environment.contains("CI_JOB_TOKEN") && environment.contains("HOME="), "{environment}");
    // A file that is read before the one that names the helper is believed first, also about a part of the registry.
    fs::create_dir_all(env.path("run/containers")).unwrap();
    for (key, asked) in
        [(private.host(), 0), (format!("{}/app", private.host()), 0), (format!("{}/b", private.host()), 1)]
    {
        let auths = json!({"auths": {(&key): {"auth": base64("helped:secret")}}});
        fs::write(env.path("run/containers/auth.json"), auths.to_string()).unwrap();
        drop(fs::remove_file(env.path("helper.log")));
        let mut command = env.command(&["ls-tags", &name]);
        command.env("XDG_RUNTIME_DIR", env.path("run")).env("PATH", format!("{}:/bin", env.path("bin").display()));
        Run::of(&command.output().unwrap()).ok();
        let log = fs::read_to_string(env.path("helper.log")).unwrap_or_default();
        assert_eq!(log.lines().count(), asked, "{key}: {log}");
    }
    // One that is not there is told, and the registry's own words end the build.
    fs::remove_file(&helper).unwrap();
    let run = build(&env, "FROM scratch\nCOPY Dockerfile /\n", &["-t", &name, "--push"]);
    let text = run.fails(75);
    assert!(text.contains("docker-credential-test") && text.contains("not authorized"), "{text}");
}

#[test]
fn bases_are_looked_up_as_pull_says() {
    let env = Env::new();
    let registry = Registry::start();
    add_base(&registry, "base", "1");
    let base = format!("{}/base:1", registry.host());
    let dockerfile = format!("FROM {base}\nCOPY Dockerfile /\n");
    let run = |option: &str| build(&env, &dockerfile, &[option]);
    let asked = || {
        let log = registry.take_lines();
        log.into_iter()
            .filter(|line| line != "GET /v2/")
            .map(|line| line.split(':').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert!(run("--pull=never").fails(75).contains("--pull=never"));
    assert_eq!(asked(), [""; 0]);
    run("--pull=missing").ok();
    assert_eq!(asked().len(), 3, "manifest, config and layer");
    run("--pull=missing").ok();
    run("--pull=never").ok();
    assert_eq!(asked(), [""; 0]);
    run("--pull").ok();
    assert_eq!(asked(), ["GET /v2/base/manifests/1"], "all but the name is there");
    run("--pull=newer").ok();
    assert_eq!(asked(), ["HEAD /v2/base/manifests/1"]);
    let tar = busybox_rootfs();
    registry.add_image(
        "base",
        "1",
        &server::OCI,
        json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
            "config": {"Labels": {"new": "1"}}, "rootfs": {"type": "layers", "diff_ids": [sha256(&tar)]},
        })
        .to_string()
        .as_bytes(),
        &[&gzip(&tar)],
    );
    run("--pull=newer").ok();
    assert_eq!(asked().len(), 3, "head, manifest and config; the layer is the same");
    assert!(env.run(&["inspect", &base]).ok().contains("\"new\""));
    registry.plan("/manifests/", 1, server::Fault::Status(404, vec![], "{}".to_owned()));
    run("--pull=newer").ok();
    registry.plan("/manifests/", 1, server::Fault::Status(404, vec![], "{}".to_owned()));
    run("--pull=always").fails(75);
}

#[test]
fn login_stores_what_the_registry_takes_and_logout_forgets_it() {
    let env = Env::new();
    let registry = Registry::start();
    add_base(&registry, "base", "1");
    registry.set_auth(server::Auth::Basic("me", "secret"));
    let host = registry.host();
    let login = |password: &str| {
        let mut command = env.command(&["login", &host, "--username", "me", "--password-stdin"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), format!("{password}\n").as_bytes()).unwrap();
        Run::of(&child.wait_with_output().unwrap())
    };
    login("wrong").fails(75);
    assert!(!env.path(".docker/config.json").exists(), "nothing is stored that does not open the door");
    login("secret").ok();
    assert_eq!(env.run(&["ls-tags", &format!("{host}/base")]).ok(), "1");
    env.run(&["logout", &host]).ok();
    env.run(&["ls-tags", &format!("{host}/base")]).fails(75);
    let file = fs::read_to_string(env.path(".docker/config.json")).unwrap();
    assert!(!file.contains(&host), "{file}");
}

#[test]
fn what_passes_is_tried_again_and_told() {
    let env = Env::new();
    let registry = Registry::start();
    add_base(&registry, "base", "1");
    registry.plan("GET /v2/base/manifests/1", 2, server::Fault::Status(503, vec![], "{}".to_owned()));
    let dockerfile = format!("FROM {}/base:1\nCOPY Dockerfile /\n", registry.host());
    let run = build(&env, &dockerfile, &["--retry-delay", "1ms"]);
    run.ok();
    assert!(run.stderr.contains("trying again"), "{}", run.stderr);
    registry.plan("GET /v2/base/manifests/1", 2, server::Fault::Status(503, vec![], "{}".to_owned()));
    build(&env, &dockerfile, &["--pull", "--retry", "1", "--retry-delay", "1ms"]).fails(75);
}

#[test]
fn a_mirror_is_asked_before_docker_hub() {
    let env = Env::new();
    let registry = Registry::start();
    add_base(&registry, "library/busybox", "1.36");
    let mirror = format!("http://{}", registry.host());
    env.run(&["pull", "busybox:1.36", "--registry-mirror", &mirror]).ok();
    env.run(&["inspect", "docker.io/library/busybox:1.36"]).ok();
}

#[test]
fn a_copy_has_every_byte_of_every_platform() {
    let env = Env::new();
    let (from, to) = (Registry::start(), Registry::start());
    let layers: Vec<Vec<u8>> = ["one", "two"].iter().map(|name| gzip(&tar_of(name))).collect();
    let entries: Vec<Value> = ["amd64", "arm64"]
        .iter()
        .zip(&layers)
        .map(|(arch, layer)| {
            let diff_id = sha256(&tar_of(if *arch == "amd64" { "one" } else { "two" }));
            let config =
                json!({"architecture": arch, "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}});
            // Neither the order nor the space is what this program would write.
            let config = format!(" {config}\n");
            let digest = from.add_image("app", arch, &server::OCI, config.as_bytes(), &[layer]);
            let size = manifest_of(&from, "app", arch).len();
            json!({"mediaType": server::OCI.manifest, "digest": digest, "size": size,
                "platform": {"os": "linux", "architecture": arch}})
        })
        .collect();
    let index = format!("{:#}", json!({"schemaVersion": 2, "mediaType": server::OCI.index, "manifests": entries}));
    let digest = from.add_manifest("app", "all", server::OCI.index, index.as_bytes());
    from.take_log();
    let source = format!("docker://{}/app:all", from.host());
    let steps = [
        (source.clone(), "oci:layout:x".to_owned()),
        ("oci:layout:x".to_owned(), "oci-archive:a.tar:y".to_owned()),
        ("oci-archive:a.tar:y".to_owned(), "store:kept:1".to_owned()),
        ("store:kept:1".to_owned(), format!("docker://{}/copied:z", to.host())),
    ];
    for (number, (from, to)) in steps.iter().enumerate() {
        // Each with a store of its own but for the last, which reads what the one before has put there.
        let state = format!("state{}", number.min(2));
        assert_eq!(env.run(&["copy", from, to, "--state-dir", &state]).ok(), digest, "{from} to {to}");
    }
    assert_eq!(count(&from.take_lines(), "/blobs/"), 4, "two configs and two layers, each once");
    let log = to.take_log();
    let put = log.iter().find(|logged| logged.line == "PUT /v2/copied/manifests/z").unwrap();
    assert_eq!(put.body, index.as_bytes());
    assert_eq!(log.last().unwrap().line, put.line, "the tag comes last");
    let one = env.run(&["copy", "--platform", "linux/arm64", &source, "docker-archive:one.tar:app:1"]).ok();
    assert_eq!(one, entries[1]["digest"]);
    // Within a registry nothing is sent.
    env.run(&["copy", &format!("docker://{}/copied:z", to.host()), &format!("docker://{}/more:z", to.host())]).ok();
    let log = to.take_lines();
    assert_eq!((count(&log, "mount="), count(&log, "PUT /v2/more/blobs/")), (4, 0), "{log:#?}");
    assert_eq!(env.run(&["copy", "docker-archive:one.tar:app:1", "store:x"]).ok(), one, "it has an OCI layout, too");
    env.run(&["copy", "oci:missing", "store:x"]).fails(2);
}

/// A tar of one file.
fn tar_of(name: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(name.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append_data(&mut header, name, name.as_bytes()).unwrap();
    tar.into_inner().unwrap()
}

/// The manifest that the registry has under a tag.
fn manifest_of(registry: &Registry, repository: &str, tag: &str) -> Vec<u8> {
    let mut stream = std::net::TcpStream::connect(registry.host()).unwrap();
    let request = format!("GET /v2/{repository}/manifests/{tag} HTTP/1.1\r\n\r\n");
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut answer).unwrap();
    let at = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    answer.split_off(at + 4)
}

/// Debian's docker-registry. The process ends with the test.
pub(crate) struct Distribution {
    child: Child,
    pub(crate) host: String,
}

impl Drop for Distribution {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Distribution {
    /// Starts on a free port, open to `me` with the password `sesame`.
    pub(crate) fn start(dir: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        fs::write(dir.join("htpasswd"), "me:$2y$05$abcdefghijklmnopqrstuuKcS.CYWVYVaLiiCKrrc0A5s3mGesJ9O\n").unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {0}/storage}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n\
             auth: {{htpasswd: {{realm: test, path: {0}/htpasswd}}}}\n",
            dir.display()
        );
        fs::write(dir.join("config.yml"), config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(dir.join("config.yml")).env_clear().stdin(Stdio::null());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let server = Self { child, host: format!("127.0.0.1:{port}") };
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "docker-registry ended before it listened");
        }
        // Nobody reads on, and a full pipe would stop it.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        server
    }
}

#[test]
fn a_real_registry_and_other_tools_take_what_is_pushed() {
    const TEST: &str = "a_real_registry_and_other_tools_take_what_is_pushed";
    if !have(TEST, &["docker-registry"]) {
        return;
    }
    let env = Env::new();
    env.import_busybox();
    let registry = Distribution::start(env.dir.path());
    let name = format!("{}/team/app:1", registry.host);
    build(&env, "FROM busybox\nRUN echo made > /made\nCMD [\"cat\", \"/made\"]\n", &["-t", &name, "--push"]).fails(75);
    env.run(&["login", &registry.host, "-u", "me", "-p", "sesame"]).ok();
    let digest =
        build(&env, "FROM busybox\nRUN echo made > /made\nCMD [\"cat\", \"/made\"]\n", &["-t", &name, "--push"]).ok();
    assert_eq!(env.run(&["ls-tags", &format!("{}/team/app", registry.host)]).ok(), "1");
    // Another name of it, in another repository, from the store.
    env.run(&["tag", &name, "again"]).ok();
    assert_eq!(env.run(&["push", "again", &format!("docker://{}/other:2", registry.host)]).ok(), digest);
    // Another machine pulls it and builds on it.
    let other = Env::new();
    fs::create_dir(other.path(".docker")).unwrap();
    fs::copy(env.path(".docker/config.json"), other.path(".docker/config.json")).unwrap();
    assert_eq!(other.run(&["pull", &name]).ok(), digest);
    build(&other, &format!("FROM {}/other:2\nRUN test \"$(cat /made)\" = made\n", registry.host), &[]).ok();
    if have(TEST, &["skopeo"]) {
        let args = ["inspect", "--creds", "me:sesame", "--tls-verify=false", &format!("docker://{name}")];
        let shown = Run::of(&Command::new("skopeo").args(args).output().unwrap()).ok();
        assert!(shown.contains(&digest), "{shown}");
    }
    if have(TEST, &["podman"]) && is_root() {
        let root = env.path("podman").display().to_string();
        let podman = |args: &[&str]| {
            let mut command = Command::new("podman");
            command.args(["--root", &root, "--runroot", &format!("{root}.run"), "--storage-driver", "vfs"]);
            Run::of(&command.args(args).output().unwrap())
        };
        podman(&["pull", "--creds", "me:sesame", "--tls-verify=false", &name]).ok();
        podman(&["rmi", "--all", "--force"]).ok();
    }
}

#[test]
fn a_plan_fetches_no_layers_and_says_how_much_a_build_would() {
    let env = Env::new();
    let registry = Registry::start();
    add_base(&registry, "base", "1");
    let base = format!("{}/base:1", registry.host());
    env.file("hello", "hello\n");
    env.file(
        "Dockerfile",
        format!("FROM {base} AS b\nRUN echo x > /x\nFROM {base}\nCOPY hello /h/\nCOPY --from=b /x /x\n"),
    );
    let plan = |options: &[&str]| -> Value {
        let args = ["plan", "--format", "json", "context"];
        serde_json::from_str(&env.run(&[&args, options].concat()).ok()).unwrap()
    };
    let states = |plan: &Value| -> Vec<String> {
        plan["steps"].as_array().unwrap().iter().map(|step| step["state"].as_str().unwrap().to_owned()).collect()
    };
    let first = plan(&[]);
    assert_eq!(states(&first), ["provided", "would-run", "provided", "unknown", "unknown"], "{first:#}");
    let fetch = first["steps"][0]["missing_bytes"].as_u64().unwrap();
    assert!(fetch > 10_000, "{fetch}");
    let reason = first["steps"][3]["reason"]["text"].as_str().unwrap();
    assert!(
        reason.starts_with("layers of ") && reason.contains(&base) && reason.ends_with("not fetched yet"),
        "{reason}"
    );
    let log = lines(&registry.take_log());
    assert_eq!(count(&log, "GET /v2/base/blobs/"), 1, "the config alone: {log:#?}");
    let text = env.run(&["plan", "context"]).ok();
    assert!(text.ends_with("B to fetch"), "{text}");

    assert!(env.run(&["plan", "--pull=never", "context"]).fails(75).contains("--pull=never"));
    env.run(&["build", "context"]).ok();
    let second = plan(&[]);
    assert_eq!(states(&second), ["provided", "cached", "provided", "cached", "cached"], "{second:#}");
    assert_eq!(second["steps"][0]["missing_bytes"], 0);
    assert_eq!(states(&plan(&["--pull=never"])), states(&second));
}
