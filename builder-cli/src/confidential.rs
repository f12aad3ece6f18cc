//! What a build may use and must not keep: `--secret` and `--ssh`.

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

/// `ID[=SOCKET]` of `--ssh`; without a socket that of `$SSH_AUTH_SOCK`.
pub(crate) fn ssh(text: &str) -> Result<(String, PathBuf), Failure> {
    let fail = |what: String| Failure::usage(format!("--ssh {text:?}: {what}"));
    let (id, place) = text.split_once('=').map_or((text, None), |(id, place)| (id, Some(place)));
    let id = if id.is_empty() { "default" } else { id };
    let socket = match place.filter(|place| !place.is_empty()) {
        Some(place) => PathBuf::from(place),
        None => match std::env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty()) {
            Some(socket) => socket.into(),
            None => return Err(fail("SSH_AUTH_SOCK is not set; start an ssh agent or name its socket".to_owned())),
        },
    };
    let shown = socket.display();
    let meta = std::fs::metadata(&socket).map_err(|source| fail(format!("{shown}: {source}")))?;
    if !meta.file_type().is_socket() {
        let add = "key files are not supported; add the key to an agent with ssh-add";
        return Err(fail(format!("{shown} is not the socket of an ssh agent; {add}")));
    }
    let socket = std::path::absolute(&socket).map_err(|source| fail(format!("{shown}: {source}")))?;
    Ok((id.to_owned(), socket))
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
    fn agents_are_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, key) = (dir.path().join("socket"), dir.path().join("id_rsa"));
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::fs::write(&key, "key").unwrap();
        assert_eq!(ssh(&format!("git={}", socket.display())).unwrap(), ("git".to_owned(), socket));
        let text = format!("{:?}", ssh(&format!("default={}", key.display())).unwrap_err());
        assert!(text.contains("ssh-add"), "{text}");
        ssh("default=/no/such/socket").unwrap_err();
    }
}
