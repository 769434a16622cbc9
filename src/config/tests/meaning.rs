//! What a route means once it is read.

use std::num::NonZeroU32;
use std::time::Duration;

use http::{Method, StatusCode};

use super::{check, loaded};
use crate::exchange::Statuses;
use crate::exchange::trail::Says;
use crate::idempotency::{Carrier, CredentialField, Mismatch, Rules};
use crate::retry::backoff::Growth;
use crate::retry::policy::Attempts;
use crate::route::{Kind, Mode};

#[test]
fn a_route_overrides_the_defaults_field_by_field() {
    let config = loaded(
        "\
routes:
  - name: a
    match: {hosts: [a.test]}
    retry: {backoff: {initial: 1s}, budget: {burst: 7}, on: [503]}
    idempotency: {capture: {id: /id}}
  - {name: b, match: {hosts: [b.test]}, kind: null}
defaults:
  kind: poll
  mode: observe
  retry: {attempts: 9, backoff: {max: 3s, kind: linear}, budget: {ratio: 0.5}, on: [429], deadline: 7s}
  idempotency: {upstream_dedupes: true, capture: {cost: /cost}, mismatch: forward}
  limits: {max_wait: 1s}
  body: {memory: 2MiB}
",
    );
    let [a, b] = &config.routes[..] else { panic!("two routes") };
    assert_eq!((a.kind, a.mode), (Some(Kind::Poll), Mode::Observe));
    assert_eq!(b.kind, None);
    assert_eq!(a.retry.backoff.initial, Duration::from_secs(1));
    assert_eq!(a.retry.backoff.max, Duration::from_secs(3));
    assert_eq!(a.retry.backoff.growth, Growth::Linear);
    assert_eq!((a.retry.budget.ratio_milli, a.retry.budget.burst), (500, 7));
    assert_eq!((b.retry.budget.ratio_milli, b.retry.budget.burst), (500, 100));
    assert_eq!(a.retry.attempts, Attempts::AtMost(NonZeroU32::new(9).expect("nine")));
    assert!(a.retry.on.statuses.contains(StatusCode::SERVICE_UNAVAILABLE));
    assert!(!a.retry.on.statuses.contains(StatusCode::TOO_MANY_REQUESTS) && !a.retry.on.connect);
    assert!(a.retry.deadline.cuts_attempts && b.retry.deadline.cuts_attempts);
    let names =
        |rules: &Rules| rules.capture.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    assert_eq!(
        (names(&a.rules), names(&b.rules)),
        (vec!["id".to_owned()], vec!["cost".to_owned()])
    );
    assert_eq!((a.rules.upstream_dedupes, a.rules.mismatch), (Some(true), Mismatch::Forward));
    assert_eq!(
        (a.limits.max_wait, a.body.memory, a.body.disk),
        (Duration::from_secs(1), 2 << 20, 256 << 20)
    );
}

#[test]
fn what_is_wrong_in_the_defaults_is_told_there_and_once() {
    let two = "routes: [{name: a, match: {hosts: [a]}}, {name: b, match: {hosts: [b]}}]\n";
    let with = |defaults: &str| format!("{two}defaults:\n  {defaults}\n");
    check(&[
        (
            &with("retry: {backoff: {initial: 1m}}"),
            &["3: defaults.retry.backoff.initial: `initial` (60s) must not be above `max` (20s)"],
        ),
        (
            &with("retry: {attempts: unlimited}"),
            &[
                "3: defaults.retry.attempts: `unlimited` needs a `deadline`, written in the route or in `defaults`",
            ],
        ),
        (&with("retry: {attempts: unlimited, deadline: 5s}"), &[]),
        (
            &with("name: x"),
            &[
                "3: defaults.name: unknown key `name`, must be one of kind, mode, retry, idempotency, limits, breaker, \
                 preflight, estimate, body, errors",
            ],
        ),
    ]);
}

#[test]
fn the_route_as_meant_says_what_was_written() {
    let config = loaded(
        "\
routes:
  - name: a
    match: {hosts: [a.test], methods: [POST], paths: [/v1/*]}
    kind: fetch
    retry:
      attempts: unlimited
      deadline: 10s
      on: [5xx, 501, connect]
      refused_by: [503]
      never_when: [{json: /e, in: [a, 1, 1.5, true, null]}]
      in_progress_when: [{json: /e, in: [running]}]
      failed_when: [{json: /ok, in: [false]}]
      unsafe: true
    idempotency:
      header: {query: requestId}
      record: [3xx, 200]
      mismatch: 409
      credentials: [X-User, 'query:token']
      ignore: [/at]
      identity: 'order-{json:/id}'
",
    );
    let route = &config.routes[0];
    assert!(route.matcher.matches("a.test", 443, &Method::POST, "/v1/x"));
    assert!(!route.matcher.matches("a.test", 443, &Method::GET, "/v1/x"));
    assert!(!route.matcher.matches("a.test", 443, &Method::POST, "/v2/x"));
    let statuses = |set: Statuses| {
        (100..600)
            .filter(|n| StatusCode::from_u16(*n).is_ok_and(|s| set.contains(s)))
            .collect::<Vec<u16>>()
    };
    let retry = &route.retry;
    assert_eq!(retry.attempts, Attempts::Unlimited);
    assert_eq!(statuses(retry.on.statuses), (500..600).filter(|n| *n != 505).collect::<Vec<_>>());
    assert!(retry.on.connect && !retry.on.reset && !retry.on.timeout && retry.repeat_unsafe);
    assert_eq!(statuses(retry.refused_by), [503]);
    assert_eq!(retry.never_when[0].values.len(), 5);
    assert_eq!(retry.in_progress_when[0].values.len(), 1);
    assert_eq!(retry.failed_when[0].means, Says::Unknown);
    let rules = &route.rules;
    assert_eq!(rules.carrier, Carrier::Query("requestId".to_owned()));
    assert_eq!(statuses(rules.record), [200].into_iter().chain(300..400).collect::<Vec<_>>());
    assert_eq!(rules.mismatch, Mismatch::Answer(StatusCode::CONFLICT));
    assert_eq!(rules.credentials[1], CredentialField::Query("token".to_owned()));
    assert!(rules.identity.is_some() && rules.ignore.len() == 1 && !rules.pass_malformed_keys);
}
