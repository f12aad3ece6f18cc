//! Paths inside the layer, through its own symlinks.

use super::{Changeset, Error, Result, implied_directory};
use crate::tree::Kind;
use crate::tree::path::{join, parent};

/// Most symlinks on the way of one path.
const MAX_SYMLINKS: usize = 255;
/// Most work in the whole layer that following symlinks may cost: bytes of targets and components behind them.
pub(super) const MAX_SYMLINK_STEPS: u64 = 50_000_000;
/// What to do about a directory that is not there.
pub(super) enum Missing<'a> {
    /// Make it and note it.
    Make(&'a mut Vec<Vec<u8>>),
    /// Give up.
    Refuse,
}

impl Changeset {
    /// The directory an entry at `dir` goes into, made where it is missing.
    pub(super) fn directory(&mut self, dir: &[u8], entry: &[u8], made: &mut Vec<Vec<u8>>) -> Result<Vec<u8>> {
        let resolved = self.resolve(dir, entry, &mut Missing::Make(made))?;
        Ok(resolved.unwrap_or_default())
    }

    /// Follows symlinks inside the layer. `None` if something is missing and may not be made.
    pub(super) fn resolve(&mut self, dir: &[u8], entry: &[u8], missing: &mut Missing<'_>) -> Result<Option<Vec<u8>>> {
        // Names in the map have no symlink above them.
        if self.names.get(dir).is_some_and(|inode| self.is_directory(*inode)) {
            return Ok(Some(dir.to_vec()));
        }
        let not_a_directory = || Error::NotADirectory { path: entry.to_vec() };
        let too_many = || Error::TooManySymlinks { path: entry.to_vec() };
        let mut todo: Vec<Vec<u8>> = components_reversed(dir).collect();
        let mut at: Vec<u8> = Vec::new();
        let mut symlinks = 0;
        while let Some(component) = todo.pop() {
            if symlinks > 0 {
                self.symlink_steps += 1;
                if self.symlink_steps > MAX_SYMLINK_STEPS {
                    return Err(too_many());
                }
            }
            match &component[..] {
                b"" | b"." => continue,
                b".." => {
                    at.truncate(parent(&at).map_or(0, <[u8]>::len));
                    continue;
                }
                _ => {}
            }
            let next = join(&at, &component);
            match self.names.get(&next).map(|inode| &self.nodes[inode.0].kind) {
                Some(Kind::Directory { .. }) => at = next,
                Some(Kind::Symlink { target }) => {
                    symlinks += 1;
                    self.symlink_steps += target.len() as u64;
                    if symlinks > MAX_SYMLINKS {
                        return Err(too_many());
                    }
                    if target.starts_with(b"/") {
                        at.clear();
                    }
                    todo.extend(components_reversed(target));
                }
                Some(_) => return Err(not_a_directory()),
                None => match missing {
                    Missing::Refuse => return Ok(None),
                    Missing::Make(made) => {
                        self.charge_bytes(next.len())?;
                        self.add(next.clone(), implied_directory());
                        made.push(next.clone());
                        at = next;
                    }
                },
            }
        }
        Ok(Some(at))
    }
}

fn components_reversed(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.rsplit(|byte| *byte == b'/').map(<[u8]>::to_vec)
}
