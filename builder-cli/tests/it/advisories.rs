//! Attacks that other builders have fallen to, end to end: something outside must be as it was, and unread.
//!
//! What a lower tier can show stands there: archives in `layer::tar` and `layer::unpack`, the sandbox in `sandbox`, git in
//! `remote` and `fetch`, mounts in `mounts`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use crate::image::Image;
use crate::support::{Env, Run, busybox_rootfs_with};

/// What must never turn up in an image.
const HOST: &str = "bytes of this machine";

/// A directory outside of everything, with a file that says [`HOST`].
struct Canary(PathBuf);

impl Canary {
    fn new(env: &Env) -> Self {
        let dir = env.path("canary");
        fs::create_dir(&dir).unwrap();
        for (name, text) in [("file", HOST), ("passwd", "app:x:7777:7777:bytes of this machine:/:\n"), ("hosts", HOST)]
        {
            fs::write(dir.join(name), text).unwrap();
        }
        Self(dir)
    }

    fn path(&self) -> String {
        self.0.display().to_string()
    }

    #[track_caller]
    fn assert_untouched(&self, env: &Env, run: &Run) {
        let mut names: Vec<_> = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["file", "hosts", "passwd"], "the machine was changed");
        assert_eq!(fs::read_to_string(self.0.join("file")).unwrap(), HOST);
        assert_eq!(fs::read_to_string(self.0.join("hosts")).unwrap(), HOST);
        assert!(!run.stdout.contains(HOST) && !run.stderr.contains(HOST), "{}{}", run.stdout, run.stderr);
        if run.code == 0 && env.path("out").exists() {
            let found = Image::open(&env.path("out"), None).flatten();
            let read =
                found.iter().find(|(_, node)| node.content.windows(HOST.len()).any(|part| part == HOST.as_bytes()));
            assert!(
                read.is_none_or(|(path, _)| path == "seen"),
                "the machine was read: {:?}",
                read.map(|(path, _)| path)
            );
        }
    }
}

fn header(kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header
}

fn link(tar: &mut tar::Builder<Vec<u8>>, path: &str, target: &str) {
    let mut header = header(tar::EntryType::Symlink, 0);
    tar.append_link(&mut header, path, target).unwrap();
}

fn file(tar: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) {
    let mut header = header(tar::EntryType::Regular, content.len() as u64);
    tar.append_data(&mut header, path, content).unwrap();
}

#[test]
fn links_of_a_base_image_lead_no_step_and_no_output_out_of_it() {
    let env = Env::new();
    let canary = Canary::new(&env);
    let host = canary.path();
    let rootfs = busybox_rootfs_with(|tar| {
        link(tar, "d", &host);
        link(tar, "up", "../../../../../../../../../..");
        link(tar, "f", &format!("{host}/file"));
    });
    env.import(&rootfs, "evil");
    env.file("x", "inside");
    let mut archive = tar::Builder::new(Vec::new());
    file(&mut archive, "file", b"from the archive");
    env.file("a.tar", archive.into_inner().unwrap());
    let dockerfile = format!(
        "FROM evil\nCOPY x /d/new\nCOPY x /f\nCOPY x /up{host}/other\nADD a.tar /d/\nADD a.tar /up{host}/\nWORKDIR /d/work\n\
         RUN echo run > /d/run && echo run > /up{host}/run2 && rm -f /d/hosts && ! test -e /d/passwd\n\
         FROM scratch\nCOPY --from=0 /d /taken\nCOPY --from=0 /up{host} /taken2\n"
    );
    let run = env.build(&dockerfile, &["--output", "type=local,dest=dir"]);
    run.ok();
    canary.assert_untouched(&env, &run);
    let image = Image::open(&env.path("out"), None);
    assert_eq!((image.text("taken/new").as_str(), image.text("taken/run").as_str()), ("inside", "run\n"));
    assert_eq!(image.text("taken2/file"), "from the archive");
    let run = env.build("FROM evil\n", &["--output", "type=local,dest=dir2"]);
    run.ok();
    let run2 = env.build("FROM evil\nCOPY x /d/y\n", &["--output", "type=local,dest=dir2"]);
    run2.ok();
    canary.assert_untouched(&env, &run2);
    assert_eq!(fs::read_link(env.path("dir2/d")).unwrap(), canary.0, "a link is a link");
}

#[test]
fn archives_are_unpacked_by_no_program_of_the_machine_or_the_image() {
    let env = Env::new();
    let canary = env.path("ran");
    let trojan = format!("#!/bin/sh\ntouch {0} || echo evil > /ran\nexit 1\n", canary.display());
    let programs = ["xz", "gzip", "gunzip", "unpigz", "pigz", "bzip2", "zstd", "tar"];
    fs::create_dir(env.path("trojans")).unwrap();
    for name in programs {
        fs::write(env.path("trojans").join(name), &trojan).unwrap();
        fs::set_permissions(env.path("trojans").join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let rootfs = busybox_rootfs_with(|tar| {
        for name in programs {
            file(tar, &format!("usr/bin/{name}"), trojan.as_bytes());
        }
        // What a lookup of names would load, if it changed its root first.
        for dir in ["lib", "lib64", "usr/lib/x86_64-linux-gnu"] {
            file(tar, &format!("{dir}/libnss_files.so.2"), b"\x7fELF evil");
        }
        file(tar, "etc/nsswitch.conf", b"passwd: files evil\n");
    });
    env.import(&rootfs, "evil");
    let mut archive = tar::Builder::new(Vec::new());
    file(&mut archive, "inner", b"unpacked");
    let plain = archive.into_inner().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &plain).unwrap();
    env.file("a.tar.gz", gzip.finish().unwrap());
    env.file("a.tar.zst", zstd::encode_all(&plain[..], 1).unwrap());
    env.file("Dockerfile", "FROM evil\nADD --chown=app a.tar.gz /gz/\nADD --chown=app:audio a.tar.zst /zst/\n");
    let out = format!("type=oci,tar=false,dest={}", env.path("out").display());
    let mut command = env.command(&["build", "--output", &out, "context"]);
    let path = format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", env.path("trojans").display());
    Run::of(&command.env("PATH", path).output().unwrap()).ok();
    let image = Image::open(&env.path("out"), None).flatten();
    assert_eq!((image["gz/inner"].uid, image["zst/inner"].uid, image["zst/inner"].gid), (1000, 1000, 29));
    assert!(!canary.exists() && !image.contains_key("ran"), "a program was started");
}

#[test]
fn users_are_looked_up_in_a_plain_file_of_the_image_or_not_at_all() {
    let env = Env::new();
    let canary = Canary::new(&env);
    let host = canary.path();
    env.file("x", "inside");
    // The first of two entries of a name gives way.
    let passwd = |more: &dyn Fn(&mut tar::Builder<Vec<u8>>)| busybox_rootfs_with(more);
    let huge = vec![b'\n'; 20 << 20];
    for (what, rootfs) in [
        ("a link out", passwd(&|tar| link(tar, "etc/passwd", &format!("{host}/passwd")))),
        ("a link upwards", passwd(&|tar| link(tar, "etc/passwd", &format!("../../../../../../../..{host}/passwd")))),
        ("a link to itself", passwd(&|tar| link(tar, "etc/passwd", "passwd"))),
        (
            "a directory",
            passwd(&|tar| {
                tar.append_data(&mut header(tar::EntryType::Directory, 0), "etc/passwd", &[][..]).unwrap();
            }),
        ),
        (
            "a pipe",
            passwd(&|tar| {
                tar.append_data(&mut header(tar::EntryType::Fifo, 0), "etc/passwd", &[][..]).unwrap();
            }),
        ),
        ("too large", passwd(&|tar| file(tar, "etc/passwd", &huge))),
    ] {
        let name = format!("evil:{}", what.replace(' ', "-"));
        env.import(&rootfs, &name);
        for instruction in ["COPY --chown=app x /x", "USER app\nRUN true"] {
            let run = env.build(&format!("FROM {name}\n{instruction}\n"), &[]);
            assert!((1..=2).contains(&run.code), "{what}: {instruction}: {}{}", run.stdout, run.stderr);
            canary.assert_untouched(&env, &run);
        }
        // Numbers need no file.
        env.build(&format!("FROM {name}\nCOPY --chown=7:7 x /x\n"), &[]).ok();
    }
}

#[test]
fn links_in_the_place_of_what_a_step_needs_lead_nowhere() {
    let env = Env::new();
    let canary = Canary::new(&env);
    let host = canary.path();
    for (number, path) in
        ["proc", "sys", "dev", "etc", "etc/hosts", "etc/resolv.conf", "dev/null", "tmp"].iter().enumerate()
    {
        let target = if path.contains('/') { format!("{host}/hosts") } else { host.clone() };
        let rootfs = busybox_rootfs_with(|tar| link(tar, path, &target));
        let name = format!("evil:{number}");
        env.import(&rootfs, &name);
        let script = format!(
            "cat /{path}/file /{path} /etc/hosts 2>/dev/null; echo evil > /{path}; echo evil > /{path}/new; true"
        );
        let run = env.build(&format!("FROM {name}\nRUN {script}\n"), &[]);
        canary.assert_untouched(&env, &run);
    }
}

#[test]
fn no_directory_of_a_step_is_an_open_file_of_the_builder() {
    let env = Env::new();
    let canary = Canary::new(&env);
    let host = canary.path();
    env.import_busybox();
    let up = "../".repeat(10);
    let lines: String = (0..12)
        .map(|fd| format!("FROM busybox AS s{fd}\nWORKDIR /proc/self/fd/{fd}\nRUN cat {up}{host}/file; echo evil > {up}{host}/new\n"))
        .collect();
    for fd in 0..12 {
        let run = env.build(&lines, &["--target", &format!("s{fd}")]);
        assert_ne!(run.code, 0, "WORKDIR /proc/self/fd/{fd}");
        canary.assert_untouched(&env, &run);
    }
}

#[test]
fn a_command_finds_nothing_of_the_callers_in_proc() {
    let env = Env::new();
    env.import_busybox();
    fs::write(env.path("secret"), "hunter22-of-the-file").unwrap();
    env.file(
        "Dockerfile",
        "FROM busybox\nRUN cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/[0-9]*/mem /proc/[0-9]*/maps \
         /proc/[0-9]*/root/* 2>/dev/null | tr '\\0' '\\n' | grep -c 'hunter2[2]' > /seen; ls -l /proc/[0-9]*/fd >> /seen; true\n",
    );
    let out = format!("type=oci,tar=false,dest={}", env.path("out").display());
    let args = ["build", "--secret", "id=a,env=SECRET", "--secret", "id=b,src=secret", "--output", &out, "context"];
    let run = Run::of(&env.command(&args).env("SECRET", "hunter22-of-the-environment").output().unwrap());
    run.ok();
    let seen = Image::open(&env.path("out"), None).text("seen");
    assert!(seen.starts_with("0\n") && !seen.contains("state") && !seen.contains("socket"), "{seen}");
}

/// A build that goes on until it is told to end; it ends with the test in any case.
struct Swapping(Child);

impl Drop for Swapping {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Two commands share a cache; one swaps a directory of it for a link while the other mounts what it names.
#[test]
fn a_part_of_a_cache_that_is_swapped_for_a_link_is_mounted_inside_or_not_at_all() {
    let env = Env::new();
    let canary = Canary::new(&env);
    let host = canary.path();
    env.import_busybox();
    let mount = "--mount=type=cache,id=c";
    env.build(&format!("FROM busybox\nRUN {mount},target=/c mkdir /c/real /c/part && ln -s {host} /c/link\n"), &[])
        .ok();
    let swap = format!(
        "FROM busybox\nRUN {mount},target=/c touch /c/going; while [ ! -e /c/stop ]; do \
         mv -T /c/part /c/x 2>/dev/null; mv -T /c/link /c/part 2>/dev/null; mv -T /c/part /c/link 2>/dev/null; mv -T /c/x /c/part; done; true\n"
    );
    fs::create_dir(env.path("swap")).unwrap();
    fs::write(env.path("swap/Dockerfile"), swap).unwrap();
    let mut swapping = Swapping(env.command(&["build", "-q", "swap"]).stdout(Stdio::null()).spawn().unwrap());
    let going = || {
        let listing = env.as_image_root("find").args(["state/mounts", "-name", "going"]).output().unwrap();
        !listing.stdout.is_empty()
    };
    while !going() {
        assert!(swapping.0.try_wait().unwrap().is_none(), "the other build ended");
    }
    let mut mounted = 0;
    for number in 0..25 {
        let script = format!("cat /p/file; echo evil > /p/new; rm -f /p/hosts; ls /p; echo {number} > /n");
        let run = env.build(&format!("FROM busybox\nRUN {mount},source=part,target=/p {script}\n"), &[]);
        mounted += usize::from(run.code == 0);
        canary.assert_untouched(&env, &run);
    }
    env.build(&format!("FROM busybox\nRUN {mount},target=/c touch /c/stop\n"), &[]).ok();
    assert!(swapping.0.wait().unwrap().success());
    assert!(mounted > 0, "it was never there to be mounted");
}

#[test]
fn a_grammar_is_never_fetched_and_options_of_mounts_are_words_of_a_list() {
    let env = Env::new();
    env.import_busybox();
    let canary = Canary::new(&env);
    for (dockerfile, word) in [
        ("FROM busybox\nRUN --mount=type=bind,source=.,target=/m,bind-propagation=z,rw true\n", "propagation"),
        ("FROM busybox\nRUN --mount=type=bind,source=.,target=/m,bind-propagation=rshared true\n", "propagation"),
        ("FROM busybox\nRUN --mount=type=bind,source=.,target=/m,options=dev true\n", "options"),
        ("FROM busybox\nRUN --mount=type=tmpfs,target=/m,size=1:upperdir=/ true\n", "size"),
    ] {
        let run = env.build(dockerfile, &[]);
        assert!(run.fails(1).contains(word), "{dockerfile}: {}", run.stderr);
        canary.assert_untouched(&env, &run);
    }
    // A frontend would be an image that runs; there is none, and nobody is asked for it.
    let run = env.build("# syntax=registry.invalid/evil/frontend:1\nFROM busybox\nRUN true\n", &[]);
    assert!(!run.stderr.contains("no host") && !run.stdout.contains("registry-retry"), "{}{}", run.stdout, run.stderr);
}
