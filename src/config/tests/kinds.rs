//! What a route's kind starts it from.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{check, check_route, loaded, route};
use crate::retry::{Attempts, Growth};

/// Attempts (0: unlimited), growth, first and longest wait in milliseconds.
type Starts = (u32, Growth, u64, u64);

/// A file with one route that has these keys.
fn only(keys: &str) -> String {
    format!("routes: [{{name: a, match: {{hosts: [a.test]}}, {keys}}}]\n")
}

fn starts(text: &str) -> Starts {
    let config = loaded(text);
    let retry = &config.routes[0].retry;
    let attempts = match retry.attempts {
        Attempts::AtMost(most) => NonZeroU32::get(most),
        Attempts::Unlimited => 0,
    };
    let ms = |wait: Duration| u64::try_from(wait.as_millis()).expect("a short wait");
    (attempts, retry.backoff.growth, ms(retry.backoff.initial), ms(retry.backoff.max))
}

#[test]
fn a_kind_starts_a_route_where_nobody_says_otherwise() {
    let usual = (4, Growth::Exponential, 200, 20_000);
    let fetch = (3, Growth::Linear, 500, 5_000);
    for (block, wanted) in [
        ("kind: null", usual),
        ("kind: effect", usual),
        ("kind: read", usual),
        ("kind: poll", (0, Growth::Exponential, 200, 20_000)),
        ("kind: fetch", fetch),
        ("kind: poll, retry: {attempts: 9}", (9, Growth::Exponential, 200, 20_000)),
        ("kind: fetch, retry: {attempts: 4}", (4, Growth::Linear, 500, 5_000)),
        ("kind: fetch, retry: {backoff: {kind: exponential}}", (3, usual.1, 500, 5_000)),
        ("kind: fetch, retry: {backoff: {initial: 1s}}", (3, Growth::Linear, 1_000, 5_000)),
        ("kind: fetch, retry: {backoff: {max: 9s}}", (3, Growth::Linear, 500, 9_000)),
    ] {
        assert_eq!(starts(&only(block)), wanted, "{block}");
    }
}

#[test]
fn what_the_defaults_say_is_said() {
    let with = |defaults: &str| format!("{}defaults: {defaults}\n", route("kind: fetch"));
    let linear = Growth::Linear;
    assert_eq!(starts(&with("{retry: {attempts: 7}}")), (7, linear, 500, 5_000));
    assert_eq!(starts(&with("{retry: {backoff: {max: 8s}}}")), (3, linear, 500, 8_000));
    // The kind may be said there too, and a route may leave it again.
    let polls = "routes: [{name: a, match: {hosts: [a.test]}KIND}]\ndefaults: {kind: poll}\n";
    assert_eq!(starts(&polls.replace("KIND", "")).0, 0);
    assert_eq!(starts(&polls.replace("KIND", ", kind: read")).0, 4);
}

#[test]
fn an_unlimited_poll_has_the_deadline_that_is_built_in() {
    let config = loaded(&route("kind: poll"));
    let deadline = config.routes[0].retry.deadline;
    assert_eq!((deadline.after, deadline.cuts_attempts), (Duration::from_mins(5), false));
    check_route(&[(
        "retry: {attempts: unlimited}",
        &["retry.attempts: `unlimited` needs a `deadline`, written in the route or in `defaults`"],
    )]);
    check(&[(&only("kind: poll, retry: {attempts: unlimited, deadline: 1h}"), &[])]);
}
