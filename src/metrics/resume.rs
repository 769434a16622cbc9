//! What became of downloads that broke off: one counter a result.

use prometheus::IntCounter;

use crate::metrics::RouteMetrics;
use crate::metrics::family::Counters;

/// How a try to go on with a download ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The rest was accepted.
    Resumed,
    /// Another representation stood there by then.
    Changed,
    /// Nothing proved that the rest belongs to what had come.
    Refused,
    /// Attempts, time or budget were used up.
    GaveUp,
}

impl Resume {
    /// The word in the `result` label and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resumed => "resumed",
            Self::Changed => "changed",
            Self::Refused => "refused",
            Self::GaveUp => "gave_up",
        }
    }
}

/// The counters of one route.
#[derive(Debug)]
pub(super) struct Resumes(Vec<IntCounter>);

impl Resumes {
    pub(super) fn of_route(family: &Counters, route: &str) -> Self {
        let each = |result: Resume| family.with_label_values(&[route, result.as_str()]);
        Self(RESULTS.into_iter().map(each).collect())
    }
}

impl RouteMetrics {
    /// Counts a download that broke off and went on, or did not.
    pub fn resume(&self, result: Resume) {
        if let Some(counter) = self.inner.resumes.0.get(result as usize) {
            counter.inc();
        }
    }
}

/// In the order of their declaration.
const RESULTS: [Resume; 4] = [Resume::Resumed, Resume::Changed, Resume::Refused, Resume::GaveUp];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn every_result_stands_at_zero_and_counts_for_itself() {
        let metrics = Metrics::new();
        let route = metrics.route("r");
        for result in RESULTS {
            let series = |count: u32| {
                let result = result.as_str();
                format!(r#"samekey_resumes_total{{result="{result}",route="r"}} {count}"#)
            };
            assert!(metrics.text().contains(&series(0)), "{}", series(0));
            route.resume(result);
            assert!(metrics.text().contains(&series(1)), "{}", series(1));
        }
    }
}
