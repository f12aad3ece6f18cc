//! `builder plan` and `builder explain`

use builder_core::{BuildPlan, BuildReport, Builder, ReasonCode, StepReport, StepState};

use super::{build, bytes, print};
use crate::args::{AnswerFormat, ExplainArgs, PlanArgs, PlanFormat, ProgressMode};
use crate::failure::Failure;
use crate::{progress, terminate};

/// Tells what a build would do.
pub(crate) fn run(builder: &Builder, args: &PlanArgs) -> Result<(), Failure> {
    let spooled = build::spool(builder, &args.build)?;
    let request = build::request(&args.build, spooled.as_ref())?;
    terminate::cancel_on_signal(builder.canceller())?;
    let mut progress = progress::new(ProgressMode::Plain, false);
    let plan = builder.plan(&request, &mut |event| progress.event(event));
    progress.finish();
    let plan = plan?;
    print(&match args.format {
        PlanFormat::Text => text(&plan),
        PlanFormat::Json => json(&plan)?,
        PlanFormat::Dot => dot(&plan),
    })
}

/// Tells what a build did.
pub(crate) fn explain(builder: &Builder, args: &ExplainArgs) -> Result<(), Failure> {
    let report = builder.explain(args.name.as_deref())?;
    print(&match args.format {
        AnswerFormat::Text => explanation(&report),
        AnswerFormat::Json => json(&report)?,
    })
}

fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(|source| Failure::output(format!("write JSON: {source}")))
}

fn text(plan: &BuildPlan) -> String {
    let mut out = String::new();
    for step in &plan.steps {
        push_step(&mut out, step, &plan.steps);
    }
    if plan.steps.is_empty() {
        line(&mut out, "nothing to do: no instruction changes a file");
    }
    if !plan.unused_stages.is_empty() {
        line(&mut out, &format!("not needed: {}", plan.unused_stages.join(", ")));
    }
    let count = |state| plan.steps.iter().filter(|step| step.state == state).count();
    let states = [StepState::Cached, StepState::WouldRun, StepState::Refused, StepState::Unknown];
    let counts = states.map(|state| (count(state), state));
    let told: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, state)| format!("{count} {state}")).collect();
    let missing: u64 = plan.steps.iter().filter_map(|step| step.missing_bytes).sum();
    let fetch = (missing > 0).then(|| format!("{} to fetch", bytes(missing)));
    out.push_str(&told.into_iter().chain(fetch).collect::<Vec<_>>().join(", "));
    out.trim_end().to_owned()
}

fn explanation(report: &BuildReport) -> String {
    let mut out = String::new();
    let names = if report.names.is_empty() { String::new() } else { format!(" {}", report.names.join(" ")) };
    let outcome = match report.digest {
        Some(digest) => digest.to_string(),
        None => "failed".to_owned(),
    };
    let context = report.context.as_ref().map(|context| format!(" in {context}")).unwrap_or_default();
    line(&mut out, &format!("{} {}{context}:{names} {outcome}", report.started, report.dockerfile));
    for step in &report.steps {
        push_step(&mut out, step, &report.steps);
    }
    out.trim_end().to_owned()
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

/// One step: number, line of the Dockerfile, state, name and the steps that it reads; below it why it runs.
fn push_step(out: &mut String, step: &StepReport, all: &[StepReport]) {
    let number = format!("#{}", step.info.step.0 + 1);
    let at = step.info.line.map(|line| format!(":{line}")).unwrap_or_default();
    let width = all.len().to_string().len() + 1;
    let inputs: String = step.inputs.iter().map(|input| format!(" #{}", input.0 + 1)).collect();
    let inputs = if inputs.is_empty() { inputs } else { format!("  ←{inputs}") };
    line(out, &format!("{number:<width$} {at:<4} {:<9} {}{inputs}", step.state, step.info.name));
    let indent = " ".repeat(width + 16);
    if let Some(missing) = step.missing_bytes.filter(|missing| *missing > 0) {
        line(out, &format!("{indent}{} to fetch", bytes(missing)));
    }
    if let Some(cache) = &step.found_in {
        line(out, &format!("{indent}in {cache}"));
    }
    if let Some(reason) = &step.reason {
        let mut text = match (reason.code, reason.step) {
            (ReasonCode::DependsOn, Some(first)) => format!("depends on #{}", first.0 + 1),
            _ => reason.text.clone(),
        };
        if let more @ 1.. = reason.changes.len().saturating_sub(1) {
            text.push_str(&format!(" (and {more} more)"));
        }
        line(out, &format!("{indent}{text}"));
    }
}

/// The graph in Graphviz's language; colours say what would become of a step.
fn dot(plan: &BuildPlan) -> String {
    let mut out =
        String::from("digraph build {\n  rankdir=LR;\n  node [shape=box, style=filled, fontname=monospace];\n");
    for step in &plan.steps {
        let color = match step.state {
            StepState::Cached => "palegreen",
            StepState::WouldRun => "lightsalmon",
            StepState::Refused => "tomato",
            StepState::Unknown => "khaki",
            _ => "lightgrey",
        };
        let reason = step.reason.as_ref().map(|reason| format!("\n{}", reason.text)).unwrap_or_default();
        let label = quoted(&format!("{}\n{}{reason}", step.info.name, step.state));
        line(&mut out, &format!("  {} [label={label}, fillcolor={color}];", node(step.info.step.0)));
    }
    for step in &plan.steps {
        for input in &step.inputs {
            line(&mut out, &format!("  {} -> {};", node(input.0), node(step.info.step.0)));
        }
    }
    out.push('}');
    out
}

fn node(step: usize) -> String {
    format!("s{}", step + 1)
}

/// A string of Graphviz; its lines are set to the left.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\l");
    format!("\"{escaped}\\l\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_a_graph_are_quoted() {
        assert_eq!(quoted("RUN echo \"a\\n\"\ncached"), "\"RUN echo \\\"a\\\\n\\\"\\lcached\\l\"");
    }
}
