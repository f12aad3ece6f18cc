//! Caches that builds on different machines share: results of steps in a registry, in a directory, or inside an image.
//!
//! What a build shares is one ordinary OCI manifest, tagged by each cache key that it has a result for:
//!
//! ```text
//! REPOSITORY:<cache key>  ─┐
//! REPOSITORY:<cache key>  ─┼▶ manifest   application/vnd.oci.image.manifest.v1+json
//! REPOSITORY:TAG          ─┘   config    application/vnd.oci.image.config.v1+json
//!                              │           rootfs.diff_ids   of layers[0..n]
//!                              │           "builder.cache"   { version, records, levels, trees, described }
//!                              layers    [0..n]  layers of steps, the image's own blobs
//!                                        [n..]   application/vnd.builder.tree.v1   tables of contents
//!
//! records  { key, layers: [numbers], created, made }   a step's result; no layers: it changed nothing
//!          { key, described: [numbers] }               the same, but its layers are only described
//! levels   [level or null]                             compression level of each layer
//! trees    [{ diff_id, blob: number }]                 what the layer with this diff ID holds, without the layer
//! described [{ digest, size, diff_id, media_type }]    layers whose bytes are not shared
//! ```
//!
//! There is no table that builders share, so any number of them write at once and none waits: each manifest is complete
//! in itself, a tag is replaced as a whole, and which of two results of one key it names does not matter. One request
//! for the first step of a build usually gives the records of all; a key that no manifest read so far has is asked for
//! by its tag. `TAG`, which a user may give, is the manifest of the last build that was told to write it.
//!
//! The smallest cache has the layers of the stage that is built and only describes the others: keys and trees are
//! enough to find that the image is the same. Who wants to read such a layer starts over without these results. They
//! are not tagged by their keys, so that they are in nobody's way.
//!
//! In a directory the manifest is the only entry of an OCI layout: what it does not reach is removed when it is
//! written. An inline cache is the same field in the config of an image, where the layers are the image's and there are
//! no trees. The key of a base image's chain of layers has a record without layers: it says that the trees are here.
//!
//! Cache mounts are shared in the same form: a record under the name of the mount, whose layers are its parts.
//!
//! **Nothing is fetched that nobody reads.** A hit promises its layers to the store ([`crate::store`]), which gets one
//! when somebody opens it; trees are enough to go on until then. **Nothing is believed that can be checked.** Documents
//! have limits and typed digests, blobs are verified while they are read, and when a layer comes its diff ID and its
//! tree are held against what was promised. What cannot be checked is that the step really makes this layer: a cache is
//! as trusted as whoever may write to it. Keys are hashes, and neither their parts nor secrets are shared.
//!
//! Any number of builds may read and write at the same time. A directory is locked while it is written, and what a
//! reader has found in it stays open.

mod document;
mod error;
mod export;
mod import;
mod source;

#[cfg(test)]
mod tests;

pub(crate) use document::CONFIG_FIELD;
pub(crate) use error::Error;
pub(crate) use export::{Bundle, Entry, inline};
pub(crate) use import::{Broken, Found, Shared};
