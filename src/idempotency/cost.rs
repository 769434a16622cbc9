//! What answers cost, where a route captures it: an id by the name of `cost`.

use http::StatusCode;

use crate::exchange::Outcome;
use crate::exchange::trail::{End, Trail};
use crate::idempotency::terms::Shared;

/// An id of this name is what the effect cost, in the provider's unit.
pub const COST: &str = "cost";

/// Counts what a good and fresh answer cost.
///
/// An answer that the upstream itself gave again costs nothing, unless the sending that it
/// answers was one of this exchange's own, whose answer was lost.
pub(super) fn spent(
    shared: &Shared,
    (end, status): (End, Option<StatusCode>),
    (trail, ambiguous_before): (&Trail, bool),
    captured: &[(String, String)],
) {
    let Some(metrics) = &shared.terms.cost else { return };
    let good = matches!(end, End::Completed | End::NotRetained)
        && status.is_some_and(|status| status.is_success());
    let Some(cost) = cost(captured).filter(|_| good) else { return };
    let replayed = trail.with(|notes| match notes.attempts.as_slice() {
        [only] => only.outcome == Outcome::Replayed && !ambiguous_before,
        _ => false,
    });
    if replayed {
        metrics.saved(cost);
    } else {
        metrics.spent(cost);
    }
}

/// Counts what an answer that is given again would have cost.
pub(super) fn saved(shared: &Shared, captured: &[(String, String)]) {
    if let (Some(metrics), Some(cost)) = (&shared.terms.cost, cost(captured)) {
        metrics.saved(cost);
    }
}

fn cost(captured: &[(String, String)]) -> Option<f64> {
    let (_, cost) = captured.iter().find(|(name, _)| name == COST)?;
    cost.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::exchange::trail::Attempt;
    use crate::idempotency::tests::{rules, shared};
    use crate::metrics::Metrics;

    /// What is counted as spent and as saved.
    fn check(
        (end, status): (End, u16),
        outcomes: &[Outcome],
        ambiguous_before: bool,
        wanted: (&str, &str),
    ) {
        let (metrics, trail) = (Metrics::new(), Trail::default());
        let mut shared = shared(rules());
        let credit = metrics.credit("r");
        credit.show();
        shared.terms.cost = Some(credit);
        for outcome in outcomes {
            let attempt = Attempt {
                outcome: *outcome,
                status: None,
                did_nothing: false,
                waited: Duration::ZERO,
                at: SystemTime::now(),
            };
            trail.with(|notes| notes.attempts.push(attempt));
        }
        let captured = [("id".to_owned(), "9".to_owned()), (COST.to_owned(), "2.5".to_owned())];
        let status = StatusCode::from_u16(status).ok();
        spent(&shared, (end, status), (&trail, ambiguous_before), &captured);
        let text = metrics.text();
        let value = |kind| {
            let series = format!("samekey_cost_total{{kind=\"{kind}\",route=\"r\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&series)).expect("it is there")
        };
        let counted = (value("spent"), value("saved"));
        assert_eq!(counted, wanted, "{end:?} {outcomes:?} {ambiguous_before}");
    }

    #[test]
    fn a_cost_is_spent_once_however_often_it_is_asked() {
        use Outcome::{Ambiguous, Done, Replayed};
        let (spent, saved, nothing) = (("2.5", "0"), ("0", "2.5"), ("0", "0"));
        check((End::Completed, 201), &[Done], false, spent);
        check((End::NotRetained, 200), &[Ambiguous, Done], false, spent);
        check((End::Completed, 200), &[Replayed], false, saved);
        check((End::Completed, 200), &[Replayed], true, spent);
        check((End::Completed, 200), &[Ambiguous, Replayed], false, spent);
        check((End::Released, 200), &[Done], false, nothing);
        check((End::Unknown, 200), &[Done], false, nothing);
        check((End::NotRetained, 303), &[Done], false, nothing);
    }

    #[test]
    fn what_is_no_number_costs_nothing() {
        for (text, wanted) in [("2.5", Some(2.5)), ("many", None), ("", None)] {
            assert_eq!(cost(&[(COST.to_owned(), text.to_owned())]), wanted, "{text}");
        }
        assert_eq!(cost(&[]), None);
    }
}
