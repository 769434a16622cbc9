//! The metrics of one route's polls.

use prometheus::{IntCounter, Registry};

use crate::metrics::Metrics;
use crate::metrics::family::{Counters, counters};

/// The metrics of one route's polls; a clone shares them.
#[derive(Clone, Debug)]
pub struct PollMetrics(Vec<IntCounter>);

/// Where the answer to a poll came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollEvent {
    /// The upstream was asked.
    Sent,
    /// A poll that was under way.
    Joined,
    /// The last answer, since the next would have come too soon.
    Stored,
    /// The answer that said that the job is over.
    Over,
}

impl Metrics {
    /// The metrics of one route's polls.
    pub fn polls(&self, route: &str) -> PollMetrics {
        let polls = &self.inner.polls;
        PollMetrics(EVENTS.map(|event| polls.with_label_values(&[route, event])).to_vec())
    }
}

impl PollMetrics {
    /// Counts a poll; on a route that only observes, where its answer would have come from.
    pub fn count(&self, event: PollEvent) {
        if let Some(counter) = self.0.get(event as usize) {
            counter.inc();
        }
    }
}

pub(super) fn family(registry: &Registry) -> Counters {
    let help = "Polls, by where their answer came from; where the route observes, would have.";
    counters(registry, "polls_total", help, &["route", "event"])
}

const EVENTS: [&str; 4] = ["sent", "joined", "stored", "terminal"];
