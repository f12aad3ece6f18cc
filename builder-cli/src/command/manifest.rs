//! `builder manifest`

use builder_core::registries::Access;
use builder_core::{
    Added, Artifact, ArtifactTitles, Builder, Digest, EntryChange, IfIndexExists, ImagePlace, IndexChange,
};

use super::print;
use crate::args::{
    ArtifactArgs, EntryArgs, ManifestAdd, ManifestAnnotate, ManifestCommand, ManifestCreate, ManifestInspect,
    ManifestPush, RegistryArgs,
};
use crate::failure::Failure;
use crate::options;
use crate::registries::{self, Hosts};

/// Does one of the subcommands.
pub(crate) fn run(builder: Builder, command: &ManifestCommand) -> Result<(), Failure> {
    match command {
        ManifestCommand::Create(args) => create(builder, args),
        ManifestCommand::Add(args) => add(builder, args),
        ManifestCommand::Annotate(args) => annotate(builder, args),
        ManifestCommand::Inspect(args) => inspect(builder, args),
        ManifestCommand::Exists { name } => exists(&builder, name),
        ManifestCommand::Push(args) => push(builder, args),
        ManifestCommand::Remove { name, digests } => remove(&builder, name, digests),
        ManifestCommand::Rm { names } => rm(&builder, names),
    }
}

/// `names` are those of the images or the index that `--creds` is about.
fn reaching(
    builder: Builder,
    args: &RegistryArgs,
    creds: &[String],
    access: Access,
    names: &[String],
) -> Result<Builder, Failure> {
    registries::configure_and(builder, args, &Hosts::All, |credentials| {
        registries::creds::add(credentials, "creds", creds, Some(access), names)
    })
}

/// Those of `images` that come from registries, by name.
fn remote(builder: &Builder, images: &[String]) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for image in images {
        if let ImagePlace::Registry(name) = place(builder, image)? {
            names.push(name);
        }
    }
    Ok(names)
}

fn create(builder: Builder, args: &ManifestCreate) -> Result<(), Failure> {
    let names = remote(&builder, &args.images)?;
    let builder = reaching(builder, &args.registry, &args.creds, Access::Pull, &names)?;
    let exists = match (args.amend, args.replace) {
        (true, _) => IfIndexExists::Amend,
        (_, true) => IfIndexExists::Replace,
        _ => IfIndexExists::Refuse,
    };
    let mut changes = additions(&builder, &args.images, args.all, &EntryChange::default())?;
    let annotations = annotations("annotation", &args.annotations)?;
    if !annotations.is_empty() {
        changes.push(IndexChange::AnnotateIndex { annotations });
    }
    print(&builder.create_index(&args.name, exists, &changes)?.to_string())
}

fn add(builder: Builder, args: &ManifestAdd) -> Result<(), Failure> {
    let is_artifact = args.artifact.artifact;
    let named = if is_artifact { args.artifact.artifact_subject.as_slice() } else { &args.images };
    let names = remote(&builder, named)?;
    let builder = reaching(builder, &args.registry, &args.creds, Access::Pull, &names)?;
    let entry = entry(&args.entry)?;
    let changes = match is_artifact {
        true => vec![IndexChange::AddArtifact { artifact: artifact(&builder, &args.artifact, &args.images)?, entry }],
        false => additions(&builder, &args.images, args.all, &entry)?,
    };
    print(&builder.change_index(&args.name, &changes)?.to_string())
}

fn artifact(builder: &Builder, args: &ArtifactArgs, files: &[String]) -> Result<Artifact, Failure> {
    let titles = if args.artifact_exclude_titles { ArtifactTitles::None } else { ArtifactTitles::FileNames };
    Ok(Artifact {
        files: files.iter().map(Into::into).collect(),
        artifact_type: args.artifact_type.clone(),
        config: args.artifact_config.clone().zip(args.artifact_config_type.clone()),
        layer_type: args.artifact_layer_type.clone(),
        titles,
        subject: args.artifact_subject.as_deref().map(|text| place(builder, text)).transpose()?,
        annotations: annotations("artifact-annotation", &args.artifact_annotations)?,
    })
}

fn additions(
    builder: &Builder,
    images: &[String],
    all: bool,
    entry: &EntryChange,
) -> Result<Vec<IndexChange>, Failure> {
    let what = if all { Added::All } else { Added::One };
    let add = |text: &String| Ok(IndexChange::Add { image: place(builder, text)?, what, entry: entry.clone() });
    images.iter().map(add).collect()
}

/// A place with its kind, a digest, or a name: of the store where it has that, else of a registry.
fn place(builder: &Builder, text: &str) -> Result<ImagePlace, Failure> {
    const KINDS: [&str; 5] = ["docker://", "store:", "oci:", "oci-archive:", "docker-archive:"];
    if KINDS.iter().any(|kind| text.starts_with(kind)) {
        return options::image_place(text);
    }
    Ok(match text.parse::<Digest>().is_ok() || builder.has_image(text)? {
        true => ImagePlace::Store(text.to_owned()),
        false => ImagePlace::Registry(text.to_owned()),
    })
}

fn entry(args: &EntryArgs) -> Result<EntryChange, Failure> {
    Ok(EntryChange {
        os: args.os.clone(),
        architecture: args.arch.clone(),
        variant: args.variant.clone(),
        os_version: args.os_version.clone(),
        os_features: args.os_features.clone(),
        features: args.features.clone(),
        annotations: annotations("annotation", &args.annotations)?,
    })
}

fn annotations(option: &str, texts: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let annotation = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Failure::usage(format!("--{option} {text:?} is not KEY=VALUE"))),
    };
    texts.iter().map(annotation).collect()
}

fn annotate(builder: Builder, args: &ManifestAnnotate) -> Result<(), Failure> {
    let entry = entry(&args.entry)?;
    let says_nothing = entry == EntryChange::default();
    if says_nothing && (args.subject.is_none() || args.image.is_some()) {
        return Err(Failure::usage("there is nothing to say: --annotation, --os, --arch, --variant …".to_owned()));
    }
    if args.image.is_none()
        && entry != (EntryChange { annotations: entry.annotations.clone(), ..EntryChange::default() })
    {
        return Err(Failure::usage("an index has no platform: which of its images is it?".to_owned()));
    }
    let names = remote(&builder, args.subject.as_slice())?;
    let builder = reaching(builder, &args.registry, &args.creds, Access::Pull, &names)?;
    let mut changes = Vec::new();
    if let Some(subject) = &args.subject {
        changes.push(IndexChange::SetSubject { subject: place(&builder, subject)? });
    }
    match &args.image {
        Some(image) => changes.push(IndexChange::Annotate { digest: digest_of(&builder, image)?, entry }),
        None if says_nothing => {}
        None => changes.push(IndexChange::AnnotateIndex { annotations: entry.annotations }),
    }
    print(&builder.change_index(&args.name, &changes)?.to_string())
}

/// A digest, also behind a name and `@`, or what a name of the store stands for.
fn digest_of(builder: &Builder, text: &str) -> Result<Digest, Failure> {
    if let Ok(digest) = text.rsplit_once('@').map_or(text, |(_, digest)| digest).parse() {
        return Ok(digest);
    }
    let shown = builder.inspect(text)?;
    let digest = shown["digest"].as_str().and_then(|digest| digest.parse().ok());
    digest.ok_or_else(|| Failure::usage(format!("{text:?} has no digest")))
}

fn inspect(builder: Builder, args: &ManifestInspect) -> Result<(), Failure> {
    let name = args.name.as_str();
    let bytes = match name.strip_prefix("docker://") {
        None => builder.read_index(name)?,
        Some(remote) => {
            let name = remote.to_owned();
            let builder = reaching(builder, &args.registry, &args.creds, Access::Pull, std::slice::from_ref(&name))?;
            builder.read_remote_manifest(&name)?
        }
    };
    if args.raw {
        return std::io::Write::write_all(&mut std::io::stdout().lock(), &bytes)
            .map_err(|source| Failure::output(format!("write to standard output: {source}")));
    }
    let value: serde_json::Value = serde_json::from_slice(&bytes)
        .map_err(|error| Failure::usage(format!("the index {name:?} is not JSON: {error}")))?;
    print(&format!("{value:#}"))
}

fn exists(builder: &Builder, name: &str) -> Result<(), Failure> {
    match builder.has_image(name)? {
        true => builder.read_index(name).map(drop).map_err(Into::into),
        false => Err(Failure::absent(format!("there is no index {name:?}"))),
    }
}

fn push(builder: Builder, args: &ManifestPush) -> Result<(), Failure> {
    let dest = args.dest.as_deref().unwrap_or(&args.name);
    let place = match dest.starts_with("oci:") || dest.starts_with("oci-archive:") {
        true => options::image_place(dest)?,
        false => ImagePlace::Registry(dest.strip_prefix("docker://").unwrap_or(dest).to_owned()),
    };
    let names: Vec<String> = match &place {
        ImagePlace::Registry(name) => vec![name.clone()],
        _ => Vec::new(),
    };
    let builder = reaching(builder, &args.registry, &args.creds, Access::Push, &names)?;
    builder.read_index(&args.name)?;
    let digest = match &place {
        ImagePlace::Registry(name) => builder.push(&args.name, name)?,
        place => builder.copy(&ImagePlace::Store(args.name.clone()), place, None)?,
    };
    if let Some(path) = &args.digestfile {
        std::fs::write(path, digest.to_string())
            .map_err(|source| Failure::output(format!("write {}: {source}", path.display())))?;
    }
    if args.rm {
        builder.remove(&args.name)?;
    }
    print(&digest.to_string())
}

fn remove(builder: &Builder, name: &str, digests: &[String]) -> Result<(), Failure> {
    let change = |text: &String| Ok(IndexChange::Remove { digest: digest_of(builder, text)? });
    let changes = digests.iter().map(change).collect::<Result<Vec<_>, Failure>>()?;
    print(&builder.change_index(name, &changes)?.to_string())
}

fn rm(builder: &Builder, names: &[String]) -> Result<(), Failure> {
    // All are looked at before any goes.
    names.iter().try_for_each(|name| builder.read_index(name).map(drop))?;
    names.iter().try_for_each(|name| print(&format!("untagged {}", builder.remove(name)?)))
}
