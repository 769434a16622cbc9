//! The end: not ready, then draining, then closed.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::app::Core;

/// Goes on until it is told to end, then ends in order (`design.md`, section 4.1); until
/// when the grace lasts.
pub(super) async fn follow(core: &Arc<Core>, told: impl Future<Output = ()>) -> Instant {
    tokio::select! {
        () = told => {}
        () = core.leaving.cancelled() => {} // by POST /quitquitquit
    }
    let config = core.config.load_full();
    core.leaving.cancel();
    let (delay, grace) = (config.shutdown_delay, config.shutdown_grace);
    if !delay.is_zero() {
        tracing::info!(?delay, "told to end: no longer ready, still taking requests");
        sleep(delay).await;
    }
    tracing::info!(?grace, "draining");
    core.house.draining.cancel();
    core.house.tasks.close();
    let until = Instant::now() + grace;
    if timeout(grace, core.house.tasks.wait()).await.is_err() {
        tracing::warn!("exchanges were cut: shutdown.grace is over");
        core.house.cut.cancel();
        // What was never sent is free at the next start, and not unknown: the journal has to
        // hear of it while it is open.
        drop(timeout(SETTLING, core.house.tasks.wait()).await);
    }
    core.commons.store.close().await;
    until
}

/// Ends the admin side, which answers to the last, once its answers are out.
pub(super) async fn close(closing: &CancellationToken, admin: JoinHandle<()>) {
    closing.cancel();
    // Whoever reads slowly, or only keeps a connection open, does not hold it up.
    drop(timeout(LAST_WORDS, admin).await);
}

/// A claim of which nothing was sent is settled in less; what was sent is not waited for longer.
const SETTLING: Duration = Duration::from_secs(1);
/// An answer is out in less.
const LAST_WORDS: Duration = Duration::from_secs(1);
