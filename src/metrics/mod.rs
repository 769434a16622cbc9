//! Every metric: one file a topic, as handles that features are given.
//!
//! Labels come from the config or from closed sets, never from traffic. A
//! feature holds the handle of its route, looked up once: counting is one
//! relaxed addition.

mod connection;
mod credit;
mod event;
mod family;
mod handshake;
mod inbox;
mod lookup;
mod poll;
mod process;
mod resume;
mod route;
mod spans;
mod store;
mod system;
mod text;
mod unknown;

use std::sync::Arc;

use dashmap::DashMap;
use prometheus::{IntGauge, Registry};

pub use credit::{Check, CreditMetrics, Found};
pub use event::{Asked, Fit, KeyEvent, Reason, Source};
use family::Counters;
pub use handshake::Handshake;
pub use inbox::{InboxEvent, InboxMetrics};
pub use lookup::{LookupMetrics, LookupResult};
pub use poll::{PollEvent, PollMetrics};
pub use resume::Resume;
pub use route::RouteMetrics;
pub use spans::{Dropped, SpanMetrics};
pub(crate) use store::{Operation, Timed};
pub use text::Format;
pub use unknown::Key as UnknownKey;

/// All metrics of a process; a clone shares them.
#[derive(Clone, Debug)]
pub struct Metrics {
    inner: Arc<Families>,
    routes: Arc<DashMap<String, RouteMetrics>>,
}

#[derive(Debug)]
struct Families {
    registry: Registry,
    routes: route::Families,
    unknowns: unknown::Families,
    polls: Counters,
    lookups: Counters,
    credit: credit::Families,
    inboxes: inbox::Families,
    spans: spans::Families,
    store: store::Families,
    connections: connection::Families,
    handshakes: Counters,
    process: process::Families,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers every family once.
    pub fn new() -> Self {
        let registry = Registry::new();
        system::register(&registry);
        let families = Families {
            routes: route::Families::new(&registry),
            unknowns: unknown::Families::new(&registry),
            polls: poll::family(&registry),
            lookups: lookup::family(&registry),
            credit: credit::Families::new(&registry),
            inboxes: inbox::Families::new(&registry),
            spans: spans::Families::new(&registry),
            store: store::Families::new(&registry),
            connections: connection::Families::new(&registry),
            handshakes: handshake::family(&registry),
            process: process::Families::new(&registry),
            registry,
        };
        Self { inner: Arc::new(families), routes: Arc::default() }
    }

    /// The text that any scraper reads.
    pub fn text(&self) -> String {
        self.text_as(Format::Text)
    }

    /// The same, as a scraper likes it best.
    pub fn text_as(&self, format: Format) -> String {
        text::write(&self.inner.registry.gather(), format)
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
}
