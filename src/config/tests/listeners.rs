//! Listeners, and the hosts and networks that are opened or reached.

use std::fs;

use super::{check, faults, loaded};
use crate::config::Environment;
use crate::listen::{Auth, Mode, Target};
use crate::upstream::Allowed;

#[test]
fn what_others_can_reach_asks_who_they_are() {
    let open = "must be {user, password_file} or `open`";
    let off = |address: &str| format!("listeners:\n- {{address: \"{address}\"}}\n");
    for address in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "LOCALHOST:0"] {
        assert!(faults(&off(address), &Environment::default()).is_empty(), "{address}");
    }
    for address in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "host.test:1", "localhost.test:1"] {
        let found = faults(&off(address), &Environment::default());
        let wanted =
            format!("2: listeners[0].auth: {open}: {address} can be reached from other machines");
        assert_eq!(found, [wanted]);
    }
    check(&[
        ("listeners: [{address: \"0.0.0.0:1\", auth: open}]", &[]),
        (
            "listeners:\n- {address: \"0.0.0.0:1\", mode: reverse, upstream: https://a.test}\n",
            &["2: listeners[0].auth: must be {user, password_file} or `open`: \
             0.0.0.0:1 can be reached from other machines"],
        ),
        (
            "listeners: [{auth: closed}]",
            &[
                "1: listeners[0].auth: must be null, `open` or {user: NAME, password_file: FILE} (got `closed`)",
            ],
        ),
        (
            "listeners: [{auth: 'bob:hunter2'}]",
            &["1: listeners[0].auth: must be null, `open` or {user: NAME, password_file: FILE}"],
        ),
        (
            "listeners: [{auth: {user: \"a:b\"}}]",
            &[
                "1: listeners[0].auth.user: must be a name without a colon",
                "1: listeners[0].auth.password_file: must be given with `user`",
            ],
        ),
    ]);
}

#[test]
fn a_password_is_read_from_its_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("password");
    let shown = file.display().to_string();
    let text = format!(
        "listeners:\n- address: 0.0.0.0:1\n  auth: {{user: ann, password_file: {shown}}}\n"
    );
    let refused = |wish: &str| vec![format!("3: listeners[0].auth.password_file: {shown}: {wish}")];
    let found = || faults(&text, &Environment::default());
    assert_eq!(found(), refused("cannot be read: No such file or directory (os error 2)"));
    for (content, wish) in
        [("", "is empty"), ("\n", "is empty"), ("a\nb\n", "holds more than one line")]
    {
        fs::write(&file, content).expect("written");
        assert_eq!(found(), refused(wish));
    }
    fs::write(&file, "x".repeat(4097)).expect("written");
    assert_eq!(found(), refused("is longer than 4096 bytes"));
    for (content, wanted) in [("s3 cret\n", "s3 cret"), ("s\r\n", "s"), ("ü", "ü")] {
        fs::write(&file, content).expect("written");
        let auth = Auth::Basic { user: "ann".to_owned(), password: wanted.to_owned() };
        assert_eq!(loaded(&text).listeners[0].auth, auth);
    }
    let transparent = format!("{text}  mode: transparent\n");
    let wish = "must be `open` or left out: who knows of no proxy cannot say who it is";
    let found = faults(&transparent, &Environment::default());
    assert_eq!(found, [format!("3: listeners[0].auth: {wish}")]);
}

#[test]
fn listeners_are_what_can_be_served() {
    check(&[
        ("listeners: []", &["1: listeners: must hold at least one listener"]),
        (
            "listeners: [{address: a}, {address: \"::1:80\"}, {address: \"1.2.3:80\"}, {address: \"a:65536\"}]",
            &[
                "1: listeners[0].address: must be host:port, such as 127.0.0.1:8080, [::1]:8080 or localhost:0 (got `a`)",
                "1: listeners[1].address: must be host:port, such as 127.0.0.1:8080, [::1]:8080 or localhost:0 (got `::1:80`)",
                "1: listeners[2].address: must be host:port, such as 127.0.0.1:8080, [::1]:8080 or localhost:0 (got `1.2.3:80`)",
                "1: listeners[3].address: must be host:port, such as 127.0.0.1:8080, [::1]:8080 or localhost:0 (got `a:65536`)",
            ],
        ),
        (
            "listeners:\n- {address: \"127.0.0.1:1\"}\n- {address: \"localhost:1\"}\n- {address: \"0.0.0.0:1\", auth: open}\n",
            &[
                "3: listeners[1].address: localhost:1 is taken by listeners[0].address",
                "4: listeners[2].address: 0.0.0.0:1 is taken by listeners[0].address",
            ],
        ),
        ("listeners: [{address: \"127.0.0.1:0\"}, {address: \"127.0.0.1:0\"}]", &[]),
        ("listeners: [{address: \"127.0.0.1:1\"}, {address: \"[::1]:1\"}]", &[]),
        (
            "admin: {address: \"127.0.0.1:8080\"}",
            &["1: admin.address: 127.0.0.1:8080 is taken by listeners[0].address"],
        ),
        ("listeners: [{mode: transparent, first_word_timeout: 1ms}]", &[]),
        ("listeners: [{mode: transparent, first_word_timeout: 1m, auth: open}]", &[]),
        (
            "listeners: [{mode: transparent, first_word_timeout: 61s}]",
            &["1: listeners[0].first_word_timeout: must be at most 1m (got `61s`)"],
        ),
        ("listeners: [{address: \"0.0.0.0:1\", mode: transparent, auth: open}]", &[]),
        (
            "listeners: [{address: \"0.0.0.0:1\", mode: transparent}]",
            &["1: listeners[0].auth: must be `open`: 0.0.0.0:1 can be reached from other machines"],
        ),
        (
            "listeners: [{mode: transparent, upstream: https://a.test}]",
            &["1: listeners[0].upstream: must not be given without `mode: reverse`"],
        ),
        ("listeners: [{mode: reverse}]", &[]),
        (
            "listeners: [{upstream: https://a.test}]",
            &["1: listeners[0].upstream: must not be given without `mode: reverse`"],
        ),
        (
            "listeners: [{mode: reverse, upstream: https://a.test/x}]",
            &["1: listeners[0].upstream: must be a URL such as https://api.example.com, \
             without path, query or user (got `https://a.test/x`)"],
        ),
        (
            "listeners: [{header_size: 8191B, uri_size: 65535B}]",
            &[
                "1: listeners[0].header_size: must be at least 8KiB (got `8191B`)",
                "1: listeners[0].uri_size: must be at most 65534B (got `65535B`)",
            ],
        ),
        ("listeners: [{header_size: 8KiB, uri_size: 65534B, header_timeout: 1ms}]", &[]),
    ]);
    let reverse = loaded("listeners: [{mode: reverse, upstream: \"http://a.test:81\"}]");
    assert!(matches!(&reverse.listeners[0].mode, Mode::Reverse(Target::One(to)) if to.port == 81));
}

#[test]
fn hosts_and_networks_are_read() {
    check(&[
        (
            "intercept: {except: [\"*\", \"a:1\", \"https://a\"]}",
            &[
                "1: intercept.except[0]: must be a host without port, such as api.example.com or *.example.net (got `*`)",
                "1: intercept.except[1]: must be a host without port, such as api.example.com or *.example.net (got `a:1`)",
                "1: intercept.except[2]: must be a port from 1 to 65535 after the colon (got `https://a`)",
            ],
        ),
        (
            "intercept: {ca: {cert: a}}",
            &["1: intercept.ca.key: must be given: `cert` and `key` go together"],
        ),
        (
            "egress: {deny: [a.test], allow: [10.0.0.0/33]}",
            &[
                "1: egress.deny[0]: must be a network such as 10.0.0.0/8 or fe80::/10 (got `a.test`)",
                "1: egress.allow[0]: must be a host without port or a network, such as *.example.net or 10.0.0.0/8 (got `10.0.0.0/33`)",
            ],
        ),
    ]);
    let config = loaded(
        "intercept: {except: [A.test., \"*.B.test\"]}\negress: {deny: [], allow: [A.test, 10.1.2.3/8, \"::1\"]}",
    );
    assert_eq!(config.intercept.except, ["a.test", "*.b.test"]);
    let nets = ["10.0.0.0/8", "::1/128"].map(|net| Allowed::Network(net.parse().expect("a net")));
    assert_eq!(config.egress.allow, [&[Allowed::Host("a.test".to_owned())][..], &nets].concat());
    assert_eq!(config.egress.deny, []);
}
