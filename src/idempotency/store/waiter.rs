//! Waiting for the exchange that holds a claim.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::exchange::id::ExchangeId;
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::store::Told;

/// What is known of an exchange in flight.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) told: Option<Told>,
}

/// Waits for the exchange that holds a claim.
#[derive(Clone, Debug)]
pub struct Waiter {
    /// The exchange that holds it.
    pub exchange: ExchangeId,
    pub(super) progress: watch::Receiver<Progress>,
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
