//! Which file is read, and what the environment changes.

use std::fs;
use std::path::Path;

use http::Method;

use super::{faults, loaded};
use crate::config::{Config, Environment, Faults, LogFormat, Source, load, parse, search};
use crate::idempotency::Mismatch;
use crate::intercept::OnDistrust;
use crate::listen::{Auth, Caps, Mode, Spec};
use crate::route::Route;

#[test]
fn the_environment_is_laid_over_the_file() {
    let text =
        "listeners: [{address: '127.0.0.1:1'}, {address: '127.0.0.1:2'}]\nlog: {level: debug}";
    let set = |text: &str| Some(text.to_owned());
    let env = Environment {
        listen: set("127.0.0.1:0"),
        auth: None,
        admin: set("[::1]:0"),
        state_dir: set("/var/lib/x"),
        log: set("warn"),
        log_format: set("text"),
        config: None,
        ..Environment::default()
    };
    let config = parse(text, Path::new("a.yaml"), &env).expect("a config");
    let addresses: Vec<_> = config.listeners.iter().map(|spec| spec.address.as_str()).collect();
    assert_eq!(addresses, ["127.0.0.1:0", "127.0.0.1:2"]);
    assert_eq!(config.admin.address, "[::1]:0");
    assert_eq!(config.state.public, Path::new("/var/lib/x/public"));
    assert_eq!((config.log.level.as_str(), config.log.format), ("warn", Some(LogFormat::Text)));

    let env = Environment {
        listen: set("8080"),
        admin: set("127.0.0.1:2"),
        log: set("loud"),
        log_format: set("xml"),
        ..Environment::default()
    };
    assert_eq!(
        faults(text, &env),
        [
            "SAMEKEY_LISTEN: must be host:port, such as 127.0.0.1:8080, [::1]:8080 or localhost:0 (got `8080`)",
            "SAMEKEY_LOG: must be one of off, error, warn, info, debug, trace, or such by module as in warn,samekey=debug (got `loud`)",
            "SAMEKEY_LOG_FORMAT: must be one of text, json (got `xml`)",
            "SAMEKEY_ADMIN: 127.0.0.1:2 is taken by listeners[1].address",
        ]
    );
    let env = Environment { listen: set("0.0.0.0:80"), ..Environment::default() };
    assert_eq!(
        faults("", &env),
        [
            "SAMEKEY_LISTEN: listeners[0].auth (or SAMEKEY_AUTH) must be {user, password_file} or `open`: 0.0.0.0:80 can be reached from other machines",
        ]
    );
}

#[test]
fn a_key_that_says_something_else_than_its_variable_is_told() {
    let set = |text: &str| Some(text.to_owned());
    let env = Environment {
        listen: set("127.0.0.1:1"),
        auth: set("open"),
        admin: set("127.0.0.1:2"),
        state_dir: set("/x"),
        log: set("warn"),
        log_format: set("json"),
        ..Environment::default()
    };
    let check = |text: &str, env: &Environment, wanted: &[(&str, &str)]| {
        let config = parse(text, Path::new("a.yaml"), env).expect("a config");
        let told = config.overridden.iter().map(|told| (told.variable, told.key));
        assert_eq!(told.collect::<Vec<_>>(), wanted, "{text}");
    };
    let all = "listeners: [{address: '127.0.0.1:8', auth: {user: ann, password_file: /none}}]\n\
               admin: {address: '127.0.0.1:9'}\nstate: {dir: /data}\n\
               log: {level: debug, format: text}";
    let wanted = [
        ("SAMEKEY_LISTEN", "listeners[0].address"),
        ("SAMEKEY_AUTH", "listeners[0].auth"),
        ("SAMEKEY_ADMIN", "admin.address"),
        ("SAMEKEY_STATE_DIR", "state.dir"),
        ("SAMEKEY_LOG", "log.level"),
        ("SAMEKEY_LOG_FORMAT", "log.format"),
    ];
    check(all, &env, &wanted);
    let alike = "listeners: [{address: '127.0.0.1:1'}]\nadmin: {address: '127.0.0.1:2'}\n\
                 state: {dir: /x/}\nlog: {level: warn, format: json}";
    check(alike, &env, &[]);
    check("state: {journal: memory}", &env, &[]);
    check("state: {dir: /data}", &Environment::default(), &[]);
}

#[test]
fn a_variable_says_who_may_use_the_first_listener() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("pass:word");
    fs::write(&file, "s3cret\n").expect("written");
    let file = file.display();
    let text = "listeners: [{address: '127.0.0.1:1'}, {address: '127.0.0.1:2'}]";
    let env = |auth: &str| Environment {
        listen: Some("0.0.0.0:0".to_owned()),
        auth: Some(auth.to_owned()),
        ..Environment::default()
    };
    let ann = Auth::Basic { user: "ann".to_owned(), password: "s3cret".to_owned() };
    for (auth, wanted) in [("open", Auth::Open), (&format!("ann:{file}"), ann)] {
        let config = parse(text, Path::new("a.yaml"), &env(auth)).expect("a config");
        assert_eq!(config.listeners[0].auth, wanted, "{auth}");
        assert_eq!(config.listeners[1].auth, Auth::Open, "the file's own word");
    }
    let of_the_file =
        "listeners: [{address: '127.0.0.1:1', auth: {user: bob, password_file: /none}}]";
    let config = parse(of_the_file, Path::new("a.yaml"), &env("open")).expect("a config");
    assert_eq!(config.listeners[0].auth, Auth::Open, "laid over what the file says");

    for auth in ["closed", "OPEN", ":", "ann:", &format!(":{file}"), &format!("a\nn:{file}")] {
        let wanted = "SAMEKEY_AUTH: must be `open` or NAME:PASSWORD_FILE";
        assert_eq!(faults(text, &env(auth)), [wanted], "{auth}");
    }
    // A password in place of its file is not repeated.
    for auth in ["ann:/none", "bob:hunter2"] {
        let missing = "SAMEKEY_AUTH: must be `open` or NAME:PASSWORD_FILE: that file cannot be \
            read: No such file or directory (os error 2)";
        assert_eq!(faults(text, &env(auth)), [missing], "{auth}");
    }
    let long = dir.path().join("long");
    fs::write(&long, "x".repeat(5000)).expect("written");
    let found = faults(text, &env(&format!("ann:{}", long.display())));
    assert!(found[0].starts_with("SAMEKEY_AUTH: must be ") && found[0].contains("is longer than"));
}

#[test]
fn a_file_is_looked_for_in_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let [first, second, none] =
        ["first.yaml", "second.yaml", "none.yaml"].map(|name| dir.path().join(name));
    fs::write(&first, "log: {level: warn}").expect("written");
    fs::write(&second, "log: {level: debug}").expect("written");
    let env = Environment::default();
    let source = |found: Result<Config, Faults>| found.expect("a config").source;
    assert_eq!(source(search(&[&none, &second, &first], &env)), Source::File(second.clone()));
    assert_eq!(source(search(&[&none], &env)), Source::BuiltIn);
    assert_eq!(source(load(Some(&first), &env)), Source::File(first.clone()));
    let named = |path: &Path| Environment {
        config: Some(path.display().to_string()),
        ..Environment::default()
    };
    assert_eq!(source(load(None, &named(&second))), Source::File(second.clone()));
    assert_eq!(source(load(Some(&first), &named(&none))), Source::File(first));

    let missing = "cannot be read: No such file or directory (os error 2)";
    let fault = |found: Result<Config, Faults>| found.expect_err("a fault").to_string();
    assert_eq!(fault(load(Some(&none), &env)), format!("{}: {missing}", none.display()));
    assert_eq!(
        fault(load(None, &named(&none))),
        format!("SAMEKEY_CONFIG: {}: {missing}", none.display())
    );
    assert!(fault(search(&[dir.path(), &second], &env)).contains("cannot be read"));
    fs::write(&second, vec![b'#'; (4 << 20) + 1]).expect("written");
    assert!(fault(load(Some(&second), &env)).ends_with("cannot be read: larger than 4MiB"));
    fs::write(&second, vec![b'#'; 4 << 20]).expect("written");
    assert!(load(Some(&second), &env).is_ok());
}

#[test]
fn without_a_file_one_route_covers_every_host() {
    let config = search(&[], &Environment::default()).expect("a config");
    let Some((route, presets)) = config.routes.split_last() else { panic!("no route") };
    assert_eq!(route.name, "default");
    assert!(presets.iter().all(|route| route.provenance.built_in().is_some()));
    let forwards = |route: &Route| route.rules.mismatch == Mismatch::Forward;
    assert!(presets.iter().any(forwards), "what a preset says nothing of is never refused");
    assert!(route.matcher.matches("any.test", 1, &Method::GET, "/"));
    assert_eq!(route.rules.mismatch, Mismatch::Forward);
    assert!(route.rules.pass_malformed_keys && !route.retry.deadline.cuts_attempts);
    assert_eq!(config.intercept.on_distrust, OnDistrust::Tunnel);
}

#[test]
fn a_file_without_keys_is_at_the_documented_defaults() {
    for text in ["", "# nothing\n", "routes:\nlog:\n", "{}"] {
        let config = loaded(text);
        assert!(config.routes.is_empty());
        assert_eq!(config.intercept.on_distrust, OnDistrust::Fail);
        assert_eq!(
            config.listeners,
            [Spec {
                address: "127.0.0.1:8080".to_owned(),
                mode: Mode::Forward,
                auth: Auth::Open,
                caps: Caps::default(),
            }]
        );
        assert_eq!(config.state.public, Path::new("./samekey-data/public"));
        assert_eq!((config.state.held_memory, config.state.held_disk), (64 << 20, 1 << 30));
        assert_eq!(config.egress.deny.len(), 2);
        assert_eq!((config.log.level.as_str(), config.log.format), ("info", None));
    }
}
