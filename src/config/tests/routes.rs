//! What a route may say, at, under and over each bound.

use std::time::Duration;

use super::{check, check_route, faults, loaded, route};
use crate::config::Environment;

#[test]
fn what_a_route_matches_must_be_something() {
    check(&[
        (
            "routes:\n- {name: a}\n- {name: a, match: {hosts: []}}\n- {match: {hosts: [b]}}\n",
            &[
                "2: routes[0].match.hosts: must name at least one host; \"*\" is every host",
                "3: routes[1].name: must be a name of its own, `a` is routes[0]",
                "3: routes[1].match.hosts: must name at least one host; \"*\" is every host",
                "4: routes[2].name: must be 1 to 64 of A-Za-z0-9_.- and not `none`",
            ],
        ),
        (
            "routes:\n- name: a\n  match: {hosts: [.a, bü.de], methods: [post, CONNECT, POST], paths: [/ü, /a?b]}\n",
            &[
                "3: routes[0].match.hosts[0]: must be a host name, such as api.example.com, *.example.net or * (got `.a`)",
                "3: routes[0].match.hosts[1]: must be in ASCII, as in xn--bcher-kva.example (got `bü.de`)",
                "3: routes[0].match.methods[0]: must be a method in capitals, such as POST, and not CONNECT (got `post`)",
                "3: routes[0].match.methods[1]: must be a method in capitals, such as POST, and not CONNECT (got `CONNECT`)",
                "3: routes[0].match.paths[0]: must be percent-encoded, as it is on the wire (got `/ü`)",
                "3: routes[0].match.paths[1]: must be a path without query, fragment or space (got `/a?b`)",
            ],
        ),
    ]);
    let name = |length| "n".repeat(length);
    let named = |name: &str| {
        faults(&route("").replace("name: a", &format!("name: {name}")), &Environment::default())
    };
    assert!(named(&name(64)).is_empty());
    assert_eq!(named(&name(65)).len(), 1);
}

#[test]
fn a_route_retries_on_failures_so_many_times() {
    check_route(&[
        ("retry: {attempts: 1}", &[]),
        ("retry: {attempts: 1000}", &[]),
        (
            "retry: {attempts: 1001}",
            &["retry.attempts: must be at most 1000 or `unlimited` (got 1001)"],
        ),
        (
            "retry: {attempts: unlimited}",
            &[
                "retry.attempts: `unlimited` needs a `deadline`, written in the route or in `defaults`",
            ],
        ),
        ("retry: {attempts: unlimited, deadline: 1h}", &[]),
        (
            "retry: {attempts: unlimited, deadline: x}",
            &["retry.deadline: must be a duration such as 250ms, 10s or 24h (got `x`)"],
        ),
        (
            "retry: {on: [399, 400, 599, 600, 4xx, 5xx, dns]}",
            &[
                "retry.on[0]: must be a status from 400 to 599, 5xx, connect, reset or timeout (got 399)",
                "retry.on[3]: must be a status from 400 to 599, 5xx, connect, reset or timeout (got 600)",
                "retry.on[4]: must be a status from 400 to 599, 5xx, connect, reset or timeout (got `4xx`)",
                "retry.on[6]: must be a status from 400 to 599, 5xx, connect, reset or timeout (got `dns`)",
            ],
        ),
        ("retry: {on: 429}", &["retry.on: must be a list, `[]` for none (got 429)"]),
        (
            "retry: {refused_by: [200, 429, 503]}",
            &["retry.refused_by[0]: must be a status from 400 to 599 (got 200)"],
        ),
    ]);
}

#[test]
fn a_route_retries_within_reason() {
    check_route(&[
        (
            "retry: {never_when: [{json: x, in: [a]}, {in: [[1]]}, {json: /a}]}",
            &[
                "retry.never_when[0].json: must be a JSON pointer that starts with `/` (got `x`)",
                "retry.never_when[1].in[0]: must be text, a number, true, false or null (got a list)",
                "retry.never_when[1].json: must be given: a JSON pointer such as /error/code",
                "retry.never_when[2].in: must hold at least one value",
            ],
        ),
        (
            "retry: {in_progress_when: [{json: /a}]}",
            &["retry.in_progress_when[0].in: must hold at least one value"],
        ),
        (
            "retry: {failed_when: [{json: /ok, in: [false], means: refused}, {json: /ok, in: [0], means: x}]}",
            &["retry.failed_when[1].means: must be one of refused, unknown (got `x`)"],
        ),
        (
            "retry: {backoff: {initial: 21s}}",
            &["retry.backoff.initial: `initial` (21s) must not be above `max` (20s)"],
        ),
        (
            "retry: {backoff: {max: 199ms}}",
            &["retry.backoff.max: `initial` (200ms) must not be above `max` (199ms)"],
        ),
        ("retry: {backoff: {initial: 5s, max: 5s}}", &[]),
        (
            "retry: {backoff: {initial: 0}}",
            &["retry.backoff.initial: must be at least 1ms (got 0)"],
        ),
        ("retry: {budget: {ratio: 1, burst: 1}}", &[]),
        (
            "retry: {budget: {ratio: 1.001, burst: -1}}",
            &[
                "retry.budget.ratio: must be from 0 to 1, in steps of 0.001 (got 1.001)",
                "retry.budget.burst: must be at least 0 (got -1)",
            ],
        ),
        (
            "retry: {budget: {ratio: .nan}}",
            &["retry.budget.ratio: must be from 0 to 1, in steps of 0.001 (got `.nan`)"],
        ),
        ("retry: {budget: {ratio: 0}}", &[]),
        ("retry: {budget: {ratio: 0, min_per_second: 0, burst: 0}}", &[]),
        ("retry: {unsafe: yes}", &["retry.unsafe: must be true or false (got `yes`)"]),
        (
            "retry: {retry_after_max: 0, attempt_timeout: 0}",
            &["retry.attempt_timeout: must be at least 1ms (got 0)"],
        ),
        (
            "body: {memory: 0, disk: 1KB}",
            &["body.disk: must be a size such as 64KiB, 10MiB or 1GiB (got `1KB`)"],
        ),
        ("kind: write", &["kind: must be one of effect, read, poll, fetch (got `write`)"]),
    ]);
}

#[test]
fn polls_are_spaced_and_ended_on_routes_for_polls_alone() {
    let needs = |key: &str| format!("{key}: needs `kind: poll`");
    check_route(&[
        ("interval: 5s", &[&needs("interval")]),
        ("terminal: {json: /s, in: [a]}", &[&needs("terminal")]),
        ("interval: 0", &["interval: must be at least 1ms (got 0)"]),
        ("interval: 25h", &["interval: must be at most 1d (got `25h`)"]),
    ]);
    let poll = |keys: &str| {
        format!("routes: [{{name: a, match: {{hosts: [a.test]}}, kind: poll, {keys}}}]\n")
    };
    let at = |fault: &str| format!("1: routes[0].{fault}");
    check(&[
        (&poll("interval: 24h, terminal: {json: /s, in: [a, 1, true, null], for: 24h}"), &[]),
        (&poll("interval: null, terminal: null"), &[]),
        (
            &poll("terminal: {}"),
            &[
                &at("terminal.json: must be given: a JSON pointer such as /error/code"),
                &at("terminal.in: must hold at least one value"),
            ],
        ),
        (
            &poll("terminal: {json: s, in: [a], for: 0}"),
            &[
                &at("terminal.json: must be a JSON pointer that starts with `/` (got `s`)"),
                &at("terminal.for: must be at least 1ms (got 0)"),
            ],
        ),
        (
            "routes: [{name: a, match: {hosts: [a.test]}, interval: 1s}]\ndefaults: {kind: read}\n",
            &[&at(&needs("interval"))],
        ),
        (
            "routes: [{name: a, match: {hosts: [a.test]}, interval: 1s}]\ndefaults: {kind: poll}\n",
            &[],
        ),
        (
            "routes: []\ndefaults: {interval: 1s}\n",
            &[
                "2: defaults.interval: unknown key `interval`, must be one of kind, mode, retry, idempotency, limits, breaker, preflight, estimate, body, errors",
            ],
        ),
    ]);
    let polls =
        loaded(&poll("interval: 5s, terminal: {json: /s, in: [a]}")).routes[0].polls.clone();
    assert_eq!(polls.interval, Some(Duration::from_secs(5)));
    assert_eq!(polls.terminal.expect("it is written").lasts, Duration::from_mins(10));
}

#[test]
fn keys_travel_only_where_they_can() {
    check_route(&[
        ("idempotency: {header: X-Order-Id}", &[]),
        (
            "idempotency: {header: Host}",
            &["idempotency.header: must be a header that means nothing else (got `Host`)"],
        ),
        (
            "idempotency: {header: a b}",
            &["idempotency.header: must be a header's name (got `a b`)"],
        ),
        (
            "idempotency: {header: {json: \"\"}}",
            &[
                "idempotency.header.json: must be a JSON pointer below the root, such as /order/id (got ``)",
            ],
        ),
        (
            "idempotency: {header: {query: a=b}}",
            &["idempotency.header.query: must be a query parameter's name (got `a=b`)"],
        ),
        (
            "idempotency: {header: {json: /a, query: b}}",
            &["idempotency.header: must be a header's name, {json: POINTER} or {query: NAME}"],
        ),
        (
            "idempotency: {header: {}}",
            &["idempotency.header: must be a header's name, {json: POINTER} or {query: NAME}"],
        ),
        (
            "idempotency: {credentials: [x-user, \"query:token\", \"a b\", \"query:\"]}",
            &[
                "idempotency.credentials[2]: must be a header's name or query:NAME (got `a b`)",
                "idempotency.credentials[3]: must be a query parameter's name (got `query:`)",
            ],
        ),
    ]);
}

#[test]
fn answers_are_kept_within_reason() {
    check_route(&[
        (
            "idempotency: {record: [2xx, 3xx, 201, 199, 400, 4xx]}",
            &[
                "idempotency.record[3]: must be 2xx, 3xx or a status from 200 to 399 (got 199)",
                "idempotency.record[4]: must be 2xx, 3xx or a status from 200 to 399 (got 400)",
                "idempotency.record[5]: must be 2xx, 3xx or a status from 200 to 399 (got `4xx`)",
            ],
        ),
        (
            "idempotency: {mismatch: 399}",
            &["idempotency.mismatch: must be at least 400 or `forward` (got 399)"],
        ),
        (
            "idempotency: {mismatch: ask}",
            &["idempotency.mismatch: must be a whole number or `forward` (got `ask`)"],
        ),
        ("idempotency: {ttl: 0}", &["idempotency.ttl: must be at least 1ms (got 0)"]),
        (
            "idempotency: {ttl: 1m, adopt_orphans: 2m}",
            &["idempotency.adopt_orphans: must not be longer than `ttl`: the answer would be gone"],
        ),
        ("idempotency: {ttl: 2m, adopt_orphans: 2m}", &[]),
        (
            "idempotency: {ignore: [\"\"]}",
            &[
                "idempotency.ignore[0]: must be a JSON pointer below the root, such as /order/id (got ``)",
            ],
        ),
        (
            "idempotency: {capture: {id: /id, a b: /x, c: x}}",
            &[
                "idempotency.capture.a b: must be named with 1 to 64 of A-Za-z0-9_.-",
                "idempotency.capture.c: must be /POINTER or header:NAME of the answer, or request:/POINTER, \
                 request:field:NAME or request:header:NAME (got `x`)",
            ],
        ),
    ]);
}

#[test]
fn limits_are_bounded_and_agree_in_a_group() {
    check_route(&[
        ("limits: {concurrency: 1, rate: 120/1m, max_queue: 0, max_wait: 0}", &[]),
        ("limits: {concurrency: 0}", &["limits.concurrency: must be at least 1 (got 0)"]),
        (
            "limits: {rate: 0/1m}",
            &[
                "limits.rate: must be a count and a duration of at most 24h, such as 120/1m (got `0/1m`)",
            ],
        ),
        (
            "limits: {rate: 1/0ms}",
            &[
                "limits.rate: must be a count and a duration of at most 24h, such as 120/1m (got `1/0ms`)",
            ],
        ),
        ("limits: {group: a b}", &["limits.group: must be 1 to 64 of A-Za-z0-9_.- (got `a b`)"]),
        (
            "limits: {shared: true}",
            &["limits.shared: needs state.shared, which replicas share it by"],
        ),
    ]);
    let two = |first: &str, second: &str| {
        format!(
            "routes:\n- {{name: a, match: {{hosts: [a]}}, limits: {{group: g, {first}}}}}\n\
             - {{name: b, match: {{hosts: [b]}}, limits: {{group: g, {second}}}}}\n"
        )
    };
    check(&[
        (&two("rate: 1/1s", "rate: 1/1000ms, max_wait: 1s"), &[]),
        (
            &two("rate: 1/1s", "rate: 2/1s"),
            &[
                "3: routes[1].limits.group: must have the concurrency, rate, max_queue and shared of the group's \
             first route, routes[0]",
            ],
        ),
    ]);
}

#[test]
fn a_block_that_was_refused_is_not_searched_for_more() {
    check(&[
        ("routes: [{name: a, match: 7}]", &["1: routes[0].match: must be a map of keys (got 7)"]),
        (
            "routes: [{name: a, match: {hosts: 7}}]",
            &["1: routes[0].match.hosts: must be a list, `[]` for none (got 7)"],
        ),
        (
            "intercept: {ca: {cert: 5}}",
            &[
                "1: intercept.ca.cert: must be the path of a file or directory (got 5)",
                "1: intercept.ca.key: must be given: `cert` and `key` go together",
            ],
        ),
    ]);
    check_route(&[(
        "retry: {backoff: {initial: x, max: 1ms}}",
        &["retry.backoff.initial: must be a duration such as 250ms, 10s or 24h (got `x`)"],
    )]);
}
