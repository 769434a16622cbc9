//! Programs that know nothing of samekey, as their users install them.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use tokio::process::Command;

use crate::provider::{Options, Provider};
use crate::support::Samekey;
use crate::support::program::{Ran, command, folder_beside, ran, samekey};

const ROUTE: &str = "
routes:
  - name: jobs
    match: {hosts: [localhost]}
    idempotency: {upstream_dedupes: true}
    retry: {backoff: {initial: 5ms, max: 20ms}}
";

/// A path of this repository, which `.ci/install` puts there.
fn installed(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    assert!(path.exists(), "{} is missing: run .ci/install", path.display());
    path.to_str().expect("text").to_owned()
}

pub(crate) fn script(name: &str) -> String {
    installed(&format!("tests/clients/{name}"))
}

pub(crate) fn python(name: &str) -> Vec<String> {
    vec![installed(".tools/venv/bin/python"), script(name)]
}

pub(crate) fn node(name: &str) -> Vec<String> {
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    vec![
        installed(&format!("tests/clients/node_modules/node-linux-{machine}/bin/node")),
        script(name),
    ]
}

fn curl() -> Vec<String> {
    let found = std::process::Command::new("curl").arg("--version").output();
    assert!(found.is_ok(), "curl is missing: run .ci/install");
    vec!["bash".to_owned(), script("curl_post.sh")]
}

/// The provider is on localhost, which `NO_PROXY` rightly leaves out: it is emptied.
const PROXY_ALL: [&str; 3] = ["env", "NO_PROXY=", "no_proxy="];

/// Through `exec`.
pub(crate) async fn in_exec(folder: &std::path::Path, program: &[String]) -> Ran {
    let program: Vec<_> = program.iter().map(String::as_str).collect();
    samekey(folder, &[&["exec", "--"][..], &PROXY_ALL, &program].concat()).await
}

/// Beside a sidecar that runs, with the variables that it wrote down.
pub(crate) async fn in_shell(running: &Samekey, program: &[String]) -> Ran {
    let shell = command(running.path(), &[]);
    let environment = shell.as_std().get_envs().filter(|(_, value)| value.is_none());
    let unset: Vec<_> = environment.map(|(name, _)| name.to_owned()).collect();
    let mut run = Command::new("sh");
    run.args(["-euc", ". state/public/env.sh; exec \"$@\"", "sh"]).args(PROXY_ALL).args(program);
    for name in unset {
        run.env_remove(name);
    }
    ran(run.current_dir(running.path()).kill_on_drop(true)).await
}

/// A program asks once through a 429 and a 503: one good answer, under one key, for one
/// effect, whether it runs in `exec` or by the variables; and once through a reset.
async fn check(program: &[String], path: &str) {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    let folder = Arc::new(folder_beside(&provider, ROUTE));
    let running = Samekey::run_in(folder.clone()).await;
    for (scenario, steps, attempts) in [
        ("exec", "429 retry_after_ms=5; 503", 3),
        ("shell", "429 retry_after_ms=5; 503", 3),
        ("reset", "reset_after", 2),
    ] {
        provider.script(scenario, steps);
        let url = provider.ports.https_url(&format!("/s/{scenario}{path}"));
        let whole: Vec<_> = program.iter().cloned().chain([url]).collect();
        let ended = match scenario {
            "exec" => in_exec(folder.path(), &whole).await,
            _ => in_shell(&running, &whole).await,
        };
        assert_eq!(ended.code, Some(0), "{whole:?}\n{}{}", ended.out, ended.err);
        let saw: Value = serde_json::from_str(&ended.out).expect("one line of JSON");
        let saw = |name: &str| saw.get(name).map(ToString::to_string).unwrap_or_default();
        let keys: Vec<_> = provider.seen(scenario).into_iter().map(|seen| seen.key).collect();
        let key = saw("key").trim_matches('"').to_owned();
        assert!(!key.is_empty(), "{program:?} {steps}: it is told the key");
        assert_eq!(keys, vec![Some(key); attempts], "{program:?} {steps}: one key on all attempts");
        let seen = ["attempts", "status", "stop", "id"].map(saw);
        let wanted = [&format!("\"{attempts}\""), "201", "\"\"", &format!("\"job-{scenario}-1\"")];
        assert_eq!(seen, wanted, "{program:?} {steps}");
        assert_eq!(provider.effects(scenario), 1, "{program:?} {steps}");
    }
}

#[tokio::test]
async fn curl_gets_one_answer_for_one_effect() {
    check(&curl(), "/v1/jobs").await;
}

#[tokio::test]
async fn requests_gets_one_answer_for_one_effect() {
    check(&python("requests_post.py"), "/v1/jobs").await;
}

#[tokio::test]
async fn httpx_gets_one_answer_for_one_effect() {
    check(&python("httpx_post.py"), "/v1/jobs").await;
}

#[tokio::test]
async fn nodes_fetch_gets_one_answer_for_one_effect() {
    check(&node("node_fetch.mjs"), "/v1/jobs").await;
}

#[tokio::test]
async fn the_openai_sdk_gets_one_answer_for_one_effect() {
    check(&python("openai_post.py"), "/v1").await;
}

#[tokio::test]
async fn the_stripe_sdk_gets_one_answer_for_one_effect() {
    check(&python("stripe_post.py"), "").await;
}
