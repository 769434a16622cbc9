//! How spans are exported: what is said, what is kept to itself, and what a collector that
//! is away costs.

use rustix::process::Signal;

use super::*;

const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

fn dropped(reason: &str) -> String {
    format!("samekey_spans_dropped_total{{reason=\"{reason}\"}}")
}

#[tokio::test]
async fn nothing_secret_is_exported() {
    let routes = "
routes:
  - name: jobs
    match: {hosts: [localhost]}
    retry: {backoff: {initial: 1ms, max: 2ms}}
    idempotency: {upstream_dedupes: true, capture: {id: /id}}
";
    let scene = Scene::new(routes, &[]).await;
    scene.provider.script("s", "503 body={\"e\":\"answer-secret\"}; ok");
    let secrets = [
        ("authorization", "Bearer bearer-secret"),
        ("cookie", "session=cookie-secret"),
        ("idempotency-key", "key-secret"),
        ("x-api-key", "api-secret"),
        ("user-agent", "agent-secret"),
    ];
    assert_eq!(scene.post(&secrets).await.status, 201);
    assert_eq!(scene.post(&[("samekey-key", "identity-secret")]).await.status, 201);
    scene.collector.until(5).await;
    for post in scene.collector.posts() {
        let text = String::from_utf8_lossy(&post.body).into_owned();
        assert!(text.contains("POST jobs"));
        assert!(!text.contains("secret"), "{text}");
        assert!(!text.contains("\"a\": 1"), "no body: {text}");
    }
}

#[tokio::test]
async fn it_is_posted_as_the_variables_say() {
    let scene = Scene::new(
        ROUTE,
        &[
            ("OTEL_SERVICE_NAME", "renders"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment.name=a%2Cb"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=one,authorization=Basic%20Zm9v"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("HTTP_PROXY", "http://127.0.0.1:9"),
            ("http_proxy", "http://127.0.0.1:9"),
        ],
    )
    .await;
    scene.provider.script("s", "ok");
    scene.post(&[]).await;
    scene.collector.until(2).await;
    let post = scene.collector.posts().remove(0);
    assert_eq!(post.headers["x-tenant"], "one");
    assert_eq!(post.headers["authorization"], "Basic Zm9v");
    assert_eq!(post.headers["content-encoding"], "gzip");
    assert!(!post.headers.contains_key("via"), "it is no request of a client's");
    let resource = post.resource();
    assert_eq!(resource["service.name"], "renders");
    assert_eq!(resource["deployment.environment.name"], "a,b");
    assert_eq!(resource["telemetry.sdk.name"], "opentelemetry");
    scene.samekey.until("samekey_spans_exported_total", 2.0).await;
    assert!(!scene.samekey.log().iter().any(|line| line.contains("Zm9v")));
}

#[tokio::test]
async fn a_collector_behind_tls_is_verified() {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    let url = provider.ports.https_url("/s/otlp/v1/traces");
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, &provider.ports.ca_pem).expect("written");
    let common = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &*url), ("OTEL_BSP_SCHEDULE_DELAY", "20")];
    let nobody = Collector::start().await;
    let scene = Scene::set(ROUTE, &common, nobody.clone()).await;
    scene.post(&[]).await;
    scene.samekey.until(&dropped("refused"), 2.0).await;
    assert!(provider.seen("otlp").is_empty(), "not to whom it does not trust");
    let ca = ca.to_str().expect("text");
    let trusting = [common[0], common[1], ("OTEL_EXPORTER_OTLP_CERTIFICATE", ca)];
    let scene = Scene::set(ROUTE, &trusting, nobody).await;
    scene.post(&[]).await;
    scene.samekey.until("samekey_spans_exported_total", 2.0).await;
    assert!(matches!(provider.seen("otlp").len(), 1..=2), "in one batch or two");
}

#[tokio::test]
async fn a_collector_that_fails_for_a_while_is_asked_again() {
    let scene = Scene::new(ROUTE, &[]).await;
    scene.collector.says(Some(503));
    assert_eq!(scene.post(&[]).await.status, 201);
    scene.collector.asked(2).await;
    scene.collector.says(Some(200));
    scene.collector.until(2).await;
    scene.samekey.until("samekey_spans_exported_total", 2.0).await;
    assert!(scene.samekey.metric(&dropped("refused")).await < 0.5);
    // What no repetition helps is lost, and told once.
    scene.collector.says(Some(400));
    scene.post(&[]).await;
    scene.samekey.until(&dropped("refused"), 2.0).await;
    scene.post(&[]).await;
    scene.samekey.until(&dropped("refused"), 4.0).await;
    let lines = scene.samekey.log();
    let told = lines.iter().filter(|line| line.contains("spans are lost")).count();
    assert_eq!(told, 1, "{lines:#?}");
    scene.samekey.logged(&["spans are lost", "it answered 400"]).await;
    scene.collector.says(Some(200));
    scene.post(&[]).await;
    scene.samekey.logged(&["takes spans again"]).await;
}

#[tokio::test]
async fn a_collector_that_is_away_or_hangs_costs_exchanges_nothing() {
    let small = [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "4"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2"),
        // So that the first two go together, and no timer parts them.
        ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "60000"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "60000"),
    ];
    let mut scene = Scene::new(ROUTE, &small).await;
    scene.provider.script("s", "ok forever");
    scene.collector.says(None);
    scene.post(&[]).await;
    scene.collector.asked(1).await;
    let began = tokio::time::Instant::now();
    for _ in 0..10 {
        assert_eq!(scene.post(&[]).await.status, 201);
    }
    assert!(began.elapsed() < 10 * SECOND, "nobody waits for the collector");
    // Four wait, and there is no room for more.
    scene.samekey.until(&dropped("queue_full"), 16.0).await;
    // Nor does the end wait for long.
    let began = tokio::time::Instant::now();
    scene.samekey.signal(Signal::TERM);
    assert!(scene.samekey.ended().await.success());
    assert!(began.elapsed() < 15 * SECOND, "took {:?}", began.elapsed());
    scene.samekey.logged(&["spans were not exported before the end"]).await;
}

#[tokio::test]
async fn what_waits_at_the_end_is_exported() {
    let mut scene = Scene::new(ROUTE, &[("OTEL_BSP_SCHEDULE_DELAY", "3600000")]).await;
    scene.provider.script("s", "ok");
    scene.post(&[]).await;
    scene.samekey.until("samekey_inflight_exchanges{route=\"jobs\"}", 0.0).await;
    assert!(scene.collector.posts().is_empty());
    scene.samekey.signal(Signal::TERM);
    assert!(scene.samekey.ended().await.success());
    assert_eq!(scene.collector.spans().len(), 2);
}

#[tokio::test]
async fn what_is_not_supported_is_told_by_its_name_and_stops_nothing() {
    let nobody = Collector::start().await;
    for (variables, words) in [
        (
            vec![("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
            "OTEL_EXPORTER_OTLP_PROTOCOL: no spans are exported: grpc",
        ),
        (
            vec![("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json")],
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: no spans are exported: http/json",
        ),
        (
            vec![("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere.pem")],
            "OTEL_EXPORTER_OTLP_CERTIFICATE: /nowhere.pem",
        ),
        (vec![("OTEL_TRACES_EXPORTER", "zipkin")], "OTEL_TRACES_EXPORTER: "),
    ] {
        let url = nobody.url();
        let mut all = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", &*url)];
        all.extend(variables);
        let scene = Scene::set(ROUTE, &all, nobody.clone()).await;
        scene.provider.script("s", "ok");
        assert_eq!(scene.post(&[]).await.status, 201);
        assert_eq!(scene.fields("traceparent"), [""]);
        let line = scene.samekey.logged(&[words]).await;
        assert!(line.contains("WARN"), "{line}");
    }
    assert!(nobody.posts().is_empty());
}
