//! Claims and records in this process, for as long as it lives.

mod by_hand;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Place;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::exchange::Failure;
use crate::exchange::id::ExchangeId;
use crate::exchange::trail::End;
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::scope::RecordId;
use crate::idempotency::store::claim::Name;
use crate::idempotency::store::recent::Recent;
use crate::idempotency::store::waiter::Progress;
use crate::idempotency::store::{
    Asked, Claim, Completed, Open, Record, Reserved, Settlement, Store, UnknownAt, Waiter, ledger,
};
use crate::journal::ledger::Entry as Row;
use crate::journal::{Clock, Moment, State as Become};

/// A store in memory; a clone shares it.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    entries: DashMap<RecordId, Entry>,
    bytes: AtomicU64,
    bytes_max: u64,
    epochs: AtomicU64,
    clock: Clock,
    recent: Recent,
}

#[derive(Debug)]
struct Entry {
    epoch: u64,
    exchange: ExchangeId,
    fingerprint: Option<Fingerprint>,
    first_sent: Moment,
    /// When its last exchange ended; meanwhile, when it began.
    ended: Moment,
    /// Where in the request the key stands.
    tag: Option<String>,
    /// Which life of the key it is in what replicas share.
    shared: Option<u64>,
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
    pub fn new(bytes_max: u64, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            entries: DashMap::new(),
            bytes: AtomicU64::new(0),
            bytes_max,
            epochs: AtomicU64::new(1),
            clock,
            recent: Recent::default(),
        }))
    }

    pub(super) fn reserve(&self, store: &Store, asked: &Asked) -> Result<Reserved, Failure> {
        let now = Instant::now();
        let claim = match self.0.entries.entry(asked.id) {
            Place::Occupied(mut place) => {
                if !place.get().is_gone(now) {
                    place.get_mut().expire(now, &self.0.bytes);
                    return Ok(place.get().reserved(self.now()));
                }
                self.0.give_back(&place.get().state);
                let (entry, claim) = self.begin(store, asked);
                self.0.bytes.fetch_add(ENTRY_BYTES, Ordering::Relaxed);
                place.insert(entry);
                claim
            }
            Place::Vacant(place) => {
                if !self.0.take(ENTRY_BYTES, self.0.most()) {
                    drop(place); // the others are looked through
                    return self.crowded(store, asked);
                }
                let (entry, claim) = self.begin(store, asked);
                place.insert(entry);
                claim
            }
        };
        self.0.recent.begin(
            Row::of(ledger::row(asked.exchange, asked.key.as_str(), &asked.about, self.now())),
            asked.id,
        );
        Ok(Reserved::Claimed(claim))
    }

    /// Answers give way to keys, those first that would go first; where there are none,
    /// no key is taken.
    fn crowded(&self, store: &Store, asked: &Asked) -> Result<Reserved, Failure> {
        let oldest = |entry: &Entry| match &entry.state {
            State::Completed { record: Some(_), kept_until, .. } => Some(*kept_until),
            State::Completed { .. } | State::InFlight(_) | State::Unknown => None,
        };
        let all = self.0.entries.iter();
        let mut kept: Vec<(Instant, RecordId)> =
            all.filter_map(|entry| Some((oldest(entry.value())?, *entry.key()))).collect();
        if kept.is_empty() {
            return Err(Failure::StoreUnavailable("state.max_size is used up"));
        }
        kept.sort_unstable();
        // A sixteenth of them at a time: it is not looked through for every key.
        kept.truncate(kept.len().div_ceil(16));
        for (until, id) in kept {
            if let Some(mut entry) = self.0.entries.get_mut(&id) {
                entry.expire(until, &self.0.bytes);
            }
        }
        self.reserve(store, asked)
    }

    pub(super) fn resume(&self, store: &Store, asked: &Asked, open: &Open) -> Option<Claim> {
        let id = asked.id;
        let mut entry = self.0.entries.get_mut(&id)?;
        let ours = matches!(entry.state, State::Unknown) && entry.epoch == open.epoch;
        if !ours {
            return None;
        }
        let name = Name { id, exchange: entry.exchange, epoch: self.next_epoch(), shared: None };
        let (state, claim) = Self::flight(store, name, entry.fingerprint);
        (entry.epoch, entry.state) = (name.epoch, state);
        if entry.tag != asked.tag {
            entry.tag = None;
        }
        self.0.recent.change(name.exchange.parts(), |row| row.state = Become::InFlight);
        Some(claim.again(open.age))
    }

    pub(super) fn identify(&self, id: &RecordId, epoch: u64, fingerprint: Fingerprint) {
        if let Some(mut entry) = self.0.entries.get_mut(id)
            && entry.epoch == epoch
        {
            entry.fingerprint = Some(fingerprint);
        }
    }

    pub(super) fn capture(&self, name: &Name, captured: &[(String, String)]) {
        self.0.recent.change(name.exchange.parts(), |row| {
            if row.state == Become::InFlight {
                row.captured = captured.to_vec();
            }
        });
    }

    pub(super) fn settle(&self, id: RecordId, epoch: u64, settlement: &Settlement) {
        let Place::Occupied(mut place) = self.0.entries.entry(id) else { return };
        let current = place.get().epoch == epoch && matches!(place.get().state, State::InFlight(_));
        if !current {
            return; // a late owner changes nothing
        }
        let ended = self.now().wall;
        let end = |row: &mut Row| ledger::end(row, settlement, ended);
        self.0.recent.change(place.get().exchange.parts(), end);
        if !settlement.stays || settlement.end == End::Released {
            self.0.give_back(&place.get().state);
            place.remove();
            return;
        }
        place.get_mut().ended = self.now();
        place.get_mut().state = match settlement.end {
            End::Completed | End::NotRetained => {
                // The last part is for keys alone: a store full of answers still takes them.
                let most = self.0.most() - self.0.most() / KEYS_SHARE;
                let fits = |record: &&Record| self.0.take(record.size(), most);
                let record = settlement.record.as_ref().filter(fits).cloned();
                let captured = settlement.captured.clone();
                State::completed(record, captured, settlement.ttl, settlement.keep_key)
            }
            End::Unknown | End::Released => State::Unknown,
        };
    }

    /// Notes that a key first went out earlier than was known here.
    pub(super) fn backdate(&self, name: &Name, first_sent_wall: i64) {
        if let Some(mut entry) = self.0.entries.get_mut(&name.id)
            && entry.epoch == name.epoch
        {
            entry.first_sent = Moment { wall: first_sent_wall, boot: ELSEWHERE, up: 0 };
        }
    }

    /// Notes which life of a key it is in what replicas share.
    pub(super) fn note_shared(&self, name: &Name, shared_epoch: u64) {
        if let Some(mut entry) = self.0.entries.get_mut(&name.id)
            && entry.epoch == name.epoch
        {
            entry.shared = Some(shared_epoch);
        }
    }

    /// Notes where in the request of a claim its key stands.
    pub(super) fn note_tag(&self, name: &Name, place: String) {
        if let Some(mut entry) = self.0.entries.get_mut(&name.id)
            && entry.epoch == name.epoch
        {
            entry.tag = Some(place);
        }
    }

    /// Ends a claim that was dropped on its way.
    pub(super) fn abandon(&self, claim: &Claim, open: bool) {
        self.settle(claim.id(), claim.epoch(), &Settlement::abandoned(open));
        if !open {
            self.0.recent.withdraw(claim.exchange().parts());
        }
    }

    /// What closes the key of an exchange whose outcome is unknown.
    pub(super) fn unknown(&self, exchange: ExchangeId) -> Option<UnknownAt> {
        let (row, id) = self.0.recent.change(exchange.parts(), |_row| ())?;
        let id = id.filter(|_| row.state == Become::Unknown)?;
        Some(UnknownAt { id, shared: None })
    }

    /// What was tried.
    pub(super) fn ledger(&self) -> &Recent {
        &self.0.recent
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

    fn begin(&self, store: &Store, asked: &Asked) -> (Entry, Claim) {
        let name =
            Name { id: asked.id, exchange: asked.exchange, epoch: self.next_epoch(), shared: None };
        let (state, claim) = Self::flight(store, name, asked.fingerprint);
        let entry = Entry {
            epoch: name.epoch,
            exchange: name.exchange,
            fingerprint: asked.fingerprint,
            first_sent: self.now(),
            ended: self.now(),
            tag: asked.tag.clone(),
            shared: None,
            state,
        };
        (entry, claim)
    }

    fn flight(store: &Store, name: Name, fingerprint: Option<Fingerprint>) -> (State, Claim) {
        let (sender, receiver) =
            watch::channel(Progress { claimed: false, fingerprint, told: None });
        (State::InFlight(receiver), Claim::fresh(store, name, sender))
    }

    fn next_epoch(&self) -> u64 {
        self.0.epochs.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn now(&self) -> Moment {
        self.0.clock.now(0)
    }
}

impl State {
    fn completed(
        record: Option<Record>,
        captured: Vec<(String, String)>,
        ttl: Duration,
        keep_key: Duration,
    ) -> Self {
        let kept_until = Instant::now() + ttl;
        Self::Completed { record, captured, kept_until, known_until: kept_until + keep_key }
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
    fn reserved(&self, now: Moment) -> Reserved {
        match &self.state {
            State::InFlight(progress) => {
                Reserved::InFlight(Waiter::here(self.exchange, progress.clone()))
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
                age: ledger::age(self.first_sent, now),
                quiet: ledger::quiet(self.ended, now),
                tag: self.tag.clone(),
                epoch: self.epoch,
                shared: self.shared,
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
/// No boot of this machine: by then only the wall clock counts.
const ELSEWHERE: i64 = -1;
/// What a key costs beside its answer: the entry, its place in the map, its channel.
const ENTRY_BYTES: u64 = 512;
