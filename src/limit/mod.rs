//! Holds attempts back: pauses that the upstream asked for, slots and rates.
//!
//! [`Gate`] holds the state of one route (or of the group that it names): a
//! [`pause`] and a [`turn`] for each caller. `layer` lets attempts pass.
//!
//! # Invariants
//!
//! - Whoever waits holds no slot, and is served in the order of arrival.
//! - A slot goes with the body of the response that it was taken for.
//! - The state outlives a reload of the config.

pub mod layer;
pub mod pause;
mod replicas;
pub mod turn;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use tokio::time::Instant;

use crate::exchange::Origin;
use pause::Pause;
use turn::Turns;

pub use layer::{Limit, LimitLayer};
pub use replicas::Coordinate;
use replicas::Replicas;

/// The `limits` block of a route, as meant. Every limit is per route and
/// credential; routes that name one `group` share theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Exchanges in flight at one time.
    pub concurrency: Option<NonZeroU32>,
    /// Attempts in any stretch of time.
    pub rate: Option<Rate>,
    /// How long an attempt may wait for its turn.
    pub max_wait: Duration,
    /// How many attempts may wait at one time.
    pub max_queue: u32,
    /// The name under which several routes share limits and pauses.
    pub group: Option<String>,
    /// Whether replicas share the rate and the pauses.
    pub shared: bool,
}

/// So many attempts in any stretch of so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: NonZeroU32,
    /// In how long.
    pub per: Duration,
}

/// A digest of the credentials that a request carries.
pub type Caller = [u8; 32];

/// The gates of all routes, by name; they outlive reloads.
#[derive(Clone, Default)]
pub struct Gates {
    gates: Arc<DashMap<String, Gate>>,
    coordinate: Option<Arc<dyn Coordinate>>,
}

impl Gates {
    /// Gates that share what routes want shared, by `coordinate`.
    pub fn new(coordinate: Option<Arc<dyn Coordinate>>) -> Self {
        Self { gates: Arc::default(), coordinate }
    }

    /// The gate of a route, or of the group that it names.
    pub fn of(&self, route: &str, limits: &Limits) -> Gate {
        let name = match &limits.group {
            Some(group) => format!("group {group}"),
            None => format!("route {route}"),
        };
        let coordinate = self.coordinate.as_ref().filter(|_| limits.shared);
        let replicas = coordinate.map(|coordinate| Replicas {
            coordinate: coordinate.clone(),
            name: name.as_str().into(),
        });
        let gate = self.gates.entry(name).or_default().clone();
        Gate { replicas, ..gate }
    }
}

impl std::fmt::Debug for Gates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gates").field("gates", &self.gates).finish_non_exhaustive()
    }
}

impl Gates {
    /// Forgets what is over; called every few seconds.
    pub fn sweep(&self, now: Instant) {
        for gate in self.gates.iter() {
            gate.sweep(now);
        }
    }
}

/// What holds the attempts of one route back; a clone shares it.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    inner: Arc<State>,
    replicas: Option<Replicas>,
}

#[derive(Debug, Default)]
struct State {
    pauses: DashMap<(Caller, Option<Origin>), Arc<Pause>>,
    /// How many pauses there are: at zero, which is the rule, nobody looks.
    paused: AtomicUsize,
    turns: DashMap<Caller, Arc<Turns>>,
    waiting: AtomicUsize,
}

impl Gate {
    /// Whether any caller is paused.
    pub fn has_pauses(&self) -> bool {
        self.inner.paused.load(Ordering::Acquire) != 0
    }

    /// The caller's pause, if there is one.
    fn pause(&self, caller: &Caller, origin: Option<&Origin>) -> Option<Arc<Pause>> {
        self.inner.pauses.get(&(*caller, origin.map(Origin::by_name))).map(|pause| pause.clone())
    }

    /// Pauses a caller until `until`, or longer where it is paused already.
    fn begin(&self, caller: Caller, origin: Option<&Origin>, until: Instant) {
        let key = (caller, origin.map(Origin::by_name));
        // Until the sweep makes room, no more are paused: the price of a bound.
        if self.inner.pauses.len() >= CALLERS_MAX && !self.inner.pauses.contains_key(&key) {
            return;
        }
        let entry = self.inner.pauses.entry(key);
        let pause = entry.or_insert_with(|| {
            self.inner.paused.fetch_add(1, Ordering::AcqRel);
            Arc::new(Pause::new(until))
        });
        pause.extend(until);
    }

    /// Ends a caller's pause: the upstream answers again.
    fn end(&self, caller: &Caller, origin: Option<&Origin>) {
        if let Some((_, pause)) = self.inner.pauses.remove(&(*caller, origin.map(Origin::by_name)))
        {
            self.inner.paused.fetch_sub(1, Ordering::AcqRel);
            pause.lift();
        }
    }

    /// Forgets who neither runs nor waits, and has no rate to account for: such a
    /// caller is as new. Ends pauses that are over.
    fn sweep(&self, now: Instant) {
        let busy = |turns: &Arc<Turns>| Arc::strong_count(turns) > 1 || !turns.is_fresh(now);
        self.inner.turns.retain(|_, turns| busy(turns));
        self.inner.pauses.retain(|_, pause| {
            let kept = !pause.is_over(now);
            if !kept {
                self.inner.paused.fetch_sub(1, Ordering::AcqRel);
                pause.lift();
            }
            kept
        });
    }

    fn turns(&self, caller: Caller) -> Arc<Turns> {
        if let Some(turns) = self.inner.turns.get(&caller) {
            return turns.clone();
        }
        // Past the bound, until the sweep makes room, all others count as one.
        let full = self.inner.turns.len() >= CALLERS_MAX;
        self.inner.turns.entry(if full { EVERYONE_ELSE } else { caller }).or_default().clone()
    }
}

/// Credentials told apart at one time: a caller that invents them costs no more than this.
const CALLERS_MAX: usize = 16_384;
/// Who shares one place past that; no digest is all zeros.
const EVERYONE_ELSE: Caller = [0; 32];

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(nth: usize) -> Caller {
        let mut caller = [1; 32];
        caller[..8].copy_from_slice(&nth.to_be_bytes());
        caller
    }

    #[tokio::test(start_paused = true)]
    async fn invented_credentials_do_not_fill_the_memory() {
        let (gates, now) = (Gates::default(), Instant::now());
        let gate = gates.gates.entry("route r".to_owned()).or_default().clone();
        let until = now + Duration::from_secs(1);
        for nth in 0..=CALLERS_MAX {
            gate.begin(caller(nth), None, until);
            drop(gate.turns(caller(nth)));
        }
        assert!(gate.pause(&caller(CALLERS_MAX - 1), None).is_some(), "at the bound");
        assert!(gate.pause(&caller(CALLERS_MAX), None).is_none(), "over it");
        let shared =
            Arc::ptr_eq(&gate.turns(caller(CALLERS_MAX)), &gate.turns(caller(CALLERS_MAX + 1)));
        assert!(shared, "over it, all others count as one");
        tokio::time::advance(Duration::from_secs(2)).await;
        gates.sweep(Instant::now());
        assert!(!gate.has_pauses());
        gate.begin(caller(CALLERS_MAX), None, until);
        assert!(gate.has_pauses() && gate.inner.turns.is_empty());
    }
}
