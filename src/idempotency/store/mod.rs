//! Claims and responses at rest.
//!
//! ```text
//! NEW ─ reserve ─► IN FLIGHT ─ settle ─► COMPLETED ─ ttl ─► gone
//!                      │  └───────────► gone (released: the key is free)
//!                      └──────────────► UNKNOWN ─ resume ─► IN FLIGHT
//! ```
//!
//! # Invariants
//!
//! - One claim a key at a time, and its epoch is checked whenever it is settled:
//!   a late owner changes nothing.
//! - A claim that is dropped unsettled leaves UNKNOWN if anything may have been sent.
//! - UNKNOWN never becomes anything else by time alone.

pub mod memory;
pub mod record;
pub mod redis;

#[cfg(test)]
mod contract;
#[cfg(test)]
mod model;

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::exchange::Failure;
use crate::exchange::id::ExchangeId;
use crate::exchange::trail::End;
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::scope::RecordId;
pub use memory::Memory;
pub use record::Record;

/// Where claims and records are kept.
#[derive(Clone, Debug)]
pub enum Store {
    /// In this process, for as long as it lives.
    Memory(Memory),
}

/// What a store answers to whoever wants a key.
#[derive(Debug)]
pub enum Reserved {
    /// The key is the asker's to send.
    Claimed(Claim),
    /// Another exchange holds the claim.
    InFlight(Waiter),
    /// It was answered.
    Completed(Completed),
    /// Nobody knows what came of it.
    Unknown(Open),
}

/// A key that was answered.
#[derive(Clone, Debug)]
pub struct Completed {
    /// What was asked.
    pub fingerprint: Option<Fingerprint>,
    /// The exchange that did it.
    pub exchange: ExchangeId,
    /// The answer, where it is still kept.
    pub record: Option<Record>,
    /// Ids that were taken from the answer.
    pub captured: Vec<(String, String)>,
}

/// A key whose outcome is unknown.
#[derive(Clone, Debug)]
pub struct Open {
    /// What was asked.
    pub fingerprint: Option<Fingerprint>,
    /// The exchange that tried it.
    pub exchange: ExchangeId,
    /// When it first went upstream.
    pub first_sent: Instant,
    /// Which of its lives this is; [`Store::resume`] wants it.
    pub epoch: u64,
}

/// How a claim is settled.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The end state.
    pub end: End,
    /// Whether the store keeps it: somebody can ask again.
    pub stays: bool,
    /// The answer, where it is worth keeping.
    pub record: Option<Record>,
    /// Ids that were taken from the answer.
    pub captured: Vec<(String, String)>,
    /// What those who wait for this exchange are told.
    pub told: Told,
    /// How long the answer is kept.
    pub ttl: Duration,
    /// How long the key outlives its answer.
    pub keep_key: Duration,
}

/// What those who wait for an exchange are told.
#[derive(Clone, Debug)]
pub enum Told {
    /// Its answer, whatever the status.
    Answer(Record),
    /// Why it has none.
    Failure(Failure),
    /// It had an answer that is too large to pass on to several.
    TooLarge,
    /// Nobody knows what came of it.
    Unknown,
}

/// What is known of an exchange in flight.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    fingerprint: Option<Fingerprint>,
    told: Option<Told>,
}

/// The right to send a key; it is settled once, or dropped.
#[derive(Debug)]
pub struct Claim {
    id: RecordId,
    epoch: u64,
    first_sent: Instant,
    ambiguous_before: bool,
    progress: watch::Sender<Progress>,
    store: Store,
    stage: Stage,
}

/// How far a claim has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing went upstream.
    Held,
    /// Something may have.
    Sending,
    /// It is over.
    Settled,
}

/// Waits for the exchange that holds a claim.
#[derive(Clone, Debug)]
pub struct Waiter {
    /// The exchange that holds it.
    pub exchange: ExchangeId,
    progress: watch::Receiver<Progress>,
}

impl Store {
    /// Claims a key, or says what has become of it.
    ///
    /// # Errors
    ///
    /// [`Failure::StoreUnavailable`] when there is no room for another key.
    pub fn reserve(
        &self,
        id: RecordId,
        fingerprint: Option<Fingerprint>,
        exchange: ExchangeId,
        now: Instant,
    ) -> Result<Reserved, Failure> {
        match self {
            Self::Memory(memory) => memory.reserve(self, id, (fingerprint, exchange), now),
        }
    }

    /// Claims a key whose outcome is unknown, to send it again; `None` where
    /// somebody else was faster.
    pub fn resume(&self, id: RecordId, open: &Open) -> Option<Claim> {
        match self {
            Self::Memory(memory) => memory.resume(self, id, open),
        }
    }

    /// Forgets a key that nobody can ask for any more.
    pub fn forget(&self, id: &RecordId) {
        match self {
            Self::Memory(memory) => memory.forget(id),
        }
    }

    /// Drops what is past its time; called every few seconds.
    pub fn sweep(&self, now: Instant) {
        match self {
            Self::Memory(memory) => memory.sweep(now),
        }
    }

    /// Keys and bytes that are kept.
    pub fn size(&self) -> (u64, u64) {
        match self {
            Self::Memory(memory) => memory.size(),
        }
    }

    fn settle(&self, claim: &Claim, settlement: Settlement) {
        match self {
            Self::Memory(memory) => memory.settle(claim.id, claim.epoch, settlement),
        }
    }
}

impl Claim {
    /// Whether an attempt under this key, before this exchange, may have had an effect.
    pub fn ambiguous_before(&self) -> bool {
        self.ambiguous_before
    }

    /// When the key first went upstream.
    pub fn first_sent(&self) -> Instant {
        self.first_sent
    }

    /// The key's place in the store.
    pub fn id(&self) -> RecordId {
        self.id
    }

    /// Notes that from now on something may have been sent.
    pub fn begin_sending(&mut self) {
        self.stage = Stage::Sending;
    }

    /// Notes what is asked, once the body has been seen whole.
    pub fn identify(&self, fingerprint: Fingerprint) {
        match &self.store {
            Store::Memory(memory) => memory.identify(&self.id, self.epoch, fingerprint),
        }
        self.progress.send_modify(|progress| progress.fingerprint = Some(fingerprint));
    }

    /// A handle that can only [`identify`](Self::identify).
    pub fn identifier(&self) -> impl Fn(Fingerprint) + Send + use<> {
        let (store, id, epoch) = (self.store.clone(), self.id, self.epoch);
        let progress = self.progress.clone();
        move |fingerprint| {
            match &store {
                Store::Memory(memory) => memory.identify(&id, epoch, fingerprint),
            }
            progress.send_modify(|progress| progress.fingerprint = Some(fingerprint));
        }
    }

    /// Ends the claim.
    pub fn settle(mut self, settlement: Settlement) {
        self.stage = Stage::Settled;
        let told = settlement.told.clone();
        self.store.settle(&self, settlement);
        self.progress.send_modify(|progress| progress.told = Some(told));
    }
}

impl Drop for Claim {
    /// Whoever panics, or is dropped on the way, leaves its claim open, never free.
    fn drop(&mut self) {
        if self.stage == Stage::Settled {
            return;
        }
        let open = self.stage == Stage::Sending || self.ambiguous_before;
        let settlement = Settlement {
            end: if open { End::Unknown } else { End::Released },
            stays: open,
            record: None,
            captured: Vec::new(),
            told: Told::Unknown,
            ttl: Duration::ZERO,
            keep_key: Duration::ZERO,
        };
        self.store.settle(self, settlement);
        self.progress.send_modify(|progress| progress.told = Some(Told::Unknown));
    }
}

impl Waiter {
    /// What the exchange in flight asks, once that is known; `None` where it ends before.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn fingerprint(&mut self, patience: Duration) -> Option<Fingerprint> {
        let known = |progress: &Progress| progress.fingerprint.is_some() || progress.told.is_some();
        let seen = timeout(patience, self.progress.wait_for(known)).await.ok()?.ok()?;
        seen.fingerprint
    }

    /// What came of it; `None` where that takes longer than `patience`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn told(&mut self, patience: Duration) -> Option<Told> {
        let ended = |progress: &Progress| progress.told.is_some();
        match timeout(patience, self.progress.wait_for(ended)).await {
            Err(_elapsed) => None,
            Ok(Err(_gone)) => Some(Told::Unknown),
            Ok(Ok(progress)) => progress.told.clone(),
        }
    }
}
