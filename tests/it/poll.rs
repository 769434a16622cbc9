//! Polls: how many of them the provider sees, and who gets whose answer.

use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::{Answer, Stage};

/// A route for polls with these further keys, and a job to ask about, which meets this script.
async fn stage(blocks: &str, steps: &str) -> (Stage, String) {
    let comma = if blocks.is_empty() { "" } else { ", " };
    let route = |rest: &str| format!("{{name: r, match: {{hosts: ['*'], {rest}}}");
    let stage = Stage::configured(&format!(
        "routes: [{}{comma}{blocks}, kind: poll}}, {}}}]\n",
        route("methods: [GET, HEAD]"),
        route("methods: [POST]").replace("name: r", "name: create"),
    ))
    .await;
    stage.script(&format!("ok; {steps}"));
    let job = stage.post(&[], "{}").await.json();
    let url = stage.url(&format!("/v1/jobs/{}", job["id"].as_str().expect("an id")));
    (stage, url)
}

/// How often the provider was asked about a job.
fn polls(stage: &Stage) -> usize {
    stage.sent() - 1
}

const A: (&str, &str) = ("authorization", "Bearer a");
const B: (&str, &str) = ("x-api-key", "b");

async fn get(stage: &Stage, url: &str, fields: &[(&str, &str)]) -> Answer {
    stage.client.send(Method::GET, url, fields, "").await
}

/// What a test wants to know of an answer: status, body, how it came here.
fn seen(answer: &Answer) -> (u16, String, &str) {
    (answer.status.as_u16(), answer.text(), answer.header("samekey-replay"))
}

/// Begins to poll on a connection of its own, whose end is the test's to decide.
async fn begin(stage: &Stage, url: &str) -> TcpStream {
    let mut stream = TcpStream::connect(stage.samekey.proxy).await.expect("it listens");
    let host = stage.provider.ports.http_addr;
    let head = format!("GET {url} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("it takes them");
    stream
}

/// Waits until so many polls have joined another.
async fn joined(stage: &Stage, count: u32) {
    let series = "samekey_polls_total{event=\"joined\",route=\"r\"}";
    stage.samekey.until(series, f64::from(count)).await;
}

#[tokio::test]
async fn fifty_pollers_of_one_job_are_one_request() {
    let (stage, url) = stage("", "ok held; ok").await;
    let pollers = join_all((0..50).map(|_| get(&stage, &url, &[A])));
    let released = async {
        joined(&stage, 49).await;
        stage.provider.release();
    };
    let (answers, ()) = tokio::join!(pollers, released);
    let first = seen(&answers[0]).1;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.text() == first));
    let joins = answers.iter().filter(|answer| {
        answer.header("samekey-replay") == "joined"
            && answer.header("idempotent-replayed") == "true"
            && answer.header("samekey-attempts") == "0"
    });
    assert_eq!((joins.count(), polls(&stage)), (49, 1));
    let series =
        "samekey_exchanges_total{method=\"GET\",route=\"r\",source=\"joined\",status=\"2xx\"}";
    stage.samekey.until(series, 49.0).await;
    // What was answered is nobody's any more.
    assert_eq!(seen(&get(&stage, &url, &[A]).await).2, "");
    assert_eq!(polls(&stage), 2);
}

#[tokio::test]
async fn different_credentials_never_share_an_answer() {
    let rules = "interval: 1h, terminal: {json: /state, in: [done]}";
    for blocks in [rules, &format!("{rules}, idempotency: {{principal: static}}")] {
        let (stage, url) = stage(blocks, "ok held x3").await;
        let asked = futures_util::future::join3(
            get(&stage, &url, &[A]),
            get(&stage, &url, &[B]),
            get(&stage, &url, &[]),
        );
        let released = async {
            stage.provider.arrived("s", 4).await;
            stage.provider.release();
        };
        let ((a, b, none), ()) = tokio::join!(asked, released);
        for answer in [a, b, none] {
            assert_eq!((answer.status.as_u16(), answer.header("samekey-replay")), (200, ""));
        }
        assert_eq!(get(&stage, &url, &[A]).await.header("samekey-replay"), "stored");
        assert_eq!(
            get(&stage, &url, &[("authorization", "Bearer c")]).await.header("samekey-replay"),
            ""
        );
        assert_eq!(polls(&stage), 4, "{blocks}");
    }
}

#[tokio::test]
async fn a_poll_that_comes_too_soon_gets_the_last_answer() {
    let (stage, url) =
        stage("interval: 1h", r#"ok body={"state":"running"} +set-cookie:a=b; ok"#).await;
    assert_eq!(get(&stage, &url, &[A]).await.header("samekey-replay"), "");
    for _ in 0..20 {
        let answer = get(&stage, &url, &[A, ("x-request-id", "1")]).await;
        assert_eq!(seen(&answer), (200, r#"{"state":"running"}"#.to_owned(), "stored"));
        let said = |name| answer.header(name);
        assert_eq!(
            ["idempotent-replayed", "samekey-attempts", "set-cookie", "content-type"].map(said),
            ["true", "0", "", "application/json"]
        );
    }
    assert_eq!(polls(&stage), 1);
    let series =
        "samekey_exchanges_total{method=\"GET\",route=\"r\",source=\"stored\",status=\"2xx\"}";
    stage.samekey.until(series, 20.0).await;
    let fresh = get(&stage, &url, &[A, ("cache-control", "no-cache")]).await;
    assert_eq!((seen(&fresh).2, polls(&stage)), ("", 2));
    // And that is the last answer from then on. HEAD is nobody's poll.
    assert_eq!(get(&stage, &url, &[A]).await.text(), fresh.text());
    stage.client.send(Method::HEAD, &url, &[A], "").await;
    assert_eq!(polls(&stage), 3);
}

#[tokio::test]
async fn the_provider_is_asked_again_when_the_interval_is_over() {
    let (stage, url) = stage("interval: 200ms", "").await;
    let began = tokio::time::Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        assert_eq!(get(&stage, &url, &[A]).await.status, 200);
    }
    // Ten at the interval, fewer as nothing changes.
    let sent = polls(&stage);
    assert!((3..=10).contains(&sent), "{sent}");
}

#[tokio::test]
async fn an_interim_error_is_tried_again_and_ends_nothing() {
    let terminal = "terminal: {json: /state, in: [done]}";
    // More than the attempts of other routes.
    let (stage, url) = stage(
        &format!("retry: {{backoff: {{initial: 1ms, max: 5ms}}}}, {terminal}"),
        r#"500 body={"state":"done"} x9; ok body={"state":"error"}; ok"#,
    )
    .await;
    let first = get(&stage, &url, &[A]).await;
    assert_eq!(seen(&first), (200, r#"{"state":"error"}"#.to_owned(), ""));
    assert_eq!((first.header("samekey-attempts"), polls(&stage)), ("10", 10));
    let done = get(&stage, &url, &[A]).await;
    assert_eq!((done.json()["state"].as_str(), polls(&stage)), (Some("done"), 11));
    for _ in 0..5 {
        assert_eq!(seen(&get(&stage, &url, &[A]).await), (200, done.text(), "stored"));
    }
    assert_eq!(polls(&stage), 11);
}

#[tokio::test]
async fn a_poll_ends_with_what_the_upstream_said_when_its_deadline_is_near() {
    // Near is what the next wait does not fit before: a minute is no time that a slow machine
    // takes, so that the deadline cuts no attempt.
    let (stage, url) = stage(
        "retry: {deadline: 1m, backoff: {initial: 10ms, max: 50ms}}",
        "500 held; 500 x4; 500 retry_after=90 forever",
    )
    .await;
    let both = async { tokio::join!(get(&stage, &url, &[A]), get(&stage, &url, &[A])) };
    let released = async {
        joined(&stage, 1).await;
        stage.provider.release();
    };
    let ((first, second), ()) = tokio::join!(both, released);
    let stops = [&first, &second].map(|answer| answer.header("samekey-stop").to_owned());
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (500, 500));
    assert_eq!(stops, ["deadline", "deadline"], "who joined is told why, too");
    assert_eq!(polls(&stage), 6, "and what was said was asked for once");
}

#[tokio::test]
async fn a_poll_goes_on_for_those_who_joined_when_its_client_hangs_up() {
    let (stage, url) =
        stage("retry: {backoff: {initial: 1ms, max: 5ms}}", "500 held; 500; ok").await;
    let leader = begin(&stage, &url).await;
    stage.provider.arrived("s", 2).await;
    let others = join_all((0..3).map(|_| get(&stage, &url, &[])));
    let left = async {
        joined(&stage, 3).await;
        drop(leader);
        stage.samekey.until("samekey_inflight_exchanges{route=\"r\"}", 3.0).await;
        stage.provider.release();
    };
    let (answers, ()) = tokio::join!(others, left);
    assert!(answers.iter().all(|answer| seen(answer).2 == "joined" && answer.status == 200));
    assert_eq!(polls(&stage), 3);
}

#[tokio::test]
async fn a_poll_that_all_have_left_is_tried_no_more() {
    let (stage, url) = stage("retry: {backoff: {initial: 1ms, max: 5ms}}", "500 held; ok").await;
    let leader = begin(&stage, &url).await;
    stage.provider.arrived("s", 2).await;
    let other = begin(&stage, &url).await;
    joined(&stage, 1).await;
    drop((leader, other));
    stage.noticed().await;
    stage.provider.release();
    tokio::time::sleep(Duration::from_millis(100)).await; // time for a retry to come, wrongly
    assert_eq!(polls(&stage), 1);
}

#[tokio::test]
async fn a_refused_credential_is_not_answered_from_memory() {
    let (stage, url) = stage("terminal: {json: /state, in: [done]}", "ok x2; 401; ok").await;
    for fields in [&[A][..], &[B]] {
        get(&stage, &url, fields).await;
    }
    assert_eq!(seen(&get(&stage, &url, &[A]).await).2, "stored");
    let other = stage.url("/v1/jobs/other");
    assert_eq!(get(&stage, &other, &[A]).await.status, 401);
    assert_eq!(seen(&get(&stage, &url, &[A]).await).2, "");
    assert_eq!(seen(&get(&stage, &url, &[B]).await).2, "stored", "another caller");
}

#[tokio::test]
async fn what_is_too_large_to_share_goes_to_each_on_its_own() {
    let (stage, url) = stage("interval: 1h", "ok held pad=1048576; ok x2").await;
    let asked = join_all((0..3).map(|_| get(&stage, &url, &[A])));
    let released = async {
        joined(&stage, 2).await;
        stage.provider.release();
    };
    let (answers, ()) = tokio::join!(asked, released);
    assert!(answers.iter().all(|answer| answer.whole && seen(answer).2.is_empty()));
    assert_eq!(answers.iter().filter(|answer| answer.body.len() > 1 << 20).count(), 1);
    assert_eq!(polls(&stage), 3);
}

#[tokio::test]
async fn a_route_that_observes_sends_every_poll() {
    let (stage, url) = stage("mode: observe, interval: 1h", "").await;
    for _ in 0..3 {
        assert_eq!(seen(&get(&stage, &url, &[A]).await).2, "");
    }
    assert_eq!(polls(&stage), 3);
    stage.samekey.until("samekey_polls_total{event=\"stored\",route=\"r\"}", 2.0).await;
}
