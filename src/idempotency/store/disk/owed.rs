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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::exchange::trail::End;
    use crate::idempotency::store::made::{exchange, settlement};

    /// An end that is owed for the nth key, with an answer of so many bytes.
    fn debt(n: u64, bytes: usize, epoch: u64) -> Debt {
        let answer = Record::new(StatusCode::OK, &HeaderMap::new(), Bytes::from(vec![0; bytes]));
        let id = RecordId(*blake3::hash(&n.to_be_bytes()).as_bytes());
        let name = Name { id, exchange: exchange(), epoch, shared: None };
        let settlement = Settlement { record: Some(answer), ..settlement(End::Completed) };
        Debt { name, due: Due::End(Arc::new(settlement), None) }
    }

    fn has_answer(owed: &Owed, debt: &Debt) -> Option<bool> {
        let known = owed.of(&debt.name.id)?.known().expect("it is answered");
        Some(known.record.is_some())
    }

    #[test]
    fn so_many_ends_are_owed_and_no_more() {
        let owed = Owed::default();
        for n in 1..ENDS_MAX as u64 {
            owed.add(debt(n, 0, 1));
        }
        let (at, over) = (debt(1 << 32, 0, 1), debt(1 << 33, 0, 1));
        owed.add(at.clone());
        owed.add(over.clone());
        assert_eq!((has_answer(&owed, &at), has_answer(&owed, &over)), (Some(true), None));
        owed.paid(&at.name);
        owed.add(over.clone());
        assert_eq!(has_answer(&owed, &over), Some(true));
    }

    #[test]
    fn so_many_bytes_of_answers_are_owed_and_no_more() {
        let one = debt(1, 0, 1).bytes();
        let most = usize::try_from(BYTES_MAX - 2 * one).expect("it fits");
        for (more, is_kept) in [(0, true), (1, false)] {
            let owed = Owed::default();
            let (first, second) = (debt(1, most / 2, 1), debt(2, most - most / 2 + more, 1));
            owed.add(first.clone());
            owed.add(second.clone());
            assert_eq!(has_answer(&owed, &first), Some(true));
            assert_eq!(has_answer(&owed, &second), Some(is_kept), "its end is kept in any case");
        }
    }

    #[test]
    fn a_late_owners_end_is_owed_by_nobody() {
        let owed = Owed::default();
        let (late, current) = (debt(1, 10, 1), debt(1, 20, 2));
        owed.add(current.clone());
        owed.add(late.clone());
        assert_eq!(owed.of(&late.name.id).map(|debt| debt.name.epoch), Some(2));
        owed.paid(&late.name);
        assert!(owed.of(&current.name.id).is_some(), "nor is it paid with another's");
    }
}
