//! Dockerfiles: parsed, and planned over images of which the fuzzer writes the triggers.

use super::render;
use crate::diagnostic::Diagnostic;
use crate::digest::Digest;
use crate::dockerfile::Dockerfile;
use crate::image::{ImageConfig, Platform};
use crate::plan::{Error, ImageName, ImageResolver, NamedContext, PlanRequest, ResolveError, ResolvedImage, plan};

/// Every name is an image; those with a `t` in front have the triggers.
#[derive(Debug)]
struct Images<'a> {
    triggers: Vec<&'a str>,
}

impl ImageResolver for Images<'_> {
    fn resolve(&self, name: &ImageName, platform: &Platform) -> Result<ResolvedImage, ResolveError> {
        let (ImageName::Reference(name) | ImageName::Context(name)) = name;
        if name.contains("missing") {
            return Err("not found".into());
        }
        let mut config = ImageConfig { os: platform.os.clone(), ..ImageConfig::default() };
        config.architecture.clone_from(&platform.architecture);
        config.variant.clone_from(&platform.variant);
        config.config.env = vec!["PATH=/opt:/bin".to_owned(), "EMPTY=".to_owned(), "ODD".to_owned()];
        config.config.working_dir = "/work/../dir".to_owned();
        if name.rsplit('/').next().is_some_and(|name| name.starts_with('t')) {
            config.config.on_build = self.triggers.iter().map(|trigger| (*trigger).to_owned()).collect();
        }
        Ok(ResolvedImage { name: name.clone(), digest: Digest::of(name.as_bytes()), config })
    }
}

/// A Dockerfile; what follows a zero byte are triggers of its base images, one a line.
///
/// Laws: every place lies in the text, an error has an error in it, inputs of a step stand before it.
pub fn dockerfile(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (source, triggers) = text.split_once('\0').unwrap_or((text, ""));
    let parsed = match Dockerfile::parse_with_warnings(source) {
        Ok(parsed) => parsed,
        Err(diagnostics) => {
            assert!(diagnostics.iter().any(Diagnostic::is_error), "an error without an error");
            return render(&diagnostics, source);
        }
    };
    render(&parsed.warnings, source);
    for instruction in &parsed.dockerfile.instructions {
        let text = &source[instruction.span.range()];
        assert!(text.starts_with(&source[instruction.keyword.range()]), "{text:?}");
    }
    let images = Images { triggers: triggers.lines().collect() };
    lower(&parsed.dockerfile, source, &images);
}

fn lower(dockerfile: &Dockerfile, source: &str, images: &Images<'_>) {
    let build_args = [("ARG", "value"), ("EMPTY", "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let contexts = [("dir".to_owned(), NamedContext::Directory), ("ctx".to_owned(), NamedContext::Image)];
    let platform: Platform = "linux/amd64".parse().expect("a platform");
    for target in [None, Some("a"), Some("0")] {
        let request = PlanRequest {
            dockerfile,
            target,
            build_args: &build_args,
            labels: &[],
            contexts: &contexts,
            platform: None,
            build_platform: &platform,
            source_date_epoch: None,
        };
        match plan(&request, images) {
            Ok(graph) => {
                render(&graph.warnings, source);
                for (number, step) in graph.steps.iter().enumerate() {
                    assert!(
                        step.op.inputs().iter().all(|input| input.0 < number),
                        "inputs of {number} stand before it"
                    );
                    assert!(step.span.is_none_or(|span| source.get(span.range()).is_some()));
                }
                let config = graph.target.config.to_canonical_json();
                assert!(ImageConfig::parse(&config).is_ok(), "the config is one");
            }
            Err(Error::Dockerfile { diagnostics }) => {
                assert!(diagnostics.iter().any(Diagnostic::is_error), "an error without an error");
                render(&diagnostics, source);
            }
            Err(Error::Resolve { diagnostic, .. }) => render(&[*diagnostic], source),
        }
    }
}
