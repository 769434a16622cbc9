//! Connections at rest, by origin: the last one used is the first one taken.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::exchange::{Failure, Origin};
use crate::upstream::connection::{Connection, Http1, Http2};
use crate::upstream::dial::{Dialer, Speaks};

/// The connections of one process; a clone shares them.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    dialer: Dialer,
    limits: ArcSwap<(Duration, usize)>,
    idle: DashMap<Origin, VecDeque<Idle>>,
    /// Origins that chose HTTP/2, each with its one connection. The lock makes
    /// one dial of a burst; it is per origin, and held only while dialling.
    shared: DashMap<Origin, Arc<Mutex<Option<Shared>>>>,
}

struct Idle {
    connection: Http1,
    since: Instant,
    /// How long the upstream said that it keeps an unused connection.
    keep_alive: Option<Duration>,
}

struct Shared {
    connection: Http2,
    used: Instant,
}

impl Shared {
    fn new(connection: &Http2) -> Self {
        Self { connection: connection.clone(), used: Instant::now() }
    }

    fn is_closed(&self) -> bool {
        self.connection.sender.is_closed()
    }
}

/// A connection taken out for one request.
pub(super) enum Taken {
    /// Unused until now.
    Fresh(Connection),
    /// It has carried requests before.
    Used(Connection),
}

/// What an exchange wants of its connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    pub(super) speaks: Speaks,
    /// It may not be repeated, so the connection must not be one that is being closed.
    pub(super) fresh: bool,
}

impl Pool {
    /// Keeps up to `idle_per_host` unused connections an origin, each for `idle_timeout`.
    pub fn new(dialer: Dialer, idle_timeout: Duration, idle_per_host: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                dialer,
                limits: ArcSwap::from_pointee((idle_timeout, idle_per_host)),
                idle: DashMap::new(),
                shared: DashMap::new(),
            }),
        }
    }

    /// Takes over what a reload changed.
    pub fn reconfigure(&self, idle_timeout: Duration, idle_per_host: usize) {
        self.inner.limits.store(Arc::new((idle_timeout, idle_per_host)));
    }

    /// What makes the connections.
    pub fn dialer(&self) -> &Dialer {
        &self.inner.dialer
    }

    /// Takes an unused connection, or makes one.
    ///
    /// # Errors
    ///
    /// Those of [`Dialer`]; nothing was sent.
    pub(super) async fn take(&self, origin: &Origin, want: Want) -> Result<Taken, Failure> {
        while let Some(mut connection) = self.pop(origin, want) {
            // Its task may still be tidying up after the last response; a
            // connection that needs longer than this is not worth waiting for.
            if let Ok(Ok(())) = timeout(READY_WITHIN, connection.sender.ready()).await {
                return Ok(Taken::Used(Connection::Http1(connection)));
            }
        }
        let shared = self.inner.shared.get(origin).map(|entry| entry.value().clone());
        // Making a connection takes kilobytes of state, which the future of a request
        // that finds one at rest should not have to carry: it is boxed.
        match shared {
            Some(slot) if want.speaks == Speaks::Any => {
                Box::pin(self.take_shared(origin, want, &slot)).await
            }
            _ => Box::pin(self.dial(origin, want)).await,
        }
    }

    /// Makes a connection whatever is at rest.
    pub(super) async fn dial(&self, origin: &Origin, want: Want) -> Result<Taken, Failure> {
        let connection = self.inner.dialer.http(origin, want.speaks).await?;
        if let Connection::Http2(made) = &connection {
            let slot = self.inner.shared.entry(origin.clone()).or_default().clone();
            // Whoever dialled meanwhile keeps its place; this one serves its exchange and goes.
            if let Ok(mut place) = slot.try_lock()
                && place.as_ref().is_none_or(Shared::is_closed)
            {
                *place = Some(Shared::new(made));
            }
        }
        Ok(Taken::Fresh(connection))
    }

    async fn take_shared(
        &self,
        origin: &Origin,
        want: Want,
        slot: &Arc<Mutex<Option<Shared>>>,
    ) -> Result<Taken, Failure> {
        let mut place = slot.lock().await;
        let current = self.inner.shared.get(origin).is_some_and(|now| Arc::ptr_eq(&now, slot));
        if !current {
            drop(place); // whoever dialled failed: the others do not fail one after another
            return self.dial(origin, want).await;
        }
        if let Some(shared) = place.as_mut() {
            let (idle_timeout, _) = **self.inner.limits.load();
            let age = shared.used.elapsed();
            let elsewhere = shared.connection.era != self.inner.dialer.era();
            let stale = want.fresh && age >= STALE_AFTER || age >= idle_timeout || elsewhere;
            // A full one serves the streams that it has, and the next one takes its place.
            if !stale && !shared.is_closed() && shared.connection.load.has_room().await {
                shared.used = Instant::now();
                return Ok(Taken::Used(Connection::Http2(shared.connection.clone())));
            }
        }
        let connection = self.inner.dialer.http(origin, want.speaks).await;
        if let Ok(Connection::Http2(made)) = &connection {
            *place = Some(Shared::new(made));
        } else {
            self.inner.shared.remove(origin);
        }
        connection.map(Taken::Fresh)
    }

    /// Puts a connection to rest.
    pub(super) fn put(&self, origin: Origin, connection: Http1, keep_alive: Option<Duration>) {
        let (_, idle_per_host) = **self.inner.limits.load();
        if connection.sender.is_closed() || idle_per_host == 0 {
            return;
        }
        let mut idle = self.inner.idle.entry(origin).or_default();
        if idle.len() >= idle_per_host {
            idle.pop_front(); // the one that has been unused for longest
        }
        idle.push_back(Idle { connection, since: Instant::now(), keep_alive });
    }

    /// Notes that a shared connection is in use.
    pub(super) fn touch(&self, origin: &Origin) {
        let slot = self.inner.shared.get(origin).map(|entry| entry.value().clone());
        if let Some(slot) = slot
            && let Ok(mut place) = slot.try_lock()
            && let Some(shared) = place.as_mut()
        {
            shared.used = Instant::now();
        }
    }

    /// Closes what has been unused for too long; called every few seconds.
    pub fn sweep(&self) {
        let (idle_timeout, _) = **self.inner.limits.load();
        let era = self.inner.dialer.era();
        self.inner.idle.retain(|_, idle| {
            idle.retain(|idle| idle.is_good(idle_timeout, era));
            !idle.is_empty()
        });
        self.inner.shared.retain(|_, slot| {
            let Ok(mut place) = slot.try_lock() else { return true };
            let kept = place.as_ref().is_some_and(|shared| {
                let current = shared.connection.era == era;
                current && shared.used.elapsed() < idle_timeout && !shared.is_closed()
            });
            if !kept {
                *place = None;
            }
            kept
        });
    }

    fn pop(&self, origin: &Origin, want: Want) -> Option<Http1> {
        let (idle_timeout, _) = **self.inner.limits.load();
        let era = self.inner.dialer.era();
        let mut idle = self.inner.idle.get_mut(origin)?;
        while let Some(last) = idle.pop_back() {
            if !last.is_good(idle_timeout, era) {
                continue;
            }
            if !last.suits(want) {
                idle.push_back(last); // good enough for another request
                return None;
            }
            return Some(last.connection);
        }
        None
    }
}

impl Idle {
    /// Whether it is worth keeping.
    fn is_good(&self, idle_timeout: Duration, era: u64) -> bool {
        let closed = self.connection.sender.is_closed();
        !closed && self.connection.era == era && self.since.elapsed() < idle_timeout
    }

    /// Whether it is what an exchange wants; a protocol is not switched by way of a proxy.
    fn suits(&self, want: Want) -> bool {
        let stale = want.fresh && self.since.elapsed() >= stale_after(self.keep_alive);
        let switches = want.speaks == Speaks::Http1Only && self.connection.forwarder.is_some();
        !stale && !switches
    }
}

/// When a connection may be one that its upstream is closing: `design.md`, section 6.
fn stale_after(keep_alive: Option<Duration>) -> Duration {
    let told = keep_alive.map(|told| told.saturating_sub(Duration::from_secs(1)));
    told.map_or(STALE_AFTER, |told| told.min(STALE_AFTER))
}

/// Common servers close after 5 s and more; nobody's clock is a second off within a connection.
const STALE_AFTER: Duration = Duration::from_secs(4);
const READY_WITHIN: Duration = Duration::from_millis(50);

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("origins", &self.inner.idle.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_cannot_be_repeated_wants_a_connection_that_is_surely_open() {
        let secs = Duration::from_secs;
        for (told, wanted) in
            [(None, 4), (Some(2), 1), (Some(5), 4), (Some(60), 4), (Some(1), 0), (Some(0), 0)]
        {
            assert_eq!(stale_after(told.map(secs)), secs(wanted), "keep-alive {told:?}");
        }
    }
}
