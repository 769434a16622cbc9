//! Claims and records in the journal, with what is asked for most in memory.
//!
//! What is under way is known here, so that whoever asks for it waits without asking
//! the file. What was answered lately is kept here too, so that a replay does not
//! touch the disk. All else the file says, in the same operation that claims the key.

mod hot;
mod rows;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Place;
use http::StatusCode;
use tokio::sync::watch;

use crate::exchange::Failure;
use crate::exchange::id::ExchangeId;
use crate::failpoint::Failpoint;
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::key::Key;
use crate::idempotency::scope::RecordId;
use crate::idempotency::store::claim::Name;
use crate::idempotency::store::disk::hot::{Cache, Hot};
use crate::idempotency::store::waiter::Progress;
use crate::idempotency::store::{
    Asked, Claim, Completed, Open, Reserved, Settlement, Store, Waiter, ledger,
};
use crate::journal::key::{Found, Reserve, Settle, Settled};
use crate::journal::moment::micros;
use crate::journal::resolve::{Freed, Resolution, Verdict};
use crate::journal::{Fault, Journal};

/// A store on disk; a clone shares it.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    journal: Journal,
    flights: DashMap<RecordId, Flight>,
    hot: Cache,
    epochs: AtomicU64,
    /// Ends that the file did not take: they are written when it does again.
    owed: Mutex<Vec<(Name, Settle)>>,
}

/// An exchange under way.
#[derive(Debug)]
struct Flight {
    epoch: u64,
    exchange: ExchangeId,
    progress: watch::Receiver<Progress>,
}

impl Disk {
    /// Keeps claims in `journal`, and up to `hot_max` bytes of answers in memory. Epochs
    /// go on after `newest`.
    pub fn new(journal: Journal, hot_max: u64, newest: u64) -> Self {
        let epochs = AtomicU64::new(newest.max(journal.now().wall.unsigned_abs()) + 1);
        Self(Arc::new(Inner {
            journal,
            flights: DashMap::new(),
            hot: Cache::new(hot_max),
            epochs,
            owed: Mutex::default(),
        }))
    }

    /// The journal.
    pub fn journal(&self) -> &Journal {
        &self.0.journal
    }

    pub(super) async fn reserve(&self, store: &Store, asked: &Asked) -> Result<Reserved, Failure> {
        let claim = match self.begin(store, asked) {
            Ok(claim) => claim,
            Err(known) => return Ok(known),
        };
        Failpoint::BeforeReserve.pass();
        let now = self.0.journal.now();
        let reserve = Reserve {
            row: ledger::row(asked.exchange, asked.key.as_str(), &asked.about, now),
            id: asked.id.0,
            epoch: claim.epoch(),
            fingerprint: asked.fingerprint.map(|fingerprint| fingerprint.0),
            scope: asked.scope.map(|scope| scope.0),
        };
        // Dropped on the way, the claim takes itself back, in order after this.
        match self.0.journal.reserve(reserve).await {
            Ok(Found::Claimed) => {
                Failpoint::AfterReserve.pass();
                Ok(Reserved::Claimed(claim))
            }
            Ok(Found::Completed(done)) => {
                let hot = rows::read(self.0.journal.bodies(), done).await;
                self.0.hot.insert(asked.id, hot.clone());
                self.ground(claim);
                Ok(Reserved::Completed(hot.done))
            }
            Ok(Found::Unknown(open)) => {
                self.ground(claim);
                let age = ledger::age(open.began, self.0.journal.now());
                Ok(Reserved::Unknown(Open {
                    fingerprint: open.holder.fingerprint.map(Fingerprint),
                    exchange: rows::name_of(&open.holder),
                    age,
                    epoch: open.holder.epoch,
                    shared: open.holder.shared_epoch,
                }))
            }
            Err(fault) => {
                self.ground(claim);
                Err(fault.into())
            }
        }
    }

    pub(super) async fn resume(
        &self,
        store: &Store,
        asked: &Asked,
        open: &Open,
    ) -> Result<Option<Claim>, Failure> {
        // The row goes on under the name that it has.
        let asked = Asked {
            exchange: open.exchange,
            fingerprint: open.fingerprint.or(asked.fingerprint),
            ..asked.clone()
        };
        let Ok(claim) = self.begin(store, &asked) else { return Ok(None) };
        // From here on it is ambiguous, and dropped it is unknown again.
        let claim = claim.again(open.age);
        let (seq, _) = open.exchange.parts();
        match self.0.journal.resume(seq, open.epoch, claim.epoch()).await {
            Ok(true) => Ok(Some(claim)),
            Ok(false) => {
                self.ground(claim);
                Ok(None)
            }
            Err(fault) => {
                self.ground(claim);
                Err(fault.into())
            }
        }
    }

    pub(super) fn identify(&self, name: &Name, fingerprint: Fingerprint) {
        let (seq, _) = name.exchange.parts();
        self.0.journal.identify(seq, name.epoch, fingerprint.0);
    }

    pub(super) fn land(&self, claim: &Claim, status: StatusCode, keep_key: Duration) {
        let (seq, _) = claim.exchange().parts();
        self.0.journal.land(seq, claim.epoch(), status.as_u16(), micros(keep_key));
    }

    pub(super) async fn settle(&self, claim: &Claim, settlement: &Settlement) {
        Failpoint::BeforeComplete.pass();
        let ends = rows::ends(self.0.journal.bodies(), settlement).await;
        let (seq, _) = claim.exchange().parts();
        let settled = self.0.journal.settle(seq, claim.epoch(), ends.clone()).await;
        if let Err(fault) = settled {
            self.owe(claim.name(), ends, fault);
        }
        let kept = match settled {
            Ok(settled) => settled == Settled::WithAnswer,
            // Until it can be written, it is known here.
            Err(_) => rows::ends_with_answer(settlement),
        };
        if kept {
            let done = Completed {
                fingerprint: claim.fingerprint(),
                exchange: claim.exchange(),
                record: settlement.record.clone(),
                captured: settlement.captured.clone(),
            };
            let ended = self.0.journal.now();
            self.0.hot.insert(claim.id(), Hot { done, ended, ttl: micros(settlement.ttl) });
        }
        self.land_flight(&claim.name());
        Failpoint::AfterComplete.pass();
    }

    pub(super) fn abandon(&self, claim: &Claim, open: bool) {
        let (seq, _) = claim.exchange().parts();
        if open {
            let ends = rows::settle_row(&Settlement::abandoned(open), None);
            let name = claim.name();
            // It is posted in order; whoever asks next is told by the file.
            drop(self.0.journal.settle(seq, claim.epoch(), ends));
            self.land_flight(&name);
        } else {
            self.0.journal.withdraw(seq, claim.epoch());
            self.land_flight(&claim.name());
        }
    }

    pub(super) async fn forget(&self, id: &RecordId, key: &Key) {
        if self.0.flights.contains_key(id) {
            return;
        }
        self.0.hot.remove(id);
        if let Err(fault) = self.0.journal.forget(key.as_str(), id.0).await {
            tracing::debug!(%fault, "a key could not be forgotten");
        }
        self.0.hot.remove(id);
    }

    pub(super) async fn sweep(&self) -> Result<(), Fault> {
        self.pay().await;
        self.0.journal.sweep().await
    }

    pub(super) async fn resolve(
        &self,
        exchange: ExchangeId,
        verdict: Verdict,
    ) -> Result<Resolution, Fault> {
        let resolution = self.0.journal.resolve(exchange.parts(), verdict).await?;
        if let Resolution::Settled(resolved) = &resolution
            && let Some(id) = resolved.id
        {
            self.0.hot.remove(&RecordId(id));
        }
        Ok(resolution)
    }

    pub(super) async fn free(&self, key: String) -> Result<Freed, Fault> {
        let freed = self.0.journal.free(key).await?;
        if let Freed::Ids(ids) = &freed {
            for id in ids {
                self.0.hot.remove(&RecordId(*id));
            }
        }
        Ok(freed)
    }

    /// Takes the key's place in the air, or says what is known of it without the file.
    fn begin(&self, store: &Store, asked: &Asked) -> Result<Claim, Reserved> {
        match self.0.flights.entry(asked.id) {
            Place::Occupied(place) => {
                let flight = place.get();
                let progress = flight.progress.clone();
                Err(Reserved::InFlight(Waiter::here(flight.exchange, progress)))
            }
            Place::Vacant(place) => {
                if let Some(hot) = self.0.hot.get(&asked.id, self.0.journal.now()) {
                    return Err(Reserved::Completed(hot.done));
                }
                let epoch = self.0.epochs.fetch_add(1, Ordering::Relaxed);
                let (sender, progress) =
                    watch::channel(Progress { fingerprint: asked.fingerprint, told: None });
                place.insert(Flight { epoch, exchange: asked.exchange, progress });
                let name = Name { id: asked.id, exchange: asked.exchange, epoch, shared: None };
                Ok(Claim::fresh(store, name, sender))
            }
        }
    }

    /// Gives up a place whose key was not free.
    fn ground(&self, claim: Claim) {
        self.land_flight(&claim.name());
        claim.dissolve();
    }

    fn land_flight(&self, name: &Name) {
        self.0.flights.remove_if(&name.id, |_, flight| flight.epoch == name.epoch);
    }

    /// Remembers an end that the file did not take.
    fn owe(&self, name: Name, ends: Settle, fault: Fault) {
        tracing::error!(%fault, "the end of an exchange could not be written; it is tried again");
        let mut owed = self.0.owed.lock().unwrap_or_else(PoisonError::into_inner);
        if owed.len() < OWED_MAX {
            owed.push((name, ends));
        }
    }

    /// Writes what is owed, as far as the file takes it.
    async fn pay(&self) {
        let owed = std::mem::take(&mut *self.0.owed.lock().unwrap_or_else(PoisonError::into_inner));
        for (name, ends) in owed {
            let (seq, _) = name.exchange.parts();
            if self.0.journal.settle(seq, name.epoch, ends.clone()).await.is_err() {
                let mut owed = self.0.owed.lock().unwrap_or_else(PoisonError::into_inner);
                owed.push((name, ends));
            }
        }
    }
}

/// Ends that wait for room on the disk; past it they are unknown after a restart.
const OWED_MAX: usize = 1000;
