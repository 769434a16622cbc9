//! What money was spent, saved and held back, as far as routes ask after it.

use std::sync::Arc;

use prometheus::core::{AtomicF64, GenericCounterVec};
use prometheus::{Counter, IntCounter, IntGauge, IntGaugeVec, Registry};

use crate::metrics::family::{Counters, Series, amounts, counters, gauges};
use crate::metrics::{Metrics, Raised};

#[derive(Debug)]
pub(super) struct Families {
    cost: GenericCounterVec<AtomicF64>,
    pub(super) calls_saved: Counters,
    open: IntGaugeVec,
    checks: Counters,
}

/// What a route counts of money; a clone shares it.
#[derive(Clone, Debug)]
pub struct CreditMetrics {
    name: Arc<str>,
    series: Series<OfRoute>,
    checks: Counters,
}

#[derive(Debug)]
struct OfRoute {
    spent: Counter,
    saved: Counter,
    refused: Counter,
    calls_refused: IntCounter,
    open: IntGauge,
}

/// What was asked of the upstream before an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// What the credential has left.
    Preflight,
    /// What the effect will cost.
    Estimate,
}

/// What came of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The effect may go.
    Enough,
    /// There is too little left, or it costs too much.
    Short,
    /// Nothing: no answer, or none that says it.
    Failed,
}

impl Families {
    pub(super) fn new(registry: &Registry) -> Self {
        let calls = "Calls that were never made: answered again, or refused for want of credit.";
        let cost = "The cost of effects in the provider's unit, where a route captures it.";
        let checks = "Balances and estimates that were asked for, by what came of it.";
        Self {
            cost: amounts(registry, "cost_total", cost, &["route", "kind"]),
            calls_saved: counters(registry, "calls_saved_total", calls, &["route", "kind"]),
            open: gauges(
                registry,
                "breakers_open",
                "Credentials that are held back for want of credit.",
                &["route"],
            ),
            checks: counters(
                registry,
                "credit_checks_total",
                checks,
                &["route", "check", "result"],
            ),
        }
    }

    fn of_route(&self, route: &str) -> OfRoute {
        let cost = |kind| self.cost.with_label_values(&[route, kind]);
        OfRoute {
            spent: cost("spent"),
            saved: cost("saved"),
            refused: cost("refused"),
            calls_refused: self.calls_saved.with_label_values(&[route, "refused"]),
            open: self.open.with_label_values(&[route]),
        }
    }
}

impl Metrics {
    /// What a route counts of money; its series come with the first of it.
    pub fn credit(&self, route: &str) -> CreditMetrics {
        let (name, families): (Arc<str>, _) = (route.into(), self.inner.clone());
        let (route, checks) = (name.clone(), families.credit.checks.clone());
        let series = Series::new(move || families.credit.of_route(&route));
        CreditMetrics { name, series, checks }
    }
}

impl CreditMetrics {
    /// Shows the series, though nothing has been counted yet.
    pub fn show(&self) {
        self.series.get();
    }

    /// The route's name.
    pub fn route(&self) -> &str {
        &self.name
    }

    /// Adds what a fresh answer cost.
    pub fn spent(&self, cost: f64) {
        add(&self.series.get().spent, cost);
    }

    /// Adds what an answer that was given again would have cost.
    pub fn saved(&self, cost: f64) {
        add(&self.series.get().saved, cost);
    }

    /// Counts a call that was refused, and what it would have cost, where that is known.
    pub fn refused(&self, cost: Option<f64>) {
        self.series.get().calls_refused.inc();
        if let Some(cost) = cost {
            add(&self.series.get().refused, cost);
        }
    }

    /// Counts a breaker as open until the guard is dropped.
    pub fn breaker(&self) -> Raised {
        Raised::new(self.series.get().open.clone())
    }

    /// Counts a question that was asked before an effect.
    pub fn checked(&self, check: Check, found: Found) {
        let check = match check {
            Check::Preflight => "preflight",
            Check::Estimate => "estimate",
        };
        let found = match found {
            Found::Enough => "enough",
            Found::Short => "short",
            Found::Failed => "failed",
        };
        self.checks.with_label_values(&[self.route(), check, found]).inc();
    }
}

/// A counter only grows, and one nonsense number must not spoil it for good.
fn add(counter: &Counter, cost: f64) {
    if (0.0..=COST_MAX).contains(&cost) {
        counter.inc_by(cost);
    }
}

/// More than anything costs, and few enough that a float still counts in hundredths.
const COST_MAX: f64 = 1e12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_cost_is_added_up() {
        let metrics = Metrics::new();
        let credit = metrics.credit("r");
        for cost in [1.5, 0.25, 0.0, -1.0, f64::NAN, f64::INFINITY, COST_MAX * 1.1] {
            credit.spent(cost);
        }
        let text = metrics.text();
        assert!(text.contains("samekey_cost_total{kind=\"spent\",route=\"r\"} 1.75\n"), "{text}");
        credit.spent(COST_MAX);
        assert!(metrics.text().contains("{kind=\"spent\",route=\"r\"} 1000000000001.75\n"));
    }
}
