//! What can be read off afterwards: metrics, the log, the admin side; and what never can.

mod admin;
mod secrets;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::Method;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::provider::{Options, Provider};
use crate::support::client::{self, raw};
use crate::support::program::{folder_beside, ran, samekey as command};
use crate::support::{Answer, Client, Samekey};

const ROUTE: &str = "
routes:
  - name: r
    match: {hosts: [localhost]}
    retry: {backoff: {initial: 1ms, max: 2ms}, never_when: [{json: /error/code, in: [broke]}]}
    idempotency: {upstream_dedupes: true}
";

/// Families and their labels; histograms have `le` besides.
const FAMILIES: [(&str, &str, &[&str]); 33] = [
    ("exchanges_total", "counter", &["method", "route", "source", "status"]),
    ("exchange_duration_seconds", "histogram", &["route"]),
    ("attempts_total", "counter", &["outcome", "route"]),
    ("retries_total", "counter", &["reason", "route"]),
    ("retry_stopped_total", "counter", &["reason", "route"]),
    ("retry_recovered_total", "counter", &["route"]),
    ("retry_wait_seconds", "histogram", &["route", "source"]),
    ("retry_budget_tokens", "gauge", &["route"]),
    ("idempotency_total", "counter", &["event", "route"]),
    ("store_entries", "gauge", &[]),
    ("store_bytes", "gauge", &[]),
    ("store_operation_seconds", "histogram", &["operation"]),
    ("store_errors_total", "counter", &["operation"]),
    ("store_max_bytes", "gauge", &[]),
    ("unknown_outcomes", "gauge", &["key", "route"]),
    ("ca_not_after_timestamp_seconds", "gauge", &[]),
    ("config_last_reload_successful", "gauge", &[]),
    ("pauses_total", "counter", &["route"]),
    ("limit_wait_seconds", "histogram", &["route"]),
    ("inflight_exchanges", "gauge", &["route"]),
    ("connections", "gauge", &["listener"]),
    ("connections_total", "counter", &["listener"]),
    ("tunnels_total", "counter", &[]),
    ("tunnel_bytes_total", "counter", &["direction"]),
    ("tls_handshakes_total", "counter", &["result", "side"]),
    ("certificates_minted_total", "counter", &[]),
    ("config_reloads_total", "counter", &["result"]),
    ("config_loaded_timestamp_seconds", "gauge", &[]),
    ("build_info", "gauge", &["version"]),
    // Read once more, as sums: what a histogram shows besides its buckets.
    ("exchange_duration_seconds_sum", "", &["route"]),
    ("exchange_duration_seconds_count", "", &["route"]),
    ("retry_wait_seconds_sum", "", &["route", "source"]),
    ("limit_wait_seconds_count", "", &["route"]),
];

/// The labels of each series, and all values of each label, by the series' name.
fn series(text: &str) -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
    let mut found: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once(['{', ' ']).expect("a name and a value");
        let labels = found.entry(name.to_owned()).or_default();
        for label in rest.split_once('}').map_or("", |(labels, _)| labels).split("\",") {
            if let Some((label, value)) = label.split_once("=\"") {
                let values = labels.entry(label.to_owned()).or_default();
                values.insert(value.trim_end_matches('"').to_owned());
            }
        }
    }
    found
}

/// A sidecar that has retried once for each reason there is.
async fn exercised() -> Samekey {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    provider.script("s", "429 retry_after_ms=1; 503; reset_after");
    let samekey = Samekey::beside(&provider, ROUTE).await;
    let client = Client::through(&samekey);
    let answer = client.post(&provider.ports.https_url("/s/s/v1/jobs"), "{}").await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let odd: Method = "BREW".parse().expect("a method");
    client.send(odd, &provider.ports.https_url("/s/s/status/299"), &[], "").await;
    samekey.until(r#"samekey_inflight_exchanges{route="r"}"#, 0.0).await;
    samekey
}

#[tokio::test]
async fn every_metric_is_there_with_its_labels() {
    let text = exercised().await.metrics().await;
    let found = series(&text);
    for (name, kind, wanted) in FAMILIES {
        let name = format!("samekey_{name}");
        if !kind.is_empty() {
            assert!(
                text.contains(&format!("# TYPE {name} {kind}\n")),
                "{name} is no {kind}:\n{text}"
            );
        }
        let shown = if kind == "histogram" { format!("{name}_bucket") } else { name };
        let labels = found.get(&shown).unwrap_or_else(|| panic!("{shown} is not in\n{text}"));
        let labels: Vec<_> =
            labels.keys().map(String::as_str).filter(|label| *label != "le").collect();
        assert_eq!(labels, wanted, "{shown}");
    }
    let values = |name: &str, label: &str| {
        found[&format!("samekey_{name}")][label].iter().cloned().collect::<Vec<_>>()
    };
    assert_eq!(values("exchanges_total", "method"), ["OTHER", "POST"]);
    assert_eq!(values("exchanges_total", "route"), ["r"]);
    assert_eq!(values("exchanges_total", "status"), ["2xx"]);
    assert_eq!(
        values("attempts_total", "outcome"),
        ["ambiguous", "done", "failed", "not_sent", "refused", "replayed", "throttled"]
    );
    assert_eq!(
        values("retries_total", "reason"),
        ["connect", "reset", "status_429", "status_5xx", "timeout"]
    );
    assert_eq!(
        values("retry_stopped_total", "reason"),
        [
            "attempts",
            "body",
            "budget",
            "deadline",
            "off",
            "permanent",
            "retry-after",
            "signed",
            "unsafe",
            "upstream-said-no",
        ]
    );
    assert_eq!(
        values("idempotency_total", "event"),
        [
            "adopted",
            "client",
            "derived",
            "in_progress",
            "injected",
            "joined",
            "not_recorded",
            "recorded",
            "replayed",
            "reused",
            "unknown",
        ]
    );
    assert_eq!(values("retry_wait_seconds_bucket", "source"), ["backoff", "server"]);
    assert_eq!(values("tls_handshakes_total", "result"), ["distrusted", "ok", "other", "reset"]);
    assert_eq!(values("tls_handshakes_total", "side"), ["client", "upstream"]);
}

#[tokio::test]
async fn metrics_tell_what_was_tried() {
    let samekey = exercised().await;
    for (series, wanted) in [
        (r#"retries_total{reason="status_429",route="r"}"#, 1.0),
        (r#"retries_total{reason="status_5xx",route="r"}"#, 1.0),
        (r#"retries_total{reason="reset",route="r"}"#, 1.0),
        (r#"retry_recovered_total{route="r"}"#, 1.0),
        (r#"attempts_total{outcome="throttled",route="r"}"#, 1.0),
        (r#"attempts_total{outcome="ambiguous",route="r"}"#, 1.0),
        (r#"idempotency_total{event="injected",route="r"}"#, 1.0),
        (r#"pauses_total{route="r"}"#, 1.0),
        ("certificates_minted_total", 1.0),
    ] {
        let value = samekey.metric(&format!("samekey_{series}")).await;
        assert!((value - wanted).abs() < 1e-9, "{series} is {value}, not {wanted}");
    }
}

#[tokio::test]
async fn each_exchange_is_one_line_that_explains_it() {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    provider.script("s", "429 retry_after_ms=20; 503");
    let samekey = Samekey::beside(&provider, ROUTE).await;
    let client = Client::through(&samekey);
    let url = provider.ports.https_url("/s/s/v1/jobs");
    for _ in 0..2 {
        client.send(Method::POST, &url, &[("idempotency-key", "a-key-of-mine")], "{}").await;
    }
    samekey.logged(&["stored"]).await;
    let lines: Vec<Value> = samekey
        .log()
        .iter()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .filter(|line: &Value| line["message"] == "exchange")
        .collect();
    assert_eq!(lines.len(), 2, "one line each: {lines:#?}");
    let first = &lines[0];
    for (field, wanted) in [
        ("level", "INFO"),
        ("route", "r"),
        ("method", "POST"),
        ("host", "localhost"),
        ("outcomes", "throttled,failed,done"),
        ("key_source", "client"),
    ] {
        assert_eq!(first[field], wanted, "{field} of {first:#}");
    }
    assert_eq!((&first["status"], &first["attempts"]), (&201.into(), &3.into()));
    assert!(first["wait_ms"].as_u64().expect("a number") >= 20, "{first:#}");
    assert_eq!((&lines[1]["attempts"], &lines[1]["replay"]), (&0.into(), &"stored".into()));
    assert!(lines.iter().all(|line| line.get("code").is_none()), "none of them failed: {lines:#?}");
    assert_eq!(first["key_digest"], lines[1]["key_digest"]);
    assert!(!first["key_digest"].as_str().expect("text").contains("a-key"));
    let up: Value = serde_json::from_str(&samekey.logged(&["samekey is up"]).await).expect("JSON");
    assert_eq!(up["listeners"], format!("forward proxy on {}", samekey.proxy));
    assert_eq!(
        (&up["admin"], &up["config"]),
        (&samekey.admin.to_string().into(), &"samekey.yaml".into())
    );
}

/// A slow upstream shows where its clients give up before it answers.
#[tokio::test]
async fn an_attempt_whose_client_left_is_seen() {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    provider.script("s", "503; hang");
    let samekey = Samekey::beside(&provider, ROUTE).await;
    let mut stream = TcpStream::connect(samekey.proxy).await.expect("it listens");
    let url = format!("http://localhost:{}/s/s/v1/jobs", provider.ports.http_addr.port());
    let asked = format!("GET {url} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(asked.as_bytes()).await.expect("it is taken");
    provider.arrived("s", 2).await;
    drop(stream);
    let line: Value =
        serde_json::from_str(&samekey.logged(&["\"exchange\""]).await).expect("each line is JSON");
    assert_eq!((&line["attempts"], &line["outcomes"]), (&2.into(), &"failed,ambiguous".into()));
    for outcome in ["failed", "ambiguous"] {
        let series = format!("samekey_attempts_total{{outcome=\"{outcome}\",route=\"r\"}}");
        samekey.until(&series, 1.0).await;
    }
}

/// A runbook says: look at `code` in the log. It is the one of the answer.
#[tokio::test]
async fn the_line_of_an_exchange_that_failed_has_the_code_of_its_answer() {
    let samekey =
        Samekey::start("routes: [{name: r, match: {hosts: ['*']}, retry: {attempts: 1}}]").await;
    let client = Client::through(&samekey);
    let answer = client.post("http://127.0.0.1:1/v1/jobs", "{}").await;
    let line: Value =
        serde_json::from_str(&samekey.logged(&["\"exchange\""]).await).expect("each line is JSON");
    assert_eq!(answer.json()["code"], "upstream_unreachable");
    assert_eq!((&line["status"], &line["code"]), (&502.into(), &answer.json()["code"]));
}

#[tokio::test]
async fn a_line_of_text_is_written_where_that_is_asked_for() {
    let folder = crate::support::program::folder_with("state: {journal: memory}");
    let mut run = crate::support::program::command(folder.path(), &["exec", "--", "true"]);
    let ran = ran(run.env("SAMEKEY_LOG_FORMAT", "text")).await;
    assert!(ran.err.contains("samekey is up") && !ran.err.contains('{'), "{}", ran.err);
}
