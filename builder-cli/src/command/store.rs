//! `builder images`, `inspect`, `rmi`, `prune` and `du`

use std::io::Write as _;

use builder_core::{Builder, ImagePart, PruneExtent};
use serde_json::json;

use super::{bytes, print};
use crate::args::{DuArgs, ImagesArgs, InspectArgs, PruneArgs, RmiArgs};
use crate::failure::Failure;

/// Lists the images of the store.
pub(crate) fn images(builder: &Builder, args: &ImagesArgs) -> Result<(), Failure> {
    let images = builder.images()?;
    if args.quiet {
        return images.iter().try_for_each(|image| print(&image.digest.to_string()));
    }
    if args.json {
        return images.iter().try_for_each(|image| print(&json!(image).to_string()));
    }
    let width = images.iter().map(|image| image.name.chars().count()).max().unwrap_or(0).max(4);
    let platforms = images.iter().map(|image| image.platform.len()).max().unwrap_or(0).max(8);
    print(&format!("{:width$}  {:19}  {:platforms$}  {:>10}", "NAME", "DIGEST", "PLATFORM", "SIZE"))?;
    images.iter().try_for_each(|image| {
        let digest = image.digest.to_string();
        let size = bytes(image.size_bytes);
        print(&format!("{:width$}  {:19}  {:platforms$}  {size:>10}", image.name, &digest[..19], image.platform))
    })
}

/// Shows one image.
pub(crate) fn inspect(builder: &Builder, args: &InspectArgs) -> Result<(), Failure> {
    let part = match (args.raw, args.config, args.layers) {
        (true, ..) => ImagePart::Raw,
        (_, true, _) => ImagePart::Config,
        (_, _, true) => ImagePart::Layers,
        _ => return print(&format!("{:#}", builder.inspect(&args.name)?)),
    };
    let bytes = builder.inspect_part(&args.name, part, args.platform.as_deref())?;
    match std::io::stdout().lock().write_all(&bytes) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|source| Failure::output(format!("write to standard output: {source}"))),
    }
}

/// Removes names.
pub(crate) fn rmi(builder: &Builder, args: &RmiArgs) -> Result<(), Failure> {
    args.names.iter().try_for_each(|name| print(&format!("untagged {}", builder.remove(name)?)))
}

/// Frees what is not needed.
pub(crate) fn prune(builder: &Builder, args: &PruneArgs) -> Result<(), Failure> {
    let extent = match (args.all, args.mounts) {
        (_, true) => PruneExtent::CacheAndMounts,
        (true, false) => PruneExtent::Cache,
        (false, false) => PruneExtent::Unreachable,
    };
    let freed = builder.prune(extent)?;
    print(&format!("freed {}", bytes(freed)))
}

/// Shows what the state directory takes.
pub(crate) fn du(builder: &Builder, args: &DuArgs) -> Result<(), Failure> {
    let usage = builder.disk_usage()?;
    if args.json {
        return print(&json!({"categories": usage.categories, "total_bytes": usage.total_bytes}).to_string());
    }
    for (name, size) in &usage.categories {
        print(&format!("{name:12} {:>10}", bytes(*size)))?;
    }
    print(&format!("{:12} {:>10}", "total", bytes(usage.total_bytes)))
}
