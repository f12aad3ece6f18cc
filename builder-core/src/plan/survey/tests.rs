//! What base images bring in.

use super::*;
use crate::diagnostic::SourceFile;
use crate::dockerfile::Dockerfile;
use crate::lint::Options;

/// Knows a few images.
struct Known;

impl Bases for Known {
    fn config(&self, name: &ImageName, _: &Platform) -> Option<ImageConfig> {
        let (ImageName::Reference(name) | ImageName::Context(name)) = name;
        let text = match name.as_str() {
            "env" => r#"{"config": {"Env": ["GOPATH=/go"]}}"#,
            "shell" => r#"{"config": {"Shell": ["/bin/ash", "-c"], "WorkingDir": "/w"}}"#,
            "triggers" => r#"{"config": {"OnBuild": ["ARG WHO", "LABEL who=$WHO what=$WHAT", "CMD x"]}}"#,
            "arm" => r#"{"architecture": "arm64", "os": "linux", "variant": "v8", "config": {}}"#,
            _ => return None,
        };
        serde_json::from_str(text).ok()
    }

    fn is_name(&self, _: &str) -> bool {
        true
    }
}

/// Returns rule, line and place of what is found.
fn findings(dockerfile: &str, contexts: &[(String, crate::plan::NamedContext)]) -> Vec<String> {
    let source = SourceFile::new("Dockerfile", dockerfile);
    let dockerfile = Dockerfile::parse(dockerfile).unwrap();
    let request = PlanRequest {
        dockerfile: &dockerfile,
        target: None,
        build_args: &[],
        labels: &[],
        contexts,
        platform: None,
        build_platform: &"linux/amd64".parse().unwrap(),
        source_date_epoch: None,
    };
    let subject = Subject { request: &request, ignore: None, directory: None, selects: |_, _, _| None, bases: &Known };
    let options = Options::default();
    let linter = Linter::new(&options, &source);
    let survey = Survey::new(subject, linter).unwrap();
    let findings = survey.findings(Extent::AllStages);
    let shown = |finding: &Finding| {
        let span = finding.diagnostic.primary.as_ref().unwrap().span;
        format!("{}:{} {:?}", finding.rule.name, finding.lines.0, &source.text()[span.range()])
    };
    findings.iter().map(shown).collect()
}

#[test]
fn base_images() {
    for (dockerfile, want) in [
        ("FROM env\nENV A=$GOPATH B=$GOROOT PATH=$PATH:/x\n", vec!["UndefinedVar:2 \"$GOROOT\""]),
        ("FROM shell\nCMD x\nWORKDIR sub\n", vec!["WorkdirRelativePath:3 \"sub\""]),
        ("FROM arm\n", vec!["InvalidBaseImagePlatform:1 \"arm\""]),
        ("FROM --platform=$BUILDPLATFORM arm AS a\nFROM a\n", vec!["InvalidBaseImagePlatform:1 \"arm\""]),
        // Triggers are not in this file: they are told of where they come in.
        (
            "FROM triggers\nCMD [\"y\"]\n",
            vec![
                "UndefinedVar:1 \"triggers\"",
                "JSONArgsRecommended:1 \"triggers\"",
                "MultipleInstructionsDisallowed:1 \"triggers\"",
            ],
        ),
        ("FROM nobody\nENV A=$GOROOT\nCMD x\n", vec!["JSONArgsRecommended:3 \"CMD\""]),
    ] {
        assert_eq!(findings(dockerfile, &[]), want, "{dockerfile}");
    }
}

#[test]
fn named_contexts() {
    let contexts = [
        ("alpine".to_owned(), crate::plan::NamedContext::Directory),
        ("env".to_owned(), crate::plan::NamedContext::Scratch),
    ];
    for (dockerfile, want) in [
        // What a context stands for is not an image that nobody knows.
        ("FROM alpine\nENV A=$B\n", vec!["UndefinedVar:2 \"$B\""]),
        ("FROM env\nENV A=$GOPATH\n", vec!["UndefinedVar:2 \"$GOPATH\""]),
        // It stands for a whole stage.
        ("FROM scratch AS env\nENV A=$B\n", vec![]),
    ] {
        assert_eq!(findings(dockerfile, &contexts), want, "{dockerfile}");
    }
}
