//! One key, one effect: which key, whose, for what, and what a repeat is told.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::Method;
use tokio::task::JoinSet;

use crate::support::{Answer, Client, ORDER, Stage};

/// The key that the provider sees for these headers and this body; each request is
/// somebody else's, so that none is answered from a record.
async fn key_of(stage: &Stage, headers: &[(&str, &str)], body: &str) -> String {
    stage.script("");
    let caller = fresh();
    let mut all = vec![("x-api-key", caller.as_str())];
    all.extend_from_slice(headers);
    let answer = stage.post(&all, body).await;
    let key = stage.keys().pop().expect("it was sent");
    assert_eq!(answer.header("idempotency-key"), key, "{headers:?}");
    key
}

/// A word that no other request used.
fn fresh() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("k-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

#[tokio::test]
async fn the_first_source_that_applies_gives_the_key() {
    let stage = Stage::new("idempotency: {identity: 'order-{json:/order}'}").await;
    let (own, wish) = (("idempotency-key", "\"k-1/Ä~\""), ("samekey-key", "order-7"));
    let plain = ("idempotency-key", "\"k-1/~\"");
    let sdk = ("amz-sdk-invocation-id", "6f1c");
    let named = r#"{"order": 7}"#;

    assert_eq!(key_of(&stage, &[plain, wish, sdk], named).await, "\"k-1/~\"", "byte for byte");
    let by_wish = key_of(&stage, &[wish, sdk], named).await;
    assert_eq!(key_of(&stage, &[wish], ORDER).await, by_wish, "whatever else it says");
    let by_identity = key_of(&stage, &[sdk], named).await;
    assert_eq!(key_of(&stage, &[], r#"{"order":7, "b":1}"#).await, by_identity);
    let by_sdk = key_of(&stage, &[sdk], ORDER).await;
    assert_eq!(key_of(&stage, &[sdk], ORDER).await, by_sdk);
    let random = [key_of(&stage, &[], ORDER).await, key_of(&stage, &[], ORDER).await];
    let all = HashSet::from([by_wish, by_identity, by_sdk, random[0].clone(), random[1].clone()]);
    assert_eq!(all.len(), 5, "{all:?}");
    assert!(
        all.iter().all(|key| uuid::Uuid::parse_str(key).is_ok_and(|id| id.get_version_num() == 4))
    );
    let refused = stage.post(&[own], ORDER).await;
    assert_eq!(refused.said(), (400, "key-invalid".to_owned()), "beyond ASCII");
}

#[tokio::test]
async fn a_derived_key_outlives_a_rotated_credential_and_names_nothing() {
    let stage = Stage::new("").await;
    let one = key_of(&stage, &[("samekey-key", "order-7")], ORDER).await;
    let other = key_of(&stage, &[("samekey-key", "order-7")], ORDER).await;
    assert_eq!(one, other, "though no answer crosses");
    assert!(!one.contains("order"));
    assert_eq!(stage.field("samekey-key"), "");
}

/// What a route makes of a key that it has to put somewhere: the key's shape, the target, the body.
async fn carried(blocks: &str, target: &str, body: &str) -> (String, String, String) {
    let stage = Stage::new(blocks).await;
    stage.script("");
    let url = stage.url(target);
    let fields = [("content-type", "application/json"), ("samekey-key", "x")];
    let answer = stage.client.send(Method::POST, &url, &fields, body).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let key = answer.header("idempotency-key").to_owned();
    assert!(!key.is_empty(), "the client is told");
    let seen = stage.bodies().pop().expect("it was sent");
    assert_eq!(stage.field("content-length"), seen.len().to_string());
    let shape = |text: &str| text.replace(&key, "KEY");
    let target = stage.targets().pop().expect("it was sent");
    (stage.field("x-order-id").replace(&key, "KEY"), shape(&target), shape(&seen))
}

#[tokio::test]
async fn a_key_travels_where_the_route_says_and_nothing_else_changes() {
    let odd = "{ \"b\" :1.50,\n\"a\":[ 1 ,2] }";
    for (header, target, wanted) in [
        ("x-order-id", "/v1/jobs?q=a%20b", ("KEY", "/v1/jobs?q=a%20b", odd.to_owned())),
        (
            "{query: requestId}",
            "/v1/jobs?q=a%20b",
            ("", "/v1/jobs?q=a%20b&requestId=KEY", odd.to_owned()),
        ),
        ("{query: requestId}", "/v1/jobs", ("", "/v1/jobs?requestId=KEY", odd.to_owned())),
        (
            "{json: /external_id}",
            "/v1/jobs",
            ("", "/v1/jobs", odd.replacen('{', "{\"external_id\":\"KEY\",", 1)),
        ),
        (
            "{json: /m/id}",
            "/v1/jobs",
            ("", "/v1/jobs", odd.replacen('{', "{\"m\":{\"id\":\"KEY\"},", 1)),
        ),
    ] {
        let found = carried(&format!("idempotency: {{header: {header}}}"), target, odd).await;
        let found = (found.0.as_str(), found.1.as_str(), found.2);
        assert_eq!(found, wanted, "{header}");
    }
}

#[tokio::test]
async fn a_key_has_the_shape_that_is_asked_for() {
    for (format, length) in [("uuid", 36), ("hex32", 32), ("token", 22)] {
        let stage = Stage::new(&format!("idempotency: {{format: {format}}}")).await;
        for headers in [[].as_slice(), &[("samekey-key", "x")]] {
            let key = key_of(&stage, headers, ORDER).await;
            assert_eq!(key.len(), length, "{format}: {key}");
            let fits = |sign: char| match format {
                "uuid" => sign.is_ascii_hexdigit() || sign == '-',
                "hex32" => sign.is_ascii_hexdigit(),
                _ => sign.is_ascii_alphanumeric() || "-_".contains(sign),
            };
            assert!(key.chars().all(fits), "{format}: {key}");
        }
    }
}

#[tokio::test]
async fn a_key_is_made_only_where_the_route_wants_one() {
    for (blocks, method, made) in [
        ("", Method::POST, true),
        ("", Method::PATCH, true),
        ("", Method::PUT, false),
        ("", Method::GET, false),
        ("kind: effect", Method::PUT, true),
        ("kind: read", Method::POST, false),
        ("idempotency: {inject: false}", Method::POST, false),
        ("mode: observe", Method::POST, false),
    ] {
        let stage = Stage::new(blocks).await;
        stage.script("");
        stage.client.send(method.clone(), &stage.url("/v1/jobs"), &[], "").await;
        assert_eq!(!stage.keys()[0].is_empty(), made, "{blocks} {method}");
    }
}

#[tokio::test]
async fn a_key_that_is_none_is_refused_or_missed() {
    let long = "k".repeat(256);
    let fits = "k".repeat(255);
    let wants = "idempotency: {require: true}";
    for (blocks, headers, wanted) in [
        ("", [("idempotency-key", "")].as_slice(), (400, "key-invalid")),
        ("", &[("idempotency-key", "a b")], (400, "key-invalid")),
        ("", &[("idempotency-key", &long)], (400, "key-invalid")),
        ("", &[("idempotency-key", &fits)], (201, "")),
        ("", &[("idempotency-key", "a"), ("idempotency-key", "b")], (400, "key-invalid")),
        (wants, &[], (400, "key-missing")),
        (wants, &[("samekey-key", "a")], (201, "")),
        (wants, &[("idempotency-key", "a")], (201, "")),
        ("mode: observe, idempotency: {require: true}", &[], (201, "")),
        ("mode: observe", &[("idempotency-key", "")], (201, "")),
    ] {
        let stage = Stage::new(blocks).await;
        stage.script("");
        let answer = stage.post(headers, ORDER).await;
        assert_eq!(answer.said(), (wanted.0, wanted.1.to_owned()), "{blocks} {headers:?}");
        assert_eq!(stage.sent(), usize::from(wanted.0 == 201));
    }
}

#[tokio::test]
async fn no_answer_crosses_a_scope() {
    let stage = Stage::new("idempotency: {credentials: [x-tenant, 'query:user']}").await;
    stage.script("");
    let jobs = stage.url("/v1/jobs");
    let ask = async |method: Method, url: &str, field: (&str, &str)| {
        let headers = [("idempotency-key", "k"), ("content-type", "application/json"), field];
        let answer = stage.client.send(method, url, &headers, ORDER).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.header("samekey-replay").to_owned()
    };
    for field in [
        ("x-none", "1"),
        ("authorization", "Bearer a"),
        ("authorization", "Bearer b"),
        ("cookie", "session=1"),
        ("api-key", "a"),
        ("apikey", "a"),
        ("x-api-key", "a"),
        ("x-goog-api-key", "a"),
        ("x-tenant", "a"),
        ("x-tenant", "b"),
    ] {
        assert_eq!(ask(Method::POST, &jobs, field).await, "", "{field:?} is a scope of its own");
        assert_eq!(ask(Method::POST, &jobs, field).await, "stored", "{field:?}");
    }
    let none = ("x-none", "1");
    assert_eq!(ask(Method::PATCH, &jobs, none).await, "", "another method");
    assert_eq!(ask(Method::POST, &stage.url("/v1/other"), none).await, "", "another path");
    assert_eq!(ask(Method::POST, &stage.url("/v1/jobs?user=1"), none).await, "", "another user");
    let secure = stage.provider.ports.https_url("/s/s/v1/jobs");
    assert_eq!(ask(Method::POST, &secure, none).await, "", "another authority");
    let both = [("idempotency-key", "k"), ("authorization", "Bearer a"), ("cookie", "fresh=1")];
    assert_eq!(
        stage.post(&both, ORDER).await.header("samekey-replay"),
        "stored",
        "no other cookie"
    );
}

fn gzipped(text: &str) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

#[tokio::test]
async fn a_fingerprint_is_of_what_is_asked_and_not_of_how() {
    let stage = Stage::new("idempotency: {ignore: [/at]}").await;
    let json = "application/json";
    let form = "application/x-www-form-urlencoded";
    let parts = |boundary: &str, value: &str| {
        format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n{value}\r\n--{boundary}--\r\n"
        )
    };
    let (one, other) =
        ("multipart/form-data; boundary=xYx", "multipart/form-data; boundary=\"b o\"");
    let (xyx, bo, two) = (parts("xYx", "1"), parts("b o", "1"), parts("xYx", "2"));
    for (nth, (first, again, same)) in [
        ((json, r#"{"a":1,"b":[1,2]}"#), (json, "{ \"b\": [1, 2],\n \"a\": 1 }"), true),
        ((json, r#"{"a":1,"at":5}"#), ("application/json; charset=utf-8", r#"{"a":1}"#), true),
        ((json, r#"{"a":1}"#), (json, r#"{"a":1.0}"#), false),
        ((json, r#"{"b":[1,2]}"#), (json, r#"{"b":[2,1]}"#), false),
        ((json, r#"{"a":9007199254740993}"#), (json, r#"{"a":9007199254740992}"#), false),
        ((form, "a=1&b=x%20y"), (form, "b=x+y&a=%31"), true),
        ((form, "a=1&a=2"), (form, "a=2&a=1"), false),
        ((one, &xyx), (other, &bo), true),
        ((one, &xyx), (one, &two), false),
        (("text/plain", "a b"), ("text/plain", "a  b"), false),
        ((json, r#"{"a":1}"#), ("text/plain", r#"{"a":1}"#), false),
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("k-{nth}");
        let ask = async |(media, body): (&str, &str)| {
            let headers = [("idempotency-key", key.as_str()), ("content-type", media)];
            stage.client.send(Method::POST, &stage.url("/v1/jobs"), &headers, body).await
        };
        assert_eq!(ask(first).await.status, 201);
        let wanted = if same { (201, "") } else { (422, "key-reused") };
        assert_eq!(ask(again).await.said(), (wanted.0, wanted.1.to_owned()), "{first:?} {again:?}");
    }
    let headers = [("idempotency-key", "k-q")];
    assert_eq!(stage.post(&headers, ORDER).await.status, 201);
    let url = stage.url("/v1/jobs?page=2");
    let headers = [("idempotency-key", "k-q"), ("content-type", json)];
    let answer = stage.client.send(Method::POST, &url, &headers, ORDER).await;
    assert_eq!(answer.said(), (422, "key-reused".to_owned()), "the query is asked too");
}

#[tokio::test]
async fn a_body_asks_the_same_in_another_coding() {
    use tokio::io::AsyncWriteExt as _;
    let stage = Stage::new("").await;
    assert_eq!(stage.order("k").await.status, 201);
    let body = gzipped("{\"a\":  1}");
    let fields = [("idempotency-key", "k"), ("content-encoding", "gzip")];
    let mut stream = stage.write(&fields, body.len(), "").await;
    stream.write_all(&body).await.expect("it takes them");
    let answer = crate::support::client::read_all(&mut stream).await;
    assert!(
        answer.starts_with("HTTP/1.1 201") && answer.contains("samekey-replay: stored"),
        "{answer}"
    );
}

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
