//! The metrics of one route, looked up once and then only counted.

use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use http::{Method, StatusCode};
use prometheus::{Histogram, HistogramVec, IntCounter, IntGauge, IntGaugeVec, Registry};

use crate::metrics::Raised;
use crate::metrics::event::{Asked, Fit, KeyEvent, Reason, Source};
use crate::metrics::family::{Counters, counters, gauges, histograms};
use crate::metrics::resume::Resumes;

/// The metrics of one route; a clone shares them.
#[derive(Clone, Debug)]
pub struct RouteMetrics {
    name: Arc<str>,
    /// Made when it is first counted on, and with it all series of the route.
    pub(super) inner: Arc<LazyLock<OfRoute, Make>>,
}

type Make = Box<dyn FnOnce() -> OfRoute + Send>;

#[derive(Debug)]
pub(super) struct OfRoute {
    name: Arc<str>,
    family: Counters,
    exchanges: Vec<OnceLock<IntCounter>>,
    attempts: Vec<IntCounter>,
    stopped: Vec<IntCounter>,
    retries: Vec<IntCounter>,
    idempotency: Vec<IntCounter>,
    /// By its results: few routes have one.
    schema: Counters,
    recovered: IntCounter,
    pub(super) resumes: Resumes,
    calls_saved: IntCounter,
    wait_backoff: Histogram,
    wait_server: Histogram,
    /// What one exchange took, from its head's arrival to its answer's last byte.
    duration: Histogram,
    tokens: IntGauge,
    pauses: IntCounter,
    limit_wait: Histogram,
    inflight: IntGauge,
}

#[derive(Debug)]
pub(super) struct Families {
    exchanges: Counters,
    duration: HistogramVec,
    attempts: Counters,
    retries: Counters,
    stopped: Counters,
    recovered: Counters,
    resumes: Counters,
    wait: HistogramVec,
    tokens: IntGaugeVec,
    idempotency: Counters,
    schema: Counters,
    pauses: Counters,
    limit_wait: HistogramVec,
    inflight: IntGaugeVec,
}

impl Families {
    pub(super) fn new(registry: &Registry) -> Self {
        let counted = |name, help, labels: &[&str]| {
            counters(registry, name, help, &[&["route"], labels].concat())
        };
        let timed = |name, help, labels: &[&str]| {
            histograms(registry, name, help, &[&["route"], labels].concat())
        };
        let levels = |name, help| gauges(registry, name, help, &["route"]);
        Self {
            exchanges: counted(
                "exchanges_total",
                "Exchanges that ended.",
                &["method", "status", "source"],
            ),
            duration: timed(
                "exchange_duration_seconds",
                "From the request's head to the answer's last byte.",
                &[],
            ),
            attempts: counted(
                "attempts_total",
                "Sendings upstream, by what came of them.",
                &["outcome"],
            ),
            retries: counted(
                "retries_total",
                "Attempts after the first, by what made them necessary.",
                &["reason"],
            ),
            stopped: counted(
                "retry_stopped_total",
                "Retryable responses that were passed on, by why.",
                &["reason"],
            ),
            recovered: counted(
                "retry_recovered_total",
                "Exchanges whose first attempt failed and whose answer was good.",
                &[],
            ),
            resumes: counted(
                "resumes_total",
                "Downloads that broke off, by whether they went on.",
                &["result"],
            ),
            wait: timed(
                "retry_wait_seconds",
                "Waits before retries, by who asked for them.",
                &["source"],
            ),
            tokens: levels("retry_budget_tokens", "Whole retries that the route may make now."),
            idempotency: counted("idempotency_total", "What happened to keys.", &["event"]),
            schema: counted(
                "schema_total",
                "Request bodies that a route's schema was asked about.",
                &["result"],
            ),
            pauses: counted("pauses_total", "Pauses that upstreams asked for.", &[]),
            limit_wait: timed(
                "limit_wait_seconds",
                "Time that attempts waited for a pause, a slot or a rate.",
                &[],
            ),
            inflight: levels("inflight_exchanges", "Exchanges whose answer has not ended."),
        }
    }
}

impl OfRoute {
    fn new(families: &super::Families, shared: &Arc<str>) -> Self {
        let (of, name): (_, &str) = (&families.routes, shared);
        let each = |family: &Counters, labels: &[&str]| -> Vec<IntCounter> {
            labels.iter().map(|label| family.with_label_values(&[name, *label])).collect()
        };
        families.unknowns.show(name);
        Self {
            name: shared.clone(),
            family: of.exchanges.clone(),
            exchanges: (0..METHODS.len() * STATUSES.len() * SOURCES.len())
                .map(|_| OnceLock::new())
                .collect(),
            attempts: each(&of.attempts, &OUTCOMES),
            stopped: each(&of.stopped, &STOPS),
            retries: each(&of.retries, &REASONS),
            idempotency: each(&of.idempotency, &EVENTS),
            schema: of.schema.clone(),
            recovered: of.recovered.with_label_values(&[name]),
            resumes: Resumes::of_route(&of.resumes, name),
            calls_saved: families.credit.calls_saved.with_label_values(&[name, "replayed"]),
            wait_backoff: of.wait.with_label_values(&[name, "backoff"]),
            wait_server: of.wait.with_label_values(&[name, "server"]),
            duration: of.duration.with_label_values(&[name]),
            tokens: of.tokens.with_label_values(&[name]),
            pauses: of.pauses.with_label_values(&[name]),
            limit_wait: of.limit_wait.with_label_values(&[name]),
            inflight: of.inflight.with_label_values(&[name]),
        }
    }
}

impl RouteMetrics {
    pub(super) fn new(families: Arc<super::Families>, name: &str) -> Self {
        let name: Arc<str> = name.into();
        let shared = name.clone();
        let make: Make = Box::new(move || OfRoute::new(&families, &shared));
        Self { name, inner: Arc::new(LazyLock::new(make)) }
    }

    /// Shows the route, though nothing has been counted yet.
    pub(super) fn show(&self) {
        LazyLock::force(&self.inner);
    }

    /// The route's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Counts an exchange that ended; `None` is one that got no answer at all.
    pub fn exchange(&self, method: &Method, status: Option<StatusCode>, source: Source) {
        let other = METHODS.len() - 1;
        let method = METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(other);
        let class = status.map_or(0, |status| usize::from(status.as_u16() / 100));
        let class = if class < STATUSES.len() { class } else { 0 };
        let source = source as usize;
        let cell = (method * STATUSES.len() + class) * SOURCES.len() + source;
        let Some(counter) = self.inner.exchanges.get(cell) else { return };
        let counter = counter.get_or_init(|| {
            let of =
                |labels: &[&'static str], at: usize| labels.get(at).copied().unwrap_or("other");
            self.inner.family.with_label_values(&[
                &*self.inner.name,
                of(&METHODS, method),
                of(&STATUSES, class),
                of(&SOURCES, source),
            ])
        });
        counter.inc();
    }

    /// Notes how long an exchange took.
    pub fn took(&self, duration: Duration) {
        self.inner.duration.observe(duration.as_secs_f64());
    }

    /// Counts an attempt by its outcome's word.
    pub fn attempt(&self, outcome: &'static str) {
        bump_named(&self.inner.attempts, &OUTCOMES, outcome);
    }

    /// Counts a retry that is about to wait, by what made it necessary and who asked for the wait.
    pub fn retry(&self, reason: Reason, wait: Duration, asked: Asked) {
        bump(&self.inner.retries, reason as usize);
        let histogram = match asked {
            Asked::Backoff => &self.inner.wait_backoff,
            Asked::Server => &self.inner.wait_server,
        };
        histogram.observe(wait.as_secs_f64());
    }

    /// Counts a retryable response that was passed on.
    pub fn stopped(&self, stop: &'static str) {
        bump_named(&self.inner.stopped, &STOPS, stop);
    }

    /// Counts an exchange that retrying saved.
    pub fn recovered(&self) {
        self.inner.recovered.inc();
    }

    /// Shows the route's budget, where the route is shown.
    pub fn budget(&self, tokens: u64) {
        if let Some(shown) = LazyLock::get(&self.inner) {
            shown.tokens.set(i64::try_from(tokens).unwrap_or(i64::MAX));
        }
    }

    /// Counts what happened to a key.
    pub fn key(&self, event: KeyEvent) {
        bump(&self.inner.idempotency, event as usize);
        if matches!(event, KeyEvent::Replayed | KeyEvent::Joined) {
            self.inner.calls_saved.inc();
        }
    }

    /// Counts a body that the route's schema was asked about.
    pub fn fitted(&self, fit: Fit) {
        let result = match fit {
            Fit::Fits => "fits",
            Fit::Misfits => "misfit",
            Fit::Unchecked => "unchecked",
        };
        self.inner.schema.with_label_values(&[&*self.name, result]).inc();
    }

    /// Counts a pause that an upstream asked for.
    pub fn paused(&self) {
        self.inner.pauses.inc();
    }

    /// Notes how long an attempt was held back.
    pub fn held_back(&self, wait: Duration) {
        self.inner.limit_wait.observe(wait.as_secs_f64());
    }

    /// Counts an exchange as in flight until the guard is dropped.
    pub fn in_flight(&self) -> Raised {
        Raised::new(self.inner.inflight.clone())
    }
}

fn bump(counters: &[IntCounter], at: usize) {
    if let Some(counter) = counters.get(at) {
        counter.inc();
    }
}

fn bump_named(counters: &[IntCounter], names: &[&str], name: &str) {
    let at = names.iter().position(|known| *known == name);
    debug_assert!(at.is_some(), "{name} is not a label of the closed set");
    bump(counters, at.unwrap_or(usize::MAX));
}

const METHODS: [&str; 10] =
    ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "OTHER"];
const STATUSES: [&str; 6] = ["failed", "1xx", "2xx", "3xx", "4xx", "5xx"];
const SOURCES: [&str; 5] = ["upstream", "stored", "joined", "adopted", "local"];
const REASONS: [&str; 5] = ["status_429", "status_5xx", "connect", "reset", "timeout"];
const EVENTS: [&str; 11] = [
    "injected",
    "client",
    "derived",
    "replayed",
    "joined",
    "adopted",
    "reused",
    "in_progress",
    "unknown",
    "recorded",
    "not_recorded",
];
const OUTCOMES: [&str; 7] =
    ["not_sent", "refused", "throttled", "failed", "ambiguous", "replayed", "done"];
const STOPS: [&str; 10] = [
    "attempts",
    "deadline",
    "budget",
    "unsafe",
    "body",
    "permanent",
    "retry-after",
    "upstream-said-no",
    "signed",
    "off",
];
