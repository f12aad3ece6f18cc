//! What a build may use and must not keep: `--secret`, `--ssh`, and whom ssh believes.

use std::io::Read as _;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;

use builder_core::Secret;

use crate::failure::Failure;
use crate::output::csv_fields;

/// Largest secret in bytes, as in BuildKit.
const MAX_SECRET: u64 = 500 << 10;

/// Where the value of a secret is.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Variable(String),
    /// The variable of that name if it is set, else the file of that name.
    Either(String),
}

/// Reads `id=ID[,type=file|env][,src=FILE][,env=VARIABLE]`, one CSV record as in `docker build --secret`, and the value
/// that it names. A variable that is not set is no secret.
pub(crate) fn secret(text: &str) -> Result<Option<(String, Secret)>, Failure> {
    let (id, place) = secret_place(text)?;
    let value = match place {
        Place::File(path) => Some(read_secret(text, &path)?),
        Place::Variable(name) => variable(&name),
        Place::Either(name) => match variable(&name) {
            Some(value) => Some(value),
            None => Some(read_secret(text, &PathBuf::from(name))?),
        },
    };
    Ok(value.map(|value| (id, Secret::new(value))))
}

fn variable(name: &str) -> Option<Vec<u8>> {
    std::env::var_os(name).map(OsStringExt::into_vec)
}

fn secret_place(text: &str) -> Result<(String, Place), Failure> {
    let fail = |what: String| Failure::usage(format!("--secret {text:?}: {what}"));
    let (mut id, mut kind, mut source, mut env) = (None, None, None, None);
    for field in csv_fields(text).map_err(fail)? {
        let Some((key, value)) = field.split_once('=') else {
            return Err(fail(format!("{field:?} is not key=value; write id={field}")));
        };
        let value = value.to_owned();
        match key.to_lowercase().as_str() {
            "id" => id = Some(value),
            "type" if value == "file" || value == "env" => kind = Some(value),
            "type" => return Err(fail(format!("type {value:?} is neither file nor env"))),
            "src" | "source" => source = Some(value),
            "env" => env = Some(value),
            _ => return Err(fail(format!("unknown key {key:?} (known: id, type, src, env)"))),
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| fail("id is missing".to_owned()))?;
    let place = match (kind.as_deref(), source, env) {
        (_, Some(_), Some(_)) => return Err(fail("src and env are two values; give one".to_owned())),
        (Some("env"), Some(name), None) | (None | Some("env"), None, Some(name)) => Place::Variable(name),
        (Some("env"), None, None) => Place::Variable(id.clone()),
        (Some(_), None, Some(_)) => return Err(fail("a secret of type file has no env".to_owned())),
        (_, Some(path), None) => Place::File(path.into()),
        (Some(_), None, None) => Place::File(id.clone().into()),
        (None, None, None) => Place::Either(id.clone()),
    };
    Ok((id, place))
}

fn read_secret(text: &str, path: &PathBuf) -> Result<Vec<u8>, Failure> {
    let fail = |what: String| Failure::usage(format!("--secret {text:?}: {}: {what}", path.display()));
    let file = std::fs::File::open(path).map_err(|source| fail(source.to_string()))?;
    let mut value = Vec::new();
    file.take(MAX_SECRET + 1).read_to_end(&mut value).map_err(|source| fail(source.to_string()))?;
    if value.len() as u64 > MAX_SECRET {
        return Err(fail(format!("a secret has at most {} KiB", MAX_SECRET >> 10)));
    }
    Ok(value)
}

/// What `--ssh` names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ssh {
    /// The socket of an agent.
    Agent(PathBuf),
    /// Files of private keys.
    Keys(Vec<PathBuf>),
}

/// `ID[=SOCKET|KEY[,KEY…]]` of `--ssh`; without a place the socket of `$SSH_AUTH_SOCK`.
pub(crate) fn ssh(text: &str) -> Result<(String, Ssh), Failure> {
    let fail = |what: String| Failure::usage(format!("--ssh {text:?}: {what}"));
    let (id, place) = text.split_once('=').map_or((text, None), |(id, place)| (id, Some(place)));
    let id = if id.is_empty() { "default" } else { id };
    let places: Vec<PathBuf> = match place.filter(|place| !place.is_empty()) {
        Some(place) => place.split(',').map(PathBuf::from).collect(),
        None => match std::env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty()) {
            Some(socket) => vec![socket.into()],
            None => {
                return Err(fail("SSH_AUTH_SOCK is not set; start an ssh agent, or name its socket or a key".into()));
            }
        },
    };
    let mut keys = Vec::new();
    for place in &places {
        let shown = place.display();
        let meta = std::fs::metadata(place).map_err(|source| fail(format!("{shown}: {source}")))?;
        let absolute = std::path::absolute(place).map_err(|source| fail(format!("{shown}: {source}")))?;
        match meta.file_type() {
            kind if kind.is_socket() && places.len() == 1 => return Ok((id.to_owned(), Ssh::Agent(absolute))),
            kind if kind.is_socket() => {
                return Err(fail("an agent has keys of its own; name one socket, or keys".into()));
            }
            kind if kind.is_file() => keys.push(absolute),
            _ => return Err(fail(format!("{shown} is neither the socket of an ssh agent nor a private key"))),
        }
    }
    Ok((id.to_owned(), Ssh::Keys(keys)))
}

/// The keys of ssh servers that the user has vouched for: `~/.ssh/known_hosts`.
pub(crate) fn known_hosts() -> Result<String, Failure> {
    let Some(home) = std::env::var_os("HOME").filter(|home| !home.is_empty()) else { return Ok(String::new()) };
    let path = PathBuf::from(home).join(".ssh/known_hosts");
    match std::fs::read(&path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(Failure::usage(format!("{} cannot be read: {source}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_secrets() {
        let file = |path: &str| Place::File(path.into());
        let variable = |name: &str| Place::Variable(name.to_owned());
        for (text, place) in [
            ("id=a", Place::Either("a".to_owned())),
            ("id=a,src=f", file("f")),
            ("ID=a,Source=f", file("f")),
            ("id=a,env=V", variable("V")),
            ("type=env,id=a,src=V", variable("V")),
            ("type=env,id=a", variable("a")),
            ("type=file,id=a", file("a")),
            ("id=a,\"src=x,y\"", file("x,y")),
        ] {
            assert_eq!(secret_place(text).unwrap(), ("a".to_owned(), place), "{text}");
        }
        for (bad, part) in [
            ("a", "write id=a"),
            ("src=f", "id is missing"),
            ("id=", "id is missing"),
            ("id=a,type=vault", "vault"),
            ("id=a,src=f,env=V", "give one"),
            ("id=a,type=file,env=V", "no env"),
            ("id=a,mode=1", "mode"),
        ] {
            let text = format!("{:?}", secret_place(bad).unwrap_err());
            assert!(text.contains(part), "{bad}: {text}");
        }
    }

    #[test]
    fn agents_are_sockets_and_keys_are_files() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, key) = (dir.path().join("socket"), dir.path().join("id_rsa"));
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::fs::write(&key, "key").unwrap();
        let (socket, key) = (socket.display(), key.display());
        let agent = |id: &str| (id.to_owned(), Ssh::Agent(socket.to_string().into()));
        let keys = |n| ("default".to_owned(), Ssh::Keys(vec![key.to_string().into(); n]));
        assert_eq!(ssh(&format!("git={socket}")).unwrap(), agent("git"));
        assert_eq!(ssh(&format!("={socket}")).unwrap(), agent("default"));
        assert_eq!(ssh(&format!("default={key}")).unwrap(), keys(1));
        assert_eq!(ssh(&format!("default={key},{key}")).unwrap(), keys(2));
        for (bad, part) in [
            (format!("default={socket},{key}"), "one socket"),
            ("default=/no/such/socket".to_owned(), "No such file"),
            (format!("default={}", dir.path().display()), "neither"),
        ] {
            let text = format!("{:?}", ssh(&bad).unwrap_err());
            assert!(text.contains(part), "{bad}: {text}");
        }
    }
}
