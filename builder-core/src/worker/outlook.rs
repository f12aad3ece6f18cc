//! What can be told of a step without doing anything: which results are there, and what only a build fetches.

use super::{BuildWorker, ContextFiles, Inputs, Root, StepOutput};
use crate::error::{Error, ErrorKind};
use crate::plan::{CopySourceOp, FileInput, MountKind, MountOp, Op, Step};
use crate::solver::Glimpse;
use crate::store::LayerDescriptor;

impl BuildWorker<'_> {
    /// Looks at a step whose inputs are known.
    pub(super) fn look(&self, step: &Step, inputs: &Inputs<'_>) -> Result<Glimpse<StepOutput>, Error> {
        let mut read: Vec<Root> = Vec::new();
        match &step.op {
            Op::Image(source) => {
                return Ok(Glimpse::Provided(StepOutput::Root(
                    Root::scratch().with(self.images.layers(&source.image)?),
                )));
            }
            Op::Context(name) => {
                let missing = || Error::new(ErrorKind::Context, format!("there is no context {name:?}"));
                return Ok(match self.contexts.get(name).ok_or_else(missing)? {
                    ContextFiles::Local(context) => Glimpse::Provided(StepOutput::Context(context.clone())),
                    ContextFiles::Stored(root) => Glimpse::Provided(StepOutput::Root(root.clone())),
                    ContextFiles::Http(_) | ContextFiles::Git(_) | ContextFiles::Archive(_) => {
                        Glimpse::NotFetched("only a build reads this context".to_owned())
                    }
                });
            }
            Op::Workdir(op) => read.push(inputs.root(op.parent)?),
            Op::Copy(op) => {
                read.push(inputs.root(op.parent)?);
                for source in &op.sources {
                    match source {
                        CopySourceOp::Path { from, .. } => read.extend(root_of(*from, inputs)?),
                        CopySourceOp::Inline { .. } => {}
                        CopySourceOp::Http { url, checksum, .. } if self.fetcher.is_here(url, checksum.as_ref())? => {}
                        CopySourceOp::Http { .. } | CopySourceOp::Git(_) => {
                            return Ok(Glimpse::NotFetched("only a build asks whether its source changed".to_owned()));
                        }
                    }
                }
            }
            Op::Run(op) => {
                for from in op.mounts.iter().filter_map(shown_files) {
                    read.extend(root_of(from, inputs)?);
                }
            }
        }
        let missing = self.missing(&read)?;
        Ok(missing.map_or(Glimpse::Keyed, |layer| Glimpse::NotFetched(self.not_fetched(&layer))))
    }

    /// Bytes of those layers that the store lacks.
    pub(crate) fn missing_bytes(&self, output: &StepOutput) -> Result<u64, Error> {
        let StepOutput::Root(root) = output else { return Ok(0) };
        let mut bytes = 0;
        for layer in root.layers() {
            bytes += if self.has(&layer)? { 0 } else { layer.size };
        }
        Ok(bytes)
    }

    fn has(&self, layer: &LayerDescriptor) -> Result<bool, Error> {
        let size = self.store.blob_size(&layer.digest).map_err(|error| Error::from_source(ErrorKind::Store, &error))?;
        Ok(size == Some(layer.size))
    }

    fn missing(&self, roots: &[Root]) -> Result<Option<LayerDescriptor>, Error> {
        for layer in roots.iter().flat_map(Root::layers) {
            if !self.has(&layer)? {
                return Ok(Some(layer));
            }
        }
        Ok(None)
    }

    fn not_fetched(&self, layer: &LayerDescriptor) -> String {
        let holds = |step: &&Step| match &step.op {
            Op::Image(source) => {
                self.images.layers(&source.image).is_ok_and(|layers| layers.iter().any(|l| l.digest == layer.digest))
            }
            _ => false,
        };
        match self.graph.steps.iter().find(holds).map(|step| &step.op) {
            Some(Op::Image(source)) => format!("layers of {} are not fetched yet", source.image.name),
            _ => format!("the layer {} is not in the store", layer.digest),
        }
    }
}

/// The file system whose tree decides which files are meant, if it is one.
fn root_of(from: FileInput, inputs: &Inputs<'_>) -> Result<Option<Root>, Error> {
    match from {
        FileInput::Root(root) => inputs.root(root).map(Some),
        FileInput::Context(step) => Ok(match inputs.get(step)? {
            StepOutput::Root(root) => Some(root.clone()),
            StepOutput::Context(_) => None,
        }),
    }
}

fn shown_files(mount: &MountOp) -> Option<FileInput> {
    match &mount.kind {
        MountKind::Bind { from, .. } => Some(*from),
        MountKind::Cache(cache) => Some(cache.from),
        MountKind::Tmpfs { .. } | MountKind::Secret { .. } | MountKind::Ssh { .. } => None,
    }
}
