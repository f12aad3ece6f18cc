//! The outputs of a build: which image goes where.

use std::path::Path;

use super::assemble::{Assembled, Product, Solved};
use super::platforms::{Platforms, directory_name};
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::export::{self, Push, Rootfs, Sender};
use crate::layer::LayerOptions;
use crate::registry::Reference;
use crate::request::{BuildRequest, CachePlace, Compression, ImageForm, Output, PlatformSplit};
use crate::store::Store;
use crate::worker::WorkerOptions;

/// What all outputs of a build share.
pub(super) struct Outputs<'a> {
    pub(super) store: &'a Store,
    /// Full names of the request.
    pub(super) names: &'a [String],
    pub(super) product: &'a Product<'a>,
    pub(super) platforms: &'a Platforms,
    /// The image in the store.
    pub(super) main: &'a Assembled,
    pub(super) options: &'a WorkerOptions,
    /// That of the request.
    pub(super) compression: Option<Compression>,
    /// Knows what is at registries already.
    pub(super) sender: &'a Sender<'a>,
    pub(super) events: &'a (dyn Fn(Event) + Sync),
}

fn failed(error: export::Error) -> Error {
    match &error {
        export::Error::Registry { source, .. } => {
            let hint = source.hint();
            let this = Error::from_source(ErrorKind::Registry, &error);
            hint.into_iter().fold(this, Error::hint)
        }
        export::Error::WorkDir { .. } | export::Error::Layer { .. } => Error::from_source(ErrorKind::Store, &error),
        _ => Error::from_source(ErrorKind::Output, &error),
    }
}

/// Full names of tags; a digest in one is an error.
pub(super) fn full_names(tags: &[String]) -> Result<Vec<String>, Error> {
    let full = |tag: &String| {
        let reference: Reference = tag.parse().map_err(|error: crate::registry::ReferenceError| {
            Error::from_source(ErrorKind::Request, &error).context(format!("the tag {tag:?}"))
        })?;
        match reference.digest() {
            Some(_) => Err(Error::new(ErrorKind::Request, format!("the tag {tag:?} has a digest"))),
            None => Ok(reference.to_string()),
        }
    };
    tags.iter().map(full).collect()
}

/// Checks what all outputs ask for, before anything is done. Returns the names to push to.
pub(super) fn check(request: &BuildRequest) -> Result<Vec<Reference>, Error> {
    let mut targets = Vec::new();
    for output in &request.outputs {
        match output {
            Output::Registry { names, .. } => {
                let names = if names.is_empty() { &request.tags } else { names };
                if names.is_empty() {
                    let error = Error::new(ErrorKind::Request, "an image without a name cannot be pushed");
                    return Err(error.hint("name it with -t NAME, or in the output: type=registry,name=NAME"));
                }
                let parsed = full_names(names)?.into_iter().map(|name| name.parse::<Reference>());
                let parsed: Result<Vec<_>, _> = parsed.collect();
                targets.extend(parsed.map_err(|error| Error::from_source(ErrorKind::Request, &error))?);
            }
            _ => drop(full_names(output.names().unwrap_or_default())?),
        }
        check_times(request, output)?;
    }
    if request.squash && request.cache_to.iter().any(|target| target.place == CachePlace::Inline) {
        let error = Error::new(ErrorKind::Request, "an image whose layers are squashed holds no results of steps");
        return Err(error.hint("leave out --squash, or share the cache in a registry or a directory"));
    }
    if request.outputs.iter().filter(|output| output.is_stdout()).count() > 1 {
        return Err(Error::new(ErrorKind::Request, "only one output can go to standard output"));
    }
    Ok(targets)
}

/// Times of files are bounded if and only if there is a bound.
fn check_times(request: &BuildRequest, output: &Output) -> Result<(), Error> {
    let refuse = |message: &str, hint: &str| Err(Error::new(ErrorKind::Request, message).hint(hint));
    match (output.form().and_then(|form| form.rewrite_timestamp), request.source_date_epoch) {
        (Some(true), None) => refuse(
            "rewrite-timestamp=true without SOURCE_DATE_EPOCH: there is no time to write",
            "set SOURCE_DATE_EPOCH in the environment or as a build arg",
        ),
        (Some(false), Some(_)) => refuse(
            "rewrite-timestamp=false with SOURCE_DATE_EPOCH: it bounds the times of files, too",
            "leave out one of them",
        ),
        _ => Ok(()),
    }
}

/// Every name that a build gives to its image: in the store, at registries, in archives.
pub(super) fn all_names(request: &BuildRequest, names: &[String]) -> Result<Vec<String>, Error> {
    let mut all = names.to_vec();
    for output in &request.outputs {
        for name in full_names(output.names().unwrap_or_default())? {
            if !all.contains(&name) {
                all.push(name);
            }
        }
    }
    Ok(all)
}

impl Outputs<'_> {
    /// Writes all outputs in their order. Returns the images of those that have one.
    pub(super) fn write_all(&self, outputs: &[Output]) -> Result<Vec<Assembled>, Error> {
        let mut written = Vec::new();
        for output in outputs {
            written.extend(self.write(output)?);
        }
        Ok(written)
    }

    /// Writes one output. Returns the image of the outputs that have one.
    fn write(&self, output: &Output) -> Result<Option<Assembled>, Error> {
        let assembled = match output.form() {
            Some(form) => Some(self.assembled(form)?),
            None => None,
        };
        let shown = match (output, &assembled) {
            (Output::OciArchive { dest, names, .. }, Some(image)) => {
                let names = self.names_or(names)?;
                export::export_archive(self.store, self.image(image, &names), dest).map_err(failed)?;
                format!("type=oci,dest={dest}")
            }
            (Output::OciLayout { dest, names, .. }, Some(image)) => {
                let names = self.names_or(names)?;
                export::export_layout(self.store, self.image(image, &names), dest).map_err(failed)?;
                format!("type=oci,tar=false,dest={}", dest.display())
            }
            (Output::DockerArchive { dest, names, .. }, Some(image)) => {
                let names = self.names_or(names)?;
                export::export_docker_archive(self.store, self.image(image, &names), dest).map_err(failed)?;
                format!("type=docker,dest={dest}")
            }
            (Output::Store { names, .. }, Some(image)) => {
                let names = self.names_or(names)?;
                for name in &names {
                    let tagged = self.store.tag_image(name, &image.descriptor);
                    tagged.map_err(|error| Error::from_source(ErrorKind::Store, &error))?;
                }
                format!("type=image,name={}", names.join(","))
            }
            (Output::Registry { names, by_digest, .. }, Some(image)) => {
                let names = self.names_or(names)?;
                self.push(&names, *by_digest, image)?;
                format!("type=registry,name={}", names.join(","))
            }
            (Output::RootfsTar { dest, split }, _) => {
                export::write_tar(self.store, &self.rootfs(*split)?, dest).map_err(failed)?;
                format!("type=tar,dest={dest}")
            }
            (Output::RootfsDirectory { dest, split }, _) => {
                self.write_directory(dest, *split)?;
                format!("type=local,dest={}", dest.display())
            }
            _ => return Ok(None),
        };
        let digest = assembled.as_ref().map_or(self.main.descriptor.digest, |image| image.descriptor.digest);
        (self.events)(Event::Exported { output: shown, digest });
        Ok(assembled)
    }

    fn names_or(&self, names: &[String]) -> Result<Vec<String>, Error> {
        if names.is_empty() { Ok(self.names.to_vec()) } else { full_names(names) }
    }

    fn image<'i>(&self, image: &'i Assembled, names: &'i [String]) -> export::Image<'i> {
        export::Image { descriptor: &image.descriptor, names }
    }

    fn assembled(&self, form: &ImageForm) -> Result<Assembled, Error> {
        let layers = LayerOptions {
            compression: form.compression.or(self.compression).unwrap_or_default(),
            threads: self.options.threads,
            clamp_mtime: self.options.clamp,
        };
        self.product.in_form(self.store, form, &layers)
    }

    fn push(&self, names: &[String], by_digest: bool, image: &Assembled) -> Result<(), Error> {
        let target = |name: &String| {
            let reference = name.parse::<Reference>();
            let reference = reference.map_err(|error| Error::from_source(ErrorKind::Request, &error))?;
            Ok(if by_digest { reference.with_digest(image.descriptor.digest) } else { reference })
        };
        let targets: Vec<Reference> = names.iter().map(target).collect::<Result<_, Error>>()?;
        let push = Push { sender: self.sender, image: &image.descriptor };
        push.run(&targets).map_err(failed)
    }

    /// The file systems, each with the directory that it goes into.
    fn rootfs(&self, split: PlatformSplit) -> Result<Vec<(String, Rootfs<'_>)>, Error> {
        let splits = self.platforms.splits(split);
        let open = |image: &'_ Solved<'_>| {
            let rootfs = Rootfs::open(self.store, image.layers.clone()).map_err(failed)?;
            let platform = image.target.config.platform();
            Ok((if splits { directory_name(&platform) } else { String::new() }, rootfs))
        };
        let all = self.product.images.iter().map(open).collect::<Result<Vec<_>, Error>>()?;
        let clash = |(number, (_, rootfs)): (usize, &(String, Rootfs<'_>))| {
            all[..number].iter().find_map(|(_, earlier)| rootfs.clash(earlier))
        };
        match (splits, all.iter().enumerate().find_map(clash)) {
            (false, Some(path)) => {
                let path = String::from_utf8_lossy(&path).into_owned();
                let error =
                    Error::new(ErrorKind::Output, format!("the images of several platforms have a file /{path}"));
                Err(error.hint("leave out platform-split=false: each platform then gets a directory of its own"))
            }
            _ => Ok(all),
        }
    }

    fn write_directory(&self, dest: &Path, split: PlatformSplit) -> Result<(), Error> {
        for (name, rootfs) in self.rootfs(split)? {
            // Joined with an empty name, a path would end in a slash.
            let dest = if name.is_empty() { dest.to_owned() } else { dest.join(name) };
            let left_out = rootfs.write_directory(&dest).map_err(failed)?;
            if let Some(first) = left_out.first() {
                let first = String::from_utf8_lossy(first);
                let message = format!("{} devices such as /{first} are not in {}", left_out.len(), dest.display());
                (self.events)(Event::Warning { code: "device-left-out".to_owned(), message });
            }
        }
        Ok(())
    }
}
