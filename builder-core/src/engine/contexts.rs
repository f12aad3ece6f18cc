//! Which files a build has, and where its Dockerfile is.
//!
//! Ignore rules belong to directories of this machine: what comes as a tar, from a server or a repository is used as it
//! is, as BuildKit does, and a `.dockerignore` in it is worth a warning.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::build::Events;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::fetch::{Fetcher, Remote};
use crate::layer::{ensure_tree, extract_contents};
use crate::plan::{self, BuildGraph, ContextName, GitSource, Op};
use crate::request::{BuildRequest, ContextSource, DockerfileInContext, DockerfileSource};
use crate::store::{LayerDescriptor, Store};
use crate::tree::{FollowLast, Kind, MergedTree};
use crate::worker::{Context, ContextFiles, Root};

/// Names of a Dockerfile in a context, the likeliest first.
const NAMES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];
/// More bytes are no Dockerfile.
const DOCKERFILE_LIMIT: u64 = 16 << 20;

/// The Dockerfile, and the main context if it had to be fetched for that.
pub(super) struct Main<'r> {
    pub(super) dockerfile: Cow<'r, DockerfileSource>,
    files: Option<ContextFiles>,
}

/// Finds the Dockerfile.
pub(super) fn main<'r>(
    request: &'r BuildRequest,
    fetcher: &Fetcher,
    store: &Store,
    events: Events<'_>,
) -> Result<Main<'r>, Error> {
    let Some(which) = &request.dockerfile_in_context else {
        return Ok(Main { dockerfile: Cow::Borrowed(&request.dockerfile), files: None });
    };
    let layer = match &request.context {
        ContextSource::Archive(path) => fetcher.archive(path)?,
        ContextSource::Git(url) => fetcher.git(&git_source(request, url)?)?,
        ContextSource::Http(url) => match fetcher.remote(url)? {
            Remote::Tree(layer) => layer,
            Remote::File(file) => {
                if let DockerfileInContext::Path(path) = which {
                    let text = format!("{url} is a single file, in which there is no {path:?}");
                    return Err(Error::new(ErrorKind::Context, text));
                }
                let read = store.read_blob(&file.digest, DOCKERFILE_LIMIT);
                let bytes = read.map_err(|error| Error::from_source(ErrorKind::Context, &error))?;
                if bytes.trim_ascii_start().starts_with(b"<") {
                    let error =
                        Error::new(ErrorKind::Context, format!("{url} is a web page, neither a tar nor a Dockerfile"));
                    return Err(error.hint("the URL of a git repository ends in .git"));
                }
                let dockerfile = Cow::Owned(dockerfile(url, bytes)?);
                return Ok(Main { dockerfile, files: Some(ContextFiles::Stored(Root::scratch())) });
            }
        },
        _ => return Err(Error::new(ErrorKind::Request, "the caller must read the Dockerfile of this kind of context")),
    };
    let found = find_dockerfile(store, &layer, which)?;
    let ignored = ignore_file(store, &layer, &found.name)?;
    if let Some(name) = ignored {
        let message = format!("{name} is not applied: ignore rules are for contexts that are directories");
        events(Event::Warning { code: "ignore-file-unused".to_owned(), message });
    }
    let files = ContextFiles::Stored(Root::scratch().with(vec![layer]));
    Ok(Main { dockerfile: Cow::Owned(found), files: Some(files) })
}

fn store_error(error: &dyn std::error::Error) -> Error {
    Error::from_source(ErrorKind::Store, error)
}

fn tree(store: &Store, layer: &LayerDescriptor) -> Result<MergedTree, Error> {
    let mut tree = MergedTree::new();
    tree.apply(&ensure_tree(store, layer).map_err(|error| store_error(&error))?, 0);
    Ok(tree)
}

/// Reads the Dockerfile from the context; links lead to files of the context alone.
fn find_dockerfile(
    store: &Store,
    layer: &LayerDescriptor,
    which: &DockerfileInContext,
) -> Result<DockerfileSource, Error> {
    let tree = tree(store, layer)?;
    let names: Vec<&str> = match which {
        DockerfileInContext::Default => NAMES.to_vec(),
        DockerfileInContext::Path(path) => vec![path],
    };
    let find = |name: &&str| {
        let path = tree.resolve(name.as_bytes(), FollowLast::Yes).ok()?;
        let node = tree.get(&path)?;
        let Kind::File { size, .. } = node.kind else { return None };
        let inner = node.link.map_or_else(|| path.clone(), <[u8]>::to_vec);
        Some(((*name).to_owned(), inner, *size))
    };
    let Some((name, path, size)) = names.iter().find_map(find) else {
        let text = format!("there is no {} in the context", names[0]);
        return Err(Error::new(ErrorKind::Context, text).hint("name the Dockerfile with -f, relative to the context"));
    };
    if size > DOCKERFILE_LIMIT {
        return Err(Error::new(ErrorKind::Context, format!("{name} is too large for a Dockerfile: {size} bytes")));
    }
    let work = store.work_dir().map_err(|error| store_error(&error))?;
    let file = work.path().join("Dockerfile");
    let wanted = BTreeMap::from([(path, file.clone())]);
    extract_contents(store, layer, &wanted).map_err(|error| store_error(&error))?;
    let bytes = std::fs::read(&file).map_err(|error| store_error(&error))?;
    dockerfile(&name, bytes)
}

fn dockerfile(name: &str, bytes: Vec<u8>) -> Result<DockerfileSource, Error> {
    let text = String::from_utf8(bytes);
    let text = text.map_err(|_| Error::new(ErrorKind::Dockerfile, format!("{name} is not UTF-8 text")))?;
    Ok(DockerfileSource { name: name.to_owned(), text, ignore: None })
}

/// An ignore file that would count if the context were a directory.
fn ignore_file(store: &Store, layer: &LayerDescriptor, dockerfile: &str) -> Result<Option<String>, Error> {
    let tree = tree(store, layer)?;
    let names = [format!("{dockerfile}.dockerignore"), ".dockerignore".to_owned()];
    Ok(names.into_iter().find(|name| tree.get(name.as_bytes()).is_some()))
}

fn git_source(request: &BuildRequest, url: &str) -> Result<GitSource, Error> {
    let args = request.build_args.iter().rev();
    let keep = args.into_iter().find(|(name, _)| name == "BUILDKIT_CONTEXT_KEEP_GIT_DIR").map(|(_, value)| value);
    let keep = keep.is_some_and(|value| plan::parse_bool(value) == Some(true));
    plan::git_context(url, keep)
        .map_err(|problem| Error::new(ErrorKind::Request, format!("invalid git URL {url:?}: {problem}")))
}

/// The contexts that the plan uses; those that must be fetched are not yet, unless the Dockerfile was in them.
pub(super) fn used(
    request: &BuildRequest,
    main: Main<'_>,
    graph: &BuildGraph,
    store: &Store,
) -> Result<HashMap<ContextName, ContextFiles>, Error> {
    let mut contexts = HashMap::new();
    for step in &graph.steps {
        let Op::Context(name) = &step.op else { continue };
        let files = match (name, &main.files) {
            (ContextName::Main, Some(files)) => files.clone(),
            (ContextName::Main, None) => open(request, &request.context, main.dockerfile.ignore.as_ref(), store)?,
            (ContextName::Named(wanted), _) => {
                let found = request.build_contexts.iter().rev().find(|(name, _)| name == wanted);
                let missing = || Error::new(ErrorKind::Internal, format!("there is no context {wanted:?}"));
                open(request, found.map(|(_, source)| source).ok_or_else(missing)?, None, store)?
            }
        };
        contexts.insert(name.clone(), files);
    }
    Ok(contexts)
}

fn open(
    request: &BuildRequest,
    source: &ContextSource,
    rules: Option<&(String, String)>,
    store: &Store,
) -> Result<ContextFiles, Error> {
    Ok(match source {
        ContextSource::Directory(path) => ContextFiles::Local(Arc::new(Context::open(path, rules, store)?)),
        ContextSource::Archive(path) => ContextFiles::Archive(path.clone()),
        ContextSource::Http(url) => ContextFiles::Http(url.clone()),
        ContextSource::Git(url) => ContextFiles::Git(git_source(request, url)?),
        // Images are not opened as contexts: the plan makes other steps of them.
        ContextSource::Empty
        | ContextSource::Image(_)
        | ContextSource::OciLayout { .. }
        | ContextSource::OciArchive { .. }
        | ContextSource::DockerArchive { .. } => ContextFiles::Stored(Root::scratch()),
    })
}
