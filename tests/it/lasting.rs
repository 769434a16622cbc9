//! What outlives a process, as its user sees it; the crash tests look closer.

use http::Method;

use crate::provider::{Options, Provider};
use crate::support::program::{folder_with, ran, samekey};
use crate::support::{Client, ORDER, Samekey};

/// A provider that takes each request for a new order, and a config that trusts it.
async fn beside(state: &str, rest: &str) -> (Provider, tempfile::TempDir) {
    let options = Options { honours_keys: false, ..Options::default() };
    let provider = Provider::start(options).await.expect("a provider");
    let folder = folder_with(&format!(
        "state: {{{state}}}\nlisteners: [{{address: '127.0.0.1:0'}}]\nadmin: {{address: '127.0.0.1:0'}}\n\
         upstream: {{roots: provider-ca.pem}}\n\
         routes: [{{name: r, match: {{hosts: ['*']}}, {rest}}}]\n"
    ));
    let ca = folder.path().join("provider-ca.pem");
    std::fs::write(ca, &provider.ports.ca_pem).expect("written");
    (provider, folder)
}

#[tokio::test]
async fn a_program_that_exec_runs_twice_orders_once() {
    let (provider, folder) = beside("dir: state", "kind: effect").await;
    let url = provider.ports.http_url("/s/s/v1/jobs");
    let script = "exec curl -sS -i --noproxy '' -H 'Samekey-Key: order-1' -d '{}' \"$1\"";
    let program = ["exec", "--", "sh", "-c", script, "sh", &url];
    let first = samekey(folder.path(), &program).await;
    assert!(first.out.starts_with("HTTP/1.1 201"), "{first:?}");
    let again = samekey(folder.path(), &program).await;
    assert!(again.out.contains("samekey-replay: stored"), "{again:?}");
    assert_eq!(provider.effects("s"), 1);
    let listed = samekey(folder.path(), &["ledger", "list"]).await;
    assert!(listed.out.contains("completed") && listed.out.contains("/v1/jobs"), "{listed:?}");
}

#[tokio::test]
async fn what_was_answered_and_what_is_unknown_is_so_after_a_kill() {
    let capture =
        "idempotency: {upstream_dedupes: false, capture: {job: /id}}, retry: {attempts: 1}";
    for durability in ["process", "power"] {
        let state = format!("dir: state, durability: {durability}");
        let (provider, folder) = beside(&state, capture).await;
        let folder = std::sync::Arc::new(folder);
        let mut first = Samekey::run_in(folder.clone()).await;
        let order = async |samekey: &Samekey, key: &str| {
            let (client, url) = (Client::through(samekey), provider.ports.http_url("/s/s/v1/jobs"));
            let fields = [("content-type", "application/json"), ("samekey-key", key)];
            client.send(Method::POST, &url, &fields, ORDER).await
        };
        provider.script("s", "ok; reset_after");
        let answered = order(&first, "order-1").await;
        assert_eq!(answered.status, 201);
        assert_eq!(order(&first, "order-2").await.status, 502);
        first.signal(rustix::process::Signal::KILL);
        first.ended().await;
        let second = Samekey::run_in(folder).await;
        let again = order(&second, "order-1").await;
        assert_eq!((again.header("samekey-replay"), &again.body), ("stored", &answered.body));
        let unknown = order(&second, "order-2").await;
        assert_eq!(unknown.said(), (409, "outcome-unknown".to_owned()));
        assert_eq!(provider.effects("s"), 2, "{durability}");
        let listed = crate::support::client::get(second.admin, "/api/exchanges").await.json();
        let states: Vec<_> = listed["exchanges"].as_array().expect("a list").iter().collect();
        assert_eq!(states.len(), 2);
        assert_eq!(
            (&states[0]["state"], &states[1]["state"]),
            (&"unknown".into(), &"completed".into())
        );
        assert_eq!(states[0]["attempts"][0]["outcome"], "ambiguous");
        assert!(states[1]["captured"]["job"].is_string(), "{listed}");
    }
}

#[tokio::test]
async fn an_order_under_a_random_key_is_seen_while_it_runs_and_afterwards() {
    for journal in ["disk", "memory"] {
        let (provider, folder) =
            beside(&format!("dir: state, journal: {journal}"), "kind: effect").await;
        let running = Samekey::run_in(std::sync::Arc::new(folder)).await;
        provider.script("s", "held");
        let (client, url) = (Client::through(&running), provider.ports.http_url("/s/s/v1/jobs"));
        let listed = async |query: &str| {
            let path = format!("/api/exchanges?{query}");
            let list = crate::support::client::get(running.admin, &path).await.json();
            list["exchanges"].as_array().expect("a list").clone()
        };
        let (answer, id) = tokio::join!(client.post(&url, ORDER), async {
            provider.arrived("s", 1).await;
            let rows = listed("state=in_flight").await;
            assert_eq!(rows.len(), 1, "{journal}");
            provider.release();
            rows[0]["id"].clone()
        });
        let rows = listed("").await;
        assert_eq!((rows.len(), &rows[0]["id"]), (1, &id), "{journal}");
        assert_eq!((&rows[0]["state"], &rows[0]["status"]), (&"completed".into(), &201.into()));
        assert_eq!(rows[0]["key"], answer.header("idempotency-key"));
        assert!(listed("state=in_flight").await.is_empty());
    }
}

#[tokio::test]
async fn the_attempts_before_a_kill_are_told_of() {
    let rest = "retry: {on: [503], backoff: {initial: 1ms}}, idempotency: {upstream_dedupes: true}";
    let (provider, folder) = beside("dir: state", rest).await;
    let folder = std::sync::Arc::new(folder);
    let mut first = Samekey::run_in(folder.clone()).await;
    provider.script("s", "503; held");
    let (client, url) = (Client::through(&first), provider.ports.http_url("/s/s/v1/jobs"));
    let fields = [("samekey-key", "order-1")];
    let waits = tokio::spawn(async move {
        let _answer = client.try_send(Method::POST, &url, &fields, ORDER).await;
    });
    provider.arrived("s", 2).await;
    let attempts = async |running: &Samekey| {
        let listed = crate::support::client::get(running.admin, "/api/exchanges").await.json();
        let row = &listed["exchanges"][0];
        (row["state"].clone(), row["attempts"].clone())
    };
    let (state, attempts_then) = attempts(&first).await;
    assert_eq!((state, &attempts_then[0]["status"]), ("in_flight".into(), &503.into()));
    first.signal(rustix::process::Signal::KILL);
    first.ended().await;
    waits.abort();
    let second = Samekey::run_in(folder).await;
    assert_eq!(attempts(&second).await, ("unknown".into(), attempts_then));
}

#[tokio::test]
async fn a_get_that_was_retried_has_a_row_and_one_that_was_not_has_none() {
    let (provider, folder) = beside("dir: state", "retry: {backoff: {initial: 1ms}}").await;
    let running = Samekey::run_in(std::sync::Arc::new(folder)).await;
    let client = Client::through(&running);
    provider.script("s", "503; ok; ok");
    let url = provider.ports.http_url("/s/s/v1/jobs/1?token=hunter2&page=2");
    for _ in 0..2 {
        client.get(&url).await;
    }
    running.until("samekey_inflight_exchanges{route=\"r\"}", 0.0).await;
    let listed = crate::support::client::get(running.admin, "/api/exchanges").await;
    assert!(!listed.text().contains("hunter2"), "{}", listed.text());
    let rows = listed.json()["exchanges"].as_array().expect("a list").clone();
    assert_eq!(rows.len(), 1, "{rows:?}");
    let outcomes: Vec<_> = rows[0]["attempts"].as_array().expect("a list").iter().collect();
    assert_eq!((&outcomes[0]["outcome"], &outcomes[1]["status"]), (&"failed".into(), &404.into()));
    assert_eq!((&rows[0]["state"], &rows[0]["key"]), (&"failed".into(), &serde_json::Value::Null));
    let url = rows[0]["url"].as_str().expect("a URL");
    assert!(url.ends_with("/v1/jobs/1?token&page"), "{url}");
}

#[tokio::test]
async fn who_relies_on_storage_that_does_not_last_is_told() {
    for (state, warned) in [
        ("dir: state, journal: memory", true),
        ("dir: /dev/shm/samekey-does-not-last", true),
        ("dir: state", false),
    ] {
        let identity = "idempotency: {identity: '{header:x-order}'}";
        let (_provider, folder) = beside(state, identity).await;
        let program = &["exec", "--", "true"];
        let mut run = crate::support::program::command(folder.path(), program);
        let ended = ran(run.env("SAMEKEY_LOG", "warn")).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(ended.err.contains("business identities"), warned, "{state}: {ended:?}");
    }
    std::fs::remove_dir_all("/dev/shm/samekey-does-not-last").expect("it was used");
}
