//! `ADD` of what is elsewhere: a URL, a git repository.

use std::sync::Arc;

use super::copy::{Canvas, CanvasError, Rules, Selected, SourceOwner, SourceTree, copy_file, copy_path};
use super::files::Bytes;
use super::root::Root;
use super::{BuildWorker, Context, StepOutput};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind};
use crate::fetch::{Fetcher, Remote};
use crate::plan::{CopyKind, CopyOp, GitSource};
use crate::store::LayerDescriptor;
use crate::tree::Metadata;

/// Where the files of a context are.
#[derive(Debug, Clone)]
pub(crate) enum ContextFiles {
    /// In a directory of this machine.
    Local(Arc<Context>),
    /// In layers of the store: no directory was ever made of them.
    Stored(Root),
    /// At this URL, a tar or a file; fetched when a step needs it.
    Http(String),
    /// In this repository; fetched when a step needs it.
    Git(GitSource),
    /// In this tar; read when a step needs it.
    Archive(std::path::PathBuf),
}

impl ContextFiles {
    /// Makes the files available.
    pub(super) fn provide(&self, fetcher: &Fetcher) -> Result<StepOutput, Error> {
        let tree = |layer: LayerDescriptor| Ok(StepOutput::Root(Root::scratch().with(vec![layer])));
        match self {
            Self::Local(context) => Ok(StepOutput::Context(context.clone())),
            Self::Stored(root) => Ok(StepOutput::Root(root.clone())),
            Self::Git(source) => tree(fetcher.git(source)?),
            Self::Archive(path) => tree(fetcher.archive(path)?),
            Self::Http(url) => match fetcher.remote(url)? {
                Remote::Tree(layer) => tree(layer),
                Remote::File(file) => tree(fetcher.as_tree(url, &file)?),
            },
        }
    }
}

fn failed(error: &CanvasError) -> Error {
    Error::from_source(ErrorKind::Dockerfile, error)
}

/// A URL that `ADD` takes, with what the instruction says of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Url<'a> {
    pub(super) url: &'a str,
    pub(super) name: Option<&'a str>,
    pub(super) checksum: Option<&'a Digest>,
}

impl BuildWorker<'_> {
    /// Adds the file at `url`, or with `--unpack` what it holds.
    pub(super) fn add_url(
        &self,
        canvas: &mut Canvas<'_>,
        rules: &Rules<'_>,
        op: &CopyOp,
        source: Url<'_>,
        sources: &mut Vec<Bytes>,
    ) -> Result<(), Error> {
        let Url { url, name, checksum } = source;
        let download = self.fetcher.download(url, checksum)?;
        let number = sources.len();
        sources.push(Bytes::Blob { digest: download.digest, content: download.content });
        let unpacks = matches!(op.kind, CopyKind::Add { unpack: Some(true) });
        if unpacks && self.add_archive(canvas, rules, b"", number, sources)? {
            return Ok(());
        }
        let dest = canvas.resolve(&rules.dest).map_err(|error| failed(&error))?;
        if name.is_none() && (rules.dest_is_dir || canvas.is_dir(&dest)) {
            let text = format!("the URL {url:?} has no file name, and the destination is a directory");
            return Err(Error::new(ErrorKind::Dockerfile, text).hint("write the file name into the destination"));
        }
        let mtime = download.modified.unwrap_or(self.options.now);
        let meta = Metadata { mode: 0o600, mtime, ..Metadata::default() };
        let name = name.unwrap_or_default().as_bytes();
        copy_file(canvas, rules, number, name, (meta, download.size)).map_err(|error| failed(&error))
    }

    /// Adds the files of a repository.
    pub(super) fn add_git(
        &self,
        canvas: &mut Canvas<'_>,
        rules: &Rules<'_>,
        source: &GitSource,
        sources: &mut Vec<Bytes>,
    ) -> Result<(), Error> {
        let root = Root::scratch().with(vec![self.fetcher.git(source)?]);
        let tree = self.tree(&root)?;
        let number = sources.len();
        sources.push(Bytes::Root(root));
        let all = Selected { path: Vec::new(), name: Vec::new() };
        let view = SourceTree { number, tree: &tree, owner: SourceOwner::Root };
        copy_path(canvas, rules, view, &all).map_err(|error| failed(&error))
    }
}
