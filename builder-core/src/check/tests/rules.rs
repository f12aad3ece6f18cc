//! One table a rule: what it finds, and what it lets alone.

use super::*;

/// Asserts rule and line of everything that is found in each Dockerfile, errors or not.
#[track_caller]
fn table(cases: &[(&str, &[(&str, usize)])]) {
    for (dockerfile, want) in cases {
        let report = checked(dockerfile);
        assert_eq!(found(&report), *want, "{dockerfile}\n{}", report.to_text());
    }
}

/// Asserts the messages of all findings.
#[track_caller]
fn messages(dockerfile: &str, want: &[&str]) {
    let report = checked(dockerfile);
    let got: Vec<&str> = report.findings().iter().map(|finding| finding.diagnostic.message.as_str()).collect();
    assert_eq!(got, want, "{}", report.to_text());
}

#[test]
fn the_table_is_in_order() {
    let names: Vec<&str> = lint::RULES.iter().map(|rule| rule.name).collect();
    let unique: std::collections::BTreeSet<&&str> = names.iter().collect();
    assert_eq!(unique.len(), names.len(), "no two rules have one name");
    let buildkit = lint::RULES.iter().filter(|rule| rule.origin == lint::Origin::BuildKit).count();
    assert_eq!(buildkit, 22, "BuildKit has 22 rules");
    let page = std::fs::read_to_string("../docs/checks.md").unwrap();
    for name in names {
        assert!(page.contains(&format!("`{name}`")), "docs/checks.md knows {name}");
    }
    for rule in lint::RULES.iter().filter(|rule| rule.url.is_some()) {
        let kebab: String = rule.url.unwrap().trim_end_matches('/').rsplit('/').next().unwrap().replace('-', "");
        assert_eq!(kebab, rule.name.to_lowercase(), "the address is the rule's");
    }
}

#[test]
fn stage_names() {
    table(&[
        ("FROM scratch AS BadStageName\n", &[("StageNameCasing", 1)]),
        ("FROM scratch as base\n", &[("FromAsCasing", 1)]),
        ("from scratch AS base\nfrom scratch as base2\n", &[("FromAsCasing", 1)]),
        ("FROM scratch AS base3\n", &[]),
        ("FROM scratch AS b\nFROM scratch AS b\n", &[("DuplicateStageName", 2)]),
        ("FROM scratch AS b1\nFROM scratch AS b2\n", &[]),
        ("FROM scratch AS scratch\nFROM scratch AS context\n", &[("ReservedStageName", 1), ("ReservedStageName", 2)]),
        ("FROM scratch\nFROM scratch AS a\n", &[]),
    ]);
    messages(
        "FROM scratch as Scratch\nFROM scratch AS scratch\n",
        &[
            "'as' and 'FROM' keywords' casing do not match",
            "Stage name should not use the same name as reserved stage \"scratch\"",
            "Stage name 'Scratch' should be lowercase",
            "Stage name should not use the same name as reserved stage \"scratch\"",
            "Duplicate stage name \"scratch\", stage names should be unique",
        ],
    );
}

#[test]
fn empty_continuation_lines() {
    table(&[
        ("FROM scratch\nCOPY Dockerfile \\\n\n.\nCOPY Dockerfile \\\n.\n", &[("NoEmptyContinuation", 3)]),
        ("FROM scratch\nCOPY Dockerfile \\\n# not empty\n.\n", &[]),
    ]);
}

#[test]
fn casing_of_instructions() {
    const RULE: &str = "ConsistentInstructionCasing";
    table(&[
        ("From scratch as base\nFROM scratch AS base2\n", &[(RULE, 1)]),
        ("FROM scratch\ncopy Dockerfile /foo\nCOPY Dockerfile /bar\n", &[(RULE, 2)]),
        ("frOM scratch as base\nfrom scratch as base2\n", &[(RULE, 1)]),
        ("from scratch\nCOPY Dockerfile /foo\ncopy Dockerfile /bar\n", &[(RULE, 2)]),
        ("from scratch\nCOPY Dockerfile /foo\nCOPY Dockerfile /bar\n", &[(RULE, 1)]),
        ("FROM scratch\ncopy Dockerfile /foo\ncopy Dockerfile /bar\n", &[(RULE, 1)]),
        ("from scratch\ncopy Dockerfile /foo\n", &[]),
        ("FROM scratch\nRUN <<'EOT'\nenv\nEOT\n", &[]),
        // What stands before the first stage has no say.
        ("arg a\narg b\nFROM scratch\n", &[]),
    ]);
    messages("FROM scratch\nEnv a=b\n", &["Command 'Env' should match the case of the command majority (uppercase)"]);
}

#[test]
fn json_arguments() {
    const RULE: &str = "JSONArgsRecommended";
    table(&[
        ("FROM scratch\nCMD mycommand\n", &[(RULE, 2)]),
        ("FROM scratch\nENTRYPOINT mycommand\n", &[(RULE, 2)]),
        ("FROM scratch\nSHELL [\"/usr/bin/customshell\"]\nCMD mycommand\n", &[]),
        ("FROM scratch AS base\nSHELL [\"/usr/bin/customshell\"]\nFROM base\nENTRYPOINT mycommand\n", &[]),
        ("FROM scratch\nCMD [\"mycommand\"]\nENTRYPOINT []\nRUN x\n", &[]),
        ("FROM scratch\nCMD ['mycommand']\n", &[(RULE, 2), ("BrokenJSONForm", 2)]),
    ]);
}

#[test]
fn maintainers() {
    table(&[
        ("FROM scratch\nMAINTAINER me@example.org\n", &[("MaintainerDeprecated", 2)]),
        ("FROM scratch\nLABEL org.opencontainers.image.authors=\"me@example.org\"\n", &[]),
    ]);
}

#[test]
fn undeclared_args_in_from() {
    const RULE: &str = "UndefinedArgInFrom";
    table(&[
        ("ARG base=scratch\nFROM $base\n", &[]),
        ("ARG BUILDPLATFORM=linux/amd64\nFROM --platform=$BUILDPLATFORM scratch\n", &[]),
        ("FROM --platform=$BUILDPLATFORM scratch\n", &[]),
        ("ARG DEBUG\nFROM scratch${DEBUG}\n", &[]),
        ("ARG DEBUG\nFROM scra${DEBUG:-tch}\n", &[]),
        ("ARG DEBUG=\"\"\nFROM scratch${DEBUG-@bogus}\n", &[]),
        ("FROM --platform=$BULIDPLATFORM scratch\n", &[(RULE, 1)]),
        ("ARG MY_OS=linux\nARG MY_ARCH=amd64\nFROM --platform=linux/${MYARCH} busybox\n", &[(RULE, 3)]),
        ("ARG tag=latest\nFROM busybox:${tag}${version} AS b\n", &[(RULE, 2)]),
        ("FROM scratch\nARG late=x\nFROM scratch${late}\n", &[(RULE, 3)]),
    ]);
    messages(
        "FROM --platform=$BULIDPLATFORM scratch\n",
        &["FROM argument 'BULIDPLATFORM' is not declared (did you mean BUILDPLATFORM?)"],
    );
}

#[test]
fn relative_workdirs() {
    table(&[
        ("FROM scratch\nWORKDIR app/\n", &[("WorkdirRelativePath", 2)]),
        ("FROM scratch\nWORKDIR app/\nWORKDIR more\n", &[("WorkdirRelativePath", 2)]),
        ("FROM scratch AS a\nWORKDIR /app\nFROM a AS b\nWORKDIR subdir/\n", &[]),
        ("FROM scratch\nENV D=/d\nWORKDIR $D\n", &[]),
        // What the base image says of it is not known.
        ("FROM unknown\nWORKDIR $HOME\n", &[]),
        ("FROM unknown\nWORKDIR app\n", &[("WorkdirRelativePath", 2)]),
    ]);
}

#[test]
fn undefined_variables() {
    const RULE: &str = "UndefinedVar";
    table(&[
        ("FROM scratch\nARG foo\nCOPY Dockerfile${foo} .\n", &[]),
        ("FROM scratch AS base\nARG foo=Dockerfile\nFROM base\nCOPY $foo .\n", &[]),
        ("FROM scratch\nRUN echo $PATH $nowhere\n", &[]),
        ("FROM scratch\nCOPY $foo .\nARG foo=bar\nRUN echo $foo\n", &[(RULE, 2)]),
        ("FROM scratch\nENV PATH=$PAHT:/tmp/bin\n", &[(RULE, 2)]),
        ("FROM scratch\nENV a=b c=$a\n", &[(RULE, 2)]),
        ("FROM scratch\nARG a=b c=$a d=${e:-f}\n", &[(RULE, 2)]),
        ("FROM scratch\nCOPY <<X <<'Y' /z/\n$one\nX\n$two\nY\n", &[(RULE, 2)]),
        (
            "FROM scratch\nRUN --mount=type=cache,target=/c,id=$one x\nLABEL $two=$three\n",
            &[(RULE, 2), (RULE, 3), (RULE, 3)],
        ),
        ("FROM scratch\nCMD [\"$x\"]\nEXPOSE 80$y\n", &[]),
        // The base image may define it.
        ("FROM unknown\nCOPY $foo .\n", &[]),
        ("FROM unknown AS a\nFROM a\nCOPY $foo .\n", &[]),
        // Triggers are done where they are pulled.
        ("FROM scratch AS a\nONBUILD USER $who\nFROM a\nFROM a\n", &[(RULE, 2)]),
        ("FROM scratch AS first\nCOPY $foo .\nFROM scratch AS second\nCOPY $bar .\n", &[(RULE, 2), (RULE, 4)]),
    ]);
    messages(
        "FROM scratch\nARG DIR_BINARIES=b/\nARG DIR_ASSETS=a/\nCOPY $DIR_ASSET .\n",
        &["Usage of undefined variable '$DIR_ASSET' (did you mean $DIR_ASSETS?)"],
    );
}

#[test]
fn only_the_last_counts() {
    const RULE: &str = "MultipleInstructionsDisallowed";
    let pairs = "ENTRYPOINT [\"/a\"]\nENTRYPOINT [\"/b\"]\nCMD [\"/a\"]\nCMD [\"/b\"]\nHEALTHCHECK CMD [\"/a\"]\nHEALTHCHECK NONE\n";
    table(&[
        (&format!("FROM scratch\n{pairs}"), &[(RULE, 2), (RULE, 4), (RULE, 6)]),
        ("FROM scratch AS a\nCMD [\"/a\"]\nFROM a AS b\nCMD [\"/b\"]\n", &[]),
        ("FROM scratch\nCMD [\"/a\"]\nLABEL a=b\nCMD [\"/b\"]\nCMD [\"/c\"]\n", &[(RULE, 2), (RULE, 4)]),
    ]);
}

#[test]
fn legacy_pairs() {
    const RULE: &str = "LegacyKeyValueFormat";
    table(&[
        ("FROM scratch\nENV testkey value\nLABEL key value\n", &[(RULE, 2), (RULE, 3)]),
        ("FROM scratch\nENV testkey=value\nLABEL key=value\n", &[]),
    ]);
    messages(
        "FROM scratch\nENV a b\n",
        &["\"ENV key=value\" should be used instead of legacy \"ENV key value\" format"],
    );
}

#[test]
fn platforms_of_from() {
    const CONSTANT: &str = "FromPlatformFlagConstDisallowed";
    table(&[
        ("FROM --platform=$TARGETPLATFORM scratch\n", &[("RedundantTargetPlatform", 1)]),
        ("FROM --platform=${TARGETPLATFORM} scratch\n", &[("RedundantTargetPlatform", 1)]),
        ("FROM --platform=$TARGETOS/$TARGETARCH scratch\n", &[]),
        ("FROM --platform=linux/amd64 scratch\n", &[(CONSTANT, 1)]),
        ("FROM --platform=linux/amd64 scratch AS my_amd64_stage\n", &[]),
        ("FROM --platform=linux/amd64 scratch AS linux\n", &[]),
        ("FROM --platform=linux/arm64 scratch AS build\n", &[(CONSTANT, 1)]),
    ]);
}

#[test]
fn names_that_sound_secret() {
    const RULE: &str = "SecretsUsedInArgOrEnv";
    table(&[(
        "FROM scratch\nARG SECRET_PASSPHRASE\nENV SUPER_Secret=foo\nENV password=bar secret=baz\n\
         ARG super_duper_secret_token=foo auth=bar\nENV apikey=bar sunflower=foo\nENV git_key=\nENV PUBLIC_KEY=\n\
         ARG public_token\nENV TOKENS=1 KEY_FILE=/x\nARG monkey\n",
        &[(RULE, 2), (RULE, 3), (RULE, 4), (RULE, 4), (RULE, 5), (RULE, 5), (RULE, 6), (RULE, 7)],
    )]);
    // What stands before the first stage is in no image.
    table(&[("ARG TOKEN\nFROM scratch\n", &[])]);
}

#[test]
fn defaults_of_global_args() {
    const RULE: &str = "InvalidDefaultArgInFrom";
    for (dockerfile, args, want) in [
        ("ARG VERSION\nFROM busybox:$VERSION\n", ("VERSION", "latest"), 1),
        ("ARG IMAGE\nFROM $IMAGE\n", ("IMAGE", "busybox:latest"), 1),
        ("ARG SFX=\"box:\"\nFROM busy${SFX}\n", ("SFX", "box:latest"), 1),
        ("ARG VERSION=\"latest\"\nFROM busybox:${VERSION}\n", ("VERSION", "latest"), 0),
        ("ARG VARIANT=\"\"\nFROM busybox:stable${VARIANT}\n", ("VARIANT", "-musl"), 0),
        ("ARG VARIANT\nFROM busybox:stable${VARIANT}\n", ("VARIANT", "-musl"), 0),
    ] {
        let mut request = request(dockerfile);
        request.build_args.push((args.0.to_owned(), args.1.to_owned()));
        let report = check(&request, None).unwrap();
        assert_eq!(found(&report), vec![(RULE, 2); want], "{dockerfile}");
        assert!(report.errors().is_empty(), "{}", report.to_text());
    }
}

#[test]
fn ignored_sources() {
    const RULE: &str = "CopyIgnoredFile";
    let dir = tempfile::tempdir().unwrap();
    let dockerfile = "FROM scratch AS base\nCOPY Dockerfile .\nADD Dockerfile /windy\nCOPY . /\n\
                      COPY dist/a /foobar\nCOPY ./x/../dist/b /foobar\nADD https://example.com/dist /x\n\
                      FROM base\nCOPY --from=base /dist /Dockerfile\nCOPY <<dist /\ndist\n";
    for (rules, want) in [
        ("Dockerfile\n", vec![(RULE, 2), (RULE, 3)]),
        ("dist\n", vec![(RULE, 5), (RULE, 6)]),
        ("other\n", vec![]),
        // A directory that is left out may hold what is not.
        ("dist\n!dist/a\n", vec![]),
    ] {
        std::fs::write(dir.path().join(".dockerignore"), rules).unwrap();
        let mut request = request(dockerfile);
        request.context = ContextSource::Directory(dir.path().to_owned());
        let report = check(&request, None).unwrap();
        assert_eq!(found(&report), want, "{rules}");
        request.dockerfile.ignore = Some(("Dockerfile.dockerignore".to_owned(), "nothing\n".to_owned()));
        assert!(check(&request, None).unwrap().is_clean(), "the rules of the Dockerfile replace those of the context");
    }
}

#[test]
fn wildcards_without_files() {
    const RULE: &str = "WildcardMatchesNothing";
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("src")).unwrap();
    for file in ["a.txt", "src/b.rs", "hidden.log", ".dockerignore"] {
        std::fs::write(dir.path().join(file), "*.log\n").unwrap();
    }
    let dockerfile = "FROM scratch AS base\nCOPY *.txt /\nCOPY *.md /\nADD src/*.rs src/*.c /x/\nCOPY *.log /\n\
                      COPY --from=base *.md /\nCOPY missing /\nARG X=md\nCOPY *.$X /\n";
    let mut request = request(dockerfile);
    request.context = ContextSource::Directory(dir.path().to_owned());
    let report = check(&request, None).unwrap();
    let want = [(RULE, 3), (RULE, 4), ("CopyIgnoredFile", 5), (RULE, 9)];
    assert_eq!(found(&report), want, "{}", report.to_text());
}

#[test]
fn descriptions() {
    const RULE: &str = "InvalidDefinitionDescription";
    const ON: &str = "# check=experimental=InvalidDefinitionDescription\n";
    let good = "# foo this is the foo\nARG foo=bar\n\n# base this is the base image\nFROM scratch AS base\n\n\
                # version this is the version number\nARG version=latest\n\n# baz this is the baz\n\
                ARG foo=baz bar=qux baz=quux\n#\nARG bit=bat\n\n# something else\nCOPY Dockerfile .\n";
    let bad = "# bar this is the bar\nARG foo=bar\n# BasE this is the BasE image\nFROM scratch AS base\n\
               # definitely a bad comment\nARG version=latest\n# definitely a bad comment\n\
               ARG foo=baz bar=qux baz=quux\n";
    table(&[
        (&format!("{ON}{good}"), &[]),
        (&format!("{ON}{bad}"), &[(RULE, 3), (RULE, 5), (RULE, 7), (RULE, 9)]),
        (bad, &[]),
    ]);
    messages(
        &format!("{ON}# x\nARG a b\nFROM scratch\n"),
        &["Comment for ARG should follow the format: `# <arg_key> <description>`"],
    );
}

#[test]
fn ports() {
    table(&[
        ("FROM scratch\nEXPOSE 80/TCP 81/udp 82\n", &[("ExposeProtoCasing", 2)]),
        (
            "FROM scratch\nEXPOSE 127.0.0.1:80:80\nEXPOSE 5000:5000 80\n",
            &[("ExposeInvalidFormat", 2), ("ExposeInvalidFormat", 3)],
        ),
        ("FROM scratch\nEXPOSE [::1]:8080:8080/Tcp\n", &[("ExposeProtoCasing", 2), ("ExposeInvalidFormat", 2)]),
    ]);
    messages("FROM scratch\nEXPOSE 80/TcP\n", &["Defined protocol '80/TcP' in EXPOSE instruction should be lowercase"]);
}

#[test]
fn rules_of_our_own() {
    table(&[
        ("FROM scratch\nENTRYPOINT [\"a\",]\n", &[("JSONArgsRecommended", 2), ("BrokenJSONForm", 2)]),
        (
            "FROM scratch\nCOPY a b /c\nCOPY a b /c/\nCOPY a b .\nCOPY --parents a b /c\n",
            &[("SeveralSourcesWithoutSlash", 2)],
        ),
        ("FROM scratch\nADD --keep-git-dir a /a\n", &[("OptionWithoutEffect", 2)]),
        ("FROM scratch\nRUN --mount=type=tmpfs,target=/t,id=x true\n", &[("OptionWithoutEffect", 2)]),
        ("FROM scratch\nADD https://example.com/x /x\n", &[]),
        (
            "# check=experimental=AddWithoutChecksum\nFROM scratch\nADD https://example.com/x /x\n\
             ADD --checksum=sha256:0000000000000000000000000000000000000000000000000000000000000000 https://example.com/y /y\n",
            &[("AddWithoutChecksum", 3)],
        ),
    ]);
}

#[test]
fn names_that_are_nearly_those_of_stages() {
    const RULE: &str = "StageNameTypo";
    table(&[
        ("FROM scratch AS build\nFROM scratch\nCOPY --from=biuld /a /\n", &[(RULE, 3)]),
        ("FROM scratch AS build\nFROM biuld\n", &[(RULE, 2)]),
        ("FROM scratch AS build\nFROM scratch\nRUN --mount=from=buidl,target=/b x\n", &[(RULE, 3)]),
        ("FROM python AS python3\nFROM scratch\nCOPY --from=python /a /\n", &[]),
        ("FROM scratch AS build\nFROM scratch\nCOPY --from=biuld:1 /a /\nCOPY --from=other /a /\n", &[]),
        // A later stage is an error, not a typo.
        ("FROM scratch\nCOPY --from=biuld /a /\nFROM scratch AS build\n", &[]),
    ]);
}

#[test]
fn an_ignore_file_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(".dockerignore"), "[\n").unwrap();
    let mut request = request("FROM scratch\nCOPY a /\n");
    request.context = ContextSource::Directory(dir.path().to_owned());
    let report = check(&request, None).unwrap();
    assert_eq!(report.errors()[0].code, "ignore-file");
    assert!(report.to_text().contains(".dockerignore"), "{}", report.to_text());
}

#[test]
fn check_directives() {
    table(&[
        ("#check=skip=all\nFROM scratch as base\ncopy Dockerfile .\n", &[]),
        ("#check=skip=all;error=true\nFROM scratch as base\ncopy Dockerfile .\n", &[]),
        ("#check=skip=ConsistentInstructionCasing,FromAsCasing\nFROM scratch as base\ncopy Dockerfile .\n", &[]),
        ("#check=skip=ConsistentInstructionCasing\nFROM scratch as base\ncopy Dockerfile .\n", &[("FromAsCasing", 2)]),
        // An unknown name skips nothing, and is told.
        ("# check=skip=FromAsCasign\nFROM scratch as base\n", &[("UnknownCheckOption", 1), ("FromAsCasing", 2)]),
        (
            "# check=skip=FromAsCasing, StageNameCasing\nFROM scratch as B\n",
            &[("UnknownCheckOption", 1), ("StageNameCasing", 2)],
        ),
        // A comment is for the instruction below it.
        (
            "FROM scratch\n# check=skip=JSONArgsRecommended because\nCMD a\nENTRYPOINT b\n",
            &[("JSONArgsRecommended", 4)],
        ),
        ("FROM scratch\n# check=skip=Whatever\nCMD [\"a\"]\n", &[("UnknownCheckOption", 3)]),
    ]);
    let mut request = request("#check=skip=all\nFROM scratch as base\ncopy Dockerfile .\n");
    let arg = |value: &str| vec![("BUILDKIT_DOCKERFILE_CHECK".to_owned(), value.to_owned())];
    request.build_args = arg("skip=ConsistentInstructionCasing;error=true");
    assert_eq!(found(&check(&request, None).unwrap()), [("FromAsCasing", 2)], "the build arg replaces the directive");
    request.build_args = arg("");
    assert_eq!(check(&request, None).unwrap().findings().len(), 2);
    request.build_args = arg("skpi=all");
    let error = check(&request, None).unwrap_err();
    assert!(error.to_string().contains("did you mean \"skip\""), "{error}");
    let report = checked("# check=skip\nFROM scratch as base\n");
    assert_eq!(report.errors()[0].code, "check-directive");
}

#[test]
fn a_target_leaves_other_stages_out() {
    let text = "FROM scratch AS a\nENV a b\nFROM scratch AS b\nENV c d\nFROM a as c\nCOPY --from=b x x\n";
    let mut request = request(text);
    for (target, want) in [
        (None, vec![2, 4, 5]),
        // Rules that need the text alone hold for the whole file.
        (Some("a"), vec![2, 5]),
        (Some("b"), vec![4, 5]),
        (Some("c"), vec![2, 4, 5]),
    ] {
        request.target = target.map(str::to_owned);
        let report = check(&request, None).unwrap();
        let lines: Vec<usize> = report.findings().iter().map(|finding| finding.lines.0).collect();
        assert_eq!(lines, want, "{target:?}");
    }
    request.target = Some("d".to_owned());
    assert_eq!(check(&request, None).unwrap().errors()[0].code, "target-unknown");
}

#[test]
fn errors_are_told_together() {
    let report = checked(
        "FROM scratch AS BadStageName\nMAINTAINER me@example.org\nBADCMD\nCOPY --form=x a b\nRNU true\nHEALTHCHECK NOEN\n",
    );
    let codes: Vec<&str> = report.errors().iter().map(|error| error.code.as_ref()).collect();
    assert_eq!(codes, ["unknown-instruction", "unknown-flag", "unknown-instruction", "healthcheck-type"]);
    assert_eq!(found(&report), [("StageNameCasing", 1), ("MaintainerDeprecated", 2)]);
    // Of the plan the first of each stage.
    let report = checked(
        "FROM scratch AS a\nCOPY --chmod=x a b\nFROM scratch AS b\nSTOPSIGNAL SIGTREM\nFROM unknown\nCOPY --from=later a b\nEXPOSE nothing\nFROM scratch AS later\n",
    );
    let codes: Vec<&str> = report.errors().iter().map(|error| error.code.as_ref()).collect();
    assert_eq!(codes, ["chmod-invalid", "signal-unknown", "stage-later"]);
}

#[test]
fn what_an_unknown_base_decides_is_no_error() {
    let report = checked("FROM unknown:1\nVOLUME $DATA\nFROM other\nEXPOSE x\nFROM unknown:1\n");
    let codes: Vec<&str> = report.errors().iter().map(|error| error.code.as_ref()).collect();
    assert_eq!(codes, ["expose-invalid"]);
    let unknown: Vec<_> = report.unknown_bases().collect();
    assert_eq!(unknown, [("unknown:1", 1), ("other", 3), ("unknown:1", 5)]);
    assert_eq!(checked("FROM UPPER/case\n").errors()[0].code, "image-not-found");
}
