//! What a route may say of money.

use std::time::Duration;

use super::{check, check_route, loaded};
use crate::credit::{Amount, OnFailure};
use crate::exchange::Statuses;

fn amount(text: &str) -> Amount {
    Amount::parse(text).expect("a number")
}

#[test]
fn money_is_read_as_it_is_written() {
    let config = loaded(
        "\
routes:
  - name: a
    match: {hosts: [a.test], paths: [/v1/models/*]}
    breaker: {when: [{json: /error/code, in: [out]}], statuses: [402], reset_after: 10m}
    preflight: {request: GET /account?x=1, json: /credits, at_least: 0.1, every: 2m}
    estimate: {path: '/v1/models/{model}/estimate', json: /cost, at_most: '50.10', on_failure: forward}
  - {name: b, match: {hosts: [b.test]}}
",
    );
    let [a, b] = &config.routes[..] else { panic!("two routes") };
    assert!(b.credit.is_empty() && !a.credit.is_empty());
    let breaker = a.credit.breaker.as_ref().expect("it is there");
    assert_eq!((breaker.when.len(), breaker.reset_after), (1, Duration::from_mins(10)));
    assert!(breaker.statuses.contains(http::StatusCode::PAYMENT_REQUIRED));
    let preflight = a.credit.preflight.as_ref().expect("it is there");
    assert_eq!(preflight.place.path, "/account?x=1");
    assert_eq!((&preflight.at_least, preflight.every), (&amount("0.1"), Duration::from_mins(2)));
    let estimate = a.credit.estimate.as_ref().expect("it is there");
    assert_eq!((&estimate.at_most, estimate.on_failure), (&amount("50.1"), OnFailure::Forward));
}

#[test]
fn a_route_lays_its_blocks_over_those_of_the_defaults() {
    let config = loaded(
        "\
routes:
  - {name: a, match: {hosts: [a]}, breaker: {reset_after: 1m}}
  - {name: b, match: {hosts: [b]}, breaker: null}
defaults: {breaker: {statuses: [402], reset_after: 1h}}
",
    );
    let [a, b] = &config.routes[..] else { panic!("two routes") };
    let breaker = a.credit.breaker.as_ref().expect("it is there");
    assert!(breaker.statuses.contains(http::StatusCode::PAYMENT_REQUIRED));
    assert_eq!(breaker.reset_after, Duration::from_mins(1));
    assert!(b.credit.breaker.is_none());
}

#[test]
fn a_breaker_must_know_what_says_that_there_is_no_credit() {
    check_route(&[
        ("breaker: {}", &[]),
        ("breaker: {statuses: [402]}", &[]),
        ("breaker: {when: [{json: /a, in: [b]}]}", &[]),
        (
            "breaker: {when: [], statuses: []}",
            &["breaker: must have `when` or `statuses`: what says that there is no credit"],
        ),
        (
            "breaker: {statuses: [200]}",
            &["breaker.statuses[0]: must be a status from 400 to 599 (got 200)"],
        ),
        ("breaker: {when: [{json: /a}]}", &["breaker.when[0].in: must hold at least one value"]),
        ("breaker: {statuses: [402], reset_after: 1ms}", &[]),
        ("breaker: {statuses: [402], reset_after: 24h}", &[]),
        (
            "breaker: {statuses: [402], reset_after: 0}",
            &["breaker.reset_after: must be at least 1ms (got 0)"],
        ),
        (
            "breaker: {statuses: [402], reset_after: 25h}",
            &["breaker.reset_after: must be at most 1d (got `25h`)"],
        ),
    ]);
}

#[test]
fn a_preflight_must_say_what_is_asked_and_wanted() {
    let check_one = |rest: &str, wanted: &[&str]| {
        let blocks = format!("breaker: {{statuses: [402]}}, preflight: {rest}");
        let text = format!("routes:\n- {{name: a, match: {{hosts: [a]}}, {blocks}}}\n");
        let wanted: Vec<_> = wanted.iter().map(|fault| format!("2: routes[0].{fault}")).collect();
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        check(&[(&text, &wanted)]);
    };
    check_one("{request: GET /a, json: /b, at_least: 1}", &[]);
    check_one(
        "{}",
        &[
            "preflight.request: must be given: GET and a path, such as GET /account",
            "preflight.json: must be given: a JSON pointer such as /credits",
            "preflight.at_least: must be given: a number such as 50",
        ],
    );
    for request in ["POST /a", "/a", "GET a", "GET", "'GET /a#b'"] {
        let shown = request.trim_matches('\'');
        check_one(
            &format!("{{request: {request}, json: /b, at_least: 1}}"),
            &[&format!(
                "preflight.request: must be GET and a path, such as GET /account (got `{shown}`)"
            )],
        );
    }
    for (number, shown) in [("-1", "-1"), ("many", "`many`"), ("true", "true"), ("'1,5'", "`1,5`")]
    {
        check_one(
            &format!("{{request: GET /a, json: /b, at_least: {number}}}"),
            &[&format!(
                "preflight.at_least: must be a number from 0 on, such as 50 or 0.25 (got {shown})"
            )],
        );
    }
    let alone = "preflight: {request: GET /a, json: /b, at_least: 1}";
    check_route(&[(alone, &[])]);
    let config = loaded(&format!("routes: [{{name: a, match: {{hosts: [a]}}, {alone}}}]"));
    let breaker = config.routes[0].credit.breaker.as_ref().expect("the balance opens it");
    assert!(breaker.when.is_empty() && breaker.statuses == Statuses::NONE);
}

#[test]
fn an_estimate_takes_from_the_path_what_the_patterns_leave_open() {
    let fault = "3: routes[0].estimate.path: needs a `*` in each pattern of match.paths for each of its {names}";
    for (paths, path, wanted) in [
        ("[/v1/*]", "/v1/{model}/estimate", vec![]),
        ("[/v1/*/*, /v2/*]", "/v1/{model}/estimate", vec![]),
        ("[/v1/*/*, /v2/*]", "/{a}/{b}", vec![fault]),
        ("[/v1/**]", "/{a}", vec![fault]),
        ("[]", "/{a}", vec![fault]),
        ("[]", "/estimate", vec![]),
    ] {
        let text = format!(
            "routes:\n- name: a\n  estimate: {{path: '{path}', json: /c, at_most: 5}}\n  match: {{hosts: [a], paths: {paths}}}\n"
        );
        check(&[(&text, &wanted)]);
    }
    check_route(&[
        (
            "estimate: {}",
            &[
                "estimate.path: must be given: a path such as /v1/estimate",
                "estimate.json: must be given: a JSON pointer such as /credits",
                "estimate.at_most: must be given: a number such as 50",
            ],
        ),
        (
            "estimate: {path: x, json: y, at_most: -1, on_failure: maybe}",
            &[
                "estimate.path: must be a path that starts with `/` (got `x`)",
                "estimate.json: must be a JSON pointer that starts with `/` (got `y`)",
                "estimate.at_most: must be a number from 0 on, such as 50 or 0.25 (got -1)",
                "estimate.on_failure: must be one of refuse, forward (got `maybe`)",
            ],
        ),
    ]);
}
