//! What a route allows: how often, on what, how long, at what price.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::exchange::trail::Says;
use crate::exchange::{Condition, Statuses};
use crate::retry::backoff::Backoff;
use crate::retry::budget::Terms;

/// The `retry` block of a route, as meant: it needs no second look.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Attempts in all, the first included.
    pub attempts: Attempts,
    /// What makes an attempt worth another.
    pub on: Triggers,
    /// Answers that look transient and are not.
    pub never_when: Vec<Condition>,
    /// Answers that say that the first request under the key is still under way: it is
    /// waited for, and asked for again under the same key.
    pub in_progress_when: Vec<Condition>,
    /// Good statuses whose body says that the request failed.
    pub failed_when: Vec<FailedWhen>,
    /// Statuses that prove that nothing was done.
    pub refused_by: Statuses,
    /// How long to wait where the upstream does not say.
    pub backoff: Backoff,
    /// The longest hint that is obeyed; a longer one ends the exchange.
    pub retry_after_max: Duration,
    /// How long one attempt may take to its response headers.
    pub attempt_timeout: Option<Duration>,
    /// When no further attempt starts.
    pub deadline: Deadline,
    /// The longest silence between two pieces of a response body.
    pub body_idle_timeout: Option<Duration>,
    /// What the route may add to its traffic by retrying.
    pub budget: Terms,
    /// Whether a non-idempotent request may be repeated after an ambiguous
    /// outcome: the operator accepts duplicates.
    pub repeat_unsafe: bool,
}

/// How many attempts an exchange may make, the first included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempts {
    /// At most this many.
    AtMost(NonZeroU32),
    /// As many as the deadline lets through.
    Unlimited,
}

impl Attempts {
    /// Whether there is no second.
    pub fn is_single(self) -> bool {
        matches!(self, Self::AtMost(most) if most.get() == 1)
    }
}

/// What makes an attempt worth another: the `on` list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "words of one list, each there or not")]
pub struct Triggers {
    /// Statuses; `5xx` stands for all but 501 and 505.
    pub statuses: Statuses,
    /// Connections that were never made, or died before the request was written.
    pub connect: bool,
    /// Connections that broke with the request on its way.
    pub reset: bool,
    /// Attempts that timed out with the request sent.
    pub timeout: bool,
}

/// The time an exchange has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// Counted from the request's arrival.
    pub after: Duration,
    /// Whether a running attempt is cut at it: only where the route itself set it.
    pub cuts_attempts: bool,
}

/// A good status whose body says that it is a failure.
#[derive(Clone, Debug)]
pub struct FailedWhen {
    /// What the body says.
    pub condition: Condition,
    /// What that means for the key.
    pub means: Says,
}
