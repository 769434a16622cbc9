//! What happens when the config file changes, and what lasts over that.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use http::Method;
use rustix::process::Signal;

use crate::provider::{Options, Provider};
use crate::support::{Client, Samekey, client};

/// A config with one route of this name, for `provider`.
pub(crate) fn one_route(name: &str) -> String {
    format!(
        "listeners: [{{address: '127.0.0.1:0'}}]\nadmin: {{address: '127.0.0.1:0'}}\n\
         state: {{dir: state, journal: memory}}\n\
         routes:\n  - {{name: {name}, match: {{hosts: ['*']}}}}\n"
    )
}

/// Starts with one route of this name.
async fn on_route(name: &str, write: fn(&Path, &str)) -> Samekey {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    write(folder.path(), &one_route(name));
    Samekey::run_in(folder).await
}

/// Starts on route `before`, changes the file in some way, and wants route `after` in force.
async fn check_reload(write: fn(&Path, &str), change: fn(&Samekey, &str)) {
    let samekey = on_route("before", write).await;
    change(&samekey, &one_route("after"));
    samekey.until(r#"samekey_config_reloads_total{result="ok"}"#, 1.0).await;
    assert_eq!(first_route(&samekey).await, "after");
    samekey.logged(&["the config was loaded anew", "samekey.yaml"]).await;
}

/// The name of the first route in force.
async fn first_route(samekey: &Samekey) -> String {
    let routes = client::get(samekey.admin, "/api/routes").await.json();
    let name = routes.pointer("/routes/0/name").and_then(serde_json::Value::as_str);
    name.expect("there is a route").to_owned()
}

/// The file itself.
fn as_file(folder: &Path, text: &str) {
    fs::write(folder.join("samekey.yaml"), text).expect("written");
}

/// As Kubernetes mounts a `ConfigMap`: the file is a link through `..data`.
fn as_config_map(folder: &Path, text: &str) {
    let version = folder.join("..v1");
    fs::create_dir(&version).expect("made");
    fs::write(version.join("samekey.yaml"), text).expect("written");
    symlink("..v1", folder.join("..data")).expect("linked");
    symlink("..data/samekey.yaml", folder.join("samekey.yaml")).expect("linked");
}

#[tokio::test]
async fn a_changed_file_is_loaded() {
    check_reload(as_file, |samekey, text| as_file(samekey.path(), text)).await;
    check_reload(as_file, |samekey, text| {
        let other = samekey.path().join("other.yaml");
        fs::write(&other, text).expect("written");
        fs::rename(other, samekey.config()).expect("renamed");
    })
    .await;
    check_reload(as_config_map, |samekey, text| {
        let folder = samekey.path();
        let version = folder.join("..v2");
        fs::create_dir(&version).expect("made");
        fs::write(version.join("samekey.yaml"), text).expect("written");
        symlink("..v2", folder.join("..data_tmp")).expect("linked");
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("renamed");
    })
    .await;
}

#[tokio::test]
async fn a_hangup_signal_loads_the_file_that_is_there() {
    let samekey = on_route("a", as_file).await;
    samekey.signal(Signal::HUP);
    samekey.until(r#"samekey_config_reloads_total{result="ok"}"#, 1.0).await;
    samekey.logged(&["the config was loaded anew"]).await;
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_told() {
    let samekey = on_route("before", as_file).await;
    as_file(samekey.path(), "routes: [{name: after, match: {hosts: ['*']}, retry: {atempts: 3}}]");
    samekey.until(r#"samekey_config_reloads_total{result="failed"}"#, 1.0).await;
    samekey.logged(&["ERROR", "samekey.yaml:1: routes[0].retry.atempts"]).await;
    let told = post(&samekey, "/api/reload").await;
    assert_eq!(told.status, 422, "{}", told.text());
    assert!(told.text().contains("routes[0].retry.atempts"), "{}", told.text());
    assert_eq!(first_route(&samekey).await, "before");
    as_file(samekey.path(), &one_route("after"));
    samekey.until(r#"samekey_config_reloads_total{result="ok"}"#, 1.0).await;
}

async fn post(samekey: &Samekey, path: &str) -> crate::support::Answer {
    let url = format!("http://{}{path}", samekey.admin);
    let uri: http::Uri = url.parse().expect("a URL");
    let stream = tokio::net::TcpStream::connect(samekey.admin).await.expect("it listens");
    let request = client::request(Method::POST, &uri, &[], "");
    client::over_http1(stream, request).await.expect("an answer")
}

/// A writer that truncates before it writes, or one that met a full disk.
#[tokio::test]
async fn a_file_that_says_nothing_any_more_leaves_the_routes_in_force() {
    let samekey = on_route("before", as_file).await;
    for blank in ["", "# nothing yet\n"] {
        as_file(samekey.path(), blank);
        let told = post(&samekey, "/api/reload").await;
        assert_eq!(told.status, 422, "{}", told.text());
        assert!(told.text().contains("samekey.yaml: must not be empty"), "{}", told.text());
        assert_eq!(first_route(&samekey).await, "before");
    }
    as_file(samekey.path(), "{}");
    samekey.until(r#"samekey_config_reloads_total{result="ok"}"#, 1.0).await;
}

#[tokio::test]
async fn a_file_that_was_away_is_read_once_it_is_back() {
    let samekey = on_route("a", as_file).await;
    let away = samekey.path().join("away.yaml");
    fs::rename(samekey.config(), &away).expect("it is moved");
    assert_eq!(post(&samekey, "/api/reload").await.status, 422);
    samekey.until("samekey_config_last_reload_successful", 0.0).await;
    fs::rename(&away, samekey.config()).expect("it is moved back");
    samekey.until("samekey_config_last_reload_successful", 1.0).await;
}

#[tokio::test]
async fn what_takes_a_restart_is_named_as_long_as_it_does() {
    let samekey = on_route("a", as_file).await;
    let changed = one_route("a").replace("{dir: state,", "{dir: other,");
    as_file(samekey.path(), &changed);
    samekey.logged(&["this change takes a restart", r#""key":"state""#]).await;
    let times = || samekey.log().iter().filter(|line| line.contains("takes a restart")).count();
    let before = times();
    assert_eq!(post(&samekey, "/api/reload").await.status, 200);
    assert!(times() > before, "it is not in force yet");
    let before = times();
    as_file(samekey.path(), &one_route("b"));
    assert_eq!(post(&samekey, "/api/reload").await.status, 200);
    assert_eq!((times(), first_route(&samekey).await), (before, "b".to_owned()), "as it runs");
}

async fn reloaded(samekey: &Samekey) {
    let text = fs::read_to_string(samekey.config()).expect("it is there");
    as_file(samekey.path(), &format!("{text}\nshutdown: {{grace: 1s}}\n"));
    samekey.until(r#"samekey_config_reloads_total{result="ok"}"#, 1.0).await;
}

#[tokio::test]
async fn a_spent_budget_stays_spent_over_a_reload() {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    provider.script("s", "503 forever");
    let samekey = Samekey::beside(
        &provider,
        "routes:\n  - {name: r, match: {hosts: [localhost]}, retry: {backoff: {initial: 1ms}, \
         budget: {ratio: 0, min_per_second: 0, burst: 1}}}",
    )
    .await;
    let (client, url) = (Client::through(&samekey), provider.ports.https_url("/s/s/status/200"));
    let stopped = async |wanted: (&str, &str)| {
        let answer = client.get(&url).await;
        assert_eq!((answer.header("samekey-attempts"), answer.header("samekey-stop")), wanted);
    };
    stopped(("2", "budget")).await;
    reloaded(&samekey).await;
    stopped(("1", "budget")).await;
}

#[tokio::test]
async fn a_claim_is_joined_and_replayed_over_a_reload() {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    provider.script("s", "held");
    let samekey =
        Samekey::beside(&provider, "routes:\n  - {name: r, match: {hosts: [localhost]}}").await;
    let (client, url) = (Client::through(&samekey), provider.ports.https_url("/s/s/v1/jobs"));
    let order = || client.send(Method::POST, &url, &[("idempotency-key", "order-1")], "{}");
    let (first, joined) = tokio::join!(order(), async {
        provider.arrived("s", 1).await;
        reloaded(&samekey).await;
        let (second, ()) = tokio::join!(order(), async {
            samekey.until(r#"samekey_inflight_exchanges{route="r"}"#, 2.0).await;
            provider.release();
        });
        second
    });
    let third = order().await;
    assert_eq!(joined.header("samekey-replay"), "joined", "{joined:#?}");
    assert_eq!(third.header("samekey-replay"), "stored", "{third:#?}");
    assert_eq!((first.status.as_u16(), provider.seen("s").len()), (201, 1));
    assert!(first.body == joined.body && first.body == third.body);
}

#[tokio::test]
async fn a_pause_lasts_over_a_reload() {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    provider.script("s", "429 retry_after=1");
    let samekey = Samekey::beside(
        &provider,
        "routes:\n  - {name: r, match: {hosts: [localhost]}, retry: {attempts: 1}}",
    )
    .await;
    let (client, url) = (Client::through(&samekey), provider.ports.https_url("/s/s/status/200"));
    assert_eq!(client.get(&url).await.status, 429);
    reloaded(&samekey).await;
    assert_eq!(client.get(&url).await.status, 200);
    let waited = samekey.metric(r#"samekey_limit_wait_seconds_sum{route="r"}"#).await;
    assert!(waited > 0.2, "the second waited for the pause of the first, not {waited} s");
}

#[tokio::test]
async fn retry_spending_can_be_switched_off() {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    provider.script("s", "503; reset_before");
    let samekey = Samekey::beside(
        &provider,
        "defaults: {retry: {backoff: {initial: 1ms}, budget: {ratio: 0, min_per_second: 0, burst: 0}}}\n\
         routes:\n  - {name: r, match: {hosts: [localhost]}}",
    )
    .await;
    let answer = Client::through(&samekey).get(&provider.ports.https_url("/s/s/status/200")).await;
    let seen =
        (answer.status.as_u16(), answer.header("samekey-attempts"), answer.header("samekey-stop"));
    assert_eq!(seen, (503, "1", "budget"));
}
