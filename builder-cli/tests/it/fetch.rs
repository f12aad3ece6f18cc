//! Sources that are elsewhere: URLs, git repositories, streams and archives.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::image::{Image, sha256};
use crate::server::{Answer, Request, Server};
use crate::support::{Env, Run, have};

const MODIFIED: &str = "Thu, 26 Jan 2017 18:52:33 GMT";
const MODIFIED_SECONDS: u64 = 1_485_456_753;

/// A tar of files; a name that ends in `@` is a symbolic link, and one that contains `..` is written as it is.
pub(crate) fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o640);
        header.set_mtime(1_000_000_000);
        header.set_uid(77);
        header.set_gid(88);
        let (name, data): (&str, &[u8]) = match name.strip_suffix('@') {
            Some(name) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_link_name_literal(content).unwrap();
                (name, &[])
            }
            None => (name, content.as_bytes()),
        };
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(data.len() as u64);
        header.set_cksum();
        tar.append(&header, data).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn a_url_becomes_a_private_file_with_the_servers_time_and_the_urls_name() {
    let server = Server::new(|request| match request.path.as_str() {
        "/moved?q=1" => Answer::status(302).header("Location", "/other/name"),
        "/a%20b" | "/other/name" => Answer::ok("hello").header("Last-Modified", MODIFIED),
        _ => Answer::status(404),
    });
    let env = Env::new();
    let url = &server.url;
    let image = env.image(
        &format!(
            "FROM scratch\nADD {url}/a%20b /d/\nADD {url}/moved?q=1 /d/\nADD --chown=3:4 --chmod=644 {url}/a%20b /f\n"
        ),
        &[],
    );
    let fs = image.flatten();
    assert_eq!((fs["d/a b"].mode, fs["d/a b"].uid, fs["d/a b"].mtime), (0o600, 0, MODIFIED_SECONDS));
    assert_eq!(image.text("d/moved"), "hello", "the name is that of the URL, not of where it leads");
    assert_eq!((fs["f"].mode, fs["f"].uid, fs["f"].gid), (0o644, 3, 4));
    assert_eq!(fs["d"].mode, 0o755);
}

#[test]
fn a_second_build_asks_and_downloads_only_what_changed() {
    let version = std::sync::Arc::new(AtomicUsize::new(1));
    let current = version.clone();
    let server = Server::new(move |request| {
        let tag = format!("\"{}\"", current.load(Ordering::SeqCst));
        if request.header("if-none-match") == Some(&tag) {
            return Answer::status(304);
        }
        let dated = request.path == "/dated";
        if dated && request.header("if-modified-since") == Some(MODIFIED) {
            return Answer::status(304);
        }
        let answer = Answer::ok(format!("version {tag}"));
        if dated { answer.header("Last-Modified", MODIFIED) } else { answer.header("ETag", &tag) }
    });
    let env = Env::new();
    let dockerfile = format!("FROM scratch\nADD {0}/tagged /\nADD {0}/dated /\n", server.url);
    env.build(&dockerfile, &[]).ok();
    let run = env.build(&dockerfile, &[]);
    run.ok();
    assert!(run.steps().iter().all(|step| step.starts_with("CACHED")), "{:?}", run.steps());
    let asked: Vec<bool> = server
        .requests()
        .iter()
        .map(|request| request.header("if-none-match").is_some() || request.header("if-modified-since").is_some())
        .collect();
    assert_eq!(asked, [false, false, true, true]);
    version.store(2, Ordering::SeqCst);
    let image = env.image(&dockerfile, &[]);
    assert_eq!(image.text("tagged"), "version \"2\"");
}

#[test]
fn a_checksum_is_verified_and_makes_a_known_file_need_no_server() {
    let server = Server::new(|_| Answer::ok("hello"));
    let env = Env::new();
    let dockerfile = |sum: &str| format!("FROM scratch\nADD --checksum={sum} {}/x /x\n", server.url);
    let wrong = env.build(&dockerfile(&format!("sha256:{}", "0".repeat(64))), &[]);
    let text = wrong.fails(1);
    assert!(text.contains("checksum") && text.contains(&sha256(b"hello")), "{text}");
    let blob = sha256(b"hello").replace(':', "/");
    assert!(!env.state().join("blobs").join(&blob).exists(), "what is wrong is not kept");
    env.build(&dockerfile(&sha256(b"hello")), &[]).ok();
    let before = server.requests().len();
    env.build(&dockerfile(&sha256(b"hello")), &["--no-cache"]).ok();
    assert_eq!(server.requests().len(), before, "what the checksum names is there");
}

#[test]
fn a_url_is_asked_once_a_build_however_often_it_is_added() {
    let server = Server::new(|_| Answer::ok("x"));
    let env = Env::new();
    let add = format!("ADD {}/x /x\n", server.url);
    let dockerfile =
        format!("FROM scratch AS a\n{add}FROM scratch AS b\n{add}COPY --from=a /x /y\n{}", add.replace(" /x", " /z"));
    env.build(&dockerfile, &[]).ok();
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn broken_and_slow_transfers_come_whole_or_not_at_all() {
    let tries = AtomicUsize::new(0);
    let server = Server::new(move |request| match request.path.as_str() {
        "/cut" if tries.fetch_add(1, Ordering::SeqCst) == 0 => Answer { cut: Some(3), ..Answer::ok("all of it") },
        "/slow" => Answer { trickle: true, ..Answer::ok("s".repeat(5000)) },
        "/short" => Answer { cut: Some(3), ..Answer::ok("never all of it") },
        "/cut" => Answer::ok("all of it"),
        _ => Answer::status(404),
    });
    let env = Env::new();
    let image = env.image(&format!("FROM scratch\nADD {0}/cut {0}/slow /d/\n", server.url), &[]);
    assert_eq!(image.text("d/cut"), "all of it");
    assert_eq!(image.text("d/slow").len(), 5000);
    let run = env.build(&format!("FROM scratch\nADD {}/short /\n", server.url), &[]);
    assert!(run.fails(1).contains("/short"), "{}", run.stderr);
    let run = env.build(&format!("FROM scratch\nADD {}/none?token=secret /\n", server.url), &[]);
    assert!(run.fails(1).contains("404"), "{}", run.stderr);
}

#[test]
fn a_broken_transfer_goes_on_where_it_broke_off_if_the_file_is_the_same() {
    const BODY: &str = "a long file";
    let server = Server::new(|request| {
        let whole = Answer::ok(BODY).header("ETag", "\"1\"");
        match (request.path.as_str(), request.header("range")) {
            (_, None) => Answer { cut: Some(4), ..whole },
            ("/same", Some("bytes=4-")) if request.header("if-range") == Some("\"1\"") => {
                let range = format!("bytes 4-{}/{}", BODY.len() - 1, BODY.len());
                Answer { status: 206, ..Answer::ok(&BODY[4..]) }.header("Content-Range", &range)
            }
            // Another part than was asked for.
            _ => Answer { status: 206, ..Answer::ok(&BODY[2..]) }.header("Content-Range", "bytes 2-10/11"),
        }
    });
    let env = Env::new();
    let image = env.image(&format!("FROM scratch\nADD {}/same /f\n", server.url), &[]);
    assert_eq!(image.text("f"), BODY);
    let asked: Vec<Option<String>> =
        server.requests().iter().map(|request| request.header("range").map(str::to_owned)).collect();
    assert_eq!(asked, [None, Some("bytes=4-".to_owned())]);
    env.build(&format!("FROM scratch\nADD {}/other /f\n", server.url), &[]).fails(1);
}

#[test]
fn redirects_do_not_loop_and_lead_to_nothing_but_http() {
    let server = Server::new(|request| match request.path.as_str() {
        "/file" => Answer::status(302).header("Location", "file:///etc/passwd"),
        _ => Answer::status(302).header("Location", "/loop"),
    });
    let env = Env::new();
    for (path, word) in [("file", "neither http nor https"), ("loop", "too many redirects")] {
        let run = env.build(&format!("FROM scratch\nADD {}/{path} /x\n", server.url), &[]);
        assert!(run.fails(1).contains(word), "{}", run.stderr);
    }
    assert!(server.requests().len() < 20);
}

#[test]
fn a_url_without_a_name_needs_a_file_as_destination() {
    let server = Server::new(|_| Answer::ok("x"));
    let env = Env::new();
    let run = env.build(&format!("FROM scratch\nADD {}/ /d/\n", server.url), &[]);
    assert!(run.fails(1).contains("no file name"), "{}", run.stderr);
    assert_eq!(env.image(&format!("FROM scratch\nADD {}/ /f\n", server.url), &[]).text("f"), "x");
}

#[test]
fn archives_from_a_url_are_unpacked_only_when_asked_for_and_stay_inside() {
    let good = tar_of(&[("dir/file", "inside")]);
    let bad = tar_of(&[("../../escaped", "outside")]);
    let server =
        Server::new(move |request| Answer::ok(if request.path == "/bad" { bad.clone() } else { good.clone() }));
    let env = Env::new();
    let image =
        env.image(&format!("FROM scratch\nADD {0}/x.tar /kept/\nADD --unpack {0}/x.tar /open/\n", server.url), &[]);
    let fs = image.flatten();
    assert!(fs.contains_key("kept/x.tar") && !fs.contains_key("kept/dir"));
    assert_eq!((image.text("open/dir/file").as_str(), fs["open/dir/file"].uid), ("inside", 77));
    let run = env.build(&format!("FROM scratch\nADD --unpack {}/bad /d/\n", server.url), &[]);
    assert!(run.fails(1).contains("escaped"), "{}", run.stderr);
}

/// A repository with its work tree, both gone with the test.
pub(crate) struct Repository(pub(crate) PathBuf);

impl Repository {
    pub(crate) fn new(env: &Env, name: &str) -> Self {
        let this = Self(env.path("repositories").join(name));
        fs::create_dir_all(&this.0).unwrap();
        this.git(&["init", "-q", "-b", "main"]);
        this
    }

    pub(crate) fn git(&self, args: &[&str]) -> String {
        let output = Command::new("git")
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", &self.0)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_COMMITTER_DATE", "@1500000000 +0000")
            .env("GIT_AUTHOR_DATE", "@1500000000 +0000")
            .args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"])
            .args(args)
            .current_dir(&self.0)
            .output()
            .unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub(crate) fn file(&self, name: &str, content: &str) {
        fs::create_dir_all(self.0.join(name).parent().unwrap()).unwrap();
        fs::write(self.0.join(name), content).unwrap();
    }

    /// Commits everything and returns the commit.
    pub(crate) fn commit(&self) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-qm", "x"]);
        // For servers that only hand out files.
        self.git(&["update-server-info"]);
        self.git(&["rev-parse", "HEAD"])
    }
}

/// `git daemon` for the repositories of a workplace.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) url: String,
}

impl Daemon {
    pub(crate) fn new(env: &Env) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let base = env.path("repositories");
        let child = Command::new("git")
            .args(["-c", "safe.directory=*", "daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1"])
            .args([format!("--port={port}"), format!("--base-path={}", base.display())])
            .arg(&base)
            .env("HOME", env.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let this = Self { child, url: format!("git://127.0.0.1:{port}") };
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        this
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // `git daemon` is a child of `git`, which passes the signal on.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        self.child.wait().ok();
    }
}

pub(crate) fn example(env: &Env) -> (Repository, String) {
    let repository = Repository::new(env, "app");
    repository.file("Dockerfile", "FROM scratch\nCOPY . /src/\n");
    repository.file("README", "one\n");
    repository.file("sub/tool", "#!/bin/sh\n");
    fs::set_permissions(repository.0.join("sub/tool"), fs::Permissions::from_mode(0o700)).unwrap();
    symlink("README", repository.0.join("link")).unwrap();
    let commit = repository.commit();
    (repository, commit)
}

#[test]
fn a_repository_is_added_with_plain_modes_and_the_commits_time() {
    if !have("git", &["git"]) {
        return;
    }
    let env = Env::new();
    let (repository, first) = example(&env);
    repository.git(&["tag", "-am", "v1", "v1"]);
    let tag = repository.git(&["rev-parse", "v1"]);
    repository.file("README", "two\n");
    repository.commit();
    let daemon = Daemon::new(&env);
    let url = format!("{}/app", daemon.url);
    let short = &first[..10];
    let image = env.image(
        &format!(
            "FROM scratch\nADD {url} /head/\nADD {url}#v1 /tag/\nADD {url}#{first}:sub /commit/\n\
             ADD --checksum={short} {url}?tag=v1 /sum/\nADD --checksum={tag} {url}#v1 /tagsum/\n\
             ADD --keep-git-dir=true {url}#main /kept/\n"
        ),
        &[],
    );
    let fs = image.flatten();
    assert_eq!(image.text("head/README"), "two\n");
    assert_eq!(image.text("tag/README"), "one\n");
    assert_eq!((fs["commit/tool"].mode, fs["commit/tool"].uid, fs["commit/tool"].mtime), (0o755, 0, 1_500_000_000));
    assert_eq!(fs["head/README"].mode, 0o644);
    assert!(!fs.contains_key("head/.git") && fs.contains_key("sum/README") && fs.contains_key("tagsum/README"));
    assert!(fs.contains_key("kept/.git/HEAD") && !fs.contains_key("kept/.git/hooks"), "{:?}", fs.keys());
    let config = image.text("kept/.git/config");
    assert!(config.contains(&url), "{config}");

    let again = env.build(&format!("FROM scratch\nADD {url} /head/\n"), &[]);
    assert_eq!(again.steps().len(), 1);
    assert!(again.steps()[0].starts_with("CACHED"), "{:?}", again.steps());
    let run = env.build(&format!("FROM scratch\nADD --checksum={} {url} /x/\n", "0".repeat(40)), &[]);
    assert!(run.fails(1).contains("expected 000"), "{}", run.stderr);
    let run = env.build(&format!("FROM scratch\nADD {url}#nosuch /x/\n"), &[]);
    assert!(run.fails(1).contains("nosuch"), "{}", run.stderr);
}

#[test]
fn a_server_of_mere_files_gives_repositories_too() {
    if !have("dumb http", &["git"]) {
        return;
    }
    let env = Env::new();
    let (repository, _) = example(&env);
    let server = Server::of_directory(repository.0.clone());
    let image = env.image(&format!("FROM scratch\nADD {}/.git#main /x/\n", server.url), &[]);
    assert_eq!(image.text("x/README"), "one\n");
}

/// Answers as a web server with git's own program for the repositories below `root`, to whoever shows `authorization`.
pub(crate) fn smart_http(root: &Path, request: &Request, authorization: &str) -> Answer {
    if request.header("authorization") != Some(authorization) {
        return Answer::status(401).header("WWW-Authenticate", "Basic realm=\"x\"");
    }
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let mut child = Command::new("git")
        .args(["-c", "safe.directory=*", "http-backend"])
        .envs([("GIT_PROJECT_ROOT", root.to_str().unwrap()), ("GIT_HTTP_EXPORT_ALL", "1"), ("HOME", "/none")])
        .envs([("PATH_INFO", path), ("QUERY_STRING", query), ("REQUEST_METHOD", &request.method)])
        .env("CONTENT_TYPE", request.header("content-type").unwrap_or_default())
        .env("HTTP_CONTENT_ENCODING", request.header("content-encoding").unwrap_or_default())
        .env("GIT_PROTOCOL", request.header("git-protocol").unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&request.body).unwrap();
    let output = child.wait_with_output().unwrap().stdout;
    let end = output.windows(4).position(|part| part == b"\r\n\r\n").unwrap();
    let mut answer = Answer::ok(&output[end + 4..]);
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        match line.split_once(": ") {
            Some(("Status", status)) => answer.status = status[..3].parse().unwrap(),
            Some((name, value)) => answer = answer.header(name, value),
            None => {}
        }
    }
    answer
}

#[test]
fn a_password_in_a_url_is_used_and_nowhere_left() {
    if !have("smart http", &["git"]) {
        return;
    }
    let env = Env::new();
    example(&env);
    let root = env.path("repositories");
    let served = root.clone();
    let server = Server::new(move |request| smart_http(&served, request, "Basic dXNlcjpzM2NyM3Q="));
    let host = server.url.strip_prefix("http://").unwrap();
    let dockerfile = format!("FROM scratch\nADD --keep-git-dir=true http://user:s3cr3t@{host}/app/.git#main /x/\n");
    let image = env.image(&dockerfile, &[]);
    assert_eq!(image.text("x/README"), "one\n");
    assert!(server.requests().iter().any(|request| request.method == "POST"), "the smart protocol");
    let has = |bytes: &[u8]| bytes.windows(6).any(|part| part == b"s3cr3t");
    assert!(image.flatten().values().all(|node| !has(&node.content)), "a password is in the image");
    for record in fs::read_dir(env.state().join("records")).unwrap().flatten() {
        assert!(!has(&fs::read(record.path()).unwrap()), "a password is in a record");
    }
    let run = env.build(&format!("FROM scratch\nADD http://user:wrong-s3cr3t@{host}/app/.git /x/\n"), &[]);
    let message = run.fails(1).lines().next().unwrap();
    assert!(message.contains("git ls-remote") && !message.contains("s3cr3t"), "{message}");
}

#[test]
fn a_cancelled_build_leaves_no_git() {
    if !have("cancelled git", &["git"]) {
        return;
    }
    let env = Env::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    env.file("Dockerfile", format!("FROM scratch\nADD git://{}/x /x/\n", listener.local_addr().unwrap()));
    let context = env.path("context").display().to_string();
    let mut child = env.command(&["build", &context]).stderr(Stdio::null()).spawn().unwrap();
    // It asks, and is never answered.
    let (_connection, _) = listener.accept().unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let here = env.state().canonicalize().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let left: Vec<_> = processes.filter_map(|entry| fs::read_link(entry.path().join("cwd")).ok()).collect();
    assert!(left.iter().all(|cwd| !cwd.starts_with(&here)), "a process is left");
}

#[test]
fn nothing_of_a_hostile_repository_runs_or_leads_out() {
    if !have("hostile git", &["git"]) {
        return;
    }
    let env = Env::new();
    let canary = env.path("canary");
    let touch = format!("touch {}\n", canary.display());
    let (repository, _) = example(&env);
    symlink("/", repository.0.join("out")).unwrap();
    symlink("/etc", repository.0.join("sub/etc")).unwrap();
    repository.file(".gitattributes", "* filter=evil\n");
    repository.file("hooks/post-checkout", &format!("#!/bin/sh\n{touch}"));
    fs::set_permissions(repository.0.join("hooks/post-checkout"), fs::Permissions::from_mode(0o755)).unwrap();
    repository.commit();
    // The user's own settings must not count either.
    let home = format!(
        "[core]\n\thooksPath = {}\n[filter \"evil\"]\n\tsmudge = {touch}[protocol]\n\tallow = always\n",
        repository.0.join("hooks").display()
    );
    fs::write(env.path(".gitconfig"), home).unwrap();
    let daemon = Daemon::new(&env);
    let url = format!("{}/app", daemon.url);

    let image = env.image(&format!("FROM scratch\nADD {url} /x/\n"), &[]);
    assert!(image.flatten().contains_key("x/out"), "a link is copied as a link");
    for bad in [
        format!("{url}#main:out/etc"),
        format!("{url}#main:sub/etc"),
        format!("{url}#main:../.."),
        format!("{url}#main:.git"),
        format!("{url}#--upload-pack={}", touch.trim()).replace(' ', "%20"),
        format!("{url}#-btest"),
        format!("{}/--upload-pack=x#a:b:c", daemon.url),
        "ssh://-oProxyCommand=x/y".to_owned(),
        "git@-oProxyCommand:y".to_owned(),
    ] {
        let run = env.build(&format!("FROM scratch\nADD {bad} /x/\n"), &[]);
        assert_eq!(run.code, 1, "{bad}: {}{}", run.stdout, run.stderr);
    }

    // A submodule by path is a repository of this machine: not to be had.
    let local = Repository::new(&env, "local");
    local.file("secret", "s");
    local.commit();
    repository.git(&["submodule", "add", "-q", &local.0.display().to_string(), "module"]);
    repository.commit();
    let run = env.build(&format!("FROM scratch\nADD {url} /x/\n"), &[]);
    assert!(run.fails(1).contains("submodule"), "{}", run.stderr);
    let image = env.image(&format!("FROM scratch\nADD {url}?submodules=false /x/\n"), &[]);
    assert!(!image.flatten().contains_key("x/module/secret"));
    assert!(!canary.exists(), "something of the repository ran");
}

#[test]
fn submodules_come_along() {
    if !have("submodules", &["git"]) {
        return;
    }
    let env = Env::new();
    let (repository, _) = example(&env);
    let inner = Repository::new(&env, "inner");
    inner.file("deep", "in the submodule");
    inner.commit();
    let daemon = Daemon::new(&env);
    repository.git(&["submodule", "add", "-q", &format!("{}/inner", daemon.url), "module"]);
    repository.git(&["config", "-f", ".gitmodules", "submodule.module.url", "../inner"]);
    repository.commit();
    let image = env.image(&format!("FROM scratch\nADD {}/app /x/\n", daemon.url), &[]);
    assert_eq!(image.text("x/module/deep"), "in the submodule");
    assert!(!image.flatten().contains_key("x/module/.git"));
}

/// Builds another context than a directory.
pub(crate) fn build_context(env: &Env, context: &str, options: &[&str], stdin: &[u8]) -> Run {
    let dest = format!("type=oci,tar=false,dest={}", env.path("out").display());
    let mut args = vec!["build", "--progress", "json", "--output", &dest];
    args.extend(options);
    args.push(context);
    fs::remove_dir_all(env.path("out")).ok();
    let mut command = env.command(&args);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may refuse to read.
    drop(child.stdin.take().unwrap().write_all(stdin));
    Run::of(&child.wait_with_output().unwrap())
}

#[track_caller]
fn image_of(env: &Env, context: &str, options: &[&str], stdin: &[u8]) -> Image {
    build_context(env, context, options, stdin).ok();
    Image::open(&env.path("out"), None)
}

pub(crate) const COPY_ALL: &str = "FROM scratch\nCOPY . /src/\n";

#[test]
fn standard_input_is_an_archive_of_any_compression_or_a_dockerfile() {
    let env = Env::new();
    let tar = tar_of(&[
        ("Dockerfile", COPY_ALL),
        ("a", "A"),
        (".dockerignore", "a\n"),
        ("d/Other", "FROM scratch\nCOPY a /o\n"),
    ]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let compressed = [tar.clone(), gzip.finish().unwrap(), zstd::encode_all(&tar[..], 1).unwrap()];
    for stdin in &compressed {
        let image = image_of(&env, "-", &[], stdin);
        let fs = image.flatten();
        assert_eq!((image.text("src/a").as_str(), fs["src/a"].uid, fs["src/a"].mode), ("A", 0, 0o640));
    }
    let run = build_context(&env, "-", &[], &tar);
    assert!(run.stdout.contains("ignore-file-unused"), "{}", run.stdout);
    assert_eq!(image_of(&env, "-", &["-f", "d/Other"], &tar).text("o"), "A");
    let run = build_context(&env, "-", &["-f", "nope"], &tar);
    assert!(run.fails(1).contains("nope"), "{}", run.stderr);
    assert_eq!(image_of(&env, "-", &[], b"FROM scratch\nCOPY <<EOF /x\nhi\nEOF\n").text("x"), "hi\n");
    let run = build_context(&env, "-", &[], b"FROM scratch\nCOPY a /\n");
    assert!(run.fails(1).contains('a'), "{}", run.stderr);
    build_context(&env, "-", &["-f", "-"], b"").fails(2);
    let left: Vec<_> = fs::read_dir(env.state().join("tmp")).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(left.iter().all(|path| !path.join("context").exists()), "{left:?}");
}

#[test]
fn an_archive_file_is_a_context_and_what_is_none_is_refused() {
    let env = Env::new();
    fs::write(env.path("c.tar"), tar_of(&[("Dockerfile", COPY_ALL), ("a", "A")])).unwrap();
    assert_eq!(image_of(&env, "c.tar", &[], b"").text("src/a"), "A");
    fs::write(env.path("text"), "FROM scratch\n").unwrap();
    assert!(build_context(&env, "text", &[], b"").fails(1).contains("not a tar"), "a file that is no archive");
    let dockerfile = b"FROM scratch\nCOPY --from=other a /a\n";
    fs::create_dir(env.path("context")).unwrap();
    assert_eq!(image_of(&env, "context", &["-f", "-", "--build-context", "other=c.tar"], dockerfile).text("a"), "A");
}

#[test]
fn hostile_archives_reach_nothing_of_this_machine() {
    let env = Env::new();
    let canary = env.path("canary");
    fs::write(&canary, "host bytes").unwrap();
    let canary_path = canary.display().to_string();
    for tar in [
        tar_of(&[("Dockerfile", COPY_ALL), ("../../canary", "changed")]),
        tar_of(&[("Dockerfile", COPY_ALL), (&canary_path, "changed")]),
        tar_of(&[("Dockerfile", COPY_ALL), ("d@", "/"), (&format!("d{canary_path}"), "changed")]),
        tar_of(&[("Dockerfile@", &canary_path)]),
        tar_of(&[("Dockerfile", "FROM scratch\nCOPY f /f\n"), ("f@", &canary_path)]),
        tar_of(&[("Dockerfile", &format!("FROM scratch\nCOPY ctx{canary_path} /f\n")), ("ctx@", "/")]),
        tar_of(&[(".@", "/"), ("Dockerfile", COPY_ALL)]),
    ] {
        let run = build_context(&env, "-", &[], &tar);
        assert_eq!(fs::read_to_string(&canary).unwrap(), "host bytes");
        if run.code == 0 {
            let image = Image::open(&env.path("out"), None);
            let found = image.flatten().values().any(|file| file.content.windows(10).any(|part| part == b"host bytes"));
            assert!(!found, "bytes of this machine are in the image");
        }
    }
    let cut = &tar_of(&[("Dockerfile", COPY_ALL), ("a", "A")])[..1200];
    assert_ne!(build_context(&env, "-", &[], cut).code, 0, "an archive that ends in the middle");
}

#[test]
fn a_url_is_a_context_an_archive_or_a_dockerfile() {
    let env = Env::new();
    let tar = tar_of(&[("Containerfile", COPY_ALL), ("a", "A")]);
    let server = Server::new(move |request| match request.path.as_str() {
        "/c.tar" => Answer::ok(tar.clone()),
        "/Dockerfile" => Answer::ok("FROM scratch\nCOPY <<EOF /x\nhi\nEOF\n"),
        "/one/file" => Answer::ok("one"),
        "/page" => Answer::ok("<!doctype html>"),
        _ => Answer::status(404),
    });
    let url = &server.url;
    assert_eq!(image_of(&env, &format!("{url}/c.tar"), &[], b"").text("src/a"), "A");
    assert_eq!(image_of(&env, &format!("{url}/Dockerfile"), &[], b"").text("x"), "hi\n");
    build_context(&env, &format!("{url}/Dockerfile"), &["-f", "other"], b"").fails(1);
    build_context(&env, &format!("{url}/none"), &[], b"").fails(1);
    assert!(build_context(&env, &format!("{url}/page"), &[], b"").fails(1).contains(".git"), "a hint for web pages");
    let dockerfile = b"FROM scratch\nCOPY --from=t a /a\nCOPY --from=f file /f\n";
    fs::create_dir(env.path("context")).unwrap();
    let options =
        ["-f", "-", "--build-context", &format!("t={url}/c.tar"), "--build-context", &format!("f={url}/one/file")];
    let image = image_of(&env, "context", &options, dockerfile);
    assert_eq!((image.text("a").as_str(), image.text("f").as_str()), ("A", "one"));
}

#[test]
fn a_repository_is_a_context() {
    if !have("git context", &["git"]) {
        return;
    }
    let env = Env::new();
    let (repository, _) = example(&env);
    repository.file("sub/Dockerfile", "FROM scratch\nCOPY tool /t\n");
    repository.file("sub/evil/Dockerfile", "FROM scratch\n");
    symlink("/etc/passwd", repository.0.join("sub/passwd")).unwrap();
    repository.commit();
    let daemon = Daemon::new(&env);
    let url = format!("{}/app", daemon.url);
    let image = image_of(&env, &url, &[], b"");
    assert_eq!(image.text("src/README"), "one\n");
    assert!(!image.flatten().contains_key("src/.git"));
    let kept = image_of(&env, &url, &["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"], b"");
    assert!(kept.flatten().contains_key("src/.git/HEAD"));
    assert!(image_of(&env, &format!("{url}#main:sub"), &[], b"").flatten().contains_key("t"));
    build_context(&env, &format!("{url}#main:sub"), &["-f", "passwd"], b"").fails(1);
    let dockerfile = b"FROM scratch\nCOPY --from=r README /r\n";
    fs::create_dir(env.path("context")).unwrap();
    let image = image_of(&env, "context", &["-f", "-", "--build-context", &format!("r={url}#main")], dockerfile);
    assert_eq!(image.text("r"), "one\n");
    assert!(Path::new(&env.state()).exists());
}
