//! `builder push`, `pull`, `copy`, `tag`, `ls-tags`, `login` and `logout`

use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::slice::from_ref;

use builder_core::registries::{Access, Credential, Secret};
use builder_core::{Builder, ImagePlace, PullPlatforms};

use super::print;
use crate::args::{CopyArgs, LoginArgs, LogoutArgs, LsTagsArgs, PullArgs, PushArgs, RegistryArgs, TagArgs};
use crate::failure::Failure;
use crate::options;
use crate::registries::{self, Hosts, auth_file};

/// A builder that reaches the registry of `name`, with `--creds` if they are given.
fn reaching(builder: Builder, args: &RegistryArgs, creds: Option<&str>, name: &str) -> Result<Builder, Failure> {
    let host = registries::host_of(name);
    match creds {
        Some(creds) => registries::configure_with(builder, args, host, registries::basic(creds)?),
        None => registries::configure(builder, args, &Hosts::One(host)),
    }
}

/// Pushes an image and prints its digest.
pub(crate) fn push(builder: Builder, args: &PushArgs) -> Result<(), Failure> {
    let dest = args.dest.as_deref().unwrap_or(&args.name);
    let dest = dest.strip_prefix("docker://").unwrap_or(dest);
    // Layers may still be in another registry, which has credentials of its own.
    let host = registries::host_of(dest);
    let builder = registries::configure_and(builder, &args.registry, &Hosts::One(host), |credentials| {
        let Some(creds) = &args.creds else { return Ok(()) };
        credentials.insert_explicit(host, None, registries::basic(creds)?);
        Ok(())
    })?;
    print(&builder.push(&args.name, dest)?.to_string())
}

/// Pulls an image and prints its digest.
pub(crate) fn pull(builder: Builder, args: &PullArgs) -> Result<(), Failure> {
    let name = args.name.strip_prefix("docker://").unwrap_or(&args.name);
    let builder = reaching(builder, &args.registry, args.creds.as_deref(), name)?;
    let platforms = match (args.all_platforms, args.platforms.as_slice()) {
        (true, _) => PullPlatforms::All,
        (false, []) => PullPlatforms::Host,
        (false, platforms) => PullPlatforms::These(platforms.to_vec()),
    };
    print(&builder.pull(name, &platforms)?.to_string())
}

/// Copies an image and prints its digest.
pub(crate) fn copy(builder: Builder, args: &CopyArgs) -> Result<(), Failure> {
    let (from, to) = (options::image_place(&args.from)?, options::image_place(&args.to)?);
    let creds =
        [("src-creds", &args.src_creds, &from, Access::Pull), ("dest-creds", &args.dest_creds, &to, Access::Push)];
    let builder = registries::configure_and(builder, &args.registry, &Hosts::All, |credentials| {
        for (option, given, place, access) in creds {
            let Some(text) = given else { continue };
            let ImagePlace::Registry(name) = place else {
                return Err(Failure::usage(format!("--{option}, but that is no registry")));
            };
            registries::creds::add(credentials, option, from_ref(text), Some(access), from_ref(name))?;
        }
        Ok(())
    })?;
    print(&builder.copy(&from, &to, args.platform.as_deref())?.to_string())
}

/// Names an image again.
pub(crate) fn tag(builder: &Builder, args: &TagArgs) -> Result<(), Failure> {
    args.new.iter().try_for_each(|new| print(&format!("tagged {}", builder.tag(&args.name, new)?)))
}

/// Lists the tags of a repository.
pub(crate) fn ls_tags(builder: Builder, args: &LsTagsArgs) -> Result<(), Failure> {
    let name = args.name.strip_prefix("docker://").unwrap_or(&args.name);
    let builder = reaching(builder, &args.registry, args.creds.as_deref(), name)?;
    builder.remote_tags(name)?.iter().try_for_each(|tag| print(tag))
}

/// `docker.io` for any name of Docker Hub, and hosts without scheme and path.
fn registry_name(text: Option<&str>) -> Result<String, Failure> {
    let text = text.unwrap_or("docker.io");
    let bare = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let bare = bare.trim_end_matches('/').to_ascii_lowercase();
    match bare.as_str() {
        "index.docker.io" | "index.docker.io/v1" | "registry-1.docker.io" => Ok("docker.io".to_owned()),
        name if name.is_empty() || name.contains(['/', '@', ' ']) => {
            Err(Failure::usage(format!("{text:?} is not the name of a registry: want HOST[:PORT]")))
        }
        name => Ok(name.to_owned()),
    }
}

/// Stores credentials once the registry has taken them.
pub(crate) fn login(builder: Builder, args: &LoginArgs) -> Result<(), Failure> {
    let registry = registry_name(args.name.as_deref())?;
    let username = match &args.username {
        Some(name) => name.clone(),
        None => prompt("Username: ")?,
    };
    let password = password(args)?;
    if username.is_empty() || username.contains(':') || password.is_empty() {
        return Err(Failure::usage("a login needs a user name without a colon, and a password"));
    }
    let credential = Credential::Basic { username: username.clone(), password: Secret::new(&password) };
    let checked = registries::configure_with(builder, &args.registry, &registry, credential)?;
    checked.check_login(&registry)?;
    let path = auth_file::login_file(args.registry.authfile.as_deref())?;
    auth_file::change(&path, &registry, Some((&username, &password)))?;
    print(&format!("logged in to {registry} as {username}; the credentials are in {}", path.display()))
}

fn password(args: &LoginArgs) -> Result<String, Failure> {
    if let Some(password) = &args.password {
        return Ok(password.clone());
    }
    if !args.password_stdin {
        let hint = "give the password on standard input: --password-stdin";
        return Err(Failure::usage(hint));
    }
    let mut text = String::new();
    let read = std::io::stdin().lock().read_to_string(&mut text);
    read.map_err(|source| Failure::usage(format!("read the password from standard input: {source}")))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn prompt(question: &str) -> Result<String, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("a login needs --username"));
    }
    drop(std::io::Write::write_all(&mut std::io::stderr(), question.as_bytes()));
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.map_err(|source| Failure::usage(format!("read the user name: {source}")))?;
    Ok(line.trim().to_owned())
}

/// Forgets credentials.
pub(crate) fn logout(args: &LogoutArgs) -> Result<(), Failure> {
    let registry = registry_name(args.name.as_deref())?;
    let path = auth_file::login_file(args.authfile.as_deref())?;
    match auth_file::change(&path, &registry, None)? {
        true => print(&format!("logged out of {registry}")),
        false => print(&format!("{} has no credentials for {registry}", path.display())),
    }
}
