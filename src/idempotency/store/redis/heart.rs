//! The heartbeat: keeps the leases of this process, and takes back what it reserved unheard.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval};

use super::{Inner, Unavailable};

/// Beats until the handle is closed.
pub(super) async fn beat(inner: Arc<Inner>) {
    // Two beats may be missed before a lease runs out.
    let mut beats = interval((inner.lease / 3).max(BEAT_MIN));
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = inner.stop.cancelled() => return,
            _ = beats.tick() => {}
        }
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = renew_all(&inner) => {}
        }
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = take_back(&inner) => {}
        }
    }
}

/// Renews every claim. So many at a time travel together over the one connection.
async fn renew_all(inner: &Inner) {
    let (mut lost, mut failed) = (0_u64, 0_u64);
    for batch in inner.held.all().chunks(BATCH) {
        let renewals = batch.iter().map(|(id, epoch)| inner.renew(*id, *epoch));
        for renewed in join_all(renewals).await {
            match renewed {
                Ok(true) => {}
                Ok(false) => lost += 1,
                Err(_unavailable) => failed += 1,
            }
        }
    }
    if lost > 0 {
        tracing::warn!(lost, "claims in redis are another's by now, or gone");
    }
    if failed > 0 {
        tracing::warn!(failed, "leases in redis could not be renewed");
    }
}

/// Takes back reservations that nobody heard of. Each is looked for again until it
/// is found or old: a command can lie in the socket of a server that stalls.
async fn take_back(inner: &Inner) {
    for stray in inner.held.strays() {
        match inner.abandon(&stray).await {
            Ok(true) => inner.held.found(stray.nonce),
            Ok(false) | Err(Unavailable::Garbled) => {}
            Err(_unavailable) => return, // the next beat tries again
        }
    }
}

/// A lease shorter than this is a test's.
const BEAT_MIN: Duration = Duration::from_millis(10);
const BATCH: usize = 64;
