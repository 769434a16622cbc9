//! What an `inbox` may say, and what it comes to.

use std::time::Duration;

use super::{check, faults, loaded};
use crate::config::Environment;
use crate::inbox::signature::Signed;

/// A reverse listener to an application, and a route with this inbox on line 6.
fn file(rest: &str, inbox: &str) -> String {
    format!(
        "listeners: [{{address: '127.0.0.1:0', mode: reverse, upstream: 'http://127.0.0.1:3000'}}]\n\
         routes:\n  - name: hooks\n    match: {{hosts: ['127.0.0.1:3000']}}\n    {rest}\n    inbox: {inbox}\n"
    )
}

const PLAIN: &str = "{identity: {json: /id}}";

#[test]
fn an_inbox_is_refused_where_it_cannot_be_meant() {
    let key = "6: routes[0].inbox";
    let identity = "must be {json: POINTER}, such as /request_id, or {header: NAME}";
    for (inbox, wanted) in [
        ("{}", format!("{key}.identity: {identity}")),
        ("{identity: {}}", format!("{key}.identity: {identity}")),
        ("{identity: {json: /a, header: x}}", format!("{key}.identity: {identity}")),
        (
            "{identity: {json: /a}, signature: {header: x-s}}",
            format!("{key}.signature.secret_file: must be given: a file with the secret"),
        ),
        (
            "{identity: {json: /a}, signature: {header: x-s, secret_file: /no/such}}",
            format!(
                "{key}.signature.secret_file: /no/such: cannot be read: No such file or directory (os error 2)"
            ),
        ),
        (
            "{identity: {json: /a}, signature: {header: x-s, secret_file: /dev/null}}",
            format!("{key}.signature.secret_file: /dev/null: is empty"),
        ),
        (
            "{identity: {json: /a}, headers: [authorization]}",
            format!(
                "{key}.headers[0]: must be neither a credential nor a field of the connection (got `authorization`)"
            ),
        ),
        (
            "{identity: {json: /a}, keep: 59s}",
            format!("{key}.keep: must be at least 1m (got `59s`)"),
        ),
        (
            "{identity: {json: /a}, max_waiting: 0}",
            format!("{key}.max_waiting: must be at least 1 (got 0)"),
        ),
        (
            "{identity: {json: /a}, max_reading: 0}",
            format!("{key}.max_reading: must be at least 1 (got 0)"),
        ),
        (
            "{identity: {json: /a}, max_reading: 1000001}",
            format!("{key}.max_reading: must be at most 1000000 (got 1000001)"),
        ),
        (
            "{identity: {json: /a}, max_remembered: 0}",
            format!("{key}.max_remembered: must be at least 1 (got 0)"),
        ),
        (
            "{identity: {json: /a}, max_remembered: 10000001}",
            format!("{key}.max_remembered: must be at most 10000000 (got 10000001)"),
        ),
        (
            "{identity: {json: /a}, max_size: 65MiB}",
            format!("{key}.max_size: must be at most 64MiB (got `65MiB`)"),
        ),
    ] {
        let text = file("kind: effect", inbox);
        assert_eq!(faults(&text, &Environment::default()), [wanted], "in\n{text}");
    }
}

#[test]
fn each_bound_of_an_inbox_is_the_one_that_was_written() {
    let of = |more: &str| {
        let text = file("kind: effect", &format!("{{identity: {{json: /id}}{more}}}"));
        let rules = loaded(&text).routes[0].inbox.clone().expect("an inbox");
        (rules.max_waiting, rules.max_bytes, rules.max_reading, rules.max_remembered)
    };
    assert_eq!(of(""), (10_000, 256 << 20, 256, 100_000));
    let written = ", max_waiting: 1, max_bytes: 2B, max_reading: 3, max_remembered: 4";
    assert_eq!(of(written), (1, 2, 3, 4));
}

#[test]
fn an_inbox_needs_a_listener_that_reaches_it_and_a_route_that_acts() {
    let reached = "needs a listener with `mode: reverse`, whose `upstream` the route matches";
    let inbox = "routes: [{name: a, match: {hosts: [a.test]}, inbox: {identity: {json: /id}}}]\n";
    let elsewhere =
        format!("listeners: [{{mode: reverse, upstream: 'http://127.0.0.1:3000'}}]\n{inbox}");
    check(&[
        (inbox, &[&format!("1: routes[0].inbox: {reached}")]),
        (&elsewhere, &[&format!("2: routes[0].inbox: {reached}")]),
        (
            &file("mode: observe", PLAIN),
            &["6: routes[0].inbox: answers for the application, which `mode: observe` must not"],
        ),
        (&file("mode: enforce", PLAIN), &[]),
    ]);
}

#[test]
fn a_delivery_is_tried_for_as_long_as_it_is_remembered_unless_its_route_says_less() {
    let of = |defaults: &str, rest: &str| {
        let text = format!("{}defaults: {{{defaults}}}\n", file(rest, PLAIN));
        let rules = loaded(&text).routes[0].inbox.clone().expect("an inbox");
        (rules.attempts.map(std::num::NonZeroU32::get), rules.give_up_after)
    };
    let week = Duration::from_hours(168);
    for (defaults, rest, wanted) in [
        ("", "kind: effect", (None, week)),
        ("", "retry: {attempts: 3}", (Some(3), week)),
        ("", "retry: {deadline: 1m}", (None, Duration::from_mins(1))),
        ("", "retry: {deadline: 1m, attempts: unlimited}", (None, Duration::from_mins(1))),
        // What is meant for calls that somebody waits for loses no delivery.
        ("retry: {attempts: 3, deadline: 1m}", "kind: effect", (None, week)),
    ] {
        assert_eq!(of(defaults, rest), wanted, "{defaults} {rest}");
    }
}

#[test]
fn the_secret_is_the_files_first_line_and_the_fields_of_an_inbox_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secret");
    std::fs::write(&path, "Jefe\n").expect("written");
    let inbox = format!(
        "{{identity: {{header: x-id}}, headers: [stripe-signature], signature: {{header: x-s, secret_file: {}, prefix: 'sha256='}}}}",
        path.display()
    );
    let rules = loaded(&file("kind: effect", &inbox)).routes[0].inbox.clone().expect("an inbox");
    assert_eq!(rules.headers, ["stripe-signature", "x-s", "x-id"]);
    let signature = rules.signature.expect("a signature");
    let mut headers = http::HeaderMap::new();
    let tag = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    headers.insert("x-s", tag.parse().expect("a value"));
    assert_eq!(signature.verify(&headers, b"what do ya want for nothing?", 0), Ok(()));
}

#[test]
fn a_signature_covers_the_body_unless_it_is_said_to_be_timestamped() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secret");
    std::fs::write(&path, "Jefe\n").expect("written");
    let of = |more: &str| {
        let signature = format!("{{header: x-s, secret_file: {}{more}}}", path.display());
        let inbox = format!("{{identity: {{header: x-id}}, signature: {signature}}}");
        file("kind: effect", &inbox)
    };
    let timestamped = |seconds| Signed::Timestamped { tolerance: Duration::from_secs(seconds) };
    for (more, signed, prefix) in [
        ("", Signed::Body, ""),
        (", signed: body, prefix: 'sha256='", Signed::Body, "sha256="),
        (", signed: timestamped", timestamped(300), "v1="),
        (", signed: timestamped, tolerance: 1s, prefix: 'v2='", timestamped(1), "v2="),
    ] {
        let rules = loaded(&of(more)).routes[0].inbox.clone().expect("an inbox");
        let signature = rules.signature.expect("a signature");
        assert_eq!((signature.signed, signature.prefix.as_str()), (signed, prefix), "{more}");
    }
    let key = "routes[0].inbox.signature";
    for (more, wish) in [
        (", tolerance: 1m", "tolerance: goes with `signed: timestamped`"),
        (", signed: timestamped, tolerance: 0s", "tolerance: must be"),
        (", signed: timestamped, tolerance: 25h", "tolerance: must be"),
        (", signed: timestamped, prefix: 't='", "prefix: must not be `t=` where that is the time"),
        (", signed: time", "signed: must be one of body, timestamped"),
    ] {
        let told = faults(&of(more), &Environment::default()).concat();
        assert!(told.contains(&format!("{key}.{wish}")), "{more}: {told}");
    }
}
