//! AI generation with native idempotency keys.

mod webhooks;

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Counter, EVENT, FAST, OUT_OF_CREDIT, field, started, text, told};
use crate::provider::apis::Name;
use crate::provider::apis::courier::{WEBHOOK_SECRET, signature};
use crate::support::Answer;

const SUBMIT: &str = "/v1/models/sketch";
const FILM: &str = "/v1/models/film-2";
const GENERATE: &str = "clipia-generate";
const OWN: &str = "idempotency-key";
const KEY: &str = "8f3a1c7e-2b41-4d2a-9c0e-1200304cf45b";

/// A route as the provider's document asks for it.
fn route(retry: &str, idempotency: &str) -> String {
    let comma = |text: &str| if text.is_empty() { "" } else { ", " }.to_owned() + text;
    let (retry, idempotency) = (comma(retry), comma(idempotency));
    format!(
        "idempotency: {{upstream_dedupes: true, upstream_ttl: 24h, format: uuid, \
         capture: {{request_id: /request_id, cost: /cost}}{idempotency}}}, \
         retry: {{{FAST}, \
         never_when: [{{json: /error/code, in: [insufficient_credits]}}], \
         in_progress_when: [{{json: /error/code, in: [request_in_progress]}}]{retry}}}"
    )
}

async fn counter(retry: &str, idempotency: &str) -> Counter {
    Counter::new(Name::Generation, &route(retry, idempotency)).await
}

fn prompt(text: &str) -> Value {
    json!({"input": {"prompt": text}})
}

#[tokio::test]
async fn a_request_has_one_key_on_all_attempts_and_it_is_a_uuid_v4() {
    let counter = counter("", "").await;
    counter.script("503 effect; reset_after; 429 retry_after_ms=5; ok");
    let answer = counter.post(SUBMIT, &[], prompt("o-1")).await;
    assert_eq!((told(&answer), counter.spent()), ((200, "4", ""), (1, 1)));
    let keys = counter.keys();
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    assert_eq!(Uuid::parse_str(&keys[0]).map(|key| key.get_version_num()), Ok(4));
    counter.post(SUBMIT, &[], prompt("o-1")).await;
    assert_ne!(counter.keys()[4], keys[0], "another request, another key");
    assert_eq!(counter.spent(), (2, 2));
}

#[tokio::test]
async fn no_personal_data_is_in_a_key() {
    let counter = counter("", "").await;
    let event = [(EVENT, "alice@example.com-order-7")];
    let first = counter.post(SUBMIT, &event, prompt("o-1")).await;
    let again = counter.post(SUBMIT, &event, prompt("o-1")).await;
    assert_eq!((first.status.as_u16(), &again.body), (200, &first.body));
    let seen = counter.seen();
    assert_eq!((seen.len(), counter.spent()), (1, (1, 1)));
    assert!(!format!("{:?}", seen[0]).contains("alice"), "{seen:?}");
    let key = seen[0].key.as_deref().expect("a key");
    assert_eq!(Uuid::parse_str(key).map(|key| key.get_version_num()), Ok(4));
}

#[tokio::test]
async fn same_key_and_parameters_is_the_same_request_and_no_second_charge() {
    let counter = counter("", "").await;
    let first = counter.post(SUBMIT, &[(OWN, KEY)], prompt("o-1")).await;
    let again = counter.post(SUBMIT, &[(OWN, KEY)], prompt("o-1")).await;
    assert_eq!((&again.body, again.header("samekey-replay")), (&first.body, "stored"));
    assert_eq!((counter.sent(), counter.spent()), (1, (1, 1)));
    // What is unknown here is known there: the client's repeat goes out under its key.
    counter.script("reset_after; reset_after; reset_after; reset_after; ok");
    let other = "5b0c2a94-07e5-4a7e-8f10-3c1f6d9e2b11";
    let lost = counter.post(SUBMIT, &[(OWN, other)], prompt("o-2")).await;
    assert_eq!(told(&lost), (502, "4", "attempts"));
    let found = counter.post(SUBMIT, &[(OWN, other)], prompt("o-2")).await;
    assert_eq!((told(&found), counter.spent()), ((200, "1", ""), (1, 1)));
}

#[tokio::test]
async fn same_key_and_other_parameters_is_409_here_and_there() {
    for (mismatch, said, sent) in
        [("409", (409, "key-reused".to_owned()), 1), ("forward", (409, String::new()), 2)]
    {
        let counter = counter("", &format!("mismatch: {mismatch}")).await;
        counter.post(SUBMIT, &[(OWN, KEY)], prompt("o-1")).await;
        let other = counter.post(SUBMIT, &[(OWN, KEY)], prompt("o-2")).await;
        assert_eq!((other.said(), counter.sent()), (said, sent), "{mismatch}");
        if mismatch == "forward" {
            assert_eq!(text(&other, "/error/code"), "idempotency_key_reuse");
        }
        assert_eq!(counter.spent(), (1, 1), "{mismatch}");
    }
}

#[tokio::test]
async fn a_request_in_progress_is_waited_for_and_asked_for_again_with_the_same_key() {
    let backoff = "backoff: {initial: 60ms, max: 60ms, jitter: none}";
    let blocks =
        route("", "").replace(FAST, &format!("attempts: 20, attempt_timeout: 100ms, {backoff}"));
    let counter = Counter::new(Name::Generation, &blocks).await;
    counter.script("slow 600; ok forever");
    let answer = counter.post(SUBMIT, &[], prompt("o-1")).await;
    assert_eq!((answer.status.as_u16(), answer.header("samekey-stop")), (200, ""));
    assert!(counter.sent() > 2, "it was in progress at first: {}", counter.sent());
    let keys = counter.keys();
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    assert_eq!(counter.spent(), (1, 1));
    let row = counter.row().await;
    let statuses: Vec<_> = row["attempts"].as_array().expect("a list").iter().collect();
    assert_eq!(
        (&statuses[0]["outcome"], &statuses[1]["status"]),
        (&json!("ambiguous"), &json!(409))
    );
    assert_eq!(row["state"], "completed");
}

#[tokio::test]
async fn a_request_that_stays_in_progress_is_told_as_it_is_and_stays_unknown() {
    let counter = counter("attempts: 3", "").await;
    let running = r#"409 body={"error":{"code":"request_in_progress"}} forever"#;
    counter.script(running);
    let answer = counter.post(SUBMIT, &[(OWN, KEY)], prompt("o-1")).await;
    assert_eq!(told(&answer), (409, "3", "attempts"));
    assert_eq!(counter.row().await["state"], "unknown");
    counter.script(r#"409 body={"error":{"code":"idempotency_key_reuse"}}"#);
    let other = [(OWN, "5b0c2a94-07e5-4a7e-8f10-3c1f6d9e2b11")];
    let answer = counter.post(SUBMIT, &other, prompt("o-1")).await;
    assert_eq!(told(&answer), (409, "1", ""), "no other 409 is waited for");
}

#[tokio::test]
async fn our_own_clients_join_the_request_that_is_in_progress() {
    let counter = counter("", "").await;
    counter.script("slow 100; ok forever");
    let asked = (0..10).map(|_| counter.post(SUBMIT, &[(OWN, KEY)], prompt("o-1")));
    let answers = futures_util::future::join_all(asked).await;
    assert!(answers.iter().all(|answer| answer.body == answers[0].body));
    assert_eq!((counter.sent(), counter.spent()), (1, (1, 1)));
}

#[tokio::test]
async fn what_is_refused_is_not_sent_again_and_its_key_stays_free() {
    let counter = counter("", "").await;
    for (script, status, code) in [
        ("400", 400, "invalid_request"),
        ("401", 401, "invalid_api_key"),
        ("403", 403, "invalid_api_key"),
        ("422", 422, "model_input_invalid"),
    ] {
        counter.script(script);
        let key = Uuid::from_u128(0x8f3a_1c7e_2b41_4d2a_9c0e_1200_304c_0000 + u128::from(status));
        let key = key.to_string();
        let answer = counter.post(SUBMIT, &[(OWN, &key)], prompt("o-1")).await;
        assert_eq!(
            (told(&answer), text(&answer, "/error/code").as_str()),
            ((status, "1", ""), code)
        );
        assert_eq!((counter.sent(), counter.spent()), (1, (0, 0)), "{script}");
        let answer = counter.post(SUBMIT, &[(OWN, &key)], prompt("o-1")).await;
        assert_eq!((answer.status.as_u16(), counter.spent()), (200, (1, 1)), "{script}");
    }
    counter.script("");
    counter.terms(&json!({"credits": 0}));
    let answer = counter.post(SUBMIT, &[(OWN, KEY)], prompt("o-1")).await;
    assert_eq!(told(&answer), (402, "1", ""));
    assert_eq!((counter.sent(), counter.books().broke), (1, 1));
}

#[tokio::test]
async fn a_429_waits_as_long_as_it_says_and_a_5xx_backs_off() {
    let counter = counter("", "").await;
    counter.script("429 retry_after=1; ok");
    assert_eq!(told(&counter.post(SUBMIT, &[], prompt("o-1")).await), (200, "2", ""));
    let at: Vec<u64> = counter.seen().iter().map(|seen| seen.at_ms).collect();
    assert!(at[1] - at[0] >= 999, "{at:?}");
    counter.script("500; 503; 500 effect; ok");
    assert_eq!(told(&counter.post(SUBMIT, &[], prompt("o-2")).await), (200, "4", ""));
    assert_eq!(counter.spent(), (1, 1));
}

#[tokio::test]
async fn what_the_limit_fields_say_holds_back_everyone_with_the_credential() {
    let counter = counter("", "").await;
    counter.script("429 +ratelimit-remaining:0 +ratelimit-reset:1; ok forever");
    let first = counter.post(SUBMIT, &[], prompt("o-1"));
    let second = async {
        counter.provider.arrived("generation", 1).await;
        counter.samekey.until("samekey_pauses_total{route=\"r\"}", 1.0).await;
        counter.post(SUBMIT, &[], prompt("o-2")).await
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!((told(&first), told(&second)), ((200, "2", ""), (200, "1", "")));
    let at: Vec<u64> = counter.seen().iter().map(|seen| seen.at_ms).collect();
    assert!(at.iter().skip(1).all(|later| later - at[0] >= 999), "{at:?}");
}

/// Two routes of the provider that share its limits.
async fn grouped(limits: &str) -> Counter {
    let limits = format!("limits: {{{limits}, group: account}}");
    let submit = "match: {hosts: ['*'], methods: [POST]}";
    let routes = format!(
        "[{{name: submit, {submit}, {limits}, {}}}, {{name: read, match: {{hosts: ['*']}}, {limits}}}]",
        route("", "")
    );
    Counter::with_routes(Name::Generation, &routes).await
}

#[tokio::test]
async fn ten_at_one_time_is_held_across_the_providers_routes() {
    let counter = grouped("concurrency: 10").await;
    counter.script("slow 20 forever");
    let submits = futures_util::future::join_all((0..20).map(|n| {
        let counter = &counter;
        async move { counter.post(SUBMIT, &[], prompt(&format!("o-{n}"))).await }
    }));
    let reads =
        futures_util::future::join_all((0..20).map(|_| counter.get("/v1/requests/none/status")));
    let (submits, reads) = tokio::join!(submits, reads);
    assert!(submits.iter().all(|answer| told(answer) == (200, "1", "")));
    assert!(reads.iter().all(|answer| answer.status == 404));
    let books = counter.books();
    assert_eq!((books.limited, books.effects, books.spent), (0, 20, 20));
}

#[tokio::test]
async fn so_many_a_minute_are_held_across_the_providers_routes() {
    let counter = grouped("rate: 120/1m, max_wait: 100ms").await;
    let reads = (0..60).map(|_| counter.get("/v1/requests/none/status"));
    let submits = (0..60).map(|n| counter.post(SUBMIT, &[], prompt(&format!("o-{n}"))));
    // One after another, so that the ten at one time are not in question here.
    for (read, submit) in reads.zip(submits) {
        assert_eq!(told(&submit.await), (200, "1", ""));
        assert_eq!(read.await.status, 404);
    }
    let over = counter.post(SUBMIT, &[], prompt("one too many")).await;
    assert_eq!(over.said(), (503, "limit-wait".to_owned()));
    let books = counter.books();
    assert_eq!(
        (counter.sent(), books.limited, books.spent),
        (120, 0, 60),
        "the 121st was not sent"
    );
}

#[tokio::test]
async fn the_request_and_its_real_cost_are_found_by_the_key() {
    let counter = counter("", "").await;
    counter.script("503 effect; ok");
    let answer = counter.post("/v1/models/film-2", &[(OWN, KEY)], prompt("o-1")).await;
    let wanted = json!({"request_id": text(&answer, "/request_id"), "cost": "12"});
    assert_eq!(counter.row().await["captured"], wanted);
    let found = counter.admin(&format!("/api/exchanges?key={KEY}")).await;
    assert_eq!(found["exchanges"][0]["captured"], wanted);
    assert_eq!(counter.spent(), (1, 12));
}

#[tokio::test]
async fn an_estimate_is_asked_for_without_a_charge() {
    let counter = counter("", "").await;
    let answer = counter.post("/v1/models/film-2/estimate", &[], prompt("o-1")).await;
    assert_eq!((&answer.json()["credits"], counter.spent()), (&json!(12), (0, 0)));
}

#[tokio::test]
async fn a_request_is_polled_once_an_interval_whoever_asks() {
    let poll = "interval: 200ms, terminal: {json: /status, in: [COMPLETED, FAILED, CANCELED]}";
    let counter = Counter::polling(Name::Generation, poll, &route("", "")).await;
    let id = text(&counter.post(SUBMIT, &[], prompt("o-1")).await, "/request_id");
    let path = format!("/v1/requests/{id}/status");
    let client = || async {
        let mut status = String::new();
        while status != "COMPLETED" {
            status = text(&counter.get(&path).await, "/status");
            tokio::time::sleep(Duration::from_millis(20)).await; // a client in a tight loop
        }
    };
    futures_util::future::join_all((0..5).map(|_| client())).await;
    assert_eq!((counter.sent(), counter.spent()), (5, (1, 1)), "a submit and four polls");
}

#[tokio::test]
async fn the_preset_waits_for_a_request_in_progress_and_speaks_as_the_provider_does() {
    let preset = "[{preset: clipia-generate, name: r, match: {hosts: ['*']}, \
                  limits: {group: null}, retry: {backoff: {initial: 1ms, max: 2ms}}}]";
    let counter = Counter::with_routes(Name::Generation, preset).await;
    counter.script(r#"409 body={"error":{"code":"request_in_progress"}}; ok"#);
    let answer = counter.post(SUBMIT, &[(OWN, KEY)], prompt("o-1")).await;
    assert_eq!((told(&answer), counter.spent()), ((200, "2", ""), (1, 1)));
    let other = counter.post(SUBMIT, &[(OWN, KEY)], prompt("o-2")).await;
    let error = other.json()["error"].take();
    assert_eq!((other.status.as_u16(), &error["code"]), (409, &json!("idempotency_key_reuse")));
    assert_eq!(error["type"], "invalid_request_error");
    let fields = [(OWN, "5b0c2a94-07e5-4a7e-8f10-3c1f6d9e2b11")];
    counter.script(r#"409 body={"error":{"code":"another"}}"#);
    let answer = counter.post(SUBMIT, &fields, prompt("o-3")).await;
    assert_eq!(told(&answer), (409, "1", ""), "no other 409 is waited for");
}

/// The route that a preset has for generations, with these further keys.
async fn preset(blocks: &str) -> Counter {
    Counter::preset(Name::Generation, GENERATE, &format!("retry: {{{FAST}}}{blocks}")).await
}

#[tokio::test]
async fn the_preset_sends_one_key_through_every_fault_and_pays_once() {
    let counter = preset("").await;
    counter.script("503 effect; reset_after; 429 retry_after_ms=5; ok");
    let answer = counter.post(FILM, &[], prompt("o-1")).await;
    assert_eq!((told(&answer), counter.spent()), ((200, "4", ""), (1, 12)));
    let keys = counter.keys();
    assert!(keys.iter().all(|key| *key == keys[0] && Uuid::parse_str(key).is_ok()), "{keys:?}");
    let wanted = json!({"request_id": text(&answer, "/request_id"), "cost": "12"});
    assert_eq!(counter.row().await["captured"], wanted);
}

#[tokio::test]
async fn answers_made_here_have_the_providers_shape() {
    let codes = "codes: {key_reused: idempotency_key_reuse, in_progress: request_in_progress}";
    let counter =
        preset(&format!(", idempotency: {{in_progress: reject}}, errors: {{{codes}}}")).await;
    let own = [(OWN, KEY)];
    counter.script("held");
    let asked = async |prompt: Value| counter.post(SUBMIT, &own, prompt).await;
    let meanwhile = async {
        while counter.spent().0 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let running = asked(prompt("o-1")).await;
        counter.provider.release();
        running
    };
    let (first, running) = tokio::join!(asked(prompt("o-1")), meanwhile);
    let reused = asked(prompt("o-2")).await;
    assert_eq!((first.status.as_u16(), counter.sent()), (200, 1), "no other was sent");
    let shape = |answer: &Answer| {
        assert!(answer.json()["error"]["message"].is_string(), "{}", answer.text());
        let field = |name: &str| text(answer, &format!("/error/{name}"));
        (answer.status.as_u16(), field("type"), field("code"))
    };
    // The provider's own, for the same.
    let theirs = counter.post_directly(SUBMIT, &own, prompt("o-2")).await;
    assert_eq!(shape(&reused), shape(&theirs));
    let wanted = (409, "invalid_request_error".to_owned(), "request_in_progress".to_owned());
    assert_eq!(shape(&running), wanted);
    for answer in [&running, &reused] {
        assert_eq!(told(answer).1, "0");
        assert_eq!(answer.header("content-type"), theirs.header("content-type"));
    }
    assert_eq!(counter.spent(), (1, 1));
}

#[tokio::test]
async fn what_costs_more_than_the_gate_is_not_sent() {
    let estimate = "estimate: {path: '/v1/models/{model}/estimate', json: /credits, at_most: 5}";
    let counter = preset(&format!(", errors: problem, {estimate}")).await;
    let own = [(OWN, KEY)];
    let dear = counter.post(FILM, &own, prompt("o-1")).await;
    assert_eq!(dear.said(), (OUT_OF_CREDIT.0, OUT_OF_CREDIT.1.to_owned()));
    assert_eq!(counter.spent(), (0, 0));
    assert_eq!(counter.post(SUBMIT, &own, prompt("o-1")).await.status, 200, "its key is free");
    assert_eq!(counter.post(SUBMIT, &own, prompt("o-1")).await.header("samekey-replay"), "stored");
    let paths: Vec<String> = counter.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(
        paths,
        [format!("{FILM}/estimate"), format!("{SUBMIT}/estimate"), SUBMIT.to_owned()]
    );
    assert_eq!(counter.spent(), (1, 1));
    assert_eq!(counter.row().await["captured"]["cost"], "1", "what it really cost");
    for (kind, wanted) in [("refused", 12.0), ("spent", 1.0), ("saved", 1.0)] {
        let series = format!("samekey_cost_total{{kind=\"{kind}\",route=\"{GENERATE}\"}}");
        counter.samekey.until(&series, wanted).await;
    }
}
