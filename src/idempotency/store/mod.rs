//! Claims and responses at rest.
//!
//! ```text
//! NEW ─ reserve ─► IN FLIGHT ─ settle ─► COMPLETED ─ ttl ─► gone
//!                      │  └───────────► gone (released: the key is free)
//!                      └──────────────► UNKNOWN ─ resume ─► IN FLIGHT
//!                                          └─ resolve, conclude ─► COMPLETED, or gone
//! ```
//!
//! # Invariants
//!
//! - One claim a key at a time, and its epoch is checked whenever it is settled:
//!   a late owner changes nothing.
//! - A claim is as durable as the store is before whoever asked for it hears of it, and
//!   so is its end before the last byte of the answer is passed on.
//! - A claim that is dropped unsettled leaves UNKNOWN if anything may have been sent.
//! - UNKNOWN never becomes anything else by time alone.

pub mod claim;
pub mod disk;
mod conclude;
mod ledger;
pub mod memory;
mod recent;
pub mod redis;
pub mod shared;
mod waiter;

#[cfg(test)]
mod contract;
#[cfg(test)]
mod made;
#[cfg(test)]
mod model;

use std::time::Duration;

use http::Method;
use tokio::time::timeout;

use crate::exchange::Failure;
pub use crate::exchange::Record;
use crate::exchange::id::ExchangeId;
use crate::exchange::trail::{Attempt, End};
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::key::Key;
use crate::idempotency::scope::{RecordId, Scope};
use crate::journal::ledger::{Entry, Filter, Note};
use crate::journal::resolve::{Freed, Resolution, Verdict};
use crate::journal::tally::Tally;
use crate::journal::{Fault, Journal, Moment};
pub use claim::Claim;
pub use conclude::Finding;
pub use disk::Disk;
pub use ledger::{note, row, state, url};
pub use memory::Memory;
pub use shared::Shared;
pub use waiter::Waiter;

/// Where claims and records are kept.
#[derive(Clone, Debug)]
pub enum Store {
    /// In this process, for as long as it lives.
    Memory(Memory),
    /// In the journal, with what is asked for most in memory.
    Disk(Disk),
    /// In one of those, and before it in what replicas share.
    Shared(Shared),
}

/// What is asked of a store for an exchange.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What the key is found by.
    pub id: RecordId,
    /// The key.
    pub key: Key,
    /// What is asked, where that is known.
    pub fingerprint: Option<Fingerprint>,
    /// The exchange that asks.
    pub exchange: ExchangeId,
    /// Where an equal request may take the key over: it is nobody's who could ask for it.
    pub scope: Option<Scope>,
    /// Where in the request the key stands, for the provider to be asked by.
    pub tag: Option<String>,
    /// What the ledger says of the request.
    pub about: About,
}

/// What the ledger says of a request.
#[derive(Clone, Debug)]
pub struct About {
    /// The name of the route.
    pub route: String,
    /// The method.
    pub method: Method,
    /// The URL without its query's values.
    pub url: String,
    /// Ids that were taken from it by then.
    pub captured: Vec<(String, String)>,
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
    /// Ids that were taken from the request and its answer.
    pub captured: Vec<(String, String)>,
}

/// A key whose outcome is unknown.
#[derive(Clone, Debug)]
pub struct Open {
    /// What was asked.
    pub fingerprint: Option<Fingerprint>,
    /// The exchange that tried it.
    pub exchange: ExchangeId,
    /// How long ago it first went upstream, at the most; `None` where nobody can say.
    pub age: Option<Duration>,
    /// How long ago the last exchange under it ended, at the least.
    pub quiet: Duration,
    /// Where in its request the key stands; `None` where nobody can say that of all that went
    /// out under it.
    pub tag: Option<String>,
    /// Which of its lives this is; [`Store::resume`] wants it.
    pub epoch: u64,
    /// The same in what replicas share.
    pub shared: Option<u64>,
}

/// A key whose outcome is unknown, as its exchange is named.
#[derive(Clone, Copy, Debug)]
struct UnknownAt {
    id: RecordId,
    shared: Option<u64>,
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
    /// Ids that were taken from the request and its answer.
    pub captured: Vec<(String, String)>,
    /// What those who wait for this exchange are told.
    pub told: Told,
    /// How long the answer is kept.
    pub ttl: Duration,
    /// How long the key outlives its answer.
    pub keep_key: Duration,
    /// What was tried.
    pub attempts: Vec<Attempt>,
}

/// A good answer whose head has come.
#[derive(Clone, Debug)]
pub struct Landing {
    /// Its status.
    pub status: http::StatusCode,
    /// How long the key is known to be answered, should the rest never be settled.
    pub keep_key: Duration,
    /// Ids that are known by then.
    pub captured: Vec<(String, String)>,
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
    /// It was about to be asked what has become of the key: ask too.
    AskAgain,
}

impl Store {
    /// Claims a key, or says what has become of it.
    ///
    /// # Errors
    ///
    /// [`Failure::StoreUnavailable`] when it cannot be claimed; nothing may be sent then.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a claim that nobody takes is taken back.
    pub async fn reserve(&self, asked: &Asked) -> Result<Reserved, Failure> {
        let reserved = match self {
            Self::Shared(shared) => shared.reserve(self, asked).await,
            Self::Memory(_) | Self::Disk(_) => self.reserve_for(self, asked).await,
        };
        if let Ok(Reserved::Claimed(claim)) = &reserved {
            claim.confirm();
        }
        reserved
    }

    /// The same, where the claim is settled through `store`, which is this or stands before it.
    async fn reserve_for(&self, store: &Self, asked: &Asked) -> Result<Reserved, Failure> {
        match self {
            Self::Memory(memory) => memory.reserve(store, asked),
            Self::Disk(disk) => disk.reserve(store, asked).await,
            Self::Shared(shared) => Box::pin(shared.reserve(store, asked)).await,
        }
    }

    /// Claims a key whose outcome is unknown, to send it again; `None` where
    /// somebody else was faster.
    ///
    /// # Errors
    ///
    /// [`Failure::StoreUnavailable`] when it cannot be claimed; nothing may be sent then.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a claim that nobody takes is unknown again.
    pub async fn resume(&self, asked: &Asked, open: &Open) -> Result<Option<Claim>, Failure> {
        let resumed = match self {
            Self::Shared(shared) => shared.resume(self, asked, open).await,
            Self::Memory(_) | Self::Disk(_) => self.resume_for(self, asked, open).await,
        };
        if let Ok(Some(claim)) = &resumed {
            claim.confirm();
        }
        resumed
    }

    async fn resume_for(
        &self,
        store: &Self,
        asked: &Asked,
        open: &Open,
    ) -> Result<Option<Claim>, Failure> {
        match self {
            Self::Memory(memory) => Ok(memory.resume(store, asked, open)),
            Self::Disk(disk) => disk.resume(store, asked, open).await,
            Self::Shared(shared) => Box::pin(shared.resume(store, asked, open)).await,
        }
    }

    /// Forgets a key that nobody can ask for any more.
    pub async fn forget(&self, id: &RecordId, key: &Key) {
        match self {
            Self::Memory(memory) => memory.forget(id),
            Self::Disk(disk) => disk.forget(id, key).await,
            Self::Shared(shared) => Box::pin(shared.forget(id, key)).await,
        }
    }

    /// Drops what is past its time; called every few seconds.
    ///
    /// # Errors
    ///
    /// When something could not be dropped; it goes another time.
    pub async fn sweep(&self) -> Result<(), Fault> {
        match self {
            Self::Memory(memory) => {
                memory.sweep(tokio::time::Instant::now());
                Ok(())
            }
            Self::Disk(disk) => disk.sweep().await,
            Self::Shared(shared) => Box::pin(shared.sweep()).await,
        }
    }

    /// Keys and bytes that are kept.
    pub fn size(&self) -> (u64, u64) {
        match self {
            Self::Memory(memory) => memory.size(),
            Self::Disk(disk) => disk.journal().size(),
            Self::Shared(shared) => shared.local().size(),
        }
    }

    /// How many outcomes are unknown, of those in this replica's own ledger.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when they cannot be counted.
    pub async fn tally_unknowns(&self) -> Result<Vec<Tally>, Fault> {
        match self {
            Self::Memory(memory) => Ok(memory.tally_unknowns()),
            Self::Disk(disk) => disk.journal().tally_unknowns().await,
            Self::Shared(shared) => Box::pin(shared.local().tally_unknowns()).await,
        }
    }

    /// What it is called where its state is shown.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Disk(_) => "disk",
            Self::Shared(_) => "shared",
        }
    }

    /// Settles an unknown outcome by what an operator knows.
    ///
    /// # Errors
    ///
    /// A [`Fault`]: it is unknown as before.
    pub async fn resolve(
        &self,
        exchange: ExchangeId,
        verdict: Verdict,
    ) -> Result<Resolution, Fault> {
        match self {
            Self::Memory(memory) => Ok(memory.resolve(exchange, verdict)),
            Self::Disk(disk) => disk.resolve(exchange, verdict).await,
            Self::Shared(shared) => Box::pin(shared.resolve(exchange, verdict)).await,
        }
    }

    /// Opens a key by hand, unless it is in flight or unknown.
    ///
    /// # Errors
    ///
    /// A [`Fault`]: it is as it was.
    pub async fn free(&self, key: String) -> Result<Freed, Fault> {
        match self {
            Self::Memory(memory) => Ok(memory.free(&key)),
            Self::Disk(disk) => disk.free(key).await,
            Self::Shared(shared) => Box::pin(shared.free(key)).await,
        }
    }

    /// Notes in the ledger an exchange that held no claim; false where it had no room.
    pub fn note(&self, note: Note) -> bool {
        match self {
            Self::Memory(memory) => {
                memory.ledger().note(note);
                true
            }
            Self::Disk(disk) => disk.journal().note(note),
            Self::Shared(shared) => shared.local().note(note),
        }
    }

    /// The entries of the ledger that `filter` wants, newest first.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when they cannot be read.
    pub async fn list(&self, filter: Filter) -> Result<Vec<Entry>, Fault> {
        match self {
            Self::Memory(memory) => Ok(memory.ledger().list(&filter)),
            Self::Disk(disk) => disk.journal().list(filter).await,
            Self::Shared(shared) => Box::pin(shared.local().list(filter)).await,
        }
    }

    /// One entry of the ledger.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when it cannot be read.
    pub async fn show(&self, exchange: ExchangeId) -> Result<Option<Entry>, Fault> {
        let (seq, instance) = exchange.parts();
        match self {
            Self::Memory(memory) => Ok(memory.ledger().show(seq, instance)),
            Self::Disk(disk) => disk.journal().show(seq, instance).await,
            Self::Shared(shared) => Box::pin(shared.local().show(exchange)).await,
        }
    }

    /// The time, as the ledger dates its rows.
    pub fn now(&self) -> Moment {
        match self {
            Self::Memory(memory) => memory.now(),
            Self::Disk(disk) => disk.journal().now(),
            Self::Shared(shared) => shared.local().now(),
        }
    }

    /// Returns when all that was handed over before is as durable as the store is.
    pub async fn flush(&self) {
        let flushed = match self {
            Self::Memory(_) => Ok(()),
            Self::Disk(disk) => disk.flush().await,
            Self::Shared(shared) => return Box::pin(shared.local().flush()).await,
        };
        if let Err(fault) = flushed {
            tracing::warn!(%fault, "the journal could not be brought to its end");
        }
    }

    /// Brings all that was handed over to its end, and closes the journal well: both within
    /// that time. What a disk that hangs does not take by then, the next start recovers.
    pub async fn close(&self, within: Duration) {
        let closing = async {
            self.flush().await;
            if let Some(journal) = self.journal() {
                journal.close().await;
            }
        };
        if timeout(within, closing).await.is_err() {
            tracing::warn!("the journal could not be closed in time; the next start recovers it");
        }
    }

    /// The journal, where there is one.
    pub fn journal(&self) -> Option<&Journal> {
        match self {
            Self::Memory(_) => None,
            Self::Disk(disk) => Some(disk.journal()),
            Self::Shared(shared) => shared.local().journal(),
        }
    }

    /// What closes the key of an exchange whose outcome is unknown, and which life of it
    /// that is in what replicas share.
    async fn unknown(&self, exchange: ExchangeId) -> Result<Option<UnknownAt>, Fault> {
        match self {
            Self::Memory(memory) => Ok(memory.unknown(exchange)),
            Self::Disk(disk) => {
                let found = disk.journal().unknown(exchange.parts()).await?;
                Ok(found.map(|(id, shared)| UnknownAt { id: RecordId(id), shared }))
            }
            Self::Shared(shared) => Box::pin(shared.local().unknown(exchange)).await,
        }
    }

    async fn settle(&self, claim: &Claim, settlement: &Settlement) {
        match self {
            Self::Memory(memory) => memory.settle(claim.id(), claim.epoch(), settlement),
            Self::Disk(disk) => disk.settle(claim, settlement).await,
            Self::Shared(shared) => Box::pin(shared.settle(claim, settlement)).await,
        }
    }

    /// Ends a claim that was dropped on its way.
    fn abandon(&self, claim: &Claim, open: bool) {
        match self {
            Self::Memory(memory) => memory.abandon(claim, open),
            Self::Disk(disk) => disk.abandon(claim, open),
            Self::Shared(shared) => shared.abandon(claim, open),
        }
    }

    fn identify(&self, claim: &claim::Name, fingerprint: Fingerprint) {
        match self {
            Self::Memory(memory) => memory.identify(&claim.id, claim.epoch, fingerprint),
            Self::Disk(disk) => disk.identify(claim, fingerprint),
            Self::Shared(shared) => shared.identify(claim, fingerprint),
        }
    }

    /// Notes that a key first went out earlier than this store knows: another replica sent it.
    fn backdate(&self, name: &claim::Name, first_sent_wall: i64) {
        match self {
            Self::Memory(memory) => memory.backdate(name, first_sent_wall),
            Self::Disk(disk) => {
                let (seq, _) = name.exchange.parts();
                disk.journal().backdate(seq, name.epoch, first_sent_wall);
            }
            Self::Shared(shared) => shared.local().backdate(name, first_sent_wall),
        }
    }

    /// Notes ids that were taken from the request of a claim that goes on.
    fn capture(&self, claim: &claim::Name, captured: &[(String, String)]) {
        match self {
            Self::Memory(memory) => memory.capture(claim, captured),
            Self::Disk(disk) => disk.capture(claim, captured),
            Self::Shared(shared) => shared.local().capture(claim, captured),
        }
    }

    /// Notes where in the request of a claim its key stands.
    fn note_tag(&self, name: &claim::Name, place: String) {
        match self {
            Self::Memory(memory) => memory.note_tag(name, place),
            Self::Disk(disk) => {
                let (seq, _) = name.exchange.parts();
                disk.journal().note_tag((seq, name.epoch), place);
            }
            Self::Shared(shared) => shared.local().note_tag(name, place),
        }
    }

    fn land(&self, claim: &Claim, landing: &Landing) {
        match self {
            Self::Memory(_) => {} // what is in memory does not outlive a crash
            Self::Disk(disk) => disk.land(claim, landing),
            Self::Shared(shared) => shared.local().land(claim, landing),
        }
    }

    /// Notes which life of a key it is in what replicas share.
    fn note_shared(&self, name: &claim::Name, shared_epoch: u64) {
        match self {
            Self::Memory(memory) => memory.note_shared(name, shared_epoch),
            Self::Disk(disk) => {
                let (seq, _) = name.exchange.parts();
                disk.journal().note_shared(seq, name.epoch, shared_epoch);
            }
            Self::Shared(shared) => shared.local().note_shared(name, shared_epoch),
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::StoreUnavailable(fault.as_str())
    }
}
