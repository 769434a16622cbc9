//! Ends that the file did not take: they are written before anybody claims their key.

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Place;

use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::scope::RecordId;
use crate::idempotency::store::claim::Name;
use crate::idempotency::store::disk::rows::ends_answered;
use crate::idempotency::store::{Completed, Record, Settlement};

/// Ends that are owed to the file, one a key.
#[derive(Debug, Default)]
pub(super) struct Owed(DashMap<RecordId, Debt>);

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
        let room = BYTES_MAX.saturating_sub(self.0.iter().map(|debt| debt.bytes()).sum());
        if debt.bytes() > room {
            debt.drop_answer();
        }
        let is_full = self.0.len() >= ENDS_MAX;
        match self.0.entry(debt.name.id) {
            // A late owner's end is nothing beside that of the life that came after.
            Place::Occupied(place) if place.get().name.epoch > debt.name.epoch => {}
            Place::Occupied(mut place) => drop(place.insert(debt)),
            Place::Vacant(_) if is_full => {}
            Place::Vacant(place) => drop(place.insert(debt)),
        }
    }

    /// What is owed for a key.
    pub(super) fn of(&self, id: &RecordId) -> Option<Debt> {
        self.0.get(id).map(|debt| debt.clone())
    }

    /// All that is owed.
    pub(super) fn all(&self) -> Vec<Debt> {
        self.0.iter().map(|debt| debt.clone()).collect()
    }

    /// Notes that one was written.
    pub(super) fn paid(&self, name: &Name) {
        self.0.remove_if(&name.id, |_, debt| debt.name.epoch == name.epoch);
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

    fn bytes(&self) -> u64 {
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
const ENDS_MAX: usize = 10_000;
/// Bytes of the answers among them: past it, an end is kept without its answer.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
