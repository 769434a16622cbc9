//! Whether a credential that is out of credit may ask: a state machine, given the time.
//!
//! There is none for a credential that nothing is known against. While one is open,
//! everybody is refused; once its time is over one goes first, and what that one meets
//! closes it or opens it again. Where that says nothing, the next one goes first.
//!
//! # Invariants
//!
//! - Nobody passes before the time is over.
//! - Whoever comes when the time is over passes, unless another went first less than
//!   that same time ago: one that never comes back holds nobody for ever.

use std::time::Duration;

use tokio::time::Instant;

/// What holds one credential back.
#[derive(Clone, Copy, Debug)]
pub struct Breaker {
    phase: Phase,
    after: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Nobody passes before this.
    Open(Instant),
    /// One went first; it is waited for until then.
    Trying { trial: u64, until: Instant },
}

/// What a request has to do about a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Go first, and say what came of it.
    GoFirst,
    /// Do not go; it may help to ask again after this.
    Refused(Duration),
}

impl Breaker {
    /// Opens one at `now`, for as long as `after`.
    pub fn new(now: Instant, after: Duration) -> Self {
        Self { phase: Phase::Open(now + after), after }
    }

    /// What a request at `now` has to do; going first, it is called `trial`.
    pub fn ask(&mut self, now: Instant, trial: u64) -> Pass {
        match self.phase {
            Phase::Open(until) if now < until => Pass::Refused(until - now),
            // It may be answered any moment; nobody can say when.
            Phase::Trying { until, .. } if now < until => Pass::Refused(SOON.min(until - now)),
            Phase::Open(_) | Phase::Trying { .. } => {
                self.phase = Phase::Trying { trial, until: now + self.after };
                Pass::GoFirst
            }
        }
    }

    /// Opens it again at `now`, or for longer where it is open.
    pub fn reopen(&mut self, now: Instant, after: Duration) {
        self.after = after;
        let until = match self.phase {
            Phase::Open(until) => until.max(now + after),
            Phase::Trying { .. } => now + after,
        };
        self.phase = Phase::Open(until);
    }

    /// Whether `trial` is the one that went first, and is waited for.
    pub fn awaits(&self, trial: u64) -> bool {
        matches!(self.phase, Phase::Trying { trial: first, .. } if first == trial)
    }

    /// The one that went first came back and says nothing: the next one tries.
    pub fn first_failed(&mut self, trial: u64, now: Instant) {
        if self.awaits(trial) {
            self.phase = Phase::Open(now);
        }
    }

    /// Whether nobody may go at `now`.
    pub fn holds(&self, now: Instant) -> bool {
        now < self.until()
    }

    /// When the next one may go, if nothing is learnt before.
    pub fn until(&self) -> Instant {
        match self.phase {
            Phase::Open(until) | Phase::Trying { until, .. } => until,
        }
    }
}

/// When to ask again while somebody goes first.
const SOON: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AFTER: Duration = Duration::from_mins(5);
    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn it_holds_until_its_time_is_over_and_then_one_goes_first() {
        let now = Instant::now();
        let mut breaker = Breaker::new(now, AFTER);
        assert_eq!(breaker.ask(now, 1), Pass::Refused(AFTER));
        assert_eq!(breaker.ask(now + AFTER - MS, 1), Pass::Refused(MS), "just before");
        assert_eq!(breaker.ask(now + AFTER, 1), Pass::GoFirst, "at that time");
        assert_eq!(breaker.ask(now + AFTER, 2), Pass::Refused(SOON), "one, and no more");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_come_back_is_followed_by_another() {
        let now = Instant::now();
        let mut breaker = Breaker::new(now, AFTER);
        assert_eq!(breaker.ask(now + AFTER, 1), Pass::GoFirst);
        assert_eq!(breaker.ask(now + AFTER * 2 - MS, 2), Pass::Refused(MS));
        assert_eq!(breaker.ask(now + AFTER * 2, 2), Pass::GoFirst);
        breaker.first_failed(1, now + AFTER * 2);
        assert!(breaker.awaits(2), "a late word of the one before says nothing");
        breaker.first_failed(2, now + AFTER * 2);
        assert_eq!(breaker.ask(now + AFTER * 2, 3), Pass::GoFirst, "the next one tries");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_learnt_anew_only_ever_adds_time() {
        let now = Instant::now();
        let mut breaker = Breaker::new(now, AFTER);
        breaker.reopen(now + AFTER / 2, AFTER / 4);
        assert_eq!(breaker.ask(now, 1), Pass::Refused(AFTER));
        breaker.reopen(now + AFTER / 2, AFTER);
        assert_eq!(breaker.ask(now + AFTER, 1), Pass::Refused(AFTER / 2));
        assert_eq!(breaker.ask(now + AFTER * 2, 1), Pass::GoFirst);
        breaker.reopen(now + AFTER * 2, AFTER);
        assert!(!breaker.awaits(1), "it was told, and closes nothing any more");
        assert_eq!(breaker.ask(now + AFTER * 2, 2), Pass::Refused(AFTER));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Wait(u64),
        Ask,
        /// The latest that went first, or the one before it, came back with nothing.
        Fail(u64),
        Reopen,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u64..400).prop_map(Step::Wait),
            Just(Step::Ask),
            (0_u64..2).prop_map(Step::Fail),
            Just(Step::Reopen),
        ]
    }

    proptest! {
        /// A model that keeps when it was opened last, and when the last one went first.
        #[test]
        fn nobody_passes_while_it_is_open_and_somebody_does_afterwards(
            script in prop::collection::vec(step(), 0..80)
        ) {
            let mut now = Instant::now();
            let mut breaker = Breaker::new(now, AFTER);
            let (mut closed_until, mut first, mut trial) = (now + AFTER, None, 0);
            for step in script {
                match step {
                    Step::Wait(seconds) => now += Duration::from_secs(seconds),
                    Step::Reopen => {
                        breaker.reopen(now, AFTER);
                        (closed_until, first) = (now + AFTER, None);
                    }
                    Step::Fail(before) => {
                        breaker.first_failed(trial - before.min(trial), now);
                        if before == 0 && trial > 0 {
                            first = None;
                        }
                    }
                    Step::Ask => {
                        let free = now >= closed_until && first.is_none_or(|at| now >= at + AFTER);
                        prop_assert_eq!(breaker.holds(now), !free);
                        let passed = breaker.ask(now, trial + 1) == Pass::GoFirst;
                        prop_assert_eq!(passed, free);
                        if passed {
                            (first, trial) = (Some(now), trial + 1);
                        }
                    }
                }
            }
            let end = breaker.until();
            prop_assert!(end <= now + AFTER);
            prop_assert_eq!(breaker.ask(end.max(now), trial + 1), Pass::GoFirst);
        }
    }
}
