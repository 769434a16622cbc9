//! Credentials that an upstream lately refused: their stored answers are held back.
//!
//! A credential that was revoked must not go on reading what it once was allowed
//! to. A 401 suspends it on the whole upstream, a 403 on the route that got it,
//! for five minutes or until the upstream answers it otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use http::StatusCode;
use tokio::time::Instant;

use crate::exchange::Origin;

/// Whose replays are held back; a clone shares it.
#[derive(Clone, Debug, Default)]
pub struct Suspensions(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    until: DashMap<Suspended, Instant>,
    /// At zero, which is the rule, nobody looks.
    count: AtomicUsize,
}

/// An upstream, a credential, and the route where it is for that alone.
type Suspended = (Origin, [u8; 32], Option<String>);

impl Suspensions {
    /// Takes note of what an upstream answered a credential.
    pub fn observe(&self, origin: &Origin, caller: [u8; 32], route: &str, status: StatusCode) {
        let key = |route: Option<&str>| (origin.by_name(), caller, route.map(str::to_owned));
        match status.as_u16() {
            401 => self.begin(key(None)),
            403 => self.begin(key(Some(route))),
            _ if self.0.count.load(Ordering::Acquire) == 0 => {}
            _ => {
                self.end(&key(None));
                self.end(&key(Some(route)));
            }
        }
    }

    /// Whether a credential's stored answers are held back.
    pub fn holds(&self, origin: &Origin, caller: [u8; 32], route: &str) -> bool {
        if self.0.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let now = Instant::now();
        let held = |route: Option<String>| {
            let until = self.0.until.get(&(origin.by_name(), caller, route));
            until.is_some_and(|until| now < *until)
        };
        held(None) || held(Some(route.to_owned()))
    }

    /// Forgets what is over; called every few seconds.
    pub fn sweep(&self, now: Instant) {
        self.0.until.retain(|_, until| {
            let kept = now < *until;
            if !kept {
                self.0.count.fetch_sub(1, Ordering::AcqRel);
            }
            kept
        });
    }

    fn begin(&self, key: Suspended) {
        // Until the sweep makes room, no more are held back: the price of a bound.
        if self.0.until.len() >= SUSPENDED_MAX && !self.0.until.contains_key(&key) {
            return;
        }
        if self.0.until.insert(key, Instant::now() + SUSPENDED_FOR).is_none() {
            self.0.count.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn end(&self, key: &Suspended) {
        if self.0.until.remove(key).is_some() {
            self.0.count.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// How long a refusal is held against a credential, while no success says otherwise:
/// `design.md`, section 7.
const SUSPENDED_FOR: Duration = Duration::from_mins(5);
/// Invented credentials must not fill the memory.
const SUSPENDED_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(host: &str) -> Origin {
        Origin::parse(&format!("https://{host}")).expect("an origin")
    }

    #[tokio::test(start_paused = true)]
    async fn invented_credentials_do_not_fill_the_memory() {
        let suspensions = Suspensions::default();
        let a = origin("a.test");
        let refuse = |nth: usize| {
            let mut caller = [0; 32];
            caller[..8].copy_from_slice(&nth.to_be_bytes());
            suspensions.observe(&a, caller, "one", StatusCode::UNAUTHORIZED);
            suspensions.holds(&a, caller, "one")
        };
        assert!((0..SUSPENDED_MAX).all(refuse), "under and at the bound");
        assert!(!refuse(SUSPENDED_MAX), "over it");
        assert!(refuse(0), "whoever is held back already stays so");
        tokio::time::advance(SUSPENDED_FOR).await;
        suspensions.sweep(Instant::now());
        assert!(refuse(SUSPENDED_MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn a_401_is_for_the_upstream_and_a_403_for_the_route() {
        let suspensions = Suspensions::default();
        let (a, b) = (origin("a.test"), origin("b.test"));
        suspensions.observe(&a, [1; 32], "one", StatusCode::UNAUTHORIZED);
        suspensions.observe(&b, [1; 32], "one", StatusCode::FORBIDDEN);
        assert!(suspensions.holds(&a, [1; 32], "two"));
        assert!(!suspensions.holds(&a, [2; 32], "one"), "another credential");
        assert!(suspensions.holds(&b, [1; 32], "one"));
        assert!(!suspensions.holds(&b, [1; 32], "two"));
        suspensions.observe(&a, [1; 32], "one", StatusCode::OK);
        assert!(!suspensions.holds(&a, [1; 32], "two"), "it answers otherwise");
        tokio::time::advance(SUSPENDED_FOR).await;
        assert!(!suspensions.holds(&b, [1; 32], "one"));
    }
}
