//! Holds effects back that there is no credit for, or that would cost too much:
//! `providers.md`, part one, A, C and D.
//!
//! [`Rules`] say what a route asks for. [`breaker`] decides who is held back once the
//! upstream said that a credential is out of credit, [`breakers`] keeps one for each;
//! [`balance`] decides when a balance is asked for anew, `target` where an estimate is;
//! `question` asks for either, [`amount`] compares what they say, `terms` draws the
//! conclusions and `layer` does the asking.
//!
//! # Invariants
//!
//! - What is refused here was not sent: its key is as it was.
//! - Nothing but effects is held back or asked about.
//! - A balance that cannot be had holds nothing back; whether an estimate that cannot be
//!   had does is the route's to say.
//! - What two credentials do is never mixed.

pub mod amount;
pub mod balance;
pub mod breaker;
pub mod breakers;
pub mod layer;
pub mod target;

mod question;
mod terms;

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::time::Instant;

use crate::exchange::{Condition, Origin, Pointer, Statuses};

pub use amount::Amount;
pub use balance::Balances;
pub use breakers::Breakers;
pub use layer::{Credit, CreditLayer};
pub use question::{Credentials, KeyPlace};
pub use target::Target;
pub use terms::{Terms, Wildcards};

/// What a route asks for; nothing, as a rule.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// When a credential is out of credit, and for how long it is held back.
    pub breaker: Option<BreakerRule>,
    /// How its balance is asked for before anything is spent.
    pub preflight: Option<Preflight>,
    /// How the cost of an effect is asked for before it is sent.
    pub estimate: Option<Estimate>,
}

impl Rules {
    /// Whether there is anything to do.
    pub fn is_empty(&self) -> bool {
        self.breaker.is_none() && self.preflight.is_none() && self.estimate.is_none()
    }
}

/// The `breaker` block of a route, as meant.
#[derive(Clone, Debug)]
pub struct BreakerRule {
    /// What an error answer's JSON says, of which one is enough.
    pub when: Vec<Condition>,
    /// Statuses that say it alone.
    pub statuses: Statuses,
    /// How long nothing is sent.
    pub reset_after: Duration,
}

/// The `preflight` block of a route, as meant.
#[derive(Clone, Debug)]
pub struct Preflight {
    /// What is asked for, and where in the answer it stands.
    pub place: Arc<Place>,
    /// What must be left.
    pub at_least: Amount,
    /// How long a reading is used.
    pub every: Duration,
}

/// Where a balance is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The path that is asked for.
    pub path: PathAndQuery,
    /// Where in its answer the balance stands.
    pub json: Pointer,
}

/// The `estimate` block of a route, as meant.
#[derive(Clone, Debug)]
pub struct Estimate {
    /// The path that is asked.
    pub target: Target,
    /// Where in its answer the cost stands.
    pub json: Pointer,
    /// What an effect may cost.
    pub at_most: Amount,
    /// What becomes of an effect whose cost nobody says.
    pub on_failure: OnFailure,
}

/// What becomes of an effect whose cost nobody says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// It is refused: a ceiling that gives way is none.
    Refuse,
    /// It is sent.
    Forward,
}

/// Whose credit it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Account {
    /// The upstream.
    pub origin: Origin,
    /// A digest of the credential.
    pub caller: [u8; 32],
    /// Whether it is kept by routes that only observe: what they find holds nobody back.
    pub observed: bool,
}

/// What is known of every credential's credit; a clone shares it. It outlives reloads.
#[derive(Clone, Debug)]
pub struct Accounts {
    /// Who is held back.
    pub breakers: Breakers,
    /// What was left when it was asked for last.
    pub balances: Balances,
}

impl Accounts {
    /// Nothing is known yet; so many will be held back, and so many balances known, at most:
    /// a caller that invents credentials costs no more than this.
    pub fn new(most: usize) -> Self {
        Self { breakers: Breakers::new(most), balances: Balances::new(most) }
    }

    /// Forgets what is over; called every few seconds.
    pub fn sweep(&self, now: Instant) {
        self.breakers.sweep(now);
        self.balances.sweep(now);
    }
}
