//! RUN and its mounts.

use super::*;

fn run(lines: &str) -> RunOp {
    only_run(&planned(&format!("FROM base\n{lines}\n"))).clone()
}

#[test]
fn forms() {
    let op = run("RUN echo \"$a\" 'b'");
    assert_eq!((op.argv.join("|").as_str(), op.form), ("/bin/sh|-c|echo \"$a\" 'b'", CommandForm::Shell));
    let op = run("RUN [\"echo\", \"$a b\"]");
    assert_eq!((op.argv.join("|").as_str(), op.form), ("echo|$a b", CommandForm::Exec));
    let op = run("SHELL [\"/bin/bash\", \"-e\", \"-c\"]\nRUN x");
    assert_eq!(op.argv.join("|"), "/bin/bash|-e|-c|x");
}

#[test]
fn heredocs() {
    let op = run("RUN <<EOF\necho $a\nb\nEOF");
    assert_eq!((op.argv[2].as_str(), op.script), ("echo $a\nb\n", None));
    let op = run("RUN cat <<A - <<-B\na\nA\n\tb\n\tB");
    assert_eq!(op.argv[2], "cat <<A - <<-B\na\nA\n\tb\nB");
    let op = run("RUN <<\"EOF\"\n#!/usr/bin/env python3\nprint(1)\nEOF");
    assert_eq!(op.argv.join("|"), "/bin/sh|-c|/dev/pipes/EOF");
    let script = Script { path: "/dev/pipes/EOF".to_owned(), content: "#!/usr/bin/env python3\nprint(1)\n".to_owned() };
    assert_eq!(op.script, Some(script));
}

#[test]
fn names_of_steps() {
    for (lines, want) in [
        ("run   echo  a", "RUN   echo  a"),
        ("RUN echo $a ${a}b '$a' \\$a $n ${a:-x} $(x)", "RUN echo v vb '$a' \\$a $n ${a:-x} $(x)"),
        ("RUN <<EOF\nfirst $a\nsecond\nEOF", "RUN <<EOF (first v...)"),
        ("RUN <<EOF\n  only  \nEOF", "RUN <<EOF (only)"),
        ("RUN --mount=type=secret,id=s,env=a echo $a", "RUN --mount=type=secret,id=s,env=a echo ****"),
    ] {
        let graph = planned(&format!("FROM base\nENV a=v\n{lines}\n"));
        assert_eq!(graph.steps[1].info.name, format!("[2/2] {want}"), "{lines}");
    }
}

#[test]
fn flags() {
    let op = run("RUN --network=none --security=insecure --device=vendor.com/gpu=0,required --device=name=v.com/c=a x");
    assert_eq!((op.network, op.security), (NetworkMode::None, SecurityMode::Insecure));
    let devices: Vec<_> = op.devices.iter().map(|device| (device.name.as_str(), device.need)).collect();
    assert_eq!(devices, [("vendor.com/gpu=0", Need::Required), ("v.com/c=a", Need::Optional)]);
}

/// Shows a mount in one line.
fn shown(mount: &MountOp) -> String {
    let target = mount.target.as_deref().unwrap_or("-");
    let owner = |owner: &MountOwner| format!("{}:{} {:04o}", owner.uid, owner.gid, owner.mode);
    let from = |from: &FileInput| match from {
        FileInput::Context(step) => format!("context {}", step.0),
        FileInput::Root(RootInput::Scratch) => "scratch".to_owned(),
        FileInput::Root(RootInput::Step(step)) => format!("root {}", step.0),
    };
    match &mount.kind {
        MountKind::Bind { from: files, source, access } => format!("bind {target} {}{source} {access:?}", from(files)),
        MountKind::Cache(cache) => format!(
            "cache {target} {:?} {}{} {:?} {:?} {}",
            cache.id,
            from(&cache.from),
            cache.source,
            cache.sharing,
            cache.access,
            cache.owner.as_ref().map_or("-".to_owned(), owner),
        ),
        MountKind::Tmpfs { size_bytes, access } => format!("tmpfs {target} {size_bytes:?} {access:?}"),
        MountKind::Secret { id, env, need, owner: of } => {
            format!("secret {target} {id:?} {env:?} {need:?} {}", owner(of))
        }
        MountKind::Ssh { id, need, owner: of } => format!("ssh {target} {id:?} {need:?} {}", owner(of)),
    }
}

#[test]
fn mounts() {
    for (option, want) in [
        ("target=/m", "bind /m context 1/ ReadOnly"),
        ("type=bind,source=a/../b,dst=m/,rw", "bind /w/m context 1/b ReadWrite"),
        ("target=../m,src=/../x,readwrite=false", "bind /m context 1/x ReadOnly"),
        ("from=,target=/m", "bind /m context 1/ ReadOnly"),
        ("from=other,target=/m,ro", "bind /m root 1/ ReadOnly"),
        ("from=scratch,target=/m", "bind /m scratch/ ReadOnly"),
        ("target=/$v", "bind /value context 1/ ReadOnly"),
        ("\\\"target=/a,b\\\",RO", "bind /a,b context 1/ ReadOnly"),
        ("type=cache,target=/m//", "cache /m \"//m\" scratch/ Shared ReadWrite -"),
        ("type=cache,target=rel/", "cache /w/rel \"/rel\" scratch/ Shared ReadWrite -"),
        ("type=CACHE,TARGET=/m,id=$v,sharing=Locked,ro", "cache /m \"/value\" scratch/ Locked ReadOnly -"),
        (
            "type=cache,target=/m,from=other,source=/s,sharing=private,uid=1,mode=0700",
            "cache /m \"//m\" root 1/s Private ReadWrite 1:0 0700",
        ),
        ("target=/m,type=tmpfs,size=1k", "tmpfs /m Some(1024) ReadWrite"),
        ("type=tmpfs,target=/m", "tmpfs /m None ReadWrite"),
        ("type=secret,id=a/b", "secret /run/secrets/b \"a/b\" None Optional 0:0 0400"),
        ("type=secret,source=s,target=t,required", "secret /w/t \"s\" None Required 0:0 0400"),
        ("type=secret,target=/x/y,uid=5,gid=6,mode=440", "secret /x/y \"y\" None Optional 5:6 0440"),
        ("type=secret,id=s,env=E,required=true", "secret - \"s\" Some(\"E\") Required 0:0 0400"),
        ("type=secret,id=s,env=E,dst=/f", "secret /f \"s\" Some(\"E\") Optional 0:0 0400"),
        ("type=ssh", "ssh /run/buildkit/ssh_agent.0 \"default\" Optional 0:0 0600"),
        ("type=ssh,id=k,target=/s,required", "ssh /s \"k\" Required 0:0 0600"),
    ] {
        let graph = planned(&format!("FROM base\nARG v=value\nWORKDIR /w\nRUN --mount={option} x\n"));
        let run = only_run(&graph);
        // Numbers of inputs depend on where the WORKDIR stands: they are told as if there were none.
        let text = run.mounts.iter().map(shown).collect::<String>().replace(" 2/", " 1/");
        assert_eq!(text, want, "{option}");
        assert!(graph.warnings.is_empty(), "{option}");
    }
}

#[test]
fn ssh_sockets_are_numbered_and_told_to_the_command() {
    let op = run("RUN --mount=type=ssh --mount=type=tmpfs,target=/t --mount=type=ssh,id=b x");
    let targets: Vec<_> = op.mounts.iter().filter_map(|mount| mount.target.as_deref()).collect();
    assert_eq!(targets, ["/run/buildkit/ssh_agent.0", "/t", "/run/buildkit/ssh_agent.1"]);
    assert_eq!(op.env.last(), Some(&("SSH_AUTH_SOCK".to_owned(), "/run/buildkit/ssh_agent.0".to_owned())));
    let op = run("ENV SSH_AUTH_SOCK=/mine\nRUN --mount=type=ssh x");
    assert_eq!(op.env.last(), Some(&("SSH_AUTH_SOCK".to_owned(), "/mine".to_owned())));
}

#[test]
fn caches_have_the_namespace_of_the_request() {
    let graph = Asked { args: &[("BUILDKIT_CACHE_MOUNT_NS", "ns")], ..Asked::default() }
        .plan("FROM base\nRUN --mount=type=cache,target=/m,id=i x\n");
    assert_eq!(shown(&only_run(&graph).mounts[0]), "cache /m \"ns/i\" scratch/ Shared ReadWrite -");
}

#[test]
fn options_that_mean_nothing() {
    let dockerfile = "FROM base\nRUN --mount=type=tmpfs,target=/t,source=/x y\n";
    assert_eq!(
        warnings(&planned(dockerfile), dockerfile),
        "\
warning[mount-option-unused]: \"source\" means nothing for a tmpfs mount
 --> Dockerfile:2:13
  |
2 | RUN --mount=type=tmpfs,target=/t,source=/x y
  |             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
"
    );
}
