//! The end of an exchange: what its answer says about it, what is counted, what is logged.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode, Uri};
use tokio::time::Instant;

use crate::exchange::body::{Body, BodyEnd, Upload, Watcher};
use crate::exchange::traced::Over;
use crate::exchange::traceparent::{TraceContext, TraceId};
use crate::exchange::trail::{Answered, Guarded, Notes, Presence, Replay, Stop, Trail};
use crate::exchange::{Failure, Origin, Request, Response, Shape, Traced, answer};
use crate::idempotency::store::{self, About};
use crate::journal::State;
use crate::journal::moment::micros;
use crate::metrics::{Raised, RouteMetrics, Source};
use crate::proxy::{Proxy, close, local};

/// Goes with an exchange from its request's head to its answer's last byte; what
/// is known when it is dropped is counted and logged.
#[derive(Debug)]
pub(super) struct Finish {
    route: RouteMetrics,
    method: Method,
    aim: Option<Aim>,
    began: Instant,
    trail: Trail,
    client: Presence,
    /// Whether a route matched: then the answer says what was done.
    routed: bool,
    status: Option<StatusCode>,
    /// The slug of an answer that was made here.
    failed: Option<&'static str>,
    source: Source,
    end: Option<BodyEnd>,
    traced: Option<Traced>,
    /// For the log: the trace that the client is in, whoever records it.
    trace: Option<TraceId>,
    _in_flight: Raised,
}

impl Finish {
    pub(super) fn new(
        route: RouteMetrics,
        method: Method,
        trail: Trail,
        client: Presence,
        routed: bool,
    ) -> Self {
        let in_flight = route.in_flight();
        Self {
            route,
            method,
            aim: None,
            began: Instant::now(),
            trail,
            client,
            routed,
            status: None,
            failed: None,
            source: Source::Local,
            end: None,
            traced: None,
            trace: None,
            _in_flight: in_flight,
        }
    }

    /// Notes where the exchange goes, for the log, and for the ledger where it is retried.
    pub(super) fn aimed_at(&mut self, origin: &Origin, target: &Uri, proxy: &Proxy) {
        let target = target.path_and_query().cloned();
        self.aim = Some(Aim { origin: origin.clone(), target, proxy: proxy.clone() });
    }

    /// Notes the trace that the exchange is part of, by who traces it or else by its client.
    pub(super) fn part_of(&mut self, traced: Option<Traced>, headers: &HeaderMap) {
        self.trace = match &traced {
            Some(traced) => Some(traced.trace()),
            None if tracing::enabled!(tracing::Level::INFO) => {
                TraceContext::of(headers).map(|context| context.trace)
            }
            None => None,
        };
        self.traced = traced;
    }

    /// An exchange without a key has a row of the ledger where it was retried.
    fn note_retried(&self, notes: &mut Notes) {
        let Some(aim) = self.aim.as_ref().filter(|_| self.routed && !notes.keyed) else { return };
        if notes.attempts.len() < 2 {
            return;
        }
        let commons = &aim.proxy.inner.commons;
        let exchange = *notes.exchange.get_or_insert_with(|| commons.names.next());
        let about = About {
            route: self.route.name().to_owned(),
            method: self.method.clone(),
            url: aim.url(),
            captured: Vec::new(),
        };
        let mut began = commons.store.now();
        began.wall -= micros(self.began.elapsed());
        // What broke off on its way was no answer, whatever its head said.
        let good = self.status.is_some_and(|status| !is_error(status))
            && self.end != Some(BodyEnd::Broken);
        let state = if good { State::Completed } else { State::Failed };
        let row = store::row(exchange, "", &about, began);
        commons.note(store::note(row, state, &notes.attempts, &[]));
    }

    /// What its span is made of.
    fn over<'a>(&self, notes: &'a Notes, took: Duration) -> Over<'a> {
        let (status, failed, source) = (self.status, self.failed, self.source.as_str());
        Over { notes, status, failed, source, body: self.end, took }
    }

    /// The answer as the client gets it; its body carries this to its last byte.
    pub(super) fn answer(
        mut self,
        result: Result<Response, Failure>,
        unread: &Unread,
        shape: &Shape,
    ) -> http::Response<Body> {
        let (mut response, made_here) = match result {
            Ok(response) => (response, false),
            Err(failure) => {
                self.failed = Some(answer::problem(&failure).slug);
                (self.trail.with(|notes| local(&failure, notes.attempts.len(), shape)), true)
            }
        };
        self.trail.with(|notes| {
            self.source = match (notes.replay, made_here) {
                (Some(Replay::Stored), _) => Source::Stored,
                (Some(Replay::Joined), _) => Source::Joined,
                (Some(Replay::Adopted), _) => Source::Adopted,
                (None, true) => Source::Local,
                (None, false) if notes.answered == Answered::Here => Source::Local,
                (None, false) => Source::Upstream,
            };
            if self.routed {
                explain(&mut response, notes);
            }
        });
        if made_here && unread.is_too_much() {
            close(&mut response.headers);
        }
        self.status = Some(response.status);
        let mut answer = http::Response::new(response.body.watched(self));
        *answer.status_mut() = response.status;
        *answer.headers_mut() = response.headers;
        answer
    }
}

/// Where an exchange goes, and who keeps the ledger.
#[derive(Debug)]
struct Aim {
    origin: Origin,
    target: Option<PathAndQuery>,
    proxy: Proxy,
}

impl Aim {
    /// The URL as the ledger shows it.
    fn url(&self) -> String {
        let target = self.target.as_ref();
        let path = target.map_or("/", PathAndQuery::path);
        store::url(&self.origin, path, target.and_then(PathAndQuery::query))
    }
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// What of a request's body may still be to come when it is answered here.
#[derive(Debug, Default)]
pub(super) struct Unread {
    upload: Option<Arc<Upload>>,
    length: Option<u64>,
}

impl Unread {
    pub(super) fn of(request: &Request) -> Self {
        Self { upload: request.upload.clone(), length: request.body.length() }
    }

    /// Whether the rest is more than the connection is worth: a short one is read
    /// past, and the connection stays.
    fn is_too_much(&self) -> bool {
        let coming = self.upload.as_ref().is_some_and(|upload| !upload.is_complete());
        coming && self.length.is_none_or(|length| length > READ_PAST_MAX)
    }
}

/// The server reads this much ahead anyway.
const READ_PAST_MAX: u64 = 64 * 1024;

impl Watcher for Finish {
    fn ended(&mut self, end: BodyEnd) {
        self.end = Some(end);
        if end != BodyEnd::Whole {
            self.client.leave();
        }
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.client.leave(); // it hung up before there was an answer
        }
        self.route.exchange(&self.method, self.status, self.source);
        let took = self.began.elapsed();
        self.route.took(took);
        self.trail.with(|notes| self.note_retried(notes));
        if let Some(traced) = &self.traced {
            self.trail.with(|notes| traced.ended(&self.over(notes, took)));
        }
        if !tracing::enabled!(tracing::Level::INFO) {
            return;
        }
        self.trail.with(|notes| {
            let waited: Duration = notes.attempts.iter().map(|attempt| attempt.waited).sum();
            let outcomes: Vec<&str> =
                notes.attempts.iter().map(|attempt| attempt.outcome.as_str()).collect();
            let alone = notes.guarded == Guarded::Alone;
            tracing::info!(
                route = self.route.name(),
                exchange = notes.exchange.map(tracing::field::display),
                trace_id = self.trace.map(tracing::field::display),
                method = %self.method,
                host = self.aim.as_ref().map_or("", |aim| &*aim.origin.host),
                status = self.status.map_or(0, |status| status.as_u16()),
                code = self.failed.map(answer::code),
                delivered = self.end == Some(BodyEnd::Whole),
                attempts = notes.attempts.len(),
                outcomes = outcomes.join(","),
                wait_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
                took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                stop = notes.stop.map(Stop::as_str),
                replay = notes.replay.map(Replay::as_str),
                resume = notes.resume,
                key_source = notes.key_note.as_ref().map(|note| note.source),
                guarded = alone.then_some("by this replica alone"),
                key_digest = notes.key_note.as_ref().map(|note| note.digest.as_str()),
                "exchange"
            );
        });
    }
}

/// Says in the answer's fields what was done for it: `design.md`, section 4.3.
fn explain(response: &mut Response, notes: &Notes) {
    let headers = &mut response.headers;
    let attempts = if notes.replay.is_some() { 0 } else { notes.attempts.len() };
    headers.insert(ATTEMPTS, small(attempts));
    if let Some(stop) = notes.stop {
        headers.insert(STOP, HeaderValue::from_static(stop.as_str()));
        if gives_up(stop, notes.never_dedupes) {
            answer::stop_words(headers);
        }
    }
    if let Some(replay) = notes.replay {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
        headers.insert(REPLAY, HeaderValue::from_static(replay.as_str()));
    }
    if let Some(key) = &notes.key {
        headers.insert(KEY, key.clone());
    }
}

/// Few exchanges take more attempts than have a word ready.
fn small(attempts: usize) -> HeaderValue {
    const WORDS: [&str; 6] = ["0", "1", "2", "3", "4", "5"];
    let word = WORDS.get(attempts).copied().map(HeaderValue::from_static);
    word.unwrap_or_else(|| HeaderValue::from(attempts))
}

/// Whether the client's own retry would only start over what was given up.
fn gives_up(stop: Stop, never_dedupes: bool) -> bool {
    match stop {
        Stop::Attempts
        | Stop::Deadline
        | Stop::Budget
        | Stop::RetryAfter
        | Stop::UpstreamSaidNo => true,
        Stop::Unsafe => never_dedupes,
        Stop::Body | Stop::Permanent | Stop::Signed | Stop::Off => false,
    }
}

const ATTEMPTS: HeaderName = HeaderName::from_static("samekey-attempts");
const STOP: HeaderName = HeaderName::from_static("samekey-stop");
const REPLAY: HeaderName = HeaderName::from_static("samekey-replay");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
