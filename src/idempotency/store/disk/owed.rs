//! Ends that the file did not take: they are written before anybody claims their key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Place;

use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::scope::RecordId;
use crate::idempotency::store::claim::Name;
use crate::idempotency::store::disk::rows::ends_answered;
use crate::idempotency::store::{Completed, Record, Settlement};

/// Ends that are owed to the file, one a key.
#[derive(Debug, Default)]
pub(super) struct Owed {
    ends: DashMap<RecordId, Debt>,
    /// Bytes of the answers among them.
    bytes: AtomicU64,
}

/// One end that the file did not take.
#[derive(Clone, Debug)]
pub(super) struct Debt {
    pub(super) name: Name,
    pub(super) due: Due,
}

/// What is to be written.
#[derive(Clone, Debug)]
pub(super) enum Due {
    /// Nothing was sent: no row is to stay.
    Withdrawal,
    /// How it ended, and what was asked, as far as that is known.
    End(Arc<Settlement>, Option<Fingerprint>),
}

impl Owed {
    /// Remembers an end, where there is room; past it, it is unknown to whoever asks next.
    pub(super) fn add(&self, mut debt: Debt) {
        if self.bytes.load(Ordering::Relaxed) + debt.bytes() > BYTES_MAX {
            debt.drop_answer();
        }
        let (is_full, bytes) = (self.ends.len() >= ENDS_MAX, debt.bytes());
        match self.ends.entry(debt.name.id) {
            // A late owner's end is nothing beside that of the life that came after.
            Place::Occupied(place) if place.get().name.epoch > debt.name.epoch => return,
            Place::Occupied(mut place) => {
                let before = place.insert(debt);
                self.bytes.fetch_sub(before.bytes(), Ordering::Relaxed);
            }
            Place::Vacant(_) if is_full => return,
            Place::Vacant(place) => drop(place.insert(debt)),
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What is owed for a key.
    pub(super) fn of(&self, id: &RecordId) -> Option<Debt> {
        self.ends.get(id).map(|debt| debt.clone())
    }

    /// All that is owed.
    pub(super) fn all(&self) -> Vec<Debt> {
        self.ends.iter().map(|debt| debt.clone()).collect()
    }

    /// Notes that one was written.
    pub(super) fn paid(&self, name: &Name) {
        let same = |_: &RecordId, debt: &mut Debt| debt.name.epoch == name.epoch;
        if let Some((_, debt)) = self.ends.remove_if_mut(&name.id, same) {
            self.bytes.fetch_sub(debt.bytes(), Ordering::Relaxed);
        }
    }
}

impl Debt {
    /// What is known of its key: a good answer is one before the file has it.
    pub(super) fn known(&self) -> Option<Completed> {
        match &self.due {
            Due::Withdrawal => None,
            Due::End(settlement, fingerprint) => ends_answered(settlement).then(|| Completed {
                fingerprint: *fingerprint,
                exchange: self.name.exchange,
                record: settlement.record.clone(),
                captured: settlement.captured.clone(),
            }),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        match &self.due {
            Due::Withdrawal => 0,
            Due::End(settlement, _) => settlement.record.as_ref().map_or(0, Record::size),
        }
    }

    fn drop_answer(&mut self) {
        match &mut self.due {
            Due::Withdrawal => {}
            Due::End(settlement, _) => Arc::make_mut(settlement).record = None,
        }
    }
}

/// Ends that wait for the disk: a minute of a busy sidecar.
pub(super) const ENDS_MAX: usize = 10_000;
/// Bytes of the answers among them: past it, an end is kept without its answer.
pub(super) const BYTES_MAX: u64 = 64 * 1024 * 1024;
