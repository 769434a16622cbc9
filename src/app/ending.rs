//! The end: not ready, then draining, then closed, in a time that is bounded from the start.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::app::{Core, traces};

/// What may follow `shutdown.delay` and `shutdown.grace`, the process's own end included:
/// whoever kills it in the end has to leave it so long.
pub const AFTER_GRACE: Duration = Duration::from_secs(5);

/// Goes on until it is told to end, then ends in order (`design.md`, section 4.1).
pub(super) async fn follow(core: &Arc<Core>, told: impl Future<Output = ()>) {
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
    // Neither has to do with the other: side by side, a collector that is away and a disk that
    // hangs do not add up.
    tokio::join!(
        core.commons.store.close(closing(until, Instant::now())),
        traces::close(core.tracer.as_ref(), until, config.traces.at_end),
    );
}

/// How long the store may take to close: what is left of the grace, and a little after it.
fn closing(until: Instant, now: Instant) -> Duration {
    (until + SETTLING + CLOSING).saturating_duration_since(now).min(CLOSE_WITHIN)
}

/// Ends the admin side, which answers to the last, once its answers are out.
pub(super) async fn close(closing: &CancellationToken, admin: JoinHandle<()>) {
    closing.cancel();
    // Whoever reads slowly, or only keeps a connection open, does not hold it up.
    drop(timeout(LAST_WORDS, admin).await);
}

/// A claim of which nothing was sent is settled in less; what was sent is not waited for longer.
const SETTLING: Duration = Duration::from_secs(1);
/// What the store and the last spans have in any case: a few commits, and a log of the usual
/// size written back. What is not closed by then is recovered by the next start.
const CLOSING: Duration = Duration::from_secs(2);
/// An answer is out in less.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Longer than it takes to write a whole log back to a disk of the slower sort.
pub(super) const CLOSE_WITHIN: Duration = Duration::from_secs(5);

const _: () = {
    let steps = SETTLING.as_secs() + CLOSING.as_secs() + LAST_WORDS.as_secs();
    // A second is for the process to go.
    assert!(steps < AFTER_GRACE.as_secs(), "the steps take no longer than is promised");
    assert!(traces::AT_LEAST.as_secs() <= CLOSING.as_secs(), "nor do spans beside them");
};

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc;

    use super::*;
    use crate::app::{App, Home};
    use crate::config::{self, Environment};

    #[test]
    fn the_store_closes_in_what_is_left_of_the_grace_and_a_little_more() {
        let began = Instant::now();
        let until = began + Duration::from_secs(30);
        for (at, wanted) in [(0, 5), (27, 5), (28, 5), (29, 4), (30, 3), (31, 2), (34, 0)] {
            let now = began + Duration::from_secs(at);
            assert_eq!(closing(until, now).as_secs(), wanted, "{at} s after it began");
        }
    }

    #[tokio::test]
    async fn a_disk_that_hangs_does_not_hold_up_the_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("state");
        let text = format!(
            "{{listeners: [{{address: \"127.0.0.1:0\"}}], admin: {{address: \"127.0.0.1:0\"}}, \
             state: {{dir: {}}}, shutdown: {{grace: 1ms}}}}",
            dir.display()
        );
        let read = move || config::parse(&text, Path::new("a.yaml"), &Environment::default());
        let (config, home) = (read().expect("it is well"), Home::open(&dir).expect("a directory"));
        let app = App::build(config, Arc::new(read), home, Arc::new(|_level| ()));
        let app = app.await.expect("it is built");
        let (gate, closed) = mpsc::channel::<()>();
        app.core.commons.store.journal().expect("it is on disk").post(move |_, _| {
            closed.recv().unwrap_or_default();
            Ok(())
        });
        tokio::time::pause();
        let began = Instant::now();
        let mut running = Box::pin(app.run(std::future::ready(())));
        // The writer hangs in a thread, in which no time passes by itself.
        while futures_util::poll!(&mut running).is_pending() {
            tokio::time::advance(Duration::from_millis(10)).await;
            assert!(began.elapsed() < AFTER_GRACE, "it goes on");
        }
        drop(gate);
    }
}
