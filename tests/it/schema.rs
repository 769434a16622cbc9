//! Requests that do not fit their route's schema: told here, sent nowhere, paid by nobody.

use std::path::Path;

use http::Method;
use serde_json::json;

use crate::support::program::{folder_with, samekey};
use crate::support::{Samekey, Stage, client};

const ORDER: &str = r#"{
    "type": "object", "required": ["model"],
    "properties": {"model": {"type": "string"}, "seconds": {"type": "integer", "maximum": 60}}
}"#;

/// A stage whose route checks by [`ORDER`], and has these further blocks.
async fn stage(blocks: &str) -> Stage {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("order.json");
    std::fs::write(&file, ORDER).expect("written");
    // The folder of a stage is made when it starts: the schema is named by its full path.
    Stage::new(&format!("schema: {}{blocks}", file.display())).await
}

async fn send(stage: &Stage, fields: &[(&str, &str)], body: &str) -> (u16, String) {
    stage.client.send(Method::POST, &stage.url("/v1/jobs"), fields, body).await.said()
}

const JSON: (&str, &str) = ("content-type", "application/json");
const KEY: (&str, &str) = ("idempotency-key", "k");

#[tokio::test]
async fn a_bad_request_is_told_here_and_costs_neither_a_credit_nor_its_key() {
    let stage = stage("").await;
    let bad = r#"{"model": "m", "seconds": 99}"#;
    let told = stage.post(&[KEY], bad).await;
    assert_eq!(told.said(), (400, "bad-request".to_owned()));
    let detail = "the request's body breaks `maximum` of this route's schema at /seconds";
    assert_eq!((&told.json()["detail"], &told.json()["attempts"]), (&json!(detail), &json!(0)));
    assert_eq!((told.header("samekey-attempts"), told.header("connection")), ("0", ""));
    assert_eq!(stage.sent(), 0, "nothing is sent");
    let listed = client::get(stage.samekey.admin, "/api/exchanges").await.json();
    assert_eq!(listed["exchanges"], json!([]), "and nothing is claimed");

    let good = r#"{"model": "m", "seconds": 60}"#;
    assert_eq!(send(&stage, &[JSON, KEY], good).await, (201, String::new()), "the key is free");
    assert_eq!(stage.bodies(), [good]);
    assert_eq!(stage.provider.effects("s"), 1);
    for (result, count) in [("misfit", 1.0), ("fits", 1.0), ("unchecked", 0.0)] {
        let series = format!("samekey_schema_total{{result=\"{result}\",route=\"r\"}}");
        stage.samekey.until(&series, count).await;
    }
    let log = stage.samekey.log().concat();
    assert!(!log.contains("/seconds") && !log.contains("99}"), "{log}");
}

#[tokio::test]
async fn what_cannot_be_judged_is_passed_on() {
    let stage = stage(", body: {memory: 1KiB}").await;
    let large = format!(r#"{{"pad": "{}"}}"#, "x".repeat(1024));
    for (fields, body, wanted) in [
        (&[JSON][..], "{}", 400),
        (&[JSON], "[", 400),
        (&[JSON], large.as_str(), 201),
        (&[("content-type", "text/plain")], "{}", 201),
        (&[("content-type", "application/x-ndjson")], "{}\n{}", 201),
        (&[JSON, ("content-encoding", "own")], "{}", 201),
        (&[JSON], "", 201),
    ] {
        stage.script("");
        assert_eq!(send(&stage, fields, body).await.0, wanted, "{fields:?}");
        let seen = if wanted == 201 { vec![body.to_owned()] } else { Vec::new() };
        assert_eq!(stage.bodies(), seen, "{fields:?}");
    }
}

#[tokio::test]
async fn a_body_that_was_checked_is_sent_again_whole() {
    let stage = stage(", retry: {backoff: {initial: 5ms}}").await;
    stage.script("429; 429");
    let good = r#"{"model": "m"}"#;
    assert_eq!(send(&stage, &[JSON], good).await.0, 201);
    assert_eq!(stage.bodies(), [good; 3]);
}

#[tokio::test]
async fn a_misfit_is_told_in_the_providers_shape_and_counted_where_a_route_observes() {
    let shaped = stage(", errors: provider").await;
    let told = shaped.post(&[], "{}").await;
    let message = "the request's body breaks `required` of this route's schema at its root: `model` is missing";
    let error = json!({"type": "invalid_request_error", "code": "bad_request", "message": message});
    assert_eq!((told.status.as_u16(), told.json()), (400, json!({ "error": error })));
    let observed = stage(", mode: observe").await;
    assert_eq!(send(&observed, &[JSON], "{}").await.0, 201);
    observed.samekey.until("samekey_schema_total{result=\"misfit\",route=\"r\"}", 1.0).await;
}

fn config(folder: &Path, schema: &str) {
    std::fs::write(folder.join("order.json"), schema).expect("written");
}

#[tokio::test]
async fn a_changed_schema_is_in_force_after_a_reload_and_a_bad_one_changes_nothing() {
    let folder = folder_with(
        "listeners: [{address: '127.0.0.1:0'}]\nadmin: {address: '127.0.0.1:0'}\n\
         state: {dir: state}\nroutes:\n- name: r\n  match: {hosts: ['*']}\n  schema: order.json\n",
    );
    config(folder.path(), ORDER);
    let checked = samekey(folder.path(), &["check"]).await;
    assert_eq!((checked.code, checked.err.as_str()), (Some(0), ""), "{checked:?}");
    let explained = samekey(folder.path(), &["explain", "POST", "http://a.test/"]).await;
    assert!(explained.out.contains("  schema: a JSON body that does not fit"), "{explained:?}");

    let running = Samekey::run_in(std::sync::Arc::new(folder)).await;
    let through = client::Client::through(&running);
    // What fits goes on, to nobody.
    let status =
        async || through.post("http://127.0.0.1:1/", r#"{"seconds": 61}"#).await.status.as_u16();
    assert_eq!(status().await, 400);
    config(running.path(), r#"{"$ref": "https://a.test/s.json"}"#);
    running.signal(rustix::process::Signal::HUP);
    running.logged(&["order.json", "is not a JSON Schema"]).await;
    assert_eq!(status().await, 400, "the one before stays in force");
    let checked = samekey(running.path(), &["check"]).await;
    assert_eq!(checked.code, Some(2));
    assert!(
        checked.err.contains("routes[0].schema: ") && checked.err.contains("order.json"),
        "{checked:?}"
    );
    config(running.path(), "true");
    running.signal(rustix::process::Signal::HUP);
    let changed = async {
        while status().await == 400 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), changed).await.expect("it is loaded");
}
