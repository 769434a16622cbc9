//! Outcomes that nobody knows, keys that are free again, and answers that went.

use super::*;

/// Plays `script` to a first request and asks again: what both are told, and how
/// often the provider was asked.
async fn twice(
    stage: &Stage,
    field: &str,
    script: &str,
    wanted: ((u16, &str), (u16, &str), usize),
) -> Answer {
    stage.script(script);
    let key = fresh();
    let first = stage.post(&[(field, &key)], ORDER).await;
    let again = stage.post(&[(field, &key)], ORDER).await;
    let own = |(status, slug): (u16, &str)| (status, slug.to_owned());
    assert_eq!(first.said(), own(wanted.0), "{field} {script}: first: {}", first.text());
    assert_eq!(again.said(), own(wanted.1), "{field} {script}: again: {}", again.text());
    assert_eq!(stage.sent(), wanted.2, "{field} {script}");
    again
}

const OWN: &str = "idempotency-key";
const NAMED: &str = "samekey-key";
const UNKNOWN: (u16, &str) = (409, "outcome-unknown");
const BROKEN: (u16, &str) = (502, "upstream-protocol");

#[tokio::test]
async fn an_outcome_that_nobody_knows_is_not_tried_again() {
    let stages = [Stage::new("").await, Stage::new("idempotency: {upstream_dedupes: false}").await];
    for (script, first) in [
        ("503", (503, "")),
        ("500", (500, "")),
        ("501", (501, "")),
        ("408", (408, "")),
        ("409", (409, "")),
        ("529", (529, "")),
        ("reset_after", BROKEN),
        ("eof_after", BROKEN),
        ("reset_before", BROKEN),
        ("garbage", BROKEN),
        ("truncate", (201, "")),
        ("bad_chunk", (201, "")),
    ] {
        for stage in &stages {
            let told = twice(stage, NAMED, script, (first, UNKNOWN, 1)).await;
            assert_eq!(told.header("x-should-retry"), "false");
            assert_eq!(told.header("stripe-should-retry"), "false");
            assert_eq!(told.header("samekey-attempts"), "0");
            assert!(told.text().contains("see exchange "), "{}", told.text());
        }
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_tried_again_where_somebody_answers_for_it() {
    let good = (201, "");
    let once = "retry: {attempts: 1}";
    let dedupes = "idempotency: {upstream_dedupes: true}, retry: {attempts: 1}";
    let short = "idempotency: {upstream_dedupes: true, upstream_ttl: 1ms}, retry: {attempts: 1}";
    let never = "idempotency: {upstream_dedupes: false}, retry: {attempts: 1}";
    let accepts = "retry: {unsafe: true, attempts: 1}";
    let unkeyed = "idempotency: {upstream_dedupes: true, inject: false}, retry: {attempts: 1}";
    for (blocks, own, named) in [
        (once, good, UNKNOWN), // the client vouches for its own key
        (dedupes, good, good),
        (short, UNKNOWN, UNKNOWN),
        (never, UNKNOWN, UNKNOWN),
        (accepts, good, good),
        (unkeyed, good, UNKNOWN), // nobody de-duplicates by a key that is not sent
    ] {
        let stage = Stage::new(blocks).await;
        for (field, again) in [(OWN, own), (NAMED, named)] {
            let sent = if again == good { 2 } else { 1 };
            twice(&stage, field, "reset_after", (BROKEN, again, sent)).await;
        }
    }
}

#[tokio::test]
async fn a_crowd_that_asks_for_an_unknown_outcome_sends_it_once_more() {
    let stage = Stage::new("retry: {attempts: 1}").await;
    stage.script("reset_after; held");
    assert_eq!(stage.order("k").await.status, 502);
    let crowd = futures_util::future::join_all((0..50).map(|_| stage.order("k")));
    let released = async {
        stage.counted("client", 51).await;
        stage.provider.arrived("s", 2).await;
        stage.provider.release();
    };
    let (answers, ()) = tokio::join!(crowd, released);
    assert!(answers.iter().all(|answer| answer.status == 201));
    assert_eq!(stage.sent(), 2);
}

#[tokio::test]
async fn a_crowd_behind_an_upload_that_broke_off_sends_its_order_once() {
    let stage = Stage::new("").await;
    stage.script("held; held");
    let leader = stage.write(&[("idempotency-key", "k")], ORDER.len() + 100, ORDER).await;
    stage.provider.arrived("s", 1).await;
    let crowd = futures_util::future::join_all((0..50).map(|_| stage.order("k")));
    let released = async {
        stage.counted("client", 51).await;
        drop(leader);
        stage.provider.arrived("s", 2).await;
        stage.provider.release();
    };
    let (answers, ()) = tokio::join!(crowd, released);
    assert!(answers.iter().all(|answer| answer.status == 201));
    assert_eq!((stage.sent(), stage.provider.effects("s")), (2, 1));
}

#[tokio::test]
async fn a_key_that_did_nothing_is_free_again() {
    let free = (201, "");
    let refuses =
        "retry: {attempts: 1, failed_when: [{json: /success, in: [false], means: refused}]}";
    let stage = Stage::new(refuses).await;
    for (script, first) in [
        ("400", (400, "")),
        ("404", (404, "")),
        ("402", (402, "")),
        ("422", (422, "")),
        ("early 413", (413, "")),
        ("429", (429, "")),
        ("403 retry_after=1", (403, "")),
        ("200 body={\"success\":false}", (200, "")),
    ] {
        twice(&stage, OWN, script, (first, free, 2)).await;
        twice(&stage, NAMED, script, (first, free, 2)).await;
    }
    let unproved = Stage::new("retry: {attempts: 1, refused_by: []}").await;
    twice(&unproved, NAMED, "429", ((429, ""), UNKNOWN, 1)).await;
    let means = "retry: {failed_when: [{json: /success, in: [false], means: unknown}]}";
    let means = Stage::new(means).await;
    twice(&means, NAMED, "200 body={\"success\":false}", ((200, ""), UNKNOWN, 1)).await;
}

#[tokio::test]
async fn ambiguity_sticks() {
    // Long enough for three attempts on a slow machine: they have to come while it holds.
    let dedupes = "idempotency: {upstream_dedupes: true, upstream_ttl: 3s}, retry: {backoff: {initial: 1ms, max: 1ms}}";
    let cases = [
        ("503; 400", (400, ""), 2),
        ("reset_after; 422", (422, ""), 2),
        ("503; 429 retry_after=500; ok", (429, ""), 2),
        ("reset_after; 503; 404", (404, ""), 3),
    ];
    let checks = cases.map(|(script, first, sent)| async move {
        let stage = Stage::new(dedupes).await;
        stage.script(script);
        let answer = stage.post(&[(NAMED, "k")], ORDER).await;
        assert_eq!(answer.said(), (first.0, first.1.to_owned()), "{script}");
        tokio::time::sleep(Duration::from_millis(3100)).await; // the upstream's promise lapses
        let again = stage.post(&[(NAMED, "k")], ORDER).await;
        assert_eq!(again.said(), (UNKNOWN.0, UNKNOWN.1.to_owned()), "{script}");
        assert_eq!(stage.sent(), sent, "{script}");
    });
    futures_util::future::join_all(checks).await;
    // Across exchanges too: a client's own key that is sent again and refused stays unknown.
    let stage = Stage::new("retry: {attempts: 1}").await;
    stage.script("reset_after; 400; 400");
    let told: Vec<_> = [
        stage.order("k").await,
        stage.order("k").await,
        stage.post(&[(OWN, "k")], r#"{"a": 2}"#).await,
    ]
    .iter()
    .map(Answer::said)
    .collect();
    assert_eq!(told[1], (400, String::new()));
    assert_eq!(told[2], (422, "key-reused".to_owned()), "it is not free for another request");
}

#[tokio::test]
async fn what_is_not_recorded_is_not_ordered_again() {
    let kept = (409, "response-not-retained");
    let capture = "idempotency: {record: [200], capture: {job: /id, n: /n}}";
    let told = twice(&Stage::new(capture).await, OWN, "", ((201, ""), kept, 1)).await;
    assert_eq!(told.json()["captured"], serde_json::json!({"job": "job-s-1", "n": "1"}));
    assert_eq!(told.header("x-should-retry"), "false");
    twice(&Stage::new("").await, OWN, "302", ((302, ""), kept, 1)).await;
    let records = Stage::new("idempotency: {record: [2xx, 3xx]}").await;
    twice(&records, OWN, "302", ((302, ""), (302, ""), 1)).await;
}

#[tokio::test]
async fn an_answer_goes_with_its_time_and_a_derived_key_outlives_it() {
    let short = "idempotency: {ttl: 150ms, keep_key: 150ms}";
    let dedupes = "idempotency: {ttl: 150ms, upstream_dedupes: false}";
    let gone = (409, "response-not-retained");
    for (blocks, field, after, wanted) in [
        (short, OWN, 200, (201, "")),
        (dedupes, OWN, 200, gone), // the upstream would take it for a new order
        (short, NAMED, 200, gone),
        (short, NAMED, 350, (201, "")),
    ] {
        let stage = Stage::new(blocks).await;
        let headers = [(field, "k")];
        assert_eq!(stage.post(&headers, ORDER).await.status, 201);
        assert_eq!(stage.post(&headers, ORDER).await.header("samekey-replay"), "stored");
        tokio::time::sleep(Duration::from_millis(after)).await;
        let again = stage.post(&headers, ORDER).await;
        assert_eq!(again.said(), (wanted.0, wanted.1.to_owned()), "{blocks} {field} {after}");
        assert_eq!(again.header("samekey-replay"), "");
    }
}

#[tokio::test]
async fn a_revoked_credential_reads_no_stored_answer() {
    for (status, path, held) in [("401", "/v1/other", true), ("403", "/v1/other", true)] {
        let stage = Stage::new("").await;
        let ask = async |path: &str, key: &str| {
            let fields = [("idempotency-key", key), ("authorization", "Bearer a")];
            stage.client.send(Method::POST, &stage.url(path), &fields, ORDER).await
        };
        assert_eq!(ask("/v1/jobs", "k").await.status, 201);
        stage.script(&format!("{status}; 404"));
        assert_eq!(ask(path, "l").await.status.as_str(), status);
        let told = ask("/v1/jobs", "k").await;
        assert_eq!(told.said() == (409, "replay-suspended".to_owned()), held, "{status}");
        let other = [("idempotency-key", "k"), ("authorization", "Bearer b")];
        assert_eq!(stage.client.get(&stage.url("/v1/jobs/none")).await.status, 404, "of nobody");
        assert_eq!(ask("/v1/jobs", "k").await.status, 409, "still");
        stage.script("404");
        assert_eq!(ask(path, "m").await.status, 404, "the upstream answers it otherwise");
        assert_eq!(ask("/v1/jobs", "k").await.header("samekey-replay"), "stored");
        assert_eq!(stage.post(&other, ORDER).await.header("samekey-replay"), "", "another's");
    }
}

#[tokio::test]
async fn a_signed_request_is_not_touched() {
    let stage = Stage::new("idempotency: {upstream_dedupes: true}").await;
    stage.script("503");
    let signature = "AWS4-HMAC-SHA256 Credential=AKID/20260102/eu/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=ab12";
    let fields = [
        ("authorization", signature),
        ("x-amz-date", "20260102T030405Z"),
        ("accept-encoding", "gzip"),
    ];
    let answer = stage.post(&fields, ORDER).await;
    assert_eq!((answer.status.as_u16(), answer.header("samekey-stop")), (503, "unsafe"));
    assert_eq!(answer.header("idempotency-key"), "");
    let seen: HashSet<String> =
        stage.provider.seen("s")[0].headers.iter().map(|(name, _)| name.to_lowercase()).collect();
    let wanted = [
        "host",
        "content-type",
        "content-length",
        "authorization",
        "x-amz-date",
        "accept-encoding",
        "via",
    ];
    assert_eq!(seen, wanted.map(str::to_owned).into());
    for (name, value) in fields {
        assert_eq!(stage.field(name), value);
    }
    let put = |key| stage.client.send(Method::PUT, key, &fields, ORDER);
    stage.script("503; ok");
    let url = stage.url("/v1/jobs");
    assert_eq!(put(&url).await.header("samekey-stop"), "signed", "its signature is years old");
}

#[tokio::test]
async fn an_answer_that_has_no_room_is_passed_on_and_not_kept() {
    let stage = Stage::with_state("{dir: state, journal: memory, max_size: 1MiB}").await;
    let url = stage.url("/bytes/2000000");
    let first = stage.client.send(Method::POST, &url, &[(OWN, "k")], ORDER).await;
    assert_eq!((first.status.as_u16(), first.body.len()), (200, 2_000_000));
    let again = stage.client.send(Method::POST, &url, &[(OWN, "k")], ORDER).await;
    assert_eq!(again.said(), (409, "response-not-retained".to_owned()));
    assert_eq!(stage.order("l").await.status, 201);
    assert_eq!(stage.order("l").await.header("samekey-replay"), "stored");
}
