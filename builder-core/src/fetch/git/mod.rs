//! A repository by git: its commit is found first, and the files of a commit are fetched once.
//!
//! The text of a source is hostile: what could be an option or another transport is refused before git sees it. The
//! files become a layer, all of them 0:0, 0644 or 0755, with the time of the commit: the same wherever it was fetched.

mod checkout;
mod command;

use std::ffi::OsString;

use super::ssh::SshClient;
use super::{FetchError, Fetcher, lock};
use crate::plan::{GitPin, GitSource, GitTime};
use crate::registry::ClientConfig;
use crate::solver::KeyParts;
use crate::store::{LayerDescriptor, Record};
use command::Git;

/// What a name of the repository stands for now.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Resolved {
    /// The commit, or the object that was given by its name.
    commit: String,
    /// The tag object, where the name is that of an annotated tag.
    tag: Option<String>,
    /// What the server calls it, where it was asked.
    full_name: Option<String>,
}

impl Fetcher {
    /// The files of a commit of a repository.
    pub(crate) fn git(&self, source: &GitSource) -> Result<LayerDescriptor, FetchError> {
        let shown = without_credentials(&source.url);
        check(source)?;
        let mut asked = KeyParts::new("git source/1");
        asked.add("source", format!("{source:?}"));
        let _lock = self.lock(&asked.key(), &shown)?;
        if let Some(layer) = lock(&self.trees).get(&asked.key()) {
            return Ok(layer.clone());
        }
        let work = self.store.work_dir().map_err(FetchError::store(&shown))?;
        let home = work.path().join("home");
        std::fs::create_dir(&home).map_err(FetchError::io("make a directory for git"))?;
        let header = self.access.git(&source.remote)?;
        let ssh = match source.is_by_ssh() {
            true => Some(SshClient::prepare(&home, &self.access, &shown)?),
            false => None,
        };
        let git = Git {
            home: &home,
            protocols: protocols(&source.remote),
            network: &self.network,
            header: header.as_ref(),
            ssh: ssh.as_ref(),
            kill_switch: &self.kill_switch,
        };
        let resolved = resolve(&git, source)?;
        verify(source, &resolved, &shown)?;

        let mut key = KeyParts::new("git/1");
        key.add("remote", without_credentials(&source.remote));
        key.add("commit", &resolved.commit);
        key.add("directory", source.subdir.as_deref().unwrap_or_default());
        key.add("keep .git", [u8::from(source.keep_git_dir)]);
        key.add("submodules", [u8::from(source.submodules)]);
        if source.mtime == GitTime::Checkout {
            key.add("time", "checkout");
        }
        let record = self.store.record(&key.key()).map_err(FetchError::store(&shown))?;
        let layer = match record.and_then(|record| record.layers.first().cloned()) {
            Some(layer) => layer,
            None => {
                let dir = work.path().join("tree");
                let committed = checkout::checkout(&git, source, &resolved, &dir)?;
                let time = match source.mtime {
                    GitTime::Commit => committed,
                    GitTime::Checkout => self.now,
                };
                let files = checkout::subdir(&dir, source)?;
                let layer = checkout::write_layer(self, &files, source.keep_git_dir, time)?;
                let record = Record { layers: vec![layer.clone()], parts: key.readable(), ..Record::default() };
                self.store.put_record(&key.key(), &record).map_err(FetchError::store(&shown))?;
                layer
            }
        };
        lock(&self.trees).insert(asked.key(), layer.clone());
        Ok(layer)
    }
}

/// Proxies and certificates, in the variables that git takes them from. Loopback is never reached through a proxy.
pub(super) fn network(config: &ClientConfig) -> Vec<(&'static str, OsString)> {
    let proxy = &config.proxy;
    let direct = format!("localhost,127.0.0.1,::1,{}", proxy.no_proxy.as_deref().unwrap_or_default());
    let mut variables: Vec<(&str, OsString)> = vec![("no_proxy", direct.into())];
    for (name, url) in [("http_proxy", &proxy.http_proxy), ("https_proxy", &proxy.https_proxy)] {
        variables.extend(url.as_ref().map(|url| (name, OsString::from(url.reveal()))));
    }
    variables.extend(config.roots.file.as_ref().map(|file| ("GIT_SSL_CAINFO", file.clone().into_os_string())));
    variables.extend(config.roots.dirs.first().map(|dir| ("GIT_SSL_CAPATH", dir.clone().into_os_string())));
    variables
}

/// Refuses what git could take for an option, a local path, a helper program or several lines.
fn check(source: &GitSource) -> Result<(), FetchError> {
    let refuse = |problem: &str| {
        let url = without_credentials(&source.url);
        Err(FetchError::GitRefused { url, problem: problem.to_owned() })
    };
    let parts = [Some(&source.remote), source.reference.as_ref(), source.subdir.as_ref(), source.checksum.as_ref()];
    for part in parts.into_iter().flatten() {
        if part.starts_with('-') {
            return refuse("a part of it begins with \"-\"");
        }
        if part.chars().any(char::is_control) {
            return refuse("it has control characters");
        }
    }
    if protocols(&source.remote).is_empty() {
        return refuse("it is none of https, http, ssh and git");
    }
    let host = source.remote.split_once("://").map_or(source.remote.as_str(), |(_, rest)| rest);
    if host.rsplit_once('@').map_or(host, |(_, host)| host).starts_with('-') {
        return refuse("its host begins with \"-\"");
    }
    if let Some(reference) = &source.reference {
        let odd = |c: char| c.is_whitespace() || ":?*[\\^~".contains(c);
        if reference.contains(odd) || reference.contains("..") || reference.contains("@{") {
            return refuse("it names no branch, tag or commit");
        }
    }
    if source.keep_git_dir && source.subdir.is_some() {
        return refuse("a directory of a repository has no .git to keep");
    }
    Ok(())
}

/// The transports that a source and its submodules may use: never one that is less safe than its own.
fn protocols(remote: &str) -> &'static str {
    match remote.split_once("://").map(|(scheme, _)| scheme) {
        Some("https") => "https",
        Some("ssh") => "https:ssh",
        Some("http") => "http:https",
        Some("git") => "git:http:https",
        Some(_) => "",
        None if remote.contains('@') && remote.contains(':') => "https:ssh",
        None => "",
    }
}

/// `text` without the user names and passwords of the URLs in it; names alone stay for ssh.
fn without_credentials(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let end = after.find(['/', '?', '#', ' ', '\'', '"']).unwrap_or(after.len());
        let keep = match after[..end].rfind('@') {
            Some(at) if after[..at].contains(':') || before.ends_with("http") || before.ends_with("https") => at + 1,
            _ => 0,
        };
        out.push_str(&after[keep..end]);
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

/// Finds the commit. One that is given in full needs no server.
fn resolve(git: &Git<'_>, source: &GitSource) -> Result<Resolved, FetchError> {
    let reference = source.reference.as_deref().unwrap_or("HEAD");
    if let (GitPin::Checksum, Some(commit)) = (source.pin, source.checksum.as_deref().filter(|text| is_full_hash(text)))
    {
        let full_name = (!is_full_hash(reference)).then(|| reference.to_owned());
        return Ok(Resolved { commit: commit.to_owned(), tag: None, full_name });
    }
    if is_full_hash(reference) {
        return Ok(Resolved { commit: reference.to_owned(), tag: None, full_name: None });
    }
    let peeled = format!("{reference}^{{}}");
    let what = format!("ls-remote {}", without_credentials(&source.remote));
    let answer = git.run(git.home, &what, &["ls-remote", "--", &source.remote, reference, &peeled])?;
    choose(&String::from_utf8_lossy(&answer), reference).ok_or_else(|| FetchError::GitReference {
        url: without_credentials(&source.remote),
        reference: reference.to_owned(),
    })
}

/// Picks from the answer of `ls-remote` as checkout does: the full name, then a branch, then a tag.
fn choose(answer: &str, reference: &str) -> Option<Resolved> {
    let lines: Vec<(&str, &str)> = answer.lines().filter_map(|line| line.split_once('\t')).collect();
    let find = |name: &str| lines.iter().find(|(_, found)| *found == name).map(|(hash, _)| (*hash).to_owned());
    for name in [reference.to_owned(), format!("refs/heads/{reference}"), format!("refs/tags/{reference}")] {
        let Some(hash) = find(&name).filter(|hash| is_full_hash(hash)) else { continue };
        let peeled = find(&format!("{name}^{{}}"));
        return Some(match peeled {
            Some(commit) => Resolved { commit, tag: Some(hash), full_name: Some(name) },
            None => Resolved { commit: hash, tag: None, full_name: Some(name) },
        });
    }
    None
}

fn is_full_hash(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Compares with the checksum of the instruction, that of the commit or of the tag.
fn verify(source: &GitSource, resolved: &Resolved, shown: &str) -> Result<(), FetchError> {
    let Some(expected) = &source.checksum else { return Ok(()) };
    let expected = expected.to_ascii_lowercase();
    if resolved.commit.starts_with(&expected) || resolved.tag.as_ref().is_some_and(|tag| tag.starts_with(&expected)) {
        return Ok(());
    }
    Err(FetchError::GitChecksum { url: shown.to_owned(), expected, found: resolved.commit.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(remote: &str, reference: Option<&str>) -> GitSource {
        GitSource {
            url: remote.to_owned(),
            remote: remote.to_owned(),
            reference: reference.map(str::to_owned),
            subdir: None,
            checksum: None,
            keep_git_dir: false,
            submodules: true,
            mtime: GitTime::Commit,
            pin: GitPin::Reference,
        }
    }

    #[test]
    fn hostile_sources_never_reach_git() {
        for (remote, reference) in [
            ("--upload-pack=touch /x", None),
            ("ext::sh -c touch% /x", None),
            ("file:///etc", None),
            ("/etc", None),
            ("ssh://-oProxyCommand=touch/x", None),
            ("git@-oProxyCommand=x:y", None),
            ("https://h/x.git", Some("-btest")),
            ("https://h/x.git", Some("--upload-pack=touch")),
            ("https://h/x.git", Some("a\nb")),
            ("https://h/x.git", Some("a:b")),
            ("https://h/x.git", Some("a..b")),
            ("https://h/x.git\n", None),
        ] {
            assert!(check(&source(remote, reference)).is_err(), "{remote} {reference:?}");
        }
        for (remote, reference) in [
            ("https://h/x.git", Some("v1.2/x-y")),
            ("http://h/x.git", None),
            ("git@h:x/y.git", Some("refs/pull/1/head")),
            ("ssh://git@h:22/x", None),
            ("git://h/x", None),
        ] {
            assert!(check(&source(remote, reference)).is_ok(), "{remote} {reference:?}");
        }
    }

    #[test]
    fn git_is_told_of_proxies_and_certificates_and_nothing_else_of_the_surroundings() {
        let plain = network(&ClientConfig::default());
        assert_eq!(plain, [("no_proxy", "localhost,127.0.0.1,::1,".into())]);
        let mut config = ClientConfig::default();
        config.proxy.https_proxy = Some(crate::registry::Secret::new("http://u:p@proxy:1"));
        config.roots.file = Some("/ca.pem".into());
        let names: Vec<&str> = network(&config).iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["no_proxy", "https_proxy", "GIT_SSL_CAINFO"]);
    }

    #[test]
    fn no_credential_is_shown() {
        for (text, shown) in [
            ("https://u:p@h/x", "https://h/x"),
            ("https://token@h/x", "https://h/x"),
            ("ssh://git@h/x", "ssh://git@h/x"),
            ("ssh://git:p@h/x", "ssh://h/x"),
            ("fatal: 'https://u:p@h/x' and https://h2/y@z", "fatal: 'https://h/x' and https://h2/y@z"),
            ("git@h:x", "git@h:x"),
        ] {
            assert_eq!(without_credentials(text), shown);
        }
    }

    #[test]
    fn full_names_win_then_branches_then_tags_and_tags_are_peeled() {
        let (a, b, c) = ("a".repeat(40), "b".repeat(40), "c".repeat(40));
        let answer = format!("{a}\trefs/heads/v1\n{b}\trefs/tags/v1\n{c}\trefs/tags/v1^{{}}\n");
        assert_eq!(choose(&answer, "v1").unwrap().commit, a);
        let tag = choose(&answer, "refs/tags/v1").unwrap();
        assert_eq!((tag.commit, tag.tag), (c, Some(b)));
        assert_eq!(choose(&answer, "v"), None);
        assert_eq!(choose("warning\tv\n", "v"), None);
    }
}
