//! Programs that know nothing of samekey, each with the API that it was written for.

use serde_json::{Value, json};

use super::{CREDENTIAL, FAST};
use crate::clients::{in_exec, node, python, script};
use crate::provider::apis::Name;
use crate::provider::{Options, Provider};
use crate::support::program::folder_beside;

/// Runs a program with its API behind a sidecar, while `steps` are played: what it said.
async fn run(
    (api, terms): (Name, Value),
    route: &str,
    steps: &str,
    program: &[&str],
) -> (Provider, Value) {
    let options = Options { apis: vec![api], ..Options::default() };
    let provider = Provider::start(options).await.expect("a provider");
    provider.sites.terms(api, &terms);
    provider.script(api.as_str(), steps);
    let route = format!("routes: [{{name: r, match: {{hosts: [localhost]}}, {route}}}]\n");
    let folder = folder_beside(&provider, &route);
    let url = format!("https://{}", provider.ports.authority(api));
    let key = format!("API_KEY={CREDENTIAL}");
    let all = ["env", &key].into_iter().chain(program.iter().copied());
    let all: Vec<String> = all.map(|word| word.replace("URL", &url)).collect();
    let ended = in_exec(folder.path(), &all).await;
    assert_eq!(ended.code, Some(0), "{all:?}\n{}{}", ended.out, ended.err);
    let said = serde_json::from_str(&ended.out).expect("one line of JSON");
    (provider, said)
}

/// Effects and the credits spent on them.
fn spent(provider: &Provider, api: Name) -> (usize, u64) {
    let books = provider.sites.books(api.as_str());
    (books.effects, books.spent)
}

fn statuses(provider: &Provider, api: Name, method: &str) -> usize {
    provider.seen(api.as_str()).iter().filter(|seen| seen.method == method).count()
}

#[tokio::test]
async fn the_articles_python_script_gets_its_images_and_pays_once_for_each() {
    let program = python("images_batch.py");
    let program: Vec<_> = program.iter().map(String::as_str).collect();
    let program = [&program[..], &["URL", "a.jpg", "b.jpg", "c.jpg"]].concat();
    let route = format!("retry: {{{FAST}, attempts: 6}}, limits: {{concurrency: 5}}");
    // The balance; a.jpg at once; b.jpg after two refusals; c.jpg after a connection that was cut.
    let steps = "503; ok; ok; 429 retry_after_ms=5; 429; ok; 429; ok; reset_before; ok";
    let (provider, said) = run((Name::Images, json!({})), &route, steps, &program).await;
    assert_eq!(said["spent"], 3, "{said}");
    let done = said["done"].as_array().expect("a list");
    assert!(done.iter().all(|image| image["png"] == true && image["type"] == "image/png"));
    let digests: std::collections::BTreeSet<_> =
        done.iter().map(|image| image["digest"].to_string()).collect();
    assert_eq!((digests.len(), spent(&provider, Name::Images)), (3, (3, 3)));
    assert_eq!(statuses(&provider, Name::Images, "POST"), 6);
}

#[tokio::test]
async fn nodes_fetch_submits_a_generation_once_and_polls_it_to_its_end() {
    let program = node("node_submit_poll.mjs");
    let program = [program[0].as_str(), &program[1], "generation", "URL"];
    let route = format!("idempotency: {{upstream_dedupes: true}}, retry: {{{FAST}}}");
    let steps = "429 retry_after_ms=5; 503 effect; reset_after; ok; 503; reset_before; ok";
    let (provider, said) = run((Name::Generation, json!({})), &route, steps, &program).await;
    let wanted = json!(["IN_QUEUE", "IN_PROGRESS", "IN_PROGRESS", "COMPLETED"]);
    assert_eq!((&said["states"], &said["output"]), (&wanted, &json!(1)), "{said}");
    assert_eq!(spent(&provider, Name::Generation), (1, 1));
    assert_eq!(statuses(&provider, Name::Generation, "POST"), 4);
}

#[tokio::test]
async fn nodes_fetch_submits_a_movie_once_and_polls_it_past_an_interim_error() {
    let program = node("node_submit_poll.mjs");
    let program = [program[0].as_str(), &program[1], "movies", "URL"];
    let route = format!("idempotency: {{upstream_dedupes: false}}, retry: {{{FAST}}}");
    let steps = "429; 429 retry_after_ms=5; ok; 502; reset_before; ok";
    let (provider, said) =
        run((Name::Movies, json!({"stumbles": true})), &route, steps, &program).await;
    assert_eq!(said["states"], json!(["pending", "running", "error", "done"]), "{said}");
    assert_eq!(spent(&provider, Name::Movies), (1, 1));
    assert_eq!(statuses(&provider, Name::Movies, "POST"), 3);
}

#[tokio::test]
async fn curl_makes_a_job_once_polls_it_and_has_its_output() {
    let path = script("curl_jobs.sh");
    let route = format!("idempotency: {{upstream_dedupes: false}}, retry: {{{FAST}}}");
    let steps = "429; ok; 429; ok; 503; reset_before; ok; ok; ok; ok; 500; ok";
    let (provider, said) =
        run((Name::Background, json!({})), &route, steps, &["bash", &path, "URL"]).await;
    assert_eq!((&said["polls"], &said["bytes"]), (&json!(4), &json!(64 * 1024)), "{said}");
    assert_eq!(spent(&provider, Name::Background), (1, 1));
}

#[tokio::test]
async fn the_stripe_sdk_pays_once_whatever_breaks() {
    let program = python("stripe_post.py");
    let program = [program[0].as_str(), &program[1], "URL"];
    let route = format!("idempotency: {{upstream_dedupes: true}}, retry: {{{FAST}}}");
    let steps = "429; reset_after; reset_before; ok";
    let (provider, said) = run((Name::Charges, json!({})), &route, steps, &program).await;
    assert_eq!((&said["status"], &said["attempts"]), (&json!(200), &json!("4")), "{said}");
    assert!(said["id"].as_str().is_some_and(|id| id.starts_with("pi_")), "{said}");
    let keys: std::collections::BTreeSet<_> =
        provider.seen("charges").into_iter().map(|seen| seen.key).collect();
    assert_eq!((keys.len(), spent(&provider, Name::Charges)), (1, (1, 1)));
}

#[tokio::test]
async fn the_openai_sdk_completes_once_whatever_holds_it_back() {
    let program = python("openai_post.py");
    let program = [program[0].as_str(), &program[1], "URL/v1"];
    let quota = "never_when: [{json: /error/code, in: [insufficient_quota]}]";
    let route = format!("retry: {{{FAST}, {quota}}}");
    let steps = "429 retry_after_ms=5; 429 +x-should-retry:true; ok";
    let (provider, said) = run((Name::Completions, json!({})), &route, steps, &program).await;
    assert_eq!((&said["status"], &said["attempts"]), (&json!(200), &json!("3")), "{said}");
    assert_eq!(spent(&provider, Name::Completions), (1, 1));
}
