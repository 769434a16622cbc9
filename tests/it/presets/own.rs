//! What the operator says of presets: which are in force, and what of them gives way.

use super::*;

#[test]
fn own_routes_come_first_and_the_list_chooses_the_presets() {
    let of = |text: &str| -> Vec<String> {
        let named = loaded(text).routes.into_iter().map(|route| route.name);
        named.filter(|name| !name.contains('-')).collect()
    };
    let own = "routes: [{name: a, match: {hosts: [a]}}]\n";
    assert_eq!(of(&format!("{own}providers: []")), ["a"]);
    assert_eq!(of(&format!("{own}providers: [json2video, clipia]")), ["a", "clipia", "json2video"]);
    assert_eq!(of(own).len(), 1 + names().len());
    check(
        "providers: [clipa, nothing-like-it]",
        &[
            "a.yaml:1: providers[0]: no such preset is built in, did you mean `clipia`? (got `clipa`)",
            &format!(
                "a.yaml:1: providers[1]: no such preset is built in, must be one of {} (got `nothing-like-it`)",
                names().join(", ")
            ),
        ],
    );
    check(
        "routes: [{preset: clipia-genrate}]",
        &[
            "a.yaml:1: routes[0].preset: no such route of a preset is built in, did you mean `clipia-generate`? (got `clipia-genrate`)",
        ],
    );
}

#[test]
fn a_preset_wins_over_the_defaults_field_by_field() {
    let config = loaded(
        "defaults: {retry: {attempts: 7, backoff: {initial: 9s, jitter: none}}, idempotency: {upstream_dedupes: true}}",
    );
    let create = route(&config, "json2video-create");
    assert_eq!(create.retry.backoff.initial, Duration::from_secs(1));
    assert!(matches!(create.retry.attempts, Attempts::AtMost(most) if most.get() == 7));
    assert_eq!(create.rules.upstream_dedupes, Some(false));
    let place = |key| create.provenance.place(key).map(|place| place.to_string());
    assert_eq!(place("retry.attempts").as_deref(), Some("defaults, a.yaml:1"));
    assert!(
        place("retry.backoff.initial")
            .is_some_and(|it| it.starts_with("config/providers/json2video.yaml:"))
    );
    assert!(
        place("match.hosts").is_some_and(|it| it.starts_with("config/providers/json2video.yaml:"))
    );
    assert_eq!(place("retry.retry_after_max"), None);
}

#[test]
fn an_own_route_starts_from_a_presets_route() {
    let config = loaded(
        "\
routes:
  - preset: clipia-generate
    match: {hosts: [staging.test]}
    retry: {attempts: 2}
  - {preset: json2video-create, name: movies}
",
    );
    let staging = route(&config, "clipia-generate");
    assert!(staging.matcher.matches("staging.test", 443, &Method::POST, "/v1/models/x"));
    assert!(!staging.matcher.names("api.clipia.ai", 443), "the preset's route gives way");
    assert_eq!(staging.rules.upstream_dedupes, Some(true));
    let Attempts::AtMost(attempts) = staging.retry.attempts else { panic!("a number") };
    assert_eq!(attempts.get(), 2);
    assert_eq!(staging.provenance.started_from(), Some("clipia"));
    assert_eq!(staging.provenance.begins().map(|it| it.to_string()).as_deref(), Some("a.yaml:2"));
    assert_eq!(route(&config, "movies").rules.upstream_dedupes, Some(false));
    assert_eq!(routed(&config, &Method::POST, "api.json2video.com", "/v2/movies"), "movies");
    assert!(config.routes.iter().any(|route| route.name == "json2video-create"));

    let own = loaded("providers: []\nroutes: [{preset: stripe-v1}]");
    assert_eq!(own.routes.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["stripe-v1"]);
}

#[test]
fn a_group_of_a_preset_has_the_limits_that_the_operator_gives_it() {
    let config =
        loaded("routes: [{preset: clipia-generate, limits: {rate: 240/1m, max_wait: 1s}}]");
    let rate = |name| route(&config, name).limits.rate.map(|rate| rate.count.get());
    assert_eq!((rate("clipia-generate"), rate("clipia-status")), (Some(240), Some(240)));
    let status = &route(&config, "clipia-status").provenance;
    assert_eq!(status.place("limits.rate").map(|it| it.to_string()).as_deref(), Some("a.yaml:1"));
    check(
        "routes: [{name: a, match: {hosts: [a]}, limits: {group: g, concurrency: 1}}, \
         {preset: clipia-generate, limits: {group: g}}]",
        &[
            "a.yaml:1: routes[1].limits.group: must have the concurrency, rate, max_queue and shared of the group's first route, routes[0]",
        ],
    );
}

#[test]
fn what_does_not_go_with_a_preset_is_the_operators_fault() {
    let (_, text) = files().into_iter().find(|(name, _)| name == "clipia").expect("a file");
    let adopts = text.lines().position(|line| line.contains("adopt_orphans:")).expect("a line") + 1;
    let against = format!(
        "a.yaml:3: routes[0].idempotency.ttl: goes against config/providers/clipia.yaml:{adopts}: \
         `adopt_orphans` must not be longer than `ttl`: the answer would be gone"
    );
    check("routes:\n- preset: clipia-generate\n  idempotency: {ttl: 1m}\n", &[&against]);
}

#[tokio::test]
async fn a_route_that_starts_from_a_preset_makes_a_simulated_provider_safe() {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    let starts = |preset: &str| {
        format!(
            "providers: []\nroutes:\n  - {{preset: {preset}, match: {{hosts: [localhost, 127.0.0.1], paths: [/**]}}, \
             retry: {{backoff: {{initial: 1ms, max: 2ms}}}}}}\n"
        )
    };
    // The one promises that a repeated key has one effect, the other that it has not.
    for (preset, status, attempts) in
        [("clipia-generate", 201, "2"), ("json2video-create", 503, "1")]
    {
        let samekey = Samekey::start(&starts(preset)).await;
        let client = Client::trusting(&samekey, "");
        provider.script("s", "503");
        let answer = client.post(&provider.ports.http_url("/s/s/v1/jobs"), "{}").await;
        let told = (answer.status.as_u16(), answer.header("samekey-attempts"));
        assert_eq!(told, (status, attempts), "{preset}");
    }
}

#[tokio::test]
async fn a_route_of_a_preset_has_no_series_before_it_is_used() {
    let samekey = Samekey::start(
        "routes: [{name: own, match: {hosts: [a.test]}}, \
         {name: asked, match: {hosts: [b.test]}, kind: poll}]",
    )
    .await;
    let text = samekey.metrics().await;
    let routes: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split_once("route=\"")?.1.split_once('"').map(|(name, _)| name))
        .collect();
    // `none` is what no route matches.
    assert_eq!(routes.into_iter().collect::<Vec<_>>(), ["asked", "none", "own"]);
    let polls = "samekey_polls_total{event=\"sent\",route=\"asked\"} 0";
    assert!(text.contains(polls), "what alerts watch stands at zero");
    assert!(!text.contains("samekey_lookups_total{"), "no route has a lookup that is its own");
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    assert!(series < 500, "{series}");
}
