//! Spans, attribute by attribute.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::exchange::id::ExchangeId;
use crate::exchange::traceparent::{SpanId as OurSpan, TraceId as OurTrace};
use crate::exchange::trail::{Attempt, KeyNote, Notes};
use crate::metrics::Metrics;
use crate::trace::heard::Heard;
use crate::trace::queue::tests::{Kept, limits};

const WHEN: SystemTime = SystemTime::UNIX_EPOCH;

fn context(span: u8) -> TraceContext {
    let trace = OurTrace::new([1; 16]).expect("no zeros");
    TraceContext::new(trace, OurSpan::new([span; 8]).expect("no zeros"))
}

fn subject(method: Method, parent: Option<TraceContext>) -> Subject {
    Subject {
        queue: Queue::new(Kept::default(), Heard::default(), limits(8, 8), Metrics::new().spans()),
        scope: InstrumentationScope::builder("samekey").build(),
        method,
        route: "jobs".to_owned(),
        origin: Origin::parse("https://api.test:8443").expect("an origin"),
        target: PathAndQuery::from_static("/v1/jobs?sig=s3cret"),
        parent,
        state: TraceState::NONE,
        began: WHEN,
    }
}

fn sending(result: Result<StatusCode, &'static str>, resent: u32) -> Sending {
    Sending {
        context: context(3),
        parent: context(2).span,
        resent,
        began: WHEN,
        ended: WHEN + Duration::from_millis(5),
        version: Some(Version::HTTP_2),
        result,
        outcome: Some(Outcome::Failed),
        waited: Duration::from_millis(40),
    }
}

fn said(span: &SpanData) -> BTreeMap<&str, String> {
    let pairs = span.attributes.iter();
    pairs.map(|said| (said.key.as_str(), said.value.to_string())).collect()
}

#[test]
fn what_is_an_error_depends_on_whose_span_it_is() {
    for (status, client, server) in [
        (200, false, false),
        (304, false, false),
        (404, true, false),
        (429, true, false),
        (500, true, true),
        (503, true, true),
    ] {
        let status = StatusCode::from_u16(status).expect("a status");
        let subject = subject(Method::GET, None);
        let attempt = subject.of_attempt(&sending(Ok(status), 0));
        let notes = Notes::default();
        let over = Over {
            notes: &notes,
            status: Some(status),
            failed: None,
            source: "upstream",
            body: Some(BodyEnd::Whole),
            took: Duration::from_secs(1),
        };
        let exchange = subject.of_exchange(context(2), &over);
        for (span, wanted) in [(&attempt, client), (&exchange, server)] {
            assert_eq!(span.status == error(), wanted, "{status}: {span:?}");
            let kind = said(span).remove("error.type");
            assert_eq!(kind, wanted.then(|| status.as_str().to_owned()));
        }
    }
}

#[test]
fn only_a_retry_says_which_it_is() {
    let subject = subject(Method::POST, None);
    let first = subject.of_attempt(&sending(Err("connection_refused"), 0));
    let second = subject.of_attempt(&sending(Ok(StatusCode::OK), 2));
    let (first_said, second_said) = (said(&first), said(&second));
    assert_eq!(first_said.get("http.request.resend_count"), None);
    assert_eq!(first_said["error.type"], "connection_refused");
    assert_eq!(second_said["http.request.resend_count"], "2");
    assert_eq!(second_said["samekey.wait_ms"], "40");
    assert_eq!(second_said["url.full"], "https://api.test:8443/v1/jobs?sig=REDACTED");
    assert_eq!(second_said["network.protocol.version"], "2");
    assert_eq!((first.span_kind, first.name.as_ref()), (SpanKind::Client, "POST jobs"));
    assert_eq!(first.parent_span_id, SpanId::from_bytes([2; 8]));
    assert_eq!(first.end_time, WHEN + Duration::from_millis(5));
}

#[test]
fn an_exchange_says_what_the_log_says_and_no_key() {
    let attempt = Attempt {
        outcome: Outcome::Ambiguous,
        status: None,
        did_nothing: false,
        waited: Duration::ZERO,
        at: WHEN,
    };
    let notes = Notes {
        attempts: vec![attempt, attempt],
        exchange: Some(ExchangeId::from_parts(1, 2)),
        stop: Some(Stop::Budget),
        key: Some(http::HeaderValue::from_static("the-key")),
        key_note: Some(KeyNote { source: "client", digest: "0badf00d".to_owned() }),
        captured: vec![("request_id".to_owned(), "captured".to_owned())],
        end: Some(End::Unknown),
        guarded: Guarded::Alone,
        ..Notes::default()
    };
    let over = Over {
        notes: &notes,
        status: Some(StatusCode::BAD_GATEWAY),
        failed: Some("upstream-protocol"),
        source: "local",
        body: Some(BodyEnd::Broken),
        took: Duration::from_secs(1),
    };
    let span = subject(Method::POST, Some(context(9))).of_exchange(context(2), &over);
    let said = said(&span);
    for (name, wanted) in [
        ("samekey.outcomes", "[\"ambiguous\",\"ambiguous\"]"),
        ("samekey.exchange", "000000000000100000002"),
        ("samekey.stop", "budget"),
        ("samekey.key_source", "client"),
        ("samekey.claim", "unknown"),
        ("samekey.guarded", "by this replica alone"),
        ("samekey.source", "local"),
        ("samekey.delivered", "false"),
        ("error.type", "upstream-protocol"),
        ("http.response.status_code", "502"),
        ("url.path", "/v1/jobs"),
    ] {
        assert_eq!(said.get(name).map(String::as_str), Some(wanted), "{name}");
    }
    let everything = format!("{span:?}");
    for secret in ["the-key", "0badf00d", "captured", "s3cret"] {
        assert!(!everything.contains(secret), "{secret} in {everything}");
    }
    assert_eq!(span.parent_span_id, SpanId::from_bytes([9; 8]));
    assert!(span.parent_span_is_remote && span.status == error());
    assert_eq!(span.end_time, WHEN + Duration::from_secs(1));
}

#[test]
fn of_many_attempts_an_exchange_tells_how_the_last_went() {
    let attempt = Attempt {
        outcome: Outcome::Done,
        status: None,
        did_nothing: false,
        waited: Duration::ZERO,
        at: WHEN,
    };
    for (count, wanted) in [(63, 63), (64, 64), (65, 64)] {
        let mut attempts = vec![Attempt { outcome: Outcome::Ambiguous, ..attempt }];
        attempts.resize(count, attempt);
        let notes = Notes { attempts, ..Notes::default() };
        let over = Over {
            notes: &notes,
            status: Some(StatusCode::OK),
            failed: None,
            source: "upstream",
            body: Some(BodyEnd::Whole),
            took: Duration::ZERO,
        };
        let span = subject(Method::GET, None).of_exchange(context(2), &over);
        let outcomes = said(&span).remove("samekey.outcomes").expect("they are told");
        assert_eq!(outcomes.split(',').count(), wanted);
        assert_eq!(outcomes.contains("ambiguous"), count == wanted, "the first is left out");
    }
}

#[test]
fn a_client_that_left_is_no_error() {
    let notes = Notes::default();
    let over = Over {
        notes: &notes,
        status: None,
        failed: None,
        source: "local",
        body: None,
        took: Duration::ZERO,
    };
    let span = subject(Method::GET, None).of_exchange(context(2), &over);
    assert_eq!((&span.status, span.parent_span_id), (&Status::Unset, SpanId::INVALID));
    assert_eq!(said(&span).get("http.response.status_code"), None);
}

#[test]
fn names_are_few_whatever_is_asked() {
    for (method, wanted) in [("GET", "GET r"), ("BREW", "HTTP r"), ("get", "HTTP r")] {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        assert_eq!(name(&method, "r"), wanted);
    }
}
