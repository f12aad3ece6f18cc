//! What the environment, configuration files and the command line say about registries, as values for the library.

pub(crate) mod auth_file;
mod conf;
pub(crate) mod creds;
mod helper;

use std::path::PathBuf;
use std::time::Duration;

use builder_core::Builder;
use builder_core::registries::{
    Access, ClientConfig, Credential, Credentials, HostRule, Mirror, MirrorPull, PlainHttp, ProxyConfig, RegistryRule,
    RetryPolicy, Roots, Secret, VerifyTls,
};

use crate::args::{BuildCredsArgs, RegistryArgs};
use crate::failure::Failure;
use auth_file::AuthFiles;
use conf::{Insecure, RegistriesConf};

/// Docker Hub in names.
const DOCKER_IO: &str = "docker.io";

/// The hosts that `--tls-verify=false` is about.
pub(crate) enum Hosts<'a> {
    /// All that the command speaks to.
    All,
    /// This one.
    One(&'a str),
}

/// A variable of the environment; one that is empty is as if it was not set.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// As [`variable`], in upper case or, as some tools want it, in lower case.
fn either_case(name: &str) -> Option<String> {
    variable(name).or_else(|| variable(&name.to_lowercase()))
}

fn home() -> Option<PathBuf> {
    variable("HOME").map(PathBuf::from).filter(|home| home.is_absolute())
}

/// Gives `builder` all that is known about registries. Files of credentials are read, programs are only started when a
/// registry asks who is there.
pub(crate) fn configure(builder: Builder, args: &RegistryArgs, hosts: &Hosts<'_>) -> Result<Builder, Failure> {
    configure_and(builder, args, hosts, |_| Ok(()))
}

/// As [`configure`], with what the command line itself says about credentials.
pub(crate) fn configure_and(
    builder: Builder,
    args: &RegistryArgs,
    hosts: &Hosts<'_>,
    add: impl FnOnce(&mut Credentials) -> Result<(), Failure>,
) -> Result<Builder, Failure> {
    let mut files = AuthFiles::read(args.authfile.as_deref())?;
    let conf = RegistriesConf::read()?;
    files.set_default_helper(conf.helper.clone());
    let mut config = base_config(args, hosts, &conf)?;
    config.credentials = files.credentials();
    add(&mut config.credentials)?;
    config.helpers = files.helper_hosts();
    Ok(builder.registries(config).credential_source(move |host| files.ask_helper(host)))
}

/// As [`configure`], with these credentials for `host` and none for any other.
pub(crate) fn configure_with(
    builder: Builder,
    args: &RegistryArgs,
    host: &str,
    credential: Credential,
) -> Result<Builder, Failure> {
    let mut config = base_config(args, &Hosts::One(host), &RegistriesConf::read()?)?;
    config.credentials.insert(host, None, credential);
    Ok(builder.registries(config))
}

/// The credentials of a build: `--creds`, `--pull-creds`, `--push-creds` and `--push-authfile`. `pushed` are the names
/// that it pushes to.
pub(crate) fn configure_build(
    builder: Builder,
    registry: &RegistryArgs,
    args: &BuildCredsArgs,
    pushed: &[String],
) -> Result<Builder, Failure> {
    configure_and(builder, registry, &Hosts::All, |credentials| {
        if let Some(path) = &args.push_authfile {
            AuthFiles::read_for_push(path, credentials)?;
        }
        creds::add(credentials, "creds", &args.creds, None, pushed)?;
        creds::add(credentials, "pull-creds", &args.pull_creds, Some(Access::Pull), &[])?;
        creds::add(credentials, "push-creds", &args.push_creds, Some(Access::Push), pushed)
    })
}

/// Everything but credentials.
fn base_config(args: &RegistryArgs, hosts: &Hosts<'_>, conf: &RegistriesConf) -> Result<ClientConfig, Failure> {
    let mut config = ClientConfig { roots: roots(), cert_dirs: cert_dirs(), proxy: proxy(), ..ClientConfig::default() };
    config.retry = RetryPolicy {
        attempts: args.retry.map_or(config.retry.attempts, |retries| retries.saturating_add(1)),
        first_delay: args.retry_delay.unwrap_or(config.retry.first_delay),
        max_delay: args.retry_delay.map_or(config.retry.max_delay, |delay| delay.max(config.retry.max_delay)),
        ..config.retry
    };
    if args.tls_verify == Some(false) {
        let host = match hosts {
            Hosts::All => "*",
            Hosts::One(host) => host,
        };
        let rule = HostRule { plain_http: PlainHttp::Allowed, verify: VerifyTls::No, ..HostRule::new(host) };
        config.hosts.push(rule);
    }
    conf.apply(&mut config, if args.tls_verify == Some(true) { Insecure::Never } else { Insecure::Allowed });
    add_mirrors(&mut config, &args.registry_mirrors)?;
    Ok(config)
}

/// `--registry-mirror`: places to ask before Docker Hub, and before the mirrors that files name for it.
fn add_mirrors(config: &mut ClientConfig, mirrors: &[String]) -> Result<(), Failure> {
    let mut locations = Vec::new();
    for text in mirrors {
        let (plain, location) = match text.split_once("://") {
            Some(("https", location)) => (false, location),
            Some(("http", location)) => (true, location),
            Some(_) => return Err(Failure::usage(format!("--registry-mirror {text:?} is neither https nor http"))),
            None => (false, text.as_str()),
        };
        let location = location.trim_end_matches('/').to_owned();
        let host = location.split('/').next().unwrap_or_default().to_owned();
        if host.is_empty() || host.contains('@') {
            return Err(Failure::usage(format!("--registry-mirror {text:?} is no HOST[:PORT][/PATH]")));
        }
        if plain {
            // The first rule of a host counts.
            config.hosts.insert(0, HostRule { plain_http: PlainHttp::Always, ..HostRule::new(host) });
        }
        locations.push(location);
    }
    if locations.is_empty() {
        return Ok(());
    }
    if !config.registries.iter().any(|rule| rule.prefix == DOCKER_IO) {
        let prefix = DOCKER_IO.to_owned();
        config.registries.push(RegistryRule {
            prefix,
            location: None,
            mirrors: Vec::new(),
            blocked: false,
            insecure: false,
        });
    }
    for rule in &mut config.registries {
        let Some(path) = rule.prefix.strip_prefix(DOCKER_IO).filter(|path| path.is_empty() || path.starts_with('/'))
        else {
            continue;
        };
        let mirror =
            |location| Mirror { location: format!("{location}{path}"), pull: MirrorPull::All, insecure: false };
        rule.mirrors.splice(0..0, locations.iter().map(mirror));
    }
    Ok(())
}

fn proxy() -> ProxyConfig {
    // What a web server passes a CGI program as HTTP_PROXY comes from the client of that server.
    let http_proxy = either_case("HTTP_PROXY").filter(|_| variable("REQUEST_METHOD").is_none());
    ProxyConfig {
        http_proxy: http_proxy.map(Secret::new),
        https_proxy: either_case("HTTPS_PROXY").map(Secret::new),
        no_proxy: either_case("NO_PROXY"),
    }
}

fn roots() -> Roots {
    let dirs = variable("SSL_CERT_DIR");
    let dirs = dirs.iter().flat_map(|dirs| std::env::split_paths(dirs)).filter(|dir| !dir.as_os_str().is_empty());
    Roots { file: variable("SSL_CERT_FILE").map(PathBuf::from), dirs: dirs.collect(), extra: Vec::new() }
}

/// Docker's and Podman's directories of certificates by host.
fn cert_dirs() -> Vec<PathBuf> {
    let config = variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| home().map(|home| home.join(".config")));
    let own = config.iter().flat_map(|dir| [dir.join("containers/certs.d"), dir.join("docker/certs.d")]);
    own.chain(["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from)).collect()
}

/// `USER[:PASSWORD]`; without a password it is empty.
pub(crate) fn basic(text: &str) -> Result<Credential, Failure> {
    let (username, password) = text.split_once(':').unwrap_or((text, ""));
    if username.is_empty() {
        return Err(Failure::usage("the credentials have no user name"));
    }
    Ok(Credential::Basic { username: username.to_owned(), password: Secret::new(password) })
}

/// Seconds, with or without a fraction and `s`; or `ms` or `m` behind the number.
pub(crate) fn delay(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.find(|c: char| c.is_ascii_alphabetic()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let seconds = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err(format!("{unit:?} is no unit of time (ms, s, m)")),
    };
    let number: f64 = number.parse().map_err(|_| format!("{number:?} is no number"))?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

/// The registry of an image name: `host[:port]`.
pub(crate) fn host_of(name: &str) -> &str {
    match name.split_once('/') {
        Some((first, _)) if first == "localhost" || first.contains(['.', ':']) => first,
        _ => "docker.io",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays() {
        for (text, millis) in [("2", 2000), ("2s", 2000), ("0.5", 500), ("500ms", 500), ("1m", 60_000)] {
            assert_eq!(delay(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for bad in ["", "s", "-1", "1h", "x"] {
            assert!(delay(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mirrors() {
        let mut config = ClientConfig::default();
        add_mirrors(&mut config, &["https://m.example/hub/".into(), "http://plain:5000".into()]).unwrap();
        let locations: Vec<_> = config.registries[0].mirrors.iter().map(|mirror| mirror.location.as_str()).collect();
        assert_eq!(
            (config.registries[0].prefix.as_str(), locations),
            ("docker.io", vec!["m.example/hub", "plain:5000"])
        );
        assert_eq!(config.hosts.iter().map(|rule| rule.host.as_str()).collect::<Vec<_>>(), ["plain:5000"]);
        let rule = |prefix: &str| RegistryRule {
            prefix: prefix.to_owned(),
            location: None,
            mirrors: vec![Mirror { location: "file".to_owned(), pull: MirrorPull::All, insecure: false }],
            blocked: false,
            insecure: false,
        };
        let registries = vec![rule("docker.io/library"), rule("docker.iox"), rule("docker.io")];
        let mut config = ClientConfig { registries, ..ClientConfig::default() };
        add_mirrors(&mut config, &["one".into(), "two".into()]).unwrap();
        let locations =
            |at: usize| config.registries[at].mirrors.iter().map(|m| m.location.clone()).collect::<Vec<_>>();
        assert_eq!(locations(0), ["one/library", "two/library", "file"]);
        assert_eq!(
            (locations(1), locations(2)),
            (vec!["file".into()], vec!["one".into(), "two".into(), "file".into()])
        );
        for bad in ["ftp://x", "https://", "https://user:pass@x"] {
            assert!(add_mirrors(&mut config, &[bad.into()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_of_names() {
        for (name, host) in [("a", "docker.io"), ("a/b:1", "docker.io"), ("h:1/a", "h:1"), ("localhost/a", "localhost")]
        {
            assert_eq!(host_of(name), host);
        }
    }
}
