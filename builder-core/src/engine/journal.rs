//! What is remembered of a build: for the next one, which says why it does a step again, and for whoever asks later.
//!
//! A file of the store holds one [`Trace`]. It is written once, when the build ends, also one that failed; a build that was
//! killed leaves none. Builds are compared with those of the same subject: one Dockerfile with one context for one
//! platform. There is nothing secret in it: values of build args and variables are in the records of steps as well.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::build::Events;
use super::task::HostFacts;
use crate::digest::{CacheKey, Digest};
use crate::error::{Error, ErrorKind};
use crate::event::{Event, StepId, StepInfo};
use crate::image::rfc3339;
use crate::plan::{BuildGraph, Op, Step};
use crate::registry::Reference;
use crate::request::{BuildRequest, ContextSource};
use crate::solver::KeyHasher;
use crate::store::{self, Store};
use crate::trace::{BuildReport, Earlier, Kept, StepReport, StepState, Trace, pair};
use crate::worker::{BuildWorker, Note, Past, dependencies};

/// A step is looked for in so many builds before.
const LOOK_BACK: usize = 8;

/// One build, as it goes on.
pub(super) struct Journal<'a> {
    store: &'a Store,
    request: &'a BuildRequest,
    graph: &'a BuildGraph,
    subject: CacheKey,
    id: String,
    started: String,
    dockerfile: String,
    states: Mutex<HashMap<StepId, StepState>>,
}

impl<'a> Journal<'a> {
    /// Starts; nothing is written yet. `dockerfile` is the name that is shown.
    pub(super) fn start(
        store: &'a Store,
        request: &'a BuildRequest,
        dockerfile: &str,
        graph: &'a BuildGraph,
        facts: &HostFacts,
    ) -> Self {
        let subject = subject(store, request, dockerfile);
        let id = store.new_build(&subject, facts.now);
        let (started, dockerfile) = (rfc3339(facts.now.0), dockerfile.to_owned());
        Self { store, request, graph, subject, id, started, dockerfile, states: Mutex::default() }
    }

    /// What builds before did with the same steps. One that cannot be read is as if it had not been.
    pub(super) fn past(&self) -> Past {
        let mut steps = HashMap::new();
        let keyed = self.graph.steps.iter().filter(|step| !matches!(step.op, Op::Image(_) | Op::Context(_))).count();
        for name in self.store.builds_of(&self.subject).unwrap_or_default().iter().take(LOOK_BACK) {
            if let Ok(Some(trace)) = read(self.store, name) {
                self.compare(&trace, &mut steps);
            }
            if steps.len() == keyed {
                break;
            }
        }
        let build_args: BTreeSet<String> = self.request.build_args.iter().map(|(name, _)| name.clone()).collect();
        Past { steps, build_args, no_cache: self.request.no_cache }
    }

    fn compare(&self, trace: &Trace, steps: &mut HashMap<StepId, Earlier>) {
        let before: Vec<&StepInfo> = trace.report.steps.iter().map(|step| &step.info).collect();
        let now: Vec<&StepInfo> = self.graph.steps.iter().map(|step| &step.info).collect();
        let images = trace.report.steps.iter().filter_map(|step| Some((step.info.step, step.image.clone()?)));
        let images: Vec<_> = images.collect();
        for (info, found) in now.iter().zip(pair(&before, &now)) {
            let Some(at) = found.filter(|_| !steps.contains_key(&info.step)) else { continue };
            let (Some(report), Some(kept)) = (trace.report.steps.get(at), trace.kept.get(at)) else { continue };
            if report.key.is_some() {
                let (report, kept, images) = (report.clone(), kept.clone(), images.clone());
                steps.insert(info.step, Earlier { report, kept, images });
            }
        }
    }

    /// Takes note of what becomes of a step.
    pub(super) fn hear(&self, event: &Event) {
        let (step, state) = match event {
            Event::StepCached { step } => (*step, StepState::Cached),
            Event::StepFinished { step, .. } => (*step, StepState::Ran),
            Event::StepFailed { step, .. } => (*step, StepState::Failed),
            _ => return,
        };
        self.states.lock().unwrap_or_else(PoisonError::into_inner).insert(step, state);
    }

    /// Writes what came of the build. That it cannot be written is no reason to fail.
    pub(super) fn write(&self, worker: &BuildWorker<'_>, digest: Option<Digest>, names: &[String], events: Events<'_>) {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let mut steps = Vec::with_capacity(self.graph.steps.len());
        let mut kept = Vec::with_capacity(self.graph.steps.len());
        for step in &self.graph.steps {
            let state = match (&step.op, states.get(&step.id()).copied().unwrap_or(StepState::NotDone)) {
                (Op::Image(_) | Op::Context(_), StepState::Ran) => StepState::Provided,
                (_, state) => state,
            };
            let note = worker.note(step.id());
            let (parts, layers) = (note.parts.clone(), note.layers.clone());
            kept.push(Kept { parts, layers, mounted: note.mounted.clone() });
            steps.push(report(step, state, note));
        }
        let report = BuildReport {
            id: self.id.clone(),
            started: self.started.clone(),
            dockerfile: self.dockerfile.clone(),
            context: shown(&self.request.context),
            target: self.request.target.clone(),
            platform: (!self.request.platforms.is_empty()).then(|| self.request.platforms.join(",")),
            names: names.to_vec(),
            digest,
            steps,
        };
        let bytes = serde_json::to_vec(&Trace { report, kept }).unwrap_or_default();
        if let Err(error) = self.store.put_build(&self.id, &bytes) {
            let message = format!("what this build did cannot be remembered: {error}");
            events(Event::Warning { code: "build-not-remembered".to_owned(), message });
        }
    }
}

/// What is told of a step.
pub(super) fn report(step: &Step, state: StepState, note: Note) -> StepReport {
    let image = match &step.op {
        Op::Image(source) => Some(source.image.name.clone()),
        _ => None,
    };
    let reason = note.reason.filter(|_| state != StepState::Cached);
    let inputs = dependencies(step);
    let info = step.info.clone();
    StepReport { info, inputs, state, reason, image, missing_bytes: None, found_in: None, key: note.key }
}

/// What makes two builds comparable.
fn subject(store: &Store, request: &BuildRequest, dockerfile: &str) -> CacheKey {
    let mut hasher = KeyHasher::new("build subject/1");
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match &request.context {
        ContextSource::Directory(path) => hasher.field(real(path).as_os_str().as_encoded_bytes()),
        // A context from standard input has another name each time.
        ContextSource::Archive(path) if path.starts_with(store.path()) => hasher.field(b"-"),
        ContextSource::Archive(path) => hasher.field(real(path).as_os_str().as_encoded_bytes()),
        other => hasher.field(shown(other).unwrap_or_default().as_bytes()),
    }
    let dockerfile = match request.dockerfile_in_context {
        Some(_) => Path::new(dockerfile).to_owned(),
        None => real(Path::new(dockerfile)),
    };
    hasher.field(dockerfile.as_os_str().as_encoded_bytes());
    hasher.field(request.platforms.join(",").as_bytes());
    hasher.finish()
}

/// A context as it is shown, without the credentials that a URL may have.
fn shown(context: &ContextSource) -> Option<String> {
    Some(match context {
        ContextSource::Empty => return None,
        ContextSource::Directory(path) | ContextSource::Archive(path) => {
            std::path::absolute(path).as_ref().unwrap_or(path).display().to_string()
        }
        ContextSource::Http(url) | ContextSource::Git(url) => without_credentials(url),
        ContextSource::Image(name) => name.clone(),
        ContextSource::OciLayout { path, .. }
        | ContextSource::OciArchive { path, .. }
        | ContextSource::DockerArchive { path, .. } => path.display().to_string(),
    })
}

fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

fn read(store: &Store, name: &str) -> Result<Option<Trace>, store::Error> {
    // A trace of another version tells nothing.
    Ok(store.build(name)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// What the last build did, or the last one of an image, by name or digest.
pub(crate) fn explain(store: &Store, image: Option<&str>) -> Result<BuildReport, Error> {
    let failed = |error: store::Error| Error::from_source(ErrorKind::Store, &error);
    let wanted = image.map(|text| (text, text.parse::<Reference>().map(|name| name.to_string()).unwrap_or_default()));
    for name in store.builds().map_err(failed)? {
        let Some(trace) = read(store, &name).map_err(failed)? else { continue };
        let fits = wanted.as_ref().is_none_or(|(text, full)| {
            let digest = trace.report.digest.map(|digest| digest.to_string()).unwrap_or_default();
            let is_digest = text.len() >= 12
                && (digest.starts_with(text) || digest["sha256:".len().min(digest.len())..].starts_with(text));
            trace.report.id == *text || trace.report.names.contains(full) || is_digest
        });
        if fits {
            return Ok(trace.report);
        }
    }
    let text = match image {
        Some(image) => format!("no build of {image:?} is remembered"),
        None => "no build is remembered".to_owned(),
    };
    Err(Error::new(ErrorKind::Request, text).hint("the last builds are remembered until `prune --all`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_a_url_are_not_kept() {
        for (url, shown) in [
            ("https://user:pass@example.org/a.git#main", "https://example.org/a.git#main"),
            ("https://example.org/a@b", "https://example.org/a@b"),
            ("ssh://git@example.org:22/a", "ssh://example.org:22/a"),
            ("git@example.org:a/b", "git@example.org:a/b"),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }
}
