//! The further proxy that upstreams are reached through, and the way the process ends.

use std::fs;
use std::time::Duration;

use super::{check, faults, loaded};
use crate::config::Environment;
use crate::exchange::Origin;
use crate::upstream::{Allowed, FurtherProxy};

const WANTED: &str = "must be http://HOST:PORT or https://HOST:PORT, the port included";

#[test]
fn a_proxy_is_a_url_or_that_and_more() {
    assert_eq!(loaded("upstream: {proxy: null}").upstream.proxy, None);
    let at = |url: &str| Origin::parse(url).expect("an origin");
    for (url, wanted) in [
        ("http://proxy.test:3128", "http://proxy.test:3128"),
        ("HTTPS://Proxy.test:443/", "https://proxy.test"),
        ("http://[2001:db8::1]:80", "http://[2001:db8::1]"),
    ] {
        let wanted = Some(FurtherProxy::new(at(wanted), None, Vec::new()));
        assert_eq!(loaded(&format!("upstream: {{proxy: '{url}'}}")).upstream.proxy, wanted);
        let block = format!("upstream: {{proxy: {{url: '{url}'}}}}");
        assert_eq!(loaded(&block).upstream.proxy, wanted);
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("password");
    fs::write(&file, "s3 cret\n").expect("written");
    let config = loaded(&format!(
        "upstream: {{proxy: {{url: 'http://a.test:1', user: ann, password_file: {}, \
         except: [App, '*.svc', 10.1.2.3/8]}}}}",
        file.display()
    ));
    let except = vec![
        Allowed::Host("app".to_owned()),
        Allowed::Host("*.svc".to_owned()),
        Allowed::Network("10.0.0.0/8".parse().expect("a network")),
    ];
    let wanted = FurtherProxy::new(at("http://a.test:1"), Some(("ann", "s3 cret")), except);
    assert_eq!(config.upstream.proxy, Some(wanted));
}

#[test]
fn what_is_wrong_with_a_proxy_is_told_and_no_password_with_it() {
    let userinfo = "must be without a user or password: they go into `user` and `password_file`";
    for url in ["http://ann:hunter2@a.test:1", "https://hunter2@a.test:1/", "socks5://u:hunter2@a"]
    {
        let short = faults(&format!("upstream: {{proxy: '{url}'}}"), &Environment::default());
        assert_eq!(short, [format!("1: upstream.proxy: {userinfo}")]);
        let block = format!("upstream: {{proxy: {{url: '{url}'}}}}");
        let long = faults(&block, &Environment::default());
        assert_eq!(long, [format!("1: upstream.proxy.url: {userinfo}")]);
    }
    for url in [
        "proxy.test:3128",
        "http://proxy.test",
        "http://proxy.test/",
        "http://proxy.test:3128/x",
        "http://proxy.test:0",
        "http://proxy.test:99999",
        "http://[2001:db8::1]",
        "socks5://proxy.test:1080",
        "",
    ] {
        let found = faults(&format!("upstream: {{proxy: '{url}'}}"), &Environment::default());
        assert_eq!(found, [format!("1: upstream.proxy: {WANTED}")], "{url}");
    }
    check(&[
        ("upstream: {proxy: 3128}", &[&format!("1: upstream.proxy: {WANTED}")]),
        (
            "upstream: {proxy: {user: ann, except: ['a:1']}}",
            &[
                "1: upstream.proxy.except[0]: must be a host without port or a network, such as *.example.net or 10.0.0.0/8 (got `a:1`)",
                "1: upstream.proxy.url: must be given, such as http://proxy.example.com:3128",
                "1: upstream.proxy.password_file: must be given with `user`",
            ],
        ),
        (
            "upstream: {proxy: {url: 'http://a:1', user: 'ann:hunter2', password_file: none}}",
            &["1: upstream.proxy.user: must be a name without a colon"],
        ),
        (
            "upstream: {proxy: {url: 'http://a:1', password_file: none}}",
            &["1: upstream.proxy.user: must be given with `password_file`"],
        ),
        (
            "upstream: {proxy: {url: 'http://a:1', user: ann, password_file: /none/there}}",
            &["1: upstream.proxy.password_file: /none/there: cannot be read: No such file or \
               directory (os error 2)"],
        ),
    ]);
}

#[test]
fn a_proxy_that_is_ourselves_is_a_fault() {
    check(&[
        (
            "upstream: {proxy: 'http://localhost:8080'}",
            &["1: upstream.proxy: is listeners[0].address: samekey would go through itself"],
        ),
        (
            "upstream:\n  proxy:\n    url: http://127.0.0.1:9090\n",
            &["3: upstream.proxy.url: is admin.address: samekey would go through itself"],
        ),
        (
            "listeners: [{address: '0.0.0.0:3128', auth: open}]\nupstream: {proxy: 'http://127.0.0.1:3128'}",
            &["2: upstream.proxy: is listeners[0].address: samekey would go through itself"],
        ),
        // Another machine's.
        (
            "listeners: [{address: '0.0.0.0:3128', auth: open}]\nupstream: {proxy: 'http://10.0.0.5:3128'}",
            &[],
        ),
        ("upstream: {proxy: 'http://127.0.0.1:3128'}", &[]),
    ]);
}

#[test]
fn the_process_ends_after_a_delay_and_a_grace() {
    let [usual, other] = ["", "shutdown: {delay: 5s, grace: 0}"].map(loaded);
    let secs = Duration::from_secs;
    assert_eq!((usual.shutdown_delay, usual.shutdown_grace), (secs(0), secs(30)));
    assert_eq!((other.shutdown_delay, other.shutdown_grace), (secs(5), secs(0)));
    check(&[("shutdown: {delay: 2h}", &["1: shutdown.delay: must be at most 1h (got `2h`)"])]);
}
