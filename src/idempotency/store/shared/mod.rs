//! The local store, and before it the coordinator that replicas share.
//!
//! The local store stays on: a claim is written here first, then confirmed there, and
//! what is known here stays known where the coordinator forgets it. Where the two
//! disagree, the more cautious state wins, unless the coordinator has seen a later life
//! of the key: then somebody resolved it, and this replica slept through that.

mod compare;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::task::TaskTracker;

use crate::exchange::id::ExchangeId;
use crate::exchange::trail::End;
use crate::exchange::{Failure, Guard};
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::key::Key;
use crate::idempotency::scope::RecordId;
use crate::idempotency::store::claim::Name;
use crate::idempotency::store::redis::{self, Answered, Ended, Found, Imposed, Redis, Settled};
use crate::idempotency::store::{
    Asked, Claim, Open, Reserved, Settlement, Store, Told, UnknownAt, ledger,
};
use crate::journal::Fault;
use crate::journal::State;
use crate::journal::resolve::{Freed, Resolution, Verdict};
use crate::metrics::{Metrics, Operation};

/// A local store behind a coordinator; a clone shares both.
#[derive(Clone, Debug)]
pub struct Shared(Arc<Front>);

#[derive(Debug)]
struct Front {
    local: Store,
    redis: Redis,
    on_failure: OnFailure,
    tasks: TaskTracker,
    metrics: Metrics,
    /// Whether the coordinator failed when it was last asked: told once, and once more
    /// when it is back.
    is_away: AtomicBool,
    /// Ends that it did not take: they are told again.
    owed: Mutex<Vec<(RecordId, u64, Settled)>>,
}

/// What is done for a key that somebody can ask for, while the coordinator is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// It is refused: nothing is sent.
    Refuse,
    /// It goes on with what this replica knows.
    Forward,
}

impl Shared {
    /// Puts `redis` before `local`; what nobody waits for goes on in `tasks`.
    pub fn new(
        local: Store,
        redis: Redis,
        on_failure: OnFailure,
        (tasks, metrics): (TaskTracker, Metrics),
    ) -> Self {
        let (is_away, owed) = (AtomicBool::new(false), Mutex::default());
        Self(Arc::new(Front { local, redis, on_failure, tasks, metrics, is_away, owed }))
    }

    /// The store of this replica alone.
    pub(super) fn local(&self) -> &Store {
        &self.0.local
    }

    pub(super) async fn reserve(&self, store: &Store, asked: &Asked) -> Result<Reserved, Failure> {
        // Where another replica has the key, this request says nothing of where that one's
        // named it: so the tag is noted once the key is claimed there too.
        let untagged = Asked { tag: None, ..asked.clone() };
        match self.0.local.reserve_for(store, &untagged).await? {
            Reserved::Claimed(claim) => self.confirm(claim, asked).await,
            Reserved::Unknown(open) => self.compare(store, open, asked).await,
            Reserved::Completed(done) if done.record.is_none() => {
                Ok(Reserved::Completed(self.complete(asked.id, done).await))
            }
            known @ (Reserved::InFlight(_) | Reserved::Completed(_)) => Ok(known),
        }
    }

    /// Claims a key there that is claimed here; nothing was sent yet.
    async fn confirm(&self, mut claim: Claim, asked: &Asked) -> Result<Reserved, Failure> {
        let wanted = redis::Asked {
            exchange: asked.exchange,
            fingerprint: asked.fingerprint,
            first_sent_wall_micros: self.now(),
        };
        match self.heard(Operation::SharedReserve, self.0.redis.reserve(asked.id, wanted).await) {
            Some(Found::Claimed { epoch, .. }) => {
                self.share(&mut claim, epoch);
                if let Some(place) = &asked.tag {
                    self.0.local.note_tag(&claim.name(), place.clone());
                }
                Ok(Reserved::Claimed(claim))
            }
            // The claim here takes itself back: nothing was sent under it.
            Some(Found::Taken(taken)) => self.taken(claim, taken).await,
            None if self.goes_on(asked) => Ok(Reserved::Claimed(claim.go_alone())),
            None => Err(AWAY),
        }
    }

    pub(super) async fn resume(
        &self,
        store: &Store,
        asked: &Asked,
        open: &Open,
    ) -> Result<Option<Claim>, Failure> {
        let tag = asked.tag.clone().filter(|_| open.tag.is_some());
        let asked = &Asked { tag, ..asked.clone() };
        let Some(mut claim) = self.0.local.resume_for(store, asked, open).await? else {
            return Ok(None);
        };
        // Dropped from here on, it is unknown here as before.
        let Some(epoch) = open.shared else {
            return if self.goes_on(asked) { Ok(Some(claim.go_alone())) } else { Err(AWAY) };
        };
        match self.heard(Operation::SharedResume, self.0.redis.resume(asked.id, epoch).await) {
            Some(Some(next)) => {
                self.share(&mut claim, next);
                Ok(Some(claim))
            }
            Some(None) => Ok(None),
            None if self.goes_on(asked) => Ok(Some(claim.go_alone())),
            None => Err(AWAY),
        }
    }

    pub(super) fn identify(&self, name: &Name, fingerprint: Fingerprint) {
        self.0.local.identify(name, fingerprint);
        if let Some(epoch) = name.shared {
            let (front, id) = (self.clone(), name.id);
            self.0.tasks.spawn(async move {
                let noted = front.0.redis.identify(id, epoch, fingerprint).await;
                front.heard(Operation::SharedIdentify, noted);
            });
        }
    }

    pub(super) async fn settle(&self, claim: &Claim, settlement: &Settlement) {
        let there = async {
            if let Some(epoch) = claim.name().shared {
                let settled = settled(settlement);
                if self.tell(claim.id(), epoch, settled.clone()).await == Heard::Gone {
                    self.tell_again(claim, epoch, settled.end).await;
                }
            }
        };
        tokio::join!(self.0.local.settle(claim, settlement), there);
    }

    pub(super) fn abandon(&self, claim: &Claim, open: bool) {
        self.0.local.abandon(claim, open);
        let Some(epoch) = claim.name().shared else { return };
        let end = if open { Ended::Unknown } else { Ended::Released };
        let (front, id) = (self.clone(), claim.id());
        front.0.redis.let_go(id, epoch);
        self.0.tasks.spawn(async move {
            front.tell(id, epoch, Settled { end, told: None }).await;
        });
    }

    /// What is asked before every attempt: whether the claim is still this replica's.
    pub(super) fn guard(&self, name: &Name) -> Option<Guard> {
        let epoch = name.shared?;
        let (front, id) = (self.clone(), name.id);
        Some(Guard::new(move || {
            let front = front.clone();
            Box::pin(async move {
                match front.heard(Operation::SharedHolds, front.0.redis.holds(id, epoch).await) {
                    Some(true) => Ok(()),
                    Some(false) => {
                        Err(Failure::StoreUnavailable("another replica took the claim over"))
                    }
                    None if front.0.on_failure == OnFailure::Forward => Ok(()),
                    None => Err(AWAY),
                }
            })
        }))
    }

    pub(super) async fn forget(&self, id: &RecordId, key: &Key) {
        self.0.local.forget(id, key).await;
        let forgotten = self.0.redis.forget(*id, FORGOTTEN_FOR).await;
        if self.heard(Operation::SharedForget, forgotten) == Some(false) {
            // It is unknown there, and nobody can ask for it: it must not stay for ever.
            let (absent, keep) = (redis::Verdict::Absent, FORGOTTEN_FOR);
            self.heard(
                Operation::SharedResolve,
                self.0.redis.resolve(*id, None, &absent, keep).await,
            );
        }
    }

    pub(super) async fn sweep(&self) -> Result<(), Fault> {
        let owed = std::mem::take(&mut *self.owed());
        for (id, epoch, settled) in owed {
            self.tell(id, epoch, settled).await;
        }
        self.0.local.sweep().await
    }

    /// Settles an unknown outcome there first, then here: where it is told that it is
    /// settled, both know.
    pub(super) async fn resolve(
        &self,
        exchange: ExchangeId,
        verdict: Verdict,
    ) -> Result<Resolution, Fault> {
        if let Some(UnknownAt { id, shared }) = self.0.local.unknown(exchange).await? {
            let there = match verdict {
                Verdict::Absent => redis::Verdict::Absent,
                Verdict::Landed => {
                    let entry = self.0.local.show(exchange).await?;
                    let captured = entry.map(|entry| entry.captured).unwrap_or_default();
                    redis::Verdict::Landed { exchange, fingerprint: None, captured }
                }
            };
            let told = self.0.redis.resolve(id, shared, &there, ledger::RESOLVED_FOR).await;
            match self.heard(Operation::SharedResolve, told).ok_or(Fault::Away)? {
                redis::Resolution::Done { .. } => {}
                redis::Resolution::InFlight => return Ok(Resolution::Stands(State::InFlight)),
                redis::Resolution::Completed => {
                    self.0.local.resolve(exchange, Verdict::Landed).await?;
                    return Ok(Resolution::Stands(State::Completed));
                }
                // What is there by now is of a later life than the one that is settled here.
                redis::Resolution::Changed => {
                    tracing::warn!(%exchange, "other replicas know a later life of its key");
                }
            }
        }
        self.0.local.resolve(exchange, verdict).await
    }

    pub(super) async fn free(&self, key: String) -> Result<Freed, Fault> {
        let freed = self.0.local.free(key).await?;
        if let Freed::Ids(ids) = &freed {
            for id in ids {
                let forgotten = self.0.redis.forget(RecordId(*id), FORGOTTEN_FOR).await;
                self.heard(Operation::SharedForget, forgotten);
            }
        }
        Ok(freed)
    }

    fn share(&self, claim: &mut Claim, epoch: u64) {
        claim.share(epoch);
        self.0.local.note_shared(&claim.name(), epoch);
    }

    /// Tells the coordinator how a claim ended; what it does not take is told again.
    async fn tell(&self, id: RecordId, epoch: u64, settled: Settled) -> Heard {
        let told = self.0.redis.settle(id, epoch, settled.clone()).await;
        match self.heard(Operation::SharedSettle, told) {
            Some(true) => Heard::Taken,
            Some(false) => Heard::Gone,
            None => {
                let mut owed = self.owed();
                if owed.len() < OWED_MAX {
                    owed.push((id, epoch, settled));
                }
                Heard::Nothing
            }
        }
    }

    /// The claim was not there any more when it ended: where nobody took it over, what
    /// came of it is written down anew.
    async fn tell_again(&self, claim: &Claim, epoch: u64, end: Ended) {
        let answered = match end {
            Ended::Completed(answered) => Some(answered),
            Ended::Unknown => None,
            Ended::Released => return,
        };
        let imposed = Imposed {
            epoch: Some(epoch),
            exchange: claim.exchange(),
            fingerprint: claim.fingerprint(),
            first_sent_wall_micros: self.now(),
            answered,
        };
        let told = self.0.redis.impose(claim.id(), imposed).await;
        match self.heard(Operation::SharedImpose, told) {
            Some(true) => tracing::warn!("state.shared had lost a claim; it was told how it ended"),
            Some(false) => tracing::warn!("another replica took a claim over before it ended"),
            None => {}
        }
    }

    /// Whether an exchange goes on while the coordinator is away: a random key that an
    /// equal request may take over is no more than a convenience.
    fn goes_on(&self, asked: &Asked) -> bool {
        asked.scope.is_some() || self.0.on_failure == OnFailure::Forward
    }

    /// What the coordinator said; `None` where it said nothing.
    fn heard<T>(&self, operation: Operation, said: Result<T, redis::Unavailable>) -> Option<T> {
        match said {
            Ok(said) => {
                if self.0.is_away.load(Ordering::Relaxed)
                    && self.0.is_away.swap(false, Ordering::AcqRel)
                {
                    tracing::info!("state.shared answers again");
                }
                Some(said)
            }
            Err(why) => {
                self.0.metrics.store_error(operation);
                if !self.0.is_away.swap(true, Ordering::AcqRel) {
                    let on_failure = match self.0.on_failure {
                        OnFailure::Refuse => "client and derived keys are refused",
                        OnFailure::Forward => "keys are guarded on this replica alone",
                    };
                    tracing::error!(%why, on_failure, "state.shared does not answer");
                }
                None
            }
        }
    }

    fn now(&self) -> u64 {
        self.0.local.now().wall.unsigned_abs()
    }

    fn owed(&self) -> std::sync::MutexGuard<'_, Vec<(RecordId, u64, Settled)>> {
        self.0.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of telling how a claim ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// It is known there.
    Taken,
    /// The claim is not there any more.
    Gone,
    /// Nobody answered; it is told again.
    Nothing,
}

/// How a claim ends, for the coordinator.
fn settled(settlement: &Settlement) -> Settled {
    let told = match &settlement.told {
        Told::Answer(record) => Some(record.clone()),
        Told::Failure(_) | Told::TooLarge | Told::Unknown | Told::AskAgain => None,
    };
    let end = match settlement.end {
        End::Completed | End::NotRetained if settlement.stays => Ended::Completed(Answered {
            record: settlement.record.clone(),
            captured: settlement.captured.clone(),
            ttl: settlement.ttl,
            keep_key: settlement.keep_key,
        }),
        End::Unknown if settlement.stays => Ended::Unknown,
        End::Completed | End::NotRetained | End::Unknown | End::Released => Ended::Released,
    };
    Settled { end, told }
}

/// The failure of a key whose coordinator is away.
const AWAY: Failure = Failure::StoreUnavailable("state.shared does not answer");
/// How long other replicas remember that a key was forgotten, and do not write their own
/// copy of it back.
const FORGOTTEN_FOR: Duration = Duration::from_hours(24);
/// Ends that wait for the coordinator; past it a lease that runs out makes unknowns.
const OWED_MAX: usize = 10_000;
