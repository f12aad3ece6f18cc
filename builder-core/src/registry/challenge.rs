//! `WWW-Authenticate`: what a registry wants to see (RFC 7235; distribution's "Token Authentication Specification").

use std::collections::BTreeSet;

use http_auth::{ChallengeRef, parse_challenges};
use reqwest::Url;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// One way in. Parameters are the registry's words, not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A token from `realm`.
    Bearer {
        /// Where tokens are given out.
        realm: Url,
        /// The name of the registry there.
        service: Option<String>,
        /// What the token must be good for, separated by spaces.
        scope: Option<String>,
    },
    /// User name and password with every request.
    Basic,
}

impl Challenge {
    /// Returns `scope` with what this asks for.
    pub(super) fn asking(&self, scope: &BTreeSet<String>) -> BTreeSet<String> {
        let asked = match self {
            Self::Bearer { scope, .. } => scope.as_deref().unwrap_or_default(),
            Self::Basic => "",
        };
        asked.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).chain(scope.iter().cloned()).collect()
    }
}

/// Returns the best challenge in `headers` that this client can meet: a token before a password.
pub(super) fn parse(headers: &HeaderMap) -> Option<Challenge> {
    let texts = headers.get_all(WWW_AUTHENTICATE).into_iter().filter_map(|value| value.to_str().ok());
    let mut basic = None;
    for text in texts {
        for challenge in parse_challenges(text).unwrap_or_default() {
            if challenge.scheme.eq_ignore_ascii_case("bearer") {
                if let Some(bearer) = bearer(&challenge) {
                    return Some(bearer);
                }
            } else if challenge.scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            }
        }
    }
    basic
}

/// Reads what any bytes would ask for: the fuzzer's way in.
#[cfg(any(test, fuzzing))]
pub(crate) fn exercise(headers: &HeaderMap) {
    if let Some(Challenge::Bearer { realm, .. }) = parse(headers) {
        assert!(realm.as_str().parse::<Url>().is_ok_and(|again| again == realm), "{realm}");
    }
}

fn bearer(challenge: &ChallengeRef<'_>) -> Option<Challenge> {
    let param = |name: &str| {
        let (_, value) = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(value.to_unescaped()).filter(|value| !value.is_empty())
    };
    Some(Challenge::Bearer { realm: param("realm")?.parse().ok()?, service: param("service"), scope: param("scope") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_preferred_and_nonsense_is_skipped() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
            }
            parse(&headers)
        };
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let expected = Challenge::Bearer {
            realm: "https://auth.docker.io/token".parse().unwrap(),
            service: Some("registry.docker.io".to_owned()),
            scope: Some("repository:a/b:pull,push".to_owned()),
        };
        assert_eq!(read(&[hub]), Some(expected.clone()));
        assert_eq!(read(&[&format!("Basic realm=\"x\", {hub}")]), Some(expected.clone()));
        assert_eq!(read(&["Basic realm=\"x\"", hub]), Some(expected));
        assert_eq!(read(&["basic realm=x"]), Some(Challenge::Basic));
        let no_use: [&[&str]; 6] =
            [&[], &[""], &["Bearer"], &["Bearer realm=\"no url\""], &["Digest realm=\"x\""], &["=,\"="]];
        for values in no_use {
            assert_eq!(read(values), None, "{values:?}");
        }
    }
}
