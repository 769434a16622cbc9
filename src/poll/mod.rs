//! Asks the upstream once how a job goes, however many ask.
//!
//! `job` tells which requests are polls, and which of them ask the same; [`spacing`]
//! how long an answer serves; `shelf` remembers answers; `board` says where a poll's
//! answer comes from: the shelf, a poll that is under way, or the upstream. `read`
//! looks at what the upstream answered, and [`layer`] carries it all out.
//!
//! # Invariants
//!
//! - An answer serves only requests of the same caller with the same fields, but for
//!   a closed list of those that cannot select an answer.
//! - A poll joins another only before that one's answer begins to come, unless the
//!   route says how old an answer may be.
//! - A poll goes on for as long as anybody waits for it, and no longer.
//! - What is remembered is bounded, and goes when the upstream refuses the credential.

use std::time::Duration;

use crate::exchange::Condition;

pub mod board;
pub mod layer;
pub mod spacing;

mod flight;
mod job;
mod read;
mod shelf;

pub use board::Board;
pub use layer::{Polling, PollingLayer, Refused, Terms};

/// What a route of kind `poll` says about its polls, as meant.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// How much time lies at least between two polls of one job that go upstream.
    pub interval: Option<Duration>,
    /// What an answer says when its job is over.
    pub terminal: Option<Terminal>,
}

/// What an answer says when its job is over.
#[derive(Clone, Debug)]
pub struct Terminal {
    /// What its body says.
    pub condition: Condition,
    /// How long it is remembered.
    pub lasts: Duration,
}

/// What is remembered of all jobs together, at most; past it the oldest goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    /// Jobs.
    pub jobs: usize,
    /// Bytes of their answers.
    pub bytes: u64,
}

impl Rules {
    /// Whether any answer may serve polls that come after it.
    fn keep(&self) -> bool {
        self.interval.is_some() || self.terminal.is_some()
    }
}

#[cfg(test)]
mod tests;
