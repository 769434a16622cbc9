//! `samekey explain`: what would happen, why, and which line decided.

use super::*;

/// Explains a request by this config, and wants these words in the answer.
async fn check_explained(config: &str, arguments: &[&str], wanted: &[&str]) {
    let folder = folder_with(config);
    let ran = samekey(folder.path(), &[&["explain"], arguments].concat()).await;
    assert_eq!((ran.err.as_str(), ran.code), ("", Some(0)), "{arguments:?}");
    for words in wanted {
        assert!(ran.out.contains(words), "{arguments:?} says no `{words}`:\n{}", ran.out);
    }
}

#[tokio::test]
async fn explain_tells_what_would_happen_after_each_outcome_and_why() {
    let dedupes = |word| {
        let rules = format!("idempotency: {{upstream_dedupes: {word}}}");
        format!("routes:\n  - {{name: r, match: {{hosts: [a.test]}}, {rules}}}")
    };
    let (post, get) = (["POST", "https://a.test/v1"], ["GET", "https://a.test/v1"]);
    for word in ["null", "false"] {
        let wanted = [
            "route: r (samekey.yaml:2)",
            "kind: effect  [built in]",
            "key: a random one, in header idempotency-key",
            "upstream de-duplicates: no",
            "  [samekey.yaml:2]\n  attempts: 4, within 300s  [built in]",
            "after 429      throttled: retried after up to 200ms, for one token of the budget: the status proves",
            "after 500      failed: passed on, Samekey-Stop: unsafe: ",
            "after 503      failed: passed on, Samekey-Stop: unsafe: ",
            "after connect  not_sent: retried after up to 200ms, for nothing of the budget: nothing was sent",
            "after reset    ambiguous: passed on, Samekey-Stop: unsafe: ",
            "after timeout  ambiguous: passed on, Samekey-Stop: unsafe: ",
        ];
        check_explained(&dedupes(word), &post, &wanted).await;
    }
    let safe = [
        "after 503      failed: retried after up to 200ms, for one token of the budget: repeating it is safe",
        "after reset    ambiguous: retried after up to 200ms, for two tokens of the budget",
        "after timeout  ambiguous: retried",
    ];
    check_explained(&dedupes("true"), &post, &safe).await;
    check_explained(&dedupes("null"), &get, &[&safe[..], &["key: none"]].concat()).await;
}

#[tokio::test]
async fn explain_tells_what_a_kind_starts_from_and_how_polls_are_spaced() {
    let get = ["GET", "https://a.test/v1"];
    let route =
        |keys: &str| format!("routes:\n  - {{name: r, match: {{hosts: [a.test]}}, {keys}}}");
    let spaced = "kind: poll, interval: 5s, terminal: {json: /status, in: [completed, 7, null]}";
    let polls = [
        "kind: poll",
        "attempts: unlimited, within 300s",
        "polls: those of one caller that ask the same while one is under way share it",
        "interval: 5s between polls of one job, 10s while nothing changes",
        "terminal: /status in [completed, 7, null], remembered for 600s",
    ];
    check_explained(&route(spaced), &get, &polls).await;
    let fetch = ["kind: fetch", "attempts: 3, within 300s", "backoff: linear from 500ms to 5s"];
    check_explained(&route("kind: fetch"), &get, &fetch).await;
}

#[tokio::test]
async fn explain_tells_what_money_an_effect_may_spend() {
    let config = "\
routes:
  - name: r
    match: {hosts: [a.test]}
    breaker: {when: [{json: /error/code, in: [out, broke]}], statuses: [402, 403]}
    preflight: {request: GET /account, json: /credits, at_least: 1.50}
    estimate: {path: /estimate, json: /cost, at_most: 50}
";
    let money = [
        "  credit breaker: status 402, 403 or /error/code of out, broke refuses this credential's effects for 300s",
        "  balance: /credits of GET /account, at least 1.5, asked for every 60s",
        "  cost gate: /cost of the estimate, at most 50; refused where nobody says",
    ];
    check_explained(config, &["POST", "https://a.test/"], &money).await;
    let ran = samekey(folder_with(config).path(), &["explain", "GET", "https://a.test/"]).await;
    assert!(ran.out.contains("kind: read"), "{}{}", ran.out, ran.err);
    assert!(!ran.out.contains("credit"), "a read spends nothing:\n{}", ran.out);
}

#[tokio::test]
async fn explain_takes_any_outcome_by_its_word_or_status() {
    let config = "routes:\n  - {name: r, match: {hosts: [a.test]}, retry: {on: [429, 503]}}";
    for (after, wanted) in [
        ("429", "after 429      throttled: retried"),
        ("503", "after 503      failed: passed on, Samekey-Stop: unsafe"),
        ("500", "after 500      done: passed on: there is nothing to retry"),
        ("connect", "not_sent: passed on: the route's `on` does not hold it"),
        ("timeout", "ambiguous: passed on: the route's `on` does not hold it"),
        ("not_sent", "not_sent: passed on"),
        ("refused", "refused: retried"),
        ("throttled", "throttled: retried"),
        ("ambiguous", "ambiguous: passed on"),
        ("replayed", "replayed: passed on: there is nothing to retry"),
        ("done", "done: passed on: there is nothing to retry"),
    ] {
        check_explained(config, &["POST", "https://a.test/", "--after", after], &[wanted]).await;
    }
}

#[tokio::test]
async fn explain_reads_the_request_and_the_route() {
    let signed = "Authorization: AWS4-HMAC-SHA256 Credential=A/20000101/r/s/aws4_request, SignedHeaders=host, Signature=x";
    let routes = "routes:\n  - {name: r, match: {hosts: [a.test], paths: [/v1/**]}}";
    let post = |path: &'static str, fields: &[&'static str]| -> Vec<&'static str> {
        let fields = fields.iter().flat_map(|field| ["-H", *field]);
        ["POST", path].into_iter().chain(fields).collect()
    };
    for (arguments, wanted) in [
        (post("https://a.test/v1/x", &["Idempotency-Key: k"]), "key: the client's own"),
        (post("https://a.test/v1/x", &["Samekey-Key: k"]), "key: derived from Samekey-Key"),
        (post("https://a.test/v1/x", &[signed]), "key: none: the request is signed"),
        (post("https://a.test/v1/x", &["Samekey-Retry: off"]), "Samekey-Stop: off"),
        (post("http://a.test/v1/x", &[]), "route: r"),
        (post("https://a.test/v2", &[]), "route: none\n  no route matches"),
        (
            post("https://b.test/", &[]),
            "route: none\n  no route names the host: its TLS is not opened",
        ),
        (post("http://b.test/", &[]), "route: none\n  no route matches"),
    ] {
        check_explained(routes, &arguments, &[wanted]).await;
    }
    let except = format!("intercept: {{except: ['*.test']}}\n{routes}");
    check_explained(&except, &["GET", "https://a.test/v1/"], &["intercept.except names the host"])
        .await;
    let poor = format!("defaults: {{retry: {{budget: {{burst: 0}}}}}}\n{routes}");
    check_explained(
        &poor,
        &["GET", "https://a.test/v1/"],
        &["after 503      failed: passed on, Samekey-Stop: budget"],
    )
    .await;
}

#[tokio::test]
async fn explain_tells_what_becomes_of_an_unknown_outcome() {
    let route = |more: &str| format!("routes:\n  - {{name: r, match: {{hosts: [a.test]}}{more}}}");
    let lookup = ", lookup: {request: '/v1/jobs/{key}', match: /id, settle: 1m, readings: 3}";
    for (more, wanted) in [
        ("", "an unknown outcome: a repeat is outcome-unknown until `samekey ledger resolve`"),
        (", retry: {unsafe: true}", "an unknown outcome: a repeat is sent again: retry.unsafe"),
        (", idempotency: {upstream_dedupes: true}", "sent again under the same key, for 86400s"),
        (lookup, "not listed 3 times, 30s apart and from 60s after the last attempt on"),
        (lookup, "where it cannot tell, the client's own key is sent again"),
    ] {
        check_explained(&route(more), &["POST", "https://a.test/v1"], &[wanted]).await;
    }
}

#[tokio::test]
async fn explain_tells_of_a_preset_what_it_looks_into_and_holds_back() {
    for (url, wanted) in [
        (
            "https://api.clipia.ai/v1/models/x",
            &[
                "never retried: /error/code of idempotency_key_reuse, insufficient_credits  [config/providers/clipia.yaml:",
                "waited for: /error/code of request_in_progress: the first request runs there; asked again with the same key  [",
                "an answer that nobody got is taken: for 600s, by a repeat without a key: no second effect  [",
                "limits: 10 at a time, 120 in 60s for each credential, as the group clipia; a turn is waited for 300s  [",
                "answers made here: the provider's own error JSON  [",
            ][..],
        ),
        (
            "https://api.json2video.com/v2/movies",
            &[
                "a failure, though 2xx: /success of false (nothing was done)  [",
                "an unknown outcome: the provider is asked (after a crash when it is asked for again)",
            ],
        ),
        (
            "https://api.removebgvideo.com/v1/jobs",
            &[
                "key: a random one, in JSON member /external_job_id  [",
                "never retried: /error/code of insufficient_credits, invalid_request  [",
                "an unknown outcome: the provider is asked",
            ],
        ),
        (
            "https://api.remove.bg/v1.0/removebg",
            &[
                "limits: 5 at a time, 2 in 1s for each credential; a turn is waited for 300s  [",
                "backoff: exponential from 1s to 8s, jitter equal  [",
            ],
        ),
    ] {
        check_explained("providers: all", &["POST", url], wanted).await;
    }
}

#[tokio::test]
async fn explain_shows_which_line_of_which_file_decided() {
    let config = "\
defaults:
  retry: {attempts: 3}
routes:
  - preset: clipia-generate
    name: staging
    match: {hosts: [staging.test]}
    idempotency:
      upstream_ttl: 1h
";
    let preset = "config/providers/clipia.yaml:";
    let post = |host: &str| format!("https://{host}/v1/models/x");
    let [own, built_in] = [post("staging.test"), post("api.clipia.ai")];
    let place = format!("idempotency-key  [{preset}");
    let wanted = [
        "route: staging (samekey.yaml:4, from preset clipia)",
        place.as_str(),
        "attempts: 3, within 300s  [defaults, samekey.yaml:2]",
        "retry-after obeyed up to: 120s  [built in]",
    ];
    check_explained(config, &["POST", &own], &wanted).await;
    let begins = format!("route: clipia-generate (preset clipia, {preset}");
    let dedupes = format!("a repeated key has one effect there  [{preset}");
    let wanted = [begins.as_str(), &dedupes, "[defaults, samekey.yaml:2]", "[built in]"];
    check_explained(config, &["POST", &built_in], &wanted).await;
    let unsafe_stop =
        "upstream is not known to de-duplicate by key  [config/providers/json2video.yaml:";
    let movies = "https://api.json2video.com/v2/movies";
    check_explained(config, &["POST", movies, "--after", "reset"], &[unsafe_stop]).await;
    let none = "providers: []";
    check_explained(none, &["POST", movies], &["route: none\n  no route names the host"]).await;
}

/// What is answered here is explained as that, and as nothing that is sent and retried.
async fn check_refused(config: &str, arguments: &[&str], wanted: &str) {
    let folder = folder_with(config);
    let ran = samekey(folder.path(), &[&["explain"], arguments].concat()).await;
    let told = if wanted.is_empty() { "after 429 " } else { "" };
    let last = format!("\nanswered here: {wanted}: nothing is sent\n");
    let ends = wanted.is_empty() || ran.out.ends_with(&last) && !ran.out.contains("\nafter ");
    let all = format!("{config} {arguments:?} `{wanted}`:\n{}{}", ran.out, ran.err);
    assert!(ran.code == Some(0) && ends && ran.out.contains(told), "{all}");
    assert_eq!(wanted.is_empty(), !ran.out.contains("answered here"), "{all}");
}

#[tokio::test]
async fn explain_tells_which_requests_are_refused_for_their_key() {
    let route = |keys: &str| format!("routes: [{{name: r, match: {{hosts: [a.test]}}, {keys}}}]");
    let requires = route("idempotency: {require: true, identity: '{header:order}-{query:n}'}");
    let json = route("idempotency: {require: true, header: {json: /key}}");
    let missing = "400 key-missing: idempotency.require wants a key or an identity";
    let empty = "400 key-invalid: the key is empty";
    let observes = route("mode: observe, idempotency: {require: true}");
    let (bare, url) = ("https://a.test/v1", "https://a.test/v1?n=1");
    for (config, arguments, wanted) in [
        (&requires, &["POST", url][..], missing),
        (&requires, &["PATCH", url, "--after", "503"], missing),
        (&requires, &["GET", url], ""),
        (&requires, &["PUT", url], ""),
        (&requires, &["POST", url, "-H", "Order: 7"], ""),
        (&requires, &["POST", bare, "-H", "Order: 7"], missing),
        (&requires, &["POST", url, "-H", "Samekey-Key: order-7"], ""),
        (&requires, &["POST", url, "-H", "Idempotency-Key: k"], ""),
        (&requires, &["POST", url, "-H", "Idempotency-Key:"], empty),
        (&requires, &["POST", url, "-H", "Samekey-Key:"], empty),
        (&json, &["POST", url], ""),
        (&observes, &["POST", url], ""),
        (&observes, &["POST", url, "-H", "Idempotency-Key:"], ""),
    ] {
        check_refused(config, arguments, wanted).await;
    }
    let says = ["400 key-missing where its body has neither"];
    check_explained(&json, &["POST", url], &says).await;
}

#[tokio::test]
async fn explain_tells_which_hosts_are_not_connected_to() {
    let routes = "routes: [{name: r, match: {hosts: ['*']}}]\n\
                  listeners: [{address: '127.0.0.1:7001'}, {address: '0.0.0.0:7002', auth: open}]\n\
                  admin: {address: 'localhost:7003'}\n";
    let denies = format!("{routes}egress: {{deny: [10.0.0.0/8, '::1/128']}}\n");
    let names = format!("{routes}egress: {{allow: [a.test, '*.b.test']}}\n");
    let both = format!("{routes}egress: {{allow: [a.test, 192.0.2.0/24]}}\n");
    let forbidden = |host| format!("403 forbidden-destination: egress does not allow {host}");
    let ours = || "508 loop: samekey itself listens there".to_owned();
    for (config, url, wanted) in [
        (routes, "http://127.0.0.1:7001/", ours()),
        (routes, "http://localhost:7001/", ours()),
        (routes, "https://127.0.0.1:7003/", ours()),
        (routes, "http://127.0.0.2:7002/", ours()),
        (routes, "http://[::1]:7001/", String::new()),
        (routes, "http://127.0.0.1:7004/", String::new()),
        (&denies, "http://10.1.2.3/", forbidden("10.1.2.3")),
        (&denies, "http://[::ffff:10.1.2.3]/", forbidden("::ffff:10.1.2.3")),
        (&denies, "http://localhost/", String::new()),
        (&denies, "http://a.test/", String::new()),
        (&names, "https://a.test/", String::new()),
        (&names, "https://x.b.test/", String::new()),
        (&names, "https://c.test/", forbidden("c.test")),
        (&names, "https://192.0.2.1/", forbidden("192.0.2.1")),
        // What c.test is, is not asked.
        (&both, "https://c.test/", String::new()),
        (&both, "https://192.0.2.1/", String::new()),
        (&both, "https://192.0.3.1/", forbidden("192.0.3.1")),
    ] {
        check_refused(config, &["GET", url], &wanted).await;
    }
    let bare = "routes: []\nproviders: []\nintercept: {hosts: none}\negress: {allow: [a.test]}\n";
    for url in ["https://b.test/", "http://b.test/"] {
        check_refused(bare, &["GET", url], &forbidden("b.test")).await;
    }
}
