//! How often providers were asked what became of a key, and what that came to.

use prometheus::{IntCounter, Registry};

use crate::metrics::Metrics;
use crate::metrics::family::{Counters, Series, counters};

/// Lookups of one route, by what came of them; a clone shares them.
#[derive(Clone, Debug)]
pub struct LookupMetrics(Series<Vec<IntCounter>>);

/// What one reading of a provider's list came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupResult {
    /// The key was found.
    Found,
    /// All was read, and the key was not there.
    Absent,
    /// What was read proves nothing.
    Inconclusive,
    /// It could not be read.
    Failed,
}

impl Metrics {
    /// The handle of one route's lookups; its series come with the first of them.
    pub fn lookups(&self, route: &str) -> LookupMetrics {
        let (family, route) = (self.inner.lookups.clone(), route.to_owned());
        let each = move |result| family.with_label_values(&[route.as_str(), result]);
        LookupMetrics(Series::new(move || RESULTS.into_iter().map(each).collect()))
    }
}

impl LookupMetrics {
    /// Shows the series, though nothing has been counted yet.
    pub fn show(&self) {
        self.0.get();
    }

    /// Counts a reading.
    pub fn count(&self, result: LookupResult) {
        if let Some(counter) = self.0.get().get(result as usize) {
            counter.inc();
        }
    }
}

pub(super) fn family(registry: &Registry) -> Counters {
    let help = "Readings of a provider's list for a key whose outcome was unknown.";
    counters(registry, "lookups_total", help, &["route", "result"])
}

const RESULTS: [&str; 4] = ["found", "absent", "inconclusive", "failed"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_result_has_its_own_count() {
        let metrics = Metrics::new();
        let lookups = metrics.lookups("r");
        assert!(!metrics.text().contains("lookups_total{"), "nothing was looked up yet");
        for result in [LookupResult::Found, LookupResult::Failed, LookupResult::Failed] {
            lookups.count(result);
        }
        let text = metrics.text();
        for (result, count) in [("found", 1), ("absent", 0), ("inconclusive", 0), ("failed", 2)] {
            let line = format!("samekey_lookups_total{{result=\"{result}\",route=\"r\"}} {count}");
            assert!(text.contains(&line), "{text}");
        }
    }
}
