//! How a family is made: a valid name, registered once; and the series of one route in it.

use std::fmt;
use std::sync::{Arc, LazyLock};

use prometheus::core::{AtomicF64, AtomicU64, GenericCounterVec};
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntGauge, IntGaugeVec, Opts, Registry};

/// Counters of one family, by their labels.
pub(super) type Counters = GenericCounterVec<AtomicU64>;

/// What one route counts in a family: its series stand there from the first use on, or from
/// when they are shown. A clone shares them.
pub(super) struct Series<T>(Arc<LazyLock<T, Make<T>>>);

type Make<T> = Box<dyn FnOnce() -> T + Send>;

impl<T> Series<T> {
    pub(super) fn new(make: impl FnOnce() -> T + Send + 'static) -> Self {
        Self(Arc::new(LazyLock::new(Box::new(make))))
    }

    /// The series; made now, if they are not there.
    pub(super) fn get(&self) -> &T {
        &self.0
    }
}

impl<T> Clone for Series<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for Series<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Series")
    }
}

pub(super) fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Counters {
    let made = Counters::new(opts(name, help), labels).expect("our metric names are valid");
    registry.register(Box::new(made.clone())).expect("each family is registered once");
    made
}

/// A family without labels: it is its one counter.
pub(super) fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    counters(registry, name, help, &[]).with_label_values::<&str>(&[])
}

/// Counters of what is not whole: money.
pub(super) fn amounts(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> GenericCounterVec<AtomicF64> {
    let made = GenericCounterVec::new(opts(name, help), labels);
    let made = made.expect("our metric names are valid");
    registry.register(Box::new(made.clone())).expect("each family is registered once");
    made
}

pub(super) fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let made = IntGaugeVec::new(opts(name, help), labels).expect("our metric names are valid");
    registry.register(Box::new(made.clone())).expect("each family is registered once");
    made
}

pub(super) fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    let made = IntGauge::with_opts(opts(name, help)).expect("our metric names are valid");
    registry.register(Box::new(made.clone())).expect("each family is registered once");
    made
}

pub(super) fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> HistogramVec {
    let opts = HistogramOpts::from(opts(name, help)).buckets(BUCKETS.to_vec());
    let made = HistogramVec::new(opts, labels).expect("our metric names are valid");
    registry.register(Box::new(made.clone())).expect("each family is registered once");
    made
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("samekey_{name}"), help)
}

/// From a replay out of memory to a video that takes its time.
const BUCKETS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0,
    300.0,
];
