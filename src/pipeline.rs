//! What happens to a request, in order. This is the page to read.

use std::time::Duration;

use tower::ServiceBuilder;

use crate::credit::{self, Credentials, Credit, CreditLayer, KeyPlace, Wildcards};
use crate::exchange::ending::Decide;
use crate::exchange::{Effects, Origin};
use crate::idempotency::{
    COST, Carrier, Commons, CredentialField, Idempotency, IdempotencyLayer, Terms,
};
use crate::limit::{Gate, Limit, LimitLayer};
use crate::metrics::RouteMetrics;
use crate::poll::{self, Desk, Polling, PollingLayer, Refused};
use crate::retry::{Budget, Means, Retry, RetryLayer, verdict};
use crate::route::{Kind, Mode, Route};
use crate::upstream::{Pool, Sender};

/// One route's stages, from its polls to the wire.
pub type Pipeline = Polling<Idempotency<Credit<Retry<Limit<Sender>>>>>;

/// What a route keeps over a reload.
#[derive(Clone, Debug)]
pub struct Lasting {
    /// What its retries are paid from.
    pub budget: Budget,
    /// What holds its attempts back.
    pub gate: Gate,
    /// What is known of its polls.
    pub polls: Desk,
    /// What is known of every credential's credit, whatever the route.
    pub accounts: credit::Accounts,
    /// Where it counts.
    pub metrics: RouteMetrics,
}

/// Lays the stages one upon another; the first line is the first to see a request.
pub fn build(route: &Route, lasting: &Lasting, commons: &Commons, pool: &Pool) -> Pipeline {
    ServiceBuilder::new()
        // Many polls of one job, one request: who joins or comes too soon ends here. Above
        // the retries, so that those who wait share them too.
        .layer(PollingLayer::new(polls(route, lasting, commons)))
        // One key for all attempts, and one exchange at a time for each key: what
        // is answered already ends here and costs the upstream nothing.
        .layer(IdempotencyLayer::new(terms(route, lasting, commons), commons.clone()))
        // Whether there is credit for it: a replay costs none and ends above, and what is
        // refused here was never sent.
        .layer(CreditLayer::new(credit(route, lasting, commons)))
        // Again, while that is safe and paid for. Above the limits, so that a wait
        // between two attempts holds no slot.
        .layer(RetryLayer::new(route.retry.clone(), means(route, lasting, commons)))
        // Each attempt passes the pause, a slot and the rate: a retry takes its
        // turn like any other.
        .layer(limits(route, lasting))
        // One sending, with proof of what was sent when it fails.
        .service(wire(route, pool))
}

/// The stages of a request that no route matches: sent once, as it came.
pub fn unrouted(pool: &Pool) -> Sender {
    Sender::new(pool.clone(), None, None)
}

/// What polls are asked by; nothing for a route of another kind.
fn polls(route: &Route, lasting: &Lasting, commons: &Commons) -> Option<poll::Terms> {
    if route.kind != Some(Kind::Poll) {
        return None;
    }
    let (suspensions, name) = (commons.suspensions.clone(), route.name.clone());
    let refused = move |origin: &Origin, caller| suspensions.holds(origin, caller, &name);
    Some(poll::Terms {
        route: route.name.clone(),
        rules: route.polls.clone(),
        hint_max: route.retry.retry_after_max,
        deadline: route.retry.deadline.after,
        observes: route.mode == Mode::Observe,
        desk: lasting.polls.clone(),
        refused: Refused::new(refused),
        tasks: commons.tasks.clone(),
        metrics: commons.metrics.polls(&route.name),
    })
}

fn terms(route: &Route, lasting: &Lasting, commons: &Commons) -> Terms {
    let costs = route.rules.capture.iter().any(|(name, _)| name == COST);
    Terms {
        rules: route.rules.clone(),
        effects: effects(route),
        caps: route.body,
        repeat_unsafe: route.retry.repeat_unsafe,
        observes: route.mode == Mode::Observe,
        metrics: lasting.metrics.clone(),
        cost: costs.then(|| commons.metrics.credit(&route.name)),
        decide: Decide { ending: verdict::ending, resend: verdict::resend },
    }
}

/// Which of a route's requests create or change something.
fn effects(route: &Route) -> Effects {
    match route.kind {
        None => Effects::ByMethod,
        Some(Kind::Effect) => Effects::All,
        Some(Kind::Read | Kind::Poll | Kind::Fetch) => Effects::Nothing,
    }
}

/// A route that asks for nothing has no terms, and its requests pass untouched.
fn credit(route: &Route, lasting: &Lasting, commons: &Commons) -> Option<credit::Terms> {
    if route.credit.is_empty() {
        return None;
    }
    let mut credentials = Credentials::default();
    for field in &route.rules.credentials {
        match field {
            CredentialField::Header(name) => credentials.headers.push(name.clone()),
            CredentialField::Query(name) => credentials.queries.push(name.clone()),
        }
    }
    let key = match &route.rules.carrier {
        Carrier::Header(name) => KeyPlace::Header(name.clone()),
        Carrier::Query(name) => KeyPlace::Query(name.clone()),
        Carrier::Json(_) => KeyPlace::Body,
    };
    let matcher = route.matcher.clone();
    Some(credit::Terms {
        rules: route.credit.clone(),
        effects: effects(route),
        accounts: lasting.accounts.clone(),
        credentials,
        key,
        wildcards: Wildcards::new(move |path| matcher.wildcards(path)),
        caps: route.body,
        room: commons.room.clone(),
        observes: route.mode == Mode::Observe,
        metrics: commons.metrics.credit(&route.name),
    })
}

fn means(route: &Route, lasting: &Lasting, commons: &Commons) -> Means {
    Means {
        budget: lasting.budget.clone(),
        caps: route.body,
        room: commons.room.clone(),
        metrics: lasting.metrics.clone(),
        chance: commons.chance.clone(),
        observes: route.mode == Mode::Observe,
    }
}

/// A route that only observes holds nothing back: what it would do is counted above.
fn limits(route: &Route, lasting: &Lasting) -> LimitLayer {
    let mut limits = route.limits.clone();
    let mut pause_max = route.retry.retry_after_max;
    if route.mode == Mode::Observe {
        (limits.concurrency, limits.rate, pause_max) = (None, None, Duration::ZERO);
    }
    LimitLayer::new(lasting.gate.clone(), limits, pause_max, lasting.metrics.clone())
}

fn wire(route: &Route, pool: &Pool) -> Sender {
    Sender::new(pool.clone(), route.retry.attempt_timeout, route.retry.body_idle_timeout)
}
