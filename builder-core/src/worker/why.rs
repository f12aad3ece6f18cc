//! Why a step must be done: its key beside that of the same step in the last build that had it.
//!
//! Parts of keys are compared in `trace`; here is what only the worker can tell: which step changed the file system that
//! a command starts from, and which file of a `COPY` is not as it was. The latter is read from the tree of the layer
//! that was made last, so nothing more than records and trees need be kept.

use std::collections::{BTreeSet, HashMap};
use std::sync::{MutexGuard, PoisonError};

use super::BuildWorker;
use super::copy::Planned;
use super::files::Bytes;
use super::mounts::Selection;
use super::transfer::Transfer;
use crate::digest::DiffId;
use crate::event::StepId;
use crate::plan::{Op, RunOp};
use crate::solver::KeyParts;
use crate::store::LayerDescriptor;
use crate::trace::{Change, Earlier, FILES_PARTS, Mounted, Reason, ReasonCode, StepState, changed_parts};
use crate::tree::path::show;
use crate::tree::{Entry, Kind, Timestamp};

/// So many files are named.
const NAMED: usize = 20;

/// What is known of earlier builds.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// For steps of this build the same step of the last build that had it.
    pub(crate) steps: HashMap<StepId, Earlier>,
    /// Names of build args that the caller gave.
    pub(crate) build_args: BTreeSet<String>,
    /// Whether the caller wants everything done again.
    pub(crate) no_cache: bool,
}

/// What was found out about a step on the way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Note {
    /// Its cache key, as text.
    pub(crate) key: Option<String>,
    /// What that was made of.
    pub(crate) parts: Vec<(String, String)>,
    /// Why there was no earlier result.
    pub(crate) reason: Option<Reason>,
    /// The layers that it added.
    pub(crate) layers: Vec<DiffId>,
    /// The files that its mounts show.
    pub(crate) mounted: Mounted,
}

impl BuildWorker<'_> {
    /// Makes earlier builds known.
    pub(crate) fn remembering(self, past: Past) -> Self {
        Self { past, ..self }
    }

    /// What was found out about a step.
    pub(crate) fn note(&self, step: StepId) -> Note {
        self.notes().get(&step).cloned().unwrap_or_default()
    }

    fn notes(&self) -> MutexGuard<'_, HashMap<StepId, Note>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note_key(&self, step: StepId, key: &KeyParts) {
        let (key, parts) = (Some(key.key().to_string()), key.readable());
        self.notes().insert(step, Note { key, parts, ..Note::default() });
    }

    /// Takes note of the files that the mounts of a command show.
    pub(super) fn note_mounts(&self, step: StepId, op: &RunOp, selections: &[Option<Selection>]) {
        let shown = op.mounts.iter().zip(selections);
        let list =
            shown.filter_map(|(mount, selection)| Some((mount.target.clone()?, selection.as_ref()?.list.clone())));
        self.notes().entry(step).or_default().mounted = list.collect();
    }

    pub(super) fn note_layers(&self, step: StepId, layers: &[LayerDescriptor]) {
        self.notes().entry(step).or_default().layers = layers.iter().map(|layer| layer.diff_id).collect();
    }

    /// Finds out why `step` must be done; returns the words if they are worth saying while it is.
    pub(super) fn note_reason(&self, step: StepId, key: &KeyParts) -> Option<String> {
        let reason = self.why(step, key);
        let worth_saying = !matches!(reason.code, ReasonCode::NoCache | ReasonCode::NoEarlierBuild);
        let text = worth_saying.then(|| reason.text.clone());
        self.notes().entry(step).or_default().reason = Some(reason);
        text
    }

    fn why(&self, id: StepId, key: &KeyParts) -> Reason {
        if self.past.no_cache {
            return Reason::new(ReasonCode::NoCache, "--no-cache");
        }
        let Some(earlier) = self.past.steps.get(&id) else {
            return Reason::new(ReasonCode::NoEarlierBuild, "no earlier build of this step");
        };
        let parts = key.readable();
        let changes = changed_parts(&earlier.kept.parts, &parts, &self.past.build_args);
        if !changes.is_empty() {
            return self.changed(id, earlier, changes);
        }
        if earlier.report.key != Some(key.key().to_string()) {
            let change = Change::new("version", "another version of builder made the last result");
            return Reason::changed(vec![change]);
        }
        match earlier.report.state {
            StepState::Failed => Reason::new(ReasonCode::NotFinished, "it failed the last time"),
            StepState::NotDone => Reason::new(ReasonCode::NotFinished, "the last build ended before it was done"),
            _ => Reason::new(ReasonCode::RecordGone, "its result was pruned"),
        }
    }

    /// Puts what only the worker knows in place of what the parts of a key can say.
    fn changed(&self, id: StepId, earlier: &Earlier, changes: Vec<Change>) -> Reason {
        let is_files = |change: &Change| FILES_PARTS.contains(&change.part.as_str());
        let files = if changes.iter().any(is_files) { self.changed_files(id, earlier) } else { Vec::new() };
        let mut told = Vec::new();
        let mut files_told = false;
        let mut cause = None;
        for change in changes {
            if is_files(&change) {
                if !std::mem::replace(&mut files_told, true) {
                    let unknown = Change { part: "files".to_owned(), before: None, after: None, ..change };
                    told.extend(if files.is_empty() { vec![unknown] } else { files.clone() });
                }
            } else if let Some(target) = change.part.strip_prefix("mounted at ") {
                let files = self.changed_mount(id, earlier, target);
                told.extend(if files.is_empty() { vec![change] } else { files });
            } else if change.part == "file system" {
                let (better, step) = self.changed_file_system(id, earlier, change);
                cause = step;
                told.push(better);
            } else {
                told.push(change);
            }
        }
        let reason = Reason::changed(told);
        match cause {
            Some(step) => reason.because_of(step),
            None => reason,
        }
    }

    /// Finds the step below that is not as it was: what stands on it is the same, and yet not what it was.
    fn changed_file_system(&self, id: StepId, earlier: &Earlier, change: Change) -> (Change, Option<StepId>) {
        let mut below = self.graph.step(id).op.parent();
        let mut above = earlier;
        while let Some(step) = below.step().map(|step| self.graph.step(step)) {
            let text = match &step.op {
                Op::Image(source) => {
                    let before = above.report.inputs.first();
                    let before = above.images.iter().find(|(step, _)| Some(step) == before);
                    match before {
                        Some((_, before)) => base_changed(before, &source.image.name),
                        None => format!("the base image is {} now", source.image.name),
                    }
                }
                _ => match self.past.steps.get(&step.id()) {
                    Some(same) if same.kept.layers == self.note(step.id()).layers => {
                        (below, above) = (step.op.parent(), same);
                        continue;
                    }
                    Some(_) => format!("the result of {} changed", step.info.name),
                    None => format!("{} is new", step.info.name),
                },
            };
            return (Change { text, ..change }, Some(step.id()));
        }
        (change, None)
    }

    /// The paths that differ from the layer that was made last, in their order; none when that is not there any more.
    fn changed_files(&self, id: StepId, earlier: &Earlier) -> Vec<Change> {
        let tree = match earlier.kept.layers.as_slice() {
            [] => None,
            [layer, ..] => match self.store.tree(layer) {
                Ok(Some(tree)) => Some(tree),
                _ => return Vec::new(),
            },
        };
        // Taken out for as long as it is read: a tree of many files takes its time, and others need theirs.
        let Some(transfer) = self.transfers().remove(&id) else { return Vec::new() };
        let old = tree.as_ref().map_or(&[][..], |tree| tree.entries());
        let texts = differences(old, &transfer, self.options.clamp);
        self.transfers().insert(id, transfer);
        named("files", texts)
    }

    /// The same for what a mount shows.
    fn changed_mount(&self, id: StepId, earlier: &Earlier, target: &str) -> Vec<Change> {
        let note = self.note(id);
        let (Some(old), Some(new)) = (earlier.kept.mounted.get(target), note.mounted.get(target)) else {
            return Vec::new();
        };
        // Whatever is shown has a root; an empty list was not made.
        if old.is_empty() || new.is_empty() {
            return Vec::new();
        }
        let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let tell = |path: &&String| {
            let what = match (old.get(*path), new.get(*path)) {
                (Some(before), Some(now)) if before == now => return None,
                (Some(_), Some(_)) => "changed",
                (None, _) => "is new",
                (Some(_), None) => "is gone",
            };
            let path = [target, path.as_str()].join(if path.is_empty() { "" } else { "/" });
            Some(format!("mounted {} {what}", plain(path.as_bytes())))
        };
        named(&format!("mounted at {target}"), paths.iter().filter_map(tell).collect())
    }
}

/// Changes of one part of a key, not too many.
fn named(part: &str, texts: Vec<String>) -> Vec<Change> {
    let more = texts.len().saturating_sub(NAMED);
    let rest = (more > 0).then(|| format!("and {more} more paths"));
    texts.into_iter().take(NAMED).chain(rest).map(|text| Change::new(part, text)).collect()
}

fn base_changed(before: &str, now: &str) -> String {
    match (before.split_once('@'), now.split_once('@')) {
        (Some((name, before)), Some((same, now))) if name == same => {
            let short = |digest: &str| digest.chars().take(19).collect::<String>();
            format!("the base image {name} changed: {} → {}", short(before), short(now))
        }
        _ => format!("base image: {before} → {now}"),
    }
}

/// What differs between the entries of a layer and those to be written, one line a path. Both are sorted by path.
fn differences(old: &[Entry], transfer: &Transfer, clamp: Option<i64>) -> Vec<String> {
    let mut told = Vec::new();
    let mut old = old.iter().peekable();
    let gone = |entry: &Entry| format!("{} is gone", plain(&[b"/", entry.path.as_slice()].concat()));
    for planned in &transfer.planned {
        let entry = &planned.entry;
        while let Some(before) = old.next_if(|before| before.path < entry.path) {
            told.push(gone(before));
        }
        match old.next_if(|before| before.path == entry.path) {
            None => told.push(format!("{} is new", source_name(planned, transfer))),
            Some(before) => told.extend(difference(before, entry, &|| source_name(planned, transfer), clamp)),
        }
    }
    told.extend(old.map(gone));
    told
}

/// The name that a path has in the context, else in the image.
fn source_name(planned: &Planned, transfer: &Transfer) -> String {
    let origin = planned.origin.as_ref();
    match origin.and_then(|origin| Some((origin, transfer.sources.get(origin.source)?))) {
        Some((origin, Bytes::Context { .. })) => plain(&origin.path),
        _ => plain(&[b"/", planned.entry.path.as_slice()].concat()),
    }
}

/// A path as it is, in quotes only where it could be mistaken for something else.
fn plain(path: &[u8]) -> String {
    match std::str::from_utf8(path) {
        Ok(text) if !text.is_empty() && !text.chars().any(|c| c.is_control() || c == ' ' || c == '"') => {
            text.to_owned()
        }
        _ => format!("{:?}", show(path)),
    }
}

/// What differs between two entries of one path, the weightiest first; `name` is only made for one that does.
fn difference(old: &Entry, new: &Entry, name: &dyn Fn() -> String, clamp: Option<i64>) -> Option<String> {
    let (was, is) = (kind_name(&old.kind), kind_name(&new.kind));
    if was != is {
        return Some(format!("{} is a {is} now, no {was}", name()));
    }
    if let (Kind::Symlink { target: before }, Kind::Symlink { target: after })
    | (Kind::Hardlink { target: before }, Kind::Hardlink { target: after }) = (&old.kind, &new.kind)
        && before != after
    {
        return Some(format!("{} leads to {} now, not to {}", name(), plain(after), plain(before)));
    }
    if old.kind != new.kind {
        return Some(format!("content of {} changed", name()));
    }
    let (before, after) = (&old.meta, &new.meta);
    if before.mode != after.mode {
        return Some(format!("mode of {}: {:04o} → {:04o}", name(), before.mode, after.mode));
    }
    if (before.uid, before.gid) != (after.uid, after.gid) {
        return Some(format!("owner of {}: {}:{} → {}:{}", name(), before.uid, before.gid, after.uid, after.gid));
    }
    if before.xattrs != after.xattrs {
        return Some(format!("extended attributes of {} changed", name()));
    }
    let written = |time: Timestamp| clamp.map(|epoch| time.min(Timestamp { secs: epoch, nanos: 0 }));
    (written(before.mtime) != written(after.mtime)).then(|| format!("time of {} changed", name()))
}

fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Directory { .. } => "directory",
        Kind::File { .. } => "file",
        Kind::Hardlink { .. } => "hard link",
        Kind::Symlink { .. } => "symbolic link",
        Kind::CharDevice { .. } => "character device",
        Kind::BlockDevice { .. } => "block device",
        Kind::Fifo => "pipe",
        Kind::Whiteout => "deletion",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::ContentHash;
    use crate::tree::Metadata;

    fn entry(kind: Kind, change: impl FnOnce(&mut Metadata)) -> Entry {
        let mut meta = Metadata { mode: 0o644, ..Metadata::default() };
        change(&mut meta);
        Entry { path: b"srv/x".to_vec(), meta, kind }
    }

    fn file(content: &[u8], change: impl FnOnce(&mut Metadata)) -> Entry {
        entry(Kind::File { size: 1, content: ContentHash::of(content) }, change)
    }

    fn told(old: &Entry, new: &Entry, clamp: Option<i64>) -> Option<String> {
        difference(old, new, &|| "x".to_owned(), clamp)
    }

    #[test]
    fn each_difference_of_a_path_has_its_words() {
        let base = file(b"a", |_| {});
        let link = |target: &str| entry(Kind::Symlink { target: target.into() }, |_| {});
        for (old, new, expected) in [
            (&base, file(b"a", |_| {}), None),
            (&base, file(b"b", |_| {}), Some("content of x changed")),
            (&base, file(b"a", |meta| meta.mode = 0o755), Some("mode of x: 0644 → 0755")),
            (&base, file(b"a", |meta| meta.uid = 5), Some("owner of x: 0:0 → 5:0")),
            (&base, file(b"a", |meta| meta.mtime.secs = 5), None),
            (&base, link("y"), Some("x is a symbolic link now, no file")),
            (&link("y"), link("z"), Some("x leads to z now, not to y")),
        ] {
            assert_eq!(told(old, &new, None).as_deref(), expected);
        }
        let later = || file(b"a", |meta| meta.mtime.secs = 5);
        assert_eq!(told(&base, &later(), Some(9)).as_deref(), Some("time of x changed"));
        assert_eq!(told(&later(), &file(b"a", |meta| meta.mtime.secs = 7), Some(3)), None);
    }

    #[test]
    fn paths_that_come_and_go_are_told_in_order() {
        let transfer = Transfer {
            planned: ["a", "c"]
                .map(|path| Planned { entry: Entry { path: path.into(), ..file(b"a", |_| {}) }, origin: None })
                .into(),
            sources: Vec::new(),
        };
        let old = ["b", "c", "d"].map(|path| Entry { path: path.into(), ..file(b"b", |_| {}) });
        assert_eq!(
            differences(&old, &transfer, None),
            ["/a is new", "/b is gone", "content of /c changed", "/d is gone"]
        );
    }

    #[test]
    fn a_moved_tag_and_another_base_are_told_apart() {
        let (old, new) = (format!("x:1@sha256:{}", "a".repeat(64)), format!("x:1@sha256:{}", "b".repeat(64)));
        let text = base_changed(&old, &new);
        assert_eq!(text, "the base image x:1 changed: sha256:aaaaaaaaaaaa → sha256:bbbbbbbbbbbb");
        assert!(base_changed("x:1@sha256:a", "y:1@sha256:a").contains("x:1@sha256:a → y:1"));
    }
}
