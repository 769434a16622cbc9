//! One key, one effect: which key, whose, for what, and what a repeat is told.

mod repeats;
mod unknown;

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
