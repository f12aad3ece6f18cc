//! `registries.conf`, version 2, as Podman, Buildah and Skopeo read it: other places, mirrors, blocks, plain http.
//!
//! Reads: `prefix` (also `*.example.com`), `location`, `insecure`, `blocked`, `mirror` with `location`, `insecure` and
//! `pull-from-mirror`, `mirror-by-digest-only`, `credential-helpers`. A short name means Docker Hub here, as in any
//! Dockerfile, so `unqualified-search-registries`, `short-name-mode` and `aliases` say nothing. What else stands in the
//! table of a registry is an error: it may be a restriction.
//!
//! `insecure` is for the names of its table, and for the mirror that says so, not for their hosts. Rules: `containers-registries.conf(5)` and `.conf.d(5)`.

use std::io;
use std::path::{Path, PathBuf};

use builder_core::registries::{ClientConfig, Mirror, MirrorPull, RegistryRule};
use serde::Deserialize;

use super::{home, variable};
use crate::failure::Failure;

/// What stands in the list of helpers for the files of credentials.
const FILES: &str = "containers-auth.json";

/// What all files say together.
#[derive(Debug, Default)]
pub(super) struct RegistriesConf {
    tables: Vec<Table>,
    /// Helper that is asked for hosts that the files of credentials say nothing about.
    pub(super) helper: Option<String>,
}

/// One file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    registry: Vec<Table>,
    credential_helpers: Option<Vec<String>>,
    /// Version 1.
    registries: Option<Version1>,
}

/// The oldest form: lists.
#[derive(Debug, Default, Deserialize)]
struct Version1 {
    #[serde(default)]
    insecure: List,
    #[serde(default)]
    block: List,
}

#[derive(Debug, Default, Deserialize)]
struct List {
    #[serde(default)]
    registries: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Table {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<MirrorTable>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct MirrorTable {
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<PullFrom>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PullFrom {
    All,
    DigestOnly,
    TagOnly,
}

/// Whether `--tls-verify` says that certificates must hold, whatever the files say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Insecure {
    /// As the files say.
    Allowed,
    /// Nowhere.
    Never,
}

impl RegistriesConf {
    /// Reads the file of `CONTAINERS_REGISTRIES_CONF` alone, else that of the user, else that of the machine, each with
    /// its directory of further files.
    pub(super) fn read() -> Result<Self, Failure> {
        if let Some(path) = variable("CONTAINERS_REGISTRIES_CONF") {
            let mut conf = Self::default();
            return match conf.add_file(Path::new(&path))? {
                true => Ok(conf),
                false => Err(Failure::usage(format!("there is no {path}, which CONTAINERS_REGISTRIES_CONF names"))),
            };
        }
        let config = variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| home().map(|home| home.join(".config")));
        Self::read_from(Path::new("/etc/containers"), config.map(|dir| dir.join("containers")).as_deref())
    }

    fn read_from(machine: &Path, user: Option<&Path>) -> Result<Self, Failure> {
        let mut conf = Self::default();
        let users = user.map(|dir| conf.add_file(&dir.join("registries.conf"))).transpose()?;
        if users != Some(true) {
            conf.add_file(&machine.join("registries.conf"))?;
            conf.add_dir(&machine.join("registries.conf.d"))?;
        }
        if let Some(user) = user {
            conf.add_dir(&user.join("registries.conf.d"))?;
        }
        Ok(conf)
    }

    /// Reads `*.conf` in the order of their names.
    fn add_dir(&mut self, dir: &Path) -> Result<(), Failure> {
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries.collect::<io::Result<Vec<_>>>(),
            Err(error) if is_absent(&error) => return Ok(()),
            Err(error) => Err(error),
        };
        let entries = entries.map_err(|error| Failure::usage(format!("read {}: {error}", dir.display())))?;
        let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "conf") && !path.is_dir());
        paths.sort();
        paths.iter().try_for_each(|path| self.add_file(path).map(drop))
    }

    /// Returns whether the file is there.
    fn add_file(&mut self, path: &Path) -> Result<bool, Failure> {
        match std::fs::read_to_string(path) {
            Ok(text) => self.add(&path.display().to_string(), &text).map(|()| true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(Failure::usage(format!("read {}: {error}", path.display()))),
        }
    }

    /// Adds what one file says; a later table of the same prefix takes the place of an earlier one.
    fn add(&mut self, name: &str, text: &str) -> Result<(), Failure> {
        let fail = |what: String| Failure::usage(format!("{name} is not usable: {what}"));
        let file: File = toml::from_str(text).map_err(|error| fail(error.to_string().trim_end().to_owned()))?;
        if file.registries.is_some() && !file.registry.is_empty() {
            return Err(fail("it mixes [registries] of version 1 with [[registry]] of version 2".to_owned()));
        }
        for mut table in file.registry.into_iter().chain(file.registries.into_iter().flat_map(Version1::tables)) {
            table.check().map_err(fail)?;
            if table.prefix.is_empty() {
                table.prefix.clone_from(&table.location);
            }
            self.tables.retain(|known| known.prefix != table.prefix);
            self.tables.push(table);
        }
        if let Some(helpers) = file.credential_helpers {
            let mut helpers = helpers.into_iter().filter(|helper| helper != FILES);
            self.helper = helpers.next();
            if let Some(second) = helpers.next() {
                return Err(fail(format!("one of credential-helpers besides {FILES} is asked, not {second:?} too")));
            }
        }
        Ok(())
    }

    /// Tells `config` about registries.
    pub(super) fn apply(&self, config: &mut ClientConfig, insecure: Insecure) {
        config.registries.extend(self.tables.iter().map(|table| table.rule(insecure)));
    }
}

impl Version1 {
    fn tables(self) -> Vec<Table> {
        let of = |prefix: &String| Table { prefix: prefix.clone(), ..Table::default() };
        let insecure = self.insecure.registries.iter().filter(|name| !self.block.registries.contains(name));
        let insecure = insecure.map(|name| Table { insecure: true, ..of(name) });
        let blocked = self.block.registries.iter().map(|name| Table {
            blocked: true,
            insecure: self.insecure.registries.contains(name),
            ..of(name)
        });
        insecure.chain(blocked).collect()
    }
}

impl Table {
    fn check(&self) -> Result<(), String> {
        if self.prefix.is_empty() && self.location.is_empty() {
            return Err("a [[registry]] has neither prefix nor location".to_owned());
        }
        let name = if self.prefix.is_empty() { &self.location } else { &self.prefix };
        let places = self.mirror.iter().map(|mirror| &mirror.location).chain([&self.prefix, &self.location]);
        for place in places.clone() {
            let path = place.split_once('/').map_or("", |(_, path)| path);
            if place.contains("://") || place.contains('@') || path.contains(':') {
                return Err(format!("{place:?} is not HOST[:PORT][/PATH]"));
            }
        }
        if places.filter(|place| *place != &self.prefix).any(|place| place.contains('*')) {
            return Err(format!("a location of {name:?} has a wildcard"));
        }
        let wild = self.prefix.strip_prefix("*.").unwrap_or(&self.prefix);
        if wild.is_empty() && !self.prefix.is_empty() || wild.contains('*') {
            return Err(format!("a wildcard in {:?} does not stand for subdomains, as in *.example.com", self.prefix));
        }
        if self.mirror.iter().any(|mirror| mirror.location.is_empty()) {
            return Err(format!("a mirror of {name:?} has no location"));
        }
        if self.mirror_by_digest_only && self.mirror.iter().any(|mirror| mirror.pull_from_mirror.is_some()) {
            return Err(format!("{name:?} has mirror-by-digest-only and pull-from-mirror"));
        }
        Ok(())
    }

    fn rule(&self, insecure: Insecure) -> RegistryRule {
        let mirror = |mirror: &MirrorTable| Mirror {
            insecure: mirror.insecure && insecure == Insecure::Allowed,
            location: mirror.location.clone(),
            pull: match mirror.pull_from_mirror {
                _ if self.mirror_by_digest_only => MirrorPull::DigestOnly,
                None | Some(PullFrom::All) => MirrorPull::All,
                Some(PullFrom::DigestOnly) => MirrorPull::DigestOnly,
                Some(PullFrom::TagOnly) => MirrorPull::TagOnly,
            },
        };
        RegistryRule {
            prefix: self.prefix.clone(),
            location: Some(self.location.clone()).filter(|location| !location.is_empty()),
            mirrors: self.mirror.iter().map(mirror).collect(),
            blocked: self.blocked,
            insecure: self.insecure && insecure == Insecure::Allowed,
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ClientConfig, Failure> {
        let mut conf = RegistriesConf::default();
        conf.add("test.conf", text)?;
        let mut config = ClientConfig::default();
        conf.apply(&mut config, Insecure::Allowed);
        Ok(config)
    }

    #[test]
    fn tables_become_rules() {
        let config = read(
            r#"
unqualified-search-registries = ["example.com"]
short-name-mode = "enforcing"
credential-helpers = ["containers-auth.json"]

[[registry]]
prefix = "example.com/foo"
location = "internal.example.net/bar"
insecure = true
[[registry.mirror]]
location = "mirror-0.local:5000/foo"
[[registry.mirror]]
location = "mirror-1.local/mirrors/foo"
insecure = true
pull-from-mirror = "digest-only"

[[registry]]
location = "*.evil.io"
blocked = true

[[registry]]
location = "docker.io"
mirror-by-digest-only = true
mirror = [{ location = "hub.local" }]

[aliases]
"debian" = "docker.io/library/debian"
"#
            .replace("location = \"*.evil.io\"", "prefix = \"*.evil.io\"")
            .as_str(),
        )
        .unwrap();
        let mirror = |location: &str, pull| Mirror { location: location.to_owned(), pull, insecure: false };
        let expected = RegistryRule {
            prefix: "example.com/foo".to_owned(),
            location: Some("internal.example.net/bar".to_owned()),
            mirrors: vec![
                mirror("mirror-0.local:5000/foo", MirrorPull::All),
                Mirror { insecure: true, ..mirror("mirror-1.local/mirrors/foo", MirrorPull::DigestOnly) },
            ],
            blocked: false,
            insecure: true,
        };
        assert_eq!(config.registries[0], expected);
        assert!(config.registries[1].blocked && config.registries[1].prefix == "*.evil.io");
        assert_eq!(config.registries[2].mirrors, [mirror("hub.local", MirrorPull::DigestOnly)]);
        assert!(config.hosts.is_empty() && config.registries[1..].iter().all(|rule| !rule.insecure));
    }

    #[test]
    fn what_may_be_a_restriction_is_not_passed_over() {
        for (text, part) in [
            ("[[registry]]\nlocation='a.io'\nblockd=true\n", "blockd"),
            ("[[registry]]\nblocked=true\n", "neither prefix nor location"),
            ("[[registry]]\nlocation='https://a.io'\n", "HOST[:PORT][/PATH]"),
            ("[[registry]]\nlocation='a.io/x:tag'\n", "HOST[:PORT][/PATH]"),
            ("[[registry]]\nprefix='*.a.io'\nlocation='*.b.io'\n", "wildcard"),
            ("[[registry]]\nprefix='a.*.io'\n", "subdomains"),
            ("[[registry]]\nprefix='*'\n", "subdomains"),
            ("[[registry]]\nlocation='a.io'\n[[registry.mirror]]\ninsecure=true\n", "location"),
            ("[[registry]]\nlocation='a.io'\nmirror=[{location='m.io',pull-from-mirror='never'}]\n", "never"),
            (
                "[[registry]]\nlocation='a.io'\nmirror-by-digest-only=true\nmirror=[{location='m',pull-from-mirror='all'}]\n",
                "pull-from-mirror",
            ),
            ("[[registry]]\nlocation='a.io'\n[registries.search]\nregistries=[]\n", "version 1"),
            ("credential-helpers = ['a', 'b']\n", "\\\"b\\\""),
            ("[[registry\n", "test.conf"),
        ] {
            let error = format!("{:?}", read(text).unwrap_err());
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn lists_of_version_1_still_count() {
        let config = read(
            "[registries.search]\nregistries=['a']\n[registries.insecure]\nregistries=['b:1']\n[registries.block]\nregistries=['c']\n",
        );
        let config = config.unwrap();
        let rule = |rule: &RegistryRule| (rule.prefix.clone(), rule.blocked, rule.insecure);
        let rules: Vec<_> = config.registries.iter().map(rule).collect();
        assert_eq!(rules, [("b:1".to_owned(), false, true), ("c".to_owned(), true, false)]);
    }

    #[test]
    fn files_come_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let table = |prefix: &str, location: &str| format!("[[registry]]\nprefix='{prefix}'\nlocation='{location}'\n");
        let (machine, user) = (dir.path().join("machine"), dir.path().join("user"));
        let read = || {
            let conf = RegistriesConf::read_from(&machine, Some(&user)).unwrap();
            conf.tables.iter().map(|table| format!("{}={}", table.prefix, table.location)).collect::<Vec<_>>()
        };
        assert!(read().is_empty(), "nothing has to be there");
        write("machine/registries.conf", &(table("a", "main") + &table("b", "main")));
        write("machine/registries.conf.d/20.conf", &table("a", "20"));
        write("machine/registries.conf.d/10.conf", &(table("a", "10") + &table("c", "10")));
        write("machine/registries.conf.d/30.conf.off", "damaged");
        write("user/registries.conf.d/x.conf", &table("c", "user"));
        assert_eq!(read(), ["b=main", "a=20", "c=user"]);
        write("user/registries.conf", &table("d", "user"));
        assert_eq!(read(), ["d=user", "c=user"], "the user's file takes the place of the machine's");
        write("user/registries.conf.d/y.conf", "damaged");
        assert!(RegistriesConf::read_from(&machine, Some(&user)).is_err());
    }

    #[test]
    fn tls_verify_true_is_for_all() {
        let mut conf = RegistriesConf::default();
        conf.add("test", "[[registry]]\nlocation='a.io'\ninsecure=true\n").unwrap();
        let mut config = ClientConfig::default();
        conf.apply(&mut config, Insecure::Never);
        assert!(config.registries.len() == 1 && !config.registries[0].insecure);
    }
}
