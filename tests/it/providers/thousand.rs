//! A thousand creating calls to each provider, one in five of the requests broken somehow.
//!
//! Each call is about an event of its own, which its client names, and it is made again
//! until it is answered or told that nobody knows. What the provider did is held against
//! what the clients were told: money is spent on effects alone, on none of them twice,
//! and where a client was not answered samekey names the unknown. Where the provider can
//! be asked, each of those is settled in the end, as it was.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use serde_json::json;

use super::{Counter, EVENT};
use crate::provider::apis::Name;
use crate::provider::faults::Faults;
use crate::provider::{Options, Provider};
use crate::support::{Answer, Client, Samekey};

/// How a call ended for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// With the provider's answer.
    Answered,
    /// It was done, and its answer was lost on the way in.
    NotRetained,
    /// Nobody knows: the exchange that is to be settled.
    Unknown(String),
}

/// One provider's creating call, for an event.
struct Order {
    path: &'static str,
    media: &'static str,
    body: fn(&str) -> String,
    blocks: &'static str,
    /// The field that names the event; `None` where the body does.
    names: Option<&'static str>,
    /// Set where the provider honours keys.
    exact: bool,
    /// Set where the provider can be asked what became of an event.
    settles: bool,
}

fn order(api: Name) -> Order {
    const JSON: &str = "application/json";
    const NO_KEYS: &str = "idempotency: {upstream_dedupes: false}";
    let plain = |path, media, body| Order {
        path,
        media,
        body,
        blocks: NO_KEYS,
        names: Some(EVENT),
        exact: false,
        settles: false,
    };
    match api {
        Name::Background => Order {
            blocks: "idempotency: {header: {json: /external_job_id}, upstream_dedupes: false}, \
                 lookup: {request: '/v1/jobs?limit=100&offset={page}00', items: /jobs, \
                 match: /external_job_id, next: {page: 0}, pages: 20, status: 201, settle: 1s, every: 1s}",
            names: None,
            settles: true,
            ..plain("/v1/jobs", JSON, |event| {
                json!({"video_url": "u", "external_job_id": event}).to_string()
            })
        },
        Name::Movies => Order {
            blocks: "idempotency: {upstream_dedupes: false}, \
                 lookup: {tag: {json: /client-data/samekey}, request: \
                 '/v2/movies?from={since:date}&to={until:date}&limit=100&next_token={cursor}', \
                 items: /movies, match: /client-data/samekey, next: {cursor: /next_token}, \
                 pages: 20, answer: {success: true, project: '{json:/project}'}, \
                 settle: 1s, every: 1s}",
            settles: true,
            ..plain("/v2/movies", JSON, |event| {
                json!({"scenes": [], "client-data": {"order": event}}).to_string()
            })
        },
        Name::Images => Order {
            blocks: "idempotency: {upstream_dedupes: false}, limits: {concurrency: 5}",
            ..plain("/v1/remove-background", "application/x-www-form-urlencoded", |event| {
                format!("image_url={event}")
            })
        },
        Name::Generation => Order {
            blocks: "idempotency: {upstream_dedupes: true}, limits: {concurrency: 10}",
            exact: true,
            ..plain("/v1/models/sketch", JSON, |event| {
                json!({"input": {"prompt": event}}).to_string()
            })
        },
        Name::Charges | Name::Completions | Name::Storage | Name::Repository => {
            unreachable!("they are none of the four")
        }
    }
}

/// One call, made again as a careful client would.
async fn call(counter: &Counter, order: &Order, event: &str) -> End {
    let mut headers = vec![("content-type", order.media)];
    headers.extend(order.names.map(|name| (name, event)));
    let body = (order.body)(event);
    for _ in 0..TRIES {
        let Ok(answer) = counter.try_post(order.path, &headers, &body).await else { continue };
        if answer.status.is_success() && answer.whole {
            return End::Answered;
        }
        if let Some(end) = settled(&answer) {
            return end;
        }
    }
    panic!("{event} was neither answered nor unknown after {TRIES} tries")
}

fn settled(answer: &Answer) -> Option<End> {
    let (_, slug) = answer.said();
    match slug.as_str() {
        "outcome-unknown" => {
            let detail = answer.json()["detail"].as_str().expect("a detail").to_owned();
            let words: Vec<_> = detail.split(|c: char| c == ',' || c.is_whitespace()).collect();
            let at = words.iter().position(|word| *word == "exchange").expect("it names one");
            Some(End::Unknown(words[at + 1].to_owned()))
        }
        "response-not-retained" => Some(End::NotRetained),
        _ => None,
    }
}

async fn check(api: Name) {
    let order = order(api);
    let faults: Faults = format!("{}:20", api as u64 + 11).parse().expect("faults");
    // What lists that break prove is in `lookup.rs`; here each would be read a dozen times.
    let faults = Some(faults.sparing_reads());
    let options = Options { apis: vec![api], faults, ..Options::default() };
    let provider = Provider::start(options).await.expect("a provider");
    provider.sites.terms(api, &json!({"per_minute": 1_000_000}));
    let routes = format!(
        "routes: [{{name: r, match: {{hosts: ['*']}}, {}, retry: {{attempt_timeout: 1s, \
         body_idle_timeout: 1s, backoff: {{initial: 2ms, max: 20ms}}, budget: {{burst: 1000}}}}}}]\n",
        order.blocks
    );
    let samekey = Samekey::beside(&provider, &routes).await;
    let client = Client::through(&samekey);
    let counter = Counter { provider, samekey, client, api };
    let ends: BTreeMap<String, End> = stream::iter(0..CALLS)
        .map(|n| {
            let (counter, order) = (&counter, &order);
            async move {
                let event = format!("order-{n}");
                let end = call(counter, order, &event).await;
                (event, end)
            }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;

    assert_eq!(ends.len(), CALLS);
    let settled = if order.settles { Some(settle(&counter, &ends).await) } else { None };
    let books = counter.books();
    assert_eq!(books.spent, books.effects as u64, "{api:?}: credits are spent on effects alone");
    assert_eq!(books.limited, 0, "{api:?}: no limit of the provider's was passed");
    let twice: Vec<_> = books.events.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{api:?}: done more than once: {twice:?}");
    let mut unknown = 0;
    for (event, end) in &ends {
        let done = books.events.contains_key(event);
        match (end, &settled) {
            (End::Answered | End::NotRetained, _) => {
                assert!(done, "{api:?}: {event} was not done: {end:?}");
            }
            (End::Unknown(exchange), None) => {
                unknown += 1;
                let state = state(&counter, exchange).await;
                assert_eq!(state, "unknown", "{api:?}: {event}");
            }
            (End::Unknown(_), Some(settled)) => {
                unknown += 1;
                let wanted = if done { "completed" } else { "released" };
                assert_eq!(settled[event], wanted, "{api:?}: {event} was settled as it was");
            }
        }
    }
    let undone = CALLS - books.events.len();
    assert!(undone <= unknown, "{api:?}: {undone} not done, {unknown} named unknown");
    let broken = counter.seen().iter().filter(|seen| seen.step != "ok").count();
    assert!(broken > CALLS / 10, "{api:?}: the faults were there: {broken}");
    if order.exact {
        assert_eq!((books.effects, unknown), (CALLS, 0), "{api:?}");
        return;
    }
    // Twelve of the twenty faults leave a call unknown: twelve calls in a hundred, or so.
    assert!((1..CALLS / 5).contains(&unknown), "{api:?}: {unknown} unknown");
    if order.settles {
        again(&counter, &order, &ends).await;
        let books = counter.books();
        assert_eq!((books.effects, books.spent), (CALLS, CALLS as u64), "{api:?}: in the end");
    }
}

/// The state of an exchange.
async fn state(counter: &Counter, exchange: &str) -> String {
    let row = counter.admin(&format!("/api/exchanges/{exchange}")).await;
    row["state"].as_str().expect("a state").to_owned()
}

/// Waits until no named unknown is one any more: what became of each, by its event.
async fn settle(counter: &Counter, ends: &BTreeMap<String, End>) -> BTreeMap<String, String> {
    let mut settled = BTreeMap::new();
    for (event, end) in ends {
        let End::Unknown(exchange) = end else { continue };
        let known = async {
            loop {
                let state = state(counter, exchange).await;
                // A key that is free is claimed for a moment by who asks whether it is unknown.
                if state != "unknown" && state != "in_flight" {
                    return state;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let known = tokio::time::timeout(SETTLED_BY, known).await;
        let state = known.unwrap_or_else(|_late| panic!("{event} stays unknown"));
        settled.insert(event.clone(), state);
    }
    settled
}

/// Makes the calls again that were unknown: what was done is answered, the rest is done now.
async fn again(counter: &Counter, order: &Order, ends: &BTreeMap<String, End>) {
    let mut left: Vec<&String> =
        ends.iter().filter(|(_, end)| matches!(end, End::Unknown(_))).map(|it| it.0).collect();
    while !left.is_empty() {
        let calls: Vec<_> = stream::iter(left)
            .map(|event| async move { (event, call(counter, order, event).await) })
            .buffered(AT_ONCE)
            .collect()
            .await;
        let (mut ends, mut unknown) = (BTreeMap::new(), Vec::new());
        for (event, end) in calls {
            if matches!(end, End::Unknown(_)) {
                ends.insert(event.clone(), end);
                unknown.push(event);
            }
        }
        settle(counter, &ends).await;
        left = unknown;
    }
}

#[tokio::test]
async fn of_a_thousand_jobs_each_is_done_once_or_a_named_unknown() {
    check(Name::Background).await;
}

#[tokio::test]
async fn of_a_thousand_movies_each_is_done_once_or_a_named_unknown() {
    check(Name::Movies).await;
}

#[tokio::test]
async fn of_a_thousand_images_each_is_done_once_or_a_named_unknown() {
    check(Name::Images).await;
}

#[tokio::test]
async fn of_a_thousand_generations_each_is_done_exactly_once() {
    check(Name::Generation).await;
}

/// Creating calls to each provider.
const CALLS: usize = 1000;
/// Clients that call at one time.
const AT_ONCE: usize = 20;
/// How long an unknown may take to be settled, by readings that are broken as often as calls.
const SETTLED_BY: Duration = Duration::from_mins(1);
/// How often a client makes a call; with one request in five broken, far more than it takes.
const TRIES: usize = 40;
