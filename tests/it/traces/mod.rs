//! Which spans an operator's collector gets of an exchange, and what travels upstream.

use std::sync::Arc;

use http::Method;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::provider::{Options, Provider};
use crate::support::{Answer, Client, ORDER, Samekey};

mod collector;
mod export;
mod pass;

use collector::{Collector, Span};

const ROUTE: &str = "
routes:
  - name: jobs
    match: {hosts: [localhost], paths: ['/s/**', '/v1/**']}
    retry: {backoff: {initial: 1ms, max: 2ms}}
    idempotency: {upstream_dedupes: true, join_wait: 10s}
";

/// A provider, a sidecar that exports to a collector, and a client.
struct Scene {
    provider: Provider,
    collector: Collector,
    samekey: Samekey,
    client: Client,
}

impl Scene {
    async fn new(routes: &str, variables: &[(&str, &str)]) -> Self {
        let collector = Collector::start().await;
        let url = collector.url();
        let mut all =
            vec![("OTEL_EXPORTER_OTLP_ENDPOINT", &*url), ("OTEL_BSP_SCHEDULE_DELAY", "20")];
        all.extend_from_slice(variables);
        Self::set(routes, &all, collector.clone()).await
    }

    /// Nothing is set but `variables`.
    async fn set(routes: &str, variables: &[(&str, &str)], collector: Collector) -> Self {
        let provider = Provider::start(Options::default()).await.expect("a provider");
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).expect("written");
        };
        write("provider-ca.pem", &provider.ports.ca_pem);
        let config = format!(
            "listeners: [{{address: '127.0.0.1:0'}}]\nadmin: {{address: '127.0.0.1:0'}}\n\
             state: {{dir: state}}\nupstream: {{roots: provider-ca.pem}}\n{routes}"
        );
        write("samekey.yaml", &config);
        let samekey = Samekey::run_with(folder, variables).await;
        let client = Client::through(&samekey);
        Self { provider, collector, samekey, client }
    }

    async fn post(&self, headers: &[(&str, &str)]) -> Answer {
        let mut all = vec![("content-type", "application/json")];
        all.extend_from_slice(headers);
        let url = self.provider.ports.https_url("/s/s/v1/jobs?token=query-secret");
        self.client.send(Method::POST, &url, &all, ORDER).await
    }

    /// The values of a field in each request that the provider saw.
    fn fields(&self, name: &str) -> Vec<String> {
        let seen = self.provider.seen("s").into_iter();
        let of = |(named, _): &(String, String)| named.eq_ignore_ascii_case(name);
        seen.map(|seen| {
            let values: Vec<_> =
                seen.headers.into_iter().filter(of).map(|(_, value)| value).collect();
            values.join("|")
        })
        .collect()
    }
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

/// The exchange and its attempts, all of one trace.
fn family(spans: &[Span]) -> (&Span, &[Span]) {
    let (exchange, attempts) = spans.split_first().expect("an exchange");
    assert_eq!(exchange.kind, SpanKind::Server, "{spans:#?}");
    for attempt in attempts {
        assert_eq!(attempt.kind, SpanKind::Client, "{spans:#?}");
        assert_eq!((&attempt.trace, &attempt.parent), (&exchange.trace, &exchange.id));
    }
    (exchange, attempts)
}

#[tokio::test]
async fn a_good_exchange_is_one_span_under_another() {
    let scene = Scene::new(ROUTE, &[]).await;
    scene.provider.script("s", "ok");
    let answer = scene.post(&[("idempotency-key", "key-secret")]).await;
    assert_eq!(answer.status, 201);
    let spans = scene.collector.until(2).await;
    let (exchange, attempts) = family(&spans);
    let port = scene.provider.ports.https_addr.port().to_string();
    assert_eq!((exchange.name.as_str(), exchange.parent.as_str()), ("POST jobs", ""));
    for (name, wanted) in [
        ("http.request.method", "POST"),
        ("url.scheme", "https"),
        ("url.path", "/s/s/v1/jobs"),
        ("server.address", "localhost"),
        ("server.port", &port),
        ("http.response.status_code", "201"),
        ("error.type", ""),
        ("samekey.route", "jobs"),
        ("samekey.source", "upstream"),
        ("samekey.outcomes", "done"),
        ("samekey.key_source", "client"),
        ("samekey.claim", "completed"),
        ("samekey.delivered", "true"),
        ("samekey.stop", ""),
    ] {
        assert_eq!(exchange.say(name), wanted, "{name} in {exchange:#?}");
    }
    assert_eq!(exchange.say("samekey.exchange").len(), 21);
    let [attempt] = attempts else { panic!("one attempt: {spans:#?}") };
    for (name, wanted) in [
        ("http.request.method", "POST"),
        ("url.full", &*format!("https://localhost:{port}/s/s/v1/jobs?token=REDACTED")),
        ("server.address", "localhost"),
        ("server.port", &port),
        ("network.protocol.version", "2"),
        ("http.response.status_code", "201"),
        ("http.request.resend_count", ""),
        ("error.type", ""),
        ("samekey.outcome", "done"),
    ] {
        assert_eq!(attempt.say(name), wanted, "{name} in {attempt:#?}");
    }
    assert!(!exchange.failed && !attempt.failed && attempt.took <= exchange.took);
    assert_eq!(scene.fields("traceparent"), [format!("00-{}-{}-01", attempt.trace, attempt.id)]);
    let log = scene.samekey.logged(&["\"exchange\"", &exchange.trace]).await;
    assert!(log.contains("\"trace_id\""), "{log}");
}

#[tokio::test]
async fn a_retry_is_a_second_span_beside_the_first() {
    let scene = Scene::new(ROUTE, &[]).await;
    scene.provider.script("s", "503; ok");
    assert_eq!(scene.post(&[]).await.status, 201);
    let spans = scene.collector.until(3).await;
    let (exchange, attempts) = family(&spans);
    let said = |name: &str| -> Vec<&str> { attempts.iter().map(|span| span.say(name)).collect() };
    assert_eq!(said("http.request.resend_count"), ["", "1"]);
    assert_eq!(said("http.response.status_code"), ["503", "201"]);
    assert_eq!(said("error.type"), ["503", ""]);
    assert_eq!(said("samekey.outcome"), ["failed", "done"]);
    assert!(attempts[0].failed && !attempts[1].failed && !exchange.failed);
    assert_ne!(attempts[0].id, attempts[1].id);
    assert_eq!(exchange.say("samekey.outcomes"), "failed,done");
    let wanted = attempts.iter().map(|span| format!("00-{}-{}-01", span.trace, span.id));
    assert_eq!(scene.fields("traceparent"), wanted.collect::<Vec<_>>());
}

#[tokio::test]
async fn what_never_came_to_an_answer_says_why() {
    let scene = Scene::new(ROUTE, &[]).await;
    scene.provider.script("s", "reset_after; reset_after; reset_after; reset_after");
    assert_eq!(scene.post(&[]).await.status, 502);
    let spans = scene.collector.until(5).await;
    let (exchange, attempts) = family(&spans);
    for attempt in attempts {
        assert_eq!(attempt.say("samekey.outcome"), "ambiguous", "{attempt:#?}");
        assert!(attempt.failed && !attempt.say("error.type").is_empty(), "{attempt:#?}");
        assert_eq!(attempt.say("http.response.status_code"), "");
    }
    assert!(exchange.failed);
    assert_eq!(exchange.say("error.type"), "upstream-protocol");
    assert_eq!(exchange.say("http.response.status_code"), "502");
    assert_eq!(exchange.say("samekey.stop"), "attempts");
    assert_eq!(exchange.say("samekey.claim"), "unknown");
    assert_eq!(exchange.say("samekey.source"), "local");
}

#[tokio::test]
async fn a_replay_and_a_join_have_no_attempt() {
    let scene = Scene::new(ROUTE, &[]).await;
    let key = [("idempotency-key", "k1")];
    scene.provider.script("s", "slow 500");
    let (first, joined) = tokio::join!(scene.post(&key), async {
        scene.samekey.until("samekey_inflight_exchanges{route=\"jobs\"}", 1.0).await;
        scene.post(&key).await
    });
    assert_eq!((first.status.as_u16(), joined.header("samekey-replay")), (201, "joined"));
    assert_eq!(scene.post(&key).await.header("samekey-replay"), "stored");
    let spans = scene.collector.until(4).await;
    let of = |source: &str| {
        let found = spans.iter().filter(|span| span.say("samekey.source") == source);
        let found: Vec<&Span> = found.collect();
        let [one] = found[..] else { panic!("one is {source}: {spans:#?}") };
        assert_eq!((one.kind, one.parent.as_str()), (SpanKind::Server, ""));
        one.clone()
    };
    let traces = ["upstream", "joined", "stored"].map(|source| of(source).trace);
    let attempts: Vec<_> = spans.iter().filter(|span| span.kind == SpanKind::Client).collect();
    assert_eq!(attempts.len(), 1, "{spans:#?}");
    assert_eq!(attempts[0].trace, traces[0]);
    assert!(traces[0] != traces[1] && traces[1] != traces[2]);
    let links = ["upstream", "joined", "stored"].map(|source| of(source).links);
    assert_eq!(links, [vec![], vec![of("upstream").id], vec![]]);
}

#[tokio::test]
async fn a_client_that_leaves_is_told_of_and_so_is_what_it_left() {
    let scene = Scene::new(ROUTE, &[]).await;
    scene.provider.script("s", "hang_after");
    let url = scene.provider.ports.http_url("/s/s/v1/jobs");
    let get = scene.client.get(&url);
    let left = tokio::time::timeout(std::time::Duration::from_millis(500), get).await;
    assert!(left.is_err(), "it hangs");
    let spans = scene.collector.until(2).await;
    let (exchange, attempts) = family(&spans);
    assert_eq!(attempts[0].say("error.type"), "cancelled");
    assert_eq!(exchange.say("samekey.delivered"), "false");
    assert!(attempts[0].failed && !exchange.failed, "{spans:#?}");
}

#[tokio::test]
async fn polls_that_share_an_answer_link_to_the_one_that_asked() {
    let routes = "
routes:
  - {name: status, kind: poll, match: {hosts: [localhost]}}
";
    let scene = Scene::new(routes, &[]).await;
    scene.provider.script("s", "slow 500");
    let url = scene.provider.ports.https_url("/s/s/status/200");
    let (first, second) = tokio::join!(scene.client.get(&url), async {
        scene.samekey.until("samekey_inflight_exchanges{route=\"status\"}", 1.0).await;
        scene.client.get(&url).await
    });
    assert_eq!((first.header("samekey-replay"), second.header("samekey-replay")), ("", "joined"));
    let spans = scene.collector.until(3).await;
    let find = |source: &str| spans.iter().find(|span| span.say("samekey.source") == source);
    let (asked, joined) = (find("upstream").expect("one"), find("joined").expect("one"));
    assert_eq!(joined.links.join(","), asked.id);
    assert_ne!(joined.trace, asked.trace);
}
