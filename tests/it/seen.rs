//! What can be read off afterwards: metrics, the log, the admin side; and what never can.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::Method;
use serde_json::Value;
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

/// Everything that a client or an operator would not want to find anywhere, each marked.
const MARK: &str = "s3cr3t";

#[tokio::test]
async fn no_secret_reaches_a_log_a_metric_or_an_error() {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    let folder = Arc::new(folder_beside(
        &provider,
        &format!("log: {{level: trace}}\nintercept: {{hosts: all}}\n{ROUTE}"),
    ));
    let config = std::fs::read_to_string(folder.path().join("samekey.yaml")).expect("written");
    let auth = "{address: '127.0.0.1:0', auth: {user: u, password_file: password}}";
    let config = config.replacen("{address: '127.0.0.1:0'}", auth, 1);
    std::fs::write(folder.path().join("samekey.yaml"), config).expect("written");
    std::fs::write(folder.path().join("password"), "s3cr3t-proxy\n").expect("written");
    let samekey = Samekey::run_in(folder.clone()).await;
    let mut told = Vec::new();
    for (scenario, steps) in [
        ("good", "429 retry_after_ms=1; 503; reset_after"),
        ("bad", "garbage forever"),
        ("cut", "reset_before forever"),
        ("no", "402 body={\"error\":{\"code\":\"broke\",\"text\":\"s3cr3t-answer\"}}"),
        ("short", "truncate"),
    ] {
        provider.script(scenario, steps);
        let target = provider.ports.http_url(&format!("/s/{scenario}/v1/jobs?token=s3cr3t-query"));
        for fields in [
            "Idempotency-Key: s3cr3t-key",
            "Samekey-Key: s3cr3t-identity",
            "Idempotency-Key: s3cr3t key, malformed\u{7f}",
            "X-Api-Key: s3cr3t-api\r\nCookie: a=s3cr3t-cookie",
        ] {
            told.push(ask(&samekey, "POST", &target, fields, "{\"card\": \"s3cr3t-body\"}").await);
        }
        // The same key with another body is refused, and says so without either.
        told.push(
            ask(
                &samekey,
                "POST",
                &target,
                "Idempotency-Key: s3cr3t-key",
                "{\"card\": \"s3cr3t-2\"}",
            )
            .await,
        );
    }
    for target in [
        "http://127.0.0.1:1/?q=s3cr3t-query",
        "http://u:s3cr3t-user@127.0.0.1:1/",
        "/s3cr3t?q=s3cr3t",
        "http://[s3cr3t/",
    ] {
        told.push(ask(&samekey, "GET", target, "Authorization: Bearer s3cr3t-bearer", "").await);
    }
    told.push(
        raw(samekey.proxy, b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nX-S: s3cr3t\0\r\n\r\n")
            .await,
    );
    told.push(raw(samekey.proxy, b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nProxy-Authorization: Basic czNjcjN0OnMzY3IzdA==\r\n\r\n").await);
    samekey.until(r#"samekey_inflight_exchanges{route="r"}"#, 0.0).await;
    for path in ["/", "/api/status", "/api/routes", "/api/s3cr3t", "/metrics"] {
        told.push(client::get(samekey.admin, path).await.text());
    }
    for arguments in [
        &["check"][..],
        &["env"],
        &["explain", "POST", "https://localhost/?q=s3cr3t", "-H", "Idempotency-Key: s3cr3t"],
    ] {
        let ran = command(folder.path(), arguments).await;
        told.push(format!("{}{}", ran.out, ran.err));
    }
    for line in samekey.log().iter().chain(&told) {
        let clean = !line.contains(MARK) && !line.contains("czNjcjN0");
        // What the upstream answers is the client's own.
        assert!(clean || line.contains("s3cr3t-answer") || line.contains("job-"), "{line}");
    }
    assert!(samekey.log().iter().any(|line| line.contains("\"exchange\"")), "it did log");
}

#[tokio::test]
async fn no_secret_reaches_the_finest_log_over_tls_and_http2() {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    provider.script("s", "429 retry_after_ms=1; 503; failed_stream");
    let samekey = Samekey::beside(&provider, &format!("log: {{level: trace}}\n{ROUTE}")).await;
    let url = provider.ports.https_url("/s/s/v1/jobs?token=s3cr3t-query");
    for client in [Client::through(&samekey), Client::through(&samekey).h2()] {
        let fields = [
            ("authorization", "Bearer s3cr3t-bearer"),
            ("idempotency-key", "s3cr3t-key"),
            ("x-api-key", "s3cr3t-api"),
            ("cookie", "a=s3cr3t-cookie"),
        ];
        let answer = client.send(Method::POST, &url, &fields, "{\"card\": \"s3cr3t-body\"}").await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    samekey.logged(&["stored"]).await;
    for line in samekey.log() {
        assert!(!line.contains(MARK), "{line}");
    }
}

/// One request with a proxy password and marked credentials; the answer, and not what it echoes.
async fn ask(samekey: &Samekey, method: &str, target: &str, fields: &str, body: &str) -> String {
    let host = target.split('/').nth(2).unwrap_or("a.test");
    let length = body.len();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: Basic dTpzM2NyM3QtcHJveHk=\r\n\
         Authorization: Bearer s3cr3t-bearer\r\n{fields}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    let answer = raw(samekey.proxy, head.as_bytes()).await;
    // The key that was sent is said back to whoever sent it.
    let mine = |line: &&str| !line.to_lowercase().starts_with("idempotency-key:");
    answer.split("\r\n").filter(mine).collect::<Vec<_>>().join("\n")
}

/// An address of this machine that is not loopback.
fn other_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?; // asks for a way there, and sends nothing
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

/// What the admin side answers to a request with these fields, by its address.
async fn admin(address: SocketAddr, head: &str) -> (u16, String) {
    let stream = TcpStream::connect(address).await.expect("it listens");
    let mut lines = head.split('\n');
    let (method, path) =
        lines.next().and_then(|line| line.split_once(' ')).expect("method and path");
    let fields: Vec<_> = lines.filter_map(|line| line.split_once(": ")).collect();
    let uri: http::Uri = format!("http://{address}{path}").parse().expect("a URL");
    let mut request = client::request(method.parse().expect("a method"), &uri, &[], "");
    for (name, value) in fields {
        let name: http::HeaderName = name.parse().expect("a name");
        request.headers_mut().insert(name, value.parse().expect("a value"));
    }
    let answer: Answer = client::over_http1(stream, request).await.expect("an answer");
    (answer.status.as_u16(), answer.text())
}

#[tokio::test]
async fn the_admin_side_answers_callers_on_loopback_and_no_web_page() {
    let samekey = Samekey::start(ROUTE).await;
    for (head, wanted) in [
        ("GET /livez", 200),
        ("GET /readyz", 200),
        ("GET /metrics", 200),
        ("GET /api/status", 200),
        ("GET /api/routes", 200),
        ("POST /api/reload", 200),
        ("GET /api/reload", 405),
        ("POST /api/status", 405),
        ("GET /api/nothing", 404),
        ("GET /nothing", 404),
        ("GET /", 200),
        ("POST /", 405),
        ("GET /\nHost: evil.test", 403),
        ("GET /\nOrigin: http://evil.test", 403),
        ("GET /api/exchanges?route=r", 200),
        ("GET /api/exchanges?limit=0", 400),
        ("GET /api/exchanges/1", 404),
        ("POST /api/exchanges/1/resolve", 404),
        ("GET /api/keys/k", 404),
        ("DELETE /api/keys/k", 404),
        ("POST /api/exchanges", 405),
        ("DELETE /api/exchanges/1", 405),
        ("GET /api/exchanges/1/resolve", 405),
        ("POST /api/keys/k", 405),
        ("POST /api/events", 405),
        ("GET /api/status\nHost: localhost:9090", 200),
        ("GET /api/status\nHost: evil.test", 403),
        ("GET /api/status\nHost: evil.test\nOrigin: http://evil.test", 403),
        ("POST /api/reload\nOrigin: http://evil.test", 403),
        ("POST /api/reload\nOrigin: null", 403),
        ("POST /api/exchanges/1/resolve\nOrigin: http://evil.test", 403),
    ] {
        let (status, text) = admin(samekey.admin, head).await;
        assert_eq!(status, wanted, "{head}: {text}");
        if head.contains("/api") && status >= 400 {
            let problem: Value = serde_json::from_str(&text).expect("a problem");
            assert_eq!(problem["status"], status, "{head}: {text}");
            assert!(problem["type"].as_str().expect("text").starts_with("urn:samekey:"), "{text}");
        }
    }
}

#[tokio::test]
async fn status_and_routes_say_what_is_in_force() {
    let samekey = Samekey::start(ROUTE).await;
    let status = client::get(samekey.admin, "/api/status").await.json();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["listeners"], serde_json::json!([samekey.proxy.to_string()]));
    assert_eq!((&status["config"], &status["draining"]), (&"samekey.yaml".into(), &false.into()));
    let routes = client::get(samekey.admin, "/api/routes").await.json();
    let route = &routes["routes"][0];
    assert_eq!((&route["name"], &route["upstream_dedupes"]), (&"r".into(), &true.into()));
    assert_eq!((&route["mode"], &route["budget_tokens"]), (&"enforce".into(), &100.into()));
    assert_eq!((&route["preset"], &route["written"]), (&Value::Null, &"samekey.yaml:6".into()));
    let policy = [&route["own"], &route["hosts"], &route["attempts"], &route["deadline_seconds"]];
    let wanted = serde_json::json!([true, ["localhost"], 4, 300.0]);
    assert_eq!(serde_json::json!(policy), wanted);
    let last = routes["routes"].as_array().and_then(|routes| routes.last()).expect("routes");
    let written = last["written"].as_str().expect("a place");
    assert!(written.starts_with("config/providers/"), "{last}");
    assert!(
        last["name"].as_str().expect("a name").starts_with(last["preset"].as_str().expect("one"))
    );
}

#[tokio::test]
async fn a_caller_from_elsewhere_reaches_what_is_exposed() {
    let Some(ip) = other_address() else { return };
    for (expose, wanted) in [("metrics", 403), ("all", 200)] {
        let folder = Arc::new(crate::support::program::folder_with(&format!(
            "listeners: [{{address: '127.0.0.1:0'}}]\nadmin: {{address: '0.0.0.0:0', expose: {expose}}}\n\
             state: {{journal: memory}}"
        )));
        let samekey = Samekey::run_in(folder).await;
        let elsewhere = SocketAddr::new(ip, samekey.admin.port());
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(admin(elsewhere, &format!("GET {path}")).await.0, 200, "{path}");
        }
        for head in ["GET /", "GET /api/status", "GET /api/routes", "POST /api/reload"] {
            assert_eq!(admin(elsewhere, head).await.0, wanted, "{expose}: {head}");
        }
        for (head, heard) in [("GET /api/exchanges", 200), ("DELETE /api/keys/k", 404)] {
            let wanted = if wanted == 403 { 403 } else { heard };
            assert_eq!(admin(elsewhere, head).await.0, wanted, "{expose}: {head}");
        }
        let loopback = SocketAddr::from(([127, 0, 0, 1], samekey.admin.port()));
        assert_eq!(admin(loopback, "GET /api/status").await.0, 200);
    }
}

#[tokio::test]
async fn a_line_of_text_is_written_where_that_is_asked_for() {
    let folder = crate::support::program::folder_with("state: {journal: memory}");
    let mut run = crate::support::program::command(folder.path(), &["exec", "--", "true"]);
    let ran = ran(run.env("SAMEKEY_LOG_FORMAT", "text")).await;
    assert!(ran.err.contains("samekey is up") && !ran.err.contains('{'), "{}", ran.err);
}
