//! Sends one attempt, and says what is known when it fails.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method, StatusCode};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};
use tower::Service;

use crate::exchange::body::{BodyEnd, BodyError, Upload, Watcher};
use crate::exchange::trail::Attempting;
use crate::exchange::{Body, BoxFuture, Failure, Origin, Request, Response};
use crate::exchange::{answer, headers};
use crate::failpoint::Failpoint;
use crate::upstream::connection::{Connection, Http1, Http2};
use crate::upstream::dial::Speaks;
use crate::upstream::load::Stream;
use crate::upstream::parcel::{Parcel, for_http1, for_http2, parcel};
use crate::upstream::pool::{Pool, Taken, Want};
use crate::upstream::proof;
use crate::upstream::sent::Sent;

/// The last stage: one attempt, within a route's times.
#[derive(Clone, Debug)]
pub struct Sender {
    pool: Pool,
    times: Times,
}

/// How long an attempt may take.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    /// To its response headers.
    attempt: Option<Duration>,
    /// Between two pieces of the response's body.
    body_idle: Option<Duration>,
}

impl Sender {
    /// Sends through `pool`.
    pub fn new(pool: Pool, attempt: Option<Duration>, body_idle: Option<Duration>) -> Self {
        Self { pool, times: Times { attempt, body_idle } }
    }

    /// Sends one attempt.
    ///
    /// # Errors
    ///
    /// A [`Failure`] that says whether anything was sent.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends the attempt: an HTTP/1 connection is closed, an HTTP/2 stream reset.
    async fn send(self, mut request: Request) -> Result<Response, Failure> {
        if let Some(guard) = &request.guard {
            guard.check().await?;
        }
        let Some(traced) = request.traced.take() else {
            return self.send_within(request, &Arc::default()).await;
        };
        let underway = traced.begin(&mut request.headers);
        let sent = Arc::default();
        let result = self.send_within(request, &sent).await;
        if let Some(underway) = underway {
            let told = result.as_ref().map(|response| response.status);
            underway.ended(sent.version(), told.map_err(|it| answer::problem(it).proxy_error));
        }
        result
    }

    /// Sends one attempt, and cuts it when its time is over.
    async fn send_within(self, request: Request, sent: &Arc<Sent>) -> Result<Response, Failure> {
        let started = Instant::now();
        let cut = earliest(self.times.attempt.map(|limit| started + limit), request.cut_at);
        let body_idle = self.times.body_idle;
        let attempt = attempt(self.pool, request, sent.clone());
        let mut response = match cut {
            None => attempt.await?,
            Some(cut) => timeout_at(cut, attempt).await.map_err(|_elapsed| {
                let after = cut.saturating_duration_since(started);
                Failure::TimedOut { after, sent: sent.anything() }
            })??,
        };
        if let Some(limit) = body_idle {
            let body = std::mem::take(&mut response.body);
            response.body = Body::wrap(Timed::new(body, limit));
        }
        Ok(response)
    }
}

impl Service<Request> for Sender {
    type Response = Response;
    type Error = Failure;
    type Future = BoxFuture<Result<Response, Failure>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}

async fn attempt(pool: Pool, request: Request, sent: Arc<Sent>) -> Result<Response, Failure> {
    let want = Want {
        speaks: if request.wants_upgrade { Speaks::Http1Only } else { Speaks::Any },
        fresh: request.standing.fresh_connection,
    };
    let mut trip = Trip {
        pool,
        origin: request.origin.clone(),
        upload: request.upload.clone(),
        upgrade: request.wants_upgrade,
        head: request.method == Method::HEAD,
    };
    let trail = request.trail.clone();
    let mut parcel = parcel(request);
    loop {
        let (used, connection) = match trip.pool.take(&trip.origin, want).await? {
            Taken::Fresh(connection) => (false, connection),
            Taken::Used(connection) => (true, connection),
        };
        sent.begin(connection.version());
        trail.attempting(Attempting::UnderWay);
        let ended = match connection {
            Connection::Http1(connection) => trip.over_http1(connection, parcel).await?,
            Connection::Http2(connection) => trip.over_http2(connection, parcel).await?,
        };
        // A connection that died at rest took nothing with it: the next one is
        // the first on which this attempt is really sent.
        (trip, parcel) = match ended {
            Ended::Answered(response) => return Ok(response),
            Ended::GivenBack(back) => back,
        };
        sent.take_back();
        trail.attempting(Attempting::Nothing);
        if !used {
            let origin = &trip.origin;
            return Err(Failure::Unreachable {
                detail: format!("{origin} closed the connection before the request was written"),
                kind: "connection_terminated",
            });
        }
    }
}

/// What an attempt needs to know of its request beside what is sent.
struct Trip {
    pool: Pool,
    origin: Origin,
    upload: Option<Arc<Upload>>,
    upgrade: bool,
    head: bool,
}

/// How the way to an upstream ended.
enum Ended {
    Answered(Response),
    /// The connection never began on it.
    GivenBack((Trip, Parcel)),
}

impl Trip {
    async fn over_http1(self, connection: Http1, mut parcel: Parcel) -> Result<Ended, Failure> {
        let Http1 { mut sender, forwarder, era } = connection;
        for_http1(&mut parcel, &self.origin, self.upgrade, forwarder.as_deref());
        let response = match written(sender.try_send_request(parcel)).await {
            Ok(response) => response,
            Err(error) => {
                let parcel = given_back(error, self.upload.as_deref())?;
                return Ok(Ended::GivenBack((self, parcel)));
            }
        };
        believable(&response, self.upgrade)?;
        if let Some(proxy) = &forwarder
            && response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED
        {
            return Err(proxy.asks_who_we_are());
        }
        let Self { pool, origin, upload, head, .. } = self;
        let connection = Http1 { sender, forwarder, era };
        Ok(Ended::Answered(received(response, Return { pool, origin, connection, upload, head })))
    }

    async fn over_http2(self, connection: Http2, mut parcel: Parcel) -> Result<Ended, Failure> {
        let Http2 { mut sender, load, .. } = connection;
        let stream = load.begin();
        for_http2(&mut parcel, &self.origin);
        match written(sender.try_send_request(parcel)).await {
            Ok(response) => {
                believable(&response, self.upgrade)?;
                self.pool.touch(&self.origin);
                Ok(Ended::Answered(received_http2(response, stream)))
            }
            Err(error) => {
                let parcel = given_back(error, self.upload.as_deref())?;
                Ok(Ended::GivenBack((self, parcel)))
            }
        }
    }
}

/// Waits for an answer; a test may have the process die meanwhile.
async fn written<T>(sending: impl Future<Output = T>) -> T {
    if cfg!(debug_assertions) {
        tokio::select! {
            biased;
            answer = sending => answer,
            () = Failpoint::MidRequest.pass_soon() => std::future::pending().await,
        }
    } else {
        sending.await
    }
}

/// The request back, where the connection never began on it; otherwise what the error proves.
fn given_back(
    mut error: hyper::client::conn::TrySendError<Parcel>,
    upload: Option<&Upload>,
) -> Result<Parcel, Failure> {
    match error.take_message() {
        Some(parcel) => Ok(parcel),
        None => Err(proof::of(error.error(), upload)),
    }
}

/// Refuses a response that two readers can take for different ones: hyper passes it on,
/// and its client would see a body that ends elsewhere, or is not what its fields say.
fn believable(response: &http::Response<Incoming>, upgrade: bool) -> Result<(), Failure> {
    let lie = |detail: &str| Err(Failure::Protocol { detail: detail.to_owned(), broken: false });
    if response.status() == StatusCode::SWITCHING_PROTOCOLS && !upgrade {
        return lie("the upstream switched to a protocol that nobody asked for");
    }
    let headers = response.headers();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    if headers.contains_key(CONTENT_LENGTH) {
        return lie("the upstream's response has a Content-Length beside Transfer-Encoding");
    }
    // We ask for no other coding, and what takes one off downstream would not know of it.
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return lie("the upstream's response has a Transfer-Encoding that is not one `chunked`");
    }
    Ok(())
}

fn received_http2(response: http::Response<Incoming>, stream: Stream) -> Response {
    let (parts, incoming) = response.into_parts();
    let mut headers = parts.headers;
    headers::clean_response(&mut headers);
    let body = Body::from_stream(incoming, stream);
    Response { status: parts.status, headers, body, upgrade: None }
}

fn received(mut response: http::Response<Incoming>, home: Return) -> Response {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let upgrade = Some(hyper::upgrade::on(&mut response));
        let (mut parts, _) = response.into_parts();
        let protocol = parts.headers.get(UPGRADE).cloned();
        headers::clean_response(&mut parts.headers);
        if let Some(protocol) = protocol {
            parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(UPGRADE, protocol);
        }
        return Response {
            status: parts.status,
            headers: parts.headers,
            body: Body::empty(),
            upgrade,
        };
    }
    let keep_alive = keep_alive(response.headers());
    let (parts, incoming) = response.into_parts();
    let mut headers = parts.headers;
    headers::clean_response(&mut headers);
    let body = Body::from_upstream(incoming);
    let body = if home.head { Body::empty() } else { body };
    let body = body.watched(Returning { home: Some(home), keep_alive });
    Response { status: parts.status, headers, body, upgrade: None }
}

/// What it takes to put a connection to rest.
struct Return {
    pool: Pool,
    origin: Origin,
    connection: Http1,
    upload: Option<Arc<Upload>>,
    head: bool,
}

/// Puts the connection to rest with the body's last byte; any other end closes it.
struct Returning {
    home: Option<Return>,
    keep_alive: Option<Duration>,
}

impl Watcher for Returning {
    fn ended(&mut self, end: BodyEnd) {
        let Some(home) = self.home.take() else { return };
        let uploaded = home.upload.as_ref().is_none_or(|upload| upload.is_complete());
        if end == BodyEnd::Whole && uploaded {
            home.pool.put(home.origin, home.connection, self.keep_alive);
        }
    }
}

/// `Keep-Alive: timeout=5`: when the upstream will close an unused connection.
fn keep_alive(headers: &HeaderMap) -> Option<Duration> {
    let name = HeaderName::from_static("keep-alive");
    if !headers.contains_key(&name) {
        return None;
    }
    let told = headers::tokens(headers, &name)
        .find_map(|token| token.strip_prefix("timeout=").map(|seconds| seconds.trim().parse()));
    told.and_then(Result::ok).map(Duration::from_secs)
}

fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

pin_project_lite::pin_project! {
    /// A body that breaks off when nothing comes for too long.
    struct Timed {
        body: Body,
        limit: Duration,
        #[pin]
        sleep: tokio::time::Sleep,
    }
}

impl Timed {
    fn new(body: Body, limit: Duration) -> Self {
        Self { body, limit, sleep: tokio::time::sleep(limit) }
    }
}

impl http_body::Body for Timed {
    type Data = bytes::Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, BodyError>>> {
        let mut this = self.project();
        if let Poll::Ready(frame) = std::pin::Pin::new(this.body).poll_frame(cx) {
            this.sleep.as_mut().reset(Instant::now() + *this.limit);
            return Poll::Ready(frame);
        }
        std::task::ready!(std::future::Future::poll(this.sleep, cx));
        Poll::Ready(Some(Err(BodyError::Idle)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
