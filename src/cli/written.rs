//! Says which line of which file decided what `explain` tells.

use std::fmt::Write as _;

use samekey::exchange::{Outcome, Stop};
use samekey::retry::decision::{Decision, Facts};
use samekey::route::Route;

/// Where these keys were written, each place once; `built in` where none was.
pub(super) fn by(route: &Route, keys: &[&str]) -> String {
    let mut places = Vec::new();
    for place in keys.iter().filter_map(|key| route.provenance.place(key)) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    let mut text = String::from("  [");
    for (n, place) in places.iter().enumerate() {
        let comma = if n == 0 { "" } else { "; " };
        write!(text, "{comma}{place}").expect("writing into a string never fails");
    }
    if places.is_empty() { "  [built in]".to_owned() } else { text + "]" }
}

/// The file of a route, and the preset that it comes from.
pub(super) fn origin(route: &Route, source: &str) -> String {
    let provenance = &route.provenance;
    let begins = provenance.begins().map(|place| place.to_string());
    let file = begins.unwrap_or_else(|| source.to_owned());
    match (provenance.built_in(), provenance.started_from()) {
        (Some(preset), _) => format!("preset {preset}, {file}"),
        (None, Some(preset)) => format!("{file}, from preset {preset}"),
        (None, None) => file,
    }
}

/// The keys that decide what follows an attempt.
pub(super) fn deciding(decision: &Decision, facts: &Facts) -> &'static [&'static str] {
    match decision {
        Decision::Retry { .. } => match facts.attempt.outcome {
            Outcome::Throttled if !facts.repeatable => &["retry.on", "retry.refused_by"],
            Outcome::NotSent | Outcome::Refused => &["retry.on"],
            Outcome::Throttled
            | Outcome::Failed
            | Outcome::Ambiguous
            | Outcome::Replayed
            | Outcome::Done => REPEATED,
        },
        Decision::Stop(stop) => match stop {
            Stop::Attempts => &["retry.attempts"],
            Stop::Deadline => &["retry.deadline", "retry.backoff.initial", "retry.backoff.max"],
            Stop::Budget => BUDGET,
            Stop::Unsafe => &["idempotency.upstream_dedupes", "retry.unsafe"],
            Stop::Permanent => &["retry.never_when"],
            Stop::RetryAfter => &["retry.retry_after_max"],
            Stop::Body => &["body.memory", "body.disk"],
            Stop::UpstreamSaidNo | Stop::Signed | Stop::Off => &[],
        },
        Decision::Pass => &["retry.on"],
    }
}

/// All keys of the wait between attempts.
pub(super) const BACKOFF: &[&str] =
    &["retry.backoff.kind", "retry.backoff.initial", "retry.backoff.max", "retry.backoff.jitter"];

/// All keys of what the route may add to its traffic.
pub(super) const BUDGET: &[&str] =
    &["retry.budget.ratio", "retry.budget.min_per_second", "retry.budget.burst"];

/// What lets an attempt be made that may not be the first to have an effect.
const REPEATED: &[&str] = &["retry.on", "idempotency.upstream_dedupes", "retry.unsafe"];
