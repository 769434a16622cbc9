//! What a key comes to, where this replica and the coordinator may know different things.

use std::time::Duration;

use crate::exchange::Failure;
use crate::exchange::id::ExchangeId;
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::scope::RecordId;
use crate::idempotency::store::redis::{self, Imposed, Peek, Taken};
use crate::idempotency::store::shared::Shared;
use crate::idempotency::store::waiter::There;
use crate::idempotency::store::{Asked, Claim, Completed, Open, Reserved, Store, Waiter};
use crate::journal::resolve::Verdict;
use crate::metrics::Operation;

impl Shared {
    /// Looks for an answer there that is not kept here.
    pub(super) async fn complete(&self, id: RecordId, done: Completed) -> Completed {
        match self.heard(Operation::SharedPeek, self.0.redis.peek(id).await) {
            Some(Peek::Taken(taken)) => match taken.state {
                redis::State::Completed { record: Some(record), captured, .. } => {
                    let (fingerprint, exchange) = (taken.fingerprint, taken.exchange);
                    Completed { fingerprint, exchange, record: Some(record), captured }
                }
                redis::State::Completed { .. } | redis::State::InFlight | redis::State::Unknown => {
                    done
                }
            },
            Some(Peek::Absent | Peek::Resolved { .. }) | None => done,
        }
    }

    /// What a key comes to that another replica, or another life of this one, has.
    pub(super) async fn taken(&self, claim: Claim, taken: Taken) -> Result<Reserved, Failure> {
        let (epoch, exchange, fingerprint) = (taken.epoch, taken.exchange, taken.fingerprint);
        match taken.state {
            redis::State::InFlight => Ok(Reserved::InFlight(self.waits_for(claim.id(), &taken))),
            redis::State::Completed { record, captured, at: _ } => {
                Ok(Reserved::Completed(Completed { fingerprint, exchange, record, captured }))
            }
            redis::State::Unknown => {
                // It is written down here too: whoever is told of it can read of it, and
                // settle it, where they were told.
                let age = self.age(taken.first_sent_wall_micros);
                let own = claim.exchange();
                let mut claim = claim;
                self.share(&mut claim, epoch);
                if let Some(fingerprint) = fingerprint {
                    self.0.local.identify(&claim.name(), fingerprint);
                }
                let first_sent = i64::try_from(taken.first_sent_wall_micros).unwrap_or(i64::MAX);
                self.0.local.backdate(&claim.name(), first_sent);
                let local_epoch = claim.epoch();
                claim.unknown_elsewhere().await;
                tracing::info!(exchange = %own, "another replica left an outcome unknown");
                Ok(Reserved::Unknown(Open {
                    fingerprint,
                    exchange: own,
                    age,
                    quiet: Duration::ZERO,
                    tag: None,
                    epoch: local_epoch,
                    shared: Some(epoch),
                }))
            }
        }
    }

    /// Sets what is unknown here against what is known there.
    pub(super) async fn compare(
        &self,
        store: &Store,
        open: Open,
        asked: &Asked,
    ) -> Result<Reserved, Failure> {
        let here = open.shared.unwrap_or(0);
        let Some(peek) = self.heard(Operation::SharedPeek, self.0.redis.peek(asked.id).await)
        else {
            return Ok(Reserved::Unknown(open));
        };
        match peek {
            // Somebody said elsewhere that nothing was done. Where this replica died before
            // it wrote down which life it was in, that may have been said of another.
            Peek::Resolved { epoch } if open.shared.is_some_and(|here| epoch > here) => {
                self.resolve_here(open.exchange, Verdict::Absent).await?;
                Box::pin(self.reserve(store, asked)).await
            }
            Peek::Absent | Peek::Resolved { .. } => {
                let shared = self.impose(asked.id, &open, asked.fingerprint).await;
                Ok(Reserved::Unknown(Open { shared: shared.or(open.shared), ..open }))
            }
            Peek::Taken(taken) if taken.epoch >= here => match taken.state {
                redis::State::InFlight => Ok(Reserved::InFlight(self.waits_for(asked.id, &taken))),
                redis::State::Completed { record, captured, at: _ } => {
                    self.resolve_here(open.exchange, Verdict::Landed).await?;
                    let (fingerprint, exchange) = (taken.fingerprint, taken.exchange);
                    Ok(Reserved::Completed(Completed { fingerprint, exchange, record, captured }))
                }
                redis::State::Unknown => {
                    let there = self.age(taken.first_sent_wall_micros);
                    // Of two ages the greater one, and none where one cannot be told.
                    let age = open.age.zip(there).map(|(here, there)| here.max(there));
                    let open = Open { age, ..open };
                    Ok(Reserved::Unknown(if taken.epoch == here {
                        Open { shared: Some(here), ..open }
                    } else {
                        later(&open, Some(taken.epoch))
                    }))
                }
            },
            // A failover forgot the life that is unknown here. What it does remember can be
            // taken up; what it has as answered is of another life.
            Peek::Taken(taken) => match taken.state {
                redis::State::InFlight => Ok(Reserved::InFlight(self.waits_for(asked.id, &taken))),
                redis::State::Unknown => Ok(Reserved::Unknown(later(&open, Some(taken.epoch)))),
                redis::State::Completed { .. } => Ok(Reserved::Unknown(later(&open, None))),
            },
        }
    }

    /// Writes down there what is unknown here; returns which life of the key it is then.
    async fn impose(
        &self,
        id: RecordId,
        open: &Open,
        fingerprint: Option<Fingerprint>,
    ) -> Option<u64> {
        let age = open.age.unwrap_or_default();
        let first_sent = self.now().saturating_sub(u64::try_from(age.as_micros()).unwrap_or(0));
        let imposed = Imposed {
            epoch: open.shared,
            exchange: open.exchange,
            fingerprint: open.fingerprint.or(fingerprint),
            first_sent_wall_micros: first_sent,
            answered: None,
        };
        self.heard(Operation::SharedImpose, self.0.redis.impose(id, imposed).await)?;
        match self.heard(Operation::SharedPeek, self.0.redis.peek(id).await)? {
            Peek::Taken(taken) => Some(taken.epoch),
            Peek::Absent | Peek::Resolved { .. } => None,
        }
    }

    async fn resolve_here(&self, exchange: ExchangeId, verdict: Verdict) -> Result<(), Failure> {
        self.0.local.resolve(exchange, verdict).await.map(drop).map_err(Failure::from)
    }

    fn waits_for(&self, id: RecordId, taken: &Taken) -> Waiter {
        Waiter::of_replica(
            taken.exchange,
            There { redis: self.0.redis.clone(), id, epoch: taken.epoch },
        )
    }

    /// How long ago that was by the wall clocks of two replicas; `None` where it is yet
    /// to come.
    fn age(&self, wall_micros: u64) -> Option<Duration> {
        self.now().checked_sub(wall_micros).map(Duration::from_micros)
    }
}

/// What is unknown here, in another life than the one that this replica had: when that
/// ended, and where its request named the key, nobody can say here.
fn later(open: &Open, shared: Option<u64>) -> Open {
    Open { quiet: Duration::ZERO, tag: None, shared, ..open.clone() }
}
