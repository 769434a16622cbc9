//! Video background removal: create a job, poll it, fetch the output.

use serde_json::{Value, json};

use super::{Counter, FAST, OUT_OF_CREDIT, field, started, text, told};
use crate::provider::apis::Name;

const JOBS: &str = "/v1/jobs";
const CREATE: &str = "removebgvideo-create";

/// A route as the provider's document asks for it: the caller's own id is what makes two
/// jobs one, and money that is not there is not asked for again.
fn route(retry: &str) -> String {
    let comma = if retry.is_empty() { "" } else { ", " };
    format!(
        "idempotency: {{header: {{json: /external_job_id}}, upstream_dedupes: false, \
         capture: {{job: /id, status: /status, credits: /credits, model: /model, \
         format: /format, user: /user_id}}}}, \
         retry: {{{FAST}, never_when: [{{json: /error/code, in: [insufficient_credits]}}]{comma}{retry}}}"
    )
}

async fn counter(retry: &str) -> Counter {
    Counter::new(Name::Background, &route(retry)).await
}

fn job(id: &str) -> Value {
    json!({"video_url": "https://a.test/in.mp4", "external_job_id": id, "model": "pro",
           "format": "webm", "user_id": "u-7"})
}

#[tokio::test]
async fn a_rate_limited_create_is_sent_again_and_charged_once() {
    let counter = counter("").await;
    counter.script("429; 429 retry_after_ms=20; ok");
    let answer = counter.post(JOBS, &[], job("o-1")).await;
    assert_eq!((told(&answer), counter.spent()), ((201, "3", ""), (1, 1)));
}

#[tokio::test]
async fn reads_are_tried_up_to_five_times_after_a_5xx_and_creates_are_not() {
    let counter = counter("attempts: 5").await;
    counter.script("ok; 500; 502; 503; 504; ok; 500 x5; 503 effect");
    let id = text(&counter.post(JOBS, &[], job("o-1")).await, "/id");
    let path = format!("{JOBS}/{id}");
    assert_eq!(told(&counter.get(&path).await), (200, "5", ""));
    assert_eq!(told(&counter.get(&path).await), (500, "5", "attempts"));
    let answer = counter.post(JOBS, &[], job("o-2")).await;
    assert_eq!((told(&answer), counter.spent()), ((503, "1", "unsafe"), (2, 2)));
}

#[tokio::test]
async fn an_invalid_request_is_never_sent_again() {
    let counter = counter("").await;
    let answer = counter.post(JOBS, &[], json!({"external_job_id": "o-1"})).await;
    assert_eq!(
        (told(&answer), text(&answer, "/error/code").as_str()),
        ((400, "1", ""), "invalid_request")
    );
    assert_eq!((counter.sent(), counter.spent()), (1, (0, 0)));
}

#[tokio::test]
async fn insufficient_credits_is_never_sent_again_whatever_its_status() {
    let counter = counter("").await;
    for (status, stop) in [(402, ""), (400, ""), (429, "permanent")] {
        counter.script("");
        counter.terms(&json!({"credits": 0, "broke_status": status}));
        let job = job(&format!("o-{status}"));
        let answer = counter.post(JOBS, &[], &job).await;
        assert_eq!(told(&answer), (status, "1", stop));
        assert_eq!((counter.sent(), counter.books().broke), (1, 1), "{status}");
        // Nothing was done: once there is money, the same job can be made.
        counter.terms(&json!({"credits": 1}));
        let answer = counter.post(JOBS, &[], &job).await;
        assert_eq!((answer.status.as_u16(), counter.spent()), (201, (1, 1)), "{status}");
    }
}

#[tokio::test]
async fn the_same_external_job_id_is_the_same_job() {
    let counter = counter("").await;
    let first = counter.post(JOBS, &[], job("o-1")).await;
    assert_eq!(counter.seen()[0].body, job("o-1").to_string(), "as the client wrote it");
    let again = counter.post(JOBS, &[], job("o-1")).await;
    assert_eq!((&again.body, told(&again)), (&first.body, (201, "0", "")));
    assert_eq!(again.header("samekey-replay"), "stored");
    counter.post(JOBS, &[], job("o-2")).await;
    assert_eq!((counter.sent(), counter.spent()), (2, (2, 2)));
}

#[tokio::test]
async fn an_external_job_id_is_minted_where_it_is_missing_and_is_the_same_on_each_attempt() {
    let counter = counter("").await;
    counter.script("429; ok");
    let answer = counter.post(JOBS, &[], json!({"video_url": "u"})).await;
    assert_eq!((told(&answer), counter.spent()), ((201, "2", ""), (1, 1)));
    let minted: Vec<String> = counter
        .seen()
        .into_iter()
        .map(|seen| serde_json::from_str::<Value>(&seen.body).expect("JSON"))
        .map(|body| body["external_job_id"].as_str().expect("it was minted").to_owned())
        .collect();
    assert_eq!((minted.len(), &minted[0]), (2, &minted[1]));
    assert_eq!(text(&answer, "/external_job_id"), minted[0]);
}

#[tokio::test]
async fn a_create_whose_answer_was_lost_is_not_made_twice() {
    for lost in ["reset_after", "eof_after", "garbage", "503 effect"] {
        let counter = counter("").await;
        counter.script(lost);
        let first = counter.post(JOBS, &[], job("o-1")).await;
        assert!(first.status.is_server_error(), "{lost}");
        let again = counter.post(JOBS, &[], job("o-1")).await;
        assert_eq!(again.said(), (409, "outcome-unknown".to_owned()), "{lost}");
        assert_eq!((counter.sent(), counter.spent()), (1, (1, 1)), "{lost}");
    }
}

#[tokio::test]
async fn a_start_has_three_retries_where_starting_twice_is_harmless() {
    let counter = Counter::with_routes(
        Name::Background,
        &format!(
            "[{{name: start, match: {{hosts: ['*'], paths: ['/v1/jobs/*/start']}}, \
             retry: {{{FAST}, attempts: 4, unsafe: true}}}}, \
             {{name: r, match: {{hosts: ['*']}}, {}}}]",
            route("")
        ),
    )
    .await;
    counter.script("ok; 503 effect; reset_after; 500; ok");
    let idle = json!({"video_url": "u", "external_job_id": "o-1", "start": false});
    let id = text(&counter.post(JOBS, &[], idle).await, "/id");
    let answer = counter.post(&format!("{JOBS}/{id}/start"), &[], json!({})).await;
    assert_eq!((told(&answer), counter.spent()), ((200, "4", ""), (1, 1)));
}

#[tokio::test]
async fn a_status_poll_is_tried_without_limit_inside_its_window() {
    let poll = format!("retry: {{{FAST}, deadline: 20s}}");
    let counter = Counter::polling(Name::Background, &poll, &route("")).await;
    counter.script("ok; 503 x9; reset_before; 429; ok");
    let id = text(&counter.post(JOBS, &[], job("o-1")).await, "/id");
    let answer = counter.get(&format!("{JOBS}/{id}")).await;
    assert_eq!((told(&answer), text(&answer, "/status").as_str()), ((200, "12", ""), "queued"));
}

#[tokio::test]
async fn many_pollers_of_one_job_are_one_and_its_end_is_remembered() {
    let poll = "terminal: {json: /status, in: [completed, failed]}";
    let counter = Counter::polling(Name::Background, poll, &route("")).await;
    counter.script("ok; slow 300; ok forever");
    let id = text(&counter.post(JOBS, &[], job("o-1")).await, "/id");
    let path = format!("{JOBS}/{id}");
    let first = counter.get(&path);
    let rest = async {
        counter.provider.arrived("background", 2).await;
        futures_util::future::join_all((0..20).map(|_| counter.get(&path))).await
    };
    let (first, rest) = tokio::join!(first, rest);
    assert!(rest.iter().all(|answer| answer.body == first.body));
    assert_eq!((counter.sent(), text(&first, "/status").as_str()), (2, "queued"));
    let mut last = first;
    while text(&last, "/status") != "completed" {
        last = counter.get(&path).await;
    }
    let sent = counter.sent();
    assert_eq!((&counter.get(&path).await.body, counter.sent()), (&last.body, sent));
    assert_eq!(counter.spent(), (1, 1));
}

#[tokio::test]
async fn an_output_is_fetched_again_after_a_short_linear_wait() {
    let counter = Counter::with_routes(
        Name::Background,
        &format!(
            "[{{name: fetch, match: {{hosts: ['*'], paths: ['/api/download/*']}}, kind: fetch, \
             retry: {{attempts: 4, backoff: {{kind: linear, initial: 30ms, max: 1s, jitter: none}}}}}}, \
             {{name: r, match: {{hosts: ['*']}}, {}}}]",
            route("")
        ),
    )
    .await;
    counter.terms(&json!({"takes_ms": 0}));
    counter.script("ok; 503; reset_before; 500; ok");
    let id = text(&counter.post(JOBS, &[], job("o-1")).await, "/id");
    let answer = counter.get(&format!("/api/download/{id}")).await;
    assert_eq!((told(&answer), answer.body.len(), answer.whole), ((200, "4", ""), 64 * 1024, true));
    let at: Vec<u64> = counter.seen().iter().skip(1).map(|seen| seen.at_ms).collect();
    let waits: Vec<u64> = at.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(
        waits.iter().zip([30, 60, 90]).all(|(waited, least)| *waited + 1 >= least),
        "{waits:?}"
    );
}

#[tokio::test]
async fn the_ledger_has_every_attempt_the_final_status_and_what_belongs_to_the_job() {
    let counter = counter("").await;
    counter.script("429; ok");
    let id = text(&counter.post(JOBS, &[], job("o-1")).await, "/id");
    let row = counter.row().await;
    let outcomes: Vec<_> = row["attempts"].as_array().expect("a list").iter().collect();
    assert_eq!(outcomes.len(), 2, "{row}");
    assert_eq!((&outcomes[0]["status"], &outcomes[1]["status"]), (&json!(429), &json!(201)));
    assert_eq!(
        (&row["status"], &row["state"], &row["key"]),
        (&json!(201), &json!("completed"), &json!("o-1"))
    );
    let wanted = json!({"job": id, "status": "queued", "credits": "1", "model": "pro",
                        "format": "webm", "user": "u-7"});
    assert_eq!(row["captured"], wanted, "{row}");
}

#[tokio::test]
async fn the_preset_finds_a_job_that_was_lost_by_its_external_job_id() {
    let preset = "[{preset: removebgvideo-create, name: r, match: {hosts: ['*']}, \
                  retry: {backoff: {initial: 1ms, max: 2ms}}}]";
    let counter = Counter::with_routes(Name::Background, preset).await;
    for n in 0..3 {
        counter.post(JOBS, &[], job(&format!("o-{n}"))).await;
    }
    counter.script("reset_after; ok forever");
    let lost = counter.post(JOBS, &[], job("o-3")).await;
    assert_eq!(
        (lost.status.as_u16(), text(&lost, "/error/code").as_str()),
        (502, "upstream_protocol")
    );
    let found = counter.post(JOBS, &[], job("o-3")).await;
    assert_eq!((found.status.as_u16(), found.header("samekey-replay")), (200, "stored"));
    let said = found.json();
    assert_eq!((&said["success"], text(&found, "/id").is_empty()), (&json!(true), false));
    assert_eq!(counter.spent(), (1, 1));
    let asked = counter.seen().into_iter().find(|seen| seen.method == "GET").expect("a lookup");
    assert_eq!(asked.path, "/v1/jobs?limit=100&offset=0");
}

/// The route that a preset has for making jobs, with these further keys.
async fn preset(blocks: &str) -> Counter {
    let blocks = format!("retry: {{{FAST}}}, errors: problem{blocks}");
    Counter::preset(Name::Background, CREATE, &blocks).await
}

#[tokio::test]
async fn a_job_that_may_be_made_is_looked_up_before_another_is() {
    let counter = preset(", lookup: {settle: 1s, every: 1s}").await;
    counter.script("reset_after");
    assert_eq!(counter.post(JOBS, &[], job("o-1")).await.status, 502);
    let again = counter.post(JOBS, &[], job("o-1")).await;
    assert_eq!((again.status.as_u16(), again.header("samekey-replay")), (200, "stored"));
    assert_eq!((counter.asked("POST"), counter.spent()), (1, (1, 1)));
    assert!(counter.asked("GET") >= 1, "it was looked up");
    // It is the job itself that was found.
    let id = text(&again, "/id");
    assert_eq!(text(&counter.get(&format!("{JOBS}/{id}")).await, "/external_job_id"), "o-1");
    // What is not there, twice in a row, is made.
    counter.script("reset_before");
    assert_eq!(counter.post(JOBS, &[], job("o-2")).await.status, 502);
    counter.samekey.logged(&["a lookup settled an unknown outcome", "absent"]).await;
    assert_eq!(counter.post(JOBS, &[], job("o-2")).await.status, 201);
    assert_eq!((counter.asked("POST"), counter.spent()), (2, (1, 1)));
}

#[tokio::test]
async fn no_credits_open_the_breaker_until_there_are_some() {
    let codes = "when: [{json: /error/code, in: [insufficient_credits]}]";
    for (status, after) in [(402, "1h"), (400, "300ms")] {
        let counter = preset(&format!(", breaker: {{{codes}, reset_after: {after}}}")).await;
        counter.terms(&json!({"credits": 0, "broke_status": status}));
        let first = counter.post(JOBS, &[], job("o-1")).await;
        assert_eq!(told(&first), (status, "1", ""), "the provider's own answer");
        let held = counter.post(JOBS, &[], job("o-2")).await;
        assert_eq!(held.said(), (OUT_OF_CREDIT.0, OUT_OF_CREDIT.1.to_owned()));
        assert_eq!((counter.sent(), counter.books().broke), (1, 1), "it was not asked again");
        counter.terms(&json!({"credits": 1}));
        if after == "1h" {
            counter.reset_breakers().await;
        } else {
            tokio::time::sleep(std::time::Duration::from_millis(310)).await;
        }
        let made = counter.post(JOBS, &[], job("o-2")).await;
        assert_eq!((made.status.as_u16(), counter.spent()), (201, (1, 1)), "its key stayed free");
    }
}

#[tokio::test]
async fn a_download_that_breaks_is_resumed_where_it_was() {
    let counter = Counter::with_routes(
        Name::Background,
        &format!(
            "[{}, {}]",
            started("removebgvideo-download", &format!("retry: {{{FAST}}}")),
            started(CREATE, &format!("retry: {{{FAST}}}"))
        ),
    )
    .await;
    counter.terms(&json!({"takes_ms": 0}));
    counter.script("ok; ok; ok cut_at=20000; ok cut_at=50000 cut_by=reset; ok");
    let id = text(&counter.post(JOBS, &[], job("o-1")).await, "/id");
    let output = format!("/api/download/{id}");
    let whole = counter.get(&output).await;
    let resumed = counter.get(&output).await;
    assert!(resumed.whole && resumed.body == whole.body, "{} bytes", resumed.body.len());
    let ranges: Vec<String> = counter.seen()[2..].iter().map(|seen| field(seen, "range")).collect();
    assert_eq!(ranges[..2], ["", "bytes=20000-65535"]);
    // A reset may take bytes along that were on their way.
    let last = ranges[2].strip_prefix("bytes=").and_then(|range| range.strip_suffix("-65535"));
    let last: u64 = last.and_then(|first| first.parse().ok()).expect("a range");
    assert!((20_000..=50_000).contains(&last) && ranges.len() == 3, "{ranges:?}");
    assert_eq!(counter.spent(), (1, 1));
}

#[tokio::test]
async fn input_and_model_are_captured_from_the_request() {
    let capture = "idempotency: {upstream_dedupes: false, capture: {job_id: /id, \
         input: 'request:/video_url', model: 'request:/model', format: 'request:/format', \
         user: 'request:/user_id', credits: /credits}}";
    let counter = preset(&format!(", {capture}")).await;
    let asked = json!({"input": "https://a.test/in.mp4", "model": "pro", "format": "webm",
                       "user": "u-7"});
    let id = text(&counter.post(JOBS, &[], job("o-1")).await, "/id");
    let mut wanted = asked.clone();
    (wanted["job_id"], wanted["credits"]) = (json!(id), json!("1"));
    let row = counter.row().await;
    assert_eq!((&row["captured"], &row["state"]), (&wanted, &json!("completed")));
    // And so they are where no answer came.
    counter.script("reset_after");
    counter.post(JOBS, &[], job("o-2")).await;
    let row = counter.row().await;
    assert_eq!((&row["captured"], &row["state"]), (&asked, &json!("unknown")));
    assert_eq!(counter.spent(), (1, 1));
}

#[tokio::test]
async fn a_payload_that_breaks_the_schema_spends_nothing() {
    let schema = r#"{"type": "object", "required": ["video_url"], "properties":
        {"video_url": {"type": "string"}, "model": {"enum": ["pro", "fast"]}}}"#;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("job.json");
    std::fs::write(&file, schema).expect("written");
    let counter = preset(&format!(", schema: {}", file.display())).await;
    let mut wrong = job("o-1");
    wrong["model"] = json!("best");
    for wrong in [json!({"external_job_id": "o-1"}), wrong] {
        let told = counter.post(JOBS, &[], wrong).await;
        assert_eq!(told.said(), (400, "bad-request".to_owned()));
    }
    assert_eq!((counter.sent(), counter.spent()), (0, (0, 0)));
    let made = counter.post(JOBS, &[], job("o-1")).await;
    assert_eq!((made.status.as_u16(), counter.spent()), (201, (1, 1)), "the id is free");
}
