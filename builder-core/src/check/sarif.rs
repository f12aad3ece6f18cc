//! Reports in SARIF 2.1.0 (OASIS, <https://docs.oasis-open.org/sarif/sarif/v2.1.0/>): one run, one artifact.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::CheckReport;
use crate::diagnostic::{Diagnostic, Severity, SourceFile, Span};
use crate::lint::{RULES, Rule};

pub(super) fn report(report: &CheckReport) -> Value {
    let codes: BTreeSet<&str> = report.errors.iter().map(|error| error.code.as_ref()).collect();
    let codes: Vec<&str> = codes.into_iter().collect();
    let rules: Vec<Value> =
        RULES.iter().map(|rule| of_rule(rule)).chain(codes.iter().map(|code| of_code(code))).collect();
    let uri = uri(report.source.name());
    let mut results = vec![];
    for error in &report.errors {
        let index = codes.iter().position(|code| *code == error.code).map(|at| RULES.len() + at);
        results.push(result(error, index, &report.source, &uri));
    }
    for finding in &report.findings {
        let index = RULES.iter().position(|rule| *rule == finding.rule);
        results.push(result(&finding.diagnostic, index, &report.source, &uri));
    }
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "builder", "version": env!("CARGO_PKG_VERSION"), "rules": rules}},
            "columnKind": "unicodeCodePoints",
            "artifacts": [{"location": {"uri": uri}}],
            "results": results,
        }],
    })
}

fn of_rule(rule: &Rule) -> Value {
    let mut value = json!({
        "id": rule.name,
        "name": rule.name,
        "shortDescription": {"text": rule.description},
        "defaultConfiguration": {"level": "warning", "enabled": !rule.experimental},
    });
    if let Some(url) = rule.url {
        value["helpUri"] = url.into();
    }
    value
}

fn of_code(code: &str) -> Value {
    json!({
        "id": code,
        "shortDescription": {"text": "The Dockerfile cannot be built"},
        "defaultConfiguration": {"level": "error"},
    })
}

fn result(diagnostic: &Diagnostic, index: Option<usize>, source: &SourceFile, uri: &str) -> Value {
    let level = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let further = diagnostic.notes.iter().chain(&diagnostic.hints).map(|text| format!("\n{text}"));
    let text: String = std::iter::once(diagnostic.message.clone()).chain(further).collect();
    let mut result = json!({"ruleId": diagnostic.code, "level": level, "message": {"text": text}});
    if let Some(index) = index {
        result["ruleIndex"] = index.into();
    }
    let mut physical = Map::new();
    physical.insert("artifactLocation".to_owned(), json!({"uri": uri, "index": 0}));
    if let Some(label) = &diagnostic.primary {
        physical.insert("region".to_owned(), region(label.span, source));
    }
    result["locations"] = json!([{"physicalLocation": physical}]);
    let related = diagnostic.secondary.iter().map(|label| {
        let mut location = json!({
            "physicalLocation": {"artifactLocation": {"uri": uri, "index": 0}, "region": region(label.span, source)},
        });
        if !label.text.is_empty() {
            location["message"] = json!({"text": label.text});
        }
        location
    });
    let related: Vec<Value> = related.collect();
    if !related.is_empty() {
        result["relatedLocations"] = related.into();
    }
    result
}

/// Lines and columns from 1, the end behind the last character.
fn region(span: Span, source: &SourceFile) -> Value {
    let (start, end) = (source.location(span.start), source.location(span.end));
    json!({"startLine": start.line, "startColumn": start.column, "endLine": end.line, "endColumn": end.column})
}

/// A path as a URI reference: relative, or with the scheme `file`.
fn uri(path: &str) -> String {
    let mut uri = if path.starts_with('/') { "file://".to_owned() } else { String::new() };
    for byte in path.strip_prefix("./").unwrap_or(path).bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => uri.push(char::from(byte)),
            // Writing to a string cannot fail.
            byte => write!(uri, "%{byte:02X}").unwrap_or_default(),
        }
    }
    uri
}
