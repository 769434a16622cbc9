//! Claims and records in the journal, with what is asked for most in memory.
//!
//! What is under way is known here, so that whoever asks for it waits without asking
//! the file. What was answered lately is kept here too, so that a replay does not
//! touch the disk. All else the file says, in the same operation that claims the key.

mod hot;
mod noted;
mod owed;
mod rows;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Place;
use tokio::sync::watch;

use crate::exchange::Failure;
use crate::exchange::id::ExchangeId;
use crate::failpoint::Failpoint;
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::key::Key;
use crate::idempotency::scope::RecordId;
use crate::idempotency::store::claim::Name;
use crate::idempotency::store::disk::hot::{Cache, Hot};
use crate::idempotency::store::disk::owed::{Debt, Due, Owed};
use crate::idempotency::store::waiter::Progress;
use crate::idempotency::store::{
    Asked, Claim, Completed, Open, Reserved, Settlement, Store, Waiter, ledger,
};
use crate::journal::key::{Found, Reserve, Settled};
use crate::journal::moment::micros;
use crate::journal::resolve::{Freed, Resolution, Verdict};
use crate::journal::{Fault, Journal};
use crate::metrics::{Metrics, Operation};

/// A store on disk; a clone shares it.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    journal: Journal,
    flights: DashMap<RecordId, Flight>,
    hot: Cache,
    epochs: AtomicU64,
    owed: Owed,
    metrics: Metrics,
}

/// An exchange under way.
#[derive(Debug)]
struct Flight {
    epoch: u64,
    exchange: ExchangeId,
    progress: watch::Receiver<Progress>,
    /// Whether the key was opened since: what was read of it before is not kept.
    is_stale: bool,
}

/// What asking for a key's place in the air comes to.
enum Begun {
    /// It was free; whether the key is, the file says.
    Claim(Claim),
    /// What is known of the key without the file.
    Known(Reserved),
    /// The file is behind: this comes first.
    Owed(Debt),
}

impl Disk {
    /// Keeps claims in `journal`, and up to `hot_max` bytes of answers in memory. Epochs
    /// go on after `newest`. Ends that cannot be written are counted.
    pub fn new(journal: Journal, hot_max: u64, newest: u64, metrics: Metrics) -> Self {
        let epochs = AtomicU64::new(newest.max(journal.now().wall.unsigned_abs()) + 1);
        Self(Arc::new(Inner {
            journal,
            flights: DashMap::new(),
            hot: Cache::new(hot_max),
            epochs,
            owed: Owed::default(),
            metrics,
        }))
    }

    /// The journal.
    pub fn journal(&self) -> &Journal {
        &self.0.journal
    }

    pub(super) async fn reserve(&self, store: &Store, asked: &Asked) -> Result<Reserved, Failure> {
        let claim = loop {
            match self.begin(store, asked) {
                Begun::Claim(claim) => break claim,
                Begun::Known(known) => return Ok(known),
                Begun::Owed(debt) => {
                    if let Err(fault) = self.pay(&debt).await {
                        return debt.known().map(Reserved::Completed).ok_or_else(|| fault.into());
                    }
                }
            }
        };
        Failpoint::BeforeReserve.pass();
        let now = self.0.journal.now();
        let reserve = Reserve {
            row: ledger::row(asked.exchange, asked.key.as_str(), &asked.about, now),
            id: asked.id.0,
            epoch: claim.epoch(),
            fingerprint: asked.fingerprint.map(|fingerprint| fingerprint.0),
            scope: asked.scope.map(|scope| scope.0),
            tag: asked.tag.clone(),
        };
        // Dropped on the way, the claim takes itself back, in order after this.
        match self.0.journal.reserve(reserve).await {
            Ok(Found::Claimed) => {
                Failpoint::AfterReserve.pass();
                Ok(Reserved::Claimed(claim))
            }
            Ok(Found::Completed(done)) => {
                let hot = rows::read(self.0.journal.bodies(), done).await;
                self.warm(&claim.name(), || hot.clone());
                self.ground(claim);
                Ok(Reserved::Completed(hot.done))
            }
            Ok(Found::Unknown(open)) => {
                self.ground(claim);
                let now = self.0.journal.now();
                let age = ledger::age(open.began, now);
                Ok(Reserved::Unknown(Open {
                    fingerprint: open.holder.fingerprint.map(Fingerprint),
                    exchange: rows::name_of(&open.holder),
                    age,
                    quiet: ledger::quiet(open.ended, now),
                    tag: open.tag,
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
        let Begun::Claim(claim) = self.begin(store, &asked) else { return Ok(None) };
        // From here on it is ambiguous, and dropped it is unknown again.
        let claim = claim.again(open.age);
        let (seq, _) = open.exchange.parts();
        match self.0.journal.resume((seq, open.epoch), claim.epoch(), asked.tag).await {
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

    pub(super) async fn settle(&self, claim: &Claim, settlement: &Settlement) {
        Failpoint::BeforeComplete.pass();
        let name = claim.name();
        let ends = rows::ends(self.0.journal.bodies(), settlement, claim.fingerprint()).await;
        let (seq, _) = name.exchange.parts();
        // Dropped on the way, the claim is abandoned, in order after this: what was
        // written stands, and what was not is unknown.
        match self.0.journal.settle(seq, name.epoch, ends).await {
            Ok(Settled::WithAnswer) => {
                let ended = self.0.journal.now();
                self.warm(&name, || Hot {
                    done: Completed {
                        fingerprint: claim.fingerprint(),
                        exchange: name.exchange,
                        record: settlement.record.clone(),
                        captured: settlement.captured.clone(),
                    },
                    ended,
                    ttl: micros(settlement.ttl),
                });
            }
            Ok(Settled::WithoutAnswer | Settled::Late) => {}
            Err(fault) => {
                let due = Due::End(Arc::new(settlement.clone()), claim.fingerprint());
                self.owe(Debt { name, due }, fault);
            }
        }
        self.land_flight(&name);
        Failpoint::AfterComplete.pass();
    }

    pub(super) fn abandon(&self, claim: &Claim, open: bool) {
        let name = claim.name();
        let (seq, _) = name.exchange.parts();
        let (disk, fingerprint) = (self.clone(), claim.fingerprint());
        // It is posted in order; whoever asks next is told by the file.
        if open {
            let unknown = Settlement::abandoned(open);
            let ends = rows::settle_row(&unknown, None, fingerprint);
            let owe = move |settled: &Result<Settled, Fault>| {
                if let Err(fault) = settled {
                    let due = Due::End(Arc::new(unknown), fingerprint);
                    disk.owe(Debt { name, due }, *fault);
                }
            };
            drop(self.0.journal.settle_then((seq, name.epoch), ends, owe));
        } else {
            let owe = move |withdrawn: &Result<(), Fault>| {
                if let Err(fault) = withdrawn {
                    disk.owe(Debt { name, due: Due::Withdrawal }, *fault);
                }
            };
            drop(self.0.journal.withdraw((seq, name.epoch), owe));
        }
        self.land_flight(&name);
    }

    pub(super) async fn forget(&self, id: &RecordId, key: &Key) {
        let (disk, id) = (self.clone(), *id);
        self.pay_for(&id).await;
        let forgotten = self.0.journal.forget(key.as_str(), id.0, move |forgotten| {
            if matches!(forgotten, Ok(true)) {
                disk.cool(&id);
            }
        });
        if let Err(fault) = forgotten.await {
            tracing::debug!(%fault, "a key could not be forgotten");
        }
    }

    pub(super) async fn sweep(&self) -> Result<(), Fault> {
        self.pay_all().await;
        self.0.journal.sweep().await
    }

    /// Returns when what was handed over before is written, and what is owed as far as
    /// the file takes it.
    pub(super) async fn flush(&self) -> Result<(), Fault> {
        self.0.journal.flush().await?;
        self.pay_all().await;
        Ok(())
    }

    pub(super) async fn resolve(
        &self,
        exchange: ExchangeId,
        verdict: Verdict,
    ) -> Result<Resolution, Fault> {
        self.pay_all().await;
        let disk = self.clone();
        let cool = move |resolution: &Result<Resolution, Fault>| {
            if let Ok(Resolution::Settled(resolved)) = resolution
                && let Some(id) = resolved.id
            {
                disk.cool(&RecordId(id));
            }
        };
        self.0.journal.resolve_then(exchange.parts(), verdict, cool).await
    }

    pub(super) async fn free(&self, key: String) -> Result<Freed, Fault> {
        self.pay_all().await;
        let disk = self.clone();
        let cool = move |freed: &Result<Freed, Fault>| {
            if let Ok(Freed::Ids(ids)) = freed {
                for id in ids {
                    disk.cool(&RecordId(*id));
                }
            }
        };
        self.0.journal.free(key, cool).await
    }

    /// Takes the key's place in the air, or says what comes before that.
    fn begin(&self, store: &Store, asked: &Asked) -> Begun {
        match self.0.flights.entry(asked.id) {
            Place::Occupied(place) => {
                let flight = place.get();
                let progress = flight.progress.clone();
                Begun::Known(Reserved::InFlight(Waiter::here(flight.exchange, progress)))
            }
            Place::Vacant(place) => {
                if let Some(hot) = self.0.hot.get(&asked.id, self.0.journal.now()) {
                    return Begun::Known(Reserved::Completed(hot.done));
                }
                // Whoever owes an end says so before he gives up the place.
                if let Some(debt) = self.0.owed.of(&asked.id) {
                    return Begun::Owed(debt);
                }
                let epoch = self.0.epochs.fetch_add(1, Ordering::Relaxed);
                let (sender, progress) = watch::channel(Progress {
                    claimed: false,
                    fingerprint: asked.fingerprint,
                    told: None,
                });
                let exchange = asked.exchange;
                place.insert(Flight { epoch, exchange, progress, is_stale: false });
                let name = Name { id: asked.id, exchange, epoch, shared: None };
                Begun::Claim(Claim::fresh(store, name, sender))
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

    /// Keeps in memory what this flight settled or read, unless the key was opened since.
    fn warm(&self, name: &Name, hot: impl FnOnce() -> Hot) {
        // The flight is held meanwhile: whoever opens the key comes before, and is seen,
        // or after, and takes it out again.
        if let Some(flight) = self.0.flights.get(&name.id)
            && flight.epoch == name.epoch
            && !flight.is_stale
        {
            self.0.hot.insert(name.id, hot());
        }
    }

    /// Keeps nothing in memory of a key that was opened.
    fn cool(&self, id: &RecordId) {
        if let Some(mut flight) = self.0.flights.get_mut(id) {
            flight.is_stale = true;
        }
        self.0.hot.remove(id);
    }

    /// Remembers an end that the file did not take. It is counted here and now: that it is
    /// still owed at a later try is no further end, and whoever asks meanwhile is counted
    /// as one who could not reserve.
    fn owe(&self, debt: Debt, fault: Fault) {
        self.0.metrics.store_error(Operation::Settle);
        tracing::error!(%fault, "the end of an exchange could not be written; it is tried again");
        self.0.owed.add(debt);
    }

    /// Writes an end that is owed. Two may try at one time: the row takes one of them.
    async fn pay(&self, debt: &Debt) -> Result<(), Fault> {
        let journal = &self.0.journal;
        let (seq, _) = debt.name.exchange.parts();
        match &debt.due {
            Due::Withdrawal => journal.withdraw((seq, debt.name.epoch), |_withdrawn| ()).await?,
            Due::End(settlement, fingerprint) => {
                let ends = rows::ends(journal.bodies(), settlement, *fingerprint).await;
                journal.settle(seq, debt.name.epoch, ends).await?;
            }
        }
        self.0.owed.paid(&debt.name);
        Ok(())
    }

    /// Writes what is owed for a key, if the file takes it.
    async fn pay_for(&self, id: &RecordId) {
        if let Some(debt) = self.0.owed.of(id)
            && let Err(fault) = self.pay(&debt).await
        {
            tracing::debug!(%fault, "an end is still owed");
        }
    }

    /// Writes all that is owed, as far as the file takes it.
    async fn pay_all(&self) {
        for debt in self.0.owed.all() {
            self.pay_for(&debt.name.id).await;
        }
    }
}

#[cfg(test)]
mod tests;
