//! Where a name is looked for: mirrors first, then the registry itself, each with its own host and path.

use super::config::{ClientConfig, MirrorPull, RegistryRule};
use super::credentials::is_prefix;
use super::error::Error;
use super::reference::{Reference, api_host, canonical_registry};

/// A repository at a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `host[:port]` that answers requests.
    pub(super) host: String,
    /// Path below it.
    pub(super) repository: String,
    /// May something else be asked when it fails?
    pub(super) is_mirror: bool,
}

/// Is the content asked for by a name that changes, or by its digest?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AskedBy {
    Tag,
    Digest,
}

/// Returns where to ask for `reference`, in order. The last is the registry itself.
pub(super) fn endpoints(config: &ClientConfig, reference: &Reference, by: AskedBy) -> Result<Vec<Endpoint>, Error> {
    let name = reference.name();
    let Some((prefix, rule)) = rule_for(config, &name) else {
        return Ok(vec![Endpoint {
            host: api_host(reference.registry()).to_owned(),
            repository: reference.repository().to_owned(),
            is_mirror: false,
        }]);
    };
    if rule.blocked {
        return Err(Error::Blocked { name, prefix });
    }
    let rest = &name[prefix.len()..];
    let mirrors = rule.mirrors.iter().filter(|mirror| match mirror.pull {
        MirrorPull::All => true,
        MirrorPull::DigestOnly => by == AskedBy::Digest,
        MirrorPull::TagOnly => by == AskedBy::Tag,
    });
    let mut found = mirrors.map(|mirror| rewritten(&mirror.location, rest, true)).collect::<Result<Vec<_>, _>>()?;
    found.push(rewritten(rule.location.as_deref().unwrap_or(&prefix), rest, false)?);
    Ok(found)
}

fn rule_for<'c>(config: &'c ClientConfig, name: &str) -> Option<(String, &'c RegistryRule)> {
    let with_prefix = config.registries.iter().map(|rule| (canonical(&rule.prefix), rule));
    with_prefix.filter(|(prefix, _)| is_prefix(prefix, name)).max_by_key(|(prefix, _)| prefix.len())
}

fn canonical(location: &str) -> String {
    let location = location.trim_end_matches('/');
    match location.split_once('/') {
        Some((host, path)) => format!("{}/{path}", canonical_registry(host)),
        None => canonical_registry(location),
    }
}

fn rewritten(location: &str, rest: &str, is_mirror: bool) -> Result<Endpoint, Error> {
    let name = format!("{}{rest}", canonical(location));
    // Parsing checks host and path, which come from a file that people write.
    let parsed: Reference = name.parse().map_err(|source| Error::Config {
        what: format!("use {location:?} as the location of a registry"),
        source: Box::new(source),
    })?;
    Ok(Endpoint { host: api_host(parsed.registry()).to_owned(), repository: parsed.repository().to_owned(), is_mirror })
}

#[cfg(test)]
mod tests {
    use super::super::config::Mirror;
    use super::*;

    fn rule(prefix: &str, location: Option<&str>, mirrors: &[(&str, MirrorPull)]) -> RegistryRule {
        RegistryRule {
            prefix: prefix.to_owned(),
            location: location.map(str::to_owned),
            mirrors: mirrors.iter().map(|(l, pull)| Mirror { location: (*l).to_owned(), pull: *pull }).collect(),
            blocked: false,
        }
    }

    #[test]
    fn the_longest_prefix_decides_and_the_registry_comes_last() {
        let blocked = RegistryRule { blocked: true, ..rule("evil.io", None, &[]) };
        let registries = vec![
            rule(
                "docker.io",
                None,
                &[("mirror.corp:5000", MirrorPull::All), ("cache.corp/hub/", MirrorPull::DigestOnly)],
            ),
            rule("docker.io/me", Some("quay.io/you"), &[]),
            blocked,
        ];
        let config = ClientConfig { registries, ..ClientConfig::default() };
        let places = |name: &str, by| {
            let found = endpoints(&config, &name.parse().unwrap(), by).unwrap();
            found.iter().map(|e| format!("{}/{}", e.host, e.repository)).collect::<Vec<_>>()
        };
        let hub = "registry-1.docker.io/library/x";
        assert_eq!(places("x", AskedBy::Tag), ["mirror.corp:5000/library/x", hub]);
        assert_eq!(places("x", AskedBy::Digest), ["mirror.corp:5000/library/x", "cache.corp/hub/library/x", hub]);
        assert_eq!(places("me/x", AskedBy::Tag), ["quay.io/you/x"]);
        assert_eq!(places("meme/x", AskedBy::Tag), ["mirror.corp:5000/meme/x", "registry-1.docker.io/meme/x"]);
        assert_eq!(places("gcr.io/x", AskedBy::Tag), ["gcr.io/x"]);
        let refused = endpoints(&config, &"evil.io/x".parse().unwrap(), AskedBy::Tag);
        assert!(matches!(refused, Err(Error::Blocked { .. })), "{refused:?}");
    }
}
