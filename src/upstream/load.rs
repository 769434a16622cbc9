//! How many streams a connection of HTTP/2 carries, and how many its upstream allows.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The streams of one connection; a clone counts the same ones.
///
/// hyper queues what is past the upstream's limit, without end and without a word:
/// behind a limit of long streams a request would wait for as long as they last.
#[derive(Clone)]
pub(super) struct Load(Arc<Inner>);

struct Inner {
    streams: AtomicUsize,
    most: Box<dyn Fn() -> usize + Send + Sync>,
}

/// One stream of a connection, counted until it is dropped.
#[derive(Debug)]
pub(super) struct Stream(Load);

impl Load {
    /// Counts the streams of a connection whose upstream allows as many as `most` says.
    pub(super) fn new(most: impl Fn() -> usize + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner { streams: AtomicUsize::new(0), most: Box::new(most) }))
    }

    /// Counts one more.
    pub(super) fn begin(&self) -> Stream {
        self.0.streams.fetch_add(1, Ordering::AcqRel);
        Stream(self.clone())
    }

    /// Whether one more would not have to wait for another to end.
    ///
    /// The first goes out before the upstream has told its limit, which takes a round
    /// trip; those that come meanwhile wait for the limit, or they could wait for the first.
    pub(super) async fn has_room(&self) -> bool {
        let streams = || self.0.streams.load(Ordering::Acquire);
        let until = Instant::now() + TOLD_WITHIN;
        while streams() > 0 && (self.0.most)() == UNTOLD && Instant::now() < until {
            sleep(LOOK_EVERY).await;
        }
        let streams = streams();
        streams == 0 || streams < (self.0.most)()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.0.streams.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load").field("streams", &self.0.streams).finish_non_exhaustive()
    }
}

/// What hyper is told to assume until the upstream has spoken: no upstream says so.
pub(super) const UNTOLD: usize = usize::MAX - 1;
/// Longer than round trips are; an upstream that says nothing has no limit.
const TOLD_WITHIN: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(1);
