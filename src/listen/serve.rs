//! One connection, many requests.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue};
use http::{Method, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

use crate::exchange::body::{Body, BodyEnd, Watcher};
use crate::exchange::trail::Presence;
use crate::exchange::{Failure, answer};
use crate::listen::seat::Fuse;
use crate::listen::wire::{self, Kind, Watch, Wire};
use crate::listen::{Caps, House};

/// A request as it came off a connection.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: http::Request<Incoming>,
    /// What is wrong with it already.
    pub(super) fault: Option<Failure>,
    /// Learns whether the client got its answer.
    pub(super) presence: Presence,
}

/// Serves HTTP/1.1 until the client or draining ends it.
///
/// # Errors
///
/// How the connection broke, if it did.
pub(super) async fn http1<IO, F, Fut>(
    io: IO,
    (caps, fuse): (&Caps, Fuse),
    house: &House,
    respond: F,
) -> Result<(), hyper::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Asked) -> Fut,
    Fut: Future<Output = http::Response<Body>>,
{
    let limits = wire::Limits { header_size: caps.header_size, uri_size: caps.uri_size };
    let (wire, watch) = Wire::new(io, limits, answer::raw);
    let last = Last::default();
    let service = service_fn(|request| {
        let exchange = watch.begin();
        let presence = last.next();
        let fault = exchange.fault().map(failure);
        let connect = request.method() == Method::CONNECT;
        let old = request.version() == Version::HTTP_10;
        let answered = respond(Asked { request, fault, presence: presence.clone() });
        let (last, fuse) = (last.clone(), fuse.clone());
        async move {
            let mut response = answered.await;
            if exchange.fault().is_some() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            let switched = response.status() == http::StatusCode::SWITCHING_PROTOCOLS;
            if switched || connect && response.status().is_success() {
                exchange.upgraded();
            }
            let endless = old && length_is_unknown(&response);
            let fuse = endless.then(|| {
                fuse.arm();
                fuse
            });
            let ends = Ends { _exchange: exchange, presence, last, fuse };
            Ok::<_, Infallible>(response.map(|body| body.watched(ends)))
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(caps.header_size.max(BUFFER_MAX))
        .max_header_size(caps.header_size);
    if caps.header_count != FIELDS_ON_THE_STACK {
        builder.max_headers(caps.header_count);
    }
    let mut connection =
        pin!(builder.serve_connection(TokioIo::new(wire), service).with_upgrades());
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = watchdog(&watch, caps) => Ok(()),
        () = house.draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    last.settle(ended.is_ok() && watch.was_there_to_the_last());
    ended
}

/// Whether the connection's end would be that of the body, to who knows no chunks.
fn length_is_unknown(response: &http::Response<Body>) -> bool {
    let body = response.body();
    let counted = response.headers().contains_key(CONTENT_LENGTH);
    !counted && !body.is_empty() && body.length().is_none()
}

/// Serves HTTP/2 until the client or draining ends it.
///
/// # Errors
///
/// How the connection broke, if it did.
pub(super) async fn http2<IO, F, Fut>(
    io: IO,
    caps: &Caps,
    house: &House,
    respond: F,
) -> Result<(), hyper::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Asked) -> Fut,
    Fut: Future<Output = http::Response<Body>> + Send + 'static,
{
    let watch = Watch::default();
    let service = service_fn(|request| {
        let exchange = watch.begin();
        let presence = Presence::default();
        let answered = respond(Asked { request, fault: None, presence: presence.clone() });
        async move {
            let response = answered.await;
            let ends = StreamEnds { _exchange: exchange, presence };
            Ok::<_, Infallible>(response.map(|body| body.watched(ends)))
        }
    });
    let mut builder = http2::Builder::new(Spawn(house.tasks.clone()));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(caps.streams)
        .max_header_list_size(u32::try_from(caps.header_size).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(caps.idle_timeout.min(PING_EVERY))
        .keep_alive_timeout(PING_PATIENCE);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = watchdog(&watch, caps) => {}
        () = house.draining.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

fn failure(fault: wire::Fault) -> Failure {
    match fault.kind {
        Kind::Malformed => Failure::BadRequest(fault.detail),
        Kind::TooLarge => Failure::HeaderTooLarge,
    }
}

/// Returns when a head takes too long, or nothing is asked for too long.
///
/// It looks a few times in each span instead of setting a timer for each request.
async fn watchdog(watch: &Watch, caps: &Caps) {
    let look_every = (caps.header_timeout.min(caps.idle_timeout) / 8).max(LOOK_AT_MOST_EVERY);
    let mut seen = (watch.phase(), Instant::now());
    loop {
        sleep(look_every).await;
        let phase = watch.phase();
        if phase != seen.0 {
            seen = (phase, Instant::now());
            continue;
        }
        let limit = match phase {
            wire::Phase::Busy => continue,
            wire::Phase::Head(_) => caps.header_timeout,
            wire::Phase::Idle(_) => caps.idle_timeout,
        };
        if seen.1.elapsed() >= limit {
            return;
        }
    }
}

/// The last answer of an HTTP/1 connection, until it is known to have arrived:
/// the client asks the next question, or the connection ends without an error.
#[derive(Clone, Debug, Default)]
struct Last(Arc<Mutex<Option<Presence>>>);

impl Last {
    /// The next request came: the answer before it was read.
    fn next(&self) -> Presence {
        self.settle(true);
        Presence::default()
    }

    fn written(&self, presence: Presence) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(presence);
    }

    fn settle(&self, arrived: bool) {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match last {
            Some(presence) if arrived => presence.serve(),
            Some(presence) => presence.leave(),
            None => {}
        }
    }
}

/// The end of an HTTP/1 exchange: the wire may read on.
struct Ends {
    _exchange: wire::Exchange,
    presence: Presence,
    last: Last,
    /// Where the connection's end would be taken for the answer's.
    fuse: Option<Fuse>,
}

impl Watcher for Ends {
    fn ended(&mut self, end: BodyEnd) {
        if end == BodyEnd::Whole {
            self.last.written(self.presence.clone());
            if let Some(fuse) = &self.fuse {
                fuse.disarm();
            }
        } else {
            self.presence.leave();
        }
    }
}

/// The end of an HTTP/2 exchange.
struct StreamEnds {
    _exchange: wire::Exchange,
    presence: Presence,
}

impl Watcher for StreamEnds {
    fn ended(&mut self, end: BodyEnd) {
        if end == BodyEnd::Whole {
            self.presence.serve();
        } else {
            self.presence.leave();
        }
    }
}

/// Runs the streams of an HTTP/2 connection where draining waits for them.
#[derive(Clone)]
struct Spawn(TaskTracker);

impl<F> hyper::rt::Executor<F> for Spawn
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// hyper reads and writes through buffers of at most this; more gained nothing.
const BUFFER_MAX: usize = 64 * 1024;
/// What hyper parses without going to the heap for each head.
const FIELDS_ON_THE_STACK: usize = 100;
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(25);
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;
const PING_EVERY: Duration = Duration::from_mins(1);
const PING_PATIENCE: Duration = Duration::from_secs(20);
