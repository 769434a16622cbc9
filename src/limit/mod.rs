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
#[derive(Clone, Debug, Default)]
pub struct Gates(Arc<DashMap<String, Gate>>);

impl Gates {
    /// The gate of a route, or of the group that it names.
    pub fn of(&self, route: &str, limits: &Limits) -> Gate {
        let name = match &limits.group {
            Some(group) => format!("group {group}"),
            None => format!("route {route}"),
        };
        self.0.entry(name).or_default().clone()
    }
}

/// What holds the attempts of one route back; a clone shares it.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    inner: Arc<State>,
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
        self.inner.pauses.get(&(*caller, origin.cloned())).map(|pause| pause.clone())
    }

    /// Pauses a caller until `until`, or longer where it is paused already.
    fn begin(&self, caller: Caller, origin: Option<&Origin>, until: Instant) {
        if self.inner.pauses.len() >= CALLERS_MAX {
            self.forget_pauses(Instant::now());
        }
        let entry = self.inner.pauses.entry((caller, origin.cloned()));
        let pause = entry.or_insert_with(|| {
            self.inner.paused.fetch_add(1, Ordering::AcqRel);
            Arc::new(Pause::new(until))
        });
        pause.extend(until);
    }

    /// Ends a caller's pause: the upstream answers again.
    fn end(&self, caller: &Caller, origin: Option<&Origin>) {
        if let Some((_, pause)) = self.inner.pauses.remove(&(*caller, origin.cloned())) {
            self.inner.paused.fetch_sub(1, Ordering::AcqRel);
            pause.lift();
        }
    }

    fn forget_pauses(&self, now: Instant) {
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
        if self.inner.turns.len() >= CALLERS_MAX {
            // Whoever neither runs nor waits, and has no rate to account for, is as new.
            let now = Instant::now();
            self.inner
                .turns
                .retain(|_, turns| Arc::strong_count(turns) > 1 || !turns.is_fresh(now));
        }
        self.inner.turns.entry(caller).or_default().clone()
    }
}

/// Credentials told apart at one time: a caller that invents them costs no more than this.
const CALLERS_MAX: usize = 16_384;
