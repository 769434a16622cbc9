//! The local store, and before it the coordinator that replicas share.
//!
//! The local store stays on: a claim is written here first, then confirmed there, and
//! what is known here stays known where the coordinator forgets it. Where the two
//! disagree, the more cautious state wins, unless the coordinator has seen a later life
//! of the key: then somebody resolved it, and this replica slept through that.

mod differences;

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
use crate::idempotency::store::redis::{self, Answered, Ended, Found, Redis, Settled, Taken};
use crate::idempotency::store::waiter::There;
use crate::idempotency::store::{Asked, Claim, Open, Reserved, Settlement, Store, Told, Waiter};
use crate::journal::Fault;
use crate::journal::resolve::{Freed, Resolution, Resolved, Verdict};
use crate::metrics::Metrics;

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
        match self.0.local.reserve_for(store, asked).await? {
            Reserved::Claimed(claim) => self.confirm(claim, asked).await,
            Reserved::Unknown(open) => self.compare(store, open, asked).await,
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
        match self.heard("shared_reserve", self.0.redis.reserve(asked.id, wanted).await) {
            Some(Found::Claimed { epoch, .. }) => {
                self.share(&mut claim, epoch);
                Ok(Reserved::Claimed(claim))
            }
            // The claim here takes itself back: nothing was sent under it.
            Some(Found::Taken(taken)) => self.taken(claim, taken).await,
            None if self.goes_on(asked) => Ok(Reserved::Claimed(claim)),
            None => Err(AWAY),
        }
    }

    pub(super) async fn resume(
        &self,
        store: &Store,
        asked: &Asked,
        open: &Open,
    ) -> Result<Option<Claim>, Failure> {
        let Some(mut claim) = self.0.local.resume_for(store, asked, open).await? else {
            return Ok(None);
        };
        // Dropped from here on, it is unknown here as before.
        let Some(epoch) = open.shared else {
            return if self.goes_on(asked) { Ok(Some(claim)) } else { Err(AWAY) };
        };
        match self.heard("shared_resume", self.0.redis.resume(asked.id, epoch).await) {
            Some(Some(next)) => {
                self.share(&mut claim, next);
                Ok(Some(claim))
            }
            Some(None) => Ok(None),
            None if self.goes_on(asked) => Ok(Some(claim)),
            None => Err(AWAY),
        }
    }

    pub(super) fn identify(&self, name: &Name, fingerprint: Fingerprint) {
        self.0.local.identify(name, fingerprint);
        if let Some(epoch) = name.shared {
            let (front, id) = (self.clone(), name.id);
            self.0.tasks.spawn(async move {
                let noted = front.0.redis.identify(id, epoch, fingerprint).await;
                front.heard("shared_identify", noted);
            });
        }
    }

    pub(super) async fn settle(&self, claim: &Claim, settlement: &Settlement) {
        let there = async {
            if let Some(epoch) = claim.name().shared {
                self.tell(claim.id(), epoch, settled(settlement)).await;
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
                match front.heard("shared_holds", front.0.redis.holds(id, epoch).await) {
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
        self.heard("shared_forget", self.0.redis.forget(*id, FORGOTTEN_FOR).await);
    }

    pub(super) async fn sweep(&self) -> Result<(), Fault> {
        let owed = std::mem::take(&mut *self.owed());
        for (id, epoch, settled) in owed {
            self.tell(id, epoch, settled).await;
        }
        self.0.local.sweep().await
    }

    pub(super) async fn resolve(
        &self,
        exchange: ExchangeId,
        verdict: Verdict,
    ) -> Result<Resolution, Fault> {
        let entry = self.0.local.show(exchange).await?;
        let resolution = self.0.local.resolve(exchange, verdict).await?;
        if let (Resolution::Settled(Resolved { id: Some(id), shared_epoch, keep }), Some(entry)) =
            (&resolution, entry)
        {
            let there = match verdict {
                Verdict::Absent => redis::Verdict::Absent,
                Verdict::Landed => {
                    let captured = entry.captured;
                    redis::Verdict::Landed { exchange, fingerprint: None, captured }
                }
            };
            let keep = Duration::from_micros(keep.unsigned_abs());
            let told = self.0.redis.resolve(RecordId(*id), *shared_epoch, &there, keep).await;
            match self.heard("shared_resolve", told) {
                Some(redis::Resolution::Done { .. }) => {}
                // What is there by now is later than what was resolved here.
                Some(stands) => tracing::warn!(?stands, "other replicas know otherwise"),
                None => tracing::error!(
                    %exchange,
                    "an outcome was resolved here, and other replicas were not told"
                ),
            }
        }
        Ok(resolution)
    }

    pub(super) async fn free(&self, key: String) -> Result<Freed, Fault> {
        let freed = self.0.local.free(key).await?;
        if let Freed::Ids(ids) = &freed {
            for id in ids {
                let forgotten = self.0.redis.forget(RecordId(*id), FORGOTTEN_FOR).await;
                self.heard("shared_forget", forgotten);
            }
        }
        Ok(freed)
    }

    /// Tells the coordinator how a claim ended; what it does not take is told again.
    async fn tell(&self, id: RecordId, epoch: u64, settled: Settled) {
        let told = self.0.redis.settle(id, epoch, settled.clone()).await;
        match self.heard("shared_settle", told) {
            Some(true) => {}
            Some(false) => tracing::warn!("another replica took a claim over before it ended"),
            None => {
                let mut owed = self.owed();
                if owed.len() < OWED_MAX {
                    owed.push((id, epoch, settled));
                }
            }
        }
    }

    fn share(&self, claim: &mut Claim, epoch: u64) {
        claim.share(epoch);
        self.0.local.note_shared(&claim.name(), epoch);
    }

    fn waits_for(&self, id: RecordId, taken: &Taken) -> Waiter {
        Waiter::of_replica(
            taken.exchange,
            There { redis: self.0.redis.clone(), id, epoch: taken.epoch },
        )
    }

    /// Whether an exchange goes on while the coordinator is away: a random key that an
    /// equal request may take over is no more than a convenience.
    fn goes_on(&self, asked: &Asked) -> bool {
        asked.scope.is_some() || self.0.on_failure == OnFailure::Forward
    }

    /// What the coordinator said; `None` where it said nothing.
    fn heard<T>(&self, operation: &str, said: Result<T, redis::Unavailable>) -> Option<T> {
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

    /// How long ago that was by the wall clocks of two replicas; `None` where it is yet
    /// to come.
    fn age(&self, wall_micros: u64) -> Option<Duration> {
        self.now().checked_sub(wall_micros).map(Duration::from_micros)
    }

    fn owed(&self) -> std::sync::MutexGuard<'_, Vec<(RecordId, u64, Settled)>> {
        self.0.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
