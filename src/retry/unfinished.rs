//! An attempt that nobody waits for any more.

use std::time::{Duration, SystemTime};

use crate::exchange::trail::Attempt;
use crate::exchange::{Outcome, Traced, Trail};
use crate::metrics::RouteMetrics;
use crate::retry::layer::Exchange;

/// An attempt under way. Dropped before it ended, as by a client that leaves, it is an attempt
/// like any other that was sent and has no status: ambiguous (`design.md`, section 6).
pub(super) struct Unfinished<'a> {
    trail: &'a Trail,
    traced: Option<&'a Traced>,
    metrics: &'a RouteMetrics,
    waited: Duration,
    at: SystemTime,
}

impl Exchange {
    /// Held until the attempt has ended.
    pub(super) fn under_way(&self) -> Unfinished<'_> {
        Unfinished {
            trail: &self.parts.trail,
            traced: self.parts.traced.as_ref(),
            metrics: &self.shared.means.metrics,
            waited: self.waited,
            at: self.began,
        }
    }
}

impl Unfinished<'_> {
    /// It ended: what came of it is noted elsewhere.
    pub(super) fn ended(self) {
        std::mem::forget(self); // it owns nothing
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if self.trail.is_at_rest() {
            return; // it was in a queue, and nothing was sent
        }
        let outcome = Outcome::Ambiguous;
        self.metrics.attempt(outcome.as_str());
        if let Some(traced) = self.traced {
            traced.classified(outcome, self.waited);
        }
        let (waited, at) = (self.waited, self.at);
        self.trail.with(|notes| {
            notes.attempts.push(Attempt { outcome, status: None, did_nothing: false, waited, at });
        });
    }
}
