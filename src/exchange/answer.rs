//! The response that a failure becomes: an RFC 9457 problem, or what the provider's errors look like.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, PROXY_AUTHENTICATE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use crate::exchange::shape::Saying;
use crate::exchange::{Body, Failure, Response, Shape};

/// What a failure is called, on the wire and in its title.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The end of its `type` URN.
    pub slug: &'static str,
    /// Its status.
    pub status: StatusCode,
    /// Its title.
    pub title: &'static str,
    /// Its error type in `Proxy-Status` (RFC 9209, section 2.3).
    pub proxy_error: &'static str,
}

/// The response to a failure after so many attempts, as a problem.
pub fn of(failure: &Failure, attempts: usize) -> Response {
    shaped(failure, attempts, &Shape::Problem)
}

/// The response to a failure after so many attempts, in this shape.
pub fn shaped(failure: &Failure, attempts: usize, shape: &Shape) -> Response {
    let problem = problem(failure);
    let retry_after = retry_after(failure).map(whole_seconds);
    let (kind, said) = match shape {
        Shape::Problem => {
            ("application/problem+json", whole(&problem, failure, (attempts, retry_after)))
        }
        Shape::Provider(template) => {
            let (code, detail) = (code(problem.slug), failure.to_string());
            let (status, title) = (problem.status.as_u16(), problem.title);
            let saying = Saying { code: &code, status, title, detail: &detail };
            ("application/json", template.render(&saying))
        }
    };
    let body = Body::full(Bytes::from(said.to_string()));
    let mut response = Response::new(problem.status, body);
    let headers = &mut response.headers;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(PROXY_STATUS, proxy_status(&problem, attempts));
    if let Some(seconds) = retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if matches!(failure, Failure::ProxyAuth) {
        let challenge = HeaderValue::from_static("Basic realm=\"samekey\", charset=\"UTF-8\"");
        headers.insert(PROXY_AUTHENTICATE, challenge);
    }
    response
}

/// All that a problem says.
fn whole(
    problem: &Problem,
    failure: &Failure,
    (attempts, retry_after): (usize, Option<u64>),
) -> Value {
    let mut fields = fields(problem, failure, attempts);
    if let Some(seconds) = retry_after {
        fields.insert("retry_after".to_owned(), json!(seconds));
    }
    if let Failure::NotRetained { captured, .. } = failure
        && !captured.is_empty()
    {
        let captured = captured.iter().map(|(name, value)| (name.clone(), json!(value)));
        fields.insert("captured".to_owned(), Value::Object(captured.collect()));
    }
    Value::Object(fields)
}

/// The bytes of a whole HTTP/1.1 response, for a head that never became a request.
pub fn raw(status: u16) -> Vec<u8> {
    let failure = match status {
        431 => Failure::HeaderTooLarge,
        _ => Failure::BadRequest("the request is not HTTP/1.1, or its target is too long"),
    };
    let problem = problem(&failure);
    let text = Value::Object(fields(&problem, &failure, 0)).to_string();
    format!(
        "HTTP/1.1 {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
         proxy-status: samekey; error={}\r\nconnection: close\r\n\r\n{text}",
        problem.status,
        text.len(),
        problem.proxy_error,
    )
    .into_bytes()
}

/// The members that every problem has.
fn fields(problem: &Problem, failure: &Failure, attempts: usize) -> Map<String, Value> {
    let members = [
        ("type", json!(format!("urn:samekey:{}", problem.slug))),
        ("title", json!(problem.title)),
        ("status", json!(problem.status.as_u16())),
        ("detail", json!(failure.to_string())),
        ("code", json!(code(problem.slug))),
        ("attempts", json!(attempts)),
    ];
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What programs know a problem by.
pub fn code(slug: &str) -> String {
    slug.replace('-', "_")
}

/// Words that keep an SDK from starting over once samekey has given up.
pub fn stop_words(headers: &mut HeaderMap) {
    headers.insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
    headers.insert(STRIPE_SHOULD_RETRY, HeaderValue::from_static("false"));
}

/// What a failure is called.
pub fn problem(failure: &Failure) -> Problem {
    const REQUEST: &str = "http_request_error";
    const DENIED: &str = "http_request_denied";
    const LIMIT: &str = "connection_limit_reached";
    let (slug, status, title, proxy_error) = match failure {
        Failure::BadRequest(_) => ("bad-request", 400, "The request is malformed", REQUEST),
        Failure::Unfit(_) => {
            ("bad-request", 400, "The request does not fit the route's schema", REQUEST)
        }
        Failure::HeaderTooLarge => {
            ("header-too-large", 431, "The request's head is too large", REQUEST)
        }
        Failure::KeyInvalid(_) => ("key-invalid", 400, "The idempotency key is invalid", REQUEST),
        Failure::KeyMissing(_) => ("key-missing", 400, "An idempotency key is missing", REQUEST),
        Failure::Misdirected => ("misdirected", 400, "The tunnel leads elsewhere", REQUEST),
        Failure::ClientGone => ("bad-request", 400, "The request ended early", REQUEST),
        Failure::Forbidden(_) => {
            let kind = "destination_ip_prohibited";
            ("forbidden-destination", 403, "The destination is forbidden", kind)
        }
        Failure::ProxyAuth => ("proxy-auth-required", 407, "The proxy wants credentials", DENIED),
        Failure::InProgress { .. } => {
            ("in-progress", 409, "A request with this key is in progress", DENIED)
        }
        Failure::OutcomeUnknown(_) => {
            ("outcome-unknown", 409, "The outcome of this key is unknown", DENIED)
        }
        Failure::NotRetained { .. } => {
            ("response-not-retained", 409, "The answer is no longer kept", DENIED)
        }
        Failure::ReplaySuspended => {
            ("replay-suspended", 409, "Stored answers are held back", DENIED)
        }
        Failure::KeyReused(status) => {
            ("key-reused", status.as_u16(), "The key was used for another request", DENIED)
        }
        Failure::InsufficientCredits { .. } => {
            ("insufficient-credits", 402, "There is no credit for it", DENIED)
        }
        Failure::Overloaded => ("overloaded", 503, "Too many requests wait already", LIMIT),
        Failure::LimitWait { .. } => ("limit-wait", 503, "The turn would come too late", LIMIT),
        Failure::StoreUnavailable(_) => {
            ("store-unavailable", 503, "The key cannot be kept", "proxy_internal_error")
        }
        Failure::Loop => {
            ("loop", 508, "The request leads back to this proxy", "proxy_loop_detected")
        }
        Failure::Unreachable { .. }
        | Failure::Barred { .. }
        | Failure::Refused
        | Failure::Tls { .. }
        | Failure::Protocol { .. }
        | Failure::TimedOut { .. } => upstreams(failure),
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    Problem { slug, status, title, proxy_error }
}

/// What a failure on the upstream's side is called: `upstream-unreachable` always
/// means that nothing was done.
fn upstreams(failure: &Failure) -> (&'static str, u16, &'static str, &'static str) {
    match failure {
        Failure::Unreachable { kind, .. } => {
            ("upstream-unreachable", 502, "The upstream cannot be reached", kind)
        }
        Failure::Barred { kind, .. } => {
            let title = "The proxy before the upstream lets nothing through";
            ("upstream-unreachable", 502, title, kind)
        }
        Failure::Refused => {
            let title = "The upstream refused the request unprocessed";
            ("upstream-unreachable", 502, title, "connection_terminated")
        }
        Failure::Tls { verification, .. } => {
            let kind = if *verification { "tls_certificate_error" } else { "tls_protocol_error" };
            ("upstream-tls", 502, "TLS to the upstream failed", kind)
        }
        Failure::Protocol { broken: true, .. } => {
            let title = "The upstream's connection broke";
            ("upstream-protocol", 502, title, "connection_terminated")
        }
        Failure::TimedOut { .. } => {
            let title = "The upstream did not answer in time";
            ("upstream-timeout", 504, title, "http_response_timeout")
        }
        _ => {
            let title = "The upstream did not answer in HTTP";
            ("upstream-protocol", 502, title, "http_protocol_error")
        }
    }
}

/// When asking again may help, where that is known.
fn retry_after(failure: &Failure) -> Option<Duration> {
    match failure {
        Failure::InProgress { retry_after } | Failure::LimitWait { retry_after } => {
            Some(*retry_after)
        }
        Failure::InsufficientCredits { retry_after, .. } => *retry_after,
        Failure::Overloaded => Some(Duration::from_secs(1)),
        _ => None,
    }
}

/// Rounded up, and at least one: a client that obeys must not come too early.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_millis().div_ceil(1000).try_into().map_or(u64::MAX, |seconds: u64| seconds.max(1))
}

fn proxy_status(problem: &Problem, attempts: usize) -> HeaderValue {
    let text = format!("samekey; error={}; details=\"attempts={attempts}\"", problem.proxy_error);
    HeaderValue::try_from(text).unwrap_or_else(|_never| HeaderValue::from_static("samekey"))
}

/// `Proxy-Status` (RFC 9209).
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const STRIPE_SHOULD_RETRY: HeaderName = HeaderName::from_static("stripe-should-retry");
