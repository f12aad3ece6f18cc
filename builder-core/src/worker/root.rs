//! The file system a step starts from or ends with: a chain of layers, whose trees are read only when asked for.

use std::sync::{Arc, OnceLock};

use crate::digest::{ChainId, DiffId};
use crate::store::LayerDescriptor;
use crate::tree::MergedTree;

/// A file system made of layers. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Root(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parent: Option<Root>,
    /// The layers that this root adds, lowest first.
    added: Vec<LayerDescriptor>,
    tree: OnceLock<Arc<MergedTree>>,
}

impl Root {
    /// The file system with nothing in it.
    pub(crate) fn scratch() -> Self {
        let tree = OnceLock::from(Arc::new(MergedTree::new()));
        Self(Arc::new(Inner { parent: None, added: Vec::new(), tree }))
    }

    /// The file system with `added` on top, lowest first.
    pub(crate) fn with(&self, added: Vec<LayerDescriptor>) -> Self {
        if added.is_empty() {
            return self.clone();
        }
        Self(Arc::new(Inner { parent: Some(self.clone()), added, tree: OnceLock::new() }))
    }

    /// All layers, lowest first.
    pub(crate) fn layers(&self) -> Vec<LayerDescriptor> {
        let mut chain = Vec::new();
        let mut at = Some(self);
        while let Some(root) = at {
            chain.push(root);
            at = root.0.parent.as_ref();
        }
        chain.iter().rev().flat_map(|root| root.0.added.iter().cloned()).collect()
    }

    /// Identity of the stack; `None` when it is empty.
    pub(crate) fn chain_id(&self) -> Option<ChainId> {
        let ids: Vec<DiffId> = self.layers().iter().map(|layer| layer.diff_id).collect();
        ChainId::of(&ids)
    }

    /// The parent of the last change and the layers of that change.
    pub(crate) fn parent(&self) -> Option<(&Self, &[LayerDescriptor])> {
        Some((self.0.parent.as_ref()?, &self.0.added))
    }

    /// How many layers it has.
    pub(crate) fn depth(&self) -> usize {
        self.0.added.len() + self.0.parent.as_ref().map_or(0, Self::depth)
    }

    /// The flattened tree, made by `read` the first time.
    pub(crate) fn tree<E>(&self, read: impl FnOnce() -> Result<MergedTree, E>) -> Result<Arc<MergedTree>, E> {
        if let Some(tree) = self.0.tree.get() {
            return Ok(tree.clone());
        }
        let tree = Arc::new(read()?);
        Ok(self.0.tree.get_or_init(|| tree).clone())
    }
}
