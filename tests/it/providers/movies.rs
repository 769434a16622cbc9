//! JSON to video: a POST that is not idempotent, and charges each time.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{CREDENTIAL, Counter, EVENT, FAST, started, text, told};
use crate::provider::apis::Name;

const MOVIES: &str = "/v2/movies";

async fn counter(retry: &str, idempotency: &str) -> Counter {
    let comma = |text: &str| if text.is_empty() { "" } else { ", " }.to_owned() + text;
    let (retry, idempotency) = (comma(retry), comma(idempotency));
    let blocks = format!(
        "idempotency: {{upstream_dedupes: false{idempotency}}}, retry: {{{FAST}, \
         failed_when: [{{json: /success, in: [false], means: refused}}]{retry}}}"
    );
    Counter::new(Name::Movies, &blocks).await
}

fn movie(order: &str) -> Value {
    json!({"scenes": [{"elements": []}], "client-data": {"order": order}})
}

#[tokio::test]
async fn an_ambiguous_create_is_unknown_and_never_sent_again_blindly() {
    for lost in ["500 effect", "503 effect", "reset_after", "eof_after", "garbage", "hang_after"] {
        let counter = counter("attempt_timeout: 300ms", "").await;
        counter.script(lost);
        let event = [(EVENT, "order-12345-promo-video")];
        let first = counter.post(MOVIES, &event, movie("o-1")).await;
        assert!(first.status.is_server_error(), "{lost}");
        for _ in 0..2 {
            let again = counter.post(MOVIES, &event, movie("o-1")).await;
            assert_eq!(again.said(), (409, "outcome-unknown".to_owned()), "{lost}");
        }
        assert_eq!((counter.sent(), counter.spent()), (1, (1, 1)), "{lost}");
    }
}

#[tokio::test]
async fn a_429_and_a_connection_that_failed_are_retried() {
    let counter = counter("", "").await;
    counter.script("429; 429 retry_after_ms=10");
    let answer = counter.post(MOVIES, &[], movie("o-1")).await;
    assert_eq!((told(&answer), counter.spent()), ((200, "3", ""), (1, 1)));
    // Over TLS a connection that is cut before its handshake proves that nothing was sent.
    counter.script("");
    counter.provider.refuse_connections(1);
    let url = format!("https://{}{MOVIES}", counter.provider.ports.authority(Name::Movies));
    let headers = [("content-type", "application/json"), ("x-api-key", CREDENTIAL)];
    let body = movie("o-2").to_string();
    let answer = counter.client.send(Method::POST, &url, &headers, &body).await;
    assert_eq!((told(&answer), counter.spent()), ((200, "2", ""), (1, 1)));
}

#[tokio::test]
async fn one_business_event_is_one_movie_however_often_it_is_asked_for() {
    let counter = counter("", "").await;
    let event = [(EVENT, "order-12345-promo-video-v1")];
    let asked = (0..10).map(|_| counter.post(MOVIES, &event, movie("o-1")));
    let answers = futures_util::future::join_all(asked).await;
    let projects: std::collections::BTreeSet<_> =
        answers.iter().map(|answer| text(answer, "/project")).collect();
    assert_eq!((projects.len(), counter.sent(), counter.spent()), (1, 1, (1, 1)));
    let again = counter.post(MOVIES, &event, movie("o-1")).await;
    assert_eq!((again.header("samekey-replay"), again.header("samekey-attempts")), ("stored", "0"));
    // A new version is a new event.
    let event = [(EVENT, "order-12345-promo-video-v2")];
    counter.post(MOVIES, &event, movie("o-1")).await;
    assert_eq!(counter.spent(), (2, 2));
}

#[tokio::test]
async fn the_event_can_be_read_from_the_movie_itself() {
    let identity = "identity: 'order-{json:/client-data/order}-promo'";
    let counter = counter("", identity).await;
    for _ in 0..3 {
        assert_eq!(counter.post(MOVIES, &[], movie("o-1")).await.status, 200);
    }
    counter.post(MOVIES, &[], movie("o-2")).await;
    assert_eq!((counter.sent(), counter.spent()), (2, (2, 2)));
}

#[tokio::test]
async fn the_project_is_kept_before_it_is_told() {
    let mut counter = counter("", "").await;
    let event = [(EVENT, "order-12345")];
    let first = counter.post(MOVIES, &event, movie("o-1")).await;
    counter.kill().await;
    let again = counter.post(MOVIES, &event, movie("o-1")).await;
    assert_eq!((&again.body, again.header("samekey-replay")), (&first.body, "stored"));
    assert_eq!((counter.sent(), counter.spent()), (1, (1, 1)));
}

#[tokio::test]
async fn success_false_is_an_error_whatever_the_status() {
    let counter = counter("", "").await;
    let event = [(EVENT, "order-12345")];
    for status in [200, 400] {
        counter.terms(&json!({"refusal_status": status}));
        let refused = counter.post(MOVIES, &event, json!({"client-data": {}})).await;
        assert_eq!(
            (told(&refused), &refused.json()["success"]),
            ((status, "1", ""), &json!(false))
        );
    }
    assert_eq!(counter.spent(), (0, 0));
    // Nothing was kept under the key: the movie that is right is made.
    let made = counter.post(MOVIES, &event, movie("o-1")).await;
    assert_eq!((&made.json()["success"], counter.spent()), (&json!(true), (1, 1)));
}

#[tokio::test]
async fn a_movie_without_credits_is_told_so_and_made_once_they_are_there() {
    let counter = counter("", "").await;
    let event = [(EVENT, "order-12345")];
    counter.terms(&json!({"credits": 0}));
    let refused = counter.post(MOVIES, &event, movie("o-1")).await;
    assert_eq!(
        (told(&refused), text(&refused, "/message").as_str()),
        ((400, "1", ""), "Insufficient credits")
    );
    counter.terms(&json!({"credits": 1}));
    counter.post(MOVIES, &event, movie("o-1")).await;
    assert_eq!((counter.books().broke, counter.spent()), (1, (1, 1)));
}

#[tokio::test]
async fn a_get_is_retried_and_an_interim_error_is_passed_on_as_it_is() {
    let counter = counter("", "").await;
    counter.terms(&json!({"stumbles": true}));
    counter.script("ok; 503; reset_after; 429; ok");
    let project = text(&counter.post(MOVIES, &[], movie("o-1")).await, "/project");
    let poll = format!("{MOVIES}?project={project}");
    let mut seen = Vec::new();
    while seen.last().is_none_or(|status| status != "done") {
        let answer = counter.get(&poll).await;
        assert_eq!(answer.status, 200);
        seen.push(text(&answer, "/movie/status"));
    }
    // The reset came after a poll that the movie had moved by.
    assert_eq!(seen, ["running", "error", "done"]);
    assert_eq!(counter.spent(), (1, 1));
}

#[tokio::test]
async fn a_poll_that_comes_too_soon_has_the_last_answer_and_an_interim_error_is_no_end() {
    let poll = "interval: 300ms, terminal: {json: /movie/status, in: [done]}";
    let counter = Counter::polling(Name::Movies, poll, "mode: enforce").await;
    counter.terms(&json!({"stumbles": true}));
    let project = text(&counter.post(MOVIES, &[], movie("o-1")).await, "/project");
    let path = format!("{MOVIES}?project={project}");
    let mut seen: Vec<String> = Vec::new();
    let mut polls = 0;
    while seen.last().is_none_or(|status| status != "done") {
        seen.push(text(&counter.get(&path).await, "/movie/status"));
        polls += 1;
        tokio::time::sleep(Duration::from_millis(30)).await; // a client that knows no interval
    }
    seen.dedup();
    assert_eq!(seen, ["pending", "running", "error", "done"]);
    assert!(counter.sent() == 5 && polls > 4, "a create and four of {polls} polls");
    counter.get(&path).await;
    assert_eq!((counter.sent(), counter.spent()), (5, (1, 1)));
}

/// The preset's own route, less patient where nothing is found.
const PRESET: &str = "[{preset: json2video-create, name: r, match: {hosts: ['*']}, \
     retry: {backoff: {initial: 1ms, max: 2ms}}, lookup: {settle: 1s, every: 1s}}]";

#[tokio::test]
async fn the_preset_finds_a_movie_that_was_lost_and_answers_as_the_post_would_have() {
    let counter = Counter::with_routes(Name::Movies, PRESET).await;
    counter.post(MOVIES, &[(EVENT, "order-1")], movie("o-1")).await;
    counter.script("reset_after; ok forever");
    let event = [(EVENT, "order-2")];
    let lost = counter.post(MOVIES, &event, movie("o-2")).await;
    assert_eq!((lost.status.as_u16(), &lost.json()["success"]), (502, &json!(false)));
    let found = counter.post(MOVIES, &event, movie("o-2")).await;
    assert_eq!((found.status.as_u16(), found.header("samekey-replay")), (200, "stored"));
    assert_eq!(found.json().as_object().map(serde_json::Map::len), Some(3));
    assert_eq!((&found.json()["success"], text(&found, "/project").len()), (&json!(true), 16));
    assert!(text(&found, "/timestamp").ends_with('Z'));
    let again = counter.post(MOVIES, &event, movie("o-2")).await;
    assert_eq!((&again.body, counter.spent()), (&found.body, (1, 1)));
    // What the client said of itself is still there, beside the tag.
    let movies = counter.get("/v2/movies?limit=1").await.json();
    let said = &movies["movies"][0]["client-data"];
    assert!(said["order"] == "o-2" && said["samekey"].is_string(), "{said}");
}

#[tokio::test]
async fn the_preset_makes_a_movie_anew_that_surely_is_not_there() {
    let counter = Counter::with_routes(Name::Movies, PRESET).await;
    counter.post(MOVIES, &[(EVENT, "order-1")], movie("o-1")).await;
    counter.script("reset_before; ok forever");
    let event = [(EVENT, "order-2")];
    assert_eq!(counter.post(MOVIES, &event, movie("o-2")).await.status, 502);
    let unknown = counter.post(MOVIES, &event, movie("o-2")).await;
    assert_eq!((unknown.status.as_u16(), counter.spent()), (409, (0, 0)));
    assert_eq!(&unknown.json()["success"], &json!(false), "in the provider's own shape");
    let made = async {
        while counter.post(MOVIES, &event, movie("o-2")).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), made).await.expect("it is made");
}

/// The route that a preset has for making movies, which is asked about by tag.
async fn tagged(lookup: &str) -> Counter {
    // The preset's own recipe, a movie a page.
    let list =
        "request: '/v2/movies?from={since:date}&to={until:date}&limit=1&next_token={cursor}'";
    let lookup = format!("lookup: {{{list}, every: 1s, {lookup}}}");
    let blocks = format!("retry: {{{FAST}}}, errors: problem, {lookup}");
    Counter::preset(Name::Movies, "json2video-create", &blocks).await
}

/// The order that a project was made for.
async fn order_of(counter: &Counter, project: &str) -> String {
    let answer = counter.get(&format!("{MOVIES}?project={project}")).await;
    text(&answer, "/movie/client-data/order")
}

#[tokio::test]
async fn a_movie_that_may_be_made_is_found_by_its_tag() {
    let counter = tagged("settle: 1h").await;
    counter.script("reset_after");
    let lost = [(EVENT, "order-1")];
    assert_eq!(counter.post(MOVIES, &lost, movie("o-1")).await.status, 502);
    // Newer ones are before it in the list, a page each.
    for n in 2..=4 {
        let event = format!("order-{n}");
        counter.post(MOVIES, &[(EVENT, &event)], movie(&format!("o-{n}"))).await;
    }
    let found = counter.post(MOVIES, &lost, movie("o-1")).await;
    assert_eq!((found.status.as_u16(), found.header("samekey-replay")), (200, "stored"));
    let project = text(&found, "/project");
    assert_eq!(order_of(&counter, &project).await, "o-1");
    assert_eq!((counter.asked("POST"), counter.spent()), (4, (4, 4)));
    let lists: Vec<String> = counter
        .seen()
        .into_iter()
        .map(|seen| seen.path)
        .filter(|path| path.contains("from="))
        .collect();
    assert!(lists.iter().any(|path| path.contains("next_token=3")), "it was paged: {lists:?}");
}

#[tokio::test]
async fn a_movie_surely_absent_twice_frees_the_key() {
    let counter = tagged("settle: 1s").await;
    let event = [(EVENT, "order-1")];
    counter.script("reset_before");
    assert_eq!(counter.post(MOVIES, &event, movie("o-1")).await.status, 502);
    let early = counter.post(MOVIES, &event, movie("o-1")).await;
    assert_eq!(early.said(), (409, "outcome-unknown".to_owned()), "it is too soon to tell");
    assert_eq!((counter.asked("POST"), counter.spent()), (1, (0, 0)));
    counter.samekey.logged(&["a lookup settled an unknown outcome", "absent"]).await;
    let absent = "samekey_lookups_total{result=\"absent\",route=\"json2video-create\"}";
    assert!(counter.samekey.metric(absent).await >= 2.0, "it was read twice");
    for replay in ["", "stored"] {
        let made = counter.post(MOVIES, &event, movie("o-1")).await;
        assert_eq!((made.status.as_u16(), made.header("samekey-replay")), (200, replay));
    }
    assert_eq!((counter.asked("POST"), counter.spent()), (2, (1, 1)));
}

#[tokio::test]
async fn a_crash_between_submit_and_store_is_settled_at_the_next_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("api-key");
    std::fs::write(&file, CREDENTIAL).expect("written");
    let credentials = format!("credentials: {{header: x-api-key, file: {}}}", file.display());
    let mut counter = tagged(&format!("settle: 1s, {credentials}")).await;
    counter.script("held");
    let event = [(EVENT, "order-1")];
    let made = async {
        while counter.spent().0 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _answer = counter.post(MOVIES, &event, movie("o-1")) => panic!("it is held back"),
        () = made => {}
    }
    counter.kill().await;
    counter.samekey.logged(&["a lookup settled an unknown outcome"]).await;
    let again = counter.post(MOVIES, &event, movie("o-1")).await;
    assert_eq!((again.status.as_u16(), again.header("samekey-replay")), (200, "stored"));
    assert_eq!(order_of(&counter, &text(&again, "/project")).await, "o-1");
    assert_eq!((counter.asked("POST"), counter.spent()), (1, (1, 1)));
}

#[tokio::test]
async fn a_webhook_that_comes_twice_is_handed_on_once() {
    let route = started("json2video-create", &format!("retry: {{{FAST}}}"));
    let inbox = "identity: {json: /movie/project}";
    let (counter, application) = Counter::with_inbox(Name::Movies, inbox, &route).await;
    counter.terms(&json!({"takes_ms": 20}));
    let mut movie = movie("o-1");
    let to = json!({"type": "webhook", "endpoint": counter.hook()});
    movie["exports"] = json!([{"destinations": [to]}]);
    let project = text(&counter.post(MOVIES, &[], movie).await, "/project");
    counter.delivered(&[200, 200]).await;
    counter.hooked("delivered", 1).await;
    counter.hooked("repeated", 1).await;
    let came = application.seen("s");
    let body: Value = serde_json::from_str(&came[0].body).expect("JSON");
    assert_eq!((came.len(), &body["movie"]["project"]), (1, &json!(project)));
    assert_eq!(counter.spent(), (1, 1));
}
