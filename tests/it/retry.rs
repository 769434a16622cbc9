//! What is sent again, and what never is.

use http::Method;

use crate::provider::{Options, Provider};
use crate::support::{Client, Samekey};

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
    let keys: std::collections::HashSet<_> = provider.seen("s").into_iter().map(|seen| seen.key).collect();
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
