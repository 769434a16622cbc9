//! What became of the spans that were made.

use prometheus::{IntCounter, Registry};

use crate::metrics::Metrics;
use crate::metrics::family::{Counters, Series, counters};

/// Spans by what became of them; a clone shares them.
#[derive(Clone, Debug)]
pub struct SpanMetrics {
    exported: Series<IntCounter>,
    dropped: Series<Vec<IntCounter>>,
}

/// Why a span was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Too many waited to be exported.
    QueueFull,
    /// The collector did not take it.
    Refused,
    /// The process ended before it was exported.
    Shutdown,
}

/// Both families.
#[derive(Debug)]
pub(super) struct Families {
    exported: Counters,
    dropped: Counters,
}

impl Families {
    pub(super) fn new(registry: &Registry) -> Self {
        let exported = "Spans that the collector took.";
        let dropped = "Spans that were lost, by reason.";
        Self {
            exported: counters(registry, "spans_exported_total", exported, &[]),
            dropped: counters(registry, "spans_dropped_total", dropped, &["reason"]),
        }
    }
}

impl Metrics {
    /// The handle of the exporter; its series are there once one is shown.
    pub fn spans(&self) -> SpanMetrics {
        let (exported, dropped) = (self.inner.clone(), self.inner.clone());
        SpanMetrics {
            exported: Series::new(move || exported.spans.exported.with_label_values::<&str>(&[])),
            dropped: Series::new(move || {
                let family = &dropped.spans.dropped;
                REASONS.iter().map(|reason| family.with_label_values(&[*reason])).collect()
            }),
        }
    }
}

impl SpanMetrics {
    /// Shows the series, though nothing has been counted yet.
    pub fn show(&self) {
        self.exported.get();
        self.dropped.get();
    }

    /// Counts spans that the collector took.
    pub fn exported(&self, spans: usize) {
        self.exported.get().inc_by(u64::try_from(spans).unwrap_or(u64::MAX));
    }

    /// Counts spans that were lost.
    pub fn dropped(&self, reason: Dropped, spans: usize) {
        if let Some(counter) = self.dropped.get().get(reason as usize) {
            counter.inc_by(u64::try_from(spans).unwrap_or(u64::MAX));
        }
    }
}

const REASONS: [&str; 3] = ["queue_full", "refused", "shutdown"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fate_has_its_own_count() {
        let metrics = Metrics::new();
        let spans = metrics.spans();
        assert!(!metrics.text().contains("samekey_spans_"), "nobody traces");
        spans.show();
        spans.exported(3);
        spans.dropped(Dropped::Refused, 2);
        let text = metrics.text();
        for line in [
            "samekey_spans_exported_total 3",
            "samekey_spans_dropped_total{reason=\"queue_full\"} 0",
            "samekey_spans_dropped_total{reason=\"refused\"} 2",
            "samekey_spans_dropped_total{reason=\"shutdown\"} 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
