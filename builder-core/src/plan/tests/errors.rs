//! What is wrong with a Dockerfile, and where it is told.

use super::*;

/// Returns the first line of the error and what is underlined.
fn brief(dockerfile: &str) -> (String, String) {
    brief_of(&Asked::default(), dockerfile)
}

fn brief_of(asked: &Asked<'_>, dockerfile: &str) -> (String, String) {
    match asked.plan_with(dockerfile, &Images::default()) {
        Ok(graph) => panic!("planned {dockerfile}:\n{}", steps(&graph)),
        Err(Error::Dockerfile { diagnostics }) => {
            let diagnostic = &diagnostics[0];
            let place = diagnostic.primary.as_ref().map(|label| dockerfile[label.span.range()].to_owned());
            (format!("{}: {}", diagnostic.code, diagnostic.message), place.unwrap_or_default())
        }
        Err(Error::Resolve { diagnostic, source }) => {
            let place = diagnostic.primary.as_ref().map(|label| dockerfile[label.span.range()].to_owned());
            (format!("{}: {}: {source}", diagnostic.code, diagnostic.message), place.unwrap_or_default())
        }
    }
}

#[test]
fn stages() {
    for (dockerfile, message, place) in [
        ("FROM nosuch", "image-not-found: the image \"nosuch\" cannot be used: not found", "nosuch"),
        ("FROM $A", "from-empty: the image name \"$A\" is empty", "$A"),
        (
            "FROM --platform=a/b/c/d base",
            "platform-invalid: \"a/b/c/d\" is not a platform (want os/arch or os/arch/variant, such as linux/arm64)",
            "a/b/c/d",
        ),
        ("FROM --platform=$X base", "platform-invalid: the platform \"$X\" is empty", "$X"),
        ("FROM base\nCOPY --from=5 a b", "stage-unknown: there is no stage 5", "5"),
        ("FROM base AS a\nCOPY --from=a a b", "stage-circular: stage \"a\" takes files from itself", "a"),
        ("FROM base\nCOPY --from=0 a b", "stage-circular: stage \"0\" takes files from itself", "0"),
        ("FROM base\nCOPY --from=$X a b", "from-empty: the name \"$X\" is empty", "$X"),
        (
            "FROM base\nCOPY --from=nosuch a b",
            "image-not-found: the image \"nosuch\" cannot be used: not found",
            "nosuch",
        ),
        (
            "FROM base\nRUN --mount=from=nosuch,target=/m x",
            "image-not-found: the image \"nosuch\" cannot be used: not found",
            "from=nosuch,target=/m",
        ),
    ] {
        assert_eq!(brief(dockerfile), (message.to_owned(), place.to_owned()), "{dockerfile}");
    }
    let later = "FROM base AS x\nCOPY --from=later a b\nFROM base AS later\n";
    assert_eq!(
        Asked { target: Some("x"), ..Asked::default() }.error(later),
        "\
error[stage-later]: stage \"later\" starts further down
 --> Dockerfile:2:13
  |
2 | COPY --from=later a b
  |             ^^^^^
3 | FROM base AS later
  | ---- it starts here
  = hint: move it before the stage that takes files from it
"
    );
}

#[test]
fn near_misses() {
    let dockerfile = "FROM base AS builder\nFROM scratch\nCOPY --from=bulider a b\n";
    assert_eq!(
        Asked::default().error(dockerfile),
        "\
error[image-not-found]: the image \"bulider\" cannot be used
 --> Dockerfile:3:13
  |
3 | COPY --from=bulider a b
  |             ^^^^^^^
  = hint: did you mean the stage \"builder\"?
cause: not found
"
    );
    assert_eq!(
        Asked { target: Some("bilder"), ..Asked::default() }.error(dockerfile),
        "\
error[target-unknown]: there is no stage \"bilder\" to build
  = note: stages are \"builder\"
  = hint: did you mean \"builder\"?
"
    );
    assert_eq!(
        Asked { target: Some("7"), ..Asked::default() }.error("FROM base\n"),
        "\
error[target-unknown]: there is no stage \"7\" to build
  = note: no stage has a name; numbers go from 0 to 0
"
    );
}

#[test]
fn instructions() {
    for (line, message, place) in [
        ("EXPOSE http", "expose-invalid: invalid port \"http\": \"http\" is not a port or a range of ports", "http"),
        ("EXPOSE 80/foo", "expose-invalid: invalid port \"80/foo\": \"foo\" is not a protocol", "80/foo"),
        ("STOPSIGNAL TREM", "signal-unknown: \"TREM\" is not a signal", "TREM"),
        ("VOLUME $x", "volume-empty: the path of a volume is empty", "$x"),
        (
            "RUN --device=gpu x",
            "device-invalid: invalid device \"gpu\": \"gpu\" does not have the form vendor.com/class=device",
            "gpu",
        ),
        ("RUN --device=required x", "device-invalid: invalid device \"required\": it has no name", "required"),
        ("COPY --chmod=64a a b", "chmod-invalid: \"64a\" is not a file mode", "64a"),
        ("COPY --chmod=10000 a b", "chmod-invalid: \"10000\" is not a file mode", "10000"),
        ("COPY https://x/y b", "copy-remote: COPY cannot take \"https://x/y\", which is a URL", "https://x/y"),
        ("COPY git@h:r b", "copy-remote: COPY cannot take \"git@h:r\", which is a git repository", "git@h:r"),
        ("ADD --checksum=sha256:0 a b", "checksum-local: --checksum is for URLs and git repositories", "sha256:0"),
        ("ADD --checksum=md5:0 http://x/y b", "checksum-invalid: \"md5:0\" is not a SHA-256 digest", "md5:0"),
        ("ADD --checksum=sha256:0 http://x/y.git b", "checksum-invalid: \"sha256:0\" is not a commit", "sha256:0"),
        ("ADD --checksum=x http://x/y http://x/z b", "checksum-sources: --checksum is for one source", "x"),
        ("ADD --checksum=ab http://x/y.git?commit=cd b", "checksum-twice: --checksum and the URL disagree", "ab"),
        (
            "ADD http://x/y.git?nosuch=1 b",
            "git-url-invalid: invalid git URL \"http://x/y.git?nosuch=1\": the query says \"nosuch\", which means nothing for a git repository",
            "http://x/y.git?nosuch=1",
        ),
    ] {
        assert_eq!(brief(&format!("FROM base\n{line}\n")), (message.to_owned(), place.to_owned()), "{line}");
    }
}

#[test]
fn expansions_point_into_the_word() {
    let (message, place) = brief("FROM base\nLABEL a=b$x\"${x:?is needed}\"\n");
    assert!(message.starts_with("expansion: ") && message.contains("is needed"), "{message}");
    assert_eq!(place, "${x:?is needed}");
}

#[test]
fn mounts() {
    for (mount, message, place) in [
        ("typ=tmpfs", "\"typ\" is not a mount option", "typ=tmpfs"),
        ("type=bogus,target=/m", "\"bogus\" is not a mount type", "type=bogus"),
        ("target=/m,z", "\"z\" is not a mount option", "z"),
        ("target=/m,source", "\"source\" has no value", "source"),
        ("target=/m,rw=maybe", "\"maybe\" is no value for \"rw\"", "rw=maybe"),
        ("type=cache,target=/m,sharing=x", "\"x\" is not a way of sharing", "sharing=x"),
        ("type=cache,target=/m,mode=8", "\"8\" is no value for \"mode\"", "mode=8"),
        ("type=cache,target=/m,uid=-1", "\"-1\" is no value for \"uid\"", "uid=-1"),
        ("type=tmpfs,target=/m,size=big", "\"big\" is no value for \"size\"", "size=big"),
        ("target=/m,uid=1", "\"uid\" is not for a bind mount", "target=/m,uid=1"),
        ("type=cache,target=/m,required", "\"required\" is not for a cache mount", "type=cache,target=/m,required"),
        ("target=/m,sharing=shared", "\"sharing\" is not for a bind mount", "target=/m,sharing=shared"),
        ("target=/m,env=X", "\"env\" is not for a bind mount", "target=/m,env=X"),
        ("target=/m,size=1", "\"size\" is not for a bind mount", "target=/m,size=1"),
        ("type=secret", "the secret has neither an id nor a target", "type=secret"),
        ("type=secret,id=a,from=b", "\"from\" is not for a secret mount", "type=secret,id=a,from=b"),
        ("type=secret,id=a,source=b", "\"source\" and \"id\" are the same for a secret", "type=secret,id=a,source=b"),
        ("type=ssh,source=b", "an ssh mount has no source", "type=ssh,source=b"),
    ] {
        let want = (format!("mount-option: {message}"), place.to_owned());
        assert_eq!(brief(&format!("FROM base\nRUN --mount={mount} x\n")), want, "{mount}");
    }
    let root = |mount: &str| brief(&format!("FROM base\nRUN --mount={mount} x\n")).0;
    for mount in ["type=bind", "target=/", "type=cache,target=a/.."] {
        assert_eq!(root(mount), "mount-target: nothing can be mounted on \"/\"", "{mount}");
    }
}

#[test]
fn a_typo_in_a_mount_is_underlined() {
    assert_eq!(
        Asked::default().error("FROM base\nRUN --mount=type=cahce,target=/m x\n"),
        "\
error[mount-option]: \"cahce\" is not a mount type
 --> Dockerfile:2:13
  |
2 | RUN --mount=type=cahce,target=/m x
  |             ^^^^^^^^^^
  = hint: did you mean \"cache\"?
"
    );
}

#[test]
fn source_date_epoch() {
    let epoch =
        |value: &'static str| Asked { args: Box::leak(Box::new([("SOURCE_DATE_EPOCH", value)])), ..Asked::default() };
    let stages =
        "FROM scratch AS good\nADD https://x/y /\nFROM scratch AS bad\nCOPY a /\nFROM base AS worse\nFROM base\n";
    for (value, want) in [
        ("yesterday", "source-date-epoch-invalid: \"yesterday\" is no SOURCE_DATE_EPOCH"),
        ("good", "source-date-epoch-stage: the date of what stage \"good\" adds is not known before the build"),
        ("bad", "source-date-epoch-stage: stage \"bad\" gives no date: it has COPY"),
        ("worse", "source-date-epoch-stage: stage \"worse\" gives no date: it is not FROM scratch"),
    ] {
        assert_eq!(brief_of(&epoch(value), stages).0, want);
    }
    assert_eq!(brief("ARG SOURCE_DATE_EPOCH=x\nFROM base\n").1, "x");
}

#[test]
fn variables_do_not_grow_without_end() {
    let doubling = "ENV A=$A$A\n".repeat(64);
    let (message, place) = brief(&format!("FROM base\nENV A=0123456789\n{doubling}"));
    assert_eq!((message.as_str(), place.as_str()), ("expansion-too-long: this expands to more than 1 MiB", "$A$A"));
}

#[test]
fn a_slip_in_the_name_of_a_stage_or_a_context_is_recognised() {
    let asked = Asked { contexts: &[("assets", NamedContext::Directory)], ..Asked::default() };
    let hint = |dockerfile: &str| match asked.plan_with(dockerfile, &Images::default()) {
        Err(Error::Resolve { diagnostic, .. }) => diagnostic.hints.join("; "),
        other => panic!("{other:?}"),
    };
    for (last, kind) in [
        ("COPY --from=buidl /x /y", "stage \"build\""),
        ("RUN --mount=from=buidl,target=/m true", "stage \"build\""),
        ("RUN --mount=type=cache,from=biuld,target=/m true", "stage \"build\""),
        ("FROM bulid", "stage \"build\""),
        ("COPY --from=asets /x /y", "context \"assets\""),
        ("FROM aset", "context \"assets\""),
        ("RUN --mount=from=assests,target=/m true", "context \"assets\""),
    ] {
        assert_eq!(
            hint(&format!("FROM base AS build\nFROM base\n{last}\n")),
            format!("did you mean the {kind}?"),
            "{last}"
        );
    }
    assert_eq!(hint("FROM base AS build\nFROM nosuch\n"), "");
}
