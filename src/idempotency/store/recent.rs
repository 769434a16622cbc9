//! The ledger of a store in memory: the last exchanges, for as long as the process lives.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::idempotency::scope::RecordId;
use crate::journal::State;
use crate::journal::ledger::{Entry, Filter, Note};

/// The last exchanges, oldest first.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<VecDeque<(Entry, Option<RecordId>)>>);

impl Recent {
    /// Notes an exchange as it begins.
    pub(super) fn begin(&self, entry: Entry, id: RecordId) {
        self.push(entry, Some(id));
    }

    /// Notes one that held no claim, as it ended.
    pub(super) fn note(&self, note: Note) {
        self.push(note.into(), None);
    }

    /// Changes one, where it is still there.
    pub(super) fn change(
        &self,
        (seq, instance): (u64, u32),
        change: impl FnOnce(&mut Entry),
    ) -> Option<(Entry, Option<RecordId>)> {
        let mut entries = self.lock();
        let mut newest_first = entries.iter_mut().rev();
        let (entry, id) =
            newest_first.find(|(entry, _)| (entry.seq, entry.instance) == (seq, instance))?;
        change(entry);
        Some((entry.clone(), *id))
    }

    /// Takes back one under which nothing was sent.
    pub(super) fn withdraw(&self, (seq, instance): (u64, u32)) {
        self.lock().retain(|(entry, _)| (entry.seq, entry.instance) != (seq, instance));
    }

    /// The entries that `filter` wants, newest first.
    pub(super) fn list(&self, filter: &Filter) -> Vec<Entry> {
        let entries = self.lock();
        let wanted = entries.iter().map(|(entry, _)| entry).filter(|entry| filter.wants(entry));
        let mut found: Vec<Entry> = wanted.cloned().collect();
        found.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.seq));
        found.truncate(usize::try_from(filter.limit).unwrap_or(usize::MAX));
        found
    }

    /// The routes of those whose outcome is unknown, and what their keys are found by.
    pub(super) fn unknowns(&self) -> Vec<(String, Option<RecordId>)> {
        let entries = self.lock();
        let unknown = entries.iter().filter(|(entry, _)| entry.state == State::Unknown);
        unknown.map(|(entry, id)| (entry.route.clone(), *id)).collect()
    }

    /// One entry.
    pub(super) fn show(&self, seq: u64, instance: u32) -> Option<Entry> {
        self.change((seq, instance), |_entry| ()).map(|(entry, _)| entry)
    }

    /// What the keys of these entries are found by, and in which state they are.
    pub(super) fn with_key(&self, key: &str) -> Vec<(RecordId, State)> {
        let entries = self.lock();
        let same = entries.iter().filter(|(entry, _)| entry.key.as_deref() == Some(key));
        same.filter_map(|(entry, id)| Some(((*id)?, entry.state))).collect()
    }

    fn push(&self, entry: Entry, id: Option<RecordId>) {
        let mut entries = self.lock();
        if entries.len() >= ENTRIES_MAX {
            // What is open has yet to be settled, perhaps by hand: it goes last.
            let is_settled =
                |(entry, _): &(Entry, _)| !matches!(entry.state, State::InFlight | State::Unknown);
            let oldest = entries.iter().position(is_settled).unwrap_or(0);
            entries.remove(oldest);
        }
        entries.push_back((entry, id));
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Entry, Option<RecordId>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A few MiB: enough to look back at, where nothing is meant to last.
const ENTRIES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Clock, NewRow};

    fn entry(seq: u64, state: State) -> Entry {
        let row = NewRow {
            seq,
            instance: 1,
            key: format!("key-{seq}"),
            route: "r".to_owned(),
            method: "POST".to_owned(),
            url: "https://a.test/".to_owned(),
            captured: None,
            began: Clock::System.now(0),
        };
        Entry { state, ..Entry::of(row) }
    }

    #[test]
    fn the_oldest_that_is_settled_goes_and_what_is_open_only_where_all_is() {
        let most = ENTRIES_MAX as u64;
        for (second, gone) in [(State::Completed, 2), (State::Unknown, 1)] {
            let recent = Recent::default();
            let shows = |seq| recent.show(seq, 1).is_some();
            for seq in 1..=most {
                let state = if seq == 2 { second } else { State::Unknown };
                recent.push(entry(seq, state), None);
            }
            assert!(shows(1) && shows(2) && shows(most), "at the limit all are there");
            recent.push(entry(most + 1, State::InFlight), None);
            for seq in [1, 2, 3, most + 1] {
                assert_eq!(shows(seq), seq != gone, "{seq}");
            }
        }
    }
}
