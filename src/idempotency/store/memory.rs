//! Claims and records in this process, for as long as it lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Place;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::exchange::Failure;
use crate::exchange::id::ExchangeId;
use crate::exchange::trail::End;
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::scope::RecordId;
use crate::idempotency::store::{
    Claim, Completed, Open, Progress, Record, Reserved, Settlement, Stage, Store, Waiter,
};

/// A store in memory; a clone shares it.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    entries: DashMap<RecordId, Entry>,
    bytes: AtomicU64,
    bytes_max: u64,
    epochs: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    epoch: u64,
    exchange: ExchangeId,
    fingerprint: Option<Fingerprint>,
    first_sent: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    InFlight(watch::Receiver<Progress>),
    Completed {
        record: Option<Record>,
        captured: Vec<(String, String)>,
        /// When the answer goes.
        kept_until: Instant,
        /// When the key goes.
        known_until: Instant,
    },
    Unknown,
}

impl Memory {
    /// Keeps up to `bytes_max` bytes, keys and answers together.
    pub fn new(bytes_max: u64) -> Self {
        Self(Arc::new(Inner {
            entries: DashMap::new(),
            bytes: AtomicU64::new(0),
            bytes_max,
            epochs: AtomicU64::new(1),
        }))
    }

    pub(super) fn reserve(
        &self,
        store: &Store,
        id: RecordId,
        (fingerprint, exchange): (Option<Fingerprint>, ExchangeId),
        now: Instant,
    ) -> Result<Reserved, Failure> {
        match self.0.entries.entry(id) {
            Place::Occupied(mut place) => {
                if !place.get().is_gone(now) {
                    place.get_mut().expire(now, &self.0.bytes);
                    return Ok(place.get().reserved());
                }
                self.0.give_back(&place.get().state);
                let (entry, claim) = self.begin(store, id, (fingerprint, exchange), now);
                self.0.bytes.fetch_add(ENTRY_BYTES, Ordering::Relaxed);
                place.insert(entry);
                Ok(Reserved::Claimed(claim))
            }
            Place::Vacant(place) => {
                if !self.0.take(ENTRY_BYTES, self.0.most()) {
                    return Err(Failure::StoreUnavailable("state.max_size is used up"));
                }
                let (entry, claim) = self.begin(store, id, (fingerprint, exchange), now);
                place.insert(entry);
                Ok(Reserved::Claimed(claim))
            }
        }
    }

    pub(super) fn resume(&self, store: &Store, id: RecordId, open: &Open) -> Option<Claim> {
        let mut entry = self.0.entries.get_mut(&id)?;
        let ours = matches!(entry.state, State::Unknown) && entry.epoch == open.epoch;
        if !ours {
            return None;
        }
        let asked = (entry.fingerprint, entry.exchange);
        let (fresh, mut claim) = self.begin(store, id, asked, entry.first_sent);
        claim.ambiguous_before = true;
        *entry = fresh;
        Some(claim)
    }

    pub(super) fn identify(&self, id: &RecordId, epoch: u64, fingerprint: Fingerprint) {
        if let Some(mut entry) = self.0.entries.get_mut(id)
            && entry.epoch == epoch
        {
            entry.fingerprint = Some(fingerprint);
        }
    }

    pub(super) fn settle(&self, id: RecordId, epoch: u64, settlement: Settlement) {
        let Place::Occupied(mut place) = self.0.entries.entry(id) else { return };
        let current = place.get().epoch == epoch && matches!(place.get().state, State::InFlight(_));
        if !current {
            return; // a late owner changes nothing
        }
        if !settlement.stays || settlement.end == End::Released {
            self.0.give_back(&place.get().state);
            place.remove();
            return;
        }
        place.get_mut().state = match settlement.end {
            End::Completed | End::NotRetained => {
                // The last part is for keys alone: a store full of answers still takes them.
                let most = self.0.most() - self.0.most() / KEYS_SHARE;
                let fits = |record: &Record| self.0.take(record.size(), most);
                let record = settlement.record.filter(fits);
                let kept_until = Instant::now() + settlement.ttl;
                let known_until = kept_until + settlement.keep_key;
                State::Completed { record, captured: settlement.captured, kept_until, known_until }
            }
            End::Unknown | End::Released => State::Unknown,
        };
    }

    pub(super) fn forget(&self, id: &RecordId) {
        let settled = |entry: &Entry| !matches!(entry.state, State::InFlight(_));
        if let Some((_, entry)) = self.0.entries.remove_if(id, |_, entry| settled(entry)) {
            self.0.give_back(&entry.state);
        }
    }

    pub(super) fn sweep(&self, now: Instant) {
        self.0.entries.retain(|_, entry| {
            if entry.is_gone(now) {
                self.0.give_back(&entry.state);
                return false;
            }
            entry.expire(now, &self.0.bytes);
            true
        });
    }

    pub(super) fn size(&self) -> (u64, u64) {
        (self.0.entries.len() as u64, self.0.bytes.load(Ordering::Relaxed))
    }

    fn begin(
        &self,
        store: &Store,
        id: RecordId,
        (fingerprint, exchange): (Option<Fingerprint>, ExchangeId),
        first_sent: Instant,
    ) -> (Entry, Claim) {
        let epoch = self.0.epochs.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = watch::channel(Progress { fingerprint, told: None });
        let state = State::InFlight(receiver);
        let entry = Entry { epoch, exchange, fingerprint, first_sent, state };
        let claim = Claim {
            id,
            epoch,
            first_sent,
            ambiguous_before: false,
            progress: sender,
            store: store.clone(),
            stage: Stage::Held,
        };
        (entry, claim)
    }
}

impl Inner {
    fn most(&self) -> u64 {
        self.bytes_max
    }

    fn take(&self, bytes: u64, most: u64) -> bool {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= most;
        if !fits {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }

    fn give_back(&self, state: &State) {
        let record = match state {
            State::Completed { record: Some(record), .. } => record.size(),
            State::Completed { record: None, .. } | State::InFlight(_) | State::Unknown => 0,
        };
        self.bytes.fetch_sub(ENTRY_BYTES + record, Ordering::Relaxed);
    }
}

impl Entry {
    fn reserved(&self) -> Reserved {
        match &self.state {
            State::InFlight(progress) => {
                Reserved::InFlight(Waiter { exchange: self.exchange, progress: progress.clone() })
            }
            State::Completed { record, captured, .. } => Reserved::Completed(Completed {
                fingerprint: self.fingerprint,
                exchange: self.exchange,
                record: record.clone(),
                captured: captured.clone(),
            }),
            State::Unknown => Reserved::Unknown(Open {
                fingerprint: self.fingerprint,
                exchange: self.exchange,
                first_sent: self.first_sent,
                epoch: self.epoch,
            }),
        }
    }

    fn is_gone(&self, now: Instant) -> bool {
        match &self.state {
            State::Completed { known_until, .. } => now >= *known_until,
            State::InFlight(_) | State::Unknown => false,
        }
    }

    /// Drops the answer of a key that outlives it.
    fn expire(&mut self, now: Instant, bytes: &AtomicU64) {
        if let State::Completed { record, kept_until, .. } = &mut self.state
            && now >= *kept_until
            && let Some(record) = record.take()
        {
            bytes.fetch_sub(record.size(), Ordering::Relaxed);
        }
    }
}

/// An eighth of the store is kept for keys: a quarter of a million of them in the default.
const KEYS_SHARE: u64 = 8;
/// What a key costs beside its answer: the entry, its place in the map, its channel.
const ENTRY_BYTES: u64 = 512;
