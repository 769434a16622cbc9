//! A provider that takes no keys is asked what became of an order.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::provider::{Options, Provider};
use crate::support::program::folder_with;
use crate::support::{Answer, Client, ORDER, Samekey, Stage};

/// A route that is asked about by tag, and is impatient.
const BY_TAG: &str = "retry: {attempts: 1}, idempotency: {upstream_dedupes: false, \
     capture: {project: /project}}, lookup: {tag: {json: /client-data/samekey}, \
     request: '/s/s/v2/movies?page={page}', items: /movies, match: /client-data/samekey, \
     next: {page: 1}, answer: {success: true, project: '{json:/project}'}, status: 201, \
     settle: 1s, every: 1s}";

impl Stage {
    /// Makes the event `name` an order.
    async fn event(&self, name: &str) -> Answer {
        self.post(&[("samekey-key", name), ("x-api-key", "hunter2")], ORDER).await
    }

    /// How many orders the provider was sent.
    fn orders(&self) -> usize {
        let seen = self.provider.seen("s").into_iter();
        seen.filter(|seen| seen.method == "POST").count()
    }

    fn looked(result: &str) -> String {
        format!("samekey_lookups_total{{result=\"{result}\",route=\"r\"}}")
    }

    /// Waits until a lookup came to this so often.
    async fn lookups(&self, result: &str, at_least: f64) {
        let reached = async {
            while self.samekey.metric(&Self::looked(result)).await < at_least {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(20), reached).await;
        assert!(reached.is_ok(), "{result}:\n{}", self.samekey.metrics().await);
    }

    /// Whether no key, and none of the client's credentials, was logged.
    fn logged_no_secret(&self, answer: &Answer) {
        let key = answer.header("idempotency-key");
        assert!(!key.is_empty());
        let log = self.samekey.log().join("\n");
        assert!(!log.contains("hunter2") && !log.contains(key), "{log}");
    }
}

#[tokio::test]
async fn an_order_that_was_lost_after_its_effect_is_answered_from_the_list() {
    let stage = Stage::new(BY_TAG).await;
    stage.script("ok; ok; reset_after");
    for name in ["order-1", "order-2"] {
        assert_eq!(stage.event(name).await.status, 201);
    }
    let lost = stage.event("order-3").await;
    assert_eq!(lost.status, 502);
    let again = stage.event("order-3").await;
    assert_eq!((again.status.as_u16(), again.header("samekey-replay")), (201, "stored"));
    assert_eq!(again.json(), serde_json::json!({"success": true, "project": "job-s-3"}));
    assert_eq!(again.header("content-type"), "application/json");
    let third = stage.event("order-3").await;
    assert_eq!((third.header("samekey-replay"), &third.body), ("stored", &again.body));
    assert_eq!((stage.provider.effects("s"), stage.orders()), (3, 3));
    stage.samekey.until(&Stage::looked("found"), 1.0).await;
    let listed = crate::support::client::get(stage.samekey.admin, "/api/exchanges").await.json();
    let row = &listed["exchanges"][0];
    assert_eq!(
        (&row["state"], &row["captured"]["project"]),
        (&"completed".into(), &"job-s-3".into())
    );
    stage.samekey.logged(&["a lookup settled an unknown outcome", "answered"]).await;
    stage.logged_no_secret(&again);
    for seen in stage.provider.seen("s").into_iter().filter(|seen| seen.method == "GET") {
        assert_eq!(seen.key, None, "a lookup is no order");
        assert!(seen.headers.contains(&("x-api-key".to_owned(), "hunter2".to_owned())), "{seen:?}");
    }
}

#[tokio::test]
async fn a_key_that_its_client_vouches_for_is_asked_for_before_it_is_sent_again() {
    let stage = Stage::new(&BY_TAG.replace("upstream_dedupes: false, ", "")).await;
    stage.provider.honour_keys("s", false); // it takes each order for a new one
    let own = [("idempotency-key", "own-1"), ("x-api-key", "hunter2")];
    stage.script("reset_after");
    assert_eq!(stage.post(&own, ORDER).await.status, 502);
    let again = stage.post(&own, ORDER).await;
    assert_eq!((again.status.as_u16(), again.header("samekey-replay")), (201, "stored"));
    assert_eq!((stage.provider.effects("s"), stage.orders()), (1, 1));
}

#[tokio::test]
async fn an_order_that_was_lost_after_its_effect_is_found_with_nobody_asking() {
    let stage = Stage::new(BY_TAG).await;
    stage.script("reset_after");
    assert_eq!(stage.event("order-1").await.status, 502);
    stage.lookups("found", 1.0).await;
    stage.samekey.logged(&["a lookup settled an unknown outcome"]).await;
    let looked = stage.sent();
    let again = stage.event("order-1").await;
    assert_eq!((again.status.as_u16(), again.header("samekey-replay")), (201, "stored"));
    assert_eq!((stage.provider.effects("s"), stage.sent()), (1, looked));
}

#[tokio::test]
async fn an_order_that_was_lost_before_its_effect_is_made_once_it_is_surely_absent() {
    let stage = Stage::new(BY_TAG).await;
    stage.script("reset_before");
    assert_eq!(stage.event("order-1").await.status, 502);
    let early = stage.event("order-1").await;
    assert_eq!(early.said(), (409, "outcome-unknown".to_owned()), "it is too soon to tell");
    assert_eq!(stage.orders(), 1);
    stage.samekey.logged(&["a lookup settled an unknown outcome", "absent"]).await;
    assert!(stage.samekey.metric(&Stage::looked("absent")).await >= 2.0);
    let made = stage.event("order-1").await;
    assert_eq!((made.status.as_u16(), made.header("samekey-replay")), (201, ""));
    let again = stage.event("order-1").await;
    assert_eq!(again.header("samekey-replay"), "stored");
    assert_eq!((stage.provider.effects("s"), stage.orders()), (1, 2));
    stage.logged_no_secret(&made);
}

#[tokio::test]
async fn what_a_list_does_not_prove_stays_unknown() {
    let check = async |list: &str, pages: &str, result: &str| {
        let stage = Stage::new(&BY_TAG.replace("settle", &format!("{pages}settle"))).await;
        stage.script(&format!("ok; ok; reset_before; {list}"));
        for name in ["order-1", "order-2"] {
            assert_eq!(stage.event(name).await.status, 201);
        }
        assert_eq!(stage.event("order-3").await.status, 502);
        stage.lookups(result, 2.0).await;
        let again = stage.event("order-3").await;
        assert_eq!(again.said(), (409, "outcome-unknown".to_owned()), "{list}{pages}");
        assert_eq!((stage.provider.effects("s"), stage.orders()), (2, 3), "{list}{pages}");
    };
    // All at one time, since each has to wait for two readings.
    tokio::join!(
        check("401 x6", "", "failed"),
        check("503 x6", "", "failed"),
        check("truncate x6", "", "failed"),
        check("ok body=[] x6", "", "inconclusive"),
        // There is a second page, which may not be read.
        check("ok", "pages: 1, ", "inconclusive"),
    );
}

#[tokio::test]
async fn a_list_in_an_answer_that_is_a_failure_proves_nothing() {
    let fails = "retry: {attempts: 1, failed_when: [{json: /success, in: [false]}]}";
    let stage = Stage::new(&BY_TAG.replace("retry: {attempts: 1}", fails)).await;
    let down = r#"ok body={"success":false,"movies":[]}"#;
    stage.script(&format!("reset_before; {}", [down; 8].join("; ")));
    assert_eq!(stage.event("order-1").await.status, 502);
    stage.lookups("inconclusive", 2.0).await;
    assert_eq!(stage.event("order-1").await.said(), (409, "outcome-unknown".to_owned()));
    assert_eq!((stage.samekey.metric(&Stage::looked("absent")).await, stage.orders()), (0.0, 1));
}

#[tokio::test]
async fn a_lookup_costs_nothing_and_is_not_held_back_for_want_of_credit() {
    let costs = "kind: effect, breaker: {statuses: [402], reset_after: 1h}, \
                 preflight: {request: GET /s/s/balance, json: /credits, at_least: 1, every: 1s}, \
                 estimate: {path: /s/s/estimate, json: /credits, at_most: 9, on_failure: forward}";
    let stage = Stage::new(&format!("{costs}, {BY_TAG}")).await;
    // Balance, estimate, order; and again for the one that finds the credit gone.
    stage.script("ok; ok; reset_before; ok; 402");
    assert_eq!(stage.event("order-1").await.status, 502);
    assert_eq!(stage.event("order-2").await.status, 402);
    let asked =
        |seen: &str| stage.provider.seen("s").iter().filter(|it| it.path.ends_with(seen)).count();
    let (balances, estimates) = (asked("/balance"), asked("/estimate"));
    stage.samekey.logged(&["a lookup settled an unknown outcome", "absent"]).await;
    assert_eq!((asked("/balance"), asked("/estimate")), (balances, estimates));
}

#[tokio::test]
async fn an_order_with_a_tag_of_its_own_is_not_thought_absent() {
    let stage = Stage::new(BY_TAG).await;
    stage.script("503");
    let own = r#"{"client-data": {"samekey": "mine"}}"#;
    let event = async || stage.post(&[("samekey-key", "order-1")], own).await;
    assert_eq!(event().await.status, 503);
    stage.lookups("absent", 2.0).await;
    tokio::time::sleep(Duration::from_millis(300)).await; // for the key to be freed, wrongly
    assert_eq!(event().await.said(), (409, "outcome-unknown".to_owned()));
    assert_eq!(stage.bodies().first().map(String::as_str), Some(own), "it went as it came");
    assert_eq!((stage.provider.effects("s"), stage.orders()), (0, 1));
}

#[tokio::test]
async fn an_order_is_what_its_client_asked_whatever_is_put_in() {
    let stage = Stage::new(BY_TAG).await;
    stage.script("ok");
    let first = stage.event("order-1").await;
    let sent: serde_json::Value =
        serde_json::from_str(&stage.bodies().remove(0)).expect("it is JSON");
    assert_eq!(sent["client-data"]["samekey"], first.header("idempotency-key"));
    assert_eq!(stage.event("order-1").await.header("samekey-replay"), "stored");
    let other = stage.post(&[("samekey-key", "order-1"), ("x-api-key", "hunter2")], "{}").await;
    assert_eq!(other.said(), (422, "key-reused".to_owned()));
    assert_eq!(stage.orders(), 1);
}

#[tokio::test]
async fn an_order_that_carries_its_own_id_is_asked_for_by_that() {
    let stage = Stage::new(
        "retry: {attempts: 1}, idempotency: {header: {json: /external_job_id}, \
         upstream_dedupes: false}, lookup: {request: '/s/s/v2/by-name/{key}', \
         match: /external_job_id, settle: 1s, every: 1s}",
    )
    .await;
    let order = async |id: &str| {
        let body = format!("{{\"external_job_id\": \"{id}\"}}");
        stage.post(&[], &body).await
    };
    stage.script("reset_after");
    assert_eq!(order("asset-1").await.status, 502);
    let again = order("asset-1").await;
    assert_eq!((again.status.as_u16(), again.header("samekey-replay")), (200, "stored"));
    assert_eq!(again.json()["project"], "job-s-1");
    assert_eq!(stage.provider.effects("s"), 1);
    stage.script("reset_before");
    assert_eq!(order("asset-2").await.status, 502);
    stage.samekey.logged(&["a lookup settled an unknown outcome", "absent"]).await;
    assert_eq!(order("asset-2").await.status, 201);
    assert_eq!(stage.provider.effects("s"), 1);
}

#[tokio::test]
async fn a_route_that_observes_asks_nobody() {
    let stage = Stage::new(&format!("mode: observe, {BY_TAG}")).await;
    stage.script("reset_after");
    assert_eq!(stage.event("order-1").await.status, 502);
    assert_eq!(stage.event("order-1").await.status, 201);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((stage.sent(), stage.orders()), (2, 2));
    assert!(stage.bodies().iter().all(|body| body == ORDER), "as they came");
}

/// A provider, and a folder with a config whose lookup has credentials of its own.
async fn with_credentials(own: &str) -> (Provider, Arc<tempfile::TempDir>) {
    let options = Options { honours_keys: false, ..Options::default() };
    let provider = Provider::start(options).await.expect("a provider");
    let route = BY_TAG.replace("settle", "credentials: {header: x-api-key, file: api-key}, settle");
    let folder = folder_with(&format!(
        "state: {{dir: state}}\nlisteners: [{{address: '127.0.0.1:0'}}]\n\
         admin: {{address: '127.0.0.1:0'}}\nupstream: {{roots: provider-ca.pem}}\n\
         routes: [{{name: r, match: {{hosts: ['*']}}, {route}}}]\n"
    ));
    for (name, text) in [("provider-ca.pem", provider.ports.ca_pem.as_str()), ("api-key", own)] {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    (provider, Arc::new(folder))
}

/// Kills a sidecar once the provider has an order, which meets this script.
async fn kill_amid_an_order(provider: &Provider, folder: Arc<tempfile::TempDir>, script: &str) {
    let mut samekey = Samekey::run_in(folder).await;
    provider.script("s", script);
    tokio::select! {
        _answer = order(provider, &samekey) => panic!("it is held back"),
        () = provider.arrived("s", 1) => {}
    }
    // The body is there with the head, or a moment after it.
    tokio::time::sleep(Duration::from_millis(200)).await;
    samekey.signal(rustix::process::Signal::KILL);
    samekey.ended().await;
}

async fn order(provider: &Provider, samekey: &Samekey) -> Result<Answer, String> {
    let (client, url) = (Client::through(samekey), provider.ports.http_url("/s/s/v1/jobs"));
    let fields = [
        ("content-type", "application/json"),
        ("samekey-key", "order-1"),
        ("x-api-key", "hunter2"),
    ];
    client.try_send(Method::POST, &url, &fields, ORDER).await
}

#[tokio::test]
async fn what_a_kill_left_unknown_is_settled_at_the_next_start() {
    // After the effect, and before it: the key was named, which outlives the process.
    tokio::join!(settled_after_a_kill("held", 1), settled_after_a_kill("hang", 2));
}

/// Kills samekey amid an order that meets this script; it takes so many to have one effect.
async fn settled_after_a_kill(script: &str, orders: usize) {
    let (provider, folder) = with_credentials("hunter2\n").await;
    kill_amid_an_order(&provider, folder.clone(), script).await;
    let second = Samekey::run_in(folder).await;
    second.logged(&["a lookup settled an unknown outcome"]).await;
    let settled = provider.seen("s").len();
    let again = order(&provider, &second).await.expect("an answer");
    assert_eq!(again.status, 201, "{script}: {again:?}");
    let replayed = again.header("samekey-replay") == "stored";
    assert_eq!(replayed, orders == 1, "{script}");
    assert_eq!(provider.effects("s"), 1, "{script}");
    let seen = provider.seen("s");
    assert_eq!(seen.iter().filter(|seen| seen.method == "POST").count(), orders, "{script}");
    let mut lookups = seen.iter().take(settled).filter(|seen| seen.method == "GET");
    assert!(
        lookups.all(|seen| seen.headers.contains(&("x-api-key".to_owned(), "hunter2".to_owned())))
    );
    let log = second.log().join("\n");
    assert!(!log.contains("hunter2"), "{log}");
}

#[tokio::test]
async fn a_key_is_not_thought_absent_for_the_list_of_another_account() {
    let (provider, folder) = with_credentials("another\n").await;
    kill_amid_an_order(&provider, folder.clone(), "hang").await;
    let second = Samekey::run_in(folder).await;
    second.until(&Stage::looked("absent"), 1.0).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let again = order(&provider, &second).await.expect("an answer");
    assert_eq!(again.said(), (409, "outcome-unknown".to_owned()));
    // With its own account's credentials it is asked for from here on.
    second.logged(&["a lookup settled an unknown outcome", "absent"]).await;
    assert_eq!(order(&provider, &second).await.expect("an answer").status, 201);
}
