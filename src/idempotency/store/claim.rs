//! The right to send a key.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::exchange::Guard;
use crate::exchange::id::ExchangeId;
use crate::exchange::trail::{Diary, End, Guarded};
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::scope::RecordId;
use crate::idempotency::store::waiter::Progress;
use crate::idempotency::store::{Landing, Settlement, Store, Told, ledger};

/// The right to send a key; it is settled once, or dropped.
#[derive(Debug)]
pub struct Claim {
    name: Name,
    age: Option<Duration>,
    began: Instant,
    ambiguous_before: bool,
    guarded: Guarded,
    progress: watch::Sender<Progress>,
    store: Store,
    stage: Stage,
}

/// Which claim it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    /// The key's place in the store.
    pub(super) id: RecordId,
    /// The exchange whose row closes it.
    pub(super) exchange: ExchangeId,
    /// Which life of the key it is.
    pub(super) epoch: u64,
    /// The same in what replicas share, where it was claimed there.
    pub(super) shared: Option<u64>,
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

impl Claim {
    /// A claim on a key that was free.
    pub(super) fn fresh(store: &Store, name: Name, progress: watch::Sender<Progress>) -> Self {
        Self {
            name,
            age: Some(Duration::ZERO),
            began: Instant::now(),
            ambiguous_before: false,
            guarded: Guarded::AsWanted,
            progress,
            store: store.clone(),
            stage: Stage::Held,
        }
    }

    /// A claim on a key whose outcome was unknown, and that first went out so long ago.
    pub(super) fn again(self, age: Option<Duration>) -> Self {
        let mut claim = self;
        (claim.age, claim.ambiguous_before) = (age, true);
        claim
    }

    /// Whether an attempt under this key, before this exchange, may have had an effect.
    pub fn ambiguous_before(&self) -> bool {
        self.ambiguous_before
    }

    /// Until when a promise holds that lasts `promised` from when the key first went
    /// upstream; `None` where nobody can say when that was, or it is over.
    pub fn promised_until(&self, promised: Duration) -> Option<Instant> {
        Some(self.began + promised.checked_sub(self.age?)?)
    }

    /// The key's place in the store.
    pub fn id(&self) -> RecordId {
        self.name.id
    }

    /// The exchange under which the ledger has it.
    pub fn exchange(&self) -> ExchangeId {
        self.name.exchange
    }

    /// Which life of the key it is.
    pub(super) fn epoch(&self) -> u64 {
        self.name.epoch
    }

    pub(super) fn name(&self) -> Name {
        self.name
    }

    /// What is asked, as far as that is known.
    pub(super) fn fingerprint(&self) -> Option<Fingerprint> {
        self.progress.borrow().fingerprint
    }

    /// Whether nothing can have been sent under it.
    pub(super) fn is_untouched(&self) -> bool {
        self.stage == Stage::Held && !self.ambiguous_before
    }

    /// Notes that from now on something may have been sent.
    pub fn begin_sending(&mut self) {
        self.stage = Stage::Sending;
    }

    /// Notes what is asked, once the body has been seen whole.
    pub fn identify(&self, fingerprint: Fingerprint) {
        self.identifier()(fingerprint);
    }

    /// A handle that can only [`identify`](Self::identify).
    pub fn identifier(&self) -> impl Fn(Fingerprint) + Send + use<> {
        let (store, name, progress) = (self.store.clone(), self.name, self.progress.clone());
        move |fingerprint| {
            store.identify(&name, fingerprint);
            progress.send_modify(|progress| progress.fingerprint = Some(fingerprint));
        }
    }

    /// A handle that can only note ids that were taken from the request, as its body
    /// goes up: after a crash the row has them.
    pub fn capturer(&self) -> impl Fn(&[(String, String)]) + Send + use<> {
        let (store, name) = (self.store.clone(), self.name);
        move |captured| store.capture(&name, captured)
    }

    /// Notes that the head of a good answer has come, of which the rest takes its time:
    /// after a crash the key is known to be answered.
    pub fn land(&self, landing: &Landing) {
        self.store.land(self, landing);
    }

    /// Ends the claim; when this returns, its end is as durable as the store is.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropped before its end, it leaves UNKNOWN, or what it wrote.
    pub async fn settle(mut self, settlement: Settlement) {
        self.store.settle(&self, &settlement).await;
        self.stage = Stage::Settled;
        self.progress.send_modify(|progress| progress.told = Some(settlement.told));
    }

    /// Notes that it is a claim indeed: those who wait for it are told of what it asks.
    pub(super) fn confirm(&self) {
        self.progress.send_modify(|progress| progress.claimed = true);
    }

    /// Notes that it is claimed in what replicas share too.
    pub(super) fn share(&mut self, epoch: u64) {
        self.name.shared = Some(epoch);
    }

    /// Notes that this replica alone guards it: what is shared did not answer.
    pub(super) fn go_alone(mut self) -> Self {
        self.guarded = Guarded::Alone;
        self
    }

    /// Who guards it.
    pub fn guarded(&self) -> Guarded {
        self.guarded
    }

    /// What is asked before every attempt under it; `None` where it cannot be lost.
    pub fn guard(&self) -> Option<Guard> {
        match &self.store {
            Store::Memory(_) | Store::Disk(_) => None,
            Store::Shared(shared) => shared.guard(&self.name),
        }
    }

    /// Where attempts under it are written down that are not the last; `None` where
    /// nothing outlasts the process anyway.
    pub fn diary(&self) -> Option<Diary> {
        let journal = self.store.journal()?.clone();
        let ((seq, _), epoch) = (self.name.exchange.parts(), self.name.epoch);
        Some(Diary::new(move |attempts| {
            let (texts, status) = (ledger::texts(attempts), ledger::status(attempts));
            journal.note_attempts((seq, epoch), texts, status);
        }))
    }

    /// Ends it as unknown in the local store alone: another replica left it so.
    pub(super) async fn unknown_elsewhere(mut self) {
        if let Store::Shared(shared) = &self.store {
            shared.local().settle(&self, &Settlement::abandoned(true)).await;
        }
        self.stage = Stage::Settled;
        self.progress.send_modify(|progress| progress.told = Some(Told::AskAgain));
    }

    /// Gives a key up that turned out not to be free.
    pub(super) fn dissolve(mut self) {
        self.stage = Stage::Settled;
        self.progress.send_modify(|progress| progress.told = Some(Told::AskAgain));
    }
}

impl Drop for Claim {
    /// Whoever panics, or is dropped on the way, leaves its claim open, never free.
    fn drop(&mut self) {
        if self.stage == Stage::Settled {
            return;
        }
        self.store.abandon(self, !self.is_untouched());
        let told = if self.is_untouched() { Told::AskAgain } else { Told::Unknown };
        self.progress.send_modify(|progress| progress.told = Some(told));
    }
}

impl Settlement {
    /// How a claim ends that was dropped on its way.
    pub(super) fn abandoned(open: bool) -> Self {
        Self {
            end: if open { End::Unknown } else { End::Released },
            stays: open,
            record: None,
            captured: Vec::new(),
            told: Told::Unknown,
            ttl: Duration::ZERO,
            keep_key: Duration::ZERO,
            attempts: Vec::new(),
        }
    }
}
