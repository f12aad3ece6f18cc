//! `builder doctor`

use builder_core::Builder;

use super::print;
use crate::args::DoctorArgs;
use crate::failure::Failure;

/// Probes this machine end to end and prints what was found.
pub(crate) fn run(builder: &Builder, args: &DoctorArgs) -> Result<(), Failure> {
    let report = builder.doctor()?;
    if args.json { print(&report.to_json()) } else { report.lines().iter().try_for_each(|line| print(line)) }
}
