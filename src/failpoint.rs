//! Places at which a test can have the process killed, as a `kill -9` would.
//!
//! In a release build they are nothing. In a debug build `main` arms at most one of
//! them, from `$SAMEKEY_FAILPOINT`: `after-reserve` dies at the first pass, and
//! `after-reserve:3` at the third.

/// A place on the way of an exchange, or of what goes on beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failpoint {
    /// A key is about to be claimed; nothing is written.
    BeforeReserve,
    /// The claim is durable, and nothing was sent.
    AfterReserve,
    /// The request's head and body were handed to the connection.
    MidRequest,
    /// An attempt is over and the next one has not begun.
    BetweenAttempts,
    /// The upstream's answer came whole, and its record is not written.
    BeforeComplete,
    /// The record is durable, and the answer's last byte was not passed on.
    AfterComplete,
    /// Expired rows are being deleted, in a transaction that is not committed.
    DuringSweep,
    /// An unknown outcome is being resolved, in a transaction that is not committed.
    InResolve,
}

impl Failpoint {
    /// Every place.
    pub const ALL: [Self; 8] = [
        Self::BeforeReserve,
        Self::AfterReserve,
        Self::MidRequest,
        Self::BetweenAttempts,
        Self::BeforeComplete,
        Self::AfterComplete,
        Self::DuringSweep,
        Self::InResolve,
    ];

    /// Its word in `$SAMEKEY_FAILPOINT`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BeforeReserve => "before-reserve",
            Self::AfterReserve => "after-reserve",
            Self::MidRequest => "mid-request",
            Self::BetweenAttempts => "between-attempts",
            Self::BeforeComplete => "before-complete",
            Self::AfterComplete => "after-complete",
            Self::DuringSweep => "during-sweep",
            Self::InResolve => "in-resolve",
        }
    }

    /// Passes it in a moment, where it is armed; otherwise never comes back.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn pass_soon(self) {
        #[cfg(debug_assertions)]
        if armed::is(self) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            armed::pass(self);
        }
        std::future::pending::<()>().await;
    }

    /// Passes it; dies here where it is armed.
    #[inline]
    pub fn pass(self) {
        #[cfg(debug_assertions)]
        armed::pass(self);
    }
}

/// Arms the place that `text` names; false where it names none, or this is a release build.
pub fn arm(text: &str) -> bool {
    #[cfg(debug_assertions)]
    return armed::arm(text);
    #[cfg(not(debug_assertions))]
    {
        let _unheard = text;
        false
    }
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    use super::Failpoint;

    static ARMED: OnceLock<(Failpoint, AtomicU64)> = OnceLock::new();

    pub(super) fn arm(text: &str) -> bool {
        let (word, nth) = text.split_once(':').unwrap_or((text, "1"));
        let point = Failpoint::ALL.into_iter().find(|point| point.as_str() == word);
        let nth = nth.parse().ok().filter(|nth| *nth > 0);
        match (point, nth) {
            (Some(point), Some(nth)) => ARMED.set((point, AtomicU64::new(nth))).is_ok(),
            _ => false,
        }
    }

    pub(super) fn is(point: Failpoint) -> bool {
        ARMED.get().is_some_and(|(armed, _)| *armed == point)
    }

    pub(super) fn pass(point: Failpoint) {
        let Some((armed, left)) = ARMED.get() else { return };
        if *armed == point && left.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Nothing runs after it: no destructor, no commit, no goodbye.
            kill_process(getpid(), Signal::KILL).unwrap_or_default();
            loop {
                std::thread::park();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_names_no_place_arms_nothing() {
        for text in ["", "nowhere", "after-reserve:0", "after-reserve:x", "after-reserve:"] {
            assert!(!arm(text), "{text}");
        }
    }
}
