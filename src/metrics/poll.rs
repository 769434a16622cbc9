//! The metrics of one route's polls.

use prometheus::{IntCounter, Registry};

use crate::metrics::Metrics;
use crate::metrics::family::{Counters, Series, counters};

/// The metrics of one route's polls; a clone shares them.
#[derive(Clone, Debug)]
pub struct PollMetrics(Series<Vec<IntCounter>>);

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
    /// The metrics of one route's polls; its series come with the first of them.
    pub fn polls(&self, route: &str) -> PollMetrics {
        let (polls, route) = (self.inner.polls.clone(), route.to_owned());
        let each = move |event| polls.with_label_values(&[route.as_str(), event]);
        PollMetrics(Series::new(move || EVENTS.into_iter().map(each).collect()))
    }
}

impl PollMetrics {
    /// Shows the series, though nothing has been counted yet.
    pub fn show(&self) {
        self.0.get();
    }

    /// Counts a poll; on a route that only observes, where its answer would have come from.
    pub fn count(&self, event: PollEvent) {
        if let Some(counter) = self.0.get().get(event as usize) {
            counter.inc();
        }
    }
}

pub(super) fn family(registry: &Registry) -> Counters {
    let help = "Polls, by where their answer came from; where the route observes, would have.";
    counters(registry, "polls_total", help, &["route", "event"])
}

const EVENTS: [&str; 4] = ["sent", "joined", "stored", "terminal"];
