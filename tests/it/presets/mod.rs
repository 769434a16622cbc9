//! Presets of providers: each is whole, cites its source, and gives way to the operator.

mod own;

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Method;
use samekey::config::{Config, Environment, Faults, parse};
use samekey::exchange::Shape;
use samekey::exchange::shape::{CODES, Saying};
use samekey::idempotency::lookup::Next;
use samekey::idempotency::{Carrier, Format};
use samekey::retry::Attempts;
use samekey::route::Route;
use serde_json::json;

use crate::provider::{Options, Provider};
use crate::support::{Client, Samekey};

fn read(text: &str) -> Result<Config, Faults> {
    parse(text, Path::new("a.yaml"), &Environment::default())
}

fn loaded(text: &str) -> Config {
    read(text).unwrap_or_else(|faults| panic!("refused:\n{faults}\n{text}"))
}

/// A file has exactly these faults.
fn check(text: &str, wanted: &[&str]) {
    let faults = read(text).expect_err("faults");
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(faults, wanted, "in\n{text}");
}

/// The names of all presets.
fn names() -> Vec<String> {
    files().into_iter().map(|(name, _)| name).collect()
}

/// Every file of the folder, by its name.
fn files() -> Vec<(String, String)> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/config/providers"));
    let files = fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
    let presets = files.filter(|file| file.extension().is_some_and(|it| it == "yaml"));
    let mut texts: Vec<_> = presets
        .map(|file| {
            let name = file.file_stem().and_then(|name| name.to_str()).expect("a name");
            (name.to_owned(), fs::read_to_string(&file).expect("text"))
        })
        .collect();
    texts.sort();
    texts
}

fn route<'c>(config: &'c Config, name: &str) -> &'c Route {
    let found = config.routes.iter().find(|route| route.name == name);
    found.unwrap_or_else(|| panic!("no route {name}"))
}

/// The name of the route that a request gets.
fn routed<'c>(config: &'c Config, method: &Method, host: &str, path: &str) -> &'c str {
    let matches = |route: &&Route| route.matcher.matches(host, 443, method, path);
    config.routes.iter().find(matches).map_or("none", |route| &route.name)
}

#[test]
fn every_file_is_built_in_and_valid() {
    let config = loaded("");
    let routes: BTreeSet<_> = config.routes.iter().map(|route| &route.name).collect();
    assert_eq!(routes.len(), config.routes.len(), "names are unique");
    let presets: BTreeSet<_> =
        config.routes.iter().filter_map(|route| route.provenance.built_in()).collect();
    assert_eq!(presets.into_iter().collect::<Vec<_>>(), names());
    for name in names() {
        assert!(routes.contains(&name), "{name} covers all else on its hosts");
    }
}

#[test]
fn a_preset_is_whole_whatever_the_defaults_are() {
    for defaults in [
        "{retry: {backoff: {initial: 1h, max: 1d}, attempts: unlimited, deadline: 1s}}",
        "{retry: {backoff: {initial: 9s}}}",
        "{retry: {backoff: {max: 300ms}}}",
        "{retry: {backoff: {initial: 1ms, max: 1ms}}, idempotency: {ttl: 1s}}",
        "{idempotency: {adopt_orphans: 1d}, limits: {concurrency: 1, rate: 1/1s, max_queue: 3}}",
        "{kind: poll, mode: observe, idempotency: {header: {json: /x}, mismatch: forward}}",
    ] {
        let config = loaded(&format!("defaults: {defaults}"));
        assert!(config.routes.len() > names().len(), "{defaults}");
    }
}

#[test]
fn every_promise_of_a_provider_cites_its_source() {
    for (name, text) in files() {
        let lines: Vec<&str> = text.lines().collect();
        let cites = |line: &&str| line.trim_start().starts_with('#') && line.contains("https://");
        let promises = lines.iter().enumerate().filter(|(_, line)| {
            let line = line.trim_start();
            let promises =
                ["upstream_dedupes: ", "hosts: ", "in_progress_when: ", "template: ", "request: "];
            promises.iter().any(|promise| line.starts_with(promise))
        });
        for (n, line) in promises {
            let around = lines.iter().skip(n.saturating_sub(6)).take(8);
            assert!(around.filter(|line| cites(line)).count() > 0, "{name}:{}: {line}", n + 1);
        }
        let written = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        for key in ["breaker:", "preflight:", "estimate:", "schema:", "inbox:"] {
            let on = written.clone().any(|line| line.contains(key));
            assert!(!on, "{name}: {key} is not on by default");
        }
    }
}

#[test]
fn nothing_that_is_the_operators_to_choose_is_on() {
    for route in loaded("").routes {
        assert!(route.credit.is_empty(), "{}: breaker, preflight or estimate", route.name);
        assert!(route.schema.is_none() && route.inbox.is_none(), "{}", route.name);
        assert!(!route.rules.require, "{}", route.name);
    }
}

#[test]
fn what_costs_is_adopted_by_a_program_that_never_got_its_answer() {
    let config = loaded("");
    for name in [
        "adyen-post",
        "checkoutcom-payment",
        "clipia-generate",
        "fal-submit",
        "higgsfield-generate",
        "json2video-create",
        "mangopay-post",
        "openai-media",
        "paypal-payment",
        "removebg-remove",
        "removebgvideo-create",
        "square-create",
        "stripe-v1",
        "stripe-v2",
        "syncso-generate",
        "twilio-create",
    ] {
        assert_eq!(route(&config, name).rules.adopt_orphans, Duration::from_mins(10), "{name}");
    }
}

#[test]
fn a_provider_is_asked_what_became_of_a_key_where_it_documents_a_list() {
    let config = loaded("");
    let asked = config.routes.iter().filter_map(|route| {
        route.lookup.as_ref().map(|recipe| (route.name.as_str(), recipe.next.clone()))
    });
    let asked: Vec<_> = asked.collect();
    let [("json2video-create", Next::Cursor(token)), ("removebgvideo-create", Next::Offset)] =
        asked.as_slice()
    else {
        panic!("{asked:?}")
    };
    assert_eq!(token.to_string(), "/next_token");
    for (name, text) in files().into_iter().filter(|(_, text)| text.contains("lookup:")) {
        let (_, rest) = text.split_once("lookup:").expect("it is there");
        let (before, _) = rest.split_once("request:").expect("a request");
        assert!(before.contains("https://"), "{name}: the page of its list");
    }
}

#[test]
fn every_failure_can_be_said_in_a_providers_own_shape() {
    let config = loaded("");
    let mut shaped = 0;
    for route in &config.routes {
        let Shape::Provider(template) = &route.errors else { continue };
        shaped += 1;
        for code in CODES {
            for status in [400, 402, 409, 502] {
                let saying = Saying { code, status, title: "A title", detail: "what happened" };
                let text = template.render(&saying).to_string();
                assert!(text.contains("what happened"), "{}: {code}: {text}", route.name);
            }
        }
    }
    assert!(shaped > 15, "{shaped}");
}

#[test]
fn a_provider_is_answered_for_in_its_own_words() {
    let config = loaded("");
    let said = |name, code| {
        let Shape::Provider(template) = &route(&config, name).errors else { panic!("{name}") };
        let saying = Saying { code, status: 409, title: "A title", detail: "what happened" };
        template.render(&saying)
    };
    for (name, code, wanted) in [
        (
            "clipia-status",
            "in_progress",
            json!({"error": {"type": "invalid_request_error", "code": "request_in_progress", "message": "what happened"}}),
        ),
        ("json2video", "key_reused", json!({"success": false, "message": "what happened"})),
        (
            "removebgvideo-start",
            "key_missing",
            json!({"error": {"code": "invalid_request", "message": "what happened"}}),
        ),
        (
            "removebg-remove",
            "outcome_unknown",
            json!({"errors": [{"title": "A title", "code": "outcome_unknown", "detail": "what happened"}]}),
        ),
        (
            "stripe-v1",
            "key_reused",
            json!({"error": {"type": "idempotency_error", "code": "key_reused", "message": "what happened"}}),
        ),
        (
            "stripe-v2",
            "in_progress",
            json!({"error": {"type": "idempotency_error", "code": "idempotency_key_in_use", "message": "what happened"}}),
        ),
        (
            "openai-media",
            "key_reused",
            json!({"error": {"message": "what happened", "type": "invalid_request_error", "param": null, "code": "key_reused"}}),
        ),
        (
            "anthropic",
            "overloaded",
            json!({"type": "error", "error": {"type": "overloaded_error", "message": "what happened"}}),
        ),
    ] {
        assert_eq!(said(name, code), wanted, "{name} {code}");
    }
}

#[test]
fn every_preset_is_explained_to_operators() {
    let readme = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/config/providers/README.md"));
    for (name, _) in files() {
        assert!(readme.contains(&format!("({name}.yaml)")), "README.md has no link to {name}.yaml");
        assert!(readme.contains(&format!("\n## {name}")), "README.md has no section {name}");
    }
    for name in names() {
        let page = text_of(&name, "docs");
        assert!(readme.contains(&page), "README.md does not cite {page}");
    }
}

#[test]
fn what_the_page_says_to_write_can_be_written() {
    let readme = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/config/providers/README.md"));
    let blocks = readme.split("```yaml").skip(1).filter_map(|rest| rest.split("```").next());
    let configs: Vec<Config> = blocks.map(loaded).collect();
    assert_eq!(configs.len(), names().len() + 1);

    // Those that name a secret's file are tried with one that is there.
    let secret = tempfile::NamedTempFile::new().expect("a file");
    fs::write(secret.path(), "whsec").expect("written");
    let inboxes = readme.split("\n\n").filter(|part| part.starts_with("    listeners:"));
    let mut tried = 0;
    for text in inboxes {
        let file = secret.path().display().to_string();
        let config = loaded(&text.replace("/run/secrets/clipia", &file));
        tried += config.routes.iter().filter(|route| route.inbox.is_some()).count();
    }
    assert_eq!(tried, 2);
}

fn text_of(name: &str, key: &str) -> String {
    let (_, text) = files().into_iter().find(|(own, _)| own == name).expect("a file");
    let prefix = format!("{key}: ");
    let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
    line.expect("a key of its own line").to_owned()
}

#[test]
fn the_four_documents_are_there_behaviour_by_behaviour() {
    let config = loaded("");
    let create = route(&config, "removebgvideo-create");
    assert!(
        matches!(&create.rules.carrier, Carrier::Json(id) if id.to_string() == "/external_job_id")
    );
    assert!(matches!(create.retry.attempts, Attempts::AtMost(most) if most.get() == 4));
    assert_eq!((create.rules.upstream_dedupes, create.retry.never_when.len()), (Some(false), 1));

    let create = route(&config, "json2video-create");
    assert_eq!((create.rules.upstream_dedupes, create.retry.failed_when.len()), (Some(false), 1));
    assert_eq!(create.rules.adopt_orphans, Duration::from_mins(10));

    let remove = route(&config, "removebg-remove");
    assert_eq!(remove.retry.backoff.initial, Duration::from_secs(1));
    assert_eq!(remove.limits.concurrency.map(NonZeroU32::get), Some(5));
    assert_eq!(remove.limits.rate.map(|rate| rate.count.get()), Some(2));

    let generate = route(&config, "clipia-generate");
    assert_eq!(
        (generate.rules.upstream_dedupes, generate.rules.format),
        (Some(true), Format::Uuid)
    );
    assert_eq!(generate.rules.upstream_ttl, Duration::from_hours(24));
    let status = route(&config, "clipia-status");
    assert_eq!(status.limits, generate.limits);
    assert_eq!(status.limits.group.as_deref(), Some("clipia"));
}

#[test]
fn requests_reach_the_route_that_is_meant() {
    let config = loaded("");
    let (get, post) = (Method::GET, Method::POST);
    for (method, host, path, wanted) in [
        (&post, "api.clipia.ai", "/v1/models/x", "clipia-generate"),
        (&post, "api.clipia.ai", "/v1/models/x/estimate", "clipia-estimate"),
        (&get, "api.clipia.ai", "/v1/requests/7/status", "clipia-status"),
        (&get, "api.clipia.ai", "/v1/requests/7", "clipia-result"),
        (&get, "media.clipia.ai", "/a/b.mp4", "clipia-media"),
        (&post, "api.clipia.ai", "/v1/chat/completions", "clipia"),
        (&post, "api.json2video.com", "/v2/movies", "json2video-create"),
        (&get, "api.json2video.com", "/v2/movies", "json2video-status"),
        (&post, "api.removebgvideo.com", "/v1/jobs/7/start", "removebgvideo-start"),
        (&get, "api.removebgvideo.com", "/v1/jobs", "removebgvideo"),
        (&post, "api.stripe.com", "/v1/charges", "stripe-v1"),
        (&post, "x.api.checkout.com", "/payments", "checkoutcom-payment"),
        (&post, "x.api.sandbox.checkout.com", "/payments", "checkoutcom-sandbox"),
        (&post, "x-checkout-live.adyenpayments.com", "/checkout/v71/payments", "adyen-post"),
        (&post, "queue.fal.run", "/fal-ai/flux/dev", "fal-submit"),
        (&get, "queue.fal.run", "/fal-ai/flux/requests/7/status", "fal-status"),
        (&post, "other.test", "/v1/charges", "none"),
    ] {
        assert_eq!(routed(&config, method, host, path), wanted, "{method} {host}{path}");
    }
}
