//! A body of any length that takes no room.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;

/// Repeats a piece until so many bytes are out.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    piece: Bytes,
    left: u64,
}

impl Payload {
    /// These bytes, once.
    pub(crate) fn of(bytes: Bytes) -> Self {
        Self { left: bytes.len() as u64, piece: bytes }
    }

    /// `piece`, over and over, up to `length` bytes.
    pub(crate) fn repeat(piece: Bytes, length: u64) -> Self {
        Self { piece, left: length }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 || self.piece.is_empty() {
            return Poll::Ready(None);
        }
        let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(self.piece.len());
        self.left -= take as u64;
        Poll::Ready(Some(Ok(Frame::data(self.piece.slice(..take)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Reads a body to its end and counts its bytes.
pub(crate) async fn drain<B>(mut body: B) -> Result<u64, B::Error>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame?.data_ref().map_or(0, Bytes::len) as u64;
    }
    Ok(length)
}

/// 1 KiB of JSON, as an API would send it.
pub(crate) fn kibibyte_of_json() -> Bytes {
    let opening =
        r#"{"id":"job_1","status":"queued","input":{"width":1920,"height":1080},"note":""#;
    let closing = "\"}";
    let filler = "x".repeat(1024 - opening.len() - closing.len());
    Bytes::from(format!("{opening}{filler}{closing}"))
}
