//! Writes the id maps of a build process that waits in a new user namespace. From outside, because inside nobody has
//! the rights for more than one id.
//!
//! Root writes the files itself; a user has shadow's set-user-id helpers do it, which check `/etc/subuid` and
//! `/etc/subgid`. `setgroups` is left allowed: with subordinate groups, or as root, nothing forces `deny`.

use std::fs;
use std::io;
use std::process::{Command, Stdio};

use super::diagnosis::{Failure, Feature, missing_for_id_map};
use super::facts::{HostFacts, IdMapHelper};
use super::id_map::IdMap;

/// Writes both maps of process `pid`, a child that is not reaped.
///
/// # Errors
/// A [`Failure`] of [`Feature::UidMap`] or [`Feature::GidMap`].
pub(super) fn write_maps(facts: &HostFacts, pid: i32) -> Result<(), Failure> {
    if missing_for_id_map(facts).is_some() {
        // The diagnosis finds the same again; trying would only add a less clear answer.
        return Err(Failure::foreseen(Feature::UidMap));
    }
    write_map(facts, Feature::UidMap, &facts.planned_uid_map(), pid)?;
    write_map(facts, Feature::GidMap, &facts.planned_gid_map(), pid)
}

fn write_map(facts: &HostFacts, feature: Feature, map: &IdMap, pid: i32) -> Result<(), Failure> {
    let (file, helper) = match feature {
        Feature::GidMap => ("gid_map", &facts.newgidmap),
        _ => ("uid_map", &facts.newuidmap),
    };
    if facts.can_map_ids_alone() {
        // One write: the kernel takes a map in a single call, once.
        return fs::write(format!("/proc/{pid}/{file}"), map.to_string())
            .map_err(|error| Failure::of_call(feature, &error));
    }
    run_helper(helper, map, pid).map_err(|detail| Failure { feature, errno: None, detail: Some(detail) })
}

/// Runs `newuidmap PID inside outside count …`; an error is what it said.
fn run_helper(helper: &IdMapHelper, map: &IdMap, pid: i32) -> Result<(), String> {
    let Some(program) = &helper.path else { return Err("not installed".to_owned()) };
    let in_words = |error: io::Error| format!("{}: {error}", program.display());
    let numbers = map.ranges().iter().flat_map(|range| [range.inside, range.outside, range.count]);
    let output = Command::new(program)
        .arg(pid.to_string())
        .args(numbers.map(|number| number.to_string()))
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(in_words)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    match said.trim() {
        "" => Err(format!("{} ended with {}", program.display(), output.status)),
        said => Err(said.to_owned()),
    }
}
