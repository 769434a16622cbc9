//! The config file: what is refused, what overrides it, and what happens when it changes.

use std::fs;
use std::sync::Arc;

use http::Method;

use crate::provider::{Options, Provider};
use crate::reloads::one_route;
use crate::support::program::{command, folder_with, ran, samekey};
use crate::support::{Client, Samekey, client};

/// Checks a file and wants these faults, without the file's name, and exit code 2.
async fn check_faults(text: &str, wanted: &[&str]) {
    let folder = folder_with(text);
    let ran = samekey(folder.path(), &["check"]).await;
    let found: Vec<_> =
        ran.err.lines().map(|line| line.trim_start_matches("samekey.yaml:")).collect();
    assert_eq!((found.as_slice(), ran.code), (wanted, Some(2)), "in\n{text}");
    assert_eq!(ran.out, "", "what is wrong is told on standard error");
    let run = samekey(folder.path(), &["run"]).await;
    assert_eq!((run.err, run.code), (ran.err, Some(2)), "a start says the same");
}

#[tokio::test]
async fn every_fault_is_told_with_its_line_its_key_and_what_is_wanted() {
    let text = "\
listeners:
  - address: 0.0.0.0:8080
  - {address: nope, mode: revers}
admin: {adress: 127.0.0.1:1}
upstream: {proxy: http://x}
routes:
  - name: a
    match: {hosts: [x.test]}
    inbox: {}
    retry: {attempts: 0, attempt_timeot: 3s, backoff: {initial: 0}, deadline: 5}
  - name: a
";
    let wanted = [
        "2: listeners[0].auth: must be {user, password_file} or `open`: 0.0.0.0:8080 can be reached from other machines",
        "3: listeners[1].address: must be host:port, such as 127.0.0.1:8080, [::1]:8080 or localhost:0 (got `nope`)",
        "3: listeners[1].mode: must be one of forward, transparent, reverse (got `revers`)",
        "4: admin.adress: unknown key `adress`, did you mean `address`?",
        "5: upstream.proxy: must be http://HOST:PORT or https://HOST:PORT, the port included",
        "9: routes[0].inbox.identity: must be {json: POINTER}, such as /request_id, or {header: NAME}",
        "10: routes[0].retry.attempt_timeot: unknown key `attempt_timeot`, did you mean `attempt_timeout`?",
        "10: routes[0].retry.attempts: must be at least 1 or `unlimited` (got 0)",
        "10: routes[0].retry.backoff.initial: must be at least 1ms (got 0)",
        "10: routes[0].retry.deadline: must be a duration such as 250ms, 10s or 24h (got 5)",
        "11: routes[1].name: must be a name of its own, `a` is routes[0]",
        "11: routes[1].match.hosts: must name at least one host; \"*\" is every host",
    ];
    check_faults(text, &wanted).await;
}

#[tokio::test]
async fn what_is_no_config_at_all_is_one_line() {
    check_faults("a: [", &["1: not YAML that can be read: unclosed bracket '['"]).await;
    check_faults("- a", &[" must be a map of keys (got a list)"]).await;
    let folder = folder_with("");
    for (arguments, start) in [
        (["check", "--config", "none.yaml"], "none.yaml: cannot be read: "),
        (["run", "--config", "/"], "/: cannot be read: "),
    ] {
        let ran = samekey(folder.path(), &arguments).await;
        assert_eq!((ran.err.lines().count(), ran.code), (1, Some(2)), "{}", ran.err);
        assert!(ran.err.starts_with(start), "{}", ran.err);
    }
}

#[tokio::test]
async fn the_shipped_file_has_no_faults() {
    let folder = folder_with("");
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/config/samekey.yaml");
    let ran = samekey(folder.path(), &["--config", shipped, "check"]).await;
    assert_eq!((ran.err.as_str(), ran.code), ("", Some(0)));
    let own = format!("{shipped}: no faults, 1 route, and ");
    let presets = ran.out.strip_prefix(&own).expect("the presets are counted apart");
    let (routes, presets) = presets.split_once(" routes of ").expect("it says what is counted");
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/config/providers"));
    let files = files.expect("a folder").flatten().map(|entry| entry.path());
    let files = files.filter(|file| file.extension().is_some_and(|it| it == "yaml")).count();
    assert_eq!(presets, format!("{files} presets\n"));
    assert!(routes.parse::<usize>().is_ok_and(|routes| routes > files), "{routes}");
    let alone = folder_with("providers: []\nroutes: [{preset: json2video-create}]");
    let ran = samekey(alone.path(), &["check"]).await;
    assert_eq!(ran.out, "samekey.yaml: no faults, 1 route\n");
}

#[tokio::test]
async fn variables_override_the_file() {
    let folder = Arc::new(folder_with(
        "listeners: [{address: 'no.such.host.test:1'}]\nadmin: {address: 'no.such.host.test:2'}\n\
         state: {dir: /proc/nowhere, journal: memory}\nlog: {level: trace}",
    ));
    let variables = [
        ("SAMEKEY_LISTEN", "127.0.0.1:0"),
        ("SAMEKEY_ADMIN", "127.0.0.1:0"),
        ("SAMEKEY_STATE_DIR", "elsewhere"),
        ("SAMEKEY_LOG", "off"),
    ];
    let samekey = Samekey::run_with(folder.clone(), &variables).await;
    assert_eq!(client::get(samekey.admin, "/readyz").await.status, 200);
    assert!(folder.path().join("elsewhere/public/ca.pem").is_file());
    assert_eq!(samekey.log().len(), 1, "the line at start, and no other: {:#?}", samekey.log());
}

#[tokio::test]
async fn a_variable_over_a_word_of_the_file_is_told_where_it_starts() {
    let folder = Arc::new(folder_with(&one_route("a")));
    let state = ("SAMEKEY_STATE_DIR", "elsewhere");
    let samekey = Samekey::run_with(folder.clone(), &[state, ("SAMEKEY_LOG", "info")]).await;
    let lines = samekey.log();
    let warned: Vec<_> = lines.iter().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warned.len(), 1, "{lines:#?}");
    for word in ["\"state.dir\"", "\"SAMEKEY_STATE_DIR\"", "\"samekey.yaml\""] {
        assert!(warned[0].contains(word), "{word} is not in {}", warned[0]);
    }
    let dir = fs::canonicalize(folder.path()).expect("it is there").join("elsewhere");
    samekey.logged(&["samekey is up", &format!("\"state_dir\":\"{}\"", dir.display())]).await;
    let checked = ran(command(folder.path(), &["check"]).env(state.0, state.1)).await;
    assert_eq!(
        (checked.code, checked.err.as_str()),
        (Some(0), "samekey.yaml: state.dir: SAMEKEY_STATE_DIR overrides it\n")
    );
}

#[tokio::test]
async fn a_variable_says_who_may_use_it() {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    fs::write(folder.path().join("password"), "s3cret\n").expect("written");
    let variables = [
        ("SAMEKEY_LISTEN", "127.0.0.1:0"),
        ("SAMEKEY_ADMIN", "127.0.0.1:0"),
        ("SAMEKEY_AUTH", "ann:password"),
    ];
    let samekey = Samekey::run_with(folder.clone(), &variables).await;
    let client = Client::trusting(&samekey, "");
    let url = provider.ports.http_url("/s/s/v1/jobs");
    let stranger = client.post(&url, "{}").await;
    assert_eq!((stranger.status.as_u16(), provider.seen("s").len()), (407, 0));
    let ann = [("proxy-authorization", "Basic YW5uOnMzY3JldA==")];
    assert_eq!(client.send(Method::POST, &url, &ann, "{}").await.status, 201);
}

#[tokio::test]
async fn health_is_asked_of_the_sidecar_that_runs_while_its_file_is_broken() {
    let folder = Arc::new(folder_with(&one_route("a")));
    let state = ("SAMEKEY_STATE_DIR", "state");
    let samekey = Samekey::run_with(folder.clone(), &[state]).await;
    fs::write(folder.path().join("samekey.yaml"), "routes: [").expect("written");
    let asked = ran(command(folder.path(), &["health", "--ready"]).env(state.0, state.1)).await;
    assert_eq!((asked.code, asked.err.as_str()), (Some(0), ""));
    let unsaid = ran(&mut command(folder.path(), &["health"])).await;
    assert_eq!(unsaid.code, Some(2), "nobody knows where it is: {}", unsaid.err);
    drop(samekey);
    let asked = ran(command(folder.path(), &["health"]).env(state.0, state.1)).await;
    assert_eq!(asked.code, Some(1), "nobody is there: {}", asked.err);
}

#[tokio::test]
async fn health_is_asked_where_the_sidecar_listens_and_not_where_its_file_says() {
    let folder = Arc::new(folder_with(&one_route("a")));
    let samekey = Samekey::run_in(folder.clone()).await;
    let health = async || ran(&mut command(folder.path(), &["health", "--ready"])).await;
    let asked = health().await;
    assert_eq!((asked.code, asked.err.as_str()), (Some(0), ""), "the file says port 0");
    let moved = one_route("a")
        .replace("admin: {address: '127.0.0.1:0'}", "admin: {address: '127.0.0.1:1'}");
    fs::write(folder.path().join("samekey.yaml"), moved).expect("written");
    let asked = health().await;
    assert_eq!((asked.code, asked.err.as_str()), (Some(0), ""), "that takes a restart");
    drop(samekey);
    let asked = health().await;
    assert!(asked.code == Some(1) && asked.err.contains("; 127.0.0.1:1/readyz: "), "{asked:?}");
}

#[tokio::test]
async fn with_no_config_file_every_host_is_covered() {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    provider.script("s", "429 retry_after_ms=5");
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let free = [("SAMEKEY_LISTEN", "127.0.0.1:0"), ("SAMEKEY_ADMIN", "127.0.0.1:0")];
    let samekey = Samekey::run_with(folder.clone(), &free).await;
    assert!(folder.path().join("samekey-data/public/ca.pem").is_file());
    samekey.logged(&["samekey is up", "built in"]).await;
    let client = Client::trusting(&samekey, "");
    let answer = client.post(&provider.ports.http_url("/s/s/v1/jobs"), "{}").await;
    assert_eq!((answer.status.as_u16(), answer.header("samekey-attempts")), (201, "2"));
    assert!(!answer.header("idempotency-key").is_empty());
    let exchanges =
        r#"samekey_exchanges_total{method="POST",route="default",source="upstream",status="2xx"}"#;
    samekey.until(exchanges, 1.0).await;
}
