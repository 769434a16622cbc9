//! The webhook inbox: a provider that sends, an application behind a reverse listener.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use http::Method;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::provider::{Options, Provider};
use crate::support::program::{folder_with, samekey};
use crate::support::{Answer, Samekey, client};

const SECRET: &str = "whsec_5f2c";
const SIGNATURE: &str =
    "signature: {header: X-Clipia-Signature, secret_file: secret, prefix: 'sha256='}";

/// An application, played by the simulated provider, and a folder whose config is in
/// front of it; `inbox` and `route` are further keys, in flow style.
async fn behind(state: &str, inbox: &str, route: &str) -> (Provider, Arc<TempDir>) {
    let application = Provider::start(Options::default()).await.expect("an application");
    let folder = folder_with(&config(application.ports.http_addr, state, inbox, route));
    std::fs::write(folder.path().join("secret"), format!("{SECRET}\n")).expect("written");
    (application, Arc::new(folder))
}

fn config(at: SocketAddr, state: &str, inbox: &str, route: &str) -> String {
    format!(
        "listeners: [{{address: '127.0.0.1:0', mode: reverse, upstream: 'http://{at}'}}]\n\
         admin: {{address: '127.0.0.1:0'}}\nstate: {{{state}}}\n\
         routes: [{{name: hooks, match: {{hosts: ['127.0.0.1']}}, \
         inbox: {{identity: {{json: /request_id}}, {inbox}}}{route}}}]\n"
    )
}

fn event(n: u32) -> String {
    format!(r#"{{"request_id": "req-{n}",  "status": "completed"}}"#)
}

fn signature(body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = hmac::sign(&key, body.as_bytes());
    let digits: Vec<String> = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={}", digits.concat())
}

/// Delivers as the provider does: straight to the listener, signed.
async fn deliver(to: &Samekey, body: &str) -> Answer {
    let signature = signature(body);
    send(to, &[("x-clipia-signature", &signature), ("x-clipia-attempt", "1")], body).await
}

async fn send(to: &Samekey, fields: &[(&str, &str)], body: &str) -> Answer {
    let uri = format!("http://{}/s/s/echo?from=provider", to.proxy).parse().expect("a URL");
    let mut all = vec![("content-type", "application/json"), ("authorization", "Bearer hunter2")];
    all.extend_from_slice(fields);
    let mut request = client::request(Method::POST, &uri, &all, body);
    *request.uri_mut() = "/s/s/echo?from=provider".parse().expect("a path");
    let stream = TcpStream::connect(to.proxy).await.expect("it listens");
    client::over_http1(stream, request).await.expect("an answer")
}

fn counted(event: &str) -> String {
    format!("samekey_inbox_total{{event=\"{event}\",route=\"hooks\"}}")
}

/// A field of the nth request that the application saw.
fn field(application: &Provider, nth: usize, name: &str) -> Option<String> {
    let seen = application.seen("s");
    let mut fields = seen[nth].headers.iter();
    fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
}

#[tokio::test]
async fn six_deliveries_of_one_event_reach_the_application_once_and_byte_for_byte() {
    let (application, folder) = behind("dir: state", SIGNATURE, "").await;
    let running = Samekey::run_in(folder).await;
    let body = event(1);
    let mut ids = Vec::new();
    for _ in 0..6 {
        let answer = deliver(&running, &body).await;
        assert_eq!((answer.status.as_u16(), answer.header("samekey-attempts")), (200, "0"));
        ids.push(answer.header("samekey-delivery").to_owned());
    }
    running.until(&counted("delivered"), 1.0).await;
    running.until(&counted("repeated"), 5.0).await;
    running.until("samekey_inbox_waiting{route=\"hooks\"}", 0.0).await;
    let seen = application.seen("s");
    assert_eq!(seen.len(), 1);
    assert_eq!(
        (seen[0].method.as_str(), seen[0].path.as_str()),
        ("POST", "/s/s/echo?from=provider")
    );
    assert_eq!(seen[0].body, body);
    assert!(ids.iter().all(|id| Some(id) == field(&application, 0, "samekey-delivery").as_ref()));
    for (name, there) in [
        ("x-clipia-signature", true),
        ("x-clipia-attempt", true),
        ("content-type", true),
        ("authorization", false),
    ] {
        assert_eq!(field(&application, 0, name).is_some(), there, "{name}");
    }
    let line = running.logged(&["\"delivery\"", "hooks"]).await;
    assert!(!line.contains("req-1"), "{line}");
    let local =
        r#"samekey_exchanges_total{method="POST",route="hooks",source="local",status="2xx"}"#;
    running.until(local, 6.0).await;
}

/// Webhooks may come twice, and differ in what does not matter.
#[tokio::test]
async fn a_repeat_with_another_body_is_dropped_and_told() {
    let (application, folder) = behind("dir: state", "", "").await;
    let running = Samekey::run_in(folder).await;
    send(&running, &[], r#"{"request_id": "a", "sent": 1}"#).await;
    let again = send(&running, &[], r#"{"request_id": "a", "sent": 2}"#).await;
    assert_eq!(again.status, 200);
    running.logged(&["WARN", "whose body is not that of the first"]).await;
    running.until(&counted("delivered"), 1.0).await;
    assert_eq!(application.seen("s").len(), 1);
}

/// The field of a provider that signs the time too.
fn timestamped(at: i64, body: &str) -> String {
    let tag = signature(&format!("{at}.{body}"));
    format!("t={at},v1={}", tag.trim_start_matches("sha256="))
}

#[tokio::test]
async fn what_was_signed_with_its_time_is_taken_in_for_as_long_as_that_is_near() {
    let inbox = "signature: {header: X-Clipia-Signature, secret_file: secret, signed: timestamped}";
    let (application, folder) = behind("dir: state", inbox, "").await;
    let running = Samekey::run_in(folder).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = i64::try_from(now.expect("after 1970").as_secs()).expect("a number");
    let body = event(1);
    for (field, why) in [
        (timestamped(now - 400, &body), "inbox.signature.tolerance"),
        (timestamped(now + 400, &body), "inbox.signature.tolerance"),
        (timestamped(now, &event(2)), "the signature of its body"),
        (signature(&body), "the signature of its body"),
    ] {
        let answer = send(&running, &[("x-clipia-signature", &field)], &body).await;
        assert_eq!(answer.said(), (400, "bad-request".to_owned()), "{field}");
        assert!(answer.text().contains(why), "{}", answer.text());
    }
    let field = timestamped(now - 200, &body);
    assert_eq!(send(&running, &[("x-clipia-signature", &field)], &body).await.status, 200);
    running.until(&counted("delivered"), 1.0).await;
    assert_eq!(application.seen("s").len(), 1);
}

#[tokio::test]
async fn what_is_not_signed_with_the_secret_is_refused_and_never_delivered() {
    let (application, folder) = behind("dir: state", SIGNATURE, "").await;
    let running = Samekey::run_in(folder).await;
    let (body, other) = (event(1), event(2));
    let good = signature(&body);
    let bare = good.trim_start_matches("sha256=");
    for fields in [
        &[][..],
        &[("x-clipia-signature", "")],
        &[("x-clipia-signature", bare)],
        &[("x-signature", &good)],
    ] {
        let answer = send(&running, fields, &body).await;
        assert_eq!(answer.said(), (400, "bad-request".to_owned()), "{fields:?}");
        assert!(!answer.text().contains(SECRET));
    }
    assert_eq!(send(&running, &[("x-clipia-signature", &good)], &other).await.status, 400);
    running.until(&counted("refused"), 5.0).await;
    assert_eq!(deliver(&running, &body).await.status, 200, "it is not known yet");
    running.until(&counted("delivered"), 1.0).await;
    assert_eq!(application.seen("s").len(), 1);
    assert!(running.log().iter().all(|line| !line.contains(SECRET)));
}

#[tokio::test]
async fn it_is_answered_at_once_while_the_application_hangs() {
    let (application, folder) = behind("dir: state", SIGNATURE, "").await;
    let running = Samekey::run_in(folder).await;
    application.script("s", "held");
    let mut took = Vec::new();
    for n in 0..5 {
        let began = Instant::now();
        assert_eq!(deliver(&running, &event(n)).await.status, 200);
        took.push(began.elapsed());
    }
    took.sort_unstable();
    // Milliseconds on a machine at rest; this one is shared.
    assert!(took[2] < Duration::from_millis(500), "{took:?}");
    application.arrived("s", 5).await;
    application.release();
    running.until(&counted("delivered"), 5.0).await;
}

#[tokio::test]
async fn an_application_that_is_down_gets_its_deliveries_once_it_is_up() {
    let (application, folder) =
        behind("dir: state", SIGNATURE, ", retry: {backoff: {initial: 10ms, max: 50ms}}").await;
    let running = Samekey::run_in(folder).await;
    application.script("s", "reset_before; 503; 500; 404; 429 retry_after=1");
    application.refuse_connections(3);
    for n in 0..3 {
        assert_eq!(deliver(&running, &event(n)).await.status, 200);
    }
    running.logged(&["WARN", "the application takes no deliveries"]).await;
    running.until(&counted("delivered"), 3.0).await;
    let seen = application.seen("s");
    assert_eq!(seen.len(), 8, "{seen:#?}");
    let ids = |nth| field(&application, nth, "samekey-delivery").expect("an id");
    let mut different: Vec<String> = (0..seen.len()).map(ids).collect();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), 3, "one id each, whatever the attempt");
}

#[tokio::test]
async fn what_was_answered_is_delivered_after_a_kill_in_between() {
    let (application, folder) = behind("dir: state", SIGNATURE, "").await;
    let mut first = Samekey::run_in(folder.clone()).await;
    application.script("s", "held x2");
    let mut ids = Vec::new();
    for n in 0..6 {
        let answer = deliver(&first, &event(n)).await;
        assert_eq!(answer.status, 200);
        ids.push(answer.header("samekey-delivery").to_owned());
    }
    application.arrived("s", 2).await;
    first.signal(rustix::process::Signal::KILL);
    first.ended().await;
    application.script("s", "");
    let second = Samekey::run_in(folder).await;
    second.until("samekey_inbox_waiting{route=\"hooks\"}", 0.0).await;
    let seen = application.seen("s");
    let mut got: Vec<_> =
        (0..seen.len()).filter_map(|n| field(&application, n, "samekey-delivery")).collect();
    got.sort_unstable();
    got.dedup();
    ids.sort_unstable();
    // Those whose mark was written before the kill are not delivered again.
    assert!(got.iter().all(|id| ids.contains(id)));
    for n in 0..6 {
        assert_eq!(deliver(&second, &event(n)).await.status, 200);
    }
    second.until(&counted("repeated"), 6.0).await;
    assert_eq!(application.seen("s").len(), seen.len(), "all of them are known");
    // The two that were under way at the kill go again, under the same id.
    assert!(seen.len() >= 2, "{seen:#?}");
    assert_eq!(got.len(), seen.len(), "none twice by this process");
}

#[tokio::test]
async fn none_is_lost_when_it_is_killed_again_and_again() {
    let (application, folder) = behind("dir: state", "", ", limits: {concurrency: 1}").await;
    let mut got = std::collections::BTreeSet::new();
    for round in 0..3 {
        application.script("s", "ok; held forever");
        let mut running = Samekey::run_in(folder.clone()).await;
        for n in 0..4 {
            assert_eq!(send(&running, &[], &event(round * 4 + n)).await.status, 200);
        }
        application.arrived("s", 2).await;
        running.signal(rustix::process::Signal::KILL);
        running.ended().await;
        got.extend(application.seen("s").into_iter().take(1).map(|seen| seen.body));
    }
    application.script("s", "");
    let running = Samekey::run_in(folder).await;
    running.until("samekey_inbox_waiting{route=\"hooks\"}", 0.0).await;
    got.extend(application.seen("s").into_iter().map(|seen| seen.body));
    assert_eq!(got.len(), 12, "{got:#?}");
}

#[tokio::test]
async fn past_its_limits_a_provider_is_told_to_come_again() {
    let (application, folder) = behind("dir: state", "max_waiting: 2, max_size: 100B", "").await;
    let running = Samekey::run_in(folder).await;
    application.script("s", "held x2");
    for n in 0..2 {
        assert_eq!(send(&running, &[], &event(n)).await.status, 200);
    }
    let full = send(&running, &[], &event(2)).await;
    assert_eq!(full.said(), (503, "overloaded".to_owned()));
    assert_eq!(full.header("retry-after"), "1");
    application.arrived("s", 2).await;
    application.release();
    running.until("samekey_inbox_waiting{route=\"hooks\"}", 0.0).await;
    assert_eq!(send(&running, &[], &event(2)).await.status, 200);
    running.until("samekey_inbox_waiting{route=\"hooks\"}", 0.0).await;
    let bare = r#"{"request_id": ""}"#.len();
    for (size, status) in [(99, 200), (100, 200), (101, 400)] {
        let body = format!(r#"{{"request_id": "{}"}}"#, "x".repeat(size - bare));
        assert_eq!(send(&running, &[], &body).await.status.as_u16(), status, "{size}");
        running.until("samekey_inbox_waiting{route=\"hooks\"}", 0.0).await;
    }
}

#[tokio::test]
async fn a_delivery_that_is_given_up_is_an_error_in_the_log() {
    let route = ", retry: {attempts: 2, backoff: {initial: 1ms}}";
    let (application, folder) = behind("dir: state", "", route).await;
    let running = Samekey::run_in(folder).await;
    application.script("s", "500 forever");
    assert_eq!(send(&running, &[], &event(1)).await.status, 200);
    running.logged(&["ERROR", "a delivery was given up"]).await;
    running.until(&counted("failed"), 1.0).await;
    assert_eq!(application.seen("s").len(), 2);
    application.script("s", "");
    assert_eq!(send(&running, &[], &event(1)).await.status, 200);
    running.until(&counted("delivered"), 1.0).await;
}

#[tokio::test]
async fn what_waits_for_a_route_that_is_gone_waits_until_it_is_back() {
    let (application, folder) = behind("dir: state", "", "").await;
    let running = Samekey::run_in(folder.clone()).await;
    application.script("s", "503 retry_after=1");
    assert_eq!(send(&running, &[], &event(1)).await.status, 200);
    application.arrived("s", 1).await;
    let with = std::fs::read_to_string(running.config()).expect("its config");
    let without = with.split("routes:").next().expect("what stands before").to_owned();
    std::fs::write(running.config(), without).expect("written");
    running.logged(&["WARN", "deliveries wait for a route that has no inbox"]).await;
    std::fs::write(running.config(), with).expect("written");
    running.until(&counted("delivered"), 1.0).await;
    assert_eq!(application.seen("s").len(), 2);
}

#[tokio::test]
async fn in_memory_it_works_and_a_start_warns_of_it() {
    let (application, folder) = behind("dir: state, journal: memory", SIGNATURE, "").await;
    let running = Samekey::run_in(folder).await;
    running.logged(&["WARN", "routes have an inbox", "state.journal is memory"]).await;
    for _ in 0..2 {
        assert_eq!(deliver(&running, &event(1)).await.status, 200);
    }
    running.until(&counted("delivered"), 1.0).await;
    assert_eq!(application.seen("s").len(), 1);
}

#[tokio::test]
async fn a_request_that_only_asks_is_the_applications_to_answer() {
    let (application, folder) = behind("dir: state", SIGNATURE, "").await;
    let running = Samekey::run_in(folder).await;
    let answer = client::get(running.proxy, "/s/s/bytes/7").await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 7));
    assert_eq!(application.seen("s").len(), 1);
}

#[tokio::test]
async fn a_secret_is_read_anew_with_the_config() {
    let (_application, folder) = behind("dir: state", SIGNATURE, "").await;
    let running = Samekey::run_in(folder.clone()).await;
    std::fs::write(folder.path().join("secret"), "another\n").expect("written");
    assert_eq!(deliver(&running, &event(1)).await.status, 200, "not before");
    running.signal(rustix::process::Signal::HUP);
    running.logged(&["the config was loaded anew"]).await;
    assert_eq!(deliver(&running, &event(2)).await.status, 400);
    std::fs::write(folder.path().join("secret"), SECRET).expect("written");
}

#[tokio::test]
async fn explain_says_what_becomes_of_a_delivery() {
    let (application, folder) = behind("dir: state", SIGNATURE, "").await;
    let url = application.ports.http_url("/s/s/echo");
    let said = samekey(folder.path(), &["explain", "POST", &url]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    for words in [
        "inbox: answered 200 once it is journalled",
        "signature: in x-clipia-signature",
        "after 500      tried again",
    ] {
        assert!(said.out.contains(words), "{words}: {}", said.out);
    }
    let asks = samekey(folder.path(), &["explain", "GET", &url]).await;
    assert!(!asks.out.contains("inbox"), "{}", asks.out);
}
