//! Keeps an answer while it is passed on, and settles its claim before the last byte.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::exchange::Body;
use crate::exchange::body::BodyError;

/// A response's body that is read to its end, whether or not anybody listens.
pub(super) struct Recorder {
    source: Option<Source>,
    tasks: TaskTracker,
}

/// What is read, and what it is read for.
struct Source {
    body: Body,
    taken: Vec<Bytes>,
    size: usize,
    /// Past it the answer is passed on and not kept.
    limit: usize,
    settle: Option<Settle>,
}

/// Called once with what came: the whole body, if it fits, and whether it broke off.
pub(super) type Settle = Box<dyn FnOnce(Came) + Send>;

/// How a body came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// All of it.
    Whole(Bytes),
    /// All of it, and more than is kept.
    TooLarge,
    /// It broke off.
    Broken,
}

impl Recorder {
    /// Reads `body`, keeps up to `limit` bytes, and tells `settle` before the end is passed on.
    pub(super) fn record(body: Body, limit: usize, tasks: TaskTracker, settle: Settle) -> Body {
        if body.is_empty() {
            settle(Came::Whole(Bytes::new()));
            return body;
        }
        let source = Source { body, taken: Vec::new(), size: 0, limit, settle: Some(settle) };
        Body::wrap(Self { source: Some(source), tasks })
    }
}

impl Source {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None => self.settle_whole(),
            Some(Err(_)) => self.settle(Came::Broken),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.take(data);
                }
                // Whoever passes this frame on may have passed on all there is.
                if self.body.length() == Some(0) || frame.is_trailers() {
                    self.settle_whole();
                }
            }
        }
        Poll::Ready(frame)
    }

    fn take(&mut self, data: &Bytes) {
        self.size = self.size.saturating_add(data.len());
        if self.size <= self.limit {
            self.taken.push(data.clone());
        } else {
            self.taken.clear();
        }
    }

    fn settle_whole(&mut self) {
        if self.size > self.limit {
            return self.settle(Came::TooLarge);
        }
        // A copy of its own size: a slice would hold on to the whole read buffer.
        let mut whole = BytesMut::with_capacity(self.size);
        self.taken.drain(..).for_each(|piece| whole.extend_from_slice(&piece));
        self.settle(Came::Whole(whole.freeze()));
    }

    fn settle(&mut self, came: Came) {
        if let Some(settle) = self.settle.take() {
            settle(came);
        }
    }
}

impl http_body::Body for Recorder {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.get_mut().source.as_mut().map_or(Poll::Ready(None), |source| source.poll(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.source.as_ref().is_none_or(|source| source.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.source.as_ref().and_then(|source| source.body.length());
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let Some(mut source) = self.source.take().filter(|source| source.settle.is_some()) else {
            return;
        };
        // Its client left: the answer is read to its end all the same, since it is paid for.
        self.tasks.spawn(async move {
            loop {
                let frame = std::future::poll_fn(|cx| source.poll(cx));
                match timeout(STILL_FOR, frame).await {
                    Ok(Some(Ok(_))) => {}
                    Ok(None | Some(Err(_))) => return,
                    Err(_elapsed) => return source.settle(Came::Broken),
                }
            }
        });
    }
}

/// An answer that nobody waits for any more is given up when it stands still for so long.
const STILL_FOR: Duration = Duration::from_secs(120);
