//! The gauge of unknown outcomes is what the ledger says: after a crash, and once they are settled.

use std::sync::Arc;

use crate::provider::{Options, Provider};
use crate::support::program::{folder_with, samekey as command};
use crate::support::{Client, Samekey};

fn gauge(route: &str, key: &str) -> String {
    format!("samekey_unknown_outcomes{{key=\"{key}\",route=\"{route}\"}}")
}

fn config(route: &str, state: &str) -> String {
    format!(
        "listeners: [{{address: '127.0.0.1:0'}}]\nadmin: {{address: '127.0.0.1:0'}}\n\
         state: {{{state}}}\nproviders: []\nroutes: [{{name: {route}, match: {{hosts: ['*']}}}}]\n"
    )
}

async fn order(running: &Samekey, provider: &Provider, fields: &[(&str, &str)]) -> u16 {
    let url = provider.ports.http_url("/s/s/v1/jobs");
    let client = Client::through(running);
    client.send(http::Method::POST, &url, fields, "{}").await.status.as_u16()
}

#[tokio::test]
async fn the_gauge_outlives_a_kill_and_falls_when_an_outcome_is_settled() {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    provider.script("s", "reset_after; reset_after; held");
    let folder = Arc::new(folder_with(&config("r", "dir: state")));
    let mut running = Samekey::run_in(folder.clone()).await;
    running.until(&gauge("r", "closed"), 0.0).await;
    assert!(running.metrics().await.contains(&gauge("r", "closed")), "it stands at zero");
    assert_eq!(order(&running, &provider, &[("samekey-key", "one")]).await, 502);
    assert_eq!(order(&running, &provider, &[]).await, 502);
    running.until(&gauge("r", "closed"), 1.0).await;
    running.until(&gauge("r", "loose"), 1.0).await;

    let url = provider.ports.http_url("/s/s/v1/jobs");
    let client = Client::through(&running);
    let in_flight = tokio::spawn(async move {
        client.try_send(http::Method::POST, &url, &[("samekey-key", "two")], "{}").await
    });
    provider.arrived("s", 3).await;
    running.signal(rustix::process::Signal::KILL);
    running.ended().await;
    assert!(in_flight.await.expect("it ends").is_err(), "its sidecar was killed");

    // The route goes by another name by now; what it left does not.
    std::fs::write(folder.path().join("samekey.yaml"), config("new", "dir: state"))
        .expect("written");
    let running = Samekey::run_in(folder.clone()).await;
    assert!(running.metrics().await.contains(&format!("{} 2\n", gauge("r", "closed"))));
    for (left, verdict) in [(1.0, "landed"), (0.0, "absent")] {
        let listed = command(
            folder.path(),
            &["ledger", "list", "--state", "unknown", "--route", "r", "--json"],
        )
        .await;
        let listed: serde_json::Value = serde_json::from_str(&listed.out).expect("JSON");
        let rows = listed["exchanges"].as_array().expect("rows");
        let nobodys = provider.seen("s")[1].key.clone().expect("a random key");
        let keyed = rows.iter().find(|row| row["key"] != nobodys.as_str());
        let id = keyed.and_then(|row| row["id"].as_str()).expect("an id");
        let resolved = command(folder.path(), &["ledger", "resolve", id, verdict]).await;
        assert_eq!(resolved.code, Some(0), "{}", resolved.err);
        running.until(&gauge("r", "closed"), left).await;
    }
    running.until(&gauge("r", "loose"), 1.0).await;
}

#[tokio::test]
async fn a_store_in_memory_counts_its_own() {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    provider.script("s", "reset_after");
    let folder = Arc::new(folder_with(&config("r", "dir: state, journal: memory")));
    let running = Samekey::run_in(folder.clone()).await;
    assert_eq!(order(&running, &provider, &[("samekey-key", "one")]).await, 502);
    running.until(&gauge("r", "closed"), 1.0).await;
    let listed = crate::support::client::get(running.admin, "/api/exchanges").await.json();
    let id = listed["exchanges"][0]["id"].as_str().expect("an id");
    let resolved = command(folder.path(), &["ledger", "resolve", id, "landed"]).await;
    assert_eq!(resolved.code, Some(0), "{}", resolved.err);
    running.until(&gauge("r", "closed"), 0.0).await;
}
