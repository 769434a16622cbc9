//! What a repeat is told while the first is under way, and once it is answered.

use super::*;

#[tokio::test]
async fn a_replay_is_the_answer_and_says_that_it_is_one() {
    let stage = Stage::new("").await;
    stage.script("ok +set-cookie:a=1 +location:/v1/jobs/1 +x-request-id:r-1 +retry-after:3 +etag:e +x-secret-request-id:s");
    let first = stage.order("k").await;
    let again = stage.order("k").await;
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    for (name, wanted) in [
        ("content-type", first.header("content-type")),
        ("location", "/v1/jobs/1"),
        ("x-request-id", "r-1"),
        ("etag", "e"),
        ("set-cookie", ""),
        ("retry-after", ""),
        ("server", ""),
        ("x-secret-request-id", ""),
        ("idempotent-replayed", "true"),
        ("samekey-replay", "stored"),
        ("samekey-attempts", "0"),
        ("idempotency-key", "k"),
    ] {
        assert_eq!(again.header(name), wanted, "{name}");
    }
    assert_eq!((first.header("samekey-attempts"), first.header("idempotent-replayed")), ("1", ""));
    assert_eq!(stage.sent(), 1);
}

/// Two hundred ask the same at once; one is sent, and all get its answer.
async fn crowd(client: &Client, url: String, stage: &Stage) {
    stage.script("held");
    let mut crowd = JoinSet::new();
    for _ in 0..200 {
        let (client, url) = (client.clone(), url.clone());
        let headers = [("idempotency-key", "crowd"), ("content-type", "application/json")];
        crowd.spawn(async move { client.send(Method::POST, &url, &headers, ORDER).await });
    }
    stage.provider.arrived("s", 1).await;
    stage.provider.release();
    let answers: Vec<Answer> = crowd.join_all().await;
    let bodies: HashSet<&[u8]> = answers.iter().map(|answer| answer.body.as_ref()).collect();
    assert!(answers.iter().all(|answer| answer.status == 201) && bodies.len() == 1);
    assert_eq!((stage.sent(), stage.provider.effects("s")), (1, 1));
    let led = answers.iter().filter(|answer| answer.header("samekey-attempts") == "1").count();
    assert_eq!(led, 1);
}

#[tokio::test]
async fn two_hundred_at_once_have_one_effect() {
    let stage = Stage::new("").await;
    crowd(&stage.client, stage.url("/v1/jobs"), &stage).await;
}

#[tokio::test]
async fn two_hundred_at_once_over_http2_have_one_effect() {
    let stage = Stage::new("").await;
    let url = stage.provider.ports.https_url("/s/s/v1/jobs");
    crowd(&stage.client.clone().h2(), url, &stage).await;
}

/// When the first is let go.
#[derive(Clone, Copy, PartialEq)]
enum Release {
    /// While the repeat waits.
    Meanwhile,
    /// When the repeat has its answer.
    Afterwards,
}

/// What a repeat that comes while the first is held gets, and what the first gets.
async fn while_held(blocks: &str, step: &str, body: &str, release: Release) -> (Answer, Answer) {
    let stage = Stage::new(blocks).await;
    stage.script(step);
    let first = stage.order("k");
    let second = async {
        stage.provider.arrived("s", 1).await;
        let headers = [("idempotency-key", "k")];
        let asked = stage.post(&headers, body);
        let released = async {
            if release == Release::Meanwhile {
                stage.counted("client", 2).await;
                stage.provider.release();
            }
        };
        let (second, ()) = tokio::join!(asked, released);
        stage.provider.release();
        second
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(stage.sent(), 1, "waking sends nothing");
    (first, second)
}

#[tokio::test]
async fn a_join_gets_the_final_answer_whatever_it_is() {
    for (step, status) in [("held", 201), ("503 held", 503), ("404 held", 404), ("409 held", 409)] {
        let (first, second) = Box::pin(while_held("", step, ORDER, Release::Meanwhile)).await;
        assert_eq!((first.status.as_u16(), second.status.as_u16()), (status, status));
        assert_eq!(first.body, second.body);
        assert_eq!(
            (second.header("samekey-replay"), second.header("samekey-attempts")),
            ("joined", "0")
        );
    }
    let (first, second) = Box::pin(while_held("", "garbage held", ORDER, Release::Meanwhile)).await;
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (502, 502));
    assert_eq!(second.header("samekey-attempts"), "0");
}

#[tokio::test]
async fn a_repeat_that_may_not_or_cannot_join_is_told_to_come_again() {
    for blocks in ["idempotency: {in_progress: reject}", "idempotency: {join_wait: 50ms}"] {
        let (first, second) =
            Box::pin(while_held(blocks, "held", ORDER, Release::Afterwards)).await;
        assert_eq!(first.status, 201);
        assert_eq!(second.said(), (409, "in-progress".to_owned()), "{blocks}");
        assert_eq!(second.header("retry-after"), "1");
        assert_eq!(second.header("x-should-retry"), "", "an SDK may come again");
    }
}

#[tokio::test]
async fn another_request_with_a_key_is_found_out_before_it_waits() {
    for (blocks, status) in [
        ("", 422),
        ("idempotency: {mismatch: 409}", 409),
        ("idempotency: {in_progress: reject}", 422),
    ] {
        let (first, second) =
            Box::pin(while_held(blocks, "held", r#"{"a": 2}"#, Release::Afterwards)).await;
        assert_eq!(first.status, 201);
        assert_eq!(second.said(), (status, "key-reused".to_owned()), "{blocks}");
    }
}

#[tokio::test]
async fn a_mismatch_is_forwarded_where_the_upstream_is_to_decide() {
    let stage = Stage::new("idempotency: {mismatch: forward}").await;
    stage.provider.honour_keys("s", true);
    assert_eq!(stage.order("k").await.status, 201);
    let answer = stage.post(&[("idempotency-key", "k")], r#"{"a": 2}"#).await;
    assert_eq!((answer.status.as_u16(), stage.sent()), (422, 2));
    assert_eq!(answer.json()["error"]["code"], "idempotency_key_reuse", "in its own words");
    assert_eq!(stage.order("k").await.header("samekey-replay"), "stored", "the record stands");
}

#[tokio::test]
async fn a_repeat_of_an_upload_that_broke_off_is_sent() {
    let stage = Stage::new("").await;
    let leader = stage.write(&[("idempotency-key", "k")], ORDER.len() + 100, ORDER).await;
    stage.provider.arrived("default", 0).await;
    stage.counted("client", 1).await;
    let joins = stage.order("k");
    let leaves = async {
        stage.counted("client", 2).await;
        drop(leader);
    };
    let (answer, ()) = tokio::join!(joins, leaves);
    assert_eq!((answer.status.as_u16(), answer.header("samekey-attempts")), (201, "1"));
    assert_eq!(stage.provider.effects("s"), 1);
}

#[tokio::test]
async fn a_client_that_hung_up_and_asks_again_gets_the_first_answer() {
    for (headers, step) in [
        ([("idempotency-key", "k")], "held"),
        ([("samekey-key", "k")], "held"),
        ([("amz-sdk-invocation-id", "k")], "held"),
        ([("idempotency-key", "k")], "drip 5"),
        ([("idempotency-key", "k")], "drip 5 chunked"),
    ] {
        let stage = Stage::new("").await;
        stage.script(step);
        let mut stream = stage.begin(&headers, ORDER).await;
        stage.provider.arrived("s", 1).await;
        if step != "held" {
            let mut piece = [0; 16];
            tokio::io::AsyncReadExt::read(&mut stream, &mut piece).await.expect("an answer begins");
        }
        drop(stream);
        let again = stage.post(&headers, ORDER);
        let released = async {
            tokio::time::sleep(Duration::from_millis(20)).await; // for the hanging up to be seen
            stage.provider.release();
        };
        let (again, ()) = tokio::join!(again, released);
        assert_eq!((again.status.as_u16(), again.header("samekey-attempts")), (201, "0"), "{step}");
        assert!(again.whole && again.json()["id"].is_string());
        assert_eq!((stage.sent(), stage.provider.effects("s")), (1, 1), "{step}");
    }
}

#[tokio::test]
async fn an_upload_that_is_not_complete_leaves_the_key_free() {
    let stage = Stage::new("").await;
    drop(stage.write(&[("idempotency-key", "k")], 1000, ORDER).await);
    stage.counted("client", 1).await;
    let answer = stage.order("k").await;
    assert_eq!((answer.status.as_u16(), answer.header("samekey-replay")), (201, ""));
    assert_eq!(stage.provider.effects("s"), 1);
}
