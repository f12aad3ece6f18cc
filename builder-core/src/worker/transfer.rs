//! `COPY`, `ADD` and `WORKDIR`: from the plan's words to the entries of a layer, and then the layer.
//!
//! All that decides the layer is read first: trees, the list of the context's files, digests of their content. So the
//! entries themselves are the cache key, and a step whose result would be the same is the same, whatever else changed.

use std::io::Read;
use std::sync::Arc;

use super::copy::{
    ArchiveEntry, Canvas, Planned, Rules, SelectError, SourceOwner, SourceTree, apply_archive, copy_file, copy_path,
    copy_with_parents, select, select_with_parents,
};
use super::files::{Bytes, Files};
use super::near;
use super::remote::Url;
use super::root::Root;
use super::{BuildWorker, Inputs, StepOutput};
use crate::error::{Error, ErrorKind};
use crate::plan::{CopyKind, CopyOp, CopySourceOp, FileInput, WorkdirOp};
use crate::tree::path::clean;
use crate::tree::pattern::PatternSet;
use crate::tree::{Kind, MergedTree, Metadata};

/// The entries of a layer to write, with the sources that their bytes come from.
#[derive(Debug)]
pub(crate) struct Transfer {
    /// Sorted by path; content hashes are filled in.
    pub(crate) planned: Vec<Planned>,
    /// By [`super::copy::Origin::source`].
    pub(crate) sources: Vec<Bytes>,
}

/// What `chown` and `USER` names mean, or the error that says they mean nothing.
fn unknown_user(error: &super::users::UserError) -> Error {
    let this = Error::from_source(ErrorKind::Dockerfile, error);
    match error.nearest() {
        Some(nearest) => this.hint(format!("did you mean {nearest:?}?")),
        None => this.hint("add the user in an earlier step, or give numbers".to_owned()),
    }
}

impl BuildWorker<'_> {
    /// Works out the entries of `COPY` or `ADD`.
    pub(super) fn plan_copy(&self, op: &CopyOp, inputs: &Inputs<'_>) -> Result<Transfer, Error> {
        let parent = inputs.root(op.parent)?;
        // A linked layer stands alone: what is at its destination plays no part.
        let tree = if op.link { Arc::default() } else { self.tree(&parent)? };
        let owner = op.chown.as_deref().map(|text| self.owner(text, &parent)).transpose()?;
        let excludes = match op.excludes.is_empty() {
            true => None,
            false => Some(PatternSet::new(&op.excludes).map_err(|e| Error::from_source(ErrorKind::Dockerfile, &e))?),
        };
        let dest = match op.dest.starts_with('/') {
            true => op.dest.clone(),
            false => format!("{}/{}", op.workdir, op.dest),
        };
        let rules = Rules {
            dest: clean(dest.as_bytes())[1..].to_vec(),
            dest_is_dir: op.dest_is_directory(),
            owner,
            chmod: op.chmod.as_ref(),
            excludes: excludes.as_ref(),
            now: self.options.now,
        };
        let mut canvas = Canvas::new(&tree);
        let mut sources = Vec::new();
        for source in &op.sources {
            self.add_source(&mut canvas, &rules, op, source, inputs, &mut sources)?;
        }
        self.finish(canvas, sources)
    }

    #[expect(clippy::too_many_arguments, reason = "a step's canvas, rules and sources belong to the caller")]
    fn add_source(
        &self,
        canvas: &mut Canvas<'_>,
        rules: &Rules<'_>,
        op: &CopyOp,
        source: &CopySourceOp,
        inputs: &Inputs<'_>,
        sources: &mut Vec<Bytes>,
    ) -> Result<(), Error> {
        let failed = |error: super::copy::CanvasError| Error::from_source(ErrorKind::Dockerfile, &error);
        match source {
            CopySourceOp::Path { from, pattern } => {
                let (bytes, owner) = self.source(*from, pattern, inputs)?;
                let tree = self.tree_of(&bytes)?;
                let number = sources.len();
                sources.push(bytes);
                let view = SourceTree { number, tree: &tree, owner };
                let missing = |error| self.missing_source(error, *from, inputs);
                if op.parents {
                    let selected = select_with_parents(&tree, pattern).map_err(missing)?;
                    return copy_with_parents(canvas, rules, view, &selected).map_err(failed);
                }
                let unpacks = matches!(op.kind, CopyKind::Add { unpack } if unpack != Some(false));
                for selected in select(&tree, pattern).map_err(missing)? {
                    let is_file = tree.get(&selected.path).is_some_and(|node| matches!(node.kind, Kind::File { .. }));
                    if unpacks && is_file && self.add_archive(canvas, rules, &selected.path, number, sources)? {
                        continue;
                    }
                    copy_path(canvas, rules, view, &selected).map_err(failed)?;
                }
                Ok(())
            }
            CopySourceOp::Inline { name, content } => {
                let meta = Metadata { mode: 0o644, mtime: self.options.now, ..Metadata::default() };
                let size = content.len() as u64;
                copy_file(canvas, rules, sources.len(), name.as_bytes(), (meta, size)).map_err(failed)?;
                sources.push(Bytes::Inline(content.clone().into_bytes()));
                Ok(())
            }
            CopySourceOp::Http { url, name, checksum } => {
                let source = Url { url, name: name.as_deref(), checksum: checksum.as_ref() };
                self.add_url(canvas, rules, op, source, sources)
            }
            CopySourceOp::Git(source) => self.add_git(canvas, rules, source, sources),
        }
    }

    /// Unpacks the file at `path` of source `number` if it is an archive; returns whether it was.
    pub(super) fn add_archive(
        &self,
        canvas: &mut Canvas<'_>,
        rules: &Rules<'_>,
        path: &[u8],
        number: usize,
        sources: &mut Vec<Bytes>,
    ) -> Result<bool, Error> {
        let mut files = Files::new(self, &sources[number..=number]);
        files.prepare([(0, path)])?;
        let Some(archive) = super::archive::read(files.open(0, path)?, || files.open(0, path))? else {
            return Ok(false);
        };
        let entries: Vec<ArchiveEntry> = archive.entries.clone();
        let applied = apply_archive(canvas, rules, sources.len(), &entries);
        applied.map_err(|error| Error::from_source(ErrorKind::Context, &error))?;
        let origin = sources[number].clone();
        sources.push(Bytes::Archive { origin: Box::new(origin), path: path.to_vec() });
        Ok(true)
    }

    pub(super) fn source(
        &self,
        from: FileInput,
        pattern: &str,
        inputs: &Inputs<'_>,
    ) -> Result<(Bytes, SourceOwner), Error> {
        match from {
            FileInput::Context(step) => {
                let context = match inputs.get(step)? {
                    StepOutput::Context(context) => context.clone(),
                    // A context that was fetched.
                    StepOutput::Root(root) => return Ok((Bytes::Root(root.clone()), SourceOwner::Root)),
                };
                let listing = Arc::new(context.select(pattern)?);
                Ok((Bytes::Context { context, listing: Some(listing) }, SourceOwner::Root))
            }
            FileInput::Root(root) => Ok((Bytes::Root(inputs.root(root)?), SourceOwner::Kept)),
        }
    }

    /// The files of a source that has several.
    pub(super) fn tree_of(&self, bytes: &Bytes) -> Result<Arc<MergedTree>, Error> {
        match bytes {
            Bytes::Context { listing: Some(listing), .. } => Ok(listing.tree()),
            Bytes::Root(root) => self.tree(root),
            Bytes::Context { listing: None, .. } | Bytes::Inline(_) | Bytes::Archive { .. } | Bytes::Blob { .. } => {
                Ok(Arc::default())
            }
        }
    }

    /// Says why a source is not there: an ignore rule that hid it, or a name that is nearly the same.
    pub(super) fn missing_source(&self, error: SelectError, from: FileInput, inputs: &Inputs<'_>) -> Error {
        let FileInput::Context(step) = from else {
            let this = Error::from_source(ErrorKind::Dockerfile, &error);
            let FileInput::Root(root) = from else { return this };
            let tree = inputs.root(root).and_then(|root| self.tree(&root));
            let (SelectError::NotFound(pattern), Ok(tree)) = (&error, tree) else { return this };
            return near::hint(this, pattern, |dir| Some(near::names(&tree, dir)));
        };
        let this = Error::from_source(ErrorKind::Context, &error);
        let SelectError::NotFound(pattern) = &error else { return this };
        let this = Error::new(ErrorKind::Context, format!("{pattern:?} is not in the build context"));
        let Ok(context) = inputs.context(step) else { return this };
        match context.hidden_by(pattern) {
            Some(rule) => this
                .note(format!("excluded by {}:{} ({:?})", rule.file, rule.line, rule.text))
                .hint(format!("add \"!{}\" after line {}", pattern.trim_start_matches(['/', '.']), rule.line)),
            None => near::hint(this, pattern, |dir| Some(near::names(&context.list(dir).ok()?.tree(), dir))),
        }
    }

    /// Works out the entries of `WORKDIR`.
    pub(super) fn plan_workdir(&self, op: &WorkdirOp, inputs: &Inputs<'_>) -> Result<Transfer, Error> {
        let parent = inputs.root(op.parent)?;
        let tree = self.tree(&parent)?;
        let failed = |error: super::copy::CanvasError| Error::from_source(ErrorKind::Dockerfile, &error);
        let mut canvas = Canvas::new(&tree);
        let path = canvas.resolve(op.path.as_bytes()).map_err(failed)?;
        if !canvas.is_dir(&path) {
            let (uid, gid) = self.owner(&op.user, &parent)?;
            let meta = Metadata { mode: 0o755, uid, gid, mtime: self.options.now, ..Metadata::default() };
            canvas.mkdir_all(&path, &meta).map_err(failed)?;
        }
        self.finish(canvas, Vec::new())
    }

    /// Fills in the content hashes that only reading can tell.
    fn finish(&self, canvas: Canvas<'_>, mut sources: Vec<Bytes>) -> Result<Transfer, Error> {
        let mut planned = canvas.finish();
        for planned in &mut planned {
            let (Some(origin), Kind::File { content, .. }) = (&planned.origin, &mut planned.entry.kind) else {
                continue;
            };
            match &sources[origin.source] {
                Bytes::Inline(bytes) => *content = crate::digest::ContentHash::of(bytes),
                Bytes::Blob { content: known, .. } => *content = *known,
                // Trees and archives know the content of their files already.
                Bytes::Root(_) | Bytes::Archive { .. } | Bytes::Context { .. } => {}
            }
        }
        super::files::hash_context_files(&mut planned, &sources, self.options.threads)?;
        for source in &mut sources {
            source.forget_listing();
        }
        Ok(Transfer { planned, sources })
    }

    /// Writes the layer.
    pub(super) fn write_transfer(&self, transfer: Transfer, parent: &Root) -> Result<StepOutput, Error> {
        if transfer.planned.is_empty() {
            return Ok(StepOutput::Root(parent.clone()));
        }
        let store_error = |error: crate::layer::Error| Error::from_source(ErrorKind::Store, &error);
        let mut files = Files::new(self, &transfer.sources);
        let wanted = transfer.planned.iter().filter_map(|planned| planned.origin.as_ref());
        files.prepare(wanted.map(|origin| (origin.source, origin.path.as_slice())))?;
        let mut writer = crate::layer::LayerWriter::create(self.store, self.layer_options()).map_err(store_error)?;
        for Planned { entry, origin } in transfer.planned {
            let mut content = match &origin {
                Some(origin) => Some(files.open(origin.source, &origin.path)?),
                None => None,
            };
            let content = content.as_mut().map(|reader| reader as &mut dyn Read);
            writer.append(entry, content).map_err(store_error)?;
        }
        let written = writer.finish().map_err(store_error)?;
        self.remember_variant(&written.layer)?;
        Ok(StepOutput::Root(parent.with(vec![written.layer])))
    }

    /// The owner that `--chown` means in the file system of `root`.
    pub(super) fn owner(&self, text: &str, root: &Root) -> Result<(u32, u32), Error> {
        let files = if super::users::is_numeric_owner(text) { Arc::default() } else { self.user_files(root)? };
        files.owner(text).map_err(|error| unknown_user(&error))
    }

    /// Who `USER` is in the file system of `root`.
    pub(super) fn identity(&self, text: &str, root: &Root) -> Result<super::users::Identity, Error> {
        self.user_files(root)?.identity(text).map_err(|error| unknown_user(&error))
    }
}
