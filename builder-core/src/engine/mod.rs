//! What the build process does with a request: the one place where all modules meet.
//!
//! parse → plan → solve → assemble → export. News goes to the caller as events, the result as a value; an error is
//! completed here with what only this place knows: the step and its line of the Dockerfile.

mod agents;
mod annotate;
mod ask;
mod assemble;
mod build;
mod cache;
mod contexts;
mod deliver;
mod findings;
mod forecast;
mod journal;
mod output;
mod platforms;
mod solving;
mod task;
mod uploads;

use std::sync::{Arc, Mutex, PoisonError};

pub(crate) use ask::{Heard, News};
pub(crate) use journal::explain;
pub(crate) use task::{Answer, HostFacts, Task, TaskKind};

use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::rootless::Engine;
use crate::sandbox::KillSwitch;

/// The main function of a build process; returns its exit code, which nobody looks at but a debugger.
pub(crate) fn main(engine: Engine) -> i32 {
    let no_exec = engine.environment().no_exec.as_ref().map(|diagnosis| {
        let error = Error::new(ErrorKind::HostUnsupported, diagnosis.to_string());
        diagnosis.remedies.iter().fold(error, |error, hint| error.hint(hint.clone()))
    });
    let cancel = Cancel::default();
    let on_cancel = {
        let cancel = cancel.clone();
        move || cancel.throw()
    };
    let (on_answer, answers) = ask::answers();
    let (task, news) = match engine.serve_with::<Task>(on_cancel, on_answer) {
        Ok(Some(served)) => served,
        Ok(None) => return 0,
        Err(_) => return 1,
    };
    // An event that cannot be sent means that the caller is gone; then this process ends by itself.
    let events = {
        let news = news.clone();
        move |event: Event| drop(news.event(&News::Event(event)))
    };
    let connect = {
        let news = news.clone();
        move |config| ask::client(config, news, answers)
    };
    let reply: Result<Answer, Error> = task.run(&cancel, no_exec, connect, &events);
    i32::from(news.reply(&reply).is_err())
}

/// Stops a build from the thread that hears of it: the kill switch of the commands, once there is one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cancel(Arc<Mutex<(bool, Option<KillSwitch>)>>);

impl Cancel {
    fn throw(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = true;
        if let Some(switch) = &state.1 {
            switch.throw();
        }
    }

    /// Ties the commands' kill switch to this.
    fn connect(&self, switch: KillSwitch) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 {
            switch.throw();
        }
        state.1 = Some(switch);
    }
}
