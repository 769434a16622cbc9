//! A job on its way: it moves when it is asked for, and with time.

use std::time::Duration;

use super::Terms;

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Queued,
    Running,
    /// It says that it failed, and did not.
    Stumbled,
    Done,
}

/// What moves a job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    made: Duration,
    polls: u32,
}

impl Progress {
    pub(super) fn new(now: Duration) -> Self {
        Self { made: now, polls: 0 }
    }

    /// How far it is, without moving it.
    pub(super) fn stage(&self, terms: &Terms, now: Duration) -> Stage {
        let age = now.saturating_sub(self.made);
        if self.polls >= terms.polls || age >= Duration::from_millis(terms.takes_ms) {
            return Stage::Done;
        }
        match self.polls {
            0 => Stage::Queued,
            n if terms.stumbles && n + 1 == terms.polls => Stage::Stumbled,
            _ => Stage::Running,
        }
    }

    /// How far it is, and one step further for who asks next.
    pub(super) fn poll(&mut self, terms: &Terms, now: Duration) -> Stage {
        let stage = self.stage(terms, now);
        self.polls = self.polls.saturating_add(1);
        stage
    }

    pub(super) fn made(&self) -> Duration {
        self.made
    }
}
