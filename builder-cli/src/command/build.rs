//! `builder build`

use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use builder_core::host::Rest;
use builder_core::{
    BuildOutcome, BuildRequest, Builder, CompressionKind, ContextSource, DockerfileInContext, DockerfileSource, Event,
    ImageForm, Output, PullPolicy, RunSettings, SpooledContext,
};
use serde_json::json;

use super::{check, print};
use crate::args::{Allowed, BuildArgs, Call, Method, ProgressMode};
use crate::confidential::Ssh;
use crate::failure::Failure;
use crate::{annotation, confidential, options, output, progress, shared_cache, terminate};

/// Builds, and tells what came out.
pub(crate) fn run(builder: &Builder, args: &BuildArgs) -> Result<(), Failure> {
    let spooled = spool(builder, args)?;
    let request = request(args, spooled.as_ref())?;
    let call = Call { method: if args.check { Method::Check } else { args.call.method }, ..args.call };
    if call.method != Method::Build {
        warn_of_what_is_not_written(args);
        return check::call(builder, &request, call);
    }
    terminate::cancel_on_signal(builder.canceller())?;
    let mut progress = progress::new(args.progress, args.quiet);
    let rest = Rest::start();
    let result = builder.build(&request, &mut |event| {
        progress.event(event);
        rest.soon();
    });
    progress.finish();
    let outcome = result?;
    write_files(args, &outcome)?;
    if args.progress == ProgressMode::Json || request.outputs.iter().any(Output::is_stdout) {
        return Ok(());
    }
    print(&outcome.digest.to_string())
}

/// People add `--check` to the command line that they build with, as with buildx, so what it says about results is no mistake;
/// but nobody shall wait for them.
fn warn_of_what_is_not_written(args: &BuildArgs) {
    let given = [
        ("--push", args.push),
        ("--output", !args.outputs.is_empty()),
        ("--iidfile", args.iidfile.is_some()),
        ("--metadata-file", args.metadata_file.is_some()),
        ("--cache-to", !args.cache_to.is_empty()),
        ("--cache-mount-to", !args.cache_mount_to.is_empty()),
    ];
    let given: Vec<&str> = given.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name).collect();
    if !given.is_empty() && !args.quiet {
        let message = format!("nothing is built, so nothing is written or pushed: {} without effect", given.join(", "));
        let mut progress = progress::new(ProgressMode::Plain, false);
        progress.event(Event::Warning { code: "no-build".to_owned(), message });
        progress.finish();
    }
}

/// The names that the image is pushed to.
pub(crate) fn pushed_names(args: &BuildArgs) -> Result<Vec<String>, Failure> {
    let mut names = if args.push { args.tags.clone() } else { Vec::new() };
    for text in &args.outputs {
        for output in output::parse(text)? {
            match output {
                Output::Registry { names: own, .. } if own.is_empty() => names.extend_from_slice(&args.tags),
                Output::Registry { names: own, .. } => names.extend(own),
                Output::Store { names: own, .. } if args.push => names.extend(own),
                _ => {}
            }
        }
    }
    Ok(names)
}

/// Standard input, where the context is that.
pub(super) fn spool(builder: &Builder, args: &BuildArgs) -> Result<Option<SpooledContext>, Failure> {
    if args.context != "-" {
        return Ok(None);
    }
    if args.file.as_ref().is_some_and(|file| file.as_os_str() == "-") {
        return Err(Failure::usage("the context and the Dockerfile cannot both be standard input".to_owned()));
    }
    Ok(Some(builder.spool(&mut std::io::stdin().lock())?))
}

/// What is asked for, but for the options.
fn source(args: &BuildArgs, spooled: Option<&SpooledContext>) -> Result<BuildRequest, Failure> {
    let context = match spooled {
        Some(spooled) if spooled.is_archive() => ContextSource::Archive(spooled.path().to_owned()),
        Some(spooled) => return dockerfile_alone(args, spooled),
        None => context(&args.context)?,
    };
    let is_directory = matches!(context, ContextSource::Directory(_));
    Ok(match &args.file {
        None if !is_directory => BuildRequest::from_context(DockerfileInContext::Default, context),
        Some(path) if !is_directory && path.as_os_str() != "-" => {
            let path =
                path.to_str().ok_or_else(|| Failure::usage("the name of the Dockerfile is not UTF-8".to_owned()))?;
            BuildRequest::from_context(DockerfileInContext::Path(path.to_owned()), context)
        }
        _ => BuildRequest::new(dockerfile(&args.context, args.file.as_ref())?, context),
    })
}

/// `builder build - < Dockerfile`: no files.
fn dockerfile_alone(args: &BuildArgs, spooled: &SpooledContext) -> Result<BuildRequest, Failure> {
    if let Some(path) = &args.file {
        let text = format!("standard input is no tar archive, so there is no {} in it", path.display());
        return Err(Failure::usage(text));
    }
    let bytes = std::fs::read(spooled.path()).map_err(|source| unreadable(spooled.path(), &source))?;
    let dockerfile = DockerfileSource { name: "Dockerfile".to_owned(), text: text(&bytes, "-")?, ignore: None };
    Ok(BuildRequest::new(dockerfile, ContextSource::Empty))
}

pub(super) fn request(args: &BuildArgs, spooled: Option<&SpooledContext>) -> Result<BuildRequest, Failure> {
    let mut request = source(args, spooled)?;
    for file in &args.build_arg_files {
        request.build_args.extend(options::build_arg_file(file)?);
    }
    for text in &args.build_args {
        request.build_args.extend(options::build_arg(text)?);
    }
    source_date_epoch(&mut request)?;
    for text in &args.build_contexts {
        request.build_contexts.push(options::build_context(text)?);
    }
    for text in &args.labels {
        request.labels.push(options::label(text)?);
    }
    for text in &args.annotations {
        request.annotations.extend(annotation::option(text)?);
    }
    request.squash = args.squash;
    for text in &args.outputs {
        request.outputs.extend(output::parse(text)?);
    }
    if args.push {
        push_names(&mut request);
    }
    request.compression = match (args.compression, args.compression_level) {
        (None, None) => None,
        (kind, level) => {
            let kind = kind.map_or(CompressionKind::Gzip, Into::into);
            Some(options::compression(kind, level).map_err(Failure::usage)?)
        }
    };
    for text in &args.secrets {
        request.secrets.extend(confidential::secret(text)?);
    }
    add_ssh(&mut request, &args.ssh)?;
    for allowed in &args.allow {
        match allowed {
            Allowed::Entitlement(entitlement) => request.allow.push(*entitlement),
            Allowed::Device(name) => request.allow_devices.push(name.clone()),
        }
    }
    if !args.cdi_spec_dirs.is_empty() {
        request.cdi_spec_dirs = args.cdi_spec_dirs.iter().cloned().map(options::absolute).collect::<Result<_, _>>()?;
    }
    request.network = args.network.into();
    let (extra_hosts, ulimits) = (args.add_hosts.clone(), args.ulimits.clone());
    request.run = RunSettings { extra_hosts, shm_bytes: args.shm_size, ulimits };
    request.target.clone_from(&args.target);
    request.tags.clone_from(&args.tags);
    request.pull = args.pull.map_or(PullPolicy::Missing, Into::into);
    request.platforms.clone_from(&args.platforms);
    request.no_cache = args.no_cache;
    request.cache_max = args.cache_max;
    add_caches(&mut request, args)?;
    request.cache_ttl = args.cache_ttl;
    request.cache_strict = args.cache_strict;
    request.jobs = args.jobs.map(usize::from);
    Ok(request)
}

/// Caches of steps and of cache mounts that other machines share.
fn add_caches(request: &mut BuildRequest, args: &BuildArgs) -> Result<(), Failure> {
    for text in &args.cache_from {
        request.cache_from.push(shared_cache::source_of("--cache-from", text)?);
    }
    for text in &args.cache_to {
        request.cache_to.push(shared_cache::target(text)?);
    }
    for text in &args.cache_mount_from {
        request.cache_mount_from.push(shared_cache::source_of("--cache-mount-from", text)?);
    }
    for text in &args.cache_mount_to {
        request.cache_mount_to.push(shared_cache::mount_target(text)?);
    }
    Ok(())
}

/// `--ssh`; whom ssh believes matters only with it.
fn add_ssh(request: &mut BuildRequest, options: &[String]) -> Result<(), Failure> {
    for text in options {
        let (id, ssh) = confidential::ssh(text)?;
        // The last of an id counts.
        request.ssh_keys.retain(|(earlier, _)| *earlier != id);
        match ssh {
            Ssh::Agent(socket) => request.ssh_agents.push((id, socket)),
            Ssh::Keys(keys) => request.ssh_keys.push((id, keys)),
        }
    }
    if !options.is_empty() {
        request.ssh_known_hosts = confidential::known_hosts()?;
    }
    Ok(())
}

/// `--push`: what goes out as an image is pushed, and if nothing does, the image under its names.
fn push_names(request: &mut BuildRequest) {
    if request.outputs.iter().any(|output| matches!(output, Output::Registry { .. })) {
        return;
    }
    let named: Vec<Output> = request
        .outputs
        .iter()
        .filter_map(|output| match output {
            Output::Store { names, form } => {
                Some(Output::Registry { names: names.clone(), form: form.clone(), by_digest: false })
            }
            _ => None,
        })
        .collect();
    if named.is_empty() {
        let form = ImageForm::default();
        request.outputs.push(Output::Registry { names: Vec::new(), form, by_digest: false });
    }
    request.outputs.extend(named);
}

/// `SOURCE_DATE_EPOCH` of the environment counts unless a build arg says otherwise; empty is as if not set.
pub(super) fn source_date_epoch(request: &mut BuildRequest) -> Result<(), Failure> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    if !request.build_args.iter().any(|(name, _)| name == NAME) {
        request.build_args.extend(std::env::var(NAME).ok().map(|value| (NAME.to_owned(), value)));
    }
    let value = request.build_args.iter().rfind(|(name, _)| name == NAME).map(|(_, value)| value.as_str());
    request.source_date_epoch = match value {
        None | Some("") => None,
        Some(text) => Some(text.parse().map_err(|_| Failure::usage(format!("{NAME}={text:?} is not a number")))?),
    };
    Ok(())
}

/// What a local directory is not may be elsewhere.
fn context(text: &str) -> Result<ContextSource, Failure> {
    let path = PathBuf::from(text);
    match std::fs::metadata(&path) {
        Ok(meta) if meta.is_dir() => Ok(ContextSource::Directory(path)),
        Ok(_) => Ok(ContextSource::Archive(options::absolute(path)?)),
        Err(source) => options::remote_context(text)
            .ok_or_else(|| Failure::usage(format!("the context {text:?} cannot be read: {source}"))),
    }
}

/// The Dockerfile of a context that is a directory.
pub(super) fn dockerfile(context: &str, file: Option<&PathBuf>) -> Result<DockerfileSource, Failure> {
    let path = match file {
        Some(path) if path.as_os_str() == "-" => {
            let mut bytes = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut bytes);
            read.map_err(|source| Failure::usage(format!("read the Dockerfile from standard input: {source}")))?;
            return Ok(DockerfileSource { name: "Dockerfile".to_owned(), text: text(&bytes, "-")?, ignore: None });
        }
        Some(path) => path.clone(),
        None => default_dockerfile(Path::new(context))
            .ok_or_else(|| Failure::usage(format!("there is no Dockerfile in {context}; name one with -f FILE")))?,
    };
    let shown = path.display().to_string();
    let bytes = std::fs::read(&path).map_err(|source| unreadable(&path, &source))?;
    let ignore = ignore_file_of(&path)?;
    Ok(DockerfileSource { text: text(&bytes, &shown)?, name: shown, ignore })
}

/// Name and text of the Dockerfile's own ignore file, if it has one.
pub(super) fn ignore_file_of(dockerfile: &Path) -> Result<Option<(String, String)>, Failure> {
    let mut name = dockerfile.to_owned().into_os_string();
    name.push(".dockerignore");
    match std::fs::read(&name) {
        Ok(bytes) => Ok(Some((Path::new(&name).display().to_string(), String::from_utf8_lossy(&bytes).into_owned()))),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Failure::usage(format!("read {}: {source}", Path::new(&name).display()))),
    }
}

fn unreadable(path: &Path, source: &std::io::Error) -> Failure {
    Failure::usage(format!("the Dockerfile {} cannot be read: {source}", path.display()))
}

/// The Dockerfile of a directory, if it has one.
pub(super) fn default_dockerfile(context: &Path) -> Option<PathBuf> {
    const NAMES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];
    NAMES.iter().map(|name| context.join(name)).find(|path| path.exists())
}

fn text(bytes: &[u8], name: &str) -> Result<String, Failure> {
    String::from_utf8(bytes.to_vec()).map_err(|error| {
        let line = bytes[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        Failure::usage(format!("{name}:{line}: the Dockerfile is not UTF-8 text"))
    })
}

/// `--iidfile` and `--metadata-file`, with the keys of `docker buildx build`.
fn write_files(args: &BuildArgs, outcome: &BuildOutcome) -> Result<(), Failure> {
    if let Some(path) = &args.iidfile {
        write(path, &outcome.image_id().to_string())?;
    }
    if let Some(path) = &args.metadata_file {
        let mut value = json!({
            "containerimage.descriptor":
                {"mediaType": outcome.media_type, "digest": outcome.digest, "size": outcome.size},
            "containerimage.digest": outcome.digest,
        });
        if !outcome.annotations.is_empty() {
            value["containerimage.descriptor"]["annotations"] = json!(outcome.annotations);
        }
        if let Some(config) = &outcome.config_digest {
            value["containerimage.config.digest"] = json!(config);
        }
        if !outcome.image_names.is_empty() {
            value["image.name"] = outcome.image_names.join(",").into();
        }
        write(path, &format!("{value:#}\n"))?;
    }
    Ok(())
}

/// Replaces the file, or where a link leads; a pipe or device is written to. Whoever reads it meanwhile sees one or the
/// other, and nobody but its owner may change it.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |source: std::io::Error| Failure::output(format!("write {}: {source}", path.display()));
    let path = match std::fs::metadata(path) {
        Ok(meta) if !meta.is_file() && !meta.is_dir() => return std::fs::write(path, text).map_err(failed),
        Ok(_) => path.canonicalize().map_err(failed)?,
        Err(_) => path.to_owned(),
    };
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.tmp", std::process::id()));
    let temp = path.with_file_name(name);
    let written = std::fs::File::options().write(true).create_new(true).mode(0o644).open(&temp).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        std::fs::rename(&temp, &path)
    });
    // What is left of a failed attempt is of no use; the error that counts is the first.
    written.inspect_err(|_| drop(std::fs::remove_file(&temp))).map_err(failed)
}
