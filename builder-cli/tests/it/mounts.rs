//! `RUN --mount`, `--network` and `--security`.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::image::sha256;
use crate::support::{Env, Run};

/// `CACHED` or `RAN` of each step.
fn words(run: &Run) -> Vec<String> {
    run.ok();
    run.steps().iter().map(|step| step.split(' ').next().unwrap_or_default().to_owned()).collect()
}

fn busybox() -> Env {
    let env = Env::new();
    env.import_busybox();
    env
}

/// Whether a file below `dir` has `needle`.
fn holds(dir: &Path, needle: &[u8]) -> bool {
    fs::read_dir(dir).unwrap().flatten().any(|entry| {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            // What belongs to subordinate ids cannot be read from outside, and is compressed into blobs anyway.
            return fs::read_dir(entry.path()).is_ok() && holds(&entry.path(), needle);
        }
        let found = |bytes: Vec<u8>| bytes.windows(needle.len()).any(|part| part == needle);
        kind.is_file() && fs::read(entry.path()).is_ok_and(found)
    })
}

#[test]
fn a_bind_mount_shows_the_context_as_roots_and_only_while_the_command_runs() {
    let env = busybox();
    env.file("sub/a.txt", "a\n");
    env.file("sub/deep/b.txt", "b\n");
    env.file("hidden.txt", "h\n");
    env.file(".dockerignore", "hidden.txt\n");
    env.mode("sub/a.txt", 0o640);
    let image = env.image(
        "FROM busybox\nRUN --mount=source=sub,target=/new/m stat -c '%u:%g %a %n' /new/m/a.txt /new/m/deep > /o\n\
         RUN --mount=target=/all ls -A /all > /p && test ! -e /new\n\
         RUN --mount=source=sub/a.txt,target=/etc/one.txt cat /etc/one.txt > /q\n",
        &[],
    );
    assert_eq!(image.text("o"), "0:0 640 /new/m/a.txt\n0:0 755 /new/m/deep\n");
    assert_eq!(image.text("p"), ".dockerignore\nDockerfile\nsub\n");
    assert_eq!(image.text("q"), "a\n");
    let files = image.flatten();
    assert!(["new", "all", "etc/one.txt"].iter().all(|path| !files.contains_key(*path)), "mount points stay outside");
}

#[test]
fn a_bind_mount_of_a_stage_keeps_owners_and_opens_parts() {
    let env = busybox();
    let image = env.image(
        "FROM busybox AS a\nRUN mkdir /d && echo x > /d/f && chown 7:8 /d/f && chmod 604 /d/f && ln -s d /link && rm /etc/group\n\
         FROM busybox\nRUN --mount=from=a,source=/link,target=/m stat -c '%u:%g %a' /m/f > /o\n\
         RUN --mount=from=a,source=/d/f,target=/file cat /file > /p\n\
         RUN --mount=from=a,target=/whole test ! -e /whole/etc/group && ls /whole/d > /q\n",
        &[],
    );
    assert_eq!(image.text("o"), "7:8 604\n");
    assert_eq!(image.text("p"), "x\n");
    assert_eq!(image.text("q"), "f\n");
}

#[test]
fn writes_to_bind_mounts_fail_or_are_thrown_away() {
    let env = busybox();
    let source = env.file("src/a", "old\n");
    let image = env.image(
        "FROM busybox AS s\nRUN mkdir /s && echo stage > /s/f\n\
         FROM busybox\nRUN --mount=source=src,target=/m ! touch /m/b 2>/dev/null && ! rm /m/a 2>/dev/null\n\
         RUN --mount=source=src,target=/m,rw echo new > /m/a && rm -r /m/a && mkdir /m/d && touch /m/d/x && echo w > /m/a && cat /m/a > /o\n\
         RUN --mount=source=src,target=/m,rw cat /m/a > /p && ls /m >> /p\n\
         RUN --mount=from=s,source=/s,target=/m,rw rm /m/f && echo y > /m/g\n\
         RUN --mount=from=s,source=/s,target=/m ls /m > /q\n",
        &[],
    );
    assert_eq!(image.text("o"), "w\n");
    assert_eq!(image.text("p"), "old\na\n");
    assert_eq!(image.text("q"), "f\n");
    assert_eq!(fs::read_to_string(source).unwrap(), "old\n");
}

#[test]
fn mounts_lie_on_one_another() {
    let env = busybox();
    env.file("src/main.c", "int main;\n");
    env.file("other.txt", "other\n");
    let image = env.image(
        "FROM busybox\nWORKDIR /app\n\
         RUN --mount=source=src,target=. --mount=type=cache,target=target/out --mount=source=other.txt,target=/app/o.txt \
         --mount=type=tmpfs,target=tmp cp main.c target/out/kept && touch tmp/x && cat o.txt > /o && ls >> /o\n\
         RUN --mount=type=cache,id=target/out,target=/app/target/out cat target/out/kept >> /o && ls -A /app >> /o\n",
        &[],
    );
    assert_eq!(image.text("o"), "other\nmain.c\no.txt\ntarget\ntmp\nint main;\ntarget\n");
    assert!(!image.flatten().contains_key("app/target"));
}

#[test]
fn only_what_a_bind_mount_selects_is_in_the_key() {
    let env = busybox();
    env.file("a", "1");
    env.file("b", "1");
    let dockerfile = "FROM busybox\nRUN --mount=source=a,target=/a cat /a > /o\n";
    assert_eq!(words(&env.build(dockerfile, &[])), ["RAN"]);
    env.file("b", "2");
    assert_eq!(words(&env.build(dockerfile, &[])), ["CACHED"]);
    env.file("a", "2");
    assert_eq!(words(&env.build(dockerfile, &[])), ["RAN"]);
    env.mode("a", 0o600);
    assert_eq!(words(&env.build(dockerfile, &[])), ["RAN"]);
}

#[test]
fn a_source_that_is_not_there_is_an_error_with_the_rule_that_hid_it() {
    let env = busybox();
    env.file("hidden", "x");
    env.file(".dockerignore", "hidden\n");
    let text = env.build("FROM busybox\nRUN --mount=source=hidden,target=/a cat /a\n", &[]);
    assert!(text.fails(1).contains(".dockerignore:1"), "{}", text.stderr);
    let text = env.build("FROM busybox AS s\nFROM busybox\nRUN --mount=from=s,source=/none,target=/a cat /a\n", &[]);
    assert!(text.fails(1).contains("\"/none\""), "{}", text.stderr);
}

#[test]
fn links_lead_nowhere_but_into_the_source() {
    let env = busybox();
    let outside = env.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("canary"), "HOST").unwrap();
    env.file("real/f", "inside\n");
    let context = env.path("context");
    symlink(&outside, context.join("absolute")).unwrap();
    symlink("../outside", context.join("relative")).unwrap();
    symlink("/real", context.join("rooted")).unwrap();
    for source in ["absolute", "absolute/canary", "relative", "relative/canary", "../outside/canary"] {
        let run = env
            .build(&format!("FROM busybox\nRUN --mount=source={source},target=/m,rw cat /m /m/* && rm -r /m/*\n"), &[]);
        run.fails(1);
    }
    let image = env.image("FROM busybox\nRUN --mount=source=rooted,target=/m cat /m/f > /o\n", &[]);
    assert_eq!(image.text("o"), "inside\n");

    // Of an image whose links point at this machine's directories, one sees the image's.
    let host = outside.display();
    let evil = format!(
        "FROM busybox AS evil\nRUN mkdir -p {host} && echo IMAGE > {host}/canary && ln -s / /link && ln -s {host} /out\n"
    );
    let image = env.image(
        &format!(
            "{evil}FROM busybox\nRUN --mount=from=evil,source=/link,target=/m,rw cat /m{host}/canary > /o && rm -r /m{host}\n\
             RUN --mount=from=evil,source=/out,target=/m,rw cat /m/canary > /p && rm /m/canary\n"
        ),
        &[],
    );
    assert_eq!((image.text("o"), image.text("p")), ("IMAGE\n".to_owned(), "IMAGE\n".to_owned()));

    // A command that swaps its mount point's parents, or the links above a target.
    env.image(
        &format!(
            "FROM busybox\nRUN --mount=source=real,target=/x/y mv /x /z; rm -rf /x; ln -s {host} /x; true\n\
             RUN --mount=source=real,target=/x/new/y,rw rm -rf /x/canary; touch /x/made\n\
             RUN --mount=type=cache,target=/x/cache touch /x/cache/f\n"
        ),
        &[],
    );
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(outside.join("canary")).unwrap(), "HOST");
}

#[test]
fn a_cache_outlives_commands_and_builds_and_is_in_no_layer() {
    let env = busybox();
    let image = env.image(
        "FROM busybox\nRUN --mount=type=cache,target=/c echo 1 > /c/f\n\
         RUN --mount=type=cache,id=/c,target=/elsewhere cat /elsewhere/f > /o\n\
         RUN --mount=type=cache,target=/c,ro cat /c/f > /p && ! touch /c/g 2>/dev/null\n\
         RUN --mount=type=cache,id=other,target=/c ls /c > /q\n\
         RUN --mount=type=cache,target=/owned,uid=5,gid=6,mode=0711 stat -c '%u:%g %a' /owned > /r\n\
         RUN --mount=type=cache,id=usual,target=/u stat -c '%u:%g %a' /u > /s\n",
        &[],
    );
    let text = ["o", "p", "q", "r", "s"].map(|name| image.text(name));
    assert_eq!(text, ["1\n", "1\n", "", "5:6 711\n", "0:0 755\n"]);
    assert!(["c", "elsewhere", "owned", "u"].iter().all(|path| !image.flatten().contains_key(*path)));
    let image = env.image("FROM busybox\nRUN --mount=type=cache,target=/c cat /c/f > /again\n", &[]);
    assert_eq!(image.text("again"), "1\n");
}

#[test]
fn what_a_command_does_to_a_cache_is_done_as_often_as_it_is_written() {
    let env = busybox();
    let count = "RUN --mount=type=cache,target=/c echo x >> /c/f\n";
    let dockerfile = format!("FROM busybox\n{count}{count}{count}RUN --mount=type=cache,target=/c wc -l < /c/f > /o\n");
    assert_eq!(env.image(&dockerfile, &[]).text("o"), "3\n");
    assert_eq!(words(&env.build(&dockerfile, &[])), ["CACHED"; 4]);
}

#[test]
fn a_new_cache_starts_as_a_copy_of_its_source() {
    let env = busybox();
    env.file("seed/f", "context\n");
    let image = env.image(
        "FROM busybox AS s\nRUN mkdir -p /s/d && echo stage > /s/d/f && chown 3:4 /s/d/f && ln -s f /s/d/l && chmod 700 /s && rm /etc/group\n\
         FROM busybox\nRUN --mount=type=cache,target=/c,from=s,source=/s cat /c/d/l > /o && stat -c %u:%g /c/d/f >> /o && stat -c %a /c >> /o && rm /c/d/l\n\
         RUN --mount=type=cache,target=/c,from=s,source=/s ls /c/d > /p\n\
         RUN --mount=type=cache,target=/c,from=s,source=/ ls /c/etc > /q\n",
        &[],
    );
    assert_eq!(image.text("o"), "stage\n3:4\n700\n");
    assert_eq!(image.text("p"), "f\n", "the seed counts once");
    assert_eq!(image.text("q"), "passwd\n");
    let context = format!("files={}", env.path("context/seed").display());
    let dockerfile = "FROM busybox\nRUN --mount=type=cache,target=/c,from=files cat /c/f > /o\n";
    assert_eq!(env.image(dockerfile, &["--build-context", &context]).text("o"), "context\n");
}

#[test]
fn the_id_of_a_cache_is_no_path_and_its_links_stay_in_it() {
    let env = busybox();
    let outside = env.path("outside");
    fs::create_dir(&outside).unwrap();
    let host = outside.display();
    env.image(
        &format!(
            "FROM busybox\nRUN --mount=type=cache,id=../../outside,target=/c touch /c/f\n\
             RUN --mount=type=cache,id={host},target=/c touch /c/f\n\
             RUN --mount=type=cache,id=l,target=/c ln -s {host} /c/out && mkdir /c/real && ln -s /real /c/in\n\
             RUN --mount=type=cache,id=l,source=in,target=/c touch /c/g\n\
             RUN --mount=type=cache,id=l,target=/c test -e /c/real/g\n"
        ),
        &[],
    );
    let run = env.build("FROM busybox\nRUN --mount=type=cache,id=l,source=out,target=/c touch /c/f\n", &[]);
    assert!(run.fails(1).contains("\"/out\" of the cache"), "{}", run.stderr);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

/// Two stages whose commands run at the same time; each has `$ME` and `$OTHER`.
fn two_stages(flags: &str, command: &str) -> String {
    let stage = |me: &str, other: &str| {
        format!("FROM busybox AS {me}\nENV ME={me} OTHER={other}\nRUN {flags} {command} && echo done > /{me}\n")
    };
    format!("{}{}FROM scratch\nCOPY --from=a /a /a\nCOPY --from=b /b /b\n", stage("a", "b"), stage("b", "a"))
}

/// Waits for the other command, at most ten seconds.
const MEET: &str =
    "touch /meet/$ME && i=0 && while [ ! -e /meet/$OTHER ]; do i=$((i+1)); [ $i -lt 100 ] || exit 1; sleep 0.1; done";

#[test]
fn a_shared_cache_is_shared_at_the_same_time() {
    let env = busybox();
    env.build(&two_stages("--mount=type=cache,target=/meet", MEET), &[]).ok();
}

#[test]
fn a_private_cache_is_one_commands_alone_and_used_again_afterwards() {
    let env = busybox();
    let flags = "--mount=type=cache,target=/meet --mount=type=cache,id=p,target=/p,sharing=private";
    let command = format!(
        "test -z \"$(ls /p)\" && {MEET} && test -z \"$(ls /p)\" && touch /meet/$ME.2 && \
        while [ ! -e /meet/$OTHER.2 ]; do sleep 0.1; done; touch /p/$ME"
    );
    env.build(&two_stages(flags, &command), &[]).ok();
    let image =
        env.image("FROM busybox\nRUN --mount=type=cache,id=p,target=/p,sharing=private ls /p | wc -l > /o\n", &[]);
    assert_eq!(image.text("o"), "1\n");
}

#[test]
fn a_locked_cache_makes_commands_wait() {
    let env = busybox();
    // Two caches in opposite orders: nobody waits for one while holding the other.
    let flags = "--mount=type=cache,target=/l,sharing=locked --mount=type=cache,target=/k,sharing=locked";
    let swapped = "--mount=type=cache,target=/k,sharing=locked --mount=type=cache,target=/l,sharing=locked";
    let command = "mkdir /l/busy /k/busy && sleep 1 && rmdir /l/busy /k/busy";
    let dockerfile = two_stages(flags, command).replacen(flags, swapped, 1);
    env.build(&dockerfile, &[]).ok();
    // The same in one command is one lock.
    env.build("FROM busybox\nRUN --mount=type=cache,id=x,target=/1,sharing=locked --mount=type=cache,id=x,target=/2,sharing=locked touch /1/f && test -e /2/f\n", &[]).ok();
}

#[test]
fn a_tmpfs_is_empty_limited_and_gone() {
    let env = busybox();
    let image = env.image(
        "FROM busybox\nRUN --mount=type=tmpfs,target=/t,size=64k stat -c %a /t > /o && ! dd if=/dev/zero of=/t/f bs=1k count=128 2>/dev/null\n\
         RUN --mount=type=tmpfs,target=/bin/x touch /bin/x/f\n\
         RUN --mount=type=tmpfs,target=/etc,ro test -z \"$(ls /etc)\" && ! touch /etc/f 2>/dev/null\n",
        &[],
    );
    assert_eq!(image.text("o"), "1777\n");
    assert!(!image.flatten().contains_key("t") && !image.flatten().contains_key("bin/x"));
}

const SECRET: &str = "s3cret/+ value&ü=%";

#[test]
fn a_secret_is_seen_by_its_command_and_found_nowhere_afterwards() {
    let env = busybox();
    let file = env.path("secret file");
    fs::write(&file, SECRET).unwrap();
    let from_file = format!("id=file,src={}", file.display());
    let dockerfile = "FROM busybox\nENV TOKEN=none\n\
         RUN --mount=type=secret,id=file test \"$(wc -c < /run/secrets/file)\" = 19 && stat -c '%u:%g %a' /run/secrets/file > /o\n\
         RUN --mount=type=secret,id=file,target=/root/s,uid=1,gid=2,mode=0440 stat -c '%u:%g %a' /root/s > /p\n\
         RUN --mount=type=secret,id=var,env=TOKEN test \"$(printf %s \"$TOKEN\" | sha256sum)\" = \"HASH  -\" && test ! -e /run/secrets\n\
         RUN --mount=type=secret,id=var,env=TOKEN,target=/v test -s /v -a \"$TOKEN\" != none\n\
         RUN --mount=type=secret,id=missing,env=NO test ! -e /run/secrets/missing -a -z \"$NO\"\n\
         RUN test \"$TOKEN\" = none && test ! -e /run/secrets/file && ! grep -r 's3cret' /proc/[0-9]*/environ 2>/dev/null\n";
    env.file("Dockerfile", dockerfile.replace("HASH", sha256(SECRET.as_bytes()).trim_start_matches("sha256:")));
    let dest = format!("type=oci,tar=false,dest={}", env.path("out").display());
    let mut command =
        env.command(&["build", "--progress", "plain", "--compression", "uncompressed", "--output", &dest]);
    command.args(["--secret", &from_file, "--secret", "id=var,env=THE_VALUE", "--secret", "id=missing,env=NOT_SET"]);
    let run = Run::of(&command.arg(env.path("context")).env("THE_VALUE", SECRET).output().unwrap());
    run.ok();
    let image = crate::image::Image::open(&env.path("out"), None);
    assert_eq!((image.text("o"), image.text("p")), ("0:0 400\n".to_owned(), "1:2 440\n".to_owned()));
    assert!(!image.flatten().contains_key("run/secrets") && !image.flatten().contains_key("root/s"));

    let url = "s3cret%2F%2B%20value%26%C3%BC%3D%25";
    let encoded = "czNjcmV0LysgdmFsdWUmw7w9JQ==";
    for form in [SECRET, "s3cret/", url, encoded, encoded.trim_end_matches('=')] {
        assert!(!run.stdout.contains(form) && !run.stderr.contains(form), "{form} is in the output");
        for place in ["state", "out"] {
            assert!(!holds(&env.path(place), form.as_bytes()), "{form} is in {place}");
        }
    }
}

#[test]
fn another_secret_is_no_other_step_and_a_missing_one_is_said() {
    let env = busybox();
    let build = |value: Option<&str>| {
        env.file("Dockerfile", "FROM busybox\nRUN --mount=type=secret,id=S,required test -s /run/secrets/S\n");
        let mut command = env.command(&["build", "--progress", "json"]);
        if let Some(value) = value {
            command.args(["--secret", "id=S"]).env("S", value);
        }
        Run::of(&command.arg(env.path("context")).output().unwrap())
    };
    let run = build(None);
    let text = run.fails(2);
    assert!(text.contains("Dockerfile:2") && text.contains("secret \"S\"") && text.contains("--secret id=S"), "{text}");
    assert_eq!(words(&build(Some("one"))), ["RAN"]);
    assert_eq!(words(&build(Some("two"))), ["CACHED"]);
    assert_eq!(words(&build(None)), ["CACHED"], "what is done needs no secret");
}

#[test]
fn a_secret_that_a_command_prints_is_not_shown() {
    let env = busybox();
    env.file(
        "Dockerfile",
        "FROM busybox\nRUN --mount=type=secret,id=S,env=S echo it is $S; cat /proc/self/environ >&2; exit 3\n",
    );
    for mode in ["plain", "json"] {
        let mut command = env.command(&["build", "--progress", mode, "--secret", "id=S"]);
        let run = Run::of(&command.arg(env.path("context")).env("S", "hunter22").output().unwrap());
        let text = run.fails(3);
        assert!(text.contains("it is ****"), "{text}");
        // Of `it is hunter22` in base64, whatever comes before it.
        for form in ["hunter22", "aHVudGVyMj", "h1bnRlcjIy", "odW50ZXIyM"] {
            assert!(!text.contains(form) && !run.stdout.contains(form), "{form} in\n{text}\n{}", run.stdout);
        }
    }
}

#[test]
fn an_ssh_agent_has_a_socket_for_its_command() {
    let env = busybox();
    let socket = env.path("agent.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let default = format!("default={}", socket.display());
    let dockerfile = "FROM busybox\nRUN --mount=type=ssh,required test \"$SSH_AUTH_SOCK\" = /run/buildkit/ssh_agent.0 && stat -c '%u:%g %a %F' $SSH_AUTH_SOCK > /o\n\
         RUN --mount=type=ssh,id=git,target=/s,uid=7,mode=0666 test ! -e /s && echo absent > /p\n\
         RUN test -z \"$SSH_AUTH_SOCK\" && test ! -e /run/buildkit\n";
    let image = env.image(dockerfile, &["--ssh", &default]);
    assert_eq!(image.text("o"), "0:0 600 socket\n");
    assert_eq!(image.text("p"), "absent\n");
    assert!(!image.flatten().contains_key("run/buildkit"));
    let git = format!("git={}", socket.display());
    let image = env.image(
        "FROM busybox\nRUN --mount=type=ssh,id=git,target=/s,uid=7,mode=0666 stat -c '%u:%g %a' /s > /p\n",
        &["--ssh", &git],
    );
    assert_eq!(image.text("p"), "7:0 666\n");
    let run = env.build("FROM busybox\nRUN --mount=type=ssh,id=other,required true\n", &["--ssh", &git]);
    assert!(run.fails(2).contains("ssh agent \"other\""), "{}", run.stderr);
}

#[test]
fn networks_are_the_callers_choice() {
    let env = busybox();
    let dockerfile = "FROM busybox\nRUN ls /sys/class/net > /o\n";
    assert_eq!(env.image(dockerfile, &["--network", "none"]).text("o"), "lo\n");
    let host = "FROM busybox\nRUN --network=host ls /sys/class/net | wc -l\n";
    env.build(host, &[]).ok();
    let run = env.build(host, &["--network", "none"]);
    assert!(run.fails(1).contains("--allow network.host"), "{}", run.stderr);
    env.build(host, &["--network", "none", "--allow", "network.host"]).ok();
}

#[test]
fn privileges_need_consent() {
    let env = busybox();
    let mount = "mkdir /m && mount -t tmpfs none /m && touch /m/f";
    let insecure = format!("FROM busybox\nRUN --security=insecure {mount}\n");
    let run = env.build(&insecure, &[]);
    assert!(run.fails(1).contains("--allow security.insecure"), "{}", run.stderr);
    let image = env.image(&insecure, &["--allow", "security.insecure"]);
    assert!(image.flatten().contains_key("m") && !image.flatten().contains_key("m/f"));
    let sandboxed = format!("FROM busybox\nRUN --security=sandbox {mount}\n");
    env.build(&sandboxed, &["--allow", "security.insecure"]).fails(1);
    let run = env.build("FROM busybox\nRUN --device=vendor.com/d=1 true\n", &[]);
    assert!(run.fails(1).contains("RUN --device is not allowed"), "{}", run.stderr);
}
