//! What `samekey explain` says of the money that a route may spend.

use http::StatusCode;
use samekey::credit::{BreakerRule, Estimate, OnFailure, Preflight};
use samekey::exchange::{Condition, Statuses};
use samekey::route::Route;

use crate::cli::explain::Line;
use crate::cli::polls::scalar;

/// A line for each thing that a route asks for before an effect goes out.
pub(super) fn lines(route: &Route) -> Vec<Line> {
    let rules = &route.credit;
    let breaker =
        rules.breaker.as_ref().map(|rule| ("credit breaker", breaker(rule), &["breaker"][..]));
    let preflight =
        rules.preflight.as_ref().map(|rule| ("balance", preflight(rule), &["preflight"][..]));
    let estimate =
        rules.estimate.as_ref().map(|rule| ("cost gate", estimate(rule), &["estimate"][..]));
    [breaker, preflight, estimate].into_iter().flatten().collect()
}

fn breaker(rule: &BreakerRule) -> String {
    let conditions = rule.when.iter().map(condition);
    let says: Vec<String> = statuses(rule.statuses).into_iter().chain(conditions).collect();
    let says = if says.is_empty() { "a low balance".to_owned() } else { says.join(" or ") };
    let after = rule.reset_after;
    format!("{says} refuses this credential's effects for {after:?}")
}

fn statuses(set: Statuses) -> Option<String> {
    let all = (400..600).filter_map(|status| StatusCode::from_u16(status).ok());
    let held: Vec<String> = all
        .filter(|status| set.contains(*status))
        .map(|status| status.as_str().to_owned())
        .collect();
    (!held.is_empty()).then(|| format!("status {}", held.join(", ")))
}

/// A condition in words.
pub(super) fn condition(condition: &Condition) -> String {
    let values: Vec<&str> = condition.values.iter().map(scalar).collect();
    format!("{} of {}", condition.pointer, values.join(", "))
}

fn preflight(preflight: &Preflight) -> String {
    let Preflight { place, at_least, every } = preflight;
    let (path, json) = (place.path.path(), &place.json);
    format!("{json} of GET {path}, at least {at_least}, asked for every {every:?}")
}

fn estimate(estimate: &Estimate) -> String {
    let Estimate { json, at_most, on_failure, .. } = estimate;
    let without = match on_failure {
        OnFailure::Refuse => "refused",
        OnFailure::Forward => "sent",
    };
    format!("{json} of the estimate, at most {at_most}; {without} where nobody says")
}
