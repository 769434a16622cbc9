//! Waits for the end of a stream whose last byte has come.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http_body::Body as _;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// Keeps a response whose length was reached until its stream ends, for a while.
///
/// In HTTP/2 the end may be a frame of its own (RFC 9113, section 8.1). A stream that is
/// dropped before is reset: to the upstream that is a client who left, and where a thousand
/// ends came after their streams were forgotten, h2 gives up the whole connection, and every
/// request on it.
pub(super) fn for_end(mut incoming: Incoming) {
    let mut next = move |cx: &mut Context<'_>| Pin::new(&mut incoming).poll_frame(cx).map(drop);
    // Mostly it is there already.
    if let Poll::Ready(()) = next(&mut Context::from_waker(Waker::noop())) {
        return;
    }
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(timeout(PATIENCE, poll_fn(next)));
    }
}

/// Longer than a frame is under way; who never ends its streams is told so by a reset.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "nothing here is drained")]
mod tests {
    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::{BodyExt as _, Empty};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::DuplexStream;

    use super::*;
    use crate::exchange::Body;

    /// Lets everybody else run until nothing is left to do.
    async fn settled() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    /// Answers with one byte of a body that is to have so many, and no end.
    async fn one_byte(far: DuplexStream, length: &'static str) -> h2::SendStream<Bytes> {
        let mut http = h2::server::handshake(far).await.expect("HTTP/2");
        let (_, mut respond) = http.accept().await.expect("asked").expect("a request");
        tokio::spawn(async move { while http.accept().await.is_some() {} });
        let head = Response::builder().header("content-length", length);
        let head = head.body(()).expect("a head");
        let mut sender = respond.send_response(head, false).expect("it is sent");
        sender.send_data(Bytes::from_static(b"x"), false).expect("it is sent");
        sender
    }

    /// Reads one byte of an answer that is to have `length`, and leaves it there.
    async fn left_after_one(length: &'static str) -> h2::SendStream<Bytes> {
        let (near, far) = tokio::io::duplex(1 << 16);
        let upstream = tokio::spawn(one_byte(far, length));
        let (mut asked, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near))
                .await
                .expect("HTTP/2");
        tokio::spawn(connection);
        let request = Request::get("http://a.test/").body(Empty::<Bytes>::new());
        let response = asked.send_request(request.expect("a request")).await.expect("a head");
        let mut body = Body::from_upstream(response.into_body());
        assert!(body.frame().await.is_some_and(|frame| frame.is_ok()));
        drop(body);
        // It holds the connection open, which ends with the last who could ask.
        tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop(asked);
        });
        settled().await;
        upstream.await.expect("it answers")
    }

    async fn is_reset(sender: &mut h2::SendStream<Bytes>) -> bool {
        settled().await;
        let reset = std::future::poll_fn(|cx| sender.poll_reset(cx));
        tokio::time::timeout(Duration::ZERO, reset).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_whose_last_byte_came_is_not_reset_before_it_ends() {
        for (length, wanted) in [("1", false), ("2", true)] {
            let mut sender = left_after_one(length).await;
            assert_eq!(is_reset(&mut sender).await, wanted, "of {length}");
            assert_eq!(sender.send_data(Bytes::new(), true).is_err(), wanted, "of {length}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_does_not_end_is_reset_at_last() {
        let mut sender = left_after_one("1").await;
        tokio::time::advance(PATIENCE.saturating_sub(Duration::from_millis(1))).await;
        assert!(!is_reset(&mut sender).await, "under the limit");
        tokio::time::advance(Duration::from_millis(2)).await;
        assert!(is_reset(&mut sender).await, "over it");
    }
}
