//! `builder manifest`

use builder_core::registries::Access;
use builder_core::{Added, Builder, Digest, EntryChange, IfIndexExists, ImagePlace, IndexChange};

use super::print;
use crate::args::{
    EntryArgs, ManifestAdd, ManifestAnnotate, ManifestCommand, ManifestCreate, ManifestPush, RegistryArgs,
};
use crate::failure::Failure;
use crate::options;
use crate::registries::{self, Hosts};

/// Does one of the subcommands.
pub(crate) fn run(builder: Builder, command: &ManifestCommand) -> Result<(), Failure> {
    match command {
        ManifestCommand::Create(args) => create(builder, args),
        ManifestCommand::Add(args) => add(builder, args),
        ManifestCommand::Annotate(args) => annotate(&builder, args),
        ManifestCommand::Inspect { name, raw } => inspect(&builder, name, *raw),
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
    let annotations = annotations(&args.annotations)?;
    if !annotations.is_empty() {
        changes.push(IndexChange::AnnotateIndex { annotations });
    }
    print(&builder.create_index(&args.name, exists, &changes)?.to_string())
}

fn add(builder: Builder, args: &ManifestAdd) -> Result<(), Failure> {
    let names = remote(&builder, &args.images)?;
    let builder = reaching(builder, &args.registry, &args.creds, Access::Pull, &names)?;
    let changes = additions(&builder, &args.images, args.all, &entry(&args.entry)?)?;
    print(&builder.change_index(&args.name, &changes)?.to_string())
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

/// A place with its kind, or a name: of the store where it has that, else of a registry.
fn place(builder: &Builder, text: &str) -> Result<ImagePlace, Failure> {
    const KINDS: [&str; 5] = ["docker://", "store:", "oci:", "oci-archive:", "docker-archive:"];
    if KINDS.iter().any(|kind| text.starts_with(kind)) {
        return options::image_place(text);
    }
    Ok(match builder.has_image(text)? {
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
        annotations: annotations(&args.annotations)?,
    })
}

fn annotations(texts: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let annotation = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Failure::usage(format!("--annotation {text:?} is not KEY=VALUE"))),
    };
    texts.iter().map(annotation).collect()
}

fn annotate(builder: &Builder, args: &ManifestAnnotate) -> Result<(), Failure> {
    let entry = entry(&args.entry)?;
    if entry == EntryChange::default() {
        return Err(Failure::usage("there is nothing to say: --annotation, --os, --arch, --variant …".to_owned()));
    }
    let change = match &args.image {
        Some(image) => IndexChange::Annotate { digest: digest_of(builder, image)?, entry },
        None => IndexChange::AnnotateIndex { annotations: entry.annotations },
    };
    print(&builder.change_index(&args.name, &[change])?.to_string())
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

fn inspect(builder: &Builder, name: &str, raw: bool) -> Result<(), Failure> {
    let bytes = builder.read_index(name)?;
    if raw {
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
