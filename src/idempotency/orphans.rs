//! Exchanges without an identity whose answer may never have reached their client.
//!
//! An equal request takes over the first such exchange that is not delivered:
//! its key, its state and its answer, once. Two equal orders whose answers were
//! both delivered stay two orders.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use tokio::time::{Instant, timeout};

use crate::exchange::trail::Presence;
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::key::Key;
use crate::idempotency::scope::{RecordId, Scope, record_id};

/// What an orphan is found by: scope and fingerprint.
pub type Likeness = (Scope, Fingerprint);

/// Keyless exchanges, by what they ask; a clone shares them.
#[derive(Clone, Debug, Default)]
pub struct Orphans(Arc<DashMap<Likeness, Vec<Arc<Orphan>>>>);

/// A keyless exchange.
#[derive(Debug)]
pub struct Orphan {
    /// The key that it was given.
    pub key: Key,
    began: Instant,
    client: Presence,
    /// Its client was given an answer made here, for an ambiguous outcome.
    left_open: AtomicBool,
    adopted: AtomicBool,
}

impl Orphan {
    /// Notes that what its client got, if anything, does not settle what was done.
    pub fn leave_open(&self) {
        self.left_open.store(true, Ordering::Release);
    }

    /// Whether its answer did not reach its client, as far as is known now.
    fn is_undelivered(&self) -> bool {
        self.client.is_gone() || self.left_open.load(Ordering::Acquire)
    }

    /// Whether nothing can come of it any more.
    fn is_done(&self) -> bool {
        self.adopted.load(Ordering::Acquire)
            || self.client.is_served() && !self.left_open.load(Ordering::Acquire)
    }
}

impl Orphans {
    /// Notes a keyless exchange as it begins.
    pub fn begin(
        &self,
        likeness: Likeness,
        key: Key,
        client: Presence,
        now: Instant,
    ) -> Arc<Orphan> {
        let orphan = Arc::new(Orphan {
            key,
            began: now,
            client,
            left_open: AtomicBool::new(false),
            adopted: AtomicBool::new(false),
        });
        self.0.entry(likeness).or_default().push(orphan.clone());
        orphan
    }

    /// Takes over an equal exchange that began within `window` and was not delivered.
    ///
    /// Where its client is still there, its fate is awaited for a moment: a client
    /// that timed out and asks again is faster than the news of its hanging up.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is taken over before this returns.
    pub async fn adopt(&self, likeness: &Likeness, window: Duration) -> Option<Key> {
        let candidates = self.0.get(likeness)?.clone();
        let until = Instant::now() + FATE_WITHIN;
        for orphan in candidates {
            if orphan.began.elapsed() > window || orphan.is_done() {
                continue;
            }
            if !orphan.is_undelivered() {
                let left = until.saturating_duration_since(Instant::now());
                // An outcome that is not known in time is decided as it stands.
                drop(timeout(left, orphan.client.settled()).await);
            }
            let undelivered = orphan.is_undelivered();
            if undelivered && !orphan.adopted.swap(true, Ordering::AcqRel) {
                return Some(orphan.key.clone());
            }
        }
        None
    }

    /// Takes up again what a process before this one left undelivered.
    pub fn restore(&self, likeness: Likeness, key: Key, age: Duration) {
        let Some(began) = Instant::now().checked_sub(age) else { return };
        let client = Presence::default();
        client.leave();
        self.begin(likeness, key, client, began);
    }

    /// Forgets what can no longer be adopted; called every few seconds.
    ///
    /// Returns the claims that nobody can ask for from now on.
    pub fn sweep(&self, window_max: Duration) -> Vec<(RecordId, Key)> {
        let mut lapsed = Vec::new();
        self.0.retain(|(scope, _), orphans| {
            orphans.retain(|orphan| {
                let late = orphan.began.elapsed() > window_max;
                if late && !orphan.is_done() {
                    lapsed.push((record_id(scope, &orphan.key), orphan.key.clone()));
                }
                !late && !orphan.is_done()
            });
            !orphans.is_empty()
        });
        lapsed
    }
}

/// How long it may take to learn whether an answer arrived (`design.md`, section 7); the
/// request waits meanwhile.
const FATE_WITHIN: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idempotency::Format;
    use crate::idempotency::key;

    const WINDOW: Duration = Duration::from_mins(10);

    fn likeness(n: u8) -> Likeness {
        (Scope([n; 32]), Fingerprint([n; 32]))
    }

    fn begin(orphans: &Orphans, n: u8) -> (Presence, Arc<Orphan>) {
        let client = Presence::default();
        let key = key::random(Format::Uuid, [n; 16]);
        (client.clone(), orphans.begin(likeness(1), key, client, Instant::now()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_undelivered_answer_is_taken_over_once() {
        let orphans = Orphans::default();
        let (client, orphan) = begin(&orphans, 1);
        client.leave();
        assert_eq!(orphans.adopt(&likeness(2), WINDOW).await, None, "another order");
        assert_eq!(orphans.adopt(&likeness(1), WINDOW).await, Some(orphan.key.clone()));
        assert_eq!(orphans.adopt(&likeness(1), WINDOW).await, None, "once");
    }

    #[tokio::test(start_paused = true)]
    async fn two_orders_that_were_delivered_stay_two() {
        let orphans = Orphans::default();
        let (client, _orphan) = begin(&orphans, 1);
        client.serve();
        assert_eq!(orphans.adopt(&likeness(1), WINDOW).await, None);
        let (_still_there, _orphan) = begin(&orphans, 2);
        assert_eq!(orphans.adopt(&likeness(1), WINDOW).await, None, "its client still waits");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_within_the_moment_is_an_orphan() {
        let orphans = Orphans::default();
        let (client, orphan) = begin(&orphans, 1);
        let leaves = async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            client.leave();
        };
        let wanted = likeness(1);
        let (adopted, ()) = tokio::join!(orphans.adopt(&wanted, WINDOW), leaves);
        assert_eq!(adopted, Some(orphan.key.clone()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_of_ours_for_an_ambiguous_outcome_counts_as_undelivered() {
        let orphans = Orphans::default();
        let (client, orphan) = begin(&orphans, 1);
        orphan.leave_open();
        client.serve();
        assert_eq!(orphans.adopt(&likeness(1), WINDOW).await, Some(orphan.key.clone()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_closes() {
        let orphans = Orphans::default();
        let (client, _orphan) = begin(&orphans, 1);
        client.leave();
        tokio::time::advance(WINDOW + Duration::from_secs(1)).await;
        assert_eq!(orphans.adopt(&likeness(1), WINDOW).await, None);
        assert_eq!(orphans.sweep(WINDOW).len(), 1, "its claim goes too");
        assert!(orphans.0.is_empty());
    }
}
