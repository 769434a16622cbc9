//! What `samekey explain` says of answers that are looked into, of limits, and of whose
//! answer a repeat gets.

use samekey::exchange::Condition;
use samekey::exchange::trail::Says;
use samekey::limit::Limits;
use samekey::retry::FailedWhen;
use samekey::route::Route;

use crate::cli::credit::condition;
use crate::cli::explain::Line;

/// What a route does beyond its retries; nothing of what it does not.
pub(super) fn lines(route: &Route, effect: bool) -> Vec<Line> {
    let policy = &route.retry;
    let never =
        any(&policy.never_when).map(|words| ("never retried", words, &["retry.never_when"][..]));
    let running = any(&policy.in_progress_when).map(|words| {
        let words = format!("{words}: the first request runs there; asked again with the same key");
        ("waited for", words, &["retry.in_progress_when"][..])
    });
    let failed = (!policy.failed_when.is_empty()).then(|| {
        let all: Vec<String> = policy.failed_when.iter().map(failure).collect();
        ("a failure, though 2xx", all.join(" or "), &["retry.failed_when"][..])
    });
    let window = route.rules.adopt_orphans;
    let adopted = (effect && !window.is_zero()).then(|| {
        let words = format!("for {window:?}, by a repeat without a key: no second effect");
        ("an answer that nobody got is taken", words, &["idempotency.adopt_orphans"][..])
    });
    let limits = limits(&route.limits).map(|words| ("limits", words, LIMITS));
    [never, running, failed, adopted, limits].into_iter().flatten().collect()
}

fn any(conditions: &[Condition]) -> Option<String> {
    let all: Vec<String> = conditions.iter().map(condition).collect();
    (!all.is_empty()).then(|| all.join(" or "))
}

fn failure(rule: &FailedWhen) -> String {
    let means = match rule.means {
        Says::Refused => "nothing was done",
        Says::Unknown => "the outcome is unknown",
    };
    format!("{} ({means})", condition(&rule.condition))
}

fn limits(limits: &Limits) -> Option<String> {
    let at_once = limits.concurrency.map(|most| format!("{most} at a time"));
    let rate = limits.rate.map(|rate| format!("{} in {:?}", rate.count, rate.per));
    let of: Vec<String> = at_once.into_iter().chain(rate).collect();
    let group = limits.group.as_ref().map(|name| format!(", as the group {name}"));
    let (of, group, wait) = (of.join(", "), group.unwrap_or_default(), limits.max_wait);
    (!of.is_empty())
        .then(|| format!("{of} for each credential{group}; a turn is waited for {wait:?}"))
}

const LIMITS: &[&str] = &["limits.concurrency", "limits.rate", "limits.group", "limits.max_wait"];
