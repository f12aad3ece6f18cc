//! The engine's end of the connection: one request in, news and one reply out.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::EngineEnvironment;
use super::channel::{Channel, ChannelError, Sender};
use super::handshake::{FromEngine, ToEngine};
use crate::sys::process;

/// Exit code when the caller went away in the middle; nobody is left to see it.
const CALLER_GONE: i32 = 120;

/// What the engine has from the caller: where it runs, and a connection.
#[derive(Debug)]
pub struct Engine {
    channel: Channel,
    environment: EngineEnvironment,
}

impl Engine {
    pub(super) fn new(channel: Channel, environment: EngineEnvironment) -> Self {
        Self { channel, environment }
    }

    /// Where the engine runs.
    pub fn environment(&self) -> &EngineEnvironment {
        &self.environment
    }

    /// Receives the request; from then on a thread waits for what comes next: `on_cancel` is called when the caller asks
    /// to stop, and **the process ends at once when the caller is gone**. `None` when it went before it asked anything.
    ///
    /// # Errors
    /// [`ChannelError`], also when the thread cannot be started.
    pub fn serve<Q: DeserializeOwned>(
        self,
        on_cancel: impl Fn() + Send + 'static,
    ) -> Result<Option<(Q, News)>, ChannelError> {
        self.serve_with(on_cancel, |_| {})
    }

    /// As [`Self::serve`]; `on_answer` is called with each answer that the caller sends to an event.
    ///
    /// # Errors
    /// As there.
    pub fn serve_with<Q: DeserializeOwned>(
        mut self,
        on_cancel: impl Fn() + Send + 'static,
        on_answer: impl Fn(String) + Send + 'static,
    ) -> Result<Option<(Q, News)>, ChannelError> {
        let request = match self.channel.recv::<ToEngine<Q>>()? {
            Some(ToEngine::Request(request)) => request,
            Some(ToEngine::Cancel | ToEngine::Answer(_)) | None => return Ok(None),
        };
        let (sender, mut receiver) = self.channel.split();
        let watch = move || {
            while let Ok(Some(message)) = receiver.recv::<ToEngine<()>>() {
                match message {
                    ToEngine::Cancel => on_cancel(),
                    ToEngine::Answer(answer) => on_answer(answer),
                    ToEngine::Request(()) => {}
                }
            }
            process::exit_now(CALLER_GONE);
        };
        let watching = std::thread::Builder::new().name("caller-watch".to_owned()).spawn(watch);
        watching.map_err(|source: io::Error| ChannelError::Receive { source })?;
        Ok(Some((request, News { sender })))
    }
}

/// Tells the caller what happens; clones share the connection.
#[derive(Debug, Clone)]
pub struct News {
    sender: Sender,
}

impl News {
    /// Sends an event; waits while the caller does not read.
    ///
    /// # Errors
    /// [`ChannelError`]; the process ends soon after when it is because the caller is gone.
    pub fn event<E: Serialize>(&self, event: &E) -> Result<(), ChannelError> {
        self.sender.send(&FromEngine::<&E, ()>::Event(event))
    }

    /// Sends the result. Nothing may be sent after it.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn reply<R: Serialize>(&self, reply: &R) -> Result<(), ChannelError> {
        self.sender.send(&FromEngine::<(), &R>::Reply(reply))
    }
}
