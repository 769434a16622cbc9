//! Sends one attempt, and says what is known when it fails.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, Method, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use tokio::time::{Instant, timeout_at};
use tower::Service;

use crate::exchange::body::{BodyEnd, BodyError, Upload, Watcher};
use crate::exchange::{Body, BoxFuture, Failure, Origin, Request, Response};
use crate::exchange::{answer, headers};
use crate::failpoint::Failpoint;
use crate::upstream::dial::{Connection, Speaks};
use crate::upstream::load::Stream;
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
    let upgrade = request.wants_upgrade;
    let want = Want {
        speaks: if upgrade { Speaks::Http1Only } else { Speaks::Any },
        fresh: request.standing.fresh_connection,
    };
    let (origin, upload) = (request.origin.clone(), request.upload.clone());
    let head = request.method == Method::HEAD;
    let mut parcel = parcel(request);
    let mut taken = pool.take(&origin, want).await?;
    loop {
        let (used, connection) = match taken {
            Taken::Fresh(connection) => (false, connection),
            Taken::Used(connection) => (true, connection),
        };
        let unsent = match connection {
            Connection::Http1(mut sender) => {
                sent.begin(Version::HTTP_11);
                for_http1(&mut parcel, &origin, upgrade);
                match written(sender.try_send_request(parcel)).await {
                    Ok(response) => {
                        believable(&response, upgrade)?;
                        return Ok(received(
                            response,
                            Return { pool, origin, sender, upload, head },
                        ));
                    }
                    Err(error) => given_back(error, upload.as_deref())?,
                }
            }
            Connection::Http2(mut sender, load) => {
                sent.begin(Version::HTTP_2);
                let stream = load.begin();
                for_http2(&mut parcel, &origin);
                match written(sender.try_send_request(parcel)).await {
                    Ok(response) => {
                        believable(&response, upgrade)?;
                        pool.touch(&origin);
                        return Ok(received_http2(response, stream));
                    }
                    Err(error) => given_back(error, upload.as_deref())?,
                }
            }
        };
        sent.take_back();
        if !used {
            return Err(Failure::Unreachable {
                detail: format!("{origin} closed the connection before the request was written"),
                kind: "connection_terminated",
            });
        }
        // A connection that died at rest took nothing with it: the next one is
        // the first on which this attempt is really sent.
        parcel = unsent;
        taken = pool.take(&origin, want).await?;
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

type Parcel = http::Request<Body>;

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

fn parcel(request: Request) -> Parcel {
    let request = *request;
    let mut parcel = http::Request::new(request.body);
    *parcel.method_mut() = request.method;
    *parcel.uri_mut() = Uri::from(request.path);
    *parcel.headers_mut() = request.headers;
    parcel
}

/// `Host` follows the target (RFC 9112, section 3.2.2), never what the client wrote there.
fn for_http1(parcel: &mut Parcel, origin: &Origin, upgrade: bool) {
    *parcel.version_mut() = Version::HTTP_11;
    if parcel.uri().authority().is_some()
        && let Some(path) = parcel.uri().path_and_query().cloned()
    {
        *parcel.uri_mut() = Uri::from(path);
    }
    parcel.headers_mut().insert(HOST, origin.host_field().clone());
    join_cookies(parcel.headers_mut());
    let bodiless = matches!(*parcel.method(), Method::GET | Method::HEAD);
    if bodiless && !parcel.body().is_empty() && parcel.body().length().is_none() {
        // hyper takes a GET of unknown length for one without a body.
        parcel.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if upgrade {
        parcel.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else if parcel.headers().contains_key(TE) {
        // RFC 9110, section 10.1.4: TE ends at this hop, so Connection has to name it.
        parcel.headers_mut().insert(CONNECTION, HeaderValue::from_static("te"));
    }
}

/// HTTP/2 lets a client cut its cookies into fields of their own, HTTP/1 does not
/// (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let (Some(_first), Some(_second)) = (crumbs.next(), crumbs.next()) else { return };
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, whole);
    }
}

fn for_http2(parcel: &mut Parcel, origin: &Origin) {
    *parcel.version_mut() = Version::HTTP_2;
    let headers = parcel.headers_mut();
    for name in [HOST, CONNECTION, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    let path = parcel.uri().path_and_query().cloned();
    let uri = Uri::builder().scheme(origin.scheme.as_str()).authority(origin.authority());
    if let Some(Ok(uri)) = path.map(|path| uri.path_and_query(path).build()) {
        *parcel.uri_mut() = uri;
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
    let body = Body::from_upstream(incoming).holding(stream);
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
    sender: http1::SendRequest<Body>,
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
            home.pool.put(home.origin, home.sender, self.keep_alive);
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
