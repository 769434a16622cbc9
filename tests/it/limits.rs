//! What is held back: slots, rates and pauses, each per route and credential.

use std::time::Duration;

use http::Method;
use tokio::io::AsyncReadExt as _;

use crate::support::{Answer, ORDER, Stage};

const A: (&str, &str) = ("authorization", "Bearer a");
const B: (&str, &str) = ("authorization", "Bearer b");

fn seen(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.header("samekey-attempts"))
}

fn limit_wait() -> (u16, String) {
    (503, "limit-wait".to_owned())
}

#[tokio::test]
async fn no_more_are_in_flight_than_the_route_allows() {
    let stage = Stage::new("limits: {concurrency: 2}").await;
    stage.script("held forever");
    let asked = futures_util::future::join_all((0..6).map(|_| stage.post(&[], ORDER)));
    let watched = async {
        for wave in 1..=3 {
            stage.provider.arrived("s", wave * 2).await;
            tokio::time::sleep(Duration::from_millis(30)).await; // time for a third to come, wrongly
            assert_eq!(stage.sent(), wave * 2);
            stage.provider.release();
        }
    };
    let (answers, ()) = tokio::join!(asked, watched);
    assert!(answers.iter().all(|answer| answer.status == 201));
}

#[tokio::test]
async fn a_slot_is_held_until_the_last_byte() {
    let stage = Stage::new("limits: {concurrency: 1}").await;
    let url = stage.url("/bytes/8000000");
    let host = stage.provider.ports.http_addr;
    let mut slow = tokio::net::TcpStream::connect(stage.samekey.proxy).await.expect("it listens");
    let head = format!("GET {url} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut slow, head.as_bytes()).await.expect("it takes them");
    let mut first = [0; 1024];
    slow.read_exact(&mut first).await.expect("the answer begins");
    let next = stage.post(&[], ORDER);
    let reads = async {
        tokio::time::sleep(Duration::from_millis(50)).await; // time for the next to pass, wrongly
        assert_eq!(stage.sent(), 1);
        let mut rest = vec![0; 64 * 1024];
        while slow.read(&mut rest).await.is_ok_and(|count| count > 0) {}
    };
    let (answer, ()) = tokio::join!(next, reads);
    assert_eq!(seen(&answer), (201, "1"));
}

#[tokio::test]
async fn who_leaves_amid_a_body_frees_its_slot() {
    let stage = Stage::new("limits: {concurrency: 1}").await;
    stage.script("drip 50; ok");
    let mut stream = stage.begin(&[], ORDER).await;
    let mut piece = [0; 16];
    stream.read_exact(&mut piece).await.expect("the answer begins");
    drop(stream);
    assert_eq!(seen(&stage.post(&[], ORDER).await), (201, "1"));
}

#[tokio::test]
async fn each_credential_has_limits_of_its_own() {
    for limits in ["{concurrency: 1, max_wait: 100ms}", "{rate: 1/1h, max_wait: 100ms}"] {
        let stage = Stage::new(&format!("limits: {limits}")).await;
        stage.script("held; ok");
        let first = stage.post(&[A], ORDER);
        let others = async {
            stage.provider.arrived("s", 1).await;
            assert_eq!(
                seen(&stage.post(&[B], ORDER).await),
                (201, "1"),
                "{limits}: another credential"
            );
            let told = stage.post(&[A], ORDER).await;
            assert_eq!((told.said(), seen(&told).1), (limit_wait(), "0"), "{limits}");
            assert!(told.header("retry-after").parse::<u64>().is_ok_and(|wait| wait >= 1));
            stage.provider.release();
        };
        let (first, ()) = tokio::join!(first, others);
        assert_eq!((first.status.as_u16(), stage.sent()), (201, 2));
    }
}

#[tokio::test]
async fn no_stretch_of_time_sees_more_than_the_rate() {
    let stage = Stage::new("limits: {rate: 2/300ms}").await;
    let answers = futures_util::future::join_all((0..6).map(|_| stage.post(&[], ORDER))).await;
    assert!(answers.iter().all(|answer| answer.status == 201));
    let at: Vec<u64> = stage.provider.seen("s").iter().map(|seen| seen.at_ms).collect();
    // The way to the provider takes one longer than another.
    assert!(at.windows(3).all(|three| three[2] - three[0] >= 250), "{at:?}");
}

#[tokio::test]
async fn a_queue_has_an_end() {
    let stage = Stage::new("limits: {concurrency: 1, max_queue: 1}").await;
    stage.script("held; ok");
    let first = stage.post(&[], ORDER);
    let others = async {
        stage.provider.arrived("s", 1).await;
        let told = async {
            let two = (0..2).map(|_| stage.post(&[], ORDER));
            futures_util::future::join_all(two).await
        };
        let release = async {
            tokio::time::sleep(Duration::from_millis(100)).await; // for both to have come
            stage.provider.release();
        };
        tokio::join!(told, release).0
    };
    let (first, others) = tokio::join!(first, others);
    let mut said = [first.said(), others[0].said(), others[1].said()];
    said.sort();
    assert_eq!(said, [(201, String::new()), (201, String::new()), (503, "overloaded".to_owned())]);
}

#[tokio::test]
async fn routes_of_one_group_share_their_limits() {
    let route = |name: &str, path: &str| {
        format!(
            "{{name: {name}, match: {{hosts: ['*'], paths: ['/s/s{path}']}}, limits: {{concurrency: 1, max_wait: 50ms, group: g}}}}"
        )
    };
    let both = format!("routes: [{}, {}]\n", route("a", "/v1/**"), route("b", "/v2/**"));
    let stage = Stage::configured(&both).await;
    stage.script("held");
    let first = stage.post(&[], ORDER);
    let other = async {
        stage.provider.arrived("s", 1).await;
        let told = stage.client.send(Method::POST, &stage.url("/v2/jobs"), &[], ORDER).await;
        stage.provider.release();
        told
    };
    let (first, other) = tokio::join!(first, other);
    assert_eq!((first.status.as_u16(), other.said()), (201, limit_wait()));
}

#[tokio::test]
async fn a_throttled_route_waits_together_and_one_goes_first() {
    let stage = Stage::new("").await;
    stage.script("429 retry_after_ms=400; held; ok x4");
    let first = stage.post(&[], ORDER);
    let others = async {
        stage.samekey.until("samekey_pauses_total{route=\"r\"}", 1.0).await;
        let waiting = futures_util::future::join_all((0..4).map(|_| stage.post(&[], ORDER)));
        let watched = async {
            stage.provider.arrived("s", 2).await;
            tokio::time::sleep(Duration::from_millis(300)).await; // past the jitter of the throttled one
            assert_eq!(stage.sent(), 2, "one goes first");
            stage.provider.release();
        };
        tokio::join!(waiting, watched).0
    };
    let (first, others) = tokio::join!(first, others);
    assert_eq!(seen(&first), (201, "2"));
    assert!(others.iter().all(|answer| seen(answer) == (201, "1")), "no attempt is burnt");
    let at: Vec<u64> = stage.provider.seen("s").iter().map(|seen| seen.at_ms).collect();
    assert!(at[1] - at[0] >= 399, "{at:?}");
}

#[tokio::test]
async fn a_pause_is_of_one_credential_and_one_upstream() {
    let stage = Stage::new("retry: {attempts: 1}, limits: {max_wait: 50ms}").await;
    stage.script("429 retry_after=60");
    assert_eq!(stage.post(&[A], ORDER).await.status, 429);
    let told = stage.post(&[A], ORDER).await;
    assert_eq!(told.said(), limit_wait());
    assert!(told.header("retry-after").parse::<u64>().is_ok_and(|wait| (55..=61).contains(&wait)));
    assert_eq!(stage.post(&[B], ORDER).await.status, 201, "another credential");
    let secure = stage.provider.ports.https_url("/s/s/v1/jobs");
    let other = stage.client.send(Method::POST, &secure, &[A], ORDER).await;
    assert_eq!(other.status, 201, "another upstream");
}

#[tokio::test]
async fn a_first_attempt_waits_no_longer_than_its_deadline() {
    let stage = Stage::new("retry: {attempts: 1, deadline: 200ms}, limits: {max_wait: 30s}").await;
    stage.script("429 retry_after=20");
    assert_eq!(stage.post(&[], ORDER).await.status, 429);
    assert_eq!(stage.post(&[], ORDER).await.said(), limit_wait());
}

#[tokio::test]
async fn a_throttled_request_waits_by_its_own_deadline_and_gets_its_answer() {
    let stage = Stage::new("retry: {deadline: 3s}, limits: {max_wait: 10ms}").await;
    stage.script("429 retry_after_ms=300; ok");
    assert_eq!(seen(&stage.post(&[], ORDER).await), (201, "2"), "max_wait is for who comes new");
}

/// Queues a request behind one that is held, hangs up, and lets the queue go on: what
/// it did in the end.
async fn leaves_the_queue(headers: &[(&str, &str)], length: usize) -> usize {
    let stage = Stage::new("limits: {concurrency: 1}").await;
    stage.script("held; ok; ok");
    let first = stage.post(&[], ORDER);
    let queued = async {
        stage.provider.arrived("s", 1).await;
        let stream = stage.write(headers, length, ORDER).await;
        tokio::time::sleep(Duration::from_millis(50)).await; // for it to have its place
        drop(stream);
        tokio::time::sleep(Duration::from_millis(50)).await; // for the hanging up to be seen
        stage.provider.release();
    };
    let (first, ()) = tokio::join!(first, queued);
    assert_eq!(first.status, 201);
    let last = stage.post(&[("idempotency-key", "last")], ORDER).await;
    assert_eq!(last.status, 201, "its place was given up");
    stage.provider.effects("s") - 2
}

#[tokio::test]
async fn who_leaves_the_queue_is_not_sent() {
    assert_eq!(leaves_the_queue(&[], ORDER.len()).await, 0);
    assert_eq!(
        leaves_the_queue(&[("idempotency-key", "k")], ORDER.len() + 9).await,
        0,
        "no whole upload"
    );
}

#[tokio::test]
async fn a_key_whose_client_left_the_queue_can_be_asked_for_again() {
    let stage = Stage::new("limits: {concurrency: 1}").await;
    stage.script("held; ok; ok");
    let first = stage.post(&[], ORDER);
    let queued = async {
        stage.provider.arrived("s", 1).await;
        let stream = stage.begin(&[("idempotency-key", "k")], ORDER).await;
        stage.counted("client", 1).await;
        drop(stream);
        let again = stage.order("k");
        let release = async {
            stage.counted("client", 2).await;
            stage.provider.release();
        };
        tokio::join!(again, release).0
    };
    let (first, again) = tokio::join!(first, queued);
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 201), "{}", again.text());
    assert_eq!(stage.provider.effects("s"), 2);
}
