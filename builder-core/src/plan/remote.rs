//! Sources of `ADD` that are not files of the context: URLs and git repositories. Only their text is looked at.

use super::graph::{GitPin, GitSource, GitTime};

/// What a source of `COPY` or `ADD` is by its text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SourceKind {
    /// A path or pattern.
    Path,
    /// `http://` or `https://`
    Http,
    /// A git repository.
    Git(GitUrl),
}

/// Whether something besides the URL says that it is a git repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GitHint {
    /// Nothing does.
    None,
    /// `--keep-git-dir` does.
    Flag,
}

/// A git URL, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct GitUrl {
    remote: String,
    reference: Option<String>,
    subdir: Option<String>,
    /// Commit from the query.
    pub(super) checksum: Option<String>,
    /// Whether the query says to keep `.git`.
    pub(super) keep_git_dir: Option<bool>,
    submodules: Option<bool>,
    mtime: GitTime,
    /// What the query says decides which commit it is.
    pub(super) pin: GitPin,
}

impl GitUrl {
    /// Returns the source that `url` is, with the flags of the instruction.
    pub(super) fn into_source(self, url: &str, checksum: Option<String>, keep_git_dir: bool) -> GitSource {
        GitSource {
            url: url.to_owned(),
            remote: self.remote,
            reference: self.reference,
            subdir: self.subdir,
            checksum,
            keep_git_dir,
            submodules: self.submodules.unwrap_or(true),
            mtime: self.mtime,
            pin: self.pin,
        }
    }
}

/// Tells what `source` is. A http(s) URL is a git repository if its path ends in `.git` or `git` says so.
///
/// # Errors
/// One phrase that says what is wrong with a git URL.
pub(super) fn classify(source: &str, git: GitHint) -> Result<SourceKind, String> {
    let is_http = source.starts_with("http://") || source.starts_with("https://");
    let is_git = source.starts_with("ssh://") || source.starts_with("git://") || is_scp_style(source);
    if !is_http && !is_git {
        return Ok(SourceKind::Path);
    }
    let (before, fragment) = split_optional(source, '#');
    let (remote, query) = split_optional(before, '?');
    if is_http && git == GitHint::None && !remote.ends_with(".git") {
        return Ok(SourceKind::Http);
    }
    let mut url = GitUrl { remote: remote.to_owned(), ..GitUrl::default() };
    if let Some(fragment) = fragment {
        let (reference, subdir) = split_optional(fragment, ':');
        url.reference = non_empty(reference);
        url.subdir = subdir.and_then(non_empty);
    }
    if let Some(query) = query {
        apply_query(&mut url, query)?;
    }
    Ok(SourceKind::Git(url))
}

/// Takes a git repository apart that is a context. `keep_git_dir` holds unless the query says otherwise.
///
/// # Errors
/// One phrase that says what is wrong with the URL.
pub(crate) fn git_context(url: &str, keep_git_dir: bool) -> Result<GitSource, String> {
    match classify(url, GitHint::Flag)? {
        SourceKind::Git(git) => {
            let (checksum, keep) = (git.checksum.clone(), git.keep_git_dir.unwrap_or(keep_git_dir));
            Ok(git.into_source(url, checksum, keep))
        }
        SourceKind::Path | SourceKind::Http => Err("it is none of https, http, ssh and git".to_owned()),
    }
}

/// Returns the file name that a download from `url` gets: the last part of its path, decoded.
pub(crate) fn file_name(url: &str) -> Option<String> {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let (_, rest) = url[..end].split_once("://")?;
    let (_, path) = rest.split_once('/')?;
    let name = percent_decode(super::path::base_name(path))?;
    // An encoded slash or dot name must not become part of a path.
    (!matches!(name.as_str(), "" | "." | "..") && !name.contains(['/', '\0'])).then_some(name)
}

/// `user@host:path`, as `git` and `scp` take it.
fn is_scp_style(source: &str) -> bool {
    let Some((user, rest)) = source.split_once('@') else { return false };
    let Some((host, _)) = rest.split_once(':') else { return false };
    let word = |text: &str, more: &[char]| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || more.contains(&c))
    };
    word(user, &['_']) && word(host, &['.'])
}

fn apply_query(url: &mut GitUrl, query: &str) -> Result<(), String> {
    let mut seen = vec![];
    let (mut tag, mut branch) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = split_optional(pair, '=');
        let value = percent_decode(value.unwrap_or_default()).ok_or_else(|| format!("{pair:?} is badly encoded"))?;
        if seen.contains(&key) {
            return Err(format!("the query says {key:?} twice"));
        }
        seen.push(key);
        match key {
            "keep-git-dir" => url.keep_git_dir = Some(query_bool(key, &value)?),
            "submodules" => url.submodules = Some(query_bool(key, &value)?),
            "fetch-by-commit" => {
                url.pin = if query_bool(key, &value)? { GitPin::Checksum } else { GitPin::Reference };
            }
            _ if value.is_empty() => return Err(format!("{key:?} has no value in the query")),
            "ref" => set(&mut url.reference, key, value)?,
            "mtime" => {
                url.mtime = match value.as_str() {
                    "commit" => GitTime::Commit,
                    "checkout" => GitTime::Checkout,
                    _ => return Err(format!("{value:?} is no value for \"mtime\", want commit or checkout")),
                }
            }
            "tag" => tag = Some(with_prefix("refs/tags/", &value)),
            "branch" => branch = Some(with_prefix("refs/heads/", &value)),
            "subdir" => set(&mut url.subdir, key, value)?,
            "checksum" | "commit" => set(&mut url.checksum, key, value)?,
            _ => return Err(format!("the query says {key:?}, which means nothing for a git repository")),
        }
    }
    if tag.is_some() && branch.is_some() {
        return Err("the query names a tag and a branch".to_owned());
    }
    if let Some(reference) = tag.or(branch) {
        set(&mut url.reference, "ref", reference)?;
    }
    if url.pin == GitPin::Checksum && url.checksum.as_ref().is_none_or(|commit| !matches!(commit.len(), 40 | 64)) {
        return Err("fetch-by-commit needs a commit with all of its digits: commit=HASH".to_owned());
    }
    if url.reference.is_none() {
        url.reference.clone_from(&url.checksum);
    }
    Ok(())
}

fn set(slot: &mut Option<String>, key: &str, value: String) -> Result<(), String> {
    match slot {
        Some(old) if *old != value => Err(format!("two values for {key:?}: {old:?} and {value:?}")),
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

fn query_bool(key: &str, value: &str) -> Result<bool, String> {
    if value.is_empty() {
        return Ok(true);
    }
    parse_bool(value).ok_or_else(|| format!("{value:?} is no value for {key:?}, want true or false"))
}

fn with_prefix(prefix: &str, value: &str) -> String {
    if value.starts_with(prefix) { value.to_owned() } else { format!("{prefix}{value}") }
}

fn split_optional(text: &str, separator: char) -> (&str, Option<&str>) {
    text.split_once(separator).map_or((text, None), |(before, after)| (before, Some(after)))
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Parses the words that Go's `strconv.ParseBool` knows.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Decodes `%xx`; `None` if that makes no text.
pub(crate) fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = vec![];
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            let digits = std::str::from_utf8(&digits).ok().filter(|text| !text.starts_with('+'))?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(source: &str) -> String {
        match classify(source, GitHint::None) {
            Err(message) => format!("error: {message}"),
            Ok(SourceKind::Path) => "path".to_owned(),
            Ok(SourceKind::Http) => "http".to_owned(),
            Ok(SourceKind::Git(url)) => {
                let mut text = format!("git {}", url.remote);
                for (name, value) in [("ref", &url.reference), ("dir", &url.subdir), ("sum", &url.checksum)] {
                    if let Some(value) = value {
                        text += &format!(" {name}={value}");
                    }
                }
                if url.mtime == GitTime::Checkout {
                    text += " mtime=checkout";
                }
                if url.pin == GitPin::Checksum {
                    text += " by-commit";
                }
                for (name, value) in [("keep", url.keep_git_dir), ("sub", url.submodules)] {
                    if let Some(value) = value {
                        text += &format!(" {name}={value}");
                    }
                }
                text
            }
        }
    }

    #[test]
    fn sources() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        for (source, want) in [
            ("a/b", "path"),
            ("./git@x:y", "path"),
            ("github.com/a/b", "path"),
            ("a:b", "path"),
            ("ftp://x/y", "path"),
            ("https://x/y.tar", "http"),
            ("https://x/y.git.tar?x=.git", "http"),
            ("https://x/y.git", "git https://x/y.git"),
            ("https://x/y.git#v1:sub/dir", "git https://x/y.git ref=v1 dir=sub/dir"),
            ("https://x/y.git#:sub", "git https://x/y.git dir=sub"),
            ("git@host:a/b", "git git@host:a/b"),
            ("git@host.x:a/b.git#main", "git git@host.x:a/b.git ref=main"),
            ("ssh://git@host/a#x", "git ssh://git@host/a ref=x"),
            ("git://host/a", "git git://host/a"),
            ("https://x/y.git?tag=v1&subdir=d", "git https://x/y.git ref=refs/tags/v1 dir=d"),
            ("https://x/y.git?branch=b&keep-git-dir", "git https://x/y.git ref=refs/heads/b keep=true"),
            ("https://x/y.git?commit=abc&submodules=false", "git https://x/y.git ref=abc sum=abc sub=false"),
            ("https://x/y.git?ref=a%2Fb", "git https://x/y.git ref=a/b"),
            ("https://x/y.git?mtime=commit", "git https://x/y.git"),
            ("https://x/y.git?mtime=checkout", "git https://x/y.git mtime=checkout"),
            ("https://x/y.git?mtime=now", "error: \"now\" is no value for \"mtime\", want commit or checkout"),
            ("https://x/y.git?mtime=", "error: \"mtime\" has no value in the query"),
            (
                &format!("https://x/y.git?branch=b&commit={commit}&fetch-by-commit"),
                &format!("git https://x/y.git ref=refs/heads/b sum={commit} by-commit"),
            ),
            (
                &format!("https://x/y.git?ref=b&commit={commit}&fetch-by-commit=false"),
                &format!("git https://x/y.git ref=b sum={commit}"),
            ),
            (
                "https://x/y.git?ref=b&commit=abc&fetch-by-commit=true",
                "error: fetch-by-commit needs a commit with all of its digits: commit=HASH",
            ),
            (
                "https://x/y.git?fetch-by-commit=true",
                "error: fetch-by-commit needs a commit with all of its digits: commit=HASH",
            ),
            ("https://x/y.git?ref=a#b", "error: two values for \"ref\": \"b\" and \"a\""),
            ("https://x/y.git?tag=a&branch=b", "error: the query names a tag and a branch"),
            ("https://x/y.git?ref=", "error: \"ref\" has no value in the query"),
            ("https://x/y.git?depth=1", "error: the query says \"depth\", which means nothing for a git repository"),
            ("https://x/y.git?ref=a&ref=a", "error: the query says \"ref\" twice"),
            ("https://x/y.git?submodules=maybe", "error: \"maybe\" is no value for \"submodules\", want true or false"),
        ] {
            assert_eq!(show(source), want, "{source}");
        }
    }

    #[test]
    fn names_of_downloads() {
        for (url, want) in [
            ("https://x/a/b.tar?q=/z#f", Some("b.tar")),
            ("https://x/a/b/", Some("b")),
            ("https://x/a%20b", Some("a b")),
            ("https://x", None),
            ("https://x/", None),
            ("https://x/..", None),
            ("https://x/%2e%2e", None),
            ("https://x/a%2Fb", None),
            ("https://x/a%zz", None),
        ] {
            assert_eq!(file_name(url).as_deref(), want, "{url}");
        }
    }
}
