//! Listens to a request's body while it streams up: for its fingerprint, for ids in it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::exchange::Body;
use crate::exchange::body::BodyError;
use crate::idempotency::fingerprint::{Fingerprint, Fingerprinter};

/// What listens to a body.
pub(super) trait Listener: Send + Unpin + 'static {
    /// What it makes of one.
    type Heard;

    /// Takes the next piece.
    fn hear(&mut self, piece: &Bytes);

    /// What was made of the whole.
    fn heard(self) -> Self::Heard;
}

impl Listener for Fingerprinter {
    type Heard = Fingerprint;

    fn hear(&mut self, piece: &Bytes) {
        self.feed(piece);
    }

    fn heard(self) -> Fingerprint {
        self.finish()
    }
}

/// A body that tells what was heard of it with its last byte.
pub(super) struct Tee<L, F> {
    body: Body,
    taking: Option<(L, F)>,
}

impl<L: Listener, F: FnOnce(L::Heard) + Send + Unpin + 'static> Tee<L, F> {
    /// Calls `tell` once, when `body` has been read to its end; never where it breaks off.
    pub(super) fn body(body: Body, listener: L, tell: F) -> Body {
        if let Some(bytes) = body.as_full() {
            let mut listener = listener;
            listener.hear(&bytes);
            tell(listener.heard());
            return body;
        }
        Body::wrap(Self { body, taking: Some((listener, tell)) })
    }

    fn finish(&mut self) {
        if let Some((listener, tell)) = self.taking.take() {
            tell(listener.heard());
        }
    }
}

impl<L, F> http_body::Body for Tee<L, F>
where
    L: Listener,
    F: FnOnce(L::Heard) + Send + Unpin + 'static,
{
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
                if let (Some((listener, _)), Some(data)) = (&mut this.taking, frame.data_ref()) {
                    listener.hear(data);
                }
                // Nobody polls past the last byte of a known length, nor past trailers.
                if this.body.length() == Some(0) || frame.is_trailers() {
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::{HeaderMap, HeaderName};

    use super::*;
    use crate::exchange::tests::{data, full, measured, next, rest, streamed, trailers};
    use crate::idempotency::Carrier;

    fn fingerprinter() -> Fingerprinter {
        let carrier = Carrier::Header(HeaderName::from_static("idempotency-key"));
        Fingerprinter::new(None, &HeaderMap::new(), &carrier, &[], 1024)
    }

    fn print(text: &str) -> Fingerprint {
        let mut fingerprinter = fingerprinter();
        fingerprinter.feed(text.as_bytes());
        fingerprinter.finish()
    }

    /// The body with its tee, and what that told.
    fn tee(body: Body) -> (Body, impl Fn() -> Vec<Fingerprint>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = {
            let told = told.clone();
            move |print| told.lock().expect("no test panics here").push(print)
        };
        let body = Tee::body(body, fingerprinter(), tell);
        (body, move || told.lock().expect("no test panics here").clone())
    }

    #[tokio::test]
    async fn a_fingerprint_is_told_with_the_last_byte_however_the_body_is_cut() {
        // After so many frames the last byte has come, as far as can be known.
        for (body, frames) in [
            (Body::empty(), 0),
            (full("abcd"), 0),
            (measured(&["ab", "cd"]), 2),
            (measured(&["abcd"]), 1),
            (streamed([data("ab"), data("cd")]), 3),
            (streamed([data("ab"), data("cd"), trailers("x-sum")]), 3),
        ] {
            let text = if body.is_empty() { "" } else { "abcd" };
            let (mut body, told) = tee(body);
            let mut read = String::new();
            for _frame in 0..frames {
                assert_eq!(told(), []);
                read += &next(&mut body).await.unwrap_or_default();
            }
            assert_eq!(told(), [print(text)]);
            read += &rest(&mut body).await;
            assert_eq!(read.trim_end_matches('*'), text);
            assert_eq!(told(), [print(text)], "once");
        }
    }

    #[tokio::test]
    async fn a_request_that_was_never_complete_has_no_fingerprint() {
        let (mut body, told) = tee(streamed([data("ab"), Err(BodyError::ClientLeft), data("c")]));
        assert_eq!(rest(&mut body).await, "ab!");
        assert_eq!(rest(&mut body).await, "c");
        assert_eq!(told(), []);
        let (mut body, told) = tee(measured(&["ab", "cd"]));
        drop(next(&mut body).await);
        drop(body);
        assert_eq!(told(), []);
    }
}
