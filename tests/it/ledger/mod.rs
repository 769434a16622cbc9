//! The ledger: read and settled through the admin side and the command line.

mod command;

use std::path::Path;
use std::sync::Arc;

use http::Method;
use rustix::process::Signal;
use samekey::exchange::id::ExchangeId;
use samekey::journal::key::{Found, Reserve, Settle, Settled};
use samekey::journal::ledger::{Attempt, Note, captured_text, written};
use samekey::journal::{Clock, Durability, Journal, Moment, NewRow, Options, State};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::support::program::{Ran, folder_with, samekey};
use crate::support::{Answer, Samekey, client};

const CONFIG: &str = "listeners: [{address: '127.0.0.1:0'}]\nadmin: {address: '127.0.0.1:0'}\n\
                      state: {dir: state, journal: disk}\n";
/// 2025-01-01, in microseconds.
const START: i64 = 1_735_689_600_000_000;
const DAY: i64 = 86_400_000_000;

/// A journal in a test's own folder, and what is written into it.
struct Seed {
    journal: Journal,
}

impl Seed {
    fn open(folder: &Path) -> Self {
        let options = Options {
            folder: folder.join("state/journal"),
            durability: Durability::Process,
            bytes_max: 1 << 30,
            ledger_micros: 90 * DAY,
            clock: Clock::System,
        };
        Self { journal: Journal::open(options).expect("a journal") }
    }

    /// What began `nth` seconds after the year did.
    fn row(&self, nth: u32, route: &str, key: &str) -> NewRow {
        let now = self.journal.now();
        let wall = START + i64::from(nth) * 1_000_000;
        NewRow {
            seq: wall.cast_unsigned(),
            instance: 7,
            key: key.to_owned(),
            route: route.to_owned(),
            method: "POST".to_owned(),
            url: format!("https://a.test/v1/jobs/{nth}?id="),
            captured: None,
            began: Moment { wall, ..now },
        }
    }

    async fn in_flight(&self, nth: u32, route: &str, key: &str) {
        let scope = u8::try_from(nth).expect("few");
        let reserve = Reserve {
            tag: None,
            row: self.row(nth, route, key),
            id: [scope; 32],
            epoch: 1,
            fingerprint: Some([9; 32]),
            scope: None,
        };
        let found = self.journal.reserve(reserve).await.expect("it is written");
        assert!(matches!(found, Found::Claimed), "{found:?}");
    }

    async fn ended(&self, nth: u32, route: &str, key: &str, state: State) {
        self.in_flight(nth, route, key).await;
        let settle = Settle {
            state,
            holds: matches!(state, State::Completed | State::Unknown),
            status: (state == State::Completed).then_some(201),
            attempts: attempts(nth),
            fingerprint: None,
            captured: captured_text(&[("job".to_owned(), format!("j-{nth}"))]),
            answer: None,
            ttl: DAY,
            keep: 90 * DAY,
        };
        let seq = self.row(nth, route, key).seq;
        let settled = self.journal.settle(seq, 1, settle).await.expect("it is written");
        assert_ne!(settled, Settled::Late);
    }

    /// One without a key.
    async fn noted(&self, nth: u32, route: &str) {
        let (row, attempts) = (self.row(nth, route, ""), attempts(nth));
        let (state, status, ended) = (State::Failed, Some(503), row.began.wall);
        assert!(self.journal.note(Note { row, state, status, attempts, captured: None, ended }));
        self.journal.newest().await.expect("it is written after it");
    }

    /// Five rows; the newest is the fifth.
    async fn five(folder: &Path) {
        let seed = Self::open(folder);
        seed.ended(1, "jobs", "order/1", State::Completed).await;
        seed.ended(2, "jobs", "k-2", State::Unknown).await;
        seed.noted(3, "other").await;
        seed.ended(4, "jobs", "k-4", State::Released).await;
        seed.ended(5, "other", "k-5", State::Completed).await;
    }
}

/// Throttled, and then sent on its way.
fn attempts(nth: u32) -> String {
    let at = START + i64::from(nth) * 1_000_000;
    let attempt = |outcome: &str, status, wait_ms, at| {
        written(&Attempt { outcome: outcome.to_owned(), status, wait_ms, at })
    };
    let first = attempt("throttled", Some(429), 0, at + 1000);
    [first, attempt("done", Some(201), 250, at + 251_000)].join(",")
}

fn id(nth: u32) -> String {
    ExchangeId::from_parts((START + i64::from(nth) * 1_000_000).cast_unsigned(), 7).to_string()
}

/// A sidecar on the five rows.
async fn on_five() -> Samekey {
    let folder = folder_with(CONFIG);
    Seed::five(folder.path()).await;
    Samekey::run_in(Arc::new(folder)).await
}

async fn ask(running: &Samekey, method: Method, path: &str, body: &str) -> Answer {
    ask_as(running, method, path, &[], body).await
}

async fn ask_as(
    running: &Samekey,
    method: Method,
    path: &str,
    fields: &[(&str, &str)],
    body: &str,
) -> Answer {
    let stream = TcpStream::connect(running.admin).await.expect("it listens");
    let uri: http::Uri = format!("http://{}{path}", running.admin).parse().expect("a URL");
    let mut request = client::request(method, &uri, &[], body);
    for (name, value) in fields {
        let name: http::HeaderName = name.parse().expect("a name");
        request.headers_mut().insert(name, value.parse().expect("a value"));
    }
    client::over_http1(stream, request).await.expect("an answer")
}

/// Lists by a query: the names of the exchanges, and where the next page begins.
async fn listed(running: &Samekey, query: &str) -> (Vec<String>, Option<String>) {
    let answer = ask(running, Method::GET, &format!("/api/exchanges{query}"), "").await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    let page = answer.json();
    assert_eq!(page.as_object().expect("an object").len(), 2, "{page}");
    let ids = page["exchanges"].as_array().expect("a list").iter();
    let ids = ids.map(|one| one["id"].as_str().expect("a name").to_owned());
    (ids.collect(), page["next"].as_str().map(str::to_owned))
}

fn ids(nths: &[u32]) -> Vec<String> {
    nths.iter().map(|nth| id(*nth)).collect()
}

/// Wants a problem of this status that says these words.
fn check_problem(answer: &Answer, status: u16, words: &[&str]) {
    let text = answer.text();
    assert_eq!(answer.status, status, "{text}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{text}");
    let problem = answer.json();
    assert_eq!(problem["status"], status, "{text}");
    let detail = problem["detail"].as_str().expect("a sentence");
    for word in words {
        assert!(detail.contains(word), "`{word}` is not in: {detail}");
    }
}

fn check_ran(ran: &Ran, code: i32, out: &[&str], err: &[&str]) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    for word in out {
        assert!(ran.out.contains(word), "`{word}` is not in:\n{}", ran.out);
    }
    for word in err {
        assert!(ran.err.contains(word), "`{word}` is not in:\n{}", ran.err);
    }
    assert!(!err.is_empty() || ran.err.is_empty(), "{}", ran.err);
}

async fn stop(mut running: Samekey) -> Arc<TempDir> {
    running.signal(Signal::TERM);
    assert!(running.ended().await.success());
    running.folder.clone()
}

#[tokio::test]
async fn an_exchange_has_these_members_and_no_others() {
    let running = on_five().await;
    let answer = ask(&running, Method::GET, &format!("/api/exchanges/{}", id(1)), "").await;
    let mut exchange = answer.json();
    let ended = exchange["ended_at"].take();
    let ended = ended.as_str().expect("it ended").to_owned();
    let wanted = json!({
        "id": id(1), "route": "jobs", "method": "POST", "url": "https://a.test/v1/jobs/1?id=",
        "key": "order/1", "state": "completed", "status": 201, "captured": {"job": "j-1"},
        "attempts": [
            {"outcome": "throttled", "status": 429, "wait_ms": 0, "at": "2025-01-01T00:00:01.001Z"},
            {"outcome": "done", "status": 201, "wait_ms": 250, "at": "2025-01-01T00:00:01.251Z"},
        ],
        "started_at": "2025-01-01T00:00:01.000Z", "ended_at": null,
    });
    assert_eq!(exchange, wanted);
    assert!(ended.len() == 24 && ended.ends_with('Z') && *ended > *"2025-01-01", "{ended}");
    let noted = ask(&running, Method::GET, &format!("/api/exchanges/{}", id(3)), "").await.json();
    assert_eq!((&noted["key"], &noted["state"]), (&Value::Null, &"failed".into()));
    assert_eq!((&noted["captured"], &noted["status"]), (&json!({}), &503.into()));
    for unknown in [id(9), id(1).to_uppercase(), "1".to_owned(), "%ff".to_owned()] {
        let path = format!("/api/exchanges/{unknown}");
        check_problem(&ask(&running, Method::GET, &path, "").await, 404, &["exchange"]);
    }
}

#[tokio::test]
async fn lists_are_filtered_and_paged_while_new_ones_come() {
    let running = on_five().await;
    assert_eq!(listed(&running, "").await, (ids(&[5, 4, 3, 2, 1]), None));
    for (query, wanted) in [
        ("?route=jobs", &[4, 2, 1][..]),
        ("?key=order%2F1", &[1]),
        ("?key=order/1", &[1]),
        ("?state=completed", &[5, 1]),
        ("?state=unknown", &[2]),
        ("?captured=job:j-1", &[1]),
        ("?captured=job%3Aj-2&state=unknown", &[2]),
        ("?captured=job:j-2&state=completed", &[]),
        ("?captured=job:j", &[]),
        ("?captured=", &[5, 4, 3, 2, 1]),
        ("?state=failed", &[3]),
        ("?state=in_flight", &[]),
        ("?route=other&state=completed&key=k-5&limit=1000", &[5]),
        ("?route=&key=&state=&limit=&cursor=", &[5, 4, 3, 2, 1]),
        ("?route=none", &[]),
    ] {
        assert_eq!(listed(&running, query).await, (ids(wanted), None), "{query}");
    }
    let (first, next) = listed(&running, "?limit=2").await;
    assert_eq!(first, ids(&[5, 4]));
    let later = Seed::open(running.folder.path());
    later.noted(6, "jobs").await;
    later.noted(7, "jobs").await;
    let page = |next: Option<String>| format!("?limit=2&cursor={}", next.expect("there is more"));
    let (second, next) = listed(&running, &page(next)).await;
    assert_eq!(second, ids(&[3, 2]));
    assert_eq!(listed(&running, &page(next)).await, (ids(&[1]), None));
    assert_eq!(listed(&running, "?limit=2").await.0, ids(&[7, 6]));
    let (whole, next) = listed(&running, "?limit=7").await;
    assert_eq!((whole.len(), next), (7, None), "a page that is just full has none after it");
}

#[tokio::test]
async fn a_parameter_that_is_wrong_is_named() {
    let running = on_five().await;
    for (query, words) in [
        ("?state=lost", &["state:", "in_flight, completed, unknown, released or failed"][..]),
        ("?limit=0", &["limit:", "1 to 1000"]),
        ("?limit=1001", &["limit:"]),
        ("?limit=x", &["limit:"]),
        ("?captured=job", &["captured:", "NAME:VALUE"]),
        ("?cursor=zzz", &["cursor:", "next"]),
        ("?colour=red", &["`colour`", "route, key, state, captured, limit and cursor"]),
        ("?limit=1&limit=2", &["limit:", "twice"]),
    ] {
        let answer = ask(&running, Method::GET, &format!("/api/exchanges{query}"), "").await;
        check_problem(&answer, 400, words);
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_settled_once() {
    let running = on_five().await;
    let path = format!("/api/exchanges/{}/resolve", id(2));
    let wanted = r#"{"outcome": "landed"} or {"outcome": "absent"}"#;
    for body in ["", "landed", "{}", r#"{"outcome":"lost"}"#, r#"{"outcome":"landed","x":1}"#, "[]"]
    {
        check_problem(&ask(&running, Method::POST, &path, body).await, 400, &[wanted]);
    }
    let long = format!(r#"{{"outcome":"landed"{}}}"#, " ".repeat(4096));
    check_problem(&ask(&running, Method::POST, &path, &long).await, 413, &["4096"]);
    let body = r#"{"outcome":"landed"}"#;
    let missing = format!("/api/exchanges/{}/resolve", id(9));
    check_problem(&ask(&running, Method::POST, &missing, body).await, 404, &[&id(9)]);
    for (nth, state) in [(1, "completed"), (3, "failed"), (4, "released")] {
        let path = format!("/api/exchanges/{}/resolve", id(nth));
        check_problem(&ask(&running, Method::POST, &path, body).await, 409, &[state, &id(nth)]);
    }
    let fits = format!("{body}{}", " ".repeat(4096 - body.len()));
    let settled = ask(&running, Method::POST, &path, &fits).await;
    assert_eq!(settled.status, 200, "{}", settled.text());
    let settled = settled.json();
    assert_eq!((&settled["id"], &settled["state"]), (&id(2).into(), &"completed".into()));
    let shown = ask(&running, Method::GET, &format!("/api/exchanges/{}", id(2)), "").await;
    assert_eq!(shown.json(), settled);
    check_problem(&ask(&running, Method::POST, &path, body).await, 409, &["completed"]);
}

#[tokio::test]
async fn a_key_is_shown_and_freed_unless_its_outcome_is_open() {
    let folder = folder_with(CONFIG);
    Seed::five(folder.path()).await;
    // In another scope, and later.
    Seed::open(folder.path()).ended(6, "jobs", "order/1", State::Completed).await;
    let running = Samekey::run_in(Arc::new(folder)).await;
    for path in ["/api/keys/order%2F1", "/api/keys/order/1"] {
        let key = ask(&running, Method::GET, path, "").await.json();
        assert_eq!((&key["key"], &key["state"]), (&"order/1".into(), &"completed".into()));
        assert_eq!(key["exchanges"][0]["id"], id(6), "newest first");
        assert_eq!(key["exchanges"][1]["id"], id(1));
        assert_eq!(key.as_object().expect("an object").len(), 3);
    }
    let freed =
        async |key: &str| ask(&running, Method::DELETE, &format!("/api/keys/{key}"), "").await;
    assert_eq!(freed("order%2F1").await.json(), json!({"key": "order/1", "freed": 2}));
    assert_eq!(freed("order%2F1").await.json(), json!({"key": "order/1", "freed": 0}));
    assert_eq!(freed("k-4").await.json(), json!({"key": "k-4", "freed": 0}));
    assert_eq!(listed(&running, "?key=order/1").await.0.len(), 2, "its rows stay");
    check_problem(&freed("k-2").await, 409, &[&id(2), "unknown", "resolve"]);
    check_problem(&freed("none").await, 404, &["key"]);
    check_problem(&ask(&running, Method::GET, "/api/keys/none", "").await, 404, &["key"]);
    check_problem(&freed("%ff").await, 404, &["key"]);
    // Under way: by hands that the sidecar does not know of.
    Seed::open(running.folder.path()).in_flight(8, "jobs", "k-8").await;
    check_problem(&freed("k-8").await, 409, &[&id(8), "in_flight"]);
}

#[tokio::test]
async fn no_web_page_reads_or_settles_the_ledger() {
    let running = on_five().await;
    let resolve = format!("/api/exchanges/{}/resolve", id(2));
    for (method, path) in [
        (Method::GET, "/api/exchanges"),
        (Method::GET, "/api/keys/k-2"),
        (Method::GET, "/api/events"),
        (Method::DELETE, "/api/keys/k-5"),
        (Method::POST, resolve.as_str()),
    ] {
        for field in [("host", "evil.test"), ("origin", "http://evil.test"), ("origin", "null")] {
            let body = r#"{"outcome":"absent"}"#;
            let answer = ask_as(&running, method.clone(), path, &[field], body).await;
            check_problem(&answer, 403, &["web page"]);
        }
    }
    assert_eq!(listed(&running, "?state=unknown").await.0, ids(&[2]), "nothing was settled");
}

#[tokio::test]
async fn events_end_when_draining_begins() {
    let running = on_five().await;
    let stream = TcpStream::connect(running.admin).await.expect("it listens");
    let uri: http::Uri = format!("http://{}/api/events", running.admin).parse().expect("a URL");
    let request = client::request(Method::GET, &uri, &[], "");
    let (answer, ()) = tokio::join!(client::over_http1(stream, request), async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        running.signal(Signal::TERM);
    });
    let answer = answer.expect("an answer");
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(answer.text(), "");
}
