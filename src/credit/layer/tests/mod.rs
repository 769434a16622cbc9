//! Effects on their way, against an upstream with a script.

mod balance;
mod estimate;

use std::time::Duration;

use http::{HeaderName, Method};
use tokio::time::advance;

use super::*;
use crate::credit::{
    Accounts, BreakerRule, Credentials, KeyPlace, OnFailure, Place, Rules, Target, Wildcards,
};
use crate::exchange::body::{Caps, Room};
use crate::exchange::tests::{Scripted, data, full, request, response, rest, streamed};
use crate::exchange::{Body, Condition, Effects, Pointer, Scalar, Statuses};
use crate::metrics::Metrics;

const AFTER: Duration = Duration::from_mins(5);
const EVERY: Duration = Duration::from_mins(1);
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const OUT: &str = r#"{"error": {"code": "insufficient_credits"}}"#;

fn pointer(text: &str) -> Pointer {
    Pointer::parse(text).expect("a pointer")
}

fn amount(text: &str) -> Amount {
    Amount::parse(text).expect("a number")
}

/// Opens on a 402, or on what `OUT` says.
fn breaker() -> Rules {
    let values = vec![Scalar::String("insufficient_credits".to_owned())];
    let when = vec![Condition { pointer: pointer("/error/code"), values }];
    let statuses = Statuses::NONE.with(402);
    Rules { breaker: Some(BreakerRule { when, statuses, reset_after: AFTER }), ..Rules::default() }
}

/// Asks for the balance as well.
fn preflight() -> Rules {
    let path = http::uri::PathAndQuery::from_static("/account");
    let place = Arc::new(Place { path, json: pointer("/credits") });
    let preflight = Preflight { place, at_least: amount("1"), every: EVERY };
    Rules { preflight: Some(preflight), ..breaker() }
}

/// Asks for the cost alone.
fn estimate(on_failure: OnFailure) -> Rules {
    let target = Target::parse("/v1/{model}/estimate").expect("a target");
    let (json, at_most) = (pointer("/credits"), amount("50"));
    let estimate = Estimate { target, json, at_most, on_failure };
    Rules { estimate: Some(estimate), ..Rules::default() }
}

/// A route that asks for something, and all that can be seen of it.
#[derive(Clone)]
struct Bench {
    credit: Credit<Scripted>,
    upstream: Scripted,
    metrics: Metrics,
    accounts: Accounts,
}

fn bench(rules: Rules) -> Bench {
    bench_that(rules, |_terms| ())
}

fn bench_that(rules: Rules, tuned: impl FnOnce(&mut Terms)) -> Bench {
    let (metrics, upstream, accounts) = (Metrics::new(), Scripted::default(), Accounts::new(8));
    let mut terms = Terms {
        rules,
        effects: Effects::ByMethod,
        accounts: accounts.clone(),
        credentials: Credentials::default(),
        key: KeyPlace::Header(HeaderName::from_static("idempotency-key")),
        wildcards: Wildcards::new(|path| {
            path.rsplit('/').next().map(str::to_owned).into_iter().collect()
        }),
        caps: Caps { memory: 8, disk: 8 },
        room: Room::new(std::env::temp_dir(), 1024, 0),
        observes: false,
        metrics: metrics.credit("r"),
    };
    tuned(&mut terms);
    let credit = CreditLayer::new(Some(terms)).layer(upstream.clone());
    Bench { credit, upstream, metrics, accounts }
}

impl Bench {
    fn json(&self, status: u16, text: &'static str) -> &Self {
        self.upstream.answer(Ok(response(status, JSON, full(text))));
        self
    }

    async fn send(&self, request: Request) -> Result<Response, Failure> {
        self.credit.clone().call(request).await
    }

    /// Sends an order, and says what became of it: a status, or why none.
    async fn order(&self) -> String {
        self.told(post()).await
    }

    async fn told(&self, request: Request) -> String {
        match self.send(request).await {
            Ok(response) => response.status.as_str().to_owned(),
            Err(Failure::InsufficientCredits { retry_after: Some(wait), .. }) => {
                format!("refused for {wait:?}")
            }
            Err(Failure::InsufficientCredits { detail, .. }) => detail,
            Err(other) => format!("failed: {other}"),
        }
    }

    fn sent(&self) -> usize {
        self.upstream.calls().len()
    }

    fn counts(&self, series: &str) -> bool {
        self.metrics.text().contains(&format!("samekey_{series}\n"))
    }
}

fn post() -> Request {
    request(Method::POST, full("{}"))
}

fn of_caller(caller: u8) -> Request {
    let mut request = post();
    request.caller = [caller; 32];
    request
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_says_so_opens_the_breaker_and_reaches_its_client_whole() {
    for (status, text) in [(402, "{}"), (400, OUT), (429, OUT), (503, OUT)] {
        let bench = bench(breaker());
        bench.json(status, text);
        let mut answer = bench.send(post()).await.expect("it was sent");
        assert_eq!(
            (answer.status.as_u16(), rest(&mut answer.body).await),
            (status, text.to_owned())
        );
        assert_eq!(bench.order().await, "refused for 300s", "after {status} {text}");
        assert_eq!(bench.sent(), 1, "nothing is sent");
        assert!(bench.counts("breakers_open{route=\"r\"} 1"));
        assert!(bench.counts("calls_saved_total{kind=\"refused\",route=\"r\"} 1"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_says_something_else_opens_nothing() {
    let bench = bench(breaker());
    bench.json(400, r#"{"error": {"code": "invalid"}}"#).json(500, "no JSON").json(200, OUT);
    bench.upstream.answer(Ok(response(400, &[], full(OUT)))); // not said to be JSON
    bench.upstream.answer(Err(Failure::Refused));
    bench.json(201, "{}");
    for wanted in ["400", "500", "200", "400"] {
        assert_eq!(bench.order().await, wanted);
    }
    assert!(bench.order().await.starts_with("failed"));
    assert_eq!(bench.order().await, "201");
}

#[tokio::test(start_paused = true)]
async fn only_effects_of_that_credential_and_upstream_are_refused() {
    let bench = bench(breaker());
    bench.json(402, "{}");
    assert_eq!(bench.order().await, "402");
    bench.json(200, "{}").json(200, "{}").json(200, "{}");
    assert_eq!(bench.told(request(Method::GET, Body::empty())).await, "200", "a read");
    assert_eq!(bench.told(of_caller(8)).await, "200", "another credential");
    let mut elsewhere = post();
    elsewhere.origin = crate::exchange::Origin::parse("https://b.test").expect("an origin");
    assert_eq!(bench.told(elsewhere).await, "200", "another upstream");
    assert_eq!(bench.order().await, "refused for 300s");
}

#[tokio::test(start_paused = true)]
async fn when_its_time_is_over_one_goes_first_and_decides() {
    let bench = bench(breaker());
    bench.json(402, "{}");
    bench.order().await;
    advance(AFTER).await;
    bench.upstream.answer_after(AFTER / 2, Ok(response(402, JSON, full("{}"))));
    let others = async {
        tokio::task::yield_now().await;
        bench.order().await
    };
    let (first, second) = tokio::join!(bench.order(), others);
    assert_eq!((first.as_str(), second.as_str()), ("402", "refused for 1s"));
    assert_eq!(bench.order().await, "refused for 300s", "it is open again");
    advance(AFTER).await;
    bench.json(500, "{}").json(201, "{}").json(201, "{}");
    assert_eq!(bench.order().await, "500", "that says nothing");
    assert_eq!(bench.order().await, "201", "the next one tries, and closes it");
    assert_eq!(bench.order().await, "201");
    assert!(bench.counts("breakers_open{route=\"r\"} 0"));
}

#[tokio::test(start_paused = true)]
async fn what_the_upstream_said_before_neither_opens_nor_closes() {
    let bench = bench(breaker());
    let replayed = |status| {
        let request = post();
        request.trail.with(|notes| {
            notes.attempts.push(crate::exchange::trail::Attempt {
                outcome: crate::exchange::Outcome::Replayed,
                status: None,
                did_nothing: true,
                waited: Duration::ZERO,
                at: std::time::SystemTime::now(),
            });
        });
        bench.json(status, "{}");
        bench.told(request)
    };
    assert_eq!(replayed(402).await, "402");
    bench.json(402, "{}");
    assert_eq!(bench.order().await, "402", "nothing was open");
    advance(AFTER).await;
    assert_eq!(replayed(200).await, "200");
    bench.json(402, "{}");
    assert_eq!(bench.order().await, "402", "it goes first: nothing was closed");
    assert_eq!(bench.order().await, "refused for 300s");
}

#[tokio::test(start_paused = true)]
async fn a_route_that_observes_counts_and_refuses_nothing() {
    let rules = Rules { estimate: estimate(OnFailure::Refuse).estimate, ..preflight() };
    let bench = bench_that(rules.clone(), |terms| terms.observes = true);
    bench.json(200, r#"{"credits": 0}"#).json(200, r#"{"credits": 99}"#).json(201, "{}");
    assert_eq!(bench.order().await, "201");
    assert!(bench.counts("calls_saved_total{kind=\"refused\",route=\"r\"} 2"));
    assert!(bench.counts("breakers_open{route=\"r\"} 1"));
    let enforcing = Rules { preflight: None, estimate: None, ..rules };
    let other = bench_that(enforcing, |terms| terms.accounts = bench.accounts.clone());
    other.json(201, "{}");
    assert_eq!(other.order().await, "201", "what an observer found holds nobody back");
}

#[tokio::test(start_paused = true)]
async fn a_route_that_asks_for_nothing_adds_nothing() {
    let upstream = Scripted::default();
    let mut credit = CreditLayer::new(None).layer(upstream.clone());
    upstream.status(201, &[]);
    assert_eq!(credit.call(post()).await.expect("an answer").status, 201);
}
