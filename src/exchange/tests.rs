//! What the tests of the stages start from: a request, bodies, an upstream with a script.

use std::collections::VecDeque;
use std::io::Write as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode};
use http_body::{Frame, SizeHint};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tower::Service;

use super::body::BodyError;
use super::{Body, BoxFuture, Failure, Origin, Request, RequestParts, Response, Standing};

/// A request to `https://api.test/v1/jobs`, from a client that waits.
pub(crate) fn request(method: Method, body: Body) -> Request {
    let origin = Origin::parse("https://api.test").expect("an origin");
    let path = PathAndQuery::from_static("/v1/jobs");
    Box::new(RequestParts { caller: [7; 32], ..*RequestParts::new(method, origin, path, body) })
}

pub(crate) fn response(status: u16, fields: &[(&'static str, &str)], body: Body) -> Response {
    let status = StatusCode::from_u16(status).expect("a status");
    Response { headers: headers(fields), ..Response::new(status, body) }
}

pub(crate) fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, value.parse().expect("a field value"));
    }
    headers
}

pub(crate) fn full(text: &'static str) -> Body {
    Body::full(Bytes::from_static(text.as_bytes()))
}

pub(crate) type Piece = Result<Frame<Bytes>, BodyError>;

#[expect(clippy::unnecessary_wraps, reason = "a body is made of what may have failed")]
pub(crate) fn data(text: &'static str) -> Piece {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

#[expect(clippy::unnecessary_wraps, reason = "a body is made of what may have failed")]
pub(crate) fn trailers(name: &'static str) -> Piece {
    Ok(Frame::trailers(headers(&[(name, "1")])))
}

/// A body of these pieces, of a length that its reader is not told.
pub(crate) fn streamed(pieces: impl IntoIterator<Item = Piece>) -> Body {
    Body::wrap(Pieces { pieces: pieces.into_iter().collect(), told: None })
}

/// A body of these pieces, whose reader is told its length.
pub(crate) fn measured(pieces: &[&'static str]) -> Body {
    let told = pieces.iter().map(|piece| piece.len() as u64).sum();
    let pieces = pieces.iter().map(|piece| data(piece)).collect();
    Body::wrap(Pieces { pieces, told: Some(told) })
}

/// A body in a content coding; `raw deflate` is what some servers call `deflate`.
pub(crate) fn encoded(coding: &str, body: &[u8]) -> Vec<u8> {
    let (level, expect) = (Compression::default(), "a vector takes all");
    match coding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            encoder.write_all(body).expect(expect);
            encoder.finish().expect(expect)
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(body).expect(expect);
            encoder.finish().expect(expect)
        }
        "raw deflate" => {
            let mut encoder = DeflateEncoder::new(Vec::new(), level);
            encoder.write_all(body).expect(expect);
            encoder.finish().expect(expect)
        }
        "zstd" => compress_to_vec(body, CompressionLevel::Fastest),
        _ => body.to_vec(),
    }
}

/// A body that comes as it is sent.
pub(crate) fn fed() -> (mpsc::UnboundedSender<Piece>, Body) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Body::wrap(Fed(receiver)))
}

/// The next frame of a body, as text: `*` stands for trailers, `!` for an error.
pub(crate) async fn next(body: &mut Body) -> Option<String> {
    Some(match http_body_util::BodyExt::frame(body).await? {
        Err(_broke) => "!".to_owned(),
        Ok(frame) => match frame.into_data() {
            Ok(data) => String::from_utf8_lossy(&data).into_owned(),
            Err(_trailers) => "*".to_owned(),
        },
    })
}

/// All that is left of a body, written as [`next`] does.
pub(crate) async fn rest(body: &mut Body) -> String {
    let mut read = String::new();
    while let Some(piece) = next(body).await {
        let broke = piece == "!";
        read += &piece;
        if broke {
            break;
        }
    }
    read
}

struct Pieces {
    pieces: VecDeque<Piece>,
    told: Option<u64>,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        Poll::Ready(self.pieces.pop_front())
    }

    fn size_hint(&self) -> SizeHint {
        self.told.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

struct Fed(mpsc::UnboundedReceiver<Piece>);

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        self.0.poll_recv(cx)
    }
}

/// An upstream that reads each request whole and answers by its script.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scripted(Arc<Mutex<Script>>);

#[derive(Debug, Default)]
struct Script {
    answers: VecDeque<(Duration, Result<Response, Failure>)>,
    calls: Vec<Call>,
}

/// What it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) at: Instant,
    pub(crate) body: Option<Bytes>,
    pub(crate) standing: Standing,
    pub(crate) headers: HeaderMap,
}

impl Scripted {
    /// It will give this answer next, at once.
    pub(crate) fn answer(&self, answer: Result<Response, Failure>) -> &Self {
        self.answer_after(Duration::ZERO, answer)
    }

    pub(crate) fn answer_after(&self, after: Duration, answer: Result<Response, Failure>) -> &Self {
        self.with(|script| script.answers.push_back((after, answer)));
        self
    }

    pub(crate) fn status(&self, status: u16, fields: &[(&'static str, &str)]) -> &Self {
        self.answer(Ok(response(status, fields, Body::empty())))
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.with(|script| script.calls.clone())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Script) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Service<Request> for Scripted {
    type Response = Response;
    type Error = Failure;
    type Future = BoxFuture<Result<Response, Failure>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let script = self.clone();
        Box::pin(async move {
            let (at, standing) = (Instant::now(), request.standing);
            let headers = request.headers;
            let body = request.body.read_whole(1024 * 1024).await;
            let (after, answer) = script.with(|script| {
                script.calls.push(Call { at, body, standing, headers });
                script.answers.pop_front().expect("the script has another answer")
            });
            sleep(after).await;
            answer
        })
    }
}

/// One of each failure; a new one does not compile until it is among them.
pub(crate) fn failures() -> Vec<Failure> {
    let (detail, after) = (|| "why".to_owned(), Duration::from_millis(1500));
    let exchange = super::id::ExchangeId::from_parts(1, 2);
    let all = vec![
        Failure::BadRequest("why"),
        Failure::Unfit(detail()),
        Failure::HeaderTooLarge,
        Failure::KeyInvalid("why"),
        Failure::KeyMissing("Idempotency-Key".to_owned()),
        Failure::Forbidden("a.test".to_owned()),
        Failure::ProxyAuth,
        Failure::InProgress { retry_after: after },
        Failure::OutcomeUnknown(exchange),
        Failure::NotRetained { exchange, captured: vec![("job".to_owned(), "j-1".to_owned())] },
        Failure::Misdirected,
        Failure::KeyReused(StatusCode::CONFLICT),
        Failure::Unreachable { detail: detail(), kind: "dns_error" },
        Failure::Barred { detail: detail(), kind: "http_request_denied" },
        Failure::Tls { detail: detail(), verification: true },
        Failure::Refused,
        Failure::Protocol { detail: detail(), broken: true },
        Failure::ClientGone,
        Failure::TimedOut { after, sent: true },
        Failure::Overloaded,
        Failure::LimitWait { retry_after: after },
        Failure::InsufficientCredits { detail: detail(), retry_after: Some(after) },
        Failure::StoreUnavailable("why"),
        Failure::Loop,
        Failure::ReplaySuspended,
    ];
    for failure in &all {
        match failure {
            Failure::BadRequest(_)
            | Failure::Unfit(_)
            | Failure::HeaderTooLarge
            | Failure::KeyInvalid(_)
            | Failure::KeyMissing(_)
            | Failure::Forbidden(_)
            | Failure::ProxyAuth
            | Failure::InProgress { .. }
            | Failure::OutcomeUnknown(_)
            | Failure::NotRetained { .. }
            | Failure::Misdirected
            | Failure::KeyReused(_)
            | Failure::Unreachable { .. }
            | Failure::Barred { .. }
            | Failure::Tls { .. }
            | Failure::Refused
            | Failure::Protocol { .. }
            | Failure::ClientGone
            | Failure::TimedOut { .. }
            | Failure::Overloaded
            | Failure::LimitWait { .. }
            | Failure::InsufficientCredits { .. }
            | Failure::StoreUnavailable(_)
            | Failure::Loop
            | Failure::ReplaySuspended => {}
        }
    }
    all
}
