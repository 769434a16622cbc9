//! A connection that speaks HTTP, and how it begins to.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Version;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::TaskTracker;

use crate::exchange::{Body, Failure};
use crate::upstream::further::FurtherProxy;
use crate::upstream::load::{Load, UNTOLD};
use crate::upstream::race::unreachable;

/// A connection that speaks HTTP.
pub(super) enum Connection {
    Http1(Http1),
    Http2(Http2),
}

impl Connection {
    /// What it speaks.
    pub(super) fn version(&self) -> Version {
        match self {
            Self::Http1(_) => Version::HTTP_11,
            Self::Http2(_) => Version::HTTP_2,
        }
    }
}

/// A connection of HTTP/1.
pub(super) struct Http1 {
    pub(super) sender: http1::SendRequest<Body>,
    /// The proxy that takes whole URLs on it.
    pub(super) forwarder: Option<Arc<FurtherProxy>>,
    /// Which road it was made on.
    pub(super) era: u64,
}

/// A connection of HTTP/2; a clone is the same one.
#[derive(Clone)]
pub(super) struct Http2 {
    pub(super) sender: http2::SendRequest<Body>,
    pub(super) load: Load,
    /// Which road it was made on.
    pub(super) era: u64,
}

/// Speaks HTTP/1.1 on `io`; what drives it is one of the `tasks`.
pub(super) async fn http1<IO>(
    io: IO,
    forwarder: Option<Arc<FurtherProxy>>,
    era: u64,
    tasks: &TaskTracker,
) -> Result<Connection, Failure>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(BUFFER_MAX);
    let (sender, connection) =
        builder.handshake(TokioIo::new(io)).await.map_err(|error| not_http(&error))?;
    let driven = connection.with_upgrades();
    tasks.spawn(async move {
        // How it ended reaches whoever waits for a response on it.
        drop(driven.await);
    });
    Ok(Connection::Http1(Http1 { sender, forwarder, era }))
}

/// What an upstream may send for streams that were reset here: a client left, and the
/// upstream does not know it yet (RFC 9113, section 5.1).
struct Late {
    /// Streams that are remembered, for a second: what comes on them is passed over.
    remembered: usize,
    /// Streams that were forgotten and are heard of again, in the life of the connection. One
    /// more, and h2 gives up the connection and every request on it, which the upstream may
    /// have heard.
    heard_again: usize,
}

/// h2's own, 50 and 1024, are used up by crowds of clients that leave, on a connection that lasts
/// for days. An upstream that does nothing else is still left.
const LATE: Late = Late { remembered: 1024, heard_again: 16 * 1024 };

/// Speaks HTTP/2 on `io`; what drives it is one of the `tasks`.
pub(super) async fn http2<IO>(io: IO, era: u64, tasks: &TaskTracker) -> Result<Connection, Failure>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    http2_within(LATE, io, era, tasks).await
}

async fn http2_within<IO>(
    late: Late,
    io: IO,
    era: u64,
    tasks: &TaskTracker,
) -> Result<Connection, Failure>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADERS_MAX)
        .initial_max_send_streams(UNTOLD)
        .max_concurrent_reset_streams(late.remembered)
        .max_local_error_reset_streams(late.heard_again)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_PATIENCE);
    let (sender, connection) =
        builder.handshake(TokioIo::new(io)).await.map_err(|error| not_http(&error))?;
    // Whoever looks for a free stream asks it how many there are, while it is driven.
    let driven = Arc::new(Mutex::new(Box::pin(connection)));
    let asked = Arc::downgrade(&driven);
    tasks.spawn(async move {
        let next =
            poll_fn(|cx| driven.lock().unwrap_or_else(PoisonError::into_inner).as_mut().poll(cx));
        drop(next.await);
    });
    let load = Load::new(move || {
        asked.upgrade().map_or(0, |connection| {
            connection.lock().unwrap_or_else(PoisonError::into_inner).current_max_send_streams()
        })
    });
    Ok(Connection::Http2(Http2 { sender, load, era }))
}

fn not_http(error: &hyper::Error) -> Failure {
    unreachable(format!("no HTTP on the new connection: {error}"), "connection_terminated")
}

/// Past 64 KiB a larger buffer gained nothing in the download benchmark.
const BUFFER_MAX: usize = 64 * 1024;
/// As much as HTTP/1 may send in its buffer; hyper's own 16 KiB refuses what curl takes.
const HEADERS_MAX: u32 = 64 * 1024;
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// A connection whose peer vanished is found before a request waits on it for long.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_PATIENCE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use http::Request;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// A frame (RFC 9113, section 4.1).
    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("it is short").to_be_bytes();
        let [_, length @ ..] = length;
        [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// Whether a request is answered after `crowd` others were left, whose streams end late.
    async fn lasts(late: Late, crowd: u32) -> bool {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (data, headers, settings, end_stream, end_headers) = (0, 1, 4, 1, 4);
        far.write_all(&frame(settings, 0, 0, &[])).await.expect("it is taken");
        let tasks = TaskTracker::new();
        let Ok(Connection::Http2(mut http)) = http2_within(late, near, 0, &tasks).await else {
            panic!("HTTP/2 was asked for");
        };
        let mut ask = || {
            let request = Request::get("http://a.test/").body(Body::empty());
            http.sender.send_request(request.expect("a request"))
        };
        let left: Vec<_> = (0..crowd).map(|_| ask()).collect();
        settled().await;
        drop(left);
        settled().await;
        let last = ask();
        settled().await;
        for n in 0..crowd {
            let ended = frame(data, end_stream, 2 * n + 1, &[]);
            far.write_all(&ended).await.expect("it is taken");
        }
        // `:status: 200` is the eighth of the fields that are given (RFC 7541, appendix A).
        let answer = frame(headers, end_stream | end_headers, 2 * crowd + 1, &[0x88]);
        far.write_all(&answer).await.expect("it is taken");
        last.await.is_ok_and(|answer| answer.status() == 200)
    }

    #[tokio::test]
    async fn a_crowd_that_leaves_ends_the_connection_past_the_limit_alone() {
        for (remembered, heard_again, crowd, wanted) in
            [(10, 20, 29, true), (10, 20, 30, true), (10, 20, 31, false), (60, 0, 60, true)]
        {
            let lasts = lasts(Late { remembered, heard_again }, crowd).await;
            assert_eq!(lasts, wanted, "{crowd} of {remembered} and {heard_again}");
        }
        assert!(lasts(LATE, 3000).await, "more than h2 takes by its own measure");
    }

    /// Lets everybody else run until nothing is left to do.
    async fn settled() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
}
