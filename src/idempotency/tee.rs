//! Takes a request's fingerprint while its body streams up.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::exchange::Body;
use crate::exchange::body::BodyError;
use crate::idempotency::fingerprint::{Fingerprint, Fingerprinter};

/// A body that tells its fingerprint with its last byte.
pub(super) struct Tee<F> {
    body: Body,
    taking: Option<(Fingerprinter, F)>,
}

impl<F: FnOnce(Fingerprint) + Send + Unpin + 'static> Tee<F> {
    /// Calls `tell` once, when `body` has been read to its end; never where it breaks off.
    pub(super) fn body(body: Body, fingerprinter: Fingerprinter, tell: F) -> Body {
        if let Some(bytes) = body.as_full() {
            let mut fingerprinter = fingerprinter;
            fingerprinter.feed(&bytes);
            tell(fingerprinter.finish());
            return body;
        }
        Body::wrap(Self { body, taking: Some((fingerprinter, tell)) })
    }

    fn finish(&mut self) {
        if let Some((fingerprinter, tell)) = self.taking.take() {
            tell(fingerprinter.finish());
        }
    }
}

impl<F: FnOnce(Fingerprint) + Send + Unpin + 'static> http_body::Body for Tee<F> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            None => this.finish(),
            Some(Err(_)) => this.taking = None,
            Some(Ok(frame)) => {
                if let (Some((fingerprinter, _)), Some(data)) = (&mut this.taking, frame.data_ref())
                {
                    fingerprinter.feed(data);
                }
                // With a known length nobody polls past the last byte.
                if this.body.length() == Some(0) {
                    this.finish();
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.length().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
