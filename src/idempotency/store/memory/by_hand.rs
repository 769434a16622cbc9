//! What an operator says about a key that is kept in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use dashmap::mapref::entry::Entry as Place;

use crate::exchange::id::ExchangeId;
use crate::idempotency::scope::RecordId;
use crate::idempotency::store::ledger;
use crate::idempotency::store::memory::{Memory, State};
use crate::journal::State as Become;
use crate::journal::resolve::{Freed, Resolution, Resolved, Verdict};
use crate::journal::tally::Tally;

impl Memory {
    /// How many outcomes are unknown, and wait to be settled.
    pub(in crate::idempotency::store) fn tally_unknowns(&self) -> Vec<Tally> {
        let mut counts = BTreeMap::new();
        for (route, id) in self.0.recent.unknowns() {
            let closed = id.is_some_and(|id| self.0.entries.contains_key(&id));
            *counts.entry((route, closed)).or_default() += 1;
        }
        let counts = counts.into_iter();
        counts.map(|((route, closed), count)| Tally { route, closed, count }).collect()
    }

    /// Settles an unknown outcome by what an operator knows.
    pub(in crate::idempotency::store) fn resolve(
        &self,
        exchange: ExchangeId,
        verdict: Verdict,
    ) -> Resolution {
        let parts = exchange.parts();
        let Some((row, id)) = self.0.recent.change(parts, |_row| ()) else {
            return Resolution::Missing;
        };
        if row.state != Become::Unknown {
            return Resolution::Stands(row.state);
        }
        if let Some(id) = id
            && let Place::Occupied(mut place) = self.0.entries.entry(id)
            && matches!(place.get().state, State::Unknown)
        {
            match verdict {
                Verdict::Landed => {
                    let (none, kept) = (Duration::ZERO, ledger::RESOLVED_FOR);
                    place.get_mut().state = State::completed(None, row.captured, none, kept);
                }
                Verdict::Absent => {
                    self.0.give_back(&place.get().state);
                    place.remove();
                }
            }
        }
        let (ended, state) = (self.now().wall, ledger::resolved(verdict));
        self.0.recent.change(parts, |row| (row.state, row.ended) = (state, Some(ended)));
        let keep = crate::journal::moment::micros(ledger::RESOLVED_FOR);
        Resolution::Settled(Resolved { id: id.map(|id| id.0), shared_epoch: None, keep })
    }

    /// Opens a key by hand.
    pub(in crate::idempotency::store) fn free(&self, key: &str) -> Freed {
        let rows = self.0.recent.with_key(key);
        let held: Vec<(RecordId, Become)> =
            rows.into_iter().filter(|(id, _)| self.0.entries.contains_key(id)).collect();
        let busy =
            |(_, state): &&(RecordId, Become)| matches!(state, Become::InFlight | Become::Unknown);
        if let Some((_, state)) = held.iter().find(busy) {
            return Freed::Busy(*state);
        }
        for (id, _) in &held {
            self.forget(id);
        }
        let mut ids: Vec<_> = held.into_iter().map(|(id, _)| id.0).collect();
        ids.sort_unstable();
        ids.dedup();
        Freed::Ids(ids)
    }
}
