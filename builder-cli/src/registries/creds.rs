//! Credentials on the command line: `[REGISTRY[/PATH]=]USER[:PASSWORD]`.
//!
//! Without a registry they are for the only one that the command is about: nobody else is shown a password by accident.

use builder_core::registries::{Access, Credential, Credentials};

use super::{basic, host_of};
use crate::failure::Failure;

/// One option.
#[derive(Debug, PartialEq, Eq)]
struct Creds {
    /// `host[:port][/path…]`
    key: Option<String>,
    credential: Credential,
}

/// Adds what `--OPTION` says for one kind of access, or both. `names` are the images that it is about where it does not
/// name a registry itself.
pub(crate) fn add(
    credentials: &mut Credentials,
    option: &str,
    texts: &[String],
    access: Option<Access>,
    names: &[String],
) -> Result<(), Failure> {
    for text in texts {
        let Creds { key, credential } = parse(text)?;
        let key = match key {
            Some(key) => key,
            None => only_host(names).map_err(|found| {
                let problem = format!("--{option} does not say for which registry, and there is {found}");
                Failure::usage(format!("{problem}; write --{option} REGISTRY=USER:PASSWORD"))
            })?,
        };
        credentials.insert_explicit(&key, access, credential);
    }
    Ok(())
}

/// The registry of all these names.
fn only_host(names: &[String]) -> Result<String, String> {
    let mut hosts: Vec<&str> = names.iter().map(|name| host_of(name)).collect();
    hosts.sort_unstable();
    hosts.dedup();
    match hosts[..] {
        [host] => Ok(host.to_owned()),
        [] => Err("none that it must be for".to_owned()),
        _ => Err(format!("more than one: {}", hosts.join(", "))),
    }
}

fn parse(text: &str) -> Result<Creds, Failure> {
    let (key, rest) = match text.split_once('=') {
        Some((key, rest)) if is_registry(key) && rest.contains(':') => (Some(key.to_owned()), rest),
        _ => (None, text),
    };
    Ok(Creds { key, credential: basic(rest)? })
}

/// Whether the text is `HOST[:PORT][/PATH]`, as image names have it: with a dot, a port, or `localhost`.
fn is_registry(text: &str) -> bool {
    let host = text.split('/').next().unwrap_or_default();
    let (name, port) = host.rsplit_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '[' | ']' | ':');
    !name.is_empty()
        && name.chars().all(plain)
        && match port {
            Some(port) => !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()),
            None => name == "localhost" || name.contains('.'),
        }
}

#[cfg(test)]
mod tests {
    use builder_core::registries::Secret;

    use super::*;

    #[test]
    fn with_and_without_a_registry() {
        for (text, key, username, password) in [
            ("me:secret", None, "me", "secret"),
            ("me:se=cr:et=", None, "me", "se=cr:et="),
            ("me", None, "me", ""),
            ("quay.io=me:s=e", Some("quay.io"), "me", "s=e"),
            ("h:5000/team/x=me:s", Some("h:5000/team/x"), "me", "s"),
            ("localhost=me:s", Some("localhost"), "me", "s"),
            ("[::1]:5000=me:s", Some("[::1]:5000"), "me", "s"),
            ("us=er:s", None, "us=er", "s"),
        ] {
            let credential = Credential::Basic { username: username.to_owned(), password: Secret::new(password) };
            let expected = Creds { key: key.map(str::to_owned), credential };
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
        assert!(parse(":x").is_err() && parse("quay.io=:x").is_err());
    }

    #[test]
    fn a_password_is_for_one_registry() {
        let add = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            add(&mut Credentials::default(), "creds", &["me:hidden".to_owned()], None, &names)
        };
        assert!(add(&["quay.io/a", "quay.io/b:1"]).is_ok() && add(&["a/b"]).is_ok());
        for (names, part) in [(&["quay.io/a", "a"][..], "more than one: docker.io, quay.io"), (&[], "none")] {
            let text = format!("{:?}", add(names).unwrap_err());
            assert!(text.contains(part) && text.contains("--creds REGISTRY=") && !text.contains("hidden"), "{text}");
        }
    }
}
