//! A time until which a caller sends nothing, because the upstream said so.
//!
//! When it is over one attempt goes first. Once that is answered without being
//! throttled the pause is lifted and the rest follow; if not, the next one tries.
//! A pause that ended with nobody there to go first is over by itself: there is no
//! crowd to hold back, and the first to come may be slow.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// A pause, shared by those who wait for it.
#[derive(Debug)]
pub struct Pause {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Clone, Copy, Debug)]
struct State {
    until: Instant,
    /// One attempt is on its way to see whether it is really over.
    probing: bool,
    lifted: bool,
}

/// What an attempt has to do about a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Go: there is none any more.
    Go,
    /// Go first, and say what came of it.
    GoFirst,
    /// Wait until then, and ask again.
    Wait(Instant),
    /// Wait for the one that went first.
    WaitForFirst,
}

impl Pause {
    pub(super) fn new(until: Instant) -> Self {
        let state = State { until, probing: false, lifted: false };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// What an attempt at `now` has to do. [`Pass::GoFirst`] is given to one at a time.
    pub(super) fn ask(&self, now: Instant) -> Pass {
        let mut state = self.lock();
        if state.lifted {
            return Pass::Go;
        }
        if now < state.until {
            return Pass::Wait(state.until);
        }
        if !state.probing && now >= state.until + FORGOTTEN_AFTER {
            return Pass::Go;
        }
        if state.probing {
            return Pass::WaitForFirst;
        }
        state.probing = true;
        Pass::GoFirst
    }

    /// The one that went first was throttled again, failed, or went away: the next one tries.
    pub(super) fn first_failed(&self) {
        let mut state = self.lock();
        state.probing = false;
        state.until = state.until.max(Instant::now());
        drop(state);
        self.changed.notify_waiters();
    }

    /// Makes it last until `until`, if that is later.
    pub(super) fn extend(&self, until: Instant) {
        let mut state = self.lock();
        state.until = state.until.max(until);
    }

    /// Lets everyone go.
    pub(super) fn lift(&self) {
        self.lock().lifted = true;
        self.changed.notify_waiters();
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        let state = self.lock();
        state.lifted || now >= state.until && !state.probing
    }

    /// Waits for a change; `ask` again afterwards.
    pub(super) async fn change(&self) {
        let changed = self.changed.notified();
        if self.lock().probing {
            changed.await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever waited for the end went first long before.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_goes_first_and_the_rest_follow_its_answer() {
        let now = Instant::now();
        let until = now + Duration::from_secs(2);
        let pause = Pause::new(until);
        assert_eq!(pause.ask(now), Pass::Wait(until));
        assert_eq!(pause.ask(until), Pass::GoFirst);
        assert_eq!(pause.ask(until), Pass::WaitForFirst);
        tokio::time::advance(Duration::from_mins(1)).await;
        pause.first_failed();
        let later = Instant::now();
        assert_eq!(pause.ask(later), Pass::GoFirst, "the next one tries");
        pause.lift();
        assert_eq!(pause.ask(until), Pass::Go);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_nobody_waited_for_is_over_by_itself() {
        let until = Instant::now() + Duration::from_secs(2);
        let pause = Pause::new(until);
        assert_eq!(pause.ask(until + FORGOTTEN_AFTER), Pass::Go);
        assert_eq!(pause.ask(until + FORGOTTEN_AFTER), Pass::Go, "nor does anyone go first");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_only_ever_grows() {
        let now = Instant::now();
        let pause = Pause::new(now + Duration::from_secs(5));
        pause.extend(now + Duration::from_secs(1));
        assert_eq!(pause.ask(now), Pass::Wait(now + Duration::from_secs(5)));
    }
}
