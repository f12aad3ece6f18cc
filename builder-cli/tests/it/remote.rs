//! Servers that want to know who asks, and those that lie.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::fetch::{COPY_ALL, Daemon, Repository, build_context, example, smart_http, tar_of};
use crate::image::Image;
use crate::server::{Answer, Request, Server};
use crate::support::{Env, Run, have};

/// Not a word of anything else.
const TOKEN: &str = "t0ken-of-the-test";
/// `x-access-token:` and the token.
const GIT_BASIC: &str = "basic eC1hY2Nlc3MtdG9rZW46dDBrZW4tb2YtdGhlLXRlc3Q=";

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

/// Asserts that the token is neither in what was said, nor in a file that stays.
#[track_caller]
fn assert_no_trace(env: &Env, run: &Run) {
    let encoded = GIT_BASIC.strip_prefix("basic ").unwrap();
    for text in [TOKEN, encoded] {
        assert!(!has(run.stdout.as_bytes(), text) && !has(run.stderr.as_bytes(), text), "{}{}", run.stdout, run.stderr);
        // Not on the command line, where other tests look for it.
        fs::write(env.path("wanted"), text).unwrap();
        let found = env.as_image_root("grep").args(["-rlaF", "-f", "wanted", "state"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "", "the secret stays in the state directory");
        for node in env.path("out").exists().then(|| Image::open(&env.path("out"), None).flatten()).iter().flatten() {
            assert!(!has(&node.1.content, text), "the secret is in the image: {}", node.0);
        }
    }
}

/// Whether the command line of any process has the token.
fn on_a_command_line() -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok()).any(|line| has(&line, TOKEN))
}

#[test]
fn a_file_is_fetched_with_the_secret_of_its_host_which_goes_nowhere_else() {
    let env = Env::new();
    let stranger = Server::new(|_| Answer::ok("from the stranger"));
    let away = format!("{}/away", stranger.url);
    let server = Server::new(move |request| {
        let known = request.header("authorization") == Some(&format!("Bearer {TOKEN}"));
        match request.path.as_str() {
            "/away" => Answer::status(302).header("Location", &away),
            "/near" => Answer::status(302).header("Location", "/file"),
            "/cut" if request.header("range").is_none() => {
                Answer { cut: Some(3), ..Answer::ok("private").header("ETag", "\"1\"") }
            }
            "/cut" if known => Answer { status: 206, ..Answer::ok("vate") }.header("Content-Range", "bytes 3-6/7"),
            "/c.tar" if known => Answer::ok(tar_of(&[("Dockerfile", COPY_ALL), ("a", "A")])),
            _ if known => Answer::ok("private"),
            // As servers do that tell the client what it got wrong.
            _ => Answer { status: 401, ..Answer::ok(format!("not {:?}", request.header("authorization"))) },
        }
    });
    fs::write(env.path("token"), format!("{TOKEN}\n")).unwrap();
    let secret = ["--secret", "id=HTTP_AUTH_TOKEN_127.0.0.1,src=token"];
    let url = &server.url;
    let image = env.image(&format!("FROM scratch\nADD {url}/file {url}/near {url}/cut {url}/away /d/\n"), &secret);
    for name in ["file", "near", "cut"] {
        assert_eq!(image.text(&format!("d/{name}")), "private", "{name}");
    }
    assert_eq!(image.text("d/away"), "from the stranger");
    assert!(stranger.requests().iter().all(|request| request.header("authorization").is_none()), "it went along");

    let header = ["--secret", "id=HTTP_AUTH_HEADER_127.0.0.1,env=VALUE"];
    env.file("Dockerfile", format!("FROM scratch\nADD {url}/file /f\n"));
    let mut command = env.command(&["build", "--no-cache", header[0], header[1], "context"]);
    Run::of(&command.env("VALUE", format!("Bearer {TOKEN}")).output().unwrap()).ok();

    let context = build_context(&env, &format!("{url}/c.tar"), &secret, b"");
    context.ok();
    assert_eq!(Image::open(&env.path("out"), None).text("src/a"), "A");
    assert_no_trace(&env, &context);

    let run = env.build(&format!("FROM scratch\nADD {url}/other /f\n"), &[]);
    assert!(run.fails(1).contains("HTTP_AUTH_TOKEN_<host>"), "{}", run.stderr);
    let wrong = ["--secret", "id=HTTP_AUTH_HEADER_127.0.0.1,src=wrong"];
    fs::write(env.path("wrong"), format!("Basic {TOKEN}")).unwrap();
    let run = env.build(&format!("FROM scratch\nADD {url}/other2 /f\n"), &wrong);
    run.fails(1);
    assert!(run.stderr.contains("not authorized") && run.stderr.contains("****"), "{}", run.stderr);
    assert_no_trace(&env, &run);
    fs::write(env.path("wrong"), "Basic x\nHost: evil\n").unwrap();
    let run = env.build(&format!("FROM scratch\nADD {url}/other3 /f\n"), &wrong);
    assert!(run.fails(2).contains("HTTP_AUTH_HEADER_127.0.0.1"), "{}", run.stderr);
}

#[test]
fn a_password_in_a_url_survives_a_redirect_at_home_and_no_other() {
    let env = Env::new();
    let stranger = Server::new(|_| Answer::ok("from the stranger"));
    let away = format!("{}/away", stranger.url);
    let server = Server::new(move |request| match (request.path.as_str(), request.header("authorization")) {
        (_, None) => Answer::status(401),
        ("/away", _) => Answer::status(302).header("Location", &away),
        ("/near", _) => Answer::status(302).header("Location", "file"),
        (_, Some("Basic dTpwIHE=")) => Answer::ok("private"),
        _ => Answer::status(403),
    });
    let url = server.url.replace("http://", "http://u:p%20q@");
    let image = env.image(&format!("FROM scratch\nADD {url}/near {url}/away /d/\n"), &[]);
    assert_eq!((image.text("d/near").as_str(), image.text("d/away").as_str()), ("private", "from the stranger"));
    assert!(stranger.requests().iter().all(|request| request.header("authorization").is_none()));
}

/// A web server with git's program behind it, that notes whether the token is ever on a command line.
fn git_server(env: &Env, seen: &Arc<AtomicBool>) -> Server {
    let (root, seen) = (env.path("repositories"), seen.clone());
    Server::new(move |request| {
        seen.fetch_or(on_a_command_line(), Ordering::SeqCst);
        smart_http(&root, request, GIT_BASIC)
    })
}

#[test]
fn a_private_repository_is_fetched_with_a_token_which_is_shown_to_nobody() {
    if !have("git token", &["git"]) {
        return;
    }
    let env = Env::new();
    example(&env);
    let seen = Arc::default();
    let server = git_server(&env, &seen);
    let host = server.url.strip_prefix("http://").unwrap();
    fs::write(env.path("token"), format!("{TOKEN}\n")).unwrap();
    fs::write(env.path("header"), GIT_BASIC).unwrap();
    let url = format!("{}/app/.git", server.url);
    let dockerfile = format!("FROM scratch\nADD --keep-git-dir=true {url}#main /x/\n");
    for secret in [
        "id=GIT_AUTH_TOKEN,src=token".to_owned(),
        format!("id=GIT_AUTH_TOKEN.{host},src=token"),
        format!("id=GIT_AUTH_HEADER.{host},src=header"),
    ] {
        let run = env.build(&dockerfile, &["--no-cache", "--secret", &secret]);
        run.ok();
        assert_eq!(Image::open(&env.path("out"), None).text("x/README"), "one\n", "{secret}");
        assert_no_trace(&env, &run);
    }
    let run = build_context(&env, &url, &["--secret", "id=GIT_AUTH_TOKEN,src=token"], b"");
    run.ok();
    assert_no_trace(&env, &run);
    assert!(!seen.load(Ordering::SeqCst), "the token is on a command line");

    let run = env.build(&format!("FROM scratch\nADD {url}#v2 /x/\n"), &[]);
    assert!(run.fails(1).contains("GIT_AUTH_TOKEN.<host>"), "{}", run.stderr);
    let run =
        env.build(&format!("FROM scratch\nADD {url}#v2 /x/\n"), &["--secret", "id=GIT_AUTH_TOKEN.other,src=token"]);
    run.fails(1);
}

#[test]
fn the_token_of_a_repository_follows_no_redirect_and_no_submodule_to_another_host() {
    if !have("git token elsewhere", &["git"]) {
        return;
    }
    let env = Env::new();
    let (repository, _) = example(&env);
    let inner = Repository::new(&env, "inner");
    inner.file("deep", "in the submodule");
    inner.commit();
    let asked: Arc<Mutex<Vec<Request>>> = Arc::default();
    let (log, root) = (asked.clone(), env.path("repositories"));
    let stranger = Server::new(move |request| {
        log.lock().unwrap().push(request.clone());
        let anonymous = Answer::status(401);
        if request.header("authorization").is_some() { anonymous } else { serve_to_anybody(&root, request) }
    });
    let home = git_server(&env, &Arc::default());
    let away = stranger.url.clone();
    let moved = Server::new(move |request| Answer::status(301).header("Location", &format!("{away}{}", request.path)));
    fs::write(env.path("token"), TOKEN).unwrap();
    let secret = ["--secret", "id=GIT_AUTH_TOKEN,src=token"];

    let run = env.build(&format!("FROM scratch\nADD {}/app/.git#main /x/\n", moved.url), &secret);
    assert!(run.fails(1).contains("redirect"), "{}", run.stderr);
    assert!(asked.lock().unwrap().is_empty(), "the redirect was followed with the token");

    repository.git(&["-c", "protocol.allow=always", "submodule", "add", "-q", "../inner", "module"]);
    repository.git(&["config", "-f", ".gitmodules", "submodule.module.url", &format!("{}/inner/.git", stranger.url)]);
    repository.commit();
    let image = env.image(&format!("FROM scratch\nADD {}/app/.git#main /x/\n", home.url), &secret);
    assert_eq!(image.text("x/module/deep"), "in the submodule");
    let asked = asked.lock().unwrap();
    assert!(!asked.is_empty() && asked.iter().all(|request| request.header("authorization").is_none()), "{asked:?}");
}

fn serve_to_anybody(root: &Path, request: &Request) -> Answer {
    let mut known = request.clone();
    known.set_header("authorization", "anybody");
    smart_http(root, &known, "anybody")
}

#[test]
fn every_parameter_of_a_git_query_counts() {
    if !have("git query", &["git"]) {
        return;
    }
    let env = Env::new();
    let (repository, first) = example(&env);
    repository.git(&["tag", "-a", "-m", "x", "v1"]);
    repository.git(&["branch", "old"]);
    repository.file("README", "two\n");
    let second = repository.commit();
    let daemon = Daemon::new(&env);
    let url = format!("{}/app", daemon.url);
    let add = |query: &str| env.image(&format!("FROM scratch\nADD {url}?{query} /x/\n"), &[]);
    for (query, text) in [
        ("tag=v1".to_owned(), "one\n"),
        ("branch=old".to_owned(), "one\n"),
        ("ref=main".to_owned(), "two\n"),
        (format!("commit={first}"), "one\n"),
        (format!("branch=main&checksum={}", &second[..8]), "two\n"),
        // The branch has gone on, and that does not matter.
        (format!("branch=main&commit={first}&fetch-by-commit=true"), "one\n"),
    ] {
        assert_eq!(add(&query).text("x/README"), text, "{query}");
    }
    assert_eq!(add("branch=old&subdir=sub").text("x/tool"), "#!/bin/sh\n");
    assert!(add("branch=old&keep-git-dir=true").flatten().contains_key("x/.git/HEAD"));
    let run = env.build(&format!("FROM scratch\nADD {url}?branch=main&commit={first} /x/\n"), &[]);
    assert!(run.fails(1).contains("is at commit"), "{}", run.stderr);
    let run = env.build(&format!("FROM scratch\nADD {url}?branch=main&fetch-by-commit=true /x/\n"), &[]);
    assert!(run.fails(1).contains("commit=HASH"), "{}", run.stderr);

    let time = |image: &Image| image.flatten()["x/README"].mtime;
    assert_eq!(time(&add("branch=old&mtime=commit")), 1_500_000_000);
    assert!(time(&add("branch=old&mtime=checkout")) > 1_600_000_000, "the time of the build");
    let dockerfile = format!("FROM scratch\nADD {url}?branch=old&mtime=checkout /x/\n");
    let dated = env.image(&dockerfile, &["--build-arg", "SOURCE_DATE_EPOCH=1550000000"]);
    assert_eq!(time(&dated), 1_550_000_000, "reproducible all the same");
}

#[test]
fn nothing_that_gitmodules_says_reaches_this_machine() {
    if !have("hostile gitmodules", &["git"]) {
        return;
    }
    let env = Env::new();
    let canary = env.path("canary");
    let touch = format!("touch {}", canary.display());
    let secret = Repository::new(&env, "secret");
    secret.file("secret", "host bytes");
    secret.commit();
    let (repository, commit) = example(&env);
    let daemon = Daemon::new(&env);
    let good = format!("{}/secret", daemon.url);
    for (name, path, url, more) in [
        ("m", "m", format!("ext::sh -c {}", touch.replace(' ', "% ")), ""),
        ("m", "m", format!("file://{}", secret.0.display()), ""),
        ("m", "m", secret.0.display().to_string(), ""),
        ("m", "m", "../../../../../../etc".to_owned(), ""),
        ("m", "m", format!("--upload-pack={touch}"), ""),
        ("m", "m", format!("-u{touch}"), ""),
        ("m", "m", "ssh://-oProxyCommand=x/y".to_owned(), ""),
        ("m", "m", "fd::17".to_owned(), ""),
        ("m", "-m", good.clone(), ""),
        ("../../../m", "m", good.clone(), ""),
        ("../hooks", "m", good.clone(), ""),
        ("m", "../out", good.clone(), ""),
        ("m", "sub/../../out", good.clone(), ""),
        ("m", "link/m", good.clone(), ""),
        ("m", "m", good.clone(), "update = !touch"),
    ] {
        let more = more.replace("touch", &touch);
        let text = format!("[submodule \"{name}\"]\n\tpath = {path}\n\turl = {url}\n\t{more}\n");
        repository.file(".gitmodules", &text);
        repository.git(&["add", ".gitmodules"]);
        let at = if path.contains("..") || path.starts_with("link") { "m" } else { path };
        repository.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{},{at}", head(&secret))]);
        repository.git(&["commit", "-qm", "hostile"]);
        let run = env.build(&format!("FROM scratch\nADD {}/app#main /x/\n", daemon.url), &[]);
        assert!(!canary.exists(), "{text} ran something");
        if run.code == 0 {
            let image = Image::open(&env.path("out"), None).flatten();
            let found = image.values().any(|file| file.content == b"host bytes");
            assert!(url == good || !found, "{text}");
        } else {
            assert_eq!(run.code, 1, "{text}: {}", run.stderr);
        }
        assert!(!env.path("out/secret").exists() && !env.path("repositories/out").exists(), "{text}");
        repository.git(&["reset", "-q", "--hard", &commit]);
    }
}

fn head(repository: &Repository) -> String {
    repository.git(&["rev-parse", "HEAD"])
}

/// A tree made by hand, with names that git itself would not add.
#[test]
fn names_that_git_never_makes_are_not_checked_out() {
    if !have("hostile trees", &["git"]) {
        return;
    }
    let env = Env::new();
    let canary = env.path("canary");
    let (repository, _) = example(&env);
    repository.file("hook", &format!("#!/bin/sh\ntouch {}\n", canary.display()));
    let blob = repository.git(&["hash-object", "-w", "hook"]);
    let config = format!("[core]\n\tfsmonitor = \"touch {}\"\n", canary.display());
    repository.file("config", &config);
    let config = repository.git(&["hash-object", "-w", "config"]);
    let tree = |lines: &str| {
        fs::write(repository.0.join("tree"), lines).unwrap();
        let script = "git mktree < tree";
        repository.git(&["-c", &format!("alias.x=!{script}"), "x"])
    };
    let link = {
        fs::write(repository.0.join("target"), ".git/hooks").unwrap();
        repository.git(&["hash-object", "-w", "target"])
    };
    let hooks = tree(&format!("100755 blob {blob}\tpost-checkout\n"));
    let git_dir = tree(&format!("100644 blob {config}\tconfig\n040000 tree {hooks}\thooks\n"));
    let daemon = Daemon::new(&env);
    for (number, lines) in [
        format!("040000 tree {git_dir}\t.git\n"),
        format!("040000 tree {git_dir}\t.GIT\n"),
        format!("040000 tree {git_dir}\tgit~1\n"),
        format!("040000 tree {git_dir}\t..\n"),
        format!("120000 blob {link}\tA\n040000 tree {hooks}\ta\n"),
    ]
    .iter()
    .enumerate()
    {
        let commit = repository.git(&["commit-tree", "-m", "x", &tree(lines)]);
        let branch = format!("hostile{number}");
        repository.git(&["update-ref", &format!("refs/heads/{branch}"), &commit]);
        let run = env.build(&format!("FROM scratch\nADD {}/app#{branch} /x/\n", daemon.url), &[]);
        assert!(!canary.exists(), "{lines} ran something");
        match number {
            4 => drop(run.ok()),
            _ => assert!(run.fails(1).contains("git"), "{lines}: {}", run.stderr),
        }
    }
}

/// A server that answers every connection with these bytes, and then as often as the reader takes them with the others.
fn raw(head: &'static str, then: Option<&'static [u8]>) -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let closed = Arc::new(AtomicBool::new(false));
    let told = closed.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let told = told.clone();
            std::thread::spawn(move || answer(&mut stream, head, then, &told));
        }
    });
    (url, closed)
}

fn answer(stream: &mut TcpStream, head: &str, then: Option<&[u8]>, closed: &AtomicBool) {
    let mut request = [0; 4096];
    if stream.read(&mut request).is_err() || stream.write_all(head.as_bytes()).is_err() {
        return;
    }
    while let Some(bytes) = then {
        if stream.write_all(bytes).is_err() {
            closed.store(true, Ordering::SeqCst);
            return;
        }
    }
}

#[test]
fn answers_that_lie_about_their_length_are_no_files() {
    let env = Env::new();
    let once = ["--retry", "0"];
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 500\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nshort",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        "HTTP/1.1 304 Not Modified\r\n\r\n",
        "HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nContent-Range: bytes 0-4/5\r\n\r\nshort",
        "HTTP/1.1 302 Found\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: ftp://127.0.0.1/x\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: data:,x\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: http://user@127.0.0.1/x\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: \r\n\0\r\n\r\nshort",
        "SSH-2.0-OpenSSH\r\n",
    ] {
        let (url, _) = raw(head, None);
        let run = env.build(&format!("FROM scratch\nADD {url}/x /x\n"), &once);
        assert_eq!(run.code, 1, "{head}: {}", run.stderr);
    }
    // Bytes after the end belong to nothing.
    let (url, _) = raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nshort and more", None);
    assert_eq!(env.image(&format!("FROM scratch\nADD {url}/x /x\n"), &once).text("x"), "short");
    // A header without end is given up, not collected.
    let (url, closed) = raw("HTTP/1.1 200 OK\r\n", Some(b"X-More: and more\r\n"));
    assert_eq!(env.build(&format!("FROM scratch\nADD {url}/x /x\n"), &once).code, 1);
    // The other side sees it too.
    while !closed.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
}

#[test]
fn a_body_without_end_ends_with_the_build_and_leaves_nothing() {
    let env = Env::new();
    let (url, closed) = raw("HTTP/1.1 200 OK\r\nETag: \"1\"\r\n\r\n", Some(&[b'x'; 4096]));
    env.file("Dockerfile", format!("FROM scratch\nADD {url}/x /x\n"));
    let mut child = env.command(&["build", "context"]).stderr(Stdio::null()).spawn().unwrap();
    let size = || -> u64 {
        let sessions = fs::read_dir(env.state().join("tmp")).into_iter().flatten().flatten();
        let files = sessions.flat_map(|session| fs::read_dir(session.path()).into_iter().flatten().flatten());
        files.filter_map(|file| Some(file.metadata().ok()?.len())).max().unwrap_or(0)
    };
    while size() < 1 << 20 {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::yield_now();
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    // The other side sees it too.
    while !closed.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    assert_eq!(size(), 0, "what came stays on the disk");
}
