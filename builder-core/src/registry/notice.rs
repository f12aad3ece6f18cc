//! What goes wrong and is got over, for whoever wants to tell it.

use std::fmt;
use std::time::Duration;

use super::error::Error;

/// Something that went wrong and was got over.
#[derive(Debug)]
pub(crate) enum Notice<'a> {
    /// A request is about to be sent again.
    Retry {
        /// Why.
        error: &'a Error,
        /// How long the client waits first.
        wait: Duration,
    },
    /// A mirror was of no use; the next place is asked.
    MirrorFailed {
        /// Its `host[:port]`.
        mirror: &'a str,
        /// Why.
        error: &'a Error,
    },
}

impl fmt::Display for Notice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = match self {
            Self::Retry { error, wait } => {
                write!(f, "trying again in {:.1} s: ", wait.as_secs_f64())?;
                error
            }
            Self::MirrorFailed { mirror, error } => {
                write!(f, "the mirror {mirror} is of no use: ")?;
                error
            }
        };
        if let Some(subject) = error.unsaid_subject() {
            write!(f, "{subject}: ")?;
        }
        error.fmt(f)?;
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
