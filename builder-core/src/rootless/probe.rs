//! What `doctor` shows: a launch for real, and what each part of it unlocks.
//!
//! Starts the same process in the same way as a build does; instead of an engine it runs [`super::observe`]. When that
//! does not get into namespaces, a second one without them tries the rest.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::diagnosis::{Diagnosis, Failure, Feature};
use super::facts::HostFacts;
use super::handshake::{Namespaces, Purpose};
use super::launch::{Launch, Ready, program_path};
use super::observe::Observation;
use super::{Error, Isolation, LaunchConfig, ProcView, Rung};

/// What a launch needs, in the order in which it does it.
const OF_A_LAUNCH: [Feature; 8] = [
    Feature::UserNamespace,
    Feature::UidMap,
    Feature::GidMap,
    Feature::BecomeRoot,
    Feature::MountNamespace,
    Feature::PrivateMounts,
    Feature::PidNamespace,
    Feature::MountProc,
];

/// What is tried after it.
const OF_STEPS: [Feature; 4] =
    [Feature::MountTmpfs, Feature::MountOverlay, Feature::MountByDescriptor, Feature::Openat2];

/// What this host allows, found by doing it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HostReport {
    /// The rung that a build process stands on here.
    pub rung: Rung,
    /// Why commands cannot be run; `None` when they can.
    pub no_exec: Option<Diagnosis>,
    /// What was tried, in order.
    pub checks: Vec<Check>,
    /// The state directory that was tried.
    pub state_dir: PathBuf,
    /// Name of its file system, or its magic number.
    pub state_dir_filesystem: String,
    /// What else is known, for a report of a fault.
    pub facts: HostFacts,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Check {
    /// What.
    pub feature: Feature,
    /// What came of it.
    pub outcome: Outcome,
    /// What works where this works.
    pub unlocks: String,
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// It works.
    Passed,
    /// It does not.
    Failed(Diagnosis),
    /// Not tried, because something before it failed or was not asked for.
    NotTried,
}

/// Finds out what this host allows, with files below `state_dir`, a directory that exists.
///
/// # Errors
/// As [`super::BuildProcess::spawn`], but never [`Error::HostUnsupported`]: that is what the report is for.
pub fn probe(config: &LaunchConfig, state_dir: &Path) -> Result<HostReport, Error> {
    let facts = HostFacts::gather(&program_path(&config.program)?, &config.helper_dirs);
    let attempt = match config.isolation {
        Isolation::None => {
            Attempt { failure: None, observations: observe(config, &facts, Namespaces::Stay, state_dir)?.observations }
        }
        Isolation::Auto | Isolation::Userns => {
            let isolated = observe(config, &facts, Namespaces::Enter, state_dir)?;
            match isolated.failure {
                None => isolated,
                failure => Attempt { failure, ..observe(config, &facts, Namespaces::Stay, state_dir)? },
            }
        }
    };
    let diagnosis = attempt.failure.as_ref().map(|failure| Diagnosis::find(&facts, failure));
    let no_exec = match config.isolation {
        Isolation::None => Some(Diagnosis::not_asked(&facts)),
        Isolation::Auto | Isolation::Userns => diagnosis,
    };
    Ok(HostReport {
        rung: if no_exec.is_some() { Rung::None } else { Rung::Userns },
        checks: attempt.checks(&facts, no_exec.is_none()),
        no_exec,
        state_dir: state_dir.to_owned(),
        state_dir_filesystem: filesystem_name(state_dir),
        facts,
    })
}

/// How far a launch came, and what was found there.
struct Attempt {
    failure: Option<Failure>,
    observations: Vec<Observation>,
}

fn observe(
    config: &LaunchConfig,
    facts: &HostFacts,
    namespaces: Namespaces,
    state_dir: &Path,
) -> Result<Attempt, Error> {
    let purpose = Purpose::Probe { state_dir: state_dir.to_owned() };
    match Launch::make_ready(config, facts, namespaces, purpose)? {
        Err(failure) => Ok(Attempt { failure: Some(failure), observations: Vec::new() }),
        Ok(Ready { mut launch, proc, .. }) => {
            let mut observations = launch.receive_observations()?;
            if let ProcView::Refused(errno) = proc {
                let failure = Failure { feature: Feature::MountProc, errno: Some(errno), detail: None };
                observations.push(Observation { feature: Feature::MountProc, result: Err(failure) });
            }
            Ok(Attempt { failure: None, observations })
        }
    }
}

impl Attempt {
    /// Every feature with its outcome.
    fn checks(&self, facts: &HostFacts, is_isolated: bool) -> Vec<Check> {
        let failed_at = self.failure.as_ref().map(|failure| OF_A_LAUNCH.iter().position(|at| *at == failure.feature));
        // A launch that failed did all that comes before, and nothing after; where it failed tells `outcome`.
        let launched = match failed_at {
            Some(index) => index.unwrap_or(0),
            None if is_isolated => OF_A_LAUNCH.len(),
            None => 0,
        };
        let of_a_launch = OF_A_LAUNCH.into_iter().enumerate().map(|(index, feature)| (feature, index < launched));
        let observed = |feature| self.observations.iter().any(|observation| observation.feature == feature);
        let of_steps = OF_STEPS.into_iter().map(|feature| (feature, observed(feature)));
        of_a_launch
            .chain(of_steps)
            .map(|(feature, was_done)| Check {
                feature,
                outcome: self.outcome(facts, feature, was_done),
                unlocks: feature.unlocks().to_owned(),
            })
            .collect()
    }

    fn outcome(&self, facts: &HostFacts, feature: Feature, was_done: bool) -> Outcome {
        let refused = self.observations.iter().filter_map(|observation| observation.result.as_ref().err());
        match self.failure.iter().chain(refused).find(|failure| failure.feature == feature) {
            Some(failure) => Outcome::Failed(Diagnosis::find(facts, failure)),
            None if was_done => Outcome::Passed,
            None => Outcome::NotTried,
        }
    }
}

impl HostReport {
    fn has_failed(&self, feature: Feature) -> bool {
        self.checks.iter().any(|check| check.feature == feature && matches!(check.outcome, Outcome::Failed(_)))
    }

    /// The report as lines of text, without colour: one per check, what to do below those that failed, the rung last.
    pub fn summary_lines(&self) -> Vec<String> {
        let facts = &self.facts;
        let helper = |helper: &super::IdMapHelper| {
            helper.path.as_ref().map_or("missing".to_owned(), |path| path.display().to_string())
        };
        let mut lines = vec![
            format!("kernel           Linux {}", facts.kernel),
            format!("user             {} ({}:{})", facts.user(), facts.uid, facts.gid),
            format!("state directory  {} ({})", self.state_dir.display(), self.state_dir_filesystem),
        ];
        if !facts.can_map_ids_alone() {
            lines.push(format!("newuidmap        {}", helper(&facts.newuidmap)));
            lines.push(format!("newgidmap        {}", helper(&facts.newgidmap)));
            lines.push(format!(
                "subordinate ids  {} ranges of users, {} of groups",
                facts.subuids.len(),
                facts.subgids.len()
            ));
        }
        for check in &self.checks {
            let (mark, note) = match &check.outcome {
                Outcome::Passed => ("ok", String::new()),
                Outcome::Failed(diagnosis) => ("FAILED", format!("  {diagnosis}")),
                Outcome::NotTried => ("-", format!("  not tried; unlocks {}", check.unlocks)),
            };
            lines.push(format!("{:<20} {mark}{note}", check.feature.to_string()));
            if let Outcome::Failed(diagnosis) = &check.outcome {
                lines.push(format!("    unlocks: {}", check.unlocks));
                lines.extend(diagnosis.remedies.iter().map(|remedy| format!("    try: {remedy}")));
            }
        }
        lines.push(match (&self.rung, &self.no_exec) {
            (Rung::Userns, _) if self.has_failed(Feature::MountOverlay) => {
                "rung: userns, but RUN cannot work without mount-overlay".to_owned()
            }
            (Rung::Userns, _) => "rung: userns, RUN works".to_owned(),
            (Rung::None, Some(why)) => format!("rung: none, builds without RUN work; {why}"),
            (Rung::None, None) => "rung: none, builds without RUN work".to_owned(),
        });
        lines
    }
}

/// Names of the usual file systems by their magic number, `statfs(2)`.
fn filesystem_name(path: &Path) -> String {
    let magic = match rustix::fs::statfs(path) {
        Ok(statfs) => statfs.f_type,
        Err(errno) => return format!("unknown: {errno}"),
    };
    let known = match magic {
        0xEF53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683E => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794C_7630 => "overlay",
        0x6969 => "nfs",
        0x6573_5546 => "fuse",
        0x2FC1_2FC1 => "zfs",
        0xF2F5_2010 => "f2fs",
        0xCA45_1A4E => "bcachefs",
        0x0102_1997 => "9p",
        0x6A65_6A63 => "virtiofs",
        _ => return format!("{magic:#x}"),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootless::facts::tests::healthy;

    fn failed(feature: Feature, errno: i32) -> Failure {
        Failure { feature, errno: Some(errno), detail: None }
    }

    fn outcomes(checks: &[Check]) -> Vec<(Feature, &'static str)> {
        let word = |outcome: &Outcome| match outcome {
            Outcome::Passed => "passed",
            Outcome::Failed(_) => "failed",
            Outcome::NotTried => "not tried",
        };
        checks.iter().map(|check| (check.feature, word(&check.outcome))).collect()
    }

    #[test]
    fn a_launch_that_stops_in_the_middle_tells_before_and_after() {
        let openat2 = Observation { feature: Feature::Openat2, result: Ok(None) };
        let attempt = Attempt { failure: Some(failed(Feature::BecomeRoot, libc::EPERM)), observations: vec![openat2] };
        assert_eq!(
            outcomes(&attempt.checks(&healthy(), false)),
            [
                (Feature::UserNamespace, "passed"),
                (Feature::UidMap, "passed"),
                (Feature::GidMap, "passed"),
                (Feature::BecomeRoot, "failed"),
                (Feature::MountNamespace, "not tried"),
                (Feature::PrivateMounts, "not tried"),
                (Feature::PidNamespace, "not tried"),
                (Feature::MountProc, "not tried"),
                (Feature::MountTmpfs, "not tried"),
                (Feature::MountOverlay, "not tried"),
                (Feature::MountByDescriptor, "not tried"),
                (Feature::Openat2, "passed"),
            ]
        );
    }

    #[test]
    fn what_fails_inside_namespaces_does_not_take_them_away() {
        let result = Err(failed(Feature::MountOverlay, libc::EINVAL));
        let attempt =
            Attempt { failure: None, observations: vec![Observation { feature: Feature::MountOverlay, result }] };
        let checks = attempt.checks(&healthy(), true);
        let others: Vec<_> = outcomes(&checks).into_iter().filter(|(_, word)| *word != "passed").collect();
        assert_eq!(
            others,
            [
                (Feature::MountTmpfs, "not tried"),
                (Feature::MountOverlay, "failed"),
                (Feature::MountByDescriptor, "not tried"),
                (Feature::Openat2, "not tried"),
            ]
        );
    }
}
