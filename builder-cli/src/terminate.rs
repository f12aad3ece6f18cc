//! SIGINT and SIGTERM: the first asks the build to end and clean up, a second one ends it at once.

use builder_core::Canceller;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::failure::Failure;

/// Cancels through `canceller` when the user or the system asks this process to end.
pub(crate) fn cancel_on_signal(canceller: Canceller) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|source| Failure::usage(format!("signals cannot be watched: {source}")))?;
    std::thread::spawn(move || {
        for (count, _) in signals.forever().enumerate() {
            match count {
                0 => canceller.cancel(),
                // Everything the build started dies with the build process.
                _ => canceller.kill(),
            }
        }
    });
    Ok(())
}
