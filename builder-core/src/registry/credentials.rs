//! Who may enter where: a table of `host[:port][/path…]` keys, the longest that fits wins.
//!
//! A key fits a repository when its components are the first components of `host/repository`: `quay.io/org` fits
//! `quay.io/org/app`, never `quay.io/organisation/app`, and `azurecr.io` fits no other host than that very one.

use serde::{Deserialize, Serialize};

use super::config::Secret;
use super::reference::image_host;

/// What opens a door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Credential {
    /// User name and password.
    Basic {
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// An OAuth2 refresh token (`identitytoken` in `config.json`), exchanged for an access token.
    IdentityToken(Secret),
    /// A bearer token that is shown to the registry as it is (`registrytoken` in `config.json`).
    RegistryToken(Secret),
}

/// What the door is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Access {
    /// Reading.
    Pull,
    /// Writing, and the reading that goes with it.
    Push,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    key: String,
    access: Option<Access>,
    credential: Credential,
    rank: Rank,
}

/// What an entry wins over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Rank {
    /// A credential source is asked first.
    Usual,
    /// It comes before what a credential source says.
    Ahead,
    /// It comes before everything.
    Explicit,
}

/// The table. Earlier entries win over later ones of equal length, those for one kind of access over those for both.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Credentials {
    entries: Vec<Entry>,
}

impl Credentials {
    /// Adds a credential for all repositories at or below `key`, for one kind of access or, with `None`, for both.
    ///
    /// The key is taken as the files of Docker and Podman write it: with or without `https://`, and Docker Hub also as
    /// `https://index.docker.io/v1/`.
    pub fn insert(&mut self, key: &str, access: Option<Access>, credential: Credential) {
        self.entries.push(Entry { key: normal_key(key), access, credential, rank: Rank::Usual });
    }

    /// As [`insert`](Self::insert), but a credential source is not asked where this one counts.
    pub fn insert_ahead(&mut self, key: &str, access: Option<Access>, credential: Credential) {
        self.entries.push(Entry { key: normal_key(key), access, credential, rank: Rank::Ahead });
    }

    /// As [`insert`](Self::insert), but this one wins over all that are inserted in that way, however long their keys, and
    /// over what a credential source says: the user has just said so.
    pub fn insert_explicit(&mut self, key: &str, access: Option<Access>, credential: Credential) {
        self.entries.push(Entry { key: normal_key(key), access, credential, rank: Rank::Explicit });
    }

    /// Returns the credential for `host/repository` with the key it was found under.
    pub(super) fn find(&self, host: &str, repository: &str, access: Access) -> Option<(&str, &Credential)> {
        self.entry(host, repository, access).map(|entry| (entry.key.as_str(), &entry.credential))
    }

    /// Whether there is a credential for `host/repository` for which no credential source is asked.
    pub(super) fn is_ahead(&self, host: &str, repository: &str, access: Access) -> bool {
        self.entry(host, repository, access).is_some_and(|entry| entry.rank != Rank::Usual)
    }

    fn entry(&self, host: &str, repository: &str, access: Access) -> Option<&Entry> {
        let name = format!("{}/{repository}", image_host(host));
        self.entries
            .iter()
            .rev()
            .filter(|entry| entry.access.is_none_or(|only| only == access) && is_prefix(&entry.key, &name))
            // Equal maxima: the last one met counts, which is the first of the table.
            .max_by_key(|entry| (entry.rank == Rank::Explicit, entry.key.len(), entry.access.is_some()))
    }
}

/// Is `prefix` made of the first components of `name`?
pub(super) fn is_prefix(prefix: &str, name: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn normal_key(key: &str) -> String {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let host = image_host(host);
    let path = path.trim_end_matches('/');
    // API versions are not part of a repository; `config.json` keys of old carry them.
    match path {
        "" | "v1" | "v2" => host,
        path => format!("{host}/{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(name: &str) -> Credential {
        Credential::Basic { username: name.to_owned(), password: Secret::new("hidden") }
    }

    #[test]
    fn longest_path_wins_and_lookalikes_get_nothing() {
        let mut table = Credentials::default();
        for key in
            ["quay.io", "quay.io/org", "quay.io/org/app", "reg.azurecr.io", "h:5000", "https://index.docker.io/v1/"]
        {
            table.insert(key, None, basic(key));
        }
        table.insert("quay.io/org", Some(Access::Push), basic("pusher"));
        table.insert("quay.io", None, basic("too late"));
        let find = |host, repository, access| table.find(host, repository, access).map(|(key, c)| (key, c.clone()));
        let pull = |host, repository| find(host, repository, Access::Pull).map(|(key, _)| key);
        assert_eq!(pull("quay.io", "org/app"), Some("quay.io/org/app"));
        assert_eq!(pull("quay.io", "org/app/deep"), Some("quay.io/org/app"));
        assert_eq!(pull("quay.io", "org/apple"), Some("quay.io/org"));
        assert_eq!(pull("quay.io", "org-a/app"), Some("quay.io"));
        assert_eq!(find("quay.io", "x", Access::Pull), Some(("quay.io", basic("quay.io"))));
        assert_eq!(find("quay.io", "org/x", Access::Push), Some(("quay.io/org", basic("pusher"))));
        assert_eq!(find("quay.io", "org/x", Access::Pull), Some(("quay.io/org", basic("quay.io/org"))));
        assert_eq!(pull("registry-1.docker.io", "library/x"), Some("docker.io"));
        assert_eq!(pull("docker.io", "library/x"), Some("docker.io"));
        for stranger in [
            "evil-reg.azurecr.io",
            "reg.azurecr.io.evil.tld",
            "reg.azurecr.io:444",
            "azurecr.io",
            "h",
            "h:50",
            "quay.iox",
        ] {
            assert_eq!(pull(stranger, "org/app"), None, "{stranger} must get no credentials");
        }
    }

    #[test]
    fn what_was_just_said_wins() {
        let mut table = Credentials::default();
        table.insert("quay.io/org/app", None, basic("file"));
        table.insert_explicit("quay.io", Some(Access::Push), basic("said"));
        let found = |table: &Credentials, repository, access| {
            table.find("quay.io", repository, access).map(|(_, found)| found.clone())
        };
        assert_eq!(found(&table, "org/app", Access::Push), Some(basic("said")));
        assert_eq!(found(&table, "org/app", Access::Pull), Some(basic("file")));
        assert!(table.is_ahead("quay.io", "x", Access::Push) && !table.is_ahead("quay.io", "org/app", Access::Pull));
        table.insert_ahead("quay.io/org", None, basic("first file"));
        assert_eq!(found(&table, "org/x", Access::Pull), Some(basic("first file")));
        assert_eq!(found(&table, "org/app", Access::Pull), Some(basic("file")), "the longer key wins all the same");
        assert!(
            table.is_ahead("quay.io", "org/x", Access::Pull) && !table.is_ahead("quay.io", "org/app", Access::Pull)
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut table = Credentials::default();
        table.insert("h", None, basic("me"));
        let text = format!("{table:?}");
        assert!(text.contains("me") && !text.contains("hidden"), "{text}");
    }
}
