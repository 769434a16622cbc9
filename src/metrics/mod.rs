//! Every metric on one page, as handles that features are given.
//!
//! Labels come from the config or from closed sets, never from traffic. A
//! feature holds the handle of its route, looked up once: counting is one
//! relaxed addition.

mod credit;
mod family;
mod handshake;
mod inbox;
mod lookup;
mod poll;
mod resume;
mod route;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dashmap::DashMap;
use prometheus::{
    Encoder as _, HistogramVec, IntCounter, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

pub use credit::{Check, CreditMetrics, Found};
use family::{counters, gauge, gauges, histograms};
pub use handshake::Handshake;
pub use inbox::{InboxEvent, InboxMetrics};
pub use lookup::{LookupMetrics, LookupResult};
pub use poll::{PollEvent, PollMetrics};
pub use resume::Resume;
pub use route::{Asked, Fit, KeyEvent, Reason, RouteMetrics, Source};

/// All metrics of a process; a clone shares them.
#[derive(Clone, Debug)]
pub struct Metrics {
    inner: Arc<Families>,
    routes: Arc<DashMap<String, RouteMetrics>>,
}

#[derive(Debug)]
struct Families {
    registry: Registry,
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
    polls: Counters,
    schema: Counters,
    lookups: Counters,
    store_entries: IntGauge,
    store_bytes: IntGauge,
    store_seconds: HistogramVec,
    store_errors: Counters,
    pauses: Counters,
    limit_wait: HistogramVec,
    inflight: IntGaugeVec,
    connections: IntGaugeVec,
    connections_total: Counters,
    tunnels: IntCounter,
    tunnel_bytes: Counters,
    handshakes: Counters,
    minted: IntCounter,
    minted_told: AtomicU64,
    reloads: Counters,
    loaded: IntGauge,
    inboxes: inbox::Inboxes,
    credit: credit::Families,
}

type Counters = family::Counters;

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers every family once.
    #[expect(clippy::too_many_lines, reason = "a list: every family, with its help and its labels")]
    pub fn new() -> Self {
        let registry = Registry::new();
        let families = Families {
            exchanges: counters(
                &registry,
                "exchanges_total",
                "Exchanges that ended.",
                &["route", "method", "status", "source"],
            ),
            duration: histograms(
                &registry,
                "exchange_duration_seconds",
                "From the request's head to the answer's last byte.",
                &["route"],
            ),
            attempts: counters(
                &registry,
                "attempts_total",
                "Sendings upstream, by what came of them.",
                &["route", "outcome"],
            ),
            retries: counters(
                &registry,
                "retries_total",
                "Attempts after the first, by what made them necessary.",
                &["route", "reason"],
            ),
            stopped: counters(
                &registry,
                "retry_stopped_total",
                "Retryable responses that were passed on, by why.",
                &["route", "reason"],
            ),
            recovered: counters(
                &registry,
                "retry_recovered_total",
                "Exchanges whose first attempt failed and whose answer was good.",
                &["route"],
            ),
            resumes: counters(
                &registry,
                "resumes_total",
                "Downloads that broke off, by whether they went on.",
                &["route", "result"],
            ),
            wait: histograms(
                &registry,
                "retry_wait_seconds",
                "Waits before retries, by who asked for them.",
                &["route", "source"],
            ),
            tokens: gauges(
                &registry,
                "retry_budget_tokens",
                "Whole retries that the route may make now.",
                &["route"],
            ),
            idempotency: counters(
                &registry,
                "idempotency_total",
                "What happened to keys.",
                &["route", "event"],
            ),
            polls: poll::family(&registry),
            schema: counters(
                &registry,
                "schema_total",
                "Request bodies that a route's schema was asked about.",
                &["route", "result"],
            ),
            lookups: lookup::family(&registry),
            store_entries: gauge(&registry, "store_entries", "Keys in the store."),
            store_bytes: gauge(&registry, "store_bytes", "Bytes in the store."),
            store_seconds: histograms(
                &registry,
                "store_operation_seconds",
                "Time that store operations took.",
                &["operation"],
            ),
            store_errors: counters(
                &registry,
                "store_errors_total",
                "Store operations that failed.",
                &["operation"],
            ),
            pauses: counters(
                &registry,
                "pauses_total",
                "Pauses that upstreams asked for.",
                &["route"],
            ),
            limit_wait: histograms(
                &registry,
                "limit_wait_seconds",
                "Time that attempts waited for a pause, a slot or a rate.",
                &["route"],
            ),
            inflight: gauges(
                &registry,
                "inflight_exchanges",
                "Exchanges whose answer has not ended.",
                &["route"],
            ),
            connections: gauges(
                &registry,
                "connections",
                "Client connections that are open.",
                &["listener"],
            ),
            connections_total: counters(
                &registry,
                "connections_total",
                "Client connections that were accepted.",
                &["listener"],
            ),
            tunnels: counters(&registry, "tunnels_total", "Tunnels that were opened.", &[])
                .with_label_values::<&str>(&[]),
            tunnel_bytes: counters(
                &registry,
                "tunnel_bytes_total",
                "Bytes through tunnels: up is to the upstream.",
                &["direction"],
            ),
            handshakes: counters(
                &registry,
                "tls_handshakes_total",
                "TLS handshakes, by side and result.",
                &["side", "result"],
            ),
            minted_told: AtomicU64::new(0),
            minted: counters(
                &registry,
                "certificates_minted_total",
                "Leaf certificates that were made.",
                &[],
            )
            .with_label_values::<&str>(&[]),
            reloads: counters(
                &registry,
                "config_reloads_total",
                "Reloads of the config, by result.",
                &["result"],
            ),
            loaded: gauge(
                &registry,
                "config_loaded_timestamp_seconds",
                "When the config in force was loaded.",
            ),
            inboxes: inbox::Inboxes::new(&registry),
            credit: credit::Families::register(&registry),
            registry,
        };
        let build =
            gauges(&families.registry, "build_info", "The version that runs.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        // Series that alerts watch stand at zero from the start.
        for result in ["ok", "failed"] {
            families.reloads.with_label_values(&[result]);
        }
        for direction in ["up", "down"] {
            families.tunnel_bytes.with_label_values(&[direction]);
        }
        for (side, result) in SIDES.iter().flat_map(|side| HANDSHAKES.map(|result| (side, result)))
        {
            families.handshakes.with_label_values(&[*side, result]);
        }
        for operation in TIMED {
            families.store_seconds.with_label_values(&[operation]);
        }
        for operation in OPERATIONS {
            families.store_errors.with_label_values(&[operation]);
        }
        Self { inner: Arc::new(families), routes: Arc::default() }
    }

    /// The text that Prometheus reads.
    pub fn text(&self) -> String {
        let mut text = Vec::new();
        // Encoding into memory fails only on a malformed family, and ours are fixed.
        drop(TextEncoder::new().encode(&self.inner.registry.gather(), &mut text));
        String::from_utf8(text).unwrap_or_default()
    }

    /// The handle of one route, which shows at once; the same for the same name.
    pub fn route(&self, name: &str) -> RouteMetrics {
        let route = self.route_once_used(name);
        route.show();
        route
    }

    /// The same of a route that is shown once it counts something: most of those that
    /// nobody asked for never do.
    pub fn route_once_used(&self, name: &str) -> RouteMetrics {
        if let Some(found) = self.routes.get(name) {
            return found.clone();
        }
        let made = RouteMetrics::new(self.inner.clone(), name);
        self.routes.entry(name.to_owned()).or_insert(made).clone()
    }

    /// Counts a client connection until the guard is dropped.
    pub fn connection(&self, listener: &str) -> Raised {
        self.inner.connections_total.with_label_values(&[listener]).inc();
        Raised::new(self.inner.connections.with_label_values(&[listener]))
    }

    /// Counts a tunnel that was opened.
    pub fn tunnel(&self) {
        self.inner.tunnels.inc();
    }

    /// The counters of bytes through tunnels: up, then down.
    pub fn tunnel_bytes(&self) -> (IntCounter, IntCounter) {
        let of = |direction| self.inner.tunnel_bytes.with_label_values(&[direction]);
        (of("up"), of("down"))
    }

    /// Counts leaf certificates up to `total`.
    pub fn minted(&self, total: u64) {
        // Of two that tell at once, each counts only what nobody told before.
        let told = self.inner.minted_told.fetch_max(total, Ordering::Relaxed);
        self.inner.minted.inc_by(total.saturating_sub(told));
    }

    /// Notes a config that is in force from `now` on.
    pub fn config_loaded(&self, now: SystemTime) {
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
        self.inner.loaded.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// Counts a reload.
    pub fn config_reloaded<T, E>(&self, loaded: &Result<T, E>) {
        let result = if loaded.is_ok() { "ok" } else { "failed" };
        self.inner.reloads.with_label_values(&[result]).inc();
    }

    /// Shows how full the store is.
    pub fn store_size(&self, entries: u64, bytes: u64) {
        self.inner.store_entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
        self.inner.store_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Notes how long a store operation took.
    pub fn store_operation(&self, operation: &str, took: Duration) {
        self.inner.store_seconds.with_label_values(&[operation]).observe(took.as_secs_f64());
    }

    /// Counts a store operation that failed.
    pub fn store_error(&self, operation: &str) {
        self.inner.store_errors.with_label_values(&[operation]).inc();
    }
}

/// Holds a gauge one higher for as long as it lives.
#[derive(Debug)]
pub struct Raised(IntGauge);

impl Raised {
    pub(crate) fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.0.dec();
    }
}

const SIDES: [&str; 2] = ["client", "upstream"];
const HANDSHAKES: [&str; 4] = ["ok", "distrusted", "reset", "other"];
/// What the store is asked for on the way of an exchange.
const TIMED: [&str; 3] = ["reserve", "resume", "settle"];
/// What can fail: those, what goes on beside exchanges, and what other replicas are asked.
const OPERATIONS: [&str; 16] = [
    "reserve",
    "resume",
    "settle",
    "sweep",
    "ledger",
    "shared_reserve",
    "shared_peek",
    "shared_resume",
    "shared_identify",
    "shared_settle",
    "shared_holds",
    "shared_forget",
    "shared_resolve",
    "shared_impose",
    "shared_rate",
    "shared_pause",
];

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};

    use super::*;

    #[test]
    fn labels_come_from_closed_sets() {
        let metrics = Metrics::new();
        let route = metrics.route("r");
        let odd = Method::from_bytes(b"BREW").expect("a method");
        route.exchange(&odd, None, Source::Local);
        route.exchange(&Method::GET, StatusCode::from_u16(799).ok(), Source::Stored);
        let text = metrics.text();
        for line in [
            r#"samekey_exchanges_total{method="OTHER",route="r",source="local",status="failed"} 1"#,
            r#"samekey_exchanges_total{method="GET",route="r",source="stored",status="failed"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_route_that_is_shown_once_used_has_no_series_before() {
        let metrics = Metrics::new();
        let route = metrics.route_once_used("seldom");
        route.budget(7);
        assert!(!metrics.text().contains("seldom"));
        route.recovered();
        metrics.route_once_used("seldom").budget(7);
        for line in [r#"recovered_total{route="seldom"} 1"#, r#"budget_tokens{route="seldom"} 7"#] {
            assert!(metrics.text().contains(line), "{line}");
        }
        metrics.route("often");
        assert!(metrics.text().contains(r#"recovered_total{route="often"} 0"#));
    }

    #[test]
    fn a_gauge_falls_when_its_guard_goes() {
        let metrics = Metrics::new();
        let raised = metrics.connection("l");
        assert!(metrics.text().contains(r#"samekey_connections{listener="l"} 1"#));
        drop(raised);
        assert!(metrics.text().contains(r#"samekey_connections{listener="l"} 0"#));
    }
}
