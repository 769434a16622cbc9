//! Which requests are polls, which of them ask the same, and how fresh they want it.

use http::header::{CACHE_CONTROL, PRAGMA, VARY};
use http::{HeaderMap, HeaderName, Method};

use crate::exchange::{Origin, RequestParts, headers};

/// What is asked, and by whom: digests, so that no credential and no URL is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Job {
    /// The caller and the upstream: what a refused credential loses.
    pub(super) holder: Holder,
    /// The question: route, upstream, path, query, and every field that may select an answer.
    pub(super) question: [u8; 32],
}

/// A digest of a caller and an upstream.
pub(super) type Holder = [u8; 32];

/// How fresh an answer a poll wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    /// Any that the route allows.
    Any,
    /// One that the upstream gives to this very request.
    Fresh,
    /// As fresh, and remembered by nobody.
    Unkept,
}

/// Whether a request asks and does nothing else: no body, no key, no other protocol.
pub(super) fn is_poll(request: &RequestParts) -> bool {
    request.method == Method::GET
        && request.body.is_empty()
        && request.wishes.identity.is_none()
        && !request.wants_upgrade
}

impl Job {
    /// What a request asks under the route of this name.
    pub(super) fn of(route: &str, request: &RequestParts) -> Self {
        let holder = holder(&request.origin, &request.caller);
        let mut hasher = blake3::Hasher::new();
        frame(&mut hasher, route.as_bytes());
        frame(&mut hasher, &holder);
        frame(&mut hasher, request.path.as_str().as_bytes());
        for (name, value) in selecting(&request.headers) {
            frame(&mut hasher, name.as_str().as_bytes());
            frame(&mut hasher, value);
        }
        Self { holder, question: *hasher.finalize().as_bytes() }
    }
}

impl Wants {
    /// What a request says about it (RFC 9111, sections 5.2.1 and 5.4).
    pub(super) fn of(fields: &HeaderMap) -> Self {
        let says = |word: &str| headers::tokens(fields, &CACHE_CONTROL).any(|token| token == word);
        let pragma = || {
            !fields.contains_key(CACHE_CONTROL)
                && headers::tokens(fields, &PRAGMA).any(|token| token == "no-cache")
        };
        if says("no-store") {
            Self::Unkept
        } else if says("no-cache") || says("max-age=0") || pragma() {
            Self::Fresh
        } else {
            Self::Any
        }
    }
}

/// Whether an answer may differ with a field that polls are not told apart by.
pub(super) fn varies_beyond(fields: &HeaderMap) -> bool {
    headers::tokens(fields, &VARY).any(|name| name == "*" || is_noise(&name))
}

/// Who asks, and where.
pub(super) fn holder(origin: &Origin, caller: &[u8; 32]) -> Holder {
    let mut hasher = blake3::Hasher::new();
    frame(&mut hasher, origin.scheme.as_str().as_bytes());
    frame(&mut hasher, origin.host.as_bytes());
    frame(&mut hasher, &origin.port.to_be_bytes());
    frame(&mut hasher, caller);
    *hasher.finalize().as_bytes()
}

/// All lines of the fields that may select an answer, sorted by name: a map has no
/// order to rely on. Credentials are among them, whatever the route's `principal`: an
/// answer goes to whoever shows what the one before showed.
fn selecting(fields: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &[u8])> {
    let mut names: Vec<_> = fields.keys().filter(|name| !is_noise(name.as_str())).collect();
    names.sort_unstable_by_key(|name| name.as_str());
    let lines = |name| fields.get_all(name).iter().map(move |line| (name, line.as_bytes()));
    names.into_iter().flat_map(lines)
}

/// Framed by its length, so that no two lists of parts make the same bytes.
fn frame(hasher: &mut blake3::Hasher, part: &[u8]) {
    hasher.update(&(part.len() as u64).to_be_bytes());
    hasher.update(part);
}

/// Whether a field is another with each request and selects no answer. What is not
/// known to be noise makes another poll: the price of a doubt is one request more.
fn is_noise(name: &str) -> bool {
    // How long a client waits decides how long its exchange goes on.
    let sdk = name.starts_with("x-stainless-") && !name.ends_with("timeout");
    sdk || name.starts_with("x-b3-") || NOISE.contains(&name)
}

/// How fresh it is to be, who asks with which program, and what the request is called
/// in logs and traces.
const NOISE: [&str; 15] = [
    "cache-control",
    "pragma",
    "user-agent",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "uber-trace-id",
    "sentry-trace",
    "x-request-id",
    "request-id",
    "x-correlation-id",
    "correlation-id",
    "x-client-request-id",
    "idempotency-key",
];

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::uri::PathAndQuery;

    use super::*;
    use crate::exchange::tests::{full, headers as fields, request};
    use crate::exchange::{Body, Request};

    fn poll(lines: &[(&'static str, &str)]) -> Request {
        let mut poll = request(Method::GET, Body::empty());
        poll.headers = fields(lines);
        poll
    }

    #[test]
    fn polls_that_differ_in_what_may_select_an_answer_are_others() {
        let same = poll(&[("accept", "a"), ("authorization", "x")]);
        let job = Job::of("r", &same);
        for lines in [
            &[("authorization", "x"), ("accept", "a")][..],
            &[("accept", "a"), ("authorization", "x"), ("user-agent", "u"), ("x-request-id", "1")],
            &[("accept", "a"), ("authorization", "x"), ("x-stainless-retry-count", "1")],
            &[("accept", "a"), ("authorization", "x"), ("cache-control", "no-cache")],
            &[("accept", "a"), ("authorization", "x"), ("traceparent", "t"), ("x-b3-spanid", "1")],
        ] {
            assert_eq!(Job::of("r", &poll(lines)), job, "{lines:?}");
        }
        for lines in [
            &[("accept", "b"), ("authorization", "x")][..],
            &[("accept", "a")],
            &[("accept", "a"), ("authorization", "y")],
            &[("accept", "a"), ("authorization", "x"), ("range", "bytes=0-1")],
            &[("accept", "a"), ("authorization", "x"), ("if-none-match", "e")],
            &[("accept", "a"), ("accept", "a"), ("authorization", "x")],
            &[("accept", "aa"), ("authorization", "x")],
            &[("accept", "a"), ("authorization", "x"), ("x-of-their-own", "1")],
            &[("accept", "a"), ("authorization", "x"), ("x-stainless-timeout", "1")],
        ] {
            assert_ne!(Job::of("r", &poll(lines)), job, "{lines:?}");
        }
        let other = |change: fn(&mut RequestParts)| {
            let mut other = poll(&[("accept", "a"), ("authorization", "x")]);
            change(&mut other);
            Job::of("r", &other)
        };
        assert_ne!(Job::of("q", &same), job, "another route");
        assert_ne!(other(|it| it.path = PathAndQuery::from_static("/v1/jobs?a")), job);
        let callers = other(|it| it.caller = [8; 32]);
        let ports = other(|it| it.origin = Origin::parse("https://api.test:444").expect("one"));
        let plain = other(|it| it.origin = Origin::parse("http://api.test:443").expect("one"));
        for other in [callers, ports, plain] {
            assert!(other.holder != job.holder && other.question != job.question);
        }
    }

    #[test]
    fn what_asks_and_does_nothing_else_is_a_poll() {
        assert!(is_poll(&poll(&[])));
        let other = |change: fn(&mut RequestParts)| {
            let mut other = poll(&[]);
            change(&mut other);
            is_poll(&other)
        };
        assert!(!other(|it| it.method = Method::HEAD));
        assert!(!other(|it| it.method = Method::POST));
        assert!(!other(|it| it.body = full("x")));
        assert!(!other(|it| it.wants_upgrade = true));
        assert!(!other(|it| it.wishes.identity = Some(HeaderValue::from_static("k"))));
    }

    #[test]
    fn a_client_says_how_fresh_it_wants_its_answer() {
        for (lines, wanted) in [
            (&[][..], Wants::Any),
            (&[("cache-control", "max-age=60")], Wants::Any),
            (&[("cache-control", "No-Cache")], Wants::Fresh),
            (&[("cache-control", "max-age=0, no-transform")], Wants::Fresh),
            (&[("pragma", "no-cache")], Wants::Fresh),
            (&[("pragma", "no-cache"), ("cache-control", "max-age=9")], Wants::Any),
            (&[("cache-control", "no-cache"), ("cache-control", "no-store")], Wants::Unkept),
        ] {
            assert_eq!(Wants::of(&fields(lines)), wanted, "{lines:?}");
        }
    }

    #[test]
    fn an_answer_that_varies_with_noise_or_all_is_nobody_elses() {
        for (vary, beyond) in
            [("*", true), ("Accept, User-Agent", true), ("Accept-Encoding, Origin", false)]
        {
            assert_eq!(varies_beyond(&fields(&[("vary", vary)])), beyond, "{vary}");
        }
    }
}
