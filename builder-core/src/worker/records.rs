//! Results of steps in the store: looked up, noted, and with them what others may want to share.

use std::sync::PoisonError;

use super::root::Root;
use super::{BuildWorker, CREATED, MADE, StepOutput};
use crate::digest::CacheKey;
use crate::error::{Error, ErrorKind};
use crate::event::StepId;
use crate::solver::KeyParts;
use crate::store::Record;

impl BuildWorker<'_> {
    pub(super) fn set_created(&self, step: StepId, secs: i64) {
        self.created.lock().unwrap_or_else(PoisonError::into_inner).insert(step, secs);
    }

    /// When `step` was done, in seconds since 1970; `None` for a step that is never recorded.
    pub(crate) fn created(&self, step: StepId) -> Option<i64> {
        self.created.lock().unwrap_or_else(PoisonError::into_inner).get(&step).copied()
    }

    /// The result of a step here, or else in a shared cache.
    pub(super) fn lookup_record(&self, id: StepId, key: &CacheKey, parent: &Root) -> Result<Option<StepOutput>, Error> {
        let record = self.store.record(key).map_err(|error| Error::from_source(ErrorKind::Store, &error))?;
        let fact = |record: &Record, name| record.facts.get(name).and_then(|text| text.parse().ok());
        let young = |record: &Record| self.options.shared.is_young(fact(record, MADE).or(fact(record, CREATED)));
        let Some(record) = record.filter(young) else {
            let found = self.lookup_shared(id, key, parent)?;
            return Ok(found.map(|root| self.forget_work(id, root)));
        };
        if let Some(created) = fact(&record, CREATED) {
            self.set_created(id, created);
        }
        self.note_layers(id, &record.layers);
        let layers = record.layers.iter().map(|layer| self.variant(layer)).collect::<Result<Vec<_>, _>>()?;
        self.note_done(id, *key, &layers, &record, false);
        Ok(Some(self.forget_work(id, parent.with(layers))))
    }

    /// Notes what a step made.
    pub(super) fn record(&self, id: StepId, key: &KeyParts, parent: &Root, output: &StepOutput) -> Result<(), Error> {
        let StepOutput::Root(root) = output else { return Ok(()) };
        let layers = match root.parent() {
            Some((_, added)) if root.depth() > parent.depth() => added.to_vec(),
            _ => Vec::new(),
        };
        let created = self.options.now.secs.to_string();
        let facts = [(CREATED.to_owned(), created), (MADE.to_owned(), self.options.clock.to_string())].into();
        self.note_layers(id, &layers);
        let record = Record { layers, parts: key.readable(), facts };
        self.note_done(id, key.key(), &record.layers, &record, true);
        let put = self.store.put_record(&key.key(), &record);
        put.map_err(|error| Error::from_source(ErrorKind::Store, &error))
    }

    /// What was worked out for a step that need not be done.
    fn forget_work(&self, id: StepId, root: Root) -> StepOutput {
        self.transfers().remove(&id);
        self.selections().remove(&id);
        StepOutput::Root(root)
    }
}
