//! What is sent again, and what never is.

use http::Method;
use tokio::io::AsyncWriteExt as _;

use crate::provider::{Options, Provider};
use crate::support::{Answer, Client, ORDER, Samekey, Stage};

/// A route whose upstream de-duplicates, with waits that do not slow a test down.
const DEDUPES: &str = "
routes:
  - name: jobs
    match: {hosts: [localhost]}
    idempotency: {upstream_dedupes: true}
    retry: {backoff: {initial: 5ms, max: 20ms}}
";

/// A route about whose upstream nothing is known.
const PLAIN: &str = "
routes:
  - name: jobs
    match: {hosts: [localhost]}
    retry: {backoff: {initial: 5ms, max: 20ms}}
";

/// Plays `script`, posts once, and wants this status after so many attempts and effects.
async fn check(config: &str, script: &str, wanted: (u16, usize, usize), stop: &str) {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    provider.script("s", script);
    let samekey = Samekey::beside(&provider, config).await;
    let url = provider.ports.https_url("/s/s/v1/jobs");
    let answer = Client::through(&samekey).post(&url, r#"{"a": 1}"#).await;
    let attempts = answer.header("samekey-attempts").parse().unwrap_or(0);
    let seen = (answer.status.as_u16(), attempts, provider.effects("s"));
    assert_eq!(seen, wanted, "{script}: {} {:#?}", answer.text(), answer.headers);
    assert_eq!(answer.header("samekey-stop"), stop, "{script}");
    let keys: std::collections::HashSet<_> =
        provider.seen("s").into_iter().map(|seen| seen.key).collect();
    assert!(keys.len() <= 1, "{script}: one key on all attempts, not {keys:?}");
}

#[tokio::test]
async fn a_post_is_sent_again_where_that_is_safe() {
    check(PLAIN, "429 retry_after=1", (201, 2, 1), "").await;
    check(DEDUPES, "503 x2", (201, 3, 1), "").await;
    check(DEDUPES, "reset_before", (201, 2, 1), "").await;
    check(DEDUPES, "reset_after", (201, 2, 1), "").await;
    check(DEDUPES, "eof_after; garbage", (201, 3, 1), "").await;
}

#[tokio::test]
async fn a_post_is_never_sent_twice_after_an_ambiguous_outcome() {
    check(PLAIN, "503", (503, 1, 0), "unsafe").await;
    check(PLAIN, "reset_after", (502, 1, 1), "unsafe").await;
    check(PLAIN, "eof_after", (502, 1, 1), "unsafe").await;
    check(PLAIN, "garbage", (502, 1, 1), "unsafe").await;
}

#[tokio::test]
async fn a_get_is_sent_again_whatever_happened() {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    provider.script("s", "503; reset_before; eof_before");
    let samekey = Samekey::beside(&provider, PLAIN).await;
    let url = provider.ports.https_url("/s/s/status/200");
    let answer = Client::through(&samekey).send(Method::GET, &url, &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.header("samekey-attempts")), (200, "4"));
    assert_eq!(provider.seen("s").len(), 4);
}

/// Waits that do not slow a test down.
const FAST: &str = "backoff: {initial: 1ms, max: 2ms}";

/// A route whose upstream de-duplicates, with these further keys of `retry`.
async fn deduping(retry: &str) -> Stage {
    let comma = if retry.is_empty() { "" } else { ", " };
    Stage::new(&format!("idempotency: {{upstream_dedupes: true}}, retry: {{{FAST}{comma}{retry}}}"))
        .await
}

/// What an answer says of its exchange: status, attempts, why it ended.
fn seen(answer: &Answer) -> (u16, &str, &str) {
    (answer.status.as_u16(), answer.header("samekey-attempts"), answer.header("samekey-stop"))
}

/// Whether an SDK is told not to start over, by both its words.
fn is_told_to_stop(answer: &Answer) -> bool {
    answer.header("x-should-retry") == "false" && answer.header("stripe-should-retry") == "false"
}

#[tokio::test]
async fn every_reason_to_stop_is_named_and_ends_an_sdk_where_it_should() {
    let off = ("samekey-retry", "off");
    let none = ("x-none", "1");
    let credits = "never_when: [{json: /code, in: [broke]}]";
    for (retry, script, field, wanted, stops) in [
        ("", "503 forever", none, (503, "4", "attempts"), true),
        ("attempts: 1", "503", none, (503, "1", "attempts"), true),
        ("", "503", off, (503, "1", "off"), false),
        ("", "429", off, (429, "1", "off"), false),
        ("", "429 retry_after=121", none, (429, "1", "retry-after"), true),
        ("retry_after_max: 500ms", "503 retry_after=1", none, (503, "1", "retry-after"), true),
        ("deadline: 900ms", "429 retry_after=1", none, (429, "1", "deadline"), true),
        ("", "503 +x-should-retry:false", none, (503, "1", "upstream-said-no"), true),
        ("", "503 +stripe-should-retry:false", none, (503, "1", "upstream-said-no"), true),
        (credits, r#"429 body={"code":"broke"}"#, none, (429, "1", "permanent"), false),
        (credits, r#"429 body={"code":"busy"}"#, none, (201, "2", ""), false),
        ("budget: {burst: 0, min_per_second: 0}", "503", none, (503, "1", "budget"), true),
        ("", "409 +stripe-should-retry:true", none, (201, "2", ""), false),
        ("on: [429]", "503", none, (503, "1", ""), false),
        ("on: [429]", "503 +x-should-retry:true", none, (201, "2", ""), false),
        ("", "501", none, (501, "1", ""), false),
        ("", "400", none, (400, "1", ""), false),
        ("", "500 +idempotent-replayed:true", none, (500, "1", ""), false),
    ] {
        let stage = deduping(retry).await;
        stage.script(script);
        let answer = stage.post(&[field], ORDER).await;
        assert_eq!(seen(&answer), wanted, "{retry} {script} {field:?}");
        assert_eq!(is_told_to_stop(&answer), stops, "{retry} {script} {field:?}");
        if script.contains("retry_after=") && !wanted.2.is_empty() {
            assert!(!answer.header("retry-after").is_empty(), "as it came");
        }
    }
}

#[tokio::test]
async fn an_unsafe_stop_ends_an_sdk_only_where_a_repeat_would_be_a_second_effect() {
    for (blocks, stops) in [("", false), ("idempotency: {upstream_dedupes: false}", true)] {
        let stage = Stage::new(blocks).await;
        stage.script("503");
        let answer = stage.post(&[], ORDER).await;
        assert_eq!(seen(&answer), (503, "1", "unsafe"));
        assert_eq!(is_told_to_stop(&answer), stops, "{blocks}");
    }
}

#[tokio::test]
async fn who_accepts_duplicates_gets_retries() {
    let stage = Stage::new(&format!("retry: {{unsafe: true, {FAST}}}")).await;
    stage.script("reset_after; 503; ok");
    assert_eq!(seen(&stage.post(&[], ORDER).await), (201, "3", ""));
    assert_eq!(stage.provider.effects("s"), 2, "a duplicate was accepted");
}

#[tokio::test]
async fn a_429_proves_nothing_where_the_route_says_so() {
    let stage = Stage::new(&format!("retry: {{refused_by: [], {FAST}}}")).await;
    stage.script("429");
    assert_eq!(seen(&stage.post(&[], ORDER).await), (429, "1", "unsafe"));
    stage.script("429");
    assert_eq!(seen(&stage.client.get(&stage.url("/v1/jobs/none")).await), (404, "2", ""));
}

#[tokio::test]
async fn a_hint_is_obeyed_in_every_form() {
    for hint in [
        "retry_after=1",
        "retry_after=0.6",
        "retry_after_ms=600",
        "+x-ms-retry-after-ms:600",
        "+retry-after:date+2",
        "+ratelimit-reset:1",
        "+x-ratelimit-reset:1",
        "+x-ratelimit-reset-requests:600ms",
    ] {
        // What would have to wait too long ends at once: so the hint was read, and no test waits.
        let stage = deduping("retry_after_max: 500ms").await;
        stage.script(&format!("429 {hint}"));
        assert_eq!(seen(&stage.post(&[], ORDER).await), (429, "1", "retry-after"), "{hint}");
    }
    for hint in [
        "retry_after=0",
        "retry_after=-1",
        "retry_after=soon",
        "retry_after=1e9",
        "retry_after_ms=NaN",
    ] {
        let stage = deduping("retry_after_max: 500ms").await;
        stage.script(&format!("429 {hint}"));
        assert_eq!(seen(&stage.post(&[], ORDER).await), (201, "2", ""), "{hint} says nothing");
    }
}

#[tokio::test]
async fn no_retry_is_early() {
    let stage = deduping("").await;
    stage.script("429 retry_after_ms=300; 503 retry_after_ms=200; ok");
    assert_eq!(seen(&stage.post(&[], ORDER).await), (201, "3", ""));
    let at: Vec<u64> = stage.provider.seen("s").iter().map(|seen| seen.at_ms).collect();
    assert!(at[1] - at[0] >= 299 && at[2] - at[1] >= 199, "{at:?}");
}

#[tokio::test]
async fn a_deadline_of_the_route_cuts_a_running_attempt() {
    let stage = deduping("deadline: 150ms").await;
    stage.script("hang_after forever");
    let answer = stage.post(&[("idempotency-key", "k")], ORDER).await;
    assert_eq!((answer.said(), seen(&answer).1), ((504, "upstream-timeout".to_owned()), "1"));
    assert_eq!(answer.header("samekey-stop"), "deadline");
    assert!(answer.header("proxy-status").starts_with("samekey; error=http_response_timeout"));
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_made_again() {
    let stage = deduping("attempt_timeout: 150ms").await;
    stage.script("hang_after; slow 20");
    assert_eq!(seen(&stage.post(&[], ORDER).await), (201, "2", ""));
    let plain = Stage::new("retry: {attempt_timeout: 150ms}").await;
    plain.script("hang_after");
    let answer = plain.post(&[], ORDER).await;
    assert_eq!((answer.said(), seen(&answer).2), ((504, "upstream-timeout".to_owned()), "unsafe"));
}

#[tokio::test]
async fn a_failing_upstream_is_asked_no_more_than_the_budget_allows_and_then_recovers() {
    let stage = deduping("budget: {ratio: 1, min_per_second: 0, burst: 5}").await;
    stage.script("503 forever");
    for _ in 0..20 {
        assert_eq!(stage.post(&[], ORDER).await.status, 503);
    }
    assert_eq!(stage.sent(), 25, "five retries in all");
    assert!((stage.samekey.metric("samekey_retry_budget_tokens{route=\"r\"}").await).abs() < 0.1);
    stage.script("");
    for _ in 0..3 {
        assert_eq!(stage.post(&[], ORDER).await.status, 201);
    }
    stage.script("503 x3; ok");
    assert_eq!(seen(&stage.post(&[], ORDER).await), (201, "4", ""), "what was earned since");
}

#[tokio::test]
async fn an_ambiguous_retry_costs_two_and_a_hinted_one_a_third() {
    for (script, retries) in
        [("reset_after forever", 1), ("503 forever", 2), ("429 retry_after_ms=1 forever", 6)]
    {
        let stage = deduping("attempts: 10, budget: {ratio: 0, min_per_second: 0, burst: 2}").await;
        stage.script(script);
        let answer = stage.post(&[], ORDER).await;
        assert_eq!(
            (answer.header("samekey-stop"), stage.sent()),
            ("budget", retries + 1),
            "{script}"
        );
    }
}

#[tokio::test]
async fn an_sdks_own_retry_is_not_multiplied_and_earns_nothing() {
    for field in [
        ("x-stainless-retry-count", "1"),
        ("amz-sdk-request", "attempt=2; max=3"),
        ("x-envoy-attempt-count", "2"),
    ] {
        let stage = deduping("budget: {ratio: 1, min_per_second: 0, burst: 3}").await;
        stage.script("503 forever");
        assert_eq!(seen(&stage.post(&[field], ORDER).await), (503, "2", "attempts"), "{field:?}");
        stage.script("");
        assert_eq!(stage.post(&[field], ORDER).await.status, 201);
        let left = stage.samekey.metric("samekey_retry_budget_tokens{route=\"r\"}").await;
        assert!((left - 2.0).abs() < 0.1, "{field:?}: {left}");
    }
}

#[tokio::test]
async fn a_body_is_sent_again_as_long_as_it_is_kept() {
    let pieces: Vec<String> = (0..40_000).map(|nth| format!("{nth:05}")).collect();
    let body = pieces.concat();
    for (caps, wanted) in [
        ("{memory: 1MiB, disk: 0}", (200, "3", "")),
        ("{memory: 1KiB, disk: 1MiB}", (200, "3", "")), // through a file
        ("{memory: 1KiB, disk: 1KiB}", (503, "1", "body")),
    ] {
        let blocks =
            format!("idempotency: {{upstream_dedupes: true}}, retry: {{{FAST}}}, body: {caps}");
        let stage = Stage::new(&blocks).await;
        stage.script("503; reset_after");
        let sent = stage.client.send(Method::POST, &stage.url("/sink"), &[], &body).await;
        assert_eq!(seen(&sent), wanted, "{caps}");
        let digest = blake3::hash(body.as_bytes()).to_hex().to_string();
        for seen in stage.provider.seen("s") {
            assert_eq!((seen.body_bytes, &seen.body_digest), (200_000, &digest), "{caps}");
        }
    }
}

#[tokio::test]
async fn what_is_only_observed_goes_as_it_came() {
    let stage =
        Stage::new("mode: observe, idempotency: {upstream_dedupes: true, require: true}").await;
    stage.script("503; ok; ok");
    let answer = stage.post(&[], ORDER).await;
    assert_eq!((answer.status.as_u16(), stage.sent(), stage.keys()[0].as_str()), (503, 1, ""));
    assert_eq!(answer.header("samekey-stop"), "");
    for _ in 0..2 {
        assert_eq!(stage.order("k").await.header("samekey-replay"), "");
    }
    assert_eq!(stage.sent(), 3);
    stage.counted("client", 2).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_in_a_wait_is_waited_for_only_where_it_can_ask_again() {
    for (headers, goes_on) in [
        ([("idempotency-key", "k")], true),
        ([("samekey-key", "k")], true),
        ([("amz-sdk-invocation-id", "k")], false),
        ([("x-none", "1")], false),
    ] {
        let stage = Stage::new("").await;
        stage.script("429 retry_after_ms=400; ok; ok");
        let stream = stage.begin(&headers, ORDER).await;
        stage.samekey.until("samekey_retries_total{reason=\"status_429\",route=\"r\"}", 1.0).await;
        drop(stream);
        tokio::time::sleep(std::time::Duration::from_millis(900)).await; // past the wait and its jitter
        assert_eq!(stage.sent(), if goes_on { 2 } else { 1 }, "{headers:?}");
        if goes_on {
            assert_eq!(stage.post(&headers, ORDER).await.header("samekey-replay"), "stored");
        }
    }
}

#[tokio::test]
async fn an_ambiguous_attempt_is_followed_up_although_nobody_waits() {
    let blocks = "idempotency: {upstream_dedupes: true}, retry: {backoff: {kind: constant, initial: 400ms, jitter: none}}";
    let stage = Stage::new(blocks).await;
    stage.script("reset_after; ok");
    let stream = stage.begin(&[], ORDER).await;
    stage.samekey.until("samekey_retries_total{reason=\"reset\",route=\"r\"}", 1.0).await;
    drop(stream);
    stage.provider.arrived("s", 2).await;
}

#[tokio::test]
async fn an_answer_without_a_body_frees_its_slot_while_a_retry_waits() {
    let blocks = format!(
        "idempotency: {{upstream_dedupes: true}}, limits: {{concurrency: 1}}, retry: {{{FAST}}}"
    );
    let stage = Stage::new(&blocks).await;
    stage.script("503 body=; 429 body= retry_after_ms=1; ok");
    assert_eq!(seen(&stage.post(&[], ORDER).await), (201, "3", ""));
}

#[tokio::test]
async fn the_last_answer_is_passed_on_byte_for_byte() {
    let stage = deduping("attempts: 2").await;
    stage.script("503 x1; 502 body={\"why\":\"tired\"} +x-request-id:r-2");
    let answer = stage.post(&[], ORDER).await;
    assert_eq!(seen(&answer), (502, "2", "attempts"));
    assert_eq!(
        (answer.text().as_str(), answer.header("x-request-id")),
        ("{\"why\":\"tired\"}", "r-2")
    );
}

#[tokio::test]
async fn an_early_refusal_of_an_upload_is_passed_on() {
    let stage = deduping("").await;
    stage.script("early 413");
    let mut stream = stage.write(&[], 1_000_000, ORDER).await;
    stream.write_all(b"more").await.expect("it takes them");
    let answer = crate::support::client::read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let stage = deduping("").await;
    let get = || async { stage.client.get(&stage.url("/status/200")).await.status.as_u16() };
    for _ in 0..3 {
        assert_eq!(get().await, 200);
    }
    let first = stage.provider.seen("s")[0].connection;
    assert!(stage.provider.seen("s").iter().all(|seen| seen.connection == first));
    stage.script("");
    for _ in 0..3 {
        assert_eq!(stage.post(&[], ORDER).await.status, 201);
    }
    let used: std::collections::HashSet<u64> =
        stage.provider.seen("s").iter().map(|seen| seen.connection).collect();
    assert_eq!(used.len(), 1, "bodies of known length leave a connection as good as new");
}
