//! Answers made here in the provider's own shape, as its clients read them.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use crate::clients::{in_shell, python};
use crate::provider::{Options, Provider};
use crate::support::program::folder_beside;
use crate::support::{ORDER, Samekey, Stage};

/// The words of a provider that has keys of its own.
const CODES: &str = "codes: {key_reused: idempotency_key_reuse, in_progress: request_in_progress}";

#[tokio::test]
async fn a_reused_key_is_told_in_the_providers_own_words() {
    let errors = format!("errors: {{{CODES}, types: {{key_reused: idempotency_error}}}}");
    let stage = Stage::new(&format!("idempotency: {{mismatch: 409}}, {errors}")).await;
    assert_eq!(stage.order("k").await.status, 201);
    let told = stage.post(&[("idempotency-key", "k")], r#"{"a": 2}"#).await;
    let error = json!({"error": {
        "type": "idempotency_error", "code": "idempotency_key_reuse",
        "message": "this key was used for another request",
    }});
    assert_eq!((told.status.as_u16(), told.json()), (409, error));
    for (name, wanted) in [
        ("content-type", "application/json"),
        ("proxy-status", "samekey; error=http_request_denied; details=\"attempts=0\""),
        ("samekey-attempts", "0"),
        ("x-should-retry", "false"),
        ("idempotency-key", "k"),
    ] {
        assert_eq!(told.header(name), wanted, "{name}");
    }
    assert_eq!(stage.sent(), 1);
}

#[tokio::test]
async fn a_template_shapes_every_answer_made_here_and_leaves_the_upstreams_alone() {
    let template = "template: {success: false, message: '{title}: {detail}', error: {code: '{code}', \
                    status: '{status}'}}";
    let blocks =
        format!("idempotency: {{require: true}}, retry: {{attempts: 1}}, errors: {{{template}}}");
    let stage = Stage::new(&blocks).await;
    let missing = stage.post(&[], ORDER).await;
    let wanted = json!({
        "success": false, "error": {"code": "key_missing", "status": 400},
        "message": "An idempotency key is missing: this route wants a key: send Idempotency-Key, \
                    or Samekey-Key",
    });
    assert_eq!((missing.status.as_u16(), missing.json()), (400, wanted));
    stage.script("reset_after; 402 body={\"error\":\"own\"}");
    let broken = stage.order("k-1").await;
    assert_eq!(
        (broken.status.as_u16(), &broken.json()["error"]["code"]),
        (502, &"upstream_protocol".into())
    );
    assert_eq!(broken.header("samekey-attempts"), "1");
    let unknown = stage.order("k-1").await;
    // A key of the client's own is sent again where nobody says that it is not heeded.
    assert_eq!((unknown.status.as_u16(), unknown.text().as_str()), (402, r#"{"error":"own"}"#));
}

#[tokio::test]
async fn a_request_of_no_route_is_told_in_our_own_words() {
    let config = "routes: [{name: r, match: {hosts: [a.test]}, errors: provider}]\n";
    let stage = Stage::configured(config).await;
    let provider = &stage.provider.ports;
    stage.script("reset_before");
    let unrouted = stage.client.send(Method::POST, &provider.http_url("/s/s/v1"), &[], "").await;
    assert_eq!(unrouted.said(), (502, "upstream-protocol".to_owned()));
    let routed = stage.client.send(Method::POST, "http://a.test:1/", &[], "").await;
    assert_eq!(routed.json()["error"]["type"], "api_error", "{}", routed.text());
    assert!(routed.status.is_server_error());
}

#[tokio::test]
async fn a_shape_changes_with_a_reload() {
    let stage = Stage::new("idempotency: {require: true}").await;
    assert_eq!(stage.post(&[], ORDER).await.said(), (400, "key-missing".to_owned()));
    let file = stage.samekey.path().join("samekey.yaml");
    let text = std::fs::read_to_string(&file).expect("it is there");
    let shaped = text.replace("require: true}", "require: true}, errors: provider");
    std::fs::write(&file, shaped).expect("written");
    let changed = async {
        while stage.post(&[], ORDER).await.header("content-type") != "application/json" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), changed).await.expect("it is loaded");
}

#[tokio::test]
async fn the_openai_sdk_reads_our_conflicts_as_its_own() {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    let route = format!(
        "routes:\n  - name: chat\n    match: {{hosts: [localhost]}}\n    idempotency: \
         {{mismatch: 409, in_progress: reject}}\n    errors: {{{CODES}}}\n"
    );
    let running = Samekey::run_in(Arc::new(folder_beside(&provider, &route))).await;
    let url = provider.ports.https_url("/s/chat/v1");
    let ask = async |key: &str, prompt: &str| -> Value {
        let words = [url.as_str(), key, prompt].map(str::to_owned);
        let program: Vec<_> = python("openai_conflict.py").into_iter().chain(words).collect();
        let ran = in_shell(&running, &program).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        serde_json::from_str(&ran.out).expect("one line of JSON")
    };
    provider.script("chat", "held");
    let (first, (second, third)) = tokio::join!(ask("k", "a title"), async {
        provider.arrived("chat", 1).await;
        let told = tokio::join!(ask("k", "a title"), ask("k", "another title"));
        provider.release();
        told
    });
    assert_eq!(first["error"], "", "{first}");
    let conflict = |code: &str, message: &str| {
        json!({
            "error": "ConflictError", "status": 409, "type": "invalid_request_error",
            "code": code, "message": message, "attempts": "0",
        })
    };
    assert_eq!(second, conflict("request_in_progress", "a request with this key is in progress"));
    assert_eq!(third, conflict("idempotency_key_reuse", "this key was used for another request"));
    assert_eq!(provider.effects("chat"), 1);
}
