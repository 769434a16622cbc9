//! How full the store is, and how it does.

use std::time::Duration;

use prometheus::{HistogramVec, IntGauge, Registry};

use crate::metrics::Metrics;
use crate::metrics::family::{Counters, counters, gauge, histograms};

/// What the store is asked for on the way of an exchange, and is timed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timed {
    /// A key is claimed.
    Reserve,
    /// An unknown key is claimed again.
    Resume,
    /// The end of an exchange is written.
    Settle,
}

/// What can fail. No list of them is made, and they are used for nothing else: the compiler
/// warns of one that nothing counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A key is claimed.
    Reserve,
    /// An unknown key is claimed again.
    Resume,
    /// The end of an exchange is written; one that is owed counts once.
    Settle,
    /// What is past its time is dropped.
    Sweep,
    /// An exchange without a claim is noted.
    Ledger,
    /// What a provider said of an unknown key is written.
    Conclude,
    /// Unknown outcomes are counted.
    Unknowns,
    /// What follows is asked of what replicas share.
    SharedReserve,
    SharedPeek,
    SharedResume,
    SharedIdentify,
    SharedSettle,
    SharedHolds,
    SharedForget,
    SharedResolve,
    SharedImpose,
    SharedRate,
    SharedPause,
}

impl Timed {
    fn as_str(self) -> &'static str {
        TIMED.get(self as usize).copied().expect("each has a name")
    }
}

impl Operation {
    fn as_str(self) -> &'static str {
        OPERATIONS.get(self as usize).copied().expect("each has a name")
    }
}

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
    pub(crate) fn store_operation(&self, operation: Timed, took: Duration) {
        let seconds = &self.inner.store.seconds;
        seconds.with_label_values(&[operation.as_str()]).observe(took.as_secs_f64());
    }

    /// Counts a store operation that failed.
    pub(crate) fn store_error(&self, operation: Operation) {
        self.inner.store.errors.with_label_values(&[operation.as_str()]).inc();
    }
}

/// Their names, in their order.
const TIMED: [&str; 3] = ["reserve", "resume", "settle"];
/// The same of what can fail.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_has_its_own_name() {
        let mut seen = Vec::new();
        for operation in [
            Operation::Reserve,
            Operation::Resume,
            Operation::Settle,
            Operation::Sweep,
            Operation::Ledger,
            Operation::Conclude,
            Operation::Unknowns,
            Operation::SharedReserve,
            Operation::SharedPeek,
            Operation::SharedResume,
            Operation::SharedIdentify,
            Operation::SharedSettle,
            Operation::SharedHolds,
            Operation::SharedForget,
            Operation::SharedResolve,
            Operation::SharedImpose,
            Operation::SharedRate,
            Operation::SharedPause,
        ] {
            let words = format!("{operation:?}").to_lowercase();
            assert_eq!(operation.as_str().replace('_', ""), words);
            seen.push(operation.as_str());
        }
        assert_eq!(seen, OPERATIONS, "and there is no name without one");
        let timed = [Timed::Reserve, Timed::Resume, Timed::Settle].map(Timed::as_str);
        assert_eq!(timed, TIMED);
    }
}
