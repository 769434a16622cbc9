//! Looks at the beginning of a body without losing it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, timeout_at};

use crate::exchange::body::{Body, BodyError};

/// What was seen of a body, and the body as it was.
#[derive(Debug)]
pub struct Peeked {
    /// The whole of it; `None` where it is larger, slower or broken.
    pub whole: Option<Bytes>,
    /// The body from its start. Where it was read whole, it no longer holds what
    /// the body before held: its connection and its slot are free.
    pub body: Body,
}

impl Body {
    /// Reads up to `limit` bytes for up to `patience`, and gives the body back.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: what was read is lost.
    pub async fn peek(mut self, limit: usize, patience: Duration) -> Peeked {
        if let Some(bytes) = self.as_full() {
            let whole = (bytes.len() <= limit).then_some(bytes);
            return Peeked { whole, body: self };
        }
        if self.length().is_some_and(|length| length > limit as u64) {
            return Peeked { whole: None, body: self };
        }
        let until = Instant::now() + patience;
        let mut seen = BytesMut::new();
        let last = loop {
            let next = http_body_util::BodyExt::frame(&mut self);
            match timeout_at(until, next).await {
                Err(_elapsed) => break None,
                Ok(None) => {
                    let bytes = seen.freeze();
                    return Peeked { whole: Some(bytes.clone()), body: Self::full(bytes) };
                }
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => seen.extend_from_slice(&data),
                    Err(trailers) => break Some(Ok(trailers)),
                },
                Ok(Some(Err(broke))) => break Some(Err(broke)),
            }
            if seen.len() > limit {
                break None;
            }
        };
        let body = Self::wrap(Resumed { seen: seen.freeze(), last, rest: self });
        Peeked { whole: None, body }
    }
}

/// What was seen of a body, and then the rest of it.
struct Resumed {
    seen: Bytes,
    last: Option<Result<Frame<Bytes>, BodyError>>,
    rest: Body,
}

impl http_body::Body for Resumed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if !this.seen.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.seen)))));
        }
        if let Some(last) = this.last.take() {
            return Poll::Ready(Some(last));
        }
        Pin::new(&mut this.rest).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.seen.is_empty() && self.last.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.rest.length().map(|left| left + self.seen.len() as u64);
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::exchange::tests::{data, fed, full, measured, next, rest, streamed, trailers};

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_body_is_seen_whole_up_to_the_limit_and_is_always_whole_afterwards() {
        let pieces = || [data("ab"), data("cd")];
        let broke = Err(BodyError::UpstreamBroke);
        for (body, limit, whole, text) in [
            (Body::empty(), 0, Some(""), ""),
            (full("abcd"), 5, Some("abcd"), "abcd"),
            (full("abcd"), 4, Some("abcd"), "abcd"),
            (full("abcd"), 3, None, "abcd"),
            (streamed(pieces()), 4, Some("abcd"), "abcd"),
            (streamed(pieces()), 3, None, "abcd"),
            (streamed(pieces()), 1, None, "abcd"),
            (measured(&["ab", "cd"]), 4, Some("abcd"), "abcd"),
            (measured(&["ab", "cd"]), 3, None, "abcd"),
            (streamed([data("ab"), trailers("x-sum")]), 9, None, "ab*"),
            (streamed([data("ab"), broke]), 9, None, "ab!"),
            (streamed([]), 9, Some(""), ""),
        ] {
            let length = body.length();
            let mut peeked = body.peek(limit, SECOND).await;
            let seen = peeked.whole.as_ref().map(|whole| String::from_utf8_lossy(whole));
            assert_eq!(seen.as_deref(), whole, "{text} under {limit}");
            assert!(length.is_none() || peeked.body.length() == length, "{text} under {limit}");
            assert_eq!(rest(&mut peeked.body).await, text, "under {limit}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_is_given_back_when_patience_ends() {
        let (upstream, body) = fed();
        let send = |piece| upstream.send(piece).expect("it is being read");
        send(data("ab"));
        let started = Instant::now();
        let mut peeked = body.peek(100, SECOND).await;
        assert_eq!(started.elapsed(), SECOND);
        assert_eq!(peeked.whole, None);
        send(data("cd"));
        assert_eq!(next(&mut peeked.body).await.as_deref(), Some("ab"));
        assert_eq!(next(&mut peeked.body).await.as_deref(), Some("cd"));
        drop(upstream);
        assert_eq!(next(&mut peeked.body).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_whole_holds_its_slot_no_longer() {
        for (limit, holders) in [(4, 1), (3, 2)] {
            let slot = Arc::new(());
            let body = streamed([data("ab"), data("cd")]).holding(slot.clone());
            let peeked = body.peek(limit, SECOND).await;
            assert_eq!(Arc::strong_count(&slot), holders, "under {limit}");
            drop(peeked);
            assert_eq!(Arc::strong_count(&slot), 1);
        }
    }
}
