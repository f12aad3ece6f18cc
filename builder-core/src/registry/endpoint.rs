//! Where a name is looked for: mirrors first, then the registry itself, each with its own host and path.

use super::config::{ClientConfig, MirrorPull, RegistryRule};
use super::credentials::is_prefix;
use super::error::Error;
use super::reference::{Reference, api_host, canonical_registry};
use super::transport::Trust;

/// A repository at a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `host[:port]` that answers requests.
    pub(super) host: String,
    /// Path below it.
    pub(super) repository: String,
    /// May something else be asked when it fails?
    pub(super) is_mirror: bool,
    /// Must the host prove what it is?
    pub(super) trust: Trust,
}

/// How much of an endpoint is told by its place: mirrors may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Mirror,
    Own,
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
    let Some((matched, rule)) = rule_for(config, &name) else { return Ok(vec![own(reference, Trust::Ruled)]) };
    if rule.blocked {
        return Err(Error::Blocked { name, prefix: rule.prefix.clone() });
    }
    let (prefix, rest) = name.split_at(matched);
    let mirrors = rule.mirrors.iter().filter(|mirror| match mirror.pull {
        MirrorPull::All => true,
        MirrorPull::DigestOnly => by == AskedBy::Digest,
        MirrorPull::TagOnly => by == AskedBy::Tag,
    });
    let mirrors = mirrors.map(|mirror| rewritten(&mirror.location, rest, Place::Mirror, trust(mirror.insecure)));
    let mut found = mirrors.collect::<Result<Vec<_>, _>>()?;
    found.push(rewritten(rule.location.as_deref().unwrap_or(prefix), rest, Place::Own, trust(rule.insecure))?);
    Ok(found)
}

/// Returns where `reference` is written to: what it says itself, for locations and mirrors are for readers.
pub(super) fn home(config: &ClientConfig, reference: &Reference) -> Result<Endpoint, Error> {
    let name = reference.name();
    match rule_for(config, &name) {
        Some((_, rule)) if rule.blocked => Err(Error::Blocked { name, prefix: rule.prefix.clone() }),
        rule => Ok(own(reference, trust(rule.is_some_and(|(_, rule)| rule.insecure)))),
    }
}

/// Returns what is asked about `registry` as a whole: nothing below it.
pub(super) fn door(config: &ClientConfig, registry: &str) -> Endpoint {
    let registry = canonical_registry(registry);
    let insecure = rule_for(config, &registry).is_some_and(|(_, rule)| rule.insecure);
    let (host, repository) = (api_host(&registry).to_owned(), String::new());
    Endpoint { host, repository, is_mirror: false, trust: trust(insecure) }
}

fn own(reference: &Reference, trust: Trust) -> Endpoint {
    let (host, repository) = (api_host(reference.registry()).to_owned(), reference.repository().to_owned());
    Endpoint { host, repository, is_mirror: false, trust }
}

fn trust(insecure: bool) -> Trust {
    if insecure { Trust::Blind } else { Trust::Ruled }
}

/// The rule that fits most of `name`, with the length of that. One that names the host counts before a wildcard.
fn rule_for<'c>(config: &'c ClientConfig, name: &str) -> Option<(usize, &'c RegistryRule)> {
    let fitting = config.registries.iter().filter_map(|rule| Some((matched(rule, name)?, rule)));
    fitting.max_by_key(|(matched, rule)| (*matched, !rule.prefix.starts_with("*.")))
}

/// How many bytes of `name` the prefix of `rule` stands for, if it does.
fn matched(rule: &RegistryRule, name: &str) -> Option<usize> {
    let prefix = canonical(&rule.prefix);
    let (wanted, path) = prefix.split_at(prefix.find('/').unwrap_or(prefix.len()));
    let host = name.split('/').next().unwrap_or_default();
    // A block is not passed by naming the port as well.
    let without_port = host.rsplit_once(':').filter(|_| rule.blocked && !wanted.contains(':')).map(|(host, _)| host);
    let fits = |host: &str| match wanted.strip_prefix('*') {
        Some(domain) => host.strip_suffix(domain).is_some_and(|sub| !sub.is_empty()),
        None => host == wanted,
    };
    let is_below = is_prefix(path, &name[host.len()..]);
    (is_below && (fits(host) || without_port.is_some_and(fits))).then_some(host.len() + path.len())
}

fn canonical(location: &str) -> String {
    let location = location.trim_end_matches('/');
    match location.split_once('/') {
        Some((host, path)) => format!("{}/{path}", canonical_registry(host)),
        None => canonical_registry(location),
    }
}

fn rewritten(location: &str, rest: &str, place: Place, trust: Trust) -> Result<Endpoint, Error> {
    let name = format!("{}{rest}", canonical(location));
    // Parsing checks host and path, which come from a file that people write.
    let parsed: Reference = name.parse().map_err(|source| Error::Config {
        what: format!("use {location:?} as the location of a registry"),
        source: Box::new(source),
    })?;
    Ok(Endpoint { is_mirror: place == Place::Mirror, ..own(&parsed, trust) })
}

#[cfg(test)]
mod tests {
    use super::super::config::Mirror;
    use super::*;

    fn rule(prefix: &str, location: Option<&str>, mirrors: &[(&str, MirrorPull)]) -> RegistryRule {
        RegistryRule {
            prefix: prefix.to_owned(),
            location: location.map(str::to_owned),
            mirrors: mirrors
                .iter()
                .map(|(l, pull)| Mirror { location: (*l).to_owned(), pull: *pull, insecure: false })
                .collect(),
            blocked: false,
            insecure: false,
        }
    }

    #[test]
    fn what_is_insecure_is_so_by_its_name_and_not_by_its_host() {
        let insecure = |prefix: &str| RegistryRule { insecure: true, ..rule(prefix, None, &[]) };
        let mut mirrored =
            rule("h.io/mirrored", Some("h.io/lab"), &[("m.io", MirrorPull::All), ("n.io", MirrorPull::All)]);
        mirrored.mirrors[1].insecure = true;
        let registries = vec![insecure("h.io/lab"), rule("h.io/lab/safe", None, &[]), insecure("whole.io"), mirrored];
        let config = ClientConfig { registries, ..ClientConfig::default() };
        let trusts = |name: &str| {
            let found = endpoints(&config, &name.parse().unwrap(), AskedBy::Tag).unwrap();
            found.iter().map(|endpoint| endpoint.trust).collect::<Vec<_>>()
        };
        use Trust::{Blind, Ruled};
        assert_eq!(trusts("h.io/lab/x"), [Blind]);
        for name in ["h.io/x", "h.io/labor", "h.io/lab/safe/x", "h.io:443/lab/x"] {
            assert_eq!(trusts(name), [Ruled], "{name}");
        }
        assert_eq!(trusts("h.io/mirrored/x"), [Ruled, Blind, Ruled], "each place by itself");
        let written = |name: &str| home(&config, &name.parse().unwrap()).unwrap().trust;
        assert_eq!((written("h.io/lab/x"), written("h.io/mirrored/x")), (Blind, Ruled));
        assert_eq!((door(&config, "h.io").trust, door(&config, "whole.io").trust), (Ruled, Blind));
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
        for name in ["evil.io/x", "evil.io:443/x"] {
            let name = name.parse().unwrap();
            assert!(matches!(home(&config, &name), Err(Error::Blocked { .. })), "{name}");
            assert!(matches!(endpoints(&config, &name, AskedBy::Tag), Err(Error::Blocked { .. })), "{name}");
        }
        let written = home(&config, &"me/x".parse().unwrap()).unwrap();
        assert_eq!((written.host.as_str(), written.repository.as_str()), ("registry-1.docker.io", "me/x"));
        let refused = endpoints(&config, &"evil.io/x".parse().unwrap(), AskedBy::Tag);
        assert!(matches!(refused, Err(Error::Blocked { .. })), "{refused:?}");
    }

    #[test]
    fn a_wildcard_is_for_subdomains() {
        let registries = vec![
            rule("*.example.com", None, &[("mirror.corp/x", MirrorPull::All)]),
            rule("*.example.com/team", Some("team.corp"), &[]),
            rule("own.example.com", None, &[]),
        ];
        let config = ClientConfig { registries, ..ClientConfig::default() };
        let places = |name: &str| {
            let found = endpoints(&config, &name.parse().unwrap(), AskedBy::Tag).unwrap();
            found.iter().map(|e| format!("{}/{}", e.host, e.repository)).collect::<Vec<_>>()
        };
        assert_eq!(places("a.b.example.com/i"), ["mirror.corp/x/i", "a.b.example.com/i"]);
        assert_eq!(places("a.example.com/team/i"), ["team.corp/i"]);
        for alone in
            ["example.com/i", "own.example.com/i", "xexample.com/i", "a.example.com.evil.io/i", "a.example.com:1/i"]
        {
            assert_eq!(places(alone), [alone]);
        }
    }
}
