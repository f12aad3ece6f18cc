//! When to try again: waits that double, half of each random so that many builders do not come back together.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::config::RetryPolicy;
use super::error::Error;

impl RetryPolicy {
    /// Returns how long to wait after try number `failed` (from 1) ended with `error`; `None` makes the error final.
    pub(super) fn wait(&self, failed: u32, error: &Error) -> Option<Duration> {
        if !error.is_transient() || failed >= self.attempts {
            return None;
        }
        let own = self.own_wait(failed);
        match error.retry_after() {
            None => Some(own),
            Some(asked) if asked <= self.max_retry_after => Some(own.max(asked)),
            Some(_) => None,
        }
    }

    /// Returns how long to wait after try number `failed` (from 1) by our own choice.
    pub(super) fn own_wait(&self, failed: u32) -> Duration {
        let doubled = self.first_delay.saturating_mul(2_u32.saturating_pow(failed - 1));
        jittered(doubled.min(self.max_delay))
    }
}

/// Returns a random time from half of `full` up to `full`.
fn jittered(full: Duration) -> Duration {
    // Keys of the standard hasher are random; nothing here needs more than that.
    let random = RandomState::new().build_hasher().finish() % 1000;
    let part = u32::try_from(random).unwrap_or(0);
    full / 2 + full / 2 * part / 1000
}

/// Reads `Retry-After`, which is seconds or a date.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> RetryPolicy {
        let ms = Duration::from_millis;
        RetryPolicy { attempts: 4, first_delay: ms(100), max_delay: ms(250), max_retry_after: ms(1000) }
    }

    fn status(status: u16, retry_after: Option<Duration>) -> Error {
        Error::Status { subject: String::new(), status, detail: String::new(), retry_after }
    }

    #[test]
    fn waits_double_up_to_the_bound_and_end() {
        for (failed, low, high) in [(1, 50, 100), (2, 100, 200), (3, 125, 250)] {
            let wait = policy().wait(failed, &status(503, None)).unwrap().as_millis();
            assert!((low..=high).contains(&wait), "wait {failed} is {wait} ms");
        }
        assert_eq!(policy().wait(4, &status(503, None)), None, "all tries are used up");
        assert_eq!(policy().wait(1, &status(501, None)), None, "501 will not pass");
        assert_eq!(policy().wait(1, &status(413, None)), None, "413 will not pass");
        let nowhere = Error::NoSuchHost { subject: String::new(), name: String::new() };
        assert_eq!(policy().wait(1, &nowhere), None, "a name that does not exist is asked for once");
        let large = RetryPolicy { attempts: u32::MAX, ..policy() };
        assert!(large.wait(u32::MAX - 1, &status(503, None)).is_some(), "no overflow");
    }

    #[test]
    fn the_servers_wish_counts_within_bounds() {
        let asked = |seconds| policy().wait(1, &status(503, Some(Duration::from_secs(seconds))));
        assert_eq!(asked(1), Some(Duration::from_secs(1)));
        assert_eq!(asked(2), None, "too long to wait for");
        assert!(asked(0).is_some_and(|wait| wait >= Duration::from_millis(50)), "never sooner than our own");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, now)
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:47 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(read("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO), "the past is now");
        assert_eq!(read("soon"), None);
        assert_eq!(read("-1"), None);
    }
}
