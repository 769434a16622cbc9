//! How `/metrics` answers: by what the scraper likes, and to Prometheus' content.

use std::io::Read as _;

use http::Method;
use tokio::net::TcpStream;

use super::{lint, parsed};
use crate::support::{Answer, ORDER, Samekey, Stage, client};

async fn scrape(samekey: &Samekey, fields: &[(&str, &str)]) -> Answer {
    let uri: http::Uri = format!("http://{}/metrics", samekey.admin).parse().expect("a URL");
    let mut request = client::request(Method::GET, &uri, fields, "");
    *request.uri_mut() = "/metrics".parse().expect("a path");
    let stream = TcpStream::connect(samekey.admin).await.expect("it listens");
    client::over_http1(stream, request).await.expect("an answer")
}

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// What Prometheus 2.42 sends.
const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0,\
    application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

#[tokio::test]
async fn each_scraper_gets_the_format_that_it_likes_best() {
    let samekey = Samekey::start("").await;
    for (fields, kind, end) in [
        (&[][..], TEXT, false),
        (&[("accept", "*/*")], TEXT, false),
        (&[("accept", "text/plain")], TEXT, false),
        (&[("accept", PROMETHEUS)], OPEN, true),
    ] {
        let answer = scrape(&samekey, fields).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, kind));
        assert_eq!(answer.text().ends_with("\n# EOF\n"), end, "{fields:?}");
        assert_eq!(answer.header("content-encoding"), "");
        assert!(answer.header("vary").contains("accept"));
    }
}

#[tokio::test]
async fn who_takes_gzip_gets_the_same_in_it() {
    let samekey = Samekey::start("").await;
    let packed = scrape(&samekey, &[("accept-encoding", "gzip"), ("accept", PROMETHEUS)]).await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    assert_eq!(packed.header("content-type"), OPEN);
    let mut text = String::new();
    flate2::read::GzDecoder::new(&*packed.body).read_to_string(&mut text).expect("gzip");
    assert!(text.contains("samekey_build_info{") && text.ends_with("\n# EOF\n"));
    let plain = scrape(&samekey, &[("accept-encoding", "identity")]).await;
    assert!(packed.body.len() * 3 < plain.body.len(), "{}", packed.body.len());
}

/// With series of every feature that a request can reach.
#[tokio::test]
async fn neither_promtool_nor_a_strict_parser_finds_fault_with_the_metrics() {
    let stage = Stage::new(
        "breaker: {statuses: [402]}, estimate: {path: /s/s/estimate, json: /credits, at_most: 9}, \
         idempotency: {capture: {cost: /cost}}, limits: {concurrency: 2}",
    )
    .await;
    stage.script(r#"ok body={"credits":1}; 429 retry_after_ms=1; 503; reset_after"#);
    for _ in 0..2 {
        stage.order("a-key").await;
        stage.post(&[], ORDER).await;
    }
    let metrics = stage.samekey.metrics().await;
    for name in ["samekey_credit_checks_total{", "samekey_cost_total{", "process_open_fds "] {
        assert!(metrics.contains(name), "no {name} in\n{metrics}");
    }
    assert_eq!(lint(&metrics).await, "");
    let open = scrape(&stage.samekey, &[("accept", PROMETHEUS)]).await.text();
    assert_eq!(parsed(&open).await, Ok(open.matches("# TYPE ").count()));
    // They do find what is wrong: a counter without `_total`, and a family that comes twice.
    assert_ne!(lint("# TYPE samekey_wrong counter\nsamekey_wrong 1\n").await, "");
    let twice = "# TYPE a gauge\na 1\n# TYPE a counter\na_total 1\n# EOF\n";
    assert!(parsed(twice).await.is_err());
}
