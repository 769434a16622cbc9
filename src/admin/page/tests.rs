//! What the page shows, and that it shows it as text.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::routing::get;
use serde_json::json;
use tokio::sync::broadcast;
use tower::Service as _;

use super::*;
use crate::admin::books::tests::desk;
use crate::admin::shown::tests::entry;

/// What a page must never pass on as it came.
const EVIL: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>";

fn seen(unknown: Listed, recent: Listed) -> Seen {
    let status = json!({
        "version": "0.1.0", "up_seconds": 3725, "listeners": ["127.0.0.1:8080", EVIL],
        "admin": "127.0.0.1:9090", "config": EVIL, "draining": false, "inbox_waiting": 3,
        "store": {"kind": "disk", "entries": 12, "bytes": 4096},
    });
    let route = |name: &str, own: bool| {
        json!({
            "name": name, "own": own, "preset": "p", "written": "samekey.yaml:2", "kind": null,
            "mode": "enforce", "hosts": ["a.test", "*.b.test"], "attempts": "unlimited",
            "deadline_seconds": 300.0, "upstream_dedupes": true, "budget_tokens": 100,
        })
    };
    let routes = json!({"routes": [route(EVIL, true), route("shipped", false)]});
    let breaker = breakers::Shown {
        route: EVIL.to_owned(),
        origin: "https://a.test".to_owned(),
        opened_at: UNIX_EPOCH,
        resets_at: UNIX_EPOCH,
    };
    let at = "2026-03-01T03:02:11.480Z".to_owned();
    Seen { status, routes, unknown, recent, breakers: vec![breaker], at }
}

fn evil(state: Outcome) -> Exchange {
    let mut entry = entry(1_000, Some(EVIL), state);
    entry.url = format!("https://a.test/{EVIL}");
    entry.captured = vec![(EVIL.to_owned(), EVIL.to_owned())];
    entry.attempts[0].outcome = EVIL.to_owned();
    entry.route = EVIL.to_owned();
    Exchange::from(&entry)
}

#[test]
fn nothing_that_comes_from_traffic_is_markup() {
    let list = |state| Ok(vec![evil(state)]);
    let pages = [
        seen(list(Outcome::Unknown), list(Outcome::Completed)),
        seen(Err(EVIL.to_owned()), Err(EVIL.to_owned())),
    ];
    for seen in pages {
        let page = page(&seen).into_string();
        assert!(page.matches("&lt;script&gt;").count() > 3, "it is shown as text");
        let page = page.replace(STYLE, "");
        for markup in ["<script", "<img", "\"'>"] {
            assert!(!page.contains(markup), "{markup}:\n{page}");
        }
    }
}

#[test]
fn what_is_unknown_comes_first_with_the_lines_that_settle_it() {
    let one = |state| Ok(vec![Exchange::from(&entry(1_000, Some("order-1"), state))]);
    let page = page(&seen(one(Outcome::Unknown), one(Outcome::Completed))).into_string();
    let at = |words: &str| page.find(words).unwrap_or_else(|| panic!("no {words}:\n{page}"));
    assert!(at("id=\"unknown\"") < at("id=\"breakers\""));
    assert!(at("id=\"breakers\"") < at("id=\"recent\""));
    assert!(at("id=\"recent\"") < at("id=\"routes\""));
    for words in [
        "<title>samekey: 1 unknown</title>",
        "samekey ledger resolve 00000000003e800000007 landed",
        "samekey ledger resolve 00000000003e800000007 absent",
        "<code>order-1</code>",
        "up</span> for 1 h 2 min",
        "disk: 12 keys, 4 KiB",
        "a.test, *.b.test",
        "unlimited in 300 s",
        "http://127.0.0.1:9090/api/breakers/reset",
        "throttled 429",
        "ambiguous<span class=\"quiet\"> after 1000 ms</span>",
        "1 route of presets",
    ] {
        at(words);
    }
    let calm = super::page(&seen(Ok(Vec::new()), Ok(Vec::new()))).into_string();
    assert!(calm.contains("<title>samekey</title>") && calm.contains("of every key it is known"));
}

#[test]
fn lists_are_cut_where_they_would_bury_the_rest_and_say_so() {
    for (count, rows, more) in [(99, 99, false), (100, 100, false), (101, 100, true)] {
        let entries = (0..count).map(|seq| Exchange::from(&entry(seq, None, Outcome::Unknown)));
        let page = page(&seen(Ok(entries.collect()), Ok(Vec::new()))).into_string();
        assert_eq!(page.matches(" landed\n").count(), rows, "{count}");
        assert_eq!(page.contains("samekey ledger list --state unknown"), more, "{count}");
    }
}

#[tokio::test]
async fn a_page_loads_runs_and_sends_nothing_even_where_the_ledger_is_damaged() {
    let (ended, _nobody) = broadcast::channel(1);
    let mut desk = desk(ended);
    desk.status = Arc::new(|| json!({"version": "0.1.0"}));
    let mut router = axum::Router::new().route("/", get(show)).with_state(desk);
    let request = Request::get("/").body(Body::empty()).expect("a request");
    let answer = router.call(request).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let policy = answer.headers()["content-security-policy"].to_str().expect("text").to_owned();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.headers()["x-frame-options"], "DENY");
    let body = to_bytes(answer.into_body(), 100_000).await.expect("a page");
    let page = String::from_utf8(body.to_vec()).expect("text");
    assert!(page.contains("The ledger cannot be read: the journal is damaged"), "{page}");
    for loads in ["src=", "<link", "@import", "url(", "<form", "style=\""] {
        assert!(!page.contains(loads), "{loads}");
    }
}
