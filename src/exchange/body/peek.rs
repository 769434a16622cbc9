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
