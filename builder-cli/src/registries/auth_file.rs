//! Files of credentials: Docker's `config.json` and Podman's `auth.json`, which have the same form.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use builder_core::registries::{Access, Credential, Credentials, HelperHosts, Secret};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{helper, home, variable};
use crate::failure::Failure;

/// The key of Docker Hub in these files.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// What the files say, the first that says something about a host first.
#[derive(Debug, Default)]
pub(crate) struct AuthFiles {
    /// Files so far.
    count: usize,
    /// Number of the file, key and credential.
    entries: Vec<(usize, String, Credential)>,
    /// Helper by host, as in image names.
    helpers: BTreeMap<String, Helper>,
    /// Helper for every other host.
    store: Option<Helper>,
}

/// A helper that a file names.
#[derive(Debug)]
struct Helper {
    /// Number of the file.
    file: usize,
    name: String,
}

#[derive(Debug, Default, Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl Auth {
    fn credential(&self) -> Result<Option<Credential>, &'static str> {
        if !self.registrytoken.is_empty() {
            return Ok(Some(Credential::RegistryToken(Secret::new(&self.registrytoken))));
        }
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credential::IdentityToken(Secret::new(&self.identitytoken))));
        }
        if self.auth.is_empty() {
            let (username, password) = (self.username.clone(), Secret::new(&self.password));
            return Ok(Some(Credential::Basic { username, password }).filter(|_| !self.username.is_empty()));
        }
        let decoded = STANDARD.decode(self.auth.trim()).map_err(|_| "its auth is not base64")?;
        let text = String::from_utf8(decoded).map_err(|_| "its auth is not text")?;
        let (username, password) = text.split_once(':').ok_or("its auth is not user:password")?;
        // Docker ends the password with zero bytes in old files.
        let password = Secret::new(password.trim_end_matches('\0'));
        Ok(Some(Credential::Basic { username: username.to_owned(), password }))
    }
}

impl AuthFile {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        // Without the text around it, which may be a password.
        serde_json::from_slice(bytes)
            .map_err(|error| format!("no credentials in JSON (line {}, column {})", error.line(), error.column()))
    }
}

/// The name of a host as images have it, from a key of a file.
fn host_of_key(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    match key.split('/').next().unwrap_or(key) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

impl AuthFiles {
    /// Reads `--authfile` or the file of `REGISTRY_AUTH_FILE`, else those of Podman and Docker; and before them
    /// `DOCKER_AUTH_CONFIG`, which holds such a file itself.
    pub(crate) fn read(authfile: Option<&Path>) -> Result<Self, Failure> {
        let mut files = Self::default();
        if let Some(text) = variable("DOCKER_AUTH_CONFIG") {
            files.add("DOCKER_AUTH_CONFIG", text.as_bytes())?;
        }
        let paths = match authfile {
            Some(path) => vec![path.to_owned()],
            None => places(),
        };
        for path in paths {
            match std::fs::read(&path) {
                Ok(bytes) => files.add(&path.display().to_string(), &bytes)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound && authfile.is_none() => {}
                Err(error) if error.kind() == io::ErrorKind::NotADirectory && authfile.is_none() => {}
                Err(error) => return Err(Failure::usage(format!("read {}: {error}", path.display()))),
            }
        }
        Ok(files)
    }

    /// Adds the credentials of a file to those that were just named, for pushing alone.
    pub(crate) fn read_for_push(path: &Path, credentials: &mut Credentials) -> Result<(), Failure> {
        let shown = path.display().to_string();
        let fail = |what: String| Failure::usage(format!("{shown} is not usable: {what}"));
        let bytes = std::fs::read(path).map_err(|error| Failure::usage(format!("read {shown}: {error}")))?;
        let file = AuthFile::read(&bytes).map_err(fail)?;
        if file.store.is_some() || !file.helpers.is_empty() {
            return Err(fail("credential helpers cannot be asked for pushing alone".to_owned()));
        }
        for (key, auth) in &file.auths {
            if let Some(credential) = auth.credential().map_err(|what| fail(format!("{key:?}: {what}")))? {
                credentials.insert_explicit(key, Some(Access::Push), credential);
            }
        }
        Ok(())
    }

    fn add(&mut self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let fail = |what: String| Failure::usage(format!("{name} is not usable: {what}"));
        let file = AuthFile::read(bytes).map_err(fail)?;
        for (key, auth) in &file.auths {
            if let Some(credential) = auth.credential().map_err(|what| fail(format!("{key:?}: {what}")))? {
                self.entries.push((self.count, key.clone(), credential));
            }
        }
        let helper = |name| Helper { file: self.count, name };
        for (key, name) in file.helpers {
            self.helpers.entry(host_of_key(&key).to_owned()).or_insert(helper(name));
        }
        self.store = self.store.take().or(file.store.filter(|store| !store.is_empty()).map(helper));
        self.count += 1;
        Ok(())
    }

    /// Names the helper for hosts that no file says anything about.
    pub(crate) fn set_default_helper(&mut self, name: Option<String>) {
        self.store = self.store.take().or(name.map(|name| Helper { file: self.count, name }));
    }

    fn helper(&self, host: &str) -> Option<&Helper> {
        self.helpers.get(host).or(self.store.as_ref())
    }

    /// What the files hold themselves. It comes before the helper that a later file names.
    pub(crate) fn credentials(&self) -> Credentials {
        let mut credentials = Credentials::default();
        for (file, key, credential) in &self.entries {
            match self.helper(host_of_key(key)) {
                Some(helper) if *file < helper.file => credentials.insert_ahead(key, None, credential.clone()),
                _ => credentials.insert(key, None, credential.clone()),
            }
        }
        credentials
    }

    /// The hosts whose credentials a helper has.
    pub(crate) fn helper_hosts(&self) -> HelperHosts {
        HelperHosts { all: self.store.is_some(), hosts: self.helpers.keys().cloned().collect() }
    }

    /// Asks the helper for `host`. An empty name means none, as in the file.
    pub(crate) fn ask_helper(&self, host: &str) -> Result<Option<Credential>, String> {
        let helper = self.helper(host).filter(|helper| !helper.name.is_empty());
        let server = if host == "docker.io" { DOCKER_HUB } else { host };
        helper.map_or(Ok(None), |helper| helper::ask(&helper.name, server))
    }
}

/// Where credentials are looked for, in order.
fn places() -> Vec<PathBuf> {
    if let Some(path) = variable("REGISTRY_AUTH_FILE") {
        return vec![path.into()];
    }
    let config = variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| home().map(|home| home.join(".config")));
    let docker = variable("DOCKER_CONFIG").map(PathBuf::from).or_else(|| home().map(|home| home.join(".docker")));
    let podman = variable("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("containers/auth.json"));
    podman
        .into_iter()
        .chain(config.map(|dir| dir.join("containers/auth.json")))
        .chain(docker.map(|dir| dir.join("config.json")))
        .collect()
}

/// The file that `login` writes: the one that is named, else Docker's, which every tool reads.
pub(crate) fn login_file(authfile: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(path) = authfile {
        return Ok(path.to_owned());
    }
    let docker = variable("DOCKER_CONFIG").map(PathBuf::from).or_else(|| home().map(|home| home.join(".docker")));
    variable("REGISTRY_AUTH_FILE")
        .map(PathBuf::from)
        .or_else(|| docker.map(|dir| dir.join("config.json")))
        .ok_or_else(|| Failure::usage("no place for credentials: set HOME, or name a file with --authfile"))
}

/// Changes the entry of `host` in a file, which keeps everything else it holds: to this name and password, or away with
/// it. Returns whether there was one.
pub(crate) fn change(path: &Path, host: &str, new: Option<(&str, &str)>) -> Result<bool, Failure> {
    let fail = |what: String| Failure::output(format!("{}: {what}", path.display()));
    let mut file: Value = match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|_| fail("it is not JSON".to_owned()))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => json!({}),
        Err(error) => return Err(fail(error.to_string())),
    };
    let key = if host == "docker.io" { DOCKER_HUB } else { host };
    let object = file.as_object_mut().ok_or_else(|| fail("it is not a JSON object".to_owned()))?;
    let auths = object.entry("auths").or_insert_with(|| json!({}));
    let auths = auths.as_object_mut().ok_or_else(|| fail("its auths are not an object".to_owned()))?;
    let same: Vec<String> = auths.keys().filter(|old| same_registry(old, host)).cloned().collect();
    for old in &same {
        auths.remove(old);
    }
    if let Some((username, password)) = new {
        auths.insert(key.to_owned(), json!({"auth": STANDARD.encode(format!("{username}:{password}"))}));
    }
    if new.is_some() || !same.is_empty() {
        write(path, format!("{file:#}\n").as_bytes()).map_err(|error| fail(error.to_string()))?;
    }
    Ok(!same.is_empty())
}

/// Whether a key is about the whole registry `host`: one with a path below it is not.
fn same_registry(key: &str, host: &str) -> bool {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let path = bare.split_once('/').map_or("", |(_, path)| path.trim_end_matches('/'));
    host_of_key(key) == host && matches!(path, "" | "v1" | "v2")
}

/// Writes a file that nobody else may read, and that is there whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A link into a directory of dotfiles stays one.
    let path = if path.exists() { std::fs::canonicalize(path)? } else { path.to_owned() };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temp = dir.join(format!(".{name}.{}", std::process::id()));
    let written =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temp).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&temp, &path)
        });
    // The error that is reported is the first one.
    written.inspect_err(|_| drop(std::fs::remove_file(&temp)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn read(text: &str) -> Result<AuthFiles, Failure> {
        let mut files = AuthFiles::default();
        files.add("test", text.as_bytes()).map(|()| files)
    }

    #[test]
    fn forms_of_credentials() {
        let one = |auth: &str| serde_json::from_str::<Auth>(auth).unwrap().credential();
        let basic = |name: &str, password: &str| {
            Ok(Some(Credential::Basic { username: name.to_owned(), password: Secret::new(password) }))
        };
        let encoded = |text: &str| format!("{{\"auth\":\"{}\"}}", STANDARD.encode(text));
        assert_eq!(one(&encoded("u:p:q")), basic("u", "p:q"));
        assert_eq!(one(&encoded("u:p\0\0")), basic("u", "p"));
        assert_eq!(one(r#"{"username":"u","password":"p"}"#), basic("u", "p"));
        assert_eq!(
            one(r#"{"auth":"dTpw","identitytoken":"t"}"#),
            Ok(Some(Credential::IdentityToken(Secret::new("t"))))
        );
        assert_eq!(one(r#"{"registrytoken":"r"}"#), Ok(Some(Credential::RegistryToken(Secret::new("r")))));
        assert_eq!(one("{}"), Ok(None), "an entry whose credentials are in a store");
        assert!(one(&encoded("nocolon")).is_err() && one(r#"{"auth":"%"}"#).is_err());
    }

    #[test]
    fn a_damaged_file_is_an_error_that_tells_no_secret() {
        let text = format!("{:?}", read(r#"{"auths":{"h":{"auth":hunter2}}}"#).unwrap_err());
        assert!(text.contains("line 1") && !text.contains("hunter2"), "{text}");
        let text = format!("{:?}", read(r#"{"auths":{"h":{"auth":"aHVudGVyMg=="}}}"#).unwrap_err());
        assert!(text.contains("\\\"h\\\"") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn helpers_by_host() {
        let files = read(r#"{"credHelpers":{"https://index.docker.io/v1/":"","gcr.io":"gcr"},"credsStore":"pass"}"#);
        let files = files.unwrap();
        let hosts = files.helper_hosts();
        assert!(hosts.all && hosts.hosts == ["docker.io", "gcr.io"], "{hosts:?}");
        assert_eq!(files.ask_helper("docker.io").unwrap(), None, "no helper by an empty name");
        assert!(!read("{}").unwrap().helper_hosts().all);
    }

    #[test]
    fn login_and_logout_change_one_entry_and_keep_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/config.json");
        assert!(!change(&path, "docker.io", Some(("u", "p"))).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(file["auths"][DOCKER_HUB]["auth"], "dTpw");
        file["credsStore"] = json!("kept");
        file["auths"]["docker.io/org"] = json!({"auth": "kept"});
        std::fs::write(&path, file.to_string()).unwrap();
        change(&path, "h:5000", Some(("u", "p"))).unwrap();
        assert!(change(&path, "docker.io", None).unwrap());
        assert!(!change(&path, "docker.io", None).unwrap());
        let file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let keys: Vec<&str> = file["auths"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!((keys, &file["credsStore"]), (vec!["docker.io/org", "h:5000"], &json!("kept")));
        assert_eq!(std::fs::read_dir(dir.path().join("deep")).unwrap().count(), 1, "no temporary file is left");
    }
}
