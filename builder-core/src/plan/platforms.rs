//! Plans of one Dockerfile for several platforms become one graph: what does not depend on the platform is one step.
//!
//! A stage `FROM --platform=$BUILDPLATFORM` that asks for no `TARGET…` arg is worked on once, whatever the number of
//! platforms; what is only for one platform says so in its name.

use super::graph::{BuildGraph, Step};
use super::steps::{does_the_same, for_each_input};
use crate::event::StepId;
use crate::image::Platform;

/// Merges the plans for `platforms`, one for each. Returns `None` when there is none.
pub(crate) fn merge(plans: Vec<(Platform, BuildGraph)>) -> Option<BuildGraph> {
    let mut plans = plans.into_iter();
    let (platform, mut merged) = plans.next()?;
    // For whom a step is: one platform, or several.
    let mut owners = vec![Some(platform); merged.steps.len()];
    for (platform, plan) in plans {
        let mut numbers = Vec::with_capacity(plan.steps.len());
        for step in plan.steps {
            numbers.push(add(&mut merged.steps, &mut owners, step, &numbers, &platform));
        }
        let mut target = plan.target;
        target.renumber(&numbers);
        merged.others.push(target);
        merged.warnings.extend(plan.warnings);
    }
    if !merged.others.is_empty() {
        name(&mut merged.steps, &owners);
        let mut seen = Vec::new();
        merged.warnings.retain(|warning| {
            let new = !seen.contains(warning);
            seen.push(warning.clone());
            new
        });
    }
    Some(merged)
}

/// Returns the number of `step` in `steps`, where it is put if nothing there does the same. `numbers` are those of the
/// steps before it.
fn add(
    steps: &mut Vec<Step>,
    owners: &mut Vec<Option<Platform>>,
    mut step: Step,
    numbers: &[StepId],
    platform: &Platform,
) -> StepId {
    for_each_input(&mut step.op, &mut |id| *id = numbers[id.0]);
    if let Some(index) = steps.iter().position(|known| does_the_same(&known.op, &step.op)) {
        if owners[index].as_ref() != Some(platform) {
            owners[index] = None;
        }
        return StepId(index);
    }
    step.info.step = StepId(steps.len());
    steps.push(step);
    owners.push(Some(platform.clone()));
    StepId(steps.len() - 1)
}

/// `[build 1/2] RUN make` becomes `[linux/arm64 build 1/2] RUN make`, as BuildKit shows it.
fn name(steps: &mut [Step], owners: &[Option<Platform>]) {
    for (step, owner) in steps.iter_mut().zip(owners) {
        if let (Some(platform), Some(_), Some(rest)) = (owner, &step.info.stage, step.info.name.strip_prefix('[')) {
            step.info.name = format!("[{platform} {rest}");
        }
    }
}
