//! What is read of requests and answers: ids for the ledger, and what answers mean.

use http::Method;
use serde_json::{Value, json};

use crate::support::program::samekey;
use crate::support::{Stage, client};

const CAPTURE: &str = "capture: {job: /id, type: 'header:content-type', user: 'request:/user', \
                       trace: 'request:header:x-trace', file: 'request:field:file', \
                       model: 'request:field:model'}";

/// The newest exchange of the ledger.
async fn newest(stage: &Stage) -> Value {
    let page = client::get(stage.samekey.admin, "/api/exchanges?limit=1").await.json();
    page["exchanges"][0].clone()
}

async fn send(stage: &Stage, fields: &[(&str, &str)], body: &str) -> u16 {
    let sent = stage.client.send(Method::POST, &stage.url("/v1/jobs"), fields, body).await;
    sent.status.as_u16()
}

const JSON: (&str, &str) = ("content-type", "application/json");
const UPLOAD: (&str, &str) = ("content-type", "multipart/form-data; boundary=b");
const PARTS: &str = "--b\r\nContent-Disposition: form-data; name=model\r\n\r\nm-1\r\n\
    --b\r\nContent-Disposition: form-data; name=file; filename=\"intro.mp4\"\r\n\r\n\
    bytes\r\n--b--\r\n";

/// An order that ends like this leaves a row in this state, with these ids.
async fn check(
    stage: &Stage,
    (step, ends): (&str, &str),
    order: (&[(&str, &str)], &str),
    ids: &Value,
) {
    let (fields, body) = order;
    stage.script(step);
    // Another key each time: what is unknown holds its own.
    let key = format!("{step}-{}", body.len());
    let mut fields = fields.to_vec();
    fields.last_mut().expect("a key").1 = &key;
    send(stage, &fields, body).await;
    let row = newest(stage).await;
    let mut wanted = ids.clone();
    if step == "ok" {
        wanted["job"] = "job-s-1".into();
    }
    if step != "reset_after" {
        wanted["type"] = "application/json".into();
    }
    assert_eq!((&row["state"], &row["captured"]), (&ends.into(), &wanted), "{step} {fields:?}");
}

#[tokio::test]
async fn ids_of_the_request_stay_with_its_row_however_it_ends() {
    let asked = json!({"user": "u-1", "trace": "t-1"});
    let upload = json!({"file": "intro.mp4", "model": "m-1"});
    // A key of the client's own, a derived one, and one that nobody knows.
    let keys = [("idempotency-key", "k"), ("samekey-key", "k"), ("x-none", "k")];
    let cases = ["disk", "memory"].into_iter().flat_map(|journal| keys.map(|key| (journal, key)));
    for (journal, key) in cases {
        let kept = format!("{{dir: state, journal: {journal}}}");
        let blocks = format!("idempotency: {{{CAPTURE}}}, retry: {{attempts: 1}}");
        let stage = Stage::keeping(&kept, &blocks).await;
        for end in [
            ("ok", "completed"),
            ("400", "released"),
            ("500", "unknown"),
            ("reset_after", "unknown"),
        ] {
            let fields = [JSON, ("x-trace", "t-1"), key];
            check(&stage, end, (&fields, r#"{"user":"u-1"}"#), &asked).await;
            check(&stage, end, (&[UPLOAD, key], PARTS), &upload).await;
        }
    }
}

#[tokio::test]
async fn what_was_read_before_the_claim_is_in_the_row_while_it_is_in_flight() {
    let blocks = "idempotency: {identity: 'order-{json:/user}', capture: {user: 'request:/user', \
                  trace: 'request:header:x-trace'}}";
    let stage = Stage::new(blocks).await;
    stage.script("held");
    let open = stage.begin(&[("x-trace", "t-1")], r#"{"user":"u-1"}"#).await;
    stage.provider.arrived("s", 1).await;
    let row = newest(&stage).await;
    assert_eq!(row["state"], "in_flight");
    assert_eq!(row["captured"], json!({"user": "u-1", "trace": "t-1"}));
    stage.provider.release();
    drop(open);
}

#[tokio::test]
async fn ids_are_looked_up_both_ways() {
    for journal in ["disk", "memory"] {
        let kept = format!("{{dir: state, journal: {journal}}}");
        let stage = Stage::keeping(
            &kept,
            "idempotency: {capture: {request_id: /id, user: 'request:/user'}}",
        )
        .await;
        for key in ["k-1", "k-2"] {
            let fields = [JSON, ("idempotency-key", key)];
            assert_eq!(send(&stage, &fields, r#"{"user":"u:1"}"#).await, 201);
        }
        let found = async |query: &str| {
            let path = format!("/api/exchanges?{query}");
            let page = client::get(stage.samekey.admin, &path).await.json();
            let rows = page["exchanges"].as_array().expect("a list").clone();
            let keys = rows.iter().map(|row| row["key"].as_str().expect("a key").to_owned());
            keys.collect::<Vec<_>>()
        };
        assert_eq!(found("captured=request_id:job-s-1").await, ["k-1"]);
        assert_eq!(found("captured=user:u%3A1").await, ["k-2", "k-1"]);
        assert_eq!(found("captured=user:u:1&limit=1").await, ["k-2"]);
        assert_eq!(found("captured=user:job-s-1").await, [""; 0]);
        let key = client::get(stage.samekey.admin, "/api/keys/k-2").await.text();
        assert!(key.contains("job-s-2"), "{key}");

        let folder = stage.samekey.path();
        let list = ["ledger", "list", "--captured", "request_id=job-s-2", "--json"];
        let listed = samekey(folder, &list).await;
        let listed: Value = serde_json::from_str(&listed.out).expect("JSON");
        assert_eq!(listed["exchanges"].as_array().map(Vec::len), Some(1), "{journal}");
        let id = listed["exchanges"][0]["id"].as_str().expect("a name").to_owned();
        let shown = samekey(folder, &["ledger", "show", &id]).await;
        for line in ["captured request_id: job-s-2", "captured user: u:1", "k-2"] {
            assert!(shown.out.contains(line), "{line} is not in:\n{}", shown.out);
        }
        let wrong = samekey(folder, &["ledger", "list", "--captured", "job"]).await;
        assert_eq!(wrong.code, Some(2));
    }
}

#[tokio::test]
async fn a_route_that_only_observes_captures_nothing() {
    let stage = Stage::new(&format!("mode: observe, idempotency: {{{CAPTURE}}}")).await;
    assert_eq!(send(&stage, &[JSON], r#"{"user":"u-1"}"#).await, 201);
    assert_eq!(newest(&stage).await, Value::Null);
    assert_eq!(stage.bodies(), [r#"{"user":"u-1"}"#]);
}
