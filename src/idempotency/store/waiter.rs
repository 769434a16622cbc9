//! Waiting for the exchange that holds a claim, in this process or on another replica.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::exchange::id::ExchangeId;
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::scope::RecordId;
use crate::idempotency::store::Told;
use crate::idempotency::store::redis::{self, Redis};

/// What is known of an exchange in flight.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Whether it holds the claim; before that it only asks what has become of the key.
    pub(super) claimed: bool,
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) told: Option<Told>,
}

/// Waits for the exchange that holds a claim.
#[derive(Clone, Debug)]
pub struct Waiter {
    /// The exchange that holds it.
    pub exchange: ExchangeId,
    from: From,
}

/// Where news of it come from.
#[derive(Clone, Debug)]
enum From {
    /// This process.
    Here(watch::Receiver<Progress>),
    /// Another replica.
    Replica(There),
}

/// A claim that another replica holds.
#[derive(Clone, Debug)]
pub(super) struct There {
    pub(super) redis: Redis,
    pub(super) id: RecordId,
    pub(super) epoch: u64,
}

impl Waiter {
    /// Waits for an exchange of this process.
    pub(super) fn here(exchange: ExchangeId, progress: watch::Receiver<Progress>) -> Self {
        Self { exchange, from: From::Here(progress) }
    }

    /// Waits for an exchange of another replica.
    pub(super) fn of_replica(exchange: ExchangeId, there: There) -> Self {
        Self { exchange, from: From::Replica(there) }
    }

    /// Whether it is an exchange of this process.
    pub fn is_here(&self) -> bool {
        matches!(self.from, From::Here(_))
    }

    /// Waits until it holds the claim, or asked in vain: true where it does. `None` where
    /// that takes longer than `patience`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn claimed(&mut self, patience: Duration) -> Option<bool> {
        let From::Here(progress) = &mut self.from else { return Some(true) };
        let known = |progress: &Progress| progress.claimed || progress.told.is_some();
        match timeout(patience, progress.wait_for(known)).await {
            Err(_elapsed) => None,
            Ok(Err(_gone)) => Some(false),
            Ok(Ok(progress)) => Some(progress.claimed),
        }
    }

    /// What the exchange in flight asks, once that is known; `None` where it ends before.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn fingerprint(&mut self, patience: Duration) -> Option<Fingerprint> {
        let progress = match &mut self.from {
            From::Here(progress) => progress,
            From::Replica(There { redis, id, epoch }) => {
                return redis.fingerprint(*id, *epoch, patience).await;
            }
        };
        let known = |progress: &Progress| progress.fingerprint.is_some() || progress.told.is_some();
        let seen = timeout(patience, progress.wait_for(known)).await.ok()?.ok()?;
        seen.fingerprint
    }

    /// What came of it; `None` where that takes longer than `patience`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn told(&mut self, patience: Duration) -> Option<Told> {
        let progress = match &mut self.from {
            From::Here(progress) => progress,
            From::Replica(There { redis, id, epoch }) => {
                return Some(match redis.told(*id, *epoch, patience).await? {
                    redis::Told::Answer(record) => Told::Answer(record),
                    // What is known of it by now says more than that it is over; and an
                    // owner that died told nobody anything.
                    redis::Told::Completed { .. } | redis::Told::Unknown | redis::Told::Gone => {
                        Told::AskAgain
                    }
                });
            }
        };
        let ended = |progress: &Progress| progress.told.is_some();
        match timeout(patience, progress.wait_for(ended)).await {
            Err(_elapsed) => None,
            Ok(Err(_gone)) => Some(Told::Unknown),
            Ok(Ok(progress)) => progress.told.clone(),
        }
    }
}
