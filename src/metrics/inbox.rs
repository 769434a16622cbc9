//! What an inbox counts: deliveries that came, and what became of them.

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Registry};

use crate::metrics::Metrics;
use crate::metrics::family::{Counters, counters, gauges};

/// The families of all inboxes.
#[derive(Debug)]
pub(super) struct Families {
    events: Counters,
    waiting: IntGaugeVec,
}

/// The metrics of one route's inbox; a clone shares them.
#[derive(Clone, Debug)]
pub struct InboxMetrics {
    route: String,
    events: [IntCounter; 5],
    waiting: IntGauge,
}

/// What happened to a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InboxEvent {
    /// It was taken in and answered.
    Accepted,
    /// Its identity had come before: it was answered and dropped.
    Repeated,
    /// It was turned away, and nothing of it is kept.
    Refused,
    /// The application has it.
    Delivered,
    /// It was given up.
    Failed,
}

impl Families {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            events: counters(
                registry,
                "inbox_total",
                "Deliveries for applications, by what happened to them.",
                &["route", "event"],
            ),
            waiting: gauges(
                registry,
                "inbox_waiting",
                "Deliveries that the application has not got yet.",
                &["route"],
            ),
        }
    }
}

impl Metrics {
    /// The handle of one route's inbox.
    pub fn inbox(&self, route: &str) -> InboxMetrics {
        let families = &self.inner.inboxes;
        InboxMetrics {
            route: route.to_owned(),
            events: EVENTS.map(|event| families.events.with_label_values(&[route, event])),
            waiting: families.waiting.with_label_values(&[route]),
        }
    }
}

impl InboxMetrics {
    /// The route's name.
    pub fn route(&self) -> &str {
        &self.route
    }

    /// Counts what happened to a delivery.
    pub fn count(&self, event: InboxEvent) {
        if let Some(counter) = self.events.get(event as usize) {
            counter.inc();
        }
    }

    /// Shows how many wait.
    pub fn waiting(&self, count: u64) {
        self.waiting.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

const EVENTS: [&str; 5] = ["accepted", "repeated", "refused", "delivered", "failed"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_has_its_word_and_all_stand_at_zero_from_the_start() {
        let metrics = Metrics::new();
        let inbox = metrics.inbox("hooks");
        for (event, word) in [
            (InboxEvent::Accepted, "accepted"),
            (InboxEvent::Repeated, "repeated"),
            (InboxEvent::Refused, "refused"),
            (InboxEvent::Delivered, "delivered"),
            (InboxEvent::Failed, "failed"),
        ] {
            let line = format!(r#"samekey_inbox_total{{event="{word}",route="hooks"}}"#);
            assert!(metrics.text().contains(&format!("{line} 0")), "{word}");
            inbox.count(event);
            assert!(metrics.text().contains(&format!("{line} 1")), "{word}");
        }
        inbox.waiting(3);
        assert!(metrics.text().contains(r#"samekey_inbox_waiting{route="hooks"} 3"#));
    }
}
