//! What was answered lately, kept in memory, so that a replay does not touch the disk.

use quick_cache::Weighter;
use quick_cache::sync;

use crate::idempotency::scope::RecordId;
use crate::idempotency::store::{Completed, Record};
use crate::journal::Moment;

/// Answers that were given lately, up to so many bytes of them.
#[derive(Debug)]
pub(super) struct Cache {
    answers: sync::Cache<RecordId, Hot, ByBytes>,
    /// The largest that is kept: one must not drive out all others.
    one_max: u64,
}

/// An answer that was given lately.
#[derive(Clone, Debug)]
pub(super) struct Hot {
    pub(super) done: Completed,
    pub(super) ended: Moment,
    pub(super) ttl: i64,
}

impl Cache {
    pub(super) fn new(bytes_max: u64) -> Self {
        let items = usize::try_from(bytes_max / (4 * HOT_BYTES)).unwrap_or(usize::MAX);
        let answers = sync::Cache::with_weighter(items.max(1), bytes_max, ByBytes);
        Self { answers, one_max: bytes_max / 8 }
    }

    /// The answer to a key, while it is kept.
    pub(super) fn get(&self, id: &RecordId, now: Moment) -> Option<Hot> {
        let hot = self.answers.get(id)?;
        if hot.ended.least_age(now) < hot.ttl {
            return Some(hot);
        }
        self.answers.remove(id);
        None
    }

    /// Keeps an answer, where it is small enough, and it is known what it answers.
    pub(super) fn insert(&self, id: RecordId, hot: Hot) {
        let size = hot.done.record.as_ref().map(Record::size);
        // What was asked may become known later: it is the file that is told of it.
        let is_known = hot.done.fingerprint.is_some();
        if is_known && size.is_some_and(|size| size <= self.one_max) {
            self.answers.insert(id, hot);
        }
    }

    pub(super) fn remove(&self, id: &RecordId) {
        self.answers.remove(id);
    }
}

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<RecordId, Hot> for ByBytes {
    fn weight(&self, _id: &RecordId, hot: &Hot) -> u64 {
        HOT_BYTES + hot.done.record.as_ref().map_or(0, Record::size)
    }
}

/// What an entry costs in memory beside its record.
const HOT_BYTES: u64 = 256;
