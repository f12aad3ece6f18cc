//! What the engine asks its caller while it works: credentials, which the caller may have to start a program for.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::registry::{Client, ClientConfig, Credential, CredentialSource, Notice};
use crate::rootless;

/// From the engine to its caller.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum News {
    /// Something happened.
    Event(Event),
    /// The engine waits for the credential of this `host[:port]`.
    CredentialWanted(String),
}

/// What the caller found: the credential if there is one, or why it could not look.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Heard(pub(crate) Result<Option<Credential>, String>);

/// The two ends of the way of answers: to be called with each, and to be waited at.
pub(super) fn answers() -> (impl Fn(String) + Send + 'static, Receiver<String>) {
    let (sender, receiver) = channel();
    // Nobody waits any more when the engine is about to end.
    (move |answer| drop(sender.send(answer)), receiver)
}

/// Makes a client that asks the caller for credentials and tells it what went wrong on the way.
pub(super) fn client(config: ClientConfig, news: rootless::News, answers: Receiver<String>) -> Client {
    let client = Client::with_credential_source(config, credential_source(news.clone(), answers));
    client.with_observer(move |notice| {
        let code = match notice {
            Notice::Retry { .. } => "registry-retry",
            Notice::MirrorFailed { .. } => "mirror-failed",
        };
        let event = Event::Warning { code: code.to_owned(), message: notice.to_string() };
        // Nobody is there who could be told.
        drop(news.event(&News::Event(event)));
    })
}

/// Asks the caller, one question at a time. A failure is told as a warning; the registry is asked without credentials.
fn credential_source(news: rootless::News, answers: Receiver<String>) -> CredentialSource {
    let answers = Mutex::new(answers);
    Arc::new(move |host| {
        let answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
        news.event(&News::CredentialWanted(host.to_owned())).ok()?;
        let Heard(found) = serde_json::from_str(&answers.recv().ok()?).ok()?;
        found.unwrap_or_else(|reason| {
            let message = format!("no credentials for {host}: {reason}");
            // As for every event: nobody is there who could be told.
            drop(news.event(&News::Event(Event::Warning { code: "credential-source".to_owned(), message })));
            None
        })
    })
}
