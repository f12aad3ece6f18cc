//! From the results of the steps to the images, and where they go.

use std::collections::BTreeSet;

use super::annotate;
use super::assemble::{Assembled, Product, Solved};
use super::build::Events;
use super::cache;
use super::journal::Journal;
use super::output::{self, Outputs, full_names};
use super::platforms::Platforms;
use super::task::HostFacts;
use crate::error::{Error, ErrorKind};
use crate::event::{Event, StepId};
use crate::export::Sender;
use crate::image::rfc3339;
use crate::plan::{BuildGraph, Op, RootInput, TargetImage};
use crate::registry::{Client, Reference};
use crate::request::{BuildOutcome, BuildRequest, MediaTypes, Output};
use crate::rootless;
use crate::store::{LayerDescriptor, Store};
use crate::worker::{BuildWorker, Images, Root, StepOutput, WorkerOptions};

fn store_error(error: &crate::store::Error) -> Error {
    Error::from_source(ErrorKind::Store, error)
}

/// Steps that are done.
pub(super) struct SolvedBuild<'a> {
    pub(super) graph: &'a BuildGraph,
    pub(super) worker: &'a BuildWorker<'a>,
    /// By number of the step.
    pub(super) outputs: &'a [StepOutput],
    pub(super) images: &'a Images,
    /// `SOURCE_DATE_EPOCH`
    pub(super) epoch: Option<i64>,
}

/// What is to come of them.
pub(super) struct Delivery<'a> {
    pub(super) store: &'a Store,
    pub(super) client: &'a Client,
    pub(super) request: &'a BuildRequest,
    pub(super) facts: &'a HostFacts,
    pub(super) journal: &'a Journal<'a>,
    pub(super) platforms: &'a Platforms,
    pub(super) options: &'a WorkerOptions,
}

impl Delivery<'_> {
    /// Makes the images, names them in the store as `names`, writes the outputs and shares what is to be shared.
    pub(super) fn run(
        &self,
        build: &SolvedBuild<'_>,
        names: Vec<String>,
        sender: &Sender<'_>,
        events: Events<'_>,
    ) -> Result<BuildOutcome, Error> {
        let Self { store, request, journal, options, .. } = *self;
        let SolvedBuild { graph, worker, outputs, .. } = *build;
        let results = cache::Results { graph, worker, outputs, compression: options.compression };
        let product = self.product(build, &results)?;
        let assembled = product.assemble(store, MediaTypes::Oci).map_err(|error| store_error(&error))?;
        let absent = self.note_absent(worker, &product)?;
        for name in &names {
            store.tag_image(name, &assembled.descriptor).map_err(|error| store_error(&error))?;
            events(Event::Exported { output: name.clone(), digest: assembled.descriptor.digest });
        }
        journal.write(worker, Some(assembled.descriptor.digest), &names, events);
        let outputs = Outputs {
            store,
            names: &names,
            product: &product,
            platforms: self.platforms,
            main: &assembled,
            options,
            compression: request.compression,
            sender,
            events,
        };
        rootless::take_umask(self.facts.umask);
        let written = outputs.write_all(&request.outputs)?;
        self.note_pushed(&absent, &assembled, &written, &names)?;
        // What went out is what the caller asks about.
        let image = written.first().unwrap_or(&assembled);
        if image.descriptor.digest != assembled.descriptor.digest {
            journal.write(worker, Some(image.descriptor.digest), &names, events);
        }
        let writer = cache::Writer { store, client: self.client, origins: sender.origins(), events };
        writer.finish(request, &results, image)?;
        store.sync().map_err(|error| store_error(&error))?;
        if let Some(max) = request.cache_max {
            store.release().and_then(|()| store.enforce_limit(max)).map_err(|error| store_error(&error))?;
        }
        let image_names = output::all_names(request, &names)?;
        Ok(outcome(image, names, image_names))
    }

    /// Notes where the layers are that a named image has and the store has not. Returns them.
    fn note_absent(&self, worker: &BuildWorker<'_>, product: &Product<'_>) -> Result<Vec<LayerDescriptor>, Error> {
        if !cache::is_named(self.request) {
            return Ok(Vec::new());
        }
        let mut absent = Vec::new();
        for image in &product.images {
            absent.extend(worker.absent(&image.layers)?);
        }
        for layer in &absent {
            let repositories = worker.repositories_of(&layer.digest);
            let repositories: Vec<String> = repositories.iter().map(Reference::name).collect();
            let noted = self.store.note_elsewhere(&layer.digest, layer.size, &repositories);
            noted.map_err(|error| store_error(&error))?;
        }
        Ok(absent)
    }

    /// Notes that repositories have those layers now to which the image was pushed as it is in the store. `written` are
    /// the images of the outputs that have one.
    fn note_pushed(
        &self,
        absent: &[LayerDescriptor],
        assembled: &Assembled,
        written: &[Assembled],
        names: &[String],
    ) -> Result<(), Error> {
        let outputs = self.request.outputs.iter().filter(|output| output.form().is_some());
        let mut repositories = Vec::new();
        for (output, image) in outputs.zip(written) {
            let Output::Registry { names: own, .. } = output else { continue };
            if image.descriptor.digest == assembled.descriptor.digest {
                let pushed = if own.is_empty() { names.to_vec() } else { full_names(own)? };
                repositories.extend(pushed.iter().filter_map(|name| Some(name.parse::<Reference>().ok()?.name())));
            }
        }
        for layer in absent {
            let noted = self.store.note_elsewhere(&layer.digest, layer.size, &repositories);
            noted.map_err(|error| store_error(&error))?;
        }
        Ok(())
    }

    fn product<'p>(&'p self, build: &SolvedBuild<'p>, results: &cache::Results<'_>) -> Result<Product<'p>, Error> {
        let SolvedBuild { graph, worker, outputs, images, epoch } = *build;
        let image = |target| {
            let done = target_done(target, worker);
            let mut solved = solved(graph, target, outputs, images, (epoch.or(done), self.facts.now.0));
            solved.inline = results.inline(self.request, target);
            cache::recompress(self.request, &mut solved, (self.store, &worker.layer_options()))?;
            if self.request.squash {
                solved.squash(self.store, &worker.layer_options())?;
            }
            Ok(solved)
        };
        let images = graph.targets().map(image).collect::<Result<_, Error>>()?;
        Ok(Product { images, shape: self.platforms.shape, annotations: &self.request.annotations })
    }
}

fn outcome(image: &Assembled, names: Vec<String>, image_names: Vec<String>) -> BuildOutcome {
    BuildOutcome {
        digest: image.descriptor.digest,
        config_digest: image.config_digest,
        media_type: image.descriptor.media_type.clone(),
        size: image.descriptor.size,
        annotations: image.descriptor.annotations.clone(),
        names,
        image_names,
    }
}

/// When the last step of an image was done.
fn target_done(target: &TargetImage, worker: &BuildWorker<'_>) -> Option<i64> {
    target.history.iter().filter_map(|entry| worker.created(entry.layer?)).max()
}

/// Puts together what the image is made of.
///
/// It is as old as `done`, its last step: built again from the cache it is the same image. One without steps of its own
/// is as old as its base, or as this build.
fn solved<'a>(
    graph: &BuildGraph,
    target: &'a TargetImage,
    outputs: &[StepOutput],
    images: &Images,
    (done, now): (Option<i64>, i64),
) -> Solved<'a> {
    let root_of = |input: RootInput| match input.step().map(|step| &outputs[step.0]) {
        Some(StepOutput::Root(root)) => root.clone(),
        _ => Root::scratch(),
    };
    let root = root_of(target.root);
    let base = target.base.map(|step| graph.step(step));
    let base_root = base.map(|step| root_of(RootInput::Step(step.id())));
    let base_image = base.and_then(|step| match &step.op {
        Op::Image(source) => Some(&source.image),
        _ => None,
    });
    let base_config = base_image.and_then(|image| images.documents(&image.digest)).map(|(_, config)| config);
    let parent_depth = |step: StepId| root_of(graph.step(step).op.parent()).depth();
    let made_layer: BTreeSet<StepId> = target
        .history
        .iter()
        .filter_map(|entry| entry.layer)
        .filter(|step| root_of(RootInput::Step(*step)).depth() > parent_depth(*step))
        .collect();
    let of_base = base_config.as_ref().and_then(|config| config.created.clone());
    let created = match done {
        Some(secs) => rfc3339(secs),
        None => of_base.unwrap_or_else(|| rfc3339(now)),
    };
    Solved {
        target,
        base: base_config,
        layers: root.layers(),
        base_layers: base_root.map_or(0, |root| root.depth()),
        made_layer,
        created,
        inline: None,
        of_base: base_image.map(|image| annotate::of_base(image)).unwrap_or_default(),
    }
}
