//! How full the store is, and how it does.

use std::time::Duration;

use prometheus::{HistogramVec, IntGauge, Registry};

use crate::metrics::Metrics;
use crate::metrics::family::{Counters, counters, gauge, histograms};

#[derive(Debug)]
pub(super) struct Families {
    entries: IntGauge,
    bytes: IntGauge,
    bytes_max: IntGauge,
    seconds: HistogramVec,
    errors: Counters,
}

impl Families {
    pub(super) fn new(registry: &Registry) -> Self {
        let seconds = "Time that store operations took.";
        let errors = "Store operations that failed.";
        let families = Self {
            entries: gauge(registry, "store_entries", "Keys in the store."),
            bytes: gauge(registry, "store_bytes", "Bytes in the store."),
            bytes_max: gauge(registry, "store_max_bytes", "Bytes that the store may hold."),
            seconds: histograms(registry, "store_operation_seconds", seconds, &["operation"]),
            errors: counters(registry, "store_errors_total", errors, &["operation"]),
        };
        for operation in TIMED {
            families.seconds.with_label_values(&[operation]);
        }
        for operation in OPERATIONS {
            families.errors.with_label_values(&[operation]);
        }
        families
    }
}

impl Metrics {
    /// Shows how full the store is.
    pub fn store_size(&self, entries: u64, bytes: u64) {
        self.inner.store.entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
        self.inner.store.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Shows how much the store may hold.
    pub fn store_max(&self, bytes: u64) {
        self.inner.store.bytes_max.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Notes how long a store operation took.
    pub fn store_operation(&self, operation: &str, took: Duration) {
        self.inner.store.seconds.with_label_values(&[operation]).observe(took.as_secs_f64());
    }

    /// Counts a store operation that failed.
    pub fn store_error(&self, operation: &str) {
        self.inner.store.errors.with_label_values(&[operation]).inc();
    }
}

/// What the store is asked for on the way of an exchange.
const TIMED: [&str; 3] = ["reserve", "resume", "settle"];
/// What can fail: those, what goes on beside exchanges, and what other replicas are asked.
const OPERATIONS: [&str; 18] = [
    "reserve",
    "resume",
    "settle",
    "sweep",
    "ledger",
    "conclude",
    "unknowns",
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
