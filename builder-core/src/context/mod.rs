//! Build contexts: where the files come from that `COPY` and `ADD` take.
//!
//! A local directory is used in place: never copied as a whole, and of it only what is asked for is read. Listing
//! reads metadata, hashing reads content once and remembers it in a [`StatCache`], so that the next build costs a
//! `stat` per file. Names are bytes. No symlink leads out of the directory: sources are resolved inside it, and files
//! are opened by paths without symlinks.
//!
//! What the ignore rules leave out does not exist here, except to say so when it is missed
//! ([`LocalContext::why_missing`]).

mod collect;
mod ignore;
mod local;
mod snapshot;
mod stat_cache;

pub(crate) use ignore::IgnoreFile;
pub(crate) use local::{Error, Listed, LocalContext, Missing};
pub(crate) use snapshot::Snapshot;
pub(crate) use stat_cache::{Stamp, StatCache};
