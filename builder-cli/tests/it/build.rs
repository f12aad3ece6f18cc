//! What a build makes.

use std::fs;

use crate::image::Image;
use crate::support::{Env, Run, have, is_root, skip};

#[test]
fn copies_become_layers_and_the_config_follows_the_dockerfile() {
    let env = Env::new();
    env.file("app/run.sh", "#!/bin/sh\n");
    env.mode("app/run.sh", 0o755);
    env.file("app/data/x", "x");
    let image = env.image(
        "FROM scratch\nLABEL a=1\nCOPY app /srv/\nWORKDIR /srv\nENV MODE=fast\nEXPOSE 80\nUSER 5\nCMD [\"/srv/run.sh\"]\n",
        &[],
    );
    let fs = image.flatten();
    assert_eq!(fs["srv/run.sh"].mode, 0o755);
    assert_eq!((fs["srv/data/x"].content.as_slice(), fs["srv/data/x"].uid), (b"x".as_slice(), 0));
    let config = &image.config["config"];
    assert_eq!(config["WorkingDir"], "/srv");
    assert_eq!(config["Cmd"], serde_json::json!(["/srv/run.sh"]));
    assert_eq!(config["User"], "5");
    assert!(config["Env"].as_array().unwrap().contains(&"MODE=fast".into()));
    assert_eq!(config["ExposedPorts"], serde_json::json!({"80/tcp": {}}));
    let history = image.history();
    assert!(history[0].starts_with("(LABEL a=1"), "{history:?}");
    assert_eq!(history[1], "COPY app /srv/ # buildkit");
}

#[test]
fn run_sees_the_base_and_its_changes_become_a_layer() {
    let env = Env::new();
    env.import_busybox();
    let image = env.image(
        "FROM busybox\nRUN echo hello > /greeting && rm /etc/group && mkdir -p /new/dir && chmod 4755 /bin/busybox\n",
        &[],
    );
    let fs = image.flatten();
    assert_eq!(image.text("greeting"), "hello\n");
    assert!(!fs.contains_key("etc/group"));
    assert_eq!(fs["bin/busybox"].mode, 0o4755);
    assert_eq!(image.layers.len(), 2);
    let names: Vec<&str> = image.layers[1].iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.contains(&"etc/.wh.group") && !names.iter().any(|n| n.starts_with("proc/")), "{names:?}");
    assert!(names.is_sorted(), "{names:?}");
}

#[test]
fn nothing_of_the_sandbox_is_in_the_layer() {
    let env = Env::new();
    env.import_busybox();
    let image = env.image("FROM busybox\nRUN cat /etc/hosts /etc/resolv.conf > /dev/null; echo x > /dev/shm/y\n", &[]);
    assert_eq!(image.layers.len(), 1, "a command that changes nothing makes no layer: {:?}", image.layers.last());
    assert!(image.history().last().unwrap().starts_with('('));
}

#[test]
fn a_failing_command_passes_its_status_on_and_shows_where_it_stands() {
    let env = Env::new();
    env.import_busybox();
    let run = env.build("FROM busybox\nENV A=1\nRUN echo last words; \\\n  exit 42\n", &[]);
    let text = run.fails(42);
    for part in ["Dockerfile:3", "RUN echo last words", "last words", "42"] {
        assert!(text.contains(part), "want {part:?} in\n{text}");
    }
    let run = env.build("FROM busybox\nRUN kill -9 $$\n", &[]);
    run.fails(137);
}

#[test]
fn exec_form_needs_no_shell_and_a_missing_program_is_named() {
    let env = Env::new();
    env.import_busybox();
    let image = env.image("FROM busybox\nRUN [\"touch\", \"/a b\"]\n", &[]);
    assert!(image.flatten().contains_key("a b"));
    let run = env.build("FROM busybox\nRUN [\"/no/such/program\"]\n", &[]);
    assert!(run.fails(127).contains("/no/such/program"));
    let run = env.build("FROM scratch\nRUN true\n", &[]);
    assert!(run.fails(127).contains("/bin/sh"));
}

#[test]
fn stages_give_files_to_each_other_and_unused_ones_are_never_touched() {
    let env = Env::new();
    env.import_busybox();
    let dockerfile = "FROM registry.invalid/never/pulled AS unused\nRUN false\n\
        FROM busybox AS build\nRUN mkdir /o && echo built > /o/f && ln /o/f /o/g && chown 7:8 /o/f\n\
        FROM scratch AS final\nCOPY --from=build /o /out/\nCOPY --from=1 --chown=1:2 /o/f /single\n\
        FROM busybox\nRUN false\n";
    let image = env.image(dockerfile, &["--target", "final"]);
    let fs = image.flatten();
    assert_eq!(image.text("out/f"), "built\n");
    assert_eq!((fs["out/f"].uid, fs["out/f"].gid), (7, 8));
    assert_eq!(fs["out/g"].link_of.as_deref(), Some("out/f"));
    assert_eq!((fs["single"].uid, fs["single"].gid), (1, 2));
    assert!(!fs.contains_key("bin/busybox"));
}

#[test]
fn heredocs_and_build_args() {
    let env = Env::new();
    env.import_busybox();
    let dockerfile = "ARG BASE=nothing\nFROM $BASE\nARG WHO=nobody\nRUN <<EOF\nset -e\necho $WHO > /who\nid -u > /uid\nEOF\n\
        COPY <<FILE <<\"RAW\" /h/\nfor $WHO\nFILE\nfor $WHO\nRAW\n";
    let image = env.image(dockerfile, &["--build-arg", "BASE=busybox", "--build-arg", "WHO=me"]);
    assert_eq!(image.text("who"), "me\n");
    assert_eq!(image.text("uid"), "0\n");
    assert_eq!(image.text("h/FILE"), "for me\n");
    assert_eq!(image.text("h/RAW"), "for $WHO\n");
}

#[test]
fn users_groups_home_and_workdir_are_the_images() {
    let env = Env::new();
    env.import_busybox();
    let image = env.image(
        "FROM busybox\nRUN mkdir -p /w && chown 1000 /w\nWORKDIR /w\nUSER app\nRUN id > /w/id && echo $HOME > home && pwd > pwd\n\
         USER 1234:5\nWORKDIR /made/by\nRUN touch mine\n",
        &[],
    );
    assert_eq!(image.text("w/id"), "uid=1000(app) gid=1000(app) groups=29(audio),1000(app)\n");
    assert_eq!(image.text("w/home"), "/home/app\n");
    assert_eq!(image.text("w/pwd"), "/w\n");
    let fs = image.flatten();
    assert_eq!((fs["made/by"].uid, fs["made/by"].gid), (1234, 5));
    assert_eq!((fs["made/by/mine"].uid, fs["made/by/mine"].gid), (1234, 5));
}

#[test]
fn a_command_is_confined() {
    let env = Env::new();
    env.import_busybox();
    let image = env.image(
        "FROM busybox\nRUN grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp:' /proc/self/status > /status\n\
         RUN ls /proc/self/fd | wc -l > /fds; env | sort > /env; ls /dev > /dev.txt\n\
         RUN ! mount -t tmpfs none /tmp && ! unshare -m true && ! touch /sys/x && ! echo 1 > /proc/sys/kernel/panic\n",
        &[],
    );
    let status = image.text("status");
    assert!(status.contains("CapInh:\t0000000000000000") && status.contains("CapEff:\t00000000a80425fb"), "{status}");
    assert!(status.contains("NoNewPrivs:\t0") && status.contains("Seccomp:\t2"), "{status}");
    assert_eq!(image.text("fds"), "4\n", "0, 1, 2 and the one ls reads with");
    let names: Vec<String> = image.text("env").lines().map(|l| l.split('=').next().unwrap().to_owned()).collect();
    assert!(
        names.iter().all(|n| ["HOME", "HOSTNAME", "OLDPWD", "PATH", "PWD", "SHLVL"].contains(&n.as_str())),
        "{names:?}"
    );
    for node in ["null", "zero", "full", "random", "urandom", "tty", "fd", "stdin", "pts", "ptmx", "shm", "mqueue"] {
        assert!(image.text("dev.txt").lines().any(|l| l == node), "/dev/{node}");
    }
}

#[test]
fn a_command_cannot_overwrite_the_program_that_builds() {
    let env = Env::new();
    env.import_busybox();
    let before = std::fs::read(crate::support::program()).unwrap();
    let dockerfile = "FROM busybox\nRUN printf '#!/proc/self/exe\\n' > /x && chmod 755 /x\n\
        RUN for i in 1 2 3; do /x --version & done; for p in /proc/[0-9]*; do (echo evil > $p/exe) 2>/dev/null; done; wait; true\n";
    env.build(dockerfile, &[]).ok();
    assert!(before == std::fs::read(crate::support::program()).unwrap(), "the program was changed");
}

#[test]
fn stragglers_end_with_the_step() {
    let env = Env::new();
    env.import_busybox();
    let dockerfile =
        "FROM busybox\nRUN (while true; do date >> /log; sleep 0.01; done) & sleep 0.1; echo done > /done\n";
    assert_eq!(env.image(dockerfile, &[]).text("done"), "done\n");
}

#[test]
fn archives_are_unpacked_by_add_and_kept_by_copy() {
    let env = Env::new();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o640);
    header.set_uid(11);
    header.set_gid(22);
    header.set_mtime(5);
    tar.append_data(&mut header, "d/f", b"hi".as_slice()).unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gz, &tar.into_inner().unwrap()).unwrap();
    env.file("a.bin", gz.finish().unwrap());
    let image = env.image("FROM scratch\nADD a.bin /un/\nCOPY a.bin /kept/\n", &[]);
    let fs = image.flatten();
    assert_eq!((fs["un/d/f"].mode, fs["un/d/f"].uid, fs["un/d/f"].gid), (0o640, 11, 22));
    assert!(fs.contains_key("kept/a.bin") && !fs.contains_key("un/a.bin"));
}

#[test]
fn the_shell_of_the_base_is_used() {
    let env = Env::new();
    env.import_busybox();
    env.image("FROM busybox\nSHELL [\"/bin/sh\", \"-ec\"]\nSTOPSIGNAL SIGQUIT\nVOLUME /data\n", &["-t", "base:1"]);
    env.build("FROM base:1\nRUN false; touch /never\n", &[]).fails(1);
    let image = env.image("FROM base:1\nRUN true\n", &[]);
    let config = &image.config["config"];
    assert_eq!(config["Shell"], serde_json::json!(["/bin/sh", "-ec"]));
    assert_eq!((&config["StopSignal"], &config["Volumes"]), (&"SIGQUIT".into(), &serde_json::json!({"/data": {}})));
}

#[test]
fn onbuild_triggers_of_the_base_run() {
    let env = Env::new();
    env.import_busybox();
    env.image(
        "FROM busybox\nHEALTHCHECK --interval=5s CMD true\nONBUILD RUN echo built > /onbuild\n",
        &["-t", "base:1"],
    );
    let image = env.image("FROM base:1\nLABEL x=y\n", &[]);
    assert_eq!(image.text("onbuild"), "built\n");
    assert!(image.config["config"]["OnBuild"].is_null());
    assert_eq!(image.config["config"]["Healthcheck"]["Interval"], 5_000_000_000_u64);
}

#[test]
fn contexts_by_name_are_directories_layouts_and_archives() {
    let env = Env::new();
    env.import_busybox();
    env.file("x", "from main");
    fs::create_dir(env.path("other")).unwrap();
    fs::write(env.path("other/y"), "from other").unwrap();
    env.image("FROM busybox\nRUN echo layout > /l\n", &[]);
    fs::rename(env.path("out"), env.path("layout")).unwrap();
    let tar = format!("type=oci,dest={}", env.path("a.tar").display());
    env.build("FROM busybox\nRUN echo archive > /a\n", &["--output", &tar]).ok();
    let contexts = [
        format!("other={}", env.path("other").display()),
        format!("lay=oci-layout://{}", env.path("layout").display()),
        format!("arc=oci-archive:{}", env.path("a.tar").display()),
    ];
    let options: Vec<&str> = contexts.iter().flat_map(|c| ["--build-context", c]).collect();
    let dockerfile = "FROM lay\nRUN cat /l > /seen\nCOPY --from=other y /y\nCOPY --from=arc /a /a\nCOPY x /x\n";
    let image = env.image(dockerfile, &options);
    assert_eq!(
        image.text("seen") + &image.text("y") + &image.text("a") + &image.text("x"),
        "layout\nfrom otherarchive\nfrom main"
    );
}

#[test]
fn an_existing_layout_keeps_its_other_images() {
    let env = Env::new();
    let out = env.path("layout");
    for tag in ["one", "two"] {
        let dest = format!("type=oci,tar=false,dest={}", out.display());
        env.build(&format!("FROM scratch\nLABEL tag={tag}\n"), &["-t", &format!("app:{tag}"), "--output", &dest]).ok();
    }
    for tag in ["one", "two"] {
        assert_eq!(Image::open(&out, Some(tag)).config["config"]["Labels"]["tag"], tag);
    }
}

#[test]
fn every_compression_gives_the_same_content() {
    let env = Env::new();
    env.file("f", "some text ".repeat(1000));
    let mut diff_ids = Vec::new();
    for kind in ["gzip", "zstd", "uncompressed"] {
        let image = env.image("FROM scratch\nCOPY f /f\n", &["--compression", kind, "--no-cache"]);
        diff_ids.push(image.config["rootfs"]["diff_ids"].clone());
        let media_type = image.manifest["layers"][0]["mediaType"].as_str().unwrap().to_owned();
        assert_eq!(media_type.ends_with("+gzip"), kind == "gzip");
        assert_eq!(media_type.ends_with("+zstd"), kind == "zstd");
    }
    assert!(diff_ids.windows(2).all(|w| w[0][0] != serde_json::Value::Null));
}

#[test]
fn tools_of_others_read_the_result() {
    let test = "tools_of_others_read_the_result";
    if !have(test, &["skopeo", "umoci"]) {
        return;
    }
    let env = Env::new();
    env.import_busybox();
    let archive = format!("type=oci,dest={}", env.path("a.tar").display());
    env.build(
        "FROM busybox\nRUN rm -r /var && echo x > /x\nCMD [\"cat\", \"/x\"]\n",
        &["-t", "app:v1", "--output", &archive],
    )
    .ok();
    let tool = |program: &str, args: &[&str]| {
        let mut command = std::process::Command::new(program);
        command.args(args).current_dir(env.dir.path()).env("HOME", env.dir.path()).env_remove("XDG_RUNTIME_DIR");
        Run::of(&command.output().unwrap()).ok()
    };
    let inspected = tool("skopeo", &["inspect", "--config", "oci:out:v1"]);
    assert!(inspected.contains("\"Cmd\""), "{inspected}");
    tool("skopeo", &["inspect", "oci-archive:a.tar"]);
    tool("skopeo", &["copy", "--insecure-policy", "oci:out:v1", "docker-archive:d.tar:app:v1"]);
    tool("umoci", &["unpack", "--rootless", "--image", "out:v1", "bundle"]);
    assert_eq!(fs::read_to_string(env.path("bundle/rootfs/x")).unwrap(), "x\n");
    assert!(!env.path("bundle/rootfs/var").exists());
    if !is_root() {
        return skip("tools_of_others_read_the_result_run", "needs root for runc without a session");
    }
    if have("tools_of_others_read_the_result_run", &["podman", "runc"]) {
        let conf = "[containers]\ndefault_ulimits=[\"nofile=1024:1024\",\"nproc=1024:1024\"]\nnetns=\"host\"\n\
            [engine]\nruntime=\"runc\"\ncgroup_manager=\"cgroupfs\"\n";
        fs::write(env.path("containers.conf"), conf).unwrap();
        let podman = |args: &[&str]| {
            let mut command = std::process::Command::new("podman");
            command.args(["--root", "p", "--runroot", "r", "--storage-driver", "vfs"]).args(args);
            command.current_dir(env.dir.path()).env("CONTAINERS_CONF", env.path("containers.conf"));
            Run::of(&command.output().unwrap()).ok()
        };
        podman(&["pull", "-q", "oci-archive:a.tar"]);
        let id = podman(&["images", "-q"]);
        assert_eq!(podman(&["run", "--rm", id.lines().next().unwrap()]), "x");
    }
}

#[test]
fn images_of_other_places_have_a_name_given_by_the_caller() {
    let env = Env::new();
    env.file("Dockerfile", "FROM scratch\nCOPY Dockerfile /first\nLABEL made=1\n");
    env.run(&["build", "-t", "made:1", "-t", "h.example/made:2", "context"]).ok();
    env.run(&["copy", "store:made:1", "docker-archive:a.tar:h.example/made:2"]).ok();
    env.run(&["copy", "store:made:1", "oci:layout:x"]).ok();
    let dockerfile = "FROM base\nCOPY --from=base /first /second\n";
    for place in ["docker-archive:a.tar", "docker-archive:a.tar:h.example/made:2", "oci:layout:x", "docker://made:1"] {
        let context = format!("base={place}");
        let image = env.image(dockerfile, &["--build-context", &context, "--pull=never"]);
        let files = image.flatten();
        assert!(files.contains_key("first") && files.contains_key("second"), "{place}");
        assert_eq!(image.config["config"]["Labels"]["made"], "1", "{place}");
    }
    // Without the store that made it.
    let other = Env::new();
    other.file("Dockerfile", dockerfile);
    let archive = format!("base=docker-archive:{}", env.path("a.tar").display());
    let args = ["build", "--build-context", &archive, "--output", "type=local,dest=out", "context"];
    other.run(&args).ok();
    assert!(other.path("out/second").exists());
    other.run(&[&args[..], &["--platform", "linux/s390x"]].concat()).fails(75);
    let missing = format!("{archive}:other:1");
    other.run(&["build", "--build-context", &missing, "context"]).fails(1);
    // In a Dockerfile, what lies in the build context.
    for from in ["oci:layout:x", "docker-archive:a.tar"] {
        other.file("Dockerfile", format!("FROM {from}\n"));
        let run = other.run(&["build", "context"]);
        assert!(run.code != 0 && run.stderr.contains("--build-context NAME=oci:DIR"), "{from}: {}", run.stderr);
    }
    fs::copy(env.path("a.tar"), other.path("context/a.tar")).unwrap();
    let layout = ["copy", "docker-archive:context/a.tar", "oci:context/layout:x"];
    other.run(&layout).ok();
    for from in ["oci:./layout:x", "oci:layout", "docker-archive:a.tar", "docker-archive:a.tar:h.example/made:2"] {
        let image = other.image(&format!("FROM {from}\nCOPY --from={from} /first /second\n"), &[]);
        assert!(image.flatten().contains_key("second"), "{from}");
    }
    std::os::unix::fs::symlink(env.path("a.tar"), other.path("context/link.tar")).unwrap();
    other.file("Dockerfile", "FROM docker-archive:link.tar\n");
    assert!(other.run(&["build", "context"]).fails(1).contains("leads out of the build context"));
}
