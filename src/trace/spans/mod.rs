//! The spans of one exchange, by the semantic conventions for HTTP (stable, 1.23 and later).

use std::borrow::Cow;
use std::time::SystemTime;

use http::uri::PathAndQuery;
use http::{Method, StatusCode, Version};
use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Array, InstrumentationScope, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::exchange::body::BodyEnd;
use crate::exchange::traced::{Over, Sending, Spans};
use crate::exchange::traceparent::TraceContext;
use crate::exchange::trail::{End, Guarded, Stop};
use crate::exchange::{Origin, Outcome};
use crate::trace::queue::Queue;
use crate::trace::url;

/// What the spans of an exchange have in common, and where they go.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) queue: Queue,
    pub(super) scope: InstrumentationScope,
    pub(super) method: Method,
    pub(super) route: String,
    pub(super) origin: Origin,
    pub(super) target: PathAndQuery,
    /// The client's span, where it named one.
    pub(super) parent: Option<TraceContext>,
    pub(super) state: TraceState,
    pub(super) began: SystemTime,
}

impl Spans for Subject {
    fn attempt(&self, sending: &Sending) {
        self.queue.push(self.of_attempt(sending));
    }

    fn exchange(&self, context: TraceContext, over: &Over<'_>) {
        self.queue.push(self.of_exchange(context, over));
    }
}

impl Subject {
    /// One attempt: a CLIENT span that ends with the head of the answer.
    fn of_attempt(&self, sending: &Sending) -> SpanData {
        let mut attributes = vec![
            KeyValue::new("url.full", url::full(&self.origin, &self.target)),
            KeyValue::new("server.address", url::host(&self.origin)),
            KeyValue::new("server.port", i64::from(self.origin.port)),
        ];
        self.say_common(&mut attributes);
        if sending.resent > 0 {
            attributes.push(KeyValue::new("http.request.resend_count", i64::from(sending.resent)));
            attributes.push(KeyValue::new("samekey.wait_ms", millis(sending.waited)));
        }
        if let Some(version) = sending.version {
            let version = if version == Version::HTTP_2 { "2" } else { "1.1" };
            attributes.push(KeyValue::new("network.protocol.version", version));
        }
        if let Some(outcome) = sending.outcome.map(Outcome::as_str) {
            attributes.push(KeyValue::new("samekey.outcome", outcome));
        }
        let is_error = |status: StatusCode| status.is_client_error() || status.is_server_error();
        let status = say_result(&mut attributes, sending.result, is_error);
        SpanData {
            parent_span_id: SpanId::from_bytes(sending.parent.bytes()),
            parent_span_is_remote: false,
            end_time: sending.ended,
            start_time: sending.began,
            ..self.span(sending.context, SpanKind::Client, (attributes, status))
        }
    }

    /// The exchange: a SERVER span that ends with the last byte of the answer.
    fn of_exchange(&self, context: TraceContext, over: &Over<'_>) -> SpanData {
        let mut attributes = vec![
            KeyValue::new("url.path", url::path(&self.target)),
            KeyValue::new("server.address", url::host(&self.origin)),
            KeyValue::new("server.port", i64::from(self.origin.port)),
        ];
        self.say_common(&mut attributes);
        say_notes(&mut attributes, over);
        let status = match (over.status, over.failed) {
            // The client left: that is no fault of whoever would have answered.
            (None, _) => Status::Unset,
            (Some(status), Some(failed)) => {
                attributes.push(KeyValue::new("http.response.status_code", number(status)));
                attributes.push(KeyValue::new("error.type", failed));
                if status.is_server_error() { error() } else { Status::Unset }
            }
            (Some(status), None) => {
                say_result(&mut attributes, Ok(status), |status| status.is_server_error())
            }
        };
        SpanData {
            parent_span_id: self
                .parent
                .map_or(SpanId::INVALID, |parent| SpanId::from_bytes(parent.span.bytes())),
            parent_span_is_remote: self.parent.is_some(),
            links: links(over.notes.joined),
            end_time: self.began + over.took,
            start_time: self.began,
            ..self.span(context, SpanKind::Server, (attributes, status))
        }
    }

    fn say_common(&self, attributes: &mut Vec<KeyValue>) {
        attributes.push(KeyValue::new("http.request.method", known(&self.method)));
        attributes.push(KeyValue::new("url.scheme", self.origin.scheme.as_str()));
        attributes.push(KeyValue::new("samekey.route", self.route.clone()));
    }

    fn span(
        &self,
        context: TraceContext,
        kind: SpanKind,
        (attributes, status): (Vec<KeyValue>, Status),
    ) -> SpanData {
        SpanData {
            span_context: span_context(context, self.state.clone(), Side::Own),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: kind,
            name: Cow::Owned(name(&self.method, &self.route)),
            start_time: self.began,
            end_time: self.began,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status,
            instrumentation_scope: self.scope.clone(),
        }
    }
}

/// What the stages noted, in the words of the log line; never the key, nor what identified it.
fn say_notes(attributes: &mut Vec<KeyValue>, over: &Over<'_>) {
    let notes = over.notes;
    let mut say = |name, value: Option<&'static str>| {
        attributes.extend(value.map(|value| KeyValue::new(name, value)));
    };
    say("samekey.source", Some(over.source));
    say("samekey.stop", notes.stop.map(Stop::as_str));
    say("samekey.key_source", notes.key_note.as_ref().map(|note| note.source));
    say("samekey.claim", notes.end.map(claim));
    say("samekey.resume", notes.resume);
    say("samekey.guarded", (notes.guarded == Guarded::Alone).then_some("by this replica alone"));
    let last = notes.attempts.iter().skip(notes.attempts.len().saturating_sub(OUTCOMES_MAX));
    let outcomes = last.map(|attempt| attempt.outcome.as_str());
    let outcomes: Vec<StringValue> = outcomes.map(StringValue::from).collect();
    if !outcomes.is_empty() {
        attributes.push(KeyValue::new("samekey.outcomes", Value::Array(Array::String(outcomes))));
    }
    if let Some(exchange) = notes.exchange {
        attributes.push(KeyValue::new("samekey.exchange", exchange.to_string()));
    }
    attributes.push(KeyValue::new("samekey.delivered", over.body == Some(BodyEnd::Whole)));
}

/// To the exchange whose answer this one got.
fn links(joined: Option<TraceContext>) -> SpanLinks {
    let mut links = SpanLinks::default();
    let context = joined.map(|joined| span_context(joined, TraceState::NONE, Side::Own));
    links.links.extend(context.map(Link::with_context));
    links
}

/// How the exchange's claim ended, in the words of the ledger.
fn claim(end: End) -> &'static str {
    match end {
        End::Completed => "completed",
        End::NotRetained => "not_retained",
        End::Released => "released",
        End::Unknown => "unknown",
    }
}

/// Says a status or what went wrong, and whether that is an error.
fn say_result(
    attributes: &mut Vec<KeyValue>,
    result: Result<StatusCode, &'static str>,
    is_error: impl Fn(StatusCode) -> bool,
) -> Status {
    match result {
        Ok(status) => {
            attributes.push(KeyValue::new("http.response.status_code", number(status)));
            if !is_error(status) {
                return Status::Unset;
            }
            attributes.push(KeyValue::new("error.type", status.as_str().to_owned()));
        }
        Err(kind) => attributes.push(KeyValue::new("error.type", kind)),
    }
    error()
}

fn error() -> Status {
    Status::Error { description: Cow::Borrowed("") }
}

fn number(status: StatusCode) -> i64 {
    i64::from(status.as_u16())
}

fn millis(wait: std::time::Duration) -> i64 {
    i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)
}

/// What the spans are called: few names, whatever is asked.
pub(super) fn name(method: &Method, route: &str) -> String {
    match known(method) {
        OTHER => format!("HTTP {route}"),
        known => format!("{known} {route}"),
    }
}

/// A method that everybody knows: others could be anything.
fn known(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] =
        ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or(OTHER)
}

const OTHER: &str = "_OTHER";
/// A poll may be tried for as long as its deadline lasts; each attempt has a span of its own too.
const OUTCOMES_MAX: usize = 64;

/// Whose span a context names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Own,
    Client,
}

/// A context, in the words of the SDK.
pub(super) fn span_context(context: TraceContext, state: TraceState, side: Side) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(context.trace.bytes()),
        SpanId::from_bytes(context.span.bytes()),
        TraceFlags::new(context.flags()),
        side == Side::Client,
        state,
    )
}

#[cfg(test)]
mod tests;
