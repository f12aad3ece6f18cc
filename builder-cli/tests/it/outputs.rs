//! Outputs of `builder build` that are files: archives for other tools, and the root filesystem.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use crate::support::{Env, Run, have, is_root};

const DOCKERFILE: &str = "FROM busybox\n\
    COPY --chown=1000:2000 --chmod=640 app/app.conf app/empty /srv/\n\
    RUN ln -s app.conf /srv/link && ln /srv/app.conf /srv/hard && rm /bin/yes && mkdir -m 700 /closed && touch /closed/x\n";

fn build(env: &Env, options: &[&str]) -> Run {
    env.import_busybox();
    env.file("app/app.conf", "one\n");
    env.file("app/empty", "");
    env.file("Dockerfile", DOCKERFILE);
    let mut args = vec!["build"];
    args.extend(options);
    args.push("context");
    Run::of(&env.command(&args).output().unwrap())
}

/// Path, kind, mode, owner and link target.
type Listed = (String, tar::EntryType, u32, (u64, u64), String);

fn entries(tar: &[u8]) -> Vec<Listed> {
    let mut archive = tar::Archive::new(tar);
    let entry = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let entry = entry.unwrap();
        let header = entry.header();
        (
            entry.path().unwrap().display().to_string(),
            header.entry_type(),
            header.mode().unwrap(),
            (header.uid().unwrap(), header.gid().unwrap()),
            entry.link_name().unwrap().map(|name| name.display().to_string()).unwrap_or_default(),
        )
    };
    archive.entries().unwrap().map(entry).collect()
}

#[test]
fn a_tar_has_the_root_filesystem_with_its_owners_and_comes_on_standard_output_too() {
    let env = Env::new();
    build(&env, &["--output", "type=tar,dest=out.tar"]).ok();
    let tar = fs::read(env.path("out.tar")).unwrap();
    let entries = entries(&tar);
    let find = |path: &str| entries.iter().find(|entry| entry.0 == path).unwrap_or_else(|| panic!("no {path}"));
    assert_eq!(find("srv/app.conf").2, 0o640);
    assert_eq!(find("srv/app.conf").3, (1000, 2000));
    assert_eq!(find("srv/link").4, "app.conf");
    assert_eq!((find("srv/hard").1, find("srv/hard").4.as_str()), (tar::EntryType::Link, "srv/app.conf"));
    assert_eq!(find("closed/").2, 0o700);
    assert!(!entries.iter().any(|entry| entry.0 == "bin/yes" || entry.0.contains(".wh.")));
    let again = env.command(&["build", "-o", "-", "context"]).output().unwrap();
    assert!(again.status.success() && again.stdout == tar, "the same bytes, and nothing else");
    let mut archive = tar::Archive::new(&tar[..]);
    let mut text = String::new();
    let wanted =
        archive.entries().unwrap().map(Result::unwrap).find(|entry| entry.path().unwrap().ends_with("app.conf"));
    std::io::Read::read_to_string(&mut wanted.unwrap(), &mut text).unwrap();
    assert_eq!(text, "one\n");
}

#[test]
fn a_directory_has_the_files_and_leads_nowhere() {
    let env = Env::new();
    fs::create_dir_all(env.path("out/srv")).unwrap();
    fs::create_dir(env.path("canary")).unwrap();
    fs::write(env.path("out/kept"), "kept").unwrap();
    fs::write(env.path("out/srv/app.conf"), "old").unwrap();
    std::os::unix::fs::symlink(env.path("canary"), env.path("out/closed")).unwrap();
    build(&env, &["-o", "out"]).ok();
    let out = env.path("out");
    // COPY --chmod counts for the directory that it makes, and whoever builds is not root here.
    fs::set_permissions(out.join("srv"), fs::Permissions::from_mode(0o750)).unwrap();
    assert_eq!(fs::read_to_string(out.join("srv/app.conf")).unwrap(), "one\n");
    assert_eq!(fs::read_to_string(out.join("srv/empty")).unwrap(), "");
    assert_eq!(fs::read_to_string(out.join("kept")).unwrap(), "kept");
    let meta = fs::metadata(out.join("srv/app.conf")).unwrap();
    assert_eq!(meta.permissions().mode() & 0o7777, 0o640);
    assert_eq!(meta.uid(), nix::unistd::geteuid().as_raw(), "files belong to whoever builds");
    assert_eq!(meta.ino(), fs::metadata(out.join("srv/hard")).unwrap().ino());
    assert_eq!(fs::read_link(out.join("srv/link")).unwrap(), Path::new("app.conf"));
    assert_eq!(fs::symlink_metadata(out.join("closed")).unwrap().permissions().mode() & 0o7777, 0o700);
    assert!(out.join("closed").is_dir() && out.join("closed/x").exists());
    assert_eq!(fs::read_dir(env.path("canary")).unwrap().count(), 0, "a symlink in the directory was not followed");
    assert!(!fs::read_dir(&out).unwrap().any(|e| e.unwrap().file_name().to_string_lossy().starts_with(".builder")));
    // Once more onto itself.
    build(&env, &["-o", "out"]).ok();
}

#[test]
fn several_outputs_come_from_one_build() {
    let env = Env::new();
    let digest = build(
        &env,
        &[
            "--output",
            "type=local,dest=new/dir",
            "--output",
            "type=cacheonly",
            "--output",
            "type=oci,dest=a.tar",
            "--output",
            "type=docker,name=app:1,dest=b.tar",
        ],
    );
    digest.ok();
    for (name, mode) in [("a.tar", 0o644), ("b.tar", 0o644), ("new", 0o755), ("new/dir", 0o755)] {
        assert_eq!(fs::metadata(env.path(name)).unwrap().permissions().mode() & 0o7777, mode, "mode of {name}");
    }
    let names: Vec<String> = entries(&fs::read(env.path("b.tar")).unwrap()).into_iter().map(|entry| entry.0).collect();
    for name in ["index.json", "manifest.json", "oci-layout"] {
        assert!(names.iter().any(|found| found == name), "{names:?}");
    }
    assert!(!entries(&fs::read(env.path("a.tar")).unwrap()).iter().any(|entry| entry.0 == "manifest.json"));
    assert!(
        env.run(&["build", "-o", "-", "--output", "type=oci,dest=-", "context"]).fails(2).contains("standard output")
    );
}

#[test]
fn other_tools_load_the_docker_archive() {
    const TEST: &str = "other_tools_load_the_docker_archive";
    let env = Env::new();
    build(&env, &["-t", "app:1.2", "--output", "type=docker,dest=image.tar"]).ok();
    let archive = env.path("image.tar").display().to_string();
    if have(TEST, &["skopeo"]) {
        let run = Command::new("skopeo").args(["inspect", "--config", &format!("docker-archive:{archive}")]).output();
        assert!(Run::of(&run.unwrap()).ok().contains("rootfs"));
    }
    if have(TEST, &["podman"]) && is_root() {
        let root = env.path("podman").display().to_string();
        let podman = |args: &[&str]| {
            let mut command = Command::new("podman");
            command.args(["--root", &root, "--runroot", &format!("{root}.run"), "--storage-driver", "vfs"]);
            Run::of(&command.args(args).output().unwrap())
        };
        let loaded = podman(&["load", "-i", &archive]).ok();
        assert!(loaded.contains("app:1.2"), "{loaded}");
        podman(&["rmi", "--all", "--force"]).ok();
    }
}

/// Every kind of output that is a file, with its options.
const FILES: [(&str, [&str; 2]); 5] = [
    ("a.tar", ["--output", "type=oci,dest=a.tar"]),
    ("b.tar", ["--output", "type=docker,dest=b.tar"]),
    ("c.tar", ["--output", "type=tar,dest=c.tar"]),
    ("iid", ["--iidfile", "iid"]),
    ("meta.json", ["--metadata-file", "meta.json"]),
];
const SMALL: &str = "FROM scratch\nCOPY --chmod=666 f /f\nCOPY --chmod=777 f /d/f\n";

fn write_all(env: &Env, umask: &str, more: &[&str]) -> Run {
    let program = crate::support::program().display().to_string();
    let mut args = vec!["build".to_owned()];
    args.extend(FILES.iter().flat_map(|(_, options)| options).map(|text| (*text).to_owned()));
    args.extend(["--output", "type=oci,tar=false,dest=layout", "--output", "type=local,dest=dir"].map(str::to_owned));
    args.extend(more.iter().map(|text| (*text).to_owned()));
    args.push("context".to_owned());
    let mut command =
        env.command_of(Path::new("/bin/sh"), &["-c", &format!("umask {umask}; exec \"$0\" \"$@\""), &program]);
    Run::of(&command.args(args).output().unwrap())
}

#[test]
fn outputs_are_made_by_the_umask_and_nobody_else_may_write_them() {
    for (umask, file, directory) in
        [("022", 0o644, 0o755), ("077", 0o600, 0o700), ("027", 0o640, 0o750), ("000", 0o644, 0o755)]
    {
        let env = Env::new();
        env.file("f", "x");
        env.file("Dockerfile", SMALL);
        write_all(&env, umask, &[]).ok();
        let mode = |name: &str| fs::metadata(env.path(name)).unwrap().permissions().mode() & 0o7777;
        for (name, _) in FILES {
            assert_eq!(mode(name), file, "umask {umask}: {name}");
        }
        for name in ["layout", "layout/blobs", "layout/blobs/sha256", "dir"] {
            assert_eq!(mode(name), directory, "umask {umask}: {name}");
        }
        let blobs = fs::read_dir(env.path("layout/blobs/sha256")).unwrap().flatten().map(|entry| entry.path());
        for path in blobs.chain([env.path("layout/index.json"), env.path("layout/oci-layout")]) {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, file, "{}", path.display());
        }
        assert_eq!((mode("dir/f"), mode("dir/d/f")), (0o666, 0o777), "modes inside are the image's");
    }
}

#[test]
fn outputs_replace_files_as_a_whole_and_follow_links_that_lead_somewhere() {
    let env = Env::new();
    env.file("f", "x");
    env.file("Dockerfile", SMALL);
    for (name, _) in FILES {
        fs::write(env.path(&format!("{name}.other")), "old").unwrap();
        fs::hard_link(env.path(&format!("{name}.other")), env.path(name)).unwrap();
    }
    let failing = env.file("failing", "FROM scratch\nCOPY none /\n").display().to_string();
    assert_ne!(write_all(&env, "022", &["-f", &failing]).code, 0);
    for (name, _) in FILES {
        assert_eq!(fs::read_to_string(env.path(name)).unwrap(), "old", "a build that fails touches nothing");
    }
    write_all(&env, "022", &[]).ok();
    for (name, _) in FILES {
        assert_ne!(fs::read(env.path(name)).unwrap(), b"old", "{name}");
        assert_eq!(fs::read_to_string(env.path(&format!("{name}.other"))).unwrap(), "old", "{name} was written over");
        // A link to a file is followed, a link to nothing is replaced: nothing appears elsewhere.
        fs::create_dir_all(env.path("elsewhere")).unwrap();
        fs::rename(env.path(&format!("{name}.other")), env.path("elsewhere").join(name)).unwrap();
        fs::remove_file(env.path(name)).unwrap();
        std::os::unix::fs::symlink(format!("elsewhere/{name}"), env.path(name)).unwrap();
    }
    write_all(&env, "022", &[]).ok();
    for (name, _) in FILES {
        assert_eq!(fs::read_link(env.path(name)).unwrap(), Path::new("elsewhere").join(name));
        assert_ne!(fs::read(env.path("elsewhere").join(name)).unwrap(), b"old", "{name}");
        fs::remove_file(env.path("elsewhere").join(name)).unwrap();
    }
    write_all(&env, "022", &[]).ok();
    assert_eq!(fs::read_dir(env.path("elsewhere")).unwrap().count(), 0);
    for (name, _) in FILES {
        assert!(fs::symlink_metadata(env.path(name)).unwrap().is_file(), "{name}");
    }
    let left: Vec<_> = fs::read_dir(env.dir.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{left:?}");
}

#[test]
fn a_pipe_gets_what_a_file_would() {
    let env = Env::new();
    env.file("f", "x");
    env.file("Dockerfile", SMALL);
    for name in ["pipe", "iid"] {
        nix::unistd::mkfifo(&env.path(name), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    }
    let readers = ["pipe", "iid"].map(|name| {
        let path = env.path(name);
        std::thread::spawn(move || fs::read(path).unwrap())
    });
    env.run(&["build", "--output", "type=tar,dest=pipe", "--iidfile", "iid", "context"]).ok();
    let [tar, iid] = readers.map(|reader| reader.join().unwrap());
    assert!(entries(&tar).iter().any(|entry| entry.0 == "f"));
    assert!(iid.starts_with(b"sha256:"));
}
