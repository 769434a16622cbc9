//! What this process knows of the claims it holds in Redis.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use dashmap::DashMap;
use tokio::time::{Duration, Instant};

use crate::exchange::id::ExchangeId;
use crate::idempotency::scope::RecordId;

/// The claims that are held, and the reservations that may have been made unheard.
#[derive(Debug, Default)]
pub(super) struct Held {
    leases: DashMap<RecordId, Lease>,
    strays: Mutex<VecDeque<Stray>>,
}

/// A claim that is held, as far as this process knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) epoch: u64,
    /// When the last renewal that succeeded was asked for: never later than Redis counts from.
    pub(super) renewed: Instant,
    /// Somebody else has it, or nobody.
    pub(super) lost: bool,
}

/// A reservation whose reply did not come: it may stand in Redis, and nothing was sent under it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stray {
    pub(super) id: RecordId,
    pub(super) exchange: ExchangeId,
    pub(super) nonce: u64,
    pub(super) since: Instant,
}

impl Held {
    pub(super) fn is_full(&self) -> bool {
        self.leases.len() >= HELD_MAX
    }

    pub(super) fn insert(&self, id: RecordId, epoch: u64, renewed: Instant) {
        self.leases.insert(id, Lease { epoch, renewed, lost: false });
    }

    pub(super) fn lease(&self, id: &RecordId, epoch: u64) -> Option<Lease> {
        let lease = self.leases.get(id).map(|lease| *lease)?;
        (lease.epoch == epoch).then_some(lease)
    }

    pub(super) fn renewed(&self, id: &RecordId, epoch: u64, at: Instant) {
        self.with(id, epoch, |lease| lease.renewed = lease.renewed.max(at));
    }

    pub(super) fn lost(&self, id: &RecordId, epoch: u64) {
        self.with(id, epoch, |lease| lease.lost = true);
    }

    pub(super) fn remove(&self, id: &RecordId, epoch: u64) {
        self.leases.remove_if(id, |_, lease| lease.epoch == epoch);
    }

    /// Every claim that is worth renewing.
    pub(super) fn all(&self) -> Vec<(RecordId, u64)> {
        let kept = self.leases.iter().filter(|lease| !lease.lost);
        kept.map(|lease| (*lease.key(), lease.epoch)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.leases.len()
    }

    pub(super) fn stray(&self, stray: Stray) {
        let mut strays = self.strays.lock().unwrap_or_else(PoisonError::into_inner);
        if strays.len() >= STRAYS_MAX {
            strays.pop_front(); // its lease runs out, and it is unknown then
        }
        strays.push_back(stray);
    }

    /// The strays that are still worth looking for, the older ones dropped.
    pub(super) fn strays(&self) -> Vec<Stray> {
        let mut strays = self.strays.lock().unwrap_or_else(PoisonError::into_inner);
        strays.retain(|stray| stray.since.elapsed() < STRAY_AGE_MAX);
        strays.iter().copied().collect()
    }

    pub(super) fn found(&self, nonce: u64) {
        let mut strays = self.strays.lock().unwrap_or_else(PoisonError::into_inner);
        strays.retain(|stray| stray.nonce != nonce);
    }

    /// For tests: as if the claim had last been renewed so long ago.
    #[cfg(test)]
    pub(super) fn age(&self, id: &RecordId, age: Duration) {
        if let Some(mut lease) = self.leases.get_mut(id) {
            lease.renewed = Instant::now().checked_sub(age).expect("the machine is up so long");
        }
    }

    fn with(&self, id: &RecordId, epoch: u64, act: impl FnOnce(&mut Lease)) {
        if let Some(mut lease) = self.leases.get_mut(id)
            && lease.epoch == epoch
        {
            act(&mut lease);
        }
    }
}

/// More exchanges at one time than a sidecar has connections for.
const HELD_MAX: usize = 100_000;
const STRAYS_MAX: usize = 4096;
/// A command that a stalled server has not run by then went with its connection.
const STRAY_AGE_MAX: Duration = Duration::from_mins(2);
