//! Reports in the form of BuildKit's results of `frontend.lint`, `frontend.outline` and `frontend.targets`.
//!
//! Empty fields are left out and sources are base64, as there. Further fields are this builder's own: `errors` (all of
//! them, where `buildError` is the first) and `unknownBases` of a check.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{CheckReport, Target};
use crate::diagnostic::{Diagnostic, SourceFile};
use crate::lint::Finding;
use crate::plan::{Outline, OutlineMount};

/// Field by field, without those that are empty.
fn object(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let is_empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    let fields = fields.into_iter().filter(|(_, value)| !is_empty(value));
    Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

fn location((first, last): (usize, usize)) -> Value {
    json!({"ranges": [{"start": {"line": first}, "end": {"line": last}}]})
}

pub(super) fn report(report: &CheckReport) -> Value {
    let source = &report.source;
    let mut result = json!({
        "warnings": report.findings.iter().map(warning).collect::<Vec<_>>(),
        "sources": [{
            "filename": source.name(),
            "language": "Dockerfile",
            "data": STANDARD.encode(source.text()),
        }],
    });
    if let Some(first) = report.errors.first() {
        result["buildError"] = object([("message", first.message.as_str().into()), ("location", place(first, source))]);
        result["errors"] = report.errors.iter().map(|error| full_error(error, source)).collect();
    }
    if !report.unknown_bases.is_empty() {
        let base = |base: &super::UnknownBase| json!({"name": base.name, "location": location((base.line, base.line))});
        result["unknownBases"] = report.unknown_bases.iter().map(base).collect();
    }
    result
}

fn warning(finding: &Finding) -> Value {
    object([
        ("ruleName", finding.rule.name.into()),
        ("description", finding.rule.description.into()),
        ("url", finding.rule.url.into()),
        ("detail", finding.diagnostic.message.as_str().into()),
        ("location", location(finding.lines)),
    ])
}

fn full_error(error: &Diagnostic, source: &SourceFile) -> Value {
    object([
        ("code", error.code.as_ref().into()),
        ("message", error.message.as_str().into()),
        ("notes", error.notes.clone().into()),
        ("hints", error.hints.clone().into()),
        ("location", place(error, source)),
    ])
}

fn place(error: &Diagnostic, source: &SourceFile) -> Value {
    let Some(label) = &error.primary else { return Value::Null };
    let line = |offset| source.location(offset).line;
    location((line(label.span.start), line(label.span.end.max(label.span.start + 1) - 1)))
}

impl Outline {
    /// In the form of BuildKit's outlines; `source` is the Dockerfile.
    pub fn to_json(&self, source: &SourceFile) -> Value {
        let args = self.args.iter().map(|arg| {
            object([
                ("name", arg.name.as_str().into()),
                ("description", arg.description.clone().into()),
                ("value", arg.value.clone().into()),
                ("location", location(arg.lines)),
            ])
        });
        let mount = |mount: &OutlineMount| {
            let required = mount.required.into();
            object([("name", mount.id.as_str().into()), ("required", required), ("location", location(mount.lines))])
        };
        let caches = self.caches.iter();
        let caches =
            caches.map(|cache| object([("ID", cache.id.as_str().into()), ("location", location(cache.lines))]));
        object([
            ("name", self.name.clone().into()),
            ("description", self.description.clone().into()),
            ("args", args.collect()),
            ("secrets", self.secrets.iter().map(mount).collect()),
            ("ssh", self.ssh.iter().map(mount).collect()),
            ("cache", caches.collect()),
            ("sources", json!([STANDARD.encode(source.text())])),
        ])
    }
}

impl Target {
    /// In the form of BuildKit's lists of targets; `source` is the Dockerfile.
    pub fn to_json(targets: &[Self], source: &SourceFile) -> Value {
        let target = |target: &Self| {
            object([
                ("name", target.name.clone().into()),
                ("default", target.is_default.into()),
                ("description", target.description.clone().into()),
                ("base", target.base.as_str().into()),
                ("platform", target.platform.clone().into()),
                ("location", location(target.lines)),
            ])
        };
        json!({
            "targets": targets.iter().map(target).collect::<Vec<_>>(),
            "sources": [STANDARD.encode(source.text())],
        })
    }
}
