//! What there is no credit for: breakers, balances, estimates, and what answers cost.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::{Answer, ORDER, Samekey, Stage, client};

const A: (&str, &str) = ("authorization", "Bearer secret-a");
const B: (&str, &str) = ("authorization", "Bearer secret-b");
const K: (&str, &str) = ("idempotency-key", "k");
const BREAKER: &str =
    "breaker: {when: [{json: /error/code, in: [insufficient_credits]}], statuses: [402]}";
/// A little more than `reset_after` of the one test that waits for it.
const PAST_RESET: Duration = Duration::from_millis(1010);
const OUT: &str = r#"400 body={"error":{"code":"insufficient_credits"}}"#;

fn out_of_credit() -> (u16, String) {
    (402, "insufficient-credits".to_owned())
}

fn sent() -> (u16, String) {
    (201, String::new())
}

/// A stage whose route asks for the balance, too.
async fn with_preflight(every: &str) -> Stage {
    let preflight =
        format!("{{request: GET /s/s/account?x=1, json: /credits, at_least: 1.5, every: {every}}}");
    Stage::new(&format!("{BREAKER}, preflight: {preflight}")).await
}

/// A stage whose route asks what a model costs; `rest` are further keys of it.
async fn with_estimate(rest: &str) -> Stage {
    let estimate =
        format!("{{path: '/s/s/v1/models/{{model}}/estimate', json: /credits, at_most: 50{rest}}}");
    let matching = "{hosts: ['*'], paths: ['/s/s/v1/models/*']}";
    Stage::configured(&format!(
        "routes: [{{name: r, match: {matching}, estimate: {estimate}, body: {{memory: 1KiB}}}}]\n"
    ))
    .await
}

async fn asked(
    samekey: &Samekey,
    method: Method,
    path: &str,
    (fields, body): (&[(&str, &str)], &str),
) -> Answer {
    let stream = TcpStream::connect(samekey.admin).await.expect("it listens");
    let uri: http::Uri = format!("http://{}{path}", samekey.admin).parse().expect("a URL");
    let mut request = client::request(method, &uri, &[], body);
    for (name, value) in fields {
        let name: http::HeaderName = name.parse().expect("a name");
        request.headers_mut().insert(name, value.parse().expect("a value"));
    }
    client::over_http1(stream, request).await.expect("an answer")
}

async fn reset(stage: &Stage, body: &str) -> Value {
    let answer = asked(&stage.samekey, Method::POST, "/api/breakers/reset", (&[], body)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn open(stage: &Stage) -> Vec<Value> {
    let answer = asked(&stage.samekey, Method::GET, "/api/breakers", (&[], "")).await;
    answer.json()["breakers"].as_array().expect("a list").clone()
}

async fn state(stage: &Stage, key: &str) -> Value {
    let path = format!("/api/keys/{key}");
    asked(&stage.samekey, Method::GET, &path, (&[], "")).await.json()["state"].clone()
}

async fn cost(stage: &Stage, kind: &str) -> f64 {
    stage.samekey.metric(&format!("samekey_cost_total{{kind=\"{kind}\",route=\"r\"}}")).await
}

#[tokio::test]
async fn a_credential_that_is_out_of_credit_is_held_back_and_its_keys_stay_free() {
    for out in [OUT, "402"] {
        let stage = Stage::new(BREAKER).await;
        stage.script(out);
        let first = stage.post(&[A], ORDER).await;
        assert!(!first.header("server").is_empty(), "the upstream's own answer comes through");
        let told = stage.post(&[A, K], ORDER).await;
        assert_eq!((told.said(), told.header("samekey-attempts")), (out_of_credit(), "0"));
        let left: u64 = told.header("retry-after").parse().expect("seconds");
        assert!((295..=300).contains(&left), "{left}");
        assert_eq!(told.json()["retry_after"], left);
        assert_eq!(stage.sent(), 1, "after {out}");
        assert_eq!(stage.client.send(Method::GET, &stage.url("/echo"), &[A], "").await.status, 200);
        assert_eq!(stage.post(&[B], ORDER).await.said(), sent(), "another credential");
        assert_eq!(state(&stage, "k").await, "released");
        assert_eq!(reset(&stage, "").await, json!({"reset": 1}));
        assert_eq!(stage.post(&[A, K], ORDER).await.said(), sent());
    }
}

#[tokio::test]
async fn once_its_time_is_over_one_goes_first() {
    // Long enough for a slow machine to find it open; and real sockets know no paused clock.
    let stage = Stage::new("breaker: {statuses: [402], reset_after: 1s}").await;
    stage.script("402; 402; held; ok");
    stage.post(&[A], ORDER).await;
    assert_eq!(stage.post(&[A], ORDER).await.said(), out_of_credit());
    tokio::time::sleep(PAST_RESET).await;
    assert_eq!(stage.post(&[A], ORDER).await.said(), (402, String::new()), "the upstream's own");
    assert_eq!(stage.post(&[A], ORDER).await.said(), out_of_credit(), "it is open again");
    tokio::time::sleep(PAST_RESET).await;
    let others = async {
        stage.provider.arrived("s", 3).await;
        let told = stage.post(&[A], ORDER).await.said();
        stage.provider.release();
        told
    };
    let (first, other) = tokio::join!(stage.post(&[A], ORDER), others);
    assert_eq!((first.said(), other), (sent(), out_of_credit()));
    assert_eq!(stage.post(&[A], ORDER).await.said(), sent(), "it is closed");
}

#[tokio::test]
async fn an_operator_sees_who_is_held_back_and_ends_it() {
    let stage = Stage::new(BREAKER).await;
    stage.script("402; 402");
    stage.post(&[A], ORDER).await;
    stage.post(&[B], ORDER).await;
    let shown = open(&stage).await;
    let origin = format!("http://{}", stage.provider.ports.http_addr);
    assert_eq!(shown.len(), 2);
    for one in &shown {
        let keys: Vec<&String> = one.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["opened_at", "origin", "resets_at", "route"]);
        assert_eq!((&one["route"], &one["origin"]), (&json!("r"), &json!(origin)));
        let at = |key: &str| one[key].as_str().expect("a time").to_owned();
        assert!(at("opened_at") < at("resets_at") && at("resets_at").ends_with('Z'));
    }
    stage.samekey.until("samekey_breakers_open{route=\"r\"}", 2.0).await;
    assert_eq!(reset(&stage, r#"{"route": "x"}"#).await, json!({"reset": 0}));
    for field in [("host", "evil.test"), ("origin", "http://evil.test")] {
        let told = asked(&stage.samekey, Method::POST, "/api/breakers/reset", (&[field], "")).await;
        assert_eq!(told.status, 403, "a web page resets nothing");
    }
    let overlong = format!(r#"{{"route": "{}"}}"#, "r".repeat(4096));
    for (body, status) in [("[", 400), (r#"{"rout": "r"}"#, 400), (&overlong, 413)] {
        let told = asked(&stage.samekey, Method::POST, "/api/breakers/reset", (&[], body)).await;
        assert_eq!(told.status, status);
    }
    let told = asked(&stage.samekey, Method::GET, "/api/breakers/reset", (&[], "")).await;
    assert_eq!(told.status, 405);
    assert_eq!(open(&stage).await.len(), 2, "nothing was reset");
    assert_eq!(reset(&stage, r#"{"route": "r"}"#).await, json!({"reset": 2}));
    assert_eq!(open(&stage).await, Vec::<Value>::new());
    stage.samekey.until("samekey_breakers_open{route=\"r\"}", 0.0).await;
    let log = stage.samekey.log().concat() + &stage.samekey.metrics().await;
    assert!(!log.contains("secret-"), "nobody is told whose they are");
}

#[tokio::test]
async fn what_is_unknown_stays_unknown_while_there_is_no_credit() {
    let stage = Stage::new(BREAKER).await;
    stage.script("reset_after; 402; ok");
    let lost = stage.post(&[A, K], ORDER).await;
    assert_eq!((lost.status.as_u16(), state(&stage, "k").await), (502, json!("unknown")));
    stage.post(&[A], ORDER).await;
    for _ in 0..2 {
        assert_eq!(stage.post(&[A, K], ORDER).await.said(), out_of_credit());
        assert_eq!(state(&stage, "k").await, "unknown");
    }
    assert_eq!(stage.sent(), 2);
    reset(&stage, "").await;
    assert_eq!(stage.post(&[A, K], ORDER).await.said(), sent(), "its client vouches for it");
    assert_eq!(state(&stage, "k").await, "completed");
}

#[tokio::test]
async fn who_waits_for_a_refused_one_is_told_the_same() {
    let stage = with_preflight("60s").await;
    stage.script(r#"200 body={"credits":1} held"#);
    let waits = async {
        stage.provider.arrived("s", 1).await;
        let release = async {
            stage.counted("client", 2).await;
            stage.provider.release();
        };
        tokio::join!(stage.post(&[A, K], ORDER), release).0
    };
    let (first, second) = tokio::join!(stage.post(&[A, K], ORDER), waits);
    assert_eq!((first.said(), second.said()), (out_of_credit(), out_of_credit()));
    assert_eq!(stage.sent(), 1);
}

#[tokio::test]
async fn a_low_balance_is_known_before_anything_is_spent() {
    let stage = with_preflight("60s").await;
    stage.script(r#"200 body={"credits":1.49}"#);
    let identity = ("samekey-key", "order-1");
    let told = stage.post(&[A, K, identity, ("x-other", "o")], ORDER).await;
    assert_eq!(told.said(), out_of_credit());
    assert_eq!((stage.sent(), stage.targets()), (1, vec!["/account?x=1".to_owned()]));
    assert_eq!(stage.provider.seen("s")[0].method, "GET");
    assert_eq!(stage.field("authorization"), A.1);
    for name in ["idempotency-key", "samekey-key", "x-other", "content-type", "content-length"] {
        assert_eq!(stage.field(name), "", "{name} is no credential");
    }
    assert_eq!(stage.post(&[A], ORDER).await.said(), out_of_credit());
    assert_eq!(stage.sent(), 1, "the reading is used");
    reset(&stage, "").await;
    stage.script(r#"200 body={"credits":"1.50"}; ok; ok"#);
    assert_eq!(stage.post(&[A, K], ORDER).await.said(), sent(), "it was topped up");
    assert_eq!(stage.post(&[A], ORDER).await.said(), sent());
    assert_eq!(stage.sent(), 3, "one balance, two orders");
}

#[tokio::test]
async fn a_balance_that_cannot_be_had_makes_nothing_worse() {
    let stage = with_preflight("1ms").await;
    stage.script("404; ok; 404; ok");
    for _ in 0..2 {
        let answer = stage.post(&[A], ORDER).await;
        assert_eq!((answer.said(), answer.header("samekey-attempts")), (sent(), "1"));
        tokio::time::sleep(Duration::from_millis(5)).await; // the reading is over
    }
    assert_eq!(stage.sent(), 4);
    let failed = "samekey_credit_checks_total{check=\"preflight\",result=\"failed\",route=\"r\"}";
    assert!((stage.samekey.metric(failed).await - 2.0).abs() < 1e-9);
    stage.samekey.logged(&["WARN", "could not be read", "404"]).await;
    let said = stage.samekey.log().concat().matches("could not be read").count();
    assert_eq!(said, 1, "it is said once");
}

#[tokio::test]
async fn what_costs_too_much_is_not_sent_and_its_key_is_free() {
    let stage = with_estimate("").await;
    stage.script(r#"200 body={"credits":50.01}; 200 body={"credits":50}; ok"#);
    let url = stage.url("/v1/models/cat%2F1?size=2");
    let order = || stage.client.send(Method::POST, &url, &[A, K, ("x-v", "7")], ORDER);
    let told = order().await;
    assert_eq!(told.said(), out_of_credit());
    assert_eq!(told.json()["detail"], "estimate 50.01 is above at_most 50");
    assert_eq!(told.header("retry-after"), "");
    assert_eq!(stage.targets(), ["/v1/models/cat%2F1/estimate?size=2"]);
    assert_eq!(
        (stage.field("authorization"), stage.field("x-v")),
        (A.1.to_owned(), "7".to_owned())
    );
    assert_eq!((stage.keys(), stage.bodies()), (vec![String::new()], vec![ORDER.to_owned()]));
    assert!((cost(&stage, "refused").await - 50.01).abs() < 1e-9);
    assert_eq!(order().await.said(), sent());
    assert_eq!(stage.keys(), ["", "", "k"]);
    assert_eq!(stage.bodies(), [ORDER; 3]);
    assert_eq!(order().await.header("samekey-replay"), "stored", "a replay is not estimated");
    assert_eq!(stage.sent(), 3);
}

#[tokio::test]
async fn a_cost_that_nobody_says_is_refused_or_sent_as_the_route_wants() {
    let large = format!(r#"{{"a": "{}"}}"#, "x".repeat(1024));
    for (rest, wanted) in [
        ("", [(502, "upstream-unreachable"), (402, "insufficient-credits")]),
        (", on_failure: forward", [(201, ""), (201, "")]),
    ] {
        let stage = with_estimate(rest).await;
        stage.script("404; ok; ok");
        let url = stage.url("/v1/models/cat");
        for (body, (status, slug)) in [ORDER, &large].into_iter().zip(wanted) {
            let told = stage.client.send(Method::POST, &url, &[A], body).await;
            assert_eq!(told.said(), (status, slug.to_owned()), "{}", told.text());
        }
        let effects = stage.provider.effects("s");
        assert_eq!(effects, if rest.is_empty() { 0 } else { 2 });
    }
}

#[tokio::test]
async fn costs_are_added_up_as_spent_and_as_saved() {
    let stage = Stage::new("idempotency: {capture: {cost: /cost}}").await;
    stage.script(r#"201 body={"cost":2.5}; 201 body={"cost":"4"} held; 201 body={"cost":1}; 400 body={"cost":9}"#);
    stage.order("a").await;
    assert_eq!(stage.order("a").await.header("samekey-replay"), "stored");
    let joins = async {
        stage.provider.arrived("s", 2).await;
        let release = async {
            stage.counted("client", 4).await;
            tokio::time::sleep(Duration::from_millis(50)).await; // for it to wait
            stage.provider.release();
        };
        tokio::join!(stage.order("b"), release).0
    };
    let (_, joined) = tokio::join!(stage.order("b"), joins);
    assert_eq!(joined.header("samekey-replay"), "joined");
    stage.post(&[], ORDER).await; // with a random key
    stage.post(&[], ORDER).await; // an error costs nothing, whatever it says
    stage.samekey.until("samekey_cost_total{kind=\"spent\",route=\"r\"}", 7.5).await;
    assert!((cost(&stage, "saved").await - 6.5).abs() < 1e-9);
    let saved = "samekey_calls_saved_total{kind=\"replayed\",route=\"r\"}";
    assert!((stage.samekey.metric(saved).await - 2.0).abs() < 1e-9);
}

#[tokio::test]
async fn a_route_that_observes_counts_what_it_would_refuse() {
    let stage = Stage::new(&format!("{BREAKER}, mode: observe")).await;
    stage.script("402; ok");
    stage.post(&[A], ORDER).await;
    assert_eq!(stage.post(&[A], ORDER).await.said(), sent());
    let refused = "samekey_calls_saved_total{kind=\"refused\",route=\"r\"}";
    assert!((stage.samekey.metric(refused).await - 1.0).abs() < 1e-9);
}

#[tokio::test]
async fn who_is_held_back_stays_so_over_a_reload() {
    let stage = Stage::new(BREAKER).await;
    stage.script("402");
    stage.post(&[A], ORDER).await;
    let told = asked(&stage.samekey, Method::POST, "/api/reload", (&[], "")).await;
    assert_eq!(told.status, 200);
    assert_eq!(stage.post(&[A], ORDER).await.said(), out_of_credit());
}
