//! `builder import`

use builder_core::Builder;

use super::print;
use crate::args::ImportArgs;
use crate::failure::Failure;

/// Makes an image of a root filesystem tar and prints its digest.
pub(crate) fn run(builder: &Builder, args: &ImportArgs) -> Result<(), Failure> {
    let platform = args.platform.as_deref();
    let image = if args.file.as_os_str() == "-" {
        builder.import(&mut std::io::stdin(), &args.name, platform)?
    } else {
        let mut file = std::fs::File::open(&args.file)
            .map_err(|source| Failure::usage(format!("open {}: {source}", args.file.display())))?;
        builder.import(&mut file, &args.name, platform)?
    };
    print(&image.digest.to_string())
}
