//! The platforms of a build: which are asked for, their plans as one graph, and what is put over their images.

use super::assemble::Shape;
use crate::error::{Error, ErrorKind};
use crate::image::Platform;
use crate::plan::{self, BuildGraph};
use crate::request::{BuildRequest, Output, PlatformSplit};

/// Build arg that puts an index over a single image, too.
const MULTI_PLATFORM: &str = "BUILDKIT_MULTI_PLATFORM";

/// The platforms of a request.
#[derive(Debug)]
pub(super) struct Platforms {
    /// Each once; none when this machine's will do.
    pub(super) asked: Vec<Platform>,
    /// What their images become.
    pub(super) shape: Shape,
}

impl Platforms {
    /// Reads what `request` asks for, and refuses outputs that cannot hold it.
    pub(super) fn of(request: &BuildRequest) -> Result<Self, Error> {
        let mut asked: Vec<Platform> = Vec::new();
        for text in &request.platforms {
            let platform = match text.as_str() {
                "local" => Platform::host(),
                text => text.parse().map_err(|error| Error::from_source(ErrorKind::Request, &error))?,
            };
            if !asked.contains(&platform) {
                asked.push(platform);
            }
        }
        let wanted = request.build_args.iter().rfind(|(name, _)| name == MULTI_PLATFORM);
        let wanted = wanted.is_some_and(|(_, value)| plan::parse_bool(value) == Some(true));
        let shape = if asked.len() > 1 || wanted { Shape::Index } else { Shape::Manifest };
        let platforms = Self { asked, shape };
        request.outputs.iter().try_for_each(|output| platforms.check(output))?;
        Ok(platforms)
    }

    fn check(&self, output: &Output) -> Result<(), Error> {
        match (output, self.shape) {
            (Output::DockerArchive { .. }, Shape::Index) => {
                let error = Error::new(ErrorKind::Request, "an archive for Docker holds an image of one platform");
                Err(error.hint("write type=oci, which holds an index, or build for one platform"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the files of each platform get a directory of their own.
    pub(super) fn splits(&self, split: PlatformSplit) -> bool {
        match split {
            PlatformSplit::Auto => self.asked.len() > 1,
            PlatformSplit::Always => true,
            PlatformSplit::Never => false,
        }
    }

    /// Plans for each platform, and makes one graph of the plans.
    pub(super) fn plan(
        &self,
        plan: impl Fn(Option<&Platform>) -> Result<BuildGraph, Error>,
    ) -> Result<BuildGraph, Error> {
        if self.asked.len() < 2 {
            return plan(self.asked.first());
        }
        let one = |platform: &Platform| {
            let graph = plan(Some(platform)).map_err(|error| error.note(format!("while planning for {platform}")))?;
            Ok((platform.clone(), graph))
        };
        let plans = self.asked.iter().map(one).collect::<Result<Vec<_>, Error>>()?;
        let graph = plan::merge(plans).ok_or_else(|| Error::new(ErrorKind::Internal, "no platform was planned for"))?;
        let epoch = graph.target.source_date_epoch;
        if graph.targets().any(|target| target.source_date_epoch != epoch) {
            let text = "SOURCE_DATE_EPOCH is not the same for all platforms";
            return Err(Error::new(ErrorKind::Dockerfile, text).hint("build for one platform at a time"));
        }
        Ok(graph)
    }
}

/// Name of the directory with the files of a platform: `linux_arm_v7`.
pub(super) fn directory_name(platform: &Platform) -> String {
    platform.to_string().replace('/', "_")
}
