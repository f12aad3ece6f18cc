//! Ending steps from another thread.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Signal, pidfd_send_signal};

/// Kills the steps that run under it, at once and for good: later ones do not start. Clones are the same switch.
#[derive(Debug, Clone, Default)]
pub(crate) struct KillSwitch(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    thrown: bool,
    steps: Vec<Arc<OwnedFd>>,
}

impl KillSwitch {
    /// Kills all processes of all steps under this switch. Calling it again does nothing.
    pub(crate) fn throw(&self) {
        let mut state = self.state();
        state.thrown = true;
        for step in state.steps.drain(..) {
            kill(&step);
        }
    }

    /// Whether it was thrown.
    pub(crate) fn is_thrown(&self) -> bool {
        self.state().thrown
    }

    /// Puts a step's pid 1 under the switch until the guard is dropped; kills it right away if it was thrown before.
    pub(super) fn arm(&self, pidfd: Arc<OwnedFd>) -> Armed<'_> {
        let mut state = self.state();
        if state.thrown {
            kill(&pidfd);
        } else {
            state.steps.push(Arc::clone(&pidfd));
        }
        Armed { switch: self, pidfd }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding the lock; were it so, the state would still be whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn kill(pidfd: &OwnedFd) {
    // The only failure is ESRCH, and a step that has ended needs no killing. The kernel kills the rest of the pid
    // namespace with its pid 1.
    pidfd_send_signal(pidfd, Signal::KILL).ok();
}

/// A step under a [`KillSwitch`].
#[derive(Debug)]
pub(super) struct Armed<'a> {
    switch: &'a KillSwitch,
    pidfd: Arc<OwnedFd>,
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        self.switch.state().steps.retain(|step| !Arc::ptr_eq(step, &self.pidfd));
    }
}
