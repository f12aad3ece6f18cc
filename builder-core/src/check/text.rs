//! Reports for people.

use std::fmt::Write as _;

use super::{CheckReport, Target};
use crate::plan::Outline;

/// Every problem with the lines it is about, in the order of the source, and a summary.
pub(super) fn report(report: &CheckReport) -> String {
    let mut problems: Vec<(usize, String)> = vec![];
    for error in &report.errors {
        let start = error.primary.as_ref().map_or(0, |label| label.span.start);
        problems.push((start, error.render(&report.source)));
    }
    for finding in &report.findings {
        let start = finding.diagnostic.primary.as_ref().map_or(0, |label| label.span.start);
        problems.push((start, finding.diagnostic.render(&report.source)));
    }
    problems.sort_by_key(|(start, _)| *start);
    let mut out: String = problems.iter().map(|(_, text)| format!("{text}\n")).collect();
    for base in &report.unknown_bases {
        let place = format!("{}:{}", report.source.name(), base.line);
        push(
            &mut out,
            format_args!("note: the store has no {} ({place}): rules that need it were left out\n", base.name),
        );
    }
    push(&mut out, format_args!("{}\n", summary(report.errors.len(), report.findings.len())));
    out
}

fn summary(errors: usize, warnings: usize) -> String {
    let count = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    let verb = if errors + warnings == 1 { "has" } else { "have" };
    match (errors, warnings) {
        (0, 0) => "Check complete, no warnings found.".to_owned(),
        (0, warnings) => format!("Check complete, {} {verb} been found!", count(warnings, "warning")),
        (errors, 0) => format!("Check complete, {} {verb} been found!", count(errors, "error")),
        (errors, warnings) => {
            format!("Check complete, {} and {} have been found!", count(errors, "error"), count(warnings, "warning"))
        }
    }
}

impl Outline {
    /// For a person: tables of what there is.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        if self.name.is_some() || self.description.is_some() {
            let mut rows =
                vec![vec!["TARGET:".to_owned(), self.name.clone().unwrap_or_else(|| "(default)".to_owned())]];
            rows.extend(self.description.iter().map(|text| vec!["DESCRIPTION:".to_owned(), text.clone()]));
            table(&mut out, &rows);
        }
        let mut section = |heading: &[&str], rows: Vec<Vec<String>>| {
            if !rows.is_empty() {
                let heading = heading.iter().map(|&cell| cell.to_owned()).collect();
                if !out.is_empty() {
                    out.push('\n');
                }
                table(&mut out, &[vec![heading], rows].concat());
            }
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let args = self.args.iter().map(|arg| vec![arg.name.clone(), text(&arg.value), text(&arg.description)]);
        section(&["BUILD ARG", "VALUE", "DESCRIPTION"], args.collect());
        let required = |required: bool| if required { "true".to_owned() } else { String::new() };
        let secrets = self.secrets.iter().map(|secret| vec![secret.id.clone(), required(secret.required)]);
        section(&["SECRET", "REQUIRED"], secrets.collect());
        let ssh = self.ssh.iter().map(|agent| vec![agent.id.clone(), required(agent.required)]);
        section(&["SSH", "REQUIRED"], ssh.collect());
        section(&["CACHE"], self.caches.iter().map(|cache| vec![cache.id.clone()]).collect());
        out
    }
}

impl Target {
    /// For a person: a table.
    pub fn to_text(targets: &[Self]) -> String {
        let mut rows = vec![vec!["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
        for target in targets {
            let name = match (&target.name, target.is_default) {
                (Some(name), true) => format!("{name} (default)"),
                (Some(name), false) => name.clone(),
                (None, true) => "(default)".to_owned(),
                (None, false) => String::new(),
            };
            rows.push(vec![name, target.description.clone().unwrap_or_default()]);
        }
        let mut out = String::new();
        table(&mut out, &rows);
        out
    }
}

/// Writes rows whose cells stand below each other.
fn table(out: &mut String, rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    for row in rows {
        let line: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}   ")).collect();
        push(out, format_args!("{}\n", line.trim_end()));
    }
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    out.write_fmt(text).unwrap_or_default();
}
