//! The APIs behind the SDKs: payments under keys, and chats without.

use serde_json::json;

use super::{Counter, FAST, told};
use crate::provider::apis::Name;

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const PAYMENT: &str = "amount=1000&currency=usd";

async fn payments() -> Counter {
    let route = format!("idempotency: {{upstream_dedupes: true}}, retry: {{{FAST}}}");
    Counter::new(Name::Charges, &route).await
}

#[tokio::test]
async fn a_500_that_is_kept_under_the_key_is_passed_on_and_not_asked_for_again() {
    let counter = payments().await;
    counter.script("500 effect; ok forever");
    let answer = counter.post("/v1/payment_intents", &[FORM], PAYMENT).await;
    assert_eq!((told(&answer), counter.spent()), ((500, "2", ""), (1, 1)));
    assert_eq!(answer.header("idempotent-replayed"), "true");
}

#[tokio::test]
async fn a_payment_in_use_is_asked_for_again_because_the_upstream_says_so() {
    let route = "idempotency: {upstream_dedupes: true}, retry: {attempts: 20, \
                 attempt_timeout: 100ms, backoff: {initial: 60ms, max: 60ms, jitter: none}}";
    let counter = Counter::new(Name::Charges, route).await;
    counter.script("slow 500; ok forever");
    let answer = counter.post("/v1/charges", &[FORM], PAYMENT).await;
    assert_eq!((answer.status.as_u16(), counter.spent()), (200, (1, 1)));
    assert!(counter.sent() > 2, "it was in use at first: {}", counter.sent());
}

#[tokio::test]
async fn a_quota_that_is_used_up_is_no_rate_limit() {
    let quota = "never_when: [{json: /error/code, in: [insufficient_quota]}]";
    let counter = Counter::new(Name::Completions, &format!("retry: {{{FAST}, {quota}}}")).await;
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "o-1"}]});
    counter.script("429; ok");
    let answer = counter.post("/v1/chat/completions", &[], &chat).await;
    assert_eq!((told(&answer), counter.spent()), ((200, "2", ""), (1, 1)));
    counter.script("");
    counter.terms(&json!({"credits": 0}));
    let answer = counter.post("/v1/chat/completions", &[], &chat).await;
    assert_eq!((told(&answer), counter.sent()), ((429, "1", "permanent"), 1));
}

#[tokio::test]
async fn a_chat_comes_as_a_stream_to_its_end() {
    let counter = Counter::new(Name::Completions, &format!("retry: {{{FAST}}}")).await;
    counter.script("429; ok chunked");
    let messages = json!([{"role": "user", "content": "o-1"}]);
    let chat = json!({"model": "m", "stream": true, "messages": messages});
    let answer = counter.post("/v1/chat/completions", &[], chat).await;
    assert_eq!((told(&answer), counter.spent()), ((200, "2", ""), (1, 1)));
    assert!(answer.whole && answer.text().ends_with("data: [DONE]\n\n"), "{}", answer.text());
}
