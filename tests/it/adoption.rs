//! Orphans: keyless orders whose answers were not delivered, and who takes them over.

use std::time::Duration;

use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::client::read_all;
use crate::support::{Answer, ORDER, Stage};

/// Where a key can travel.
const CARRIERS: [&str; 3] = ["idempotency-key", "{json: /m/id}", "{query: requestId}"];

async fn stage(carrier: &str, more: &str) -> Stage {
    Stage::new(&format!(
        "idempotency: {{adopt_orphans: 10m, header: {carrier}{more}}}, retry: {{attempts: 1}}"
    ))
    .await
}

/// Orders without a key, and hangs up once the provider has `seen` that many requests;
/// returns when that was noticed.
async fn abandon(stage: &Stage, seen: usize) {
    let stream = stage.begin(&[], ORDER).await;
    stage.provider.arrived("s", seen).await;
    drop(stream);
    stage.noticed().await;
}

/// What one order went out as: its target and body, the key among them.
fn sent(stage: &Stage) -> Vec<(String, String, String)> {
    let targets = stage.targets().into_iter().zip(stage.bodies());
    targets.zip(stage.keys()).map(|((target, body), key)| (target, body, key)).collect()
}

fn replay(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.header("samekey-replay"))
}

#[tokio::test]
async fn an_order_whose_client_left_before_the_answer_is_adopted_once() {
    for carrier in CARRIERS {
        let stage = stage(carrier, "").await;
        stage.script("held");
        abandon(&stage, 1).await;
        let again = stage.post(&[], "{ \"a\":1 }");
        let released = async {
            stage.counted("adopted", 1).await;
            stage.provider.release();
        };
        let (again, ()) = tokio::join!(again, released);
        assert_eq!(replay(&again), (201, "adopted"), "{carrier}");
        assert_eq!(again.header("samekey-attempts"), "0");
        assert_eq!((stage.sent(), stage.provider.effects("s")), (1, 1), "{carrier}");
        let key = again.header("idempotency-key");
        let (target, body, field) = sent(&stage).remove(0);
        assert!(target.contains(key) || body.contains(key) || field == key, "{carrier}");
        assert_eq!(replay(&stage.post(&[], ORDER).await), (201, ""), "{carrier}: once");
        assert_eq!(stage.provider.effects("s"), 2);
    }
}

#[tokio::test]
async fn an_order_whose_client_left_amid_the_answer_is_adopted() {
    for script in ["drip 10", "drip 10 chunked"] {
        let stage = stage("idempotency-key", "").await;
        stage.script(script);
        let mut stream = stage.begin(&[], ORDER).await;
        let mut piece = [0; 64];
        stream.read_exact(&mut piece).await.expect("the answer begins");
        drop(stream);
        let again = stage.post(&[], ORDER).await;
        assert_eq!((replay(&again), stage.sent()), ((201, "adopted"), 1), "{script}");
        assert!(again.whole && again.json()["id"].is_string());
    }
}

#[tokio::test]
async fn orders_whose_answers_were_delivered_stay_two() {
    let stage = stage("idempotency-key", "").await;
    for nth in 1..4 {
        assert_eq!(replay(&stage.post(&[], ORDER).await), (201, ""));
        assert_eq!(stage.provider.effects("s"), nth);
    }
    // Two at once, each with a client that waits.
    stage.script("held; held");
    let release = async {
        stage.provider.arrived("s", 2).await;
        stage.provider.release();
    };
    let (one, other, ()) = tokio::join!(stage.post(&[], ORDER), stage.post(&[], ORDER), release);
    assert_eq!((replay(&one), replay(&other)), ((201, ""), (201, "")));
    assert_eq!(stage.provider.effects("s"), 2);
    // An upstream's own answer settles the matter, whatever it is.
    stage.script("500; ok");
    assert_eq!(replay(&stage.post(&[], ORDER).await), (500, ""));
    assert_eq!(replay(&stage.post(&[], ORDER).await), (201, ""));
}

#[tokio::test]
async fn orders_over_http2_that_were_delivered_stay_two() {
    let stage = stage("idempotency-key", "").await;
    let url = stage.provider.ports.https_url("/s/s/v1/jobs");
    let client = stage.client.clone().h2();
    for nth in 1..4 {
        assert_eq!(replay(&client.post(&url, ORDER).await), (201, ""));
        assert_eq!(stage.provider.effects("s"), nth);
    }
}

#[tokio::test]
async fn only_an_equal_order_of_the_same_caller_adopts() {
    let stage = stage("idempotency-key", "").await;
    stage.script("held");
    abandon(&stage, 1).await;
    stage.provider.release();
    stage.counted("recorded", 1).await;
    let other = stage.post(&[("authorization", "Bearer b")], ORDER).await;
    assert_eq!(replay(&other), (201, ""), "another caller");
    assert_eq!(replay(&stage.post(&[], r#"{"a": 2}"#).await), (201, ""), "another order");
    assert_eq!(replay(&stage.order("k").await), (201, ""), "one with a key");
    assert_eq!(replay(&stage.post(&[], ORDER).await), (201, "adopted"));
}

#[tokio::test]
async fn an_order_of_unknown_length_is_never_adopted() {
    let stage = stage("idempotency-key", "").await;
    let chunked = async || {
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             transfer-encoding: chunked\r\n\r\n8\r\n{ORDER}\r\n0\r\n\r\n",
            stage.url("/v1/jobs")
        );
        let mut stream =
            tokio::net::TcpStream::connect(stage.samekey.proxy).await.expect("it listens");
        stream.write_all(head.as_bytes()).await.expect("it takes them");
        stream
    };
    stage.script("held");
    let stream = chunked().await;
    stage.provider.arrived("s", 1).await;
    drop(stream);
    let again = read_all(&mut chunked().await).await;
    assert!(again.starts_with("HTTP/1.1 201") && !again.contains("samekey-replay"), "{again}");
    stage.provider.release();
    assert_eq!(stage.provider.effects("s"), 2);
}

#[tokio::test]
async fn an_outcome_that_nobody_knows_is_never_a_second_order() {
    let unknown = (409, "outcome-unknown".to_owned());
    for carrier in CARRIERS {
        let stage = stage(carrier, "").await;
        for (script, first) in [("reset_after", 502), ("garbage", 502), ("eof_after", 502)] {
            stage.script(script);
            let body = format!("{{\"a\": \"{script}\"}}");
            assert_eq!(stage.post(&[], &body).await.status.as_u16(), first);
            for _ in 0..3 {
                let again = stage.post(&[], &body).await;
                assert_eq!(again.said(), unknown, "{carrier} {script}");
                assert_eq!(again.header("x-should-retry"), "false");
            }
            assert_eq!(stage.sent(), 1, "{carrier} {script}");
        }
    }
}

#[tokio::test]
async fn an_order_cut_by_its_deadline_is_never_a_second_order() {
    let stage = Stage::new("idempotency: {adopt_orphans: 10m}, retry: {deadline: 100ms}").await;
    stage.script("hang_after");
    assert_eq!(stage.post(&[], ORDER).await.said(), (504, "upstream-timeout".to_owned()));
    assert_eq!(stage.post(&[], ORDER).await.said(), (409, "outcome-unknown".to_owned()));
    assert_eq!(stage.sent(), 1);
}

#[tokio::test]
async fn an_adopted_order_is_sent_again_under_the_key_that_it_had() {
    for carrier in CARRIERS {
        let stage = stage(carrier, ", upstream_dedupes: true").await;
        stage.script("reset_after");
        assert_eq!(stage.post(&[], ORDER).await.status, 502);
        let again = stage.post(&[], ORDER).await;
        assert_eq!(
            (again.status.as_u16(), again.header("samekey-attempts")),
            (201, "1"),
            "{carrier}"
        );
        let sent = sent(&stage);
        assert_eq!(sent.len(), 2, "{carrier}");
        assert_eq!(sent[0], sent[1], "{carrier}: one key, and all else as it was");
        assert_eq!(stage.post(&[], ORDER).await.status, 201);
        assert_ne!(self::sent(&stage)[2], sent[1], "{carrier}: delivered, so the next is another");
    }
}

#[tokio::test]
async fn a_join_that_is_told_to_come_again_still_finds_its_order() {
    let stage = stage("idempotency-key", ", join_wait: 50ms").await;
    stage.script("held");
    abandon(&stage, 1).await;
    for _ in 0..2 {
        let told = stage.post(&[], ORDER).await;
        assert_eq!(told.said(), (409, "in-progress".to_owned()));
    }
    stage.provider.release();
    stage.counted("recorded", 1).await;
    assert_eq!(replay(&stage.post(&[], ORDER).await), (201, "adopted"));
    assert_eq!((stage.sent(), stage.provider.effects("s")), (1, 1));
}

#[tokio::test]
async fn a_crowd_of_equal_orders_adopts_an_orphan_once() {
    let stage = stage("idempotency-key", "").await;
    stage.script("held");
    abandon(&stage, 1).await;
    stage.provider.release();
    stage.counted("recorded", 1).await;
    let orders = (0..8).map(|_| stage.post(&[], ORDER));
    let answers = futures_util::future::join_all(orders).await;
    let adopted = answers.iter().filter(|answer| replay(answer) == (201, "adopted")).count();
    assert_eq!((adopted, stage.provider.effects("s")), (1, 8));
}

#[tokio::test]
async fn a_window_closes() {
    let blocks = "idempotency: {adopt_orphans: 100ms}, retry: {attempts: 1}";
    let stage = Stage::new(blocks).await;
    stage.script("held");
    abandon(&stage, 1).await;
    stage.provider.release();
    stage.counted("recorded", 1).await;
    tokio::time::sleep(Duration::from_millis(120)).await;
    assert_eq!(replay(&stage.post(&[], ORDER).await), (201, ""));
    assert_eq!(
        stage.client.send(Method::GET, &stage.url("/v1/jobs/none"), &[], "").await.status,
        404
    );
}
