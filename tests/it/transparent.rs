//! Transparent listeners as far as no rule is needed; `tests/netns` has the rest.

use std::net::SocketAddr;

use http::Method;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::Samekey;
use crate::support::client::{over_http1, over_http2, raw, read_all, request};
use crate::support::program::{folder_with, samekey};

const LISTENERS: &str = "listeners: [{address: '127.0.0.1:0', mode: transparent}]\n";

#[tokio::test]
async fn who_was_not_redirected_is_told_whom_to_ask() {
    let samekey = Samekey::start(LISTENERS).await;
    let url = format!("http://{}/v1", samekey.proxy).parse().expect("a URL");
    let ask = || request(Method::POST, &url, &[], "x");
    let dial = async || TcpStream::connect(samekey.proxy).await.expect("it listens");
    let answers = [
        over_http1(dial().await, ask()).await.expect("an answer"),
        over_http2(dial().await, ask()).await.expect("an answer"),
    ];
    for answer in answers {
        assert_eq!(answer.said(), (400, "bad-request".to_owned()));
        assert!(answer.text().contains("mode: forward"), "{}", answer.text());
    }
    let proxied =
        raw(samekey.proxy, b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n").await;
    assert!(proxied.starts_with("HTTP/1.1 400 "), "{proxied}");
    // What no answer can be written in is only ended.
    for first in [&b"\x16\x03\x01\x00\x05hello"[..], b"\x00\x01"] {
        let mut stream = dial().await;
        stream.write_all(first).await.expect("it takes them");
        assert_eq!(read_all(&mut stream).await, "");
        samekey.until(&format!("samekey_connections{{listener=\"{}\"}}", samekey.proxy), 0.0).await;
    }
    assert!(samekey.metric("samekey_tunnels_total").await < 0.5);
}

#[tokio::test]
async fn programs_are_given_the_ca_and_no_proxy_where_no_listener_is_one() {
    for listeners in [LISTENERS, "listeners: [{address: '127.0.0.1:0', mode: reverse}]\n"] {
        the_ca_alone(listeners).await;
    }
}

async fn the_ca_alone(listeners: &str) {
    let samekey = Samekey::start(listeners).await;
    let file = samekey.path().join("state/public/env.sh");
    let text = std::fs::read_to_string(file).expect("published");
    for name in ["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "trustStore="] {
        assert!(text.contains(name), "{name} is not in {text}");
    }
    for name in ["PROXY", "proxy"] {
        assert!(!text.contains(name), "{name} is in {text}");
    }
    let ran = crate::support::program::samekey(samekey.path(), &["env"]).await;
    assert_eq!((ran.code, ran.out.contains("PROXY")), (Some(0), false), "{ran:?}");
    assert!(ran.out.contains("SSL_CERT_FILE"));
}

/// The rules that a config and these flags come to.
async fn printed(config: &str, flags: &[&str]) -> (Option<i32>, String, String) {
    let folder = folder_with(config);
    let ran = samekey(folder.path(), &[&["capture", "print"], flags].concat()).await;
    (ran.code, ran.out, ran.err)
}

#[tokio::test]
async fn capture_prints_rules_for_the_listeners_of_the_config() {
    let both = "listeners: [{address: '127.0.0.1:8082', mode: transparent}, {address: '[::1]:8083', mode: transparent}]\n";
    let (code, out, err) = printed(both, &["--uid", "7", "--ports", "443,80,443"]).await;
    assert_eq!((code, &*err), (Some(0), ""));
    for words in [
        "meta skuid 7 return",
        "meta nfproto ipv4 tcp dport { 80, 443 } redirect to :8082",
        "meta nfproto ipv6 tcp dport { 80, 443 } redirect to :8083",
    ] {
        assert!(out.contains(words), "{words} is not in {out}");
    }
    let (code, out, err) = printed(both, &["--backend", "iptables", "--except", "10.1.2.3"]).await;
    assert_eq!((code, &*err), (Some(0), ""));
    assert!(out.starts_with("#!/bin/sh\n") && out.contains("-d 10.1.2.3/32 -j RETURN"), "{out}");
    let one = "listeners: [{address: '127.0.0.1:8082', mode: transparent}]\n";
    let (code, out, err) = printed(one, &[]).await;
    assert_eq!((code, out.contains("nfproto ipv6")), (Some(0), false));
    assert!(out.contains("meta skuid 65532 return"), "the image's user, whoever asks: {out}");
    assert_eq!(err, "samekey capture: IPv6 is not redirected: no transparent listener on [::1]\n");
}

#[tokio::test]
async fn capture_says_what_it_cannot_do() {
    let transparent = "listeners: [{address: '127.0.0.1:8082', mode: transparent}]\n";
    let free = "listeners: [{address: '127.0.0.1:0', mode: transparent}]\n";
    for (config, flags, wish) in [
        ("", &[][..], "no listener has `mode: transparent`"),
        (free, &[], "needs a port that is fixed"),
        ("listeners: [{mode: transparant}]\n", &[], "must be one of forward, transparent, reverse"),
        (transparent, &["--uid", "7", "--only-uid", "7"], "nothing would be redirected"),
        (transparent, &["--ports", "0"], "0 is not in 1..=65535"),
        (transparent, &["--except", "10.0.0.0/33"], "must be a network"),
    ] {
        let (code, out, err) = printed(config, flags).await;
        assert_eq!((code, &*out), (Some(2), ""), "{flags:?}: {err}");
        assert!(err.contains(wish), "{flags:?}: {err}");
    }
    let missing = printed(transparent, &["-o", "nowhere/rules"]).await;
    assert_eq!((missing.0, missing.1), (Some(1), String::new()));
    assert!(missing.2.contains("nowhere/rules"), "{}", missing.2);
}

#[tokio::test]
async fn a_transparent_listener_stands_beside_others() {
    let listeners =
        "listeners: [{address: '127.0.0.1:0'}, {address: '[::1]:0', mode: transparent}]\n";
    let samekey = Samekey::start(listeners).await;
    let [forward, transparent]: [SocketAddr; 2] =
        samekey.listeners.clone().try_into().expect("two of them");
    assert!(forward.is_ipv4() && transparent.is_ipv6());
    samekey.logged(&["samekey is up", &format!("transparent proxy on {transparent}")]).await;
    let file = samekey.path().join("state/public/env.sh");
    let text = std::fs::read_to_string(file).expect("published");
    assert!(text.contains(&format!("HTTPS_PROXY='http://{forward}'")), "{text}");
}
