//! What can be told of a step without doing anything: which results are there, and what only a build fetches.

use super::users::is_numeric_owner;
use super::{BuildWorker, ContextFiles, Inputs, Root, StepOutput};
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::plan::{CopySourceOp, FileInput, MountKind, MountOp, Op, Step};
use crate::solver::Glimpse;
use crate::store::LayerDescriptor;

impl BuildWorker<'_> {
    /// Looks at a step whose inputs are known.
    pub(super) fn look(&self, step: &Step, inputs: &Inputs<'_>) -> Result<Glimpse<StepOutput>, Error> {
        // Whose tables of contents decide, and whose files are read for names of users.
        let (mut looked_into, mut read): (Vec<Root>, Vec<Root>) = Default::default();
        match &step.op {
            Op::Image(source) => {
                let layers = match self.shared_base(&source.image)? {
                    Some(layers) => layers,
                    None => self.images.layers(&source.image)?,
                };
                return Ok(Glimpse::Provided(StepOutput::Root(Root::scratch().with(layers))));
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
            Op::Workdir(op) => {
                let parent = inputs.root(op.parent)?;
                read.extend((!op.user.is_empty() && !is_numeric_owner(&op.user)).then(|| parent.clone()));
                looked_into.push(parent);
            }
            Op::Copy(op) => {
                let parent = inputs.root(op.parent)?;
                read.extend(op.chown.iter().filter(|owner| !is_numeric_owner(owner)).map(|_| parent.clone()));
                looked_into.extend((!op.link).then_some(parent));
                for source in &op.sources {
                    match source {
                        CopySourceOp::Path { from, .. } => looked_into.extend(root_of(*from, inputs)?),
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
                    looked_into.extend(root_of(from, inputs)?);
                }
            }
        }
        let missing = match self.missing(&read, |layer| self.has(layer))? {
            None => self.missing(&looked_into, |layer| Ok(self.has(layer)? || self.has_promised_tree(layer)?))?,
            missing => missing,
        };
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

    /// Whether a shared cache tells what is in a layer that it has. Fetches the table of contents, not the layer.
    fn has_promised_tree(&self, layer: &LayerDescriptor) -> Result<bool, Error> {
        match self.store.promised_tree(&layer.diff_id, &layer.digest) {
            Ok(tree) => Ok(tree.is_some()),
            Err(error) if self.options.cache_strict => Err(Error::from_source(ErrorKind::Registry, &error)),
            Err(error) => {
                let message =
                    format!("{}; what it has counts as missing", Error::from_source(ErrorKind::Registry, &error));
                (self.events)(Event::Warning { code: "cache-source".to_owned(), message });
                Ok(false)
            }
        }
    }

    fn missing(
        &self,
        roots: &[Root],
        is_there: impl Fn(&LayerDescriptor) -> Result<bool, Error>,
    ) -> Result<Option<LayerDescriptor>, Error> {
        for layer in roots.iter().flat_map(Root::layers) {
            if !is_there(&layer)? {
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
