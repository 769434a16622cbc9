//! What is wrong with a file is told, all of it and where it stands.

use std::time::Duration;

use super::{check, faults, loaded};
use crate::config::Environment;

#[test]
fn all_faults_of_a_file_are_told_at_once() {
    check(&[(
        "\
listeners:
  - {address: 127.0.0.1:8080, header_count: many, max_streams: 0}
admin:
  adress: 127.0.0.1:9090
  expose: everything
routes:
  - name: none
    match:
      hosts: [https://a.test, a.test, 7]
      paths: [v1]
    retry:
      attemps: 3
      attempts: 0
      backoff: {initial: soon, max: 0}
      budget: 5
    idempotency: {mismatch: 500}
",
        &[
            "2: listeners[0].header_count: must be a whole number (got `many`)",
            "2: listeners[0].max_streams: must be at least 1 (got 0)",
            "4: admin.adress: unknown key `adress`, did you mean `address`?",
            "5: admin.expose: must be one of metrics, all (got `everything`)",
            "7: routes[0].name: must be 1 to 64 of A-Za-z0-9_.- and not `none` (got `none`)",
            "9: routes[0].match.hosts[0]: must be a port from 1 to 65535 after the colon (got `https://a.test`)",
            "9: routes[0].match.hosts[2]: must be text (got 7)",
            "10: routes[0].match.paths[0]: must be a path that starts with `/` (got `v1`)",
            "12: routes[0].retry.attemps: unknown key `attemps`, did you mean `attempts`?",
            "13: routes[0].retry.attempts: must be at least 1 or `unlimited` (got 0)",
            "14: routes[0].retry.backoff.initial: must be a duration such as 250ms, 10s or 24h (got `soon`)",
            "14: routes[0].retry.backoff.max: must be at least 1ms (got 0)",
            "15: routes[0].retry.budget: must be a map of keys (got 5)",
            "16: routes[0].idempotency.mismatch: must be at most 499 or `forward` (got 500)",
        ],
    )]);
}

#[test]
fn a_file_that_is_not_a_map_of_keys_is_refused() {
    check(&[
        ("- a\n", &[" must be a map of keys (got a list)"]),
        ("routes: {a: 1}\n", &["1: routes: must be a list (got a map)"]),
        ("routes: [5]\n", &["1: routes[0]: must be a map of keys (got 5)"]),
        ("log: {level: info}\nlog: {level: warn}\n", &["2: log: key given twice, on line 1 too"]),
        (
            "zzz: 1\n",
            &["1: zzz: unknown key `zzz`, must be one of listeners, admin, state, intercept, \
            upstream, egress, shutdown, providers, routes, defaults, log"],
        ),
    ]);
}

#[test]
fn what_is_not_yaml_is_told_with_its_line() {
    for (text, line) in [
        ("a: [1\nb: 2\n", "2: not YAML that can be read: "),
        ("log: {level: info}\n\tadmin: x\n", "2: not YAML that can be read: "),
        ("a: *none\n", "1: not YAML that can be read: "),
        ("a: 1\n---\nb: 1\n", ""),
        (BOMB, ""),
    ] {
        let found = faults(text, &Environment::default());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(line), "{found:?}");
    }
}

const BOMB: &str = "\
a: &a [x, x, x, x, x, x, x, x, x, x]
b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]
c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]
d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]
e: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]
f: &f [*e, *e, *e, *e, *e, *e, *e, *e, *e, *e]
";

#[test]
fn anchors_and_merges_are_read_where_they_are_used() {
    check(&[(
        "\
routes:
  - name: a
    match: {hosts: [a]}
    retry: &shared
      attempts: 0
  - name: b
    match: {hosts: [b]}
    retry: *shared
",
        &[
            "5: routes[0].retry.attempts: must be at least 1 or `unlimited` (got 0)",
            "8: routes[1].retry.attempts: must be at least 1 or `unlimited` (got 0)",
        ],
    )]);
}

#[test]
fn what_replicas_share_is_read_and_its_password_is_not_told() {
    check(&[
        (
            "state: {shared: {url: 'redis://u:hunter2@'}}",
            &["1: state.shared.url: must be a host name or an address"],
        ),
        (
            "state: {shared: {lease: 10ms}}",
            &[
                "1: state.shared.lease: must be at least 1s (got `10ms`)",
                "1: state.shared.url: must be given, such as redis://127.0.0.1:6379",
            ],
        ),
        ("state: {shared: {url: 'rediss+sentinel://u:p@a:1,b:2/main', wait_replicas: 1}}", &[]),
    ]);
}

#[test]
fn what_is_named_by_a_list_or_a_word_is_either() {
    check(&[
        ("providers: some", &["1: providers: must be `all` or a list (got `some`)"]),
        ("providers: []", &[]),
        ("state: {journal: disk, shared: null}\nupstream: {proxy: null}\nproviders: all", &[]),
    ]);
}

#[test]
fn durations_and_sizes_have_one_number_and_one_unit() {
    let grace = |text: &str| loaded(&format!("shutdown: {{grace: {text}}}")).shutdown_grace;
    for (text, ms) in
        [("0", 0), ("0s", 0), ("250ms", 250), ("10s", 10_000), ("5m", 300_000), ("1h", 3_600_000)]
    {
        assert_eq!(grace(text), Duration::from_millis(ms), "{text}");
    }
    let refused =
        |text: &str| faults(&format!("shutdown: {{grace: {text}}}"), &Environment::default());
    for bad in [
        "5",
        "-5s",
        "+5s",
        "1m30s",
        "1.5s",
        "5 s",
        "s",
        "5S",
        "''",
        "99999999999999999999s",
        "18446744073709551615d",
        "null",
    ] {
        let wanted = "1: shutdown.grace: must be a duration such as 250ms, 10s or 24h";
        assert!(refused(bad)[0].starts_with(wanted), "{bad}: {:?}", refused(bad));
    }
    assert_eq!(refused("3601s"), ["1: shutdown.grace: must be at most 1h (got `3601s`)"]);
    let held = |text: &str| loaded(&format!("state: {{held_disk: {text}}}")).state.held_disk;
    for (text, bytes) in
        [("0", 0), ("100B", 100), ("64KiB", 65_536), ("10MiB", 10 << 20), ("2GiB", 2 << 30)]
    {
        assert_eq!(held(text), bytes, "{text}");
    }
    check(&[(
        "state: {max_size: 1048575B}",
        &["1: state.max_size: must be at least 1MiB (got `1048575B`)"],
    )]);
}

#[test]
fn what_is_wrong_in_the_log_is_told() {
    check(&[
        (
            "log: {level: loud}",
            &[
                "1: log.level: must be one of off, error, warn, info, debug, trace, or such by module as in warn,samekey=debug (got `loud`)",
            ],
        ),
        ("log: {level: \"warn,samekey=debug\", format: json}", &[]),
        (
            "log: {level: \"warn,\", format: xml}",
            &[
                "1: log.level: must be one of off, error, warn, info, debug, trace, or such by module as in warn,samekey=debug (got `warn,`)",
                "1: log.format: must be one of text, json (got `xml`)",
            ],
        ),
    ]);
}
