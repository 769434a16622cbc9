//! Keeps an answer while it is passed on, and settles its claim before the last byte.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use crate::exchange::body::BodyError;
use crate::exchange::{Body, BoxFuture};

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
    stage: Stage,
    /// The end of the body, which waits until the claim is settled.
    held: Option<Last>,
}

type Last = Option<Result<Frame<Bytes>, BodyError>>;

/// How far the settling is.
enum Stage {
    Reading(Box<dyn Settle>),
    Settling(BoxFuture<()>),
    Settled,
}

/// What is told what came.
pub(super) trait Settle: Send {
    /// Called when the answer has begun to come, and the rest takes its time.
    fn waits(&mut self);

    /// Called once with what came; the end is passed on when this is done.
    fn settle(self: Box<Self>, came: Came) -> BoxFuture<()>;
}

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
    pub(super) async fn record(
        body: Body,
        limit: usize,
        tasks: TaskTracker,
        settle: Box<dyn Settle>,
    ) -> Body {
        if body.is_empty() {
            settle.settle(Came::Whole(Bytes::new())).await;
            return body;
        }
        let stage = Stage::Reading(settle);
        let source = Source { body, taken: Vec::new(), size: 0, limit, stage, held: None };
        Body::wrap(Self { source: Some(source), tasks })
    }
}

impl Source {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Last> {
        if self.held.is_none() {
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    if let Stage::Reading(settle) = &mut self.stage {
                        settle.waits();
                    }
                    return Poll::Pending;
                }
            };
            match self.came(&frame) {
                None => return Poll::Ready(frame),
                Some(came) => self.begin_settling(came),
            }
            self.held = Some(frame);
        }
        ready!(self.poll_settled(cx));
        Poll::Ready(self.held.take().flatten())
    }

    /// What came, where this frame is the last that whoever passes it on can know of.
    fn came(&mut self, frame: &Last) -> Option<Came> {
        match frame {
            None => Some(self.whole()),
            Some(Err(_)) => Some(Came::Broken),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.take(data);
                }
                let last = self.body.length() == Some(0) || frame.is_trailers();
                last.then(|| self.whole())
            }
        }
    }

    fn take(&mut self, data: &Bytes) {
        self.size = self.size.saturating_add(data.len());
        if self.size <= self.limit {
            self.taken.push(data.clone());
        } else {
            self.taken.clear();
        }
    }

    fn whole(&mut self) -> Came {
        if self.size > self.limit {
            return Came::TooLarge;
        }
        // A copy of its own size: a slice would hold on to the whole read buffer.
        let mut whole = BytesMut::with_capacity(self.size);
        self.taken.drain(..).for_each(|piece| whole.extend_from_slice(&piece));
        Came::Whole(whole.freeze())
    }

    fn begin_settling(&mut self, came: Came) {
        if let Stage::Reading(settle) = std::mem::replace(&mut self.stage, Stage::Settled) {
            self.stage = Stage::Settling(settle.settle(came));
        }
    }

    fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Stage::Settling(settling) = &mut self.stage {
            ready!(settling.as_mut().poll(cx));
            self.stage = Stage::Settled;
        }
        Poll::Ready(())
    }

    /// Reads on to the end, and settles, when nobody listens any more.
    async fn finish(mut self) {
        if let Stage::Reading(settle) = &mut self.stage {
            settle.waits();
        }
        let last = Instant::now() + UNATTENDED_FOR;
        while let Stage::Reading(_) = self.stage {
            let frame = std::future::poll_fn(|cx| {
                let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
                Poll::Ready(frame)
            });
            match timeout_at(last.min(Instant::now() + STILL_FOR), frame).await {
                Ok(frame) => {
                    if let Some(came) = self.came(&frame) {
                        self.begin_settling(came);
                    }
                }
                Err(_elapsed) => self.begin_settling(Came::Broken),
            }
        }
        std::future::poll_fn(|cx| self.poll_settled(cx)).await;
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
        let ended = |source: &Source| {
            source.held.is_none()
                && source.body.is_end_stream()
                && matches!(source.stage, Stage::Settled)
        };
        self.source.as_ref().is_none_or(ended)
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.source.as_ref().and_then(|source| {
            let held = match &source.held {
                Some(Some(Ok(frame))) => frame.data_ref().map_or(0, Bytes::len),
                Some(Some(Err(_)) | None) | None => 0,
            };
            Some(source.body.length()? + held as u64)
        });
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let settled = |source: &Source| matches!(source.stage, Stage::Settled);
        if let Some(source) = self.source.take().filter(|source| !settled(source)) {
            // Its client left: the answer is read to its end all the same, since it is paid for.
            self.tasks.spawn(source.finish());
        }
    }
}

/// An answer that nobody waits for any more is given up when it stands still for so long.
const STILL_FOR: Duration = Duration::from_mins(2);
/// Nor may one go on for ever: a stream of heartbeats has no end, and holds a slot.
const UNATTENDED_FOR: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::exchange::tests::{data, fed, full, measured, next, rest, streamed, trailers};

    /// What the claim was told, and the tasks in which it may be told later.
    #[derive(Clone, Default)]
    struct Claim {
        told: Arc<Mutex<Vec<Came>>>,
        tasks: TaskTracker,
    }

    impl Claim {
        async fn record(&self, body: Body, limit: usize) -> Body {
            let settle = Telling { told: self.told.clone(), waited: false };
            Recorder::record(body, limit, self.tasks.clone(), Box::new(settle)).await
        }

        fn told(&self) -> Vec<Came> {
            std::mem::take(&mut self.told.lock().expect("no test panics here"))
        }

        async fn told_later(&self) -> Vec<Came> {
            self.tasks.close();
            self.tasks.wait().await;
            self.told()
        }
    }

    /// Takes its time to settle, as a store does that is on disk.
    struct Telling {
        told: Arc<Mutex<Vec<Came>>>,
        waited: bool,
    }

    impl Settle for Telling {
        fn waits(&mut self) {
            self.waited = true;
        }

        fn settle(self: Box<Self>, came: Came) -> BoxFuture<()> {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(2)).await;
                self.told.lock().expect("no test panics here").push(came);
            })
        }
    }

    fn whole(text: &'static str) -> Came {
        Came::Whole(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test(start_paused = true)]
    async fn the_claim_is_settled_before_the_last_piece_is_passed_on() {
        let pieces = || streamed([data("ab"), data("cd")]);
        let with_trailers = || streamed([data("ab"), data("cd"), trailers("x-sum")]);
        // After so many frames the body is over, as far as can be known.
        for (body, frames) in [(measured(&["ab", "cd"]), 2), (with_trailers(), 3), (pieces(), 3)] {
            let claim = Claim::default();
            let mut body = claim.record(body, 100).await;
            for nth in 1..=frames {
                assert_eq!(claim.told(), [], "before frame {nth} of {frames}");
                drop(next(&mut body).await);
            }
            assert_eq!(claim.told(), [whole("abcd")], "{frames}");
            assert_eq!(next(&mut body).await, None);
            drop(body);
            assert_eq!(claim.told_later().await, [], "once");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_kept_up_to_the_limit_and_passed_on_past_it() {
        let broke = || Err(BodyError::UpstreamBroke);
        for (body, told, text) in [
            (Body::empty(), whole(""), ""),
            (full("abc"), whole("abc"), "abc"),
            (full("abcd"), whole("abcd"), "abcd"),
            (full("abcde"), Came::TooLarge, "abcde"),
            (streamed([data("ab"), data("cd")]), whole("abcd"), "abcd"),
            (streamed([data("ab"), data("cde"), data("f")]), Came::TooLarge, "abcdef"),
            (measured(&["abc", "de"]), Came::TooLarge, "abcde"),
            (streamed([data("ab"), broke()]), Came::Broken, "ab!"),
            (streamed([data("abcdef"), broke()]), Came::Broken, "abcdef!"),
            (streamed([]), whole(""), ""),
        ] {
            let claim = Claim::default();
            let length = body.length();
            let mut body = claim.record(body, 4).await;
            assert_eq!(body.length(), length);
            assert_eq!(rest(&mut body).await, text);
            assert_eq!(claim.told(), [told], "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_its_client_leaves_is_read_to_its_end() {
        let broke = || Err(BodyError::UpstreamBroke);
        for (last, wanted) in [(data("cd"), whole("abcd")), (broke(), Came::Broken)] {
            let claim = Claim::default();
            let (upstream, body) = fed();
            let send = |piece| upstream.send(piece).expect("it is being read");
            let mut body = claim.record(body, 100).await;
            send(data("ab"));
            assert_eq!(next(&mut body).await.as_deref(), Some("ab"));
            drop(body);
            send(last);
            drop(upstream);
            assert_eq!(claim.told_later().await, [wanted]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_waits_for_is_given_up_when_it_stands_still() {
        let claim = Claim::default();
        let (_upstream, body) = fed();
        let started = Instant::now();
        drop(claim.record(body, 100).await);
        assert_eq!(claim.told_later().await, [Came::Broken]);
        assert!(started.elapsed() >= STILL_FOR);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_without_an_end_is_given_up_once_nobody_waits_for_it() {
        let claim = Claim::default();
        let (upstream, body) = fed();
        let started = Instant::now();
        drop(claim.record(body, 100).await);
        let beats = async {
            while upstream.send(data("beat")).is_ok() {
                tokio::time::sleep(STILL_FOR / 2).await;
            }
        };
        tokio::select! {
            told = claim.told_later() => assert_eq!(told, [Came::Broken]),
            () = beats => panic!("it was given up without a word"),
        }
        assert!(started.elapsed() >= UNATTENDED_FOR);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_is_held_for_as_long_as_the_answer_is_read() {
        let claim = Claim::default();
        let (upstream, body) = fed();
        let slot = Arc::new(());
        drop(claim.record(body.holding(slot.clone()), 100).await);
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&slot), 2);
        drop(upstream);
        assert_eq!(claim.told_later().await, [whole("")]);
        assert_eq!(Arc::strong_count(&slot), 1);
    }
}
