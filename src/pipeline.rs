//! What happens to a request, in order. This is the page to read.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tower::{Layer as _, Service as _, ServiceBuilder};

use crate::credit::{self, Credentials, Credit, CreditLayer, KeyPlace, Wildcards};
use crate::exchange::ending::Decide;
use crate::exchange::{Effects, Origin};
use crate::idempotency::{
    COST, Carrier, Commons, CredentialField, Idempotency, IdempotencyLayer, Terms,
};
use crate::inbox::{self, Inbox, InboxLayer, Tray};
use crate::limit::{Gate, Limit, LimitLayer};
use crate::metrics::{CreditMetrics, RouteMetrics};
use crate::poll::{self, Polling, PollingLayer, Refused};
use crate::retry::backoff::after_hint;
use crate::retry::{Budget, Means, Retry, RetryLayer, verdict};
use crate::route::{Kind, Mode, Route};
use crate::schema::{self, Checked, SchemaLayer};
use crate::upstream::{Pool, Sender};

/// One route's stages, from its inbox to the wire.
pub type Pipeline = Inbox<Polling<Checked<Idempotency<Credit<Retry<Limit<Sender>>>>>>>;

/// What a route keeps over a reload.
#[derive(Clone, Debug)]
pub struct Lasting {
    /// What its retries are paid from.
    pub budget: Budget,
    /// What holds its attempts back.
    pub gate: Gate,
    /// What is known of its polls.
    pub polls: poll::Desk,
    /// What is known of every credential's credit, whatever the route.
    pub accounts: credit::Accounts,
    /// What waits for its application, where it has an inbox.
    pub tray: Option<Tray>,
    /// Where it counts.
    pub metrics: RouteMetrics,
}

/// Lays the stages one upon another; the first line is the first to see a request.
pub fn build(route: &Route, lasting: &Lasting, commons: &Commons, pool: &Pool) -> Pipeline {
    ServiceBuilder::new()
        // A delivery for the application is kept and answered here: it goes on by itself,
        // past the stages that answer for its client.
        .layer(InboxLayer::new(inbox(route, lasting, commons, pool)))
        // Many polls of one job, one request: who joins or comes too soon ends here. Above
        // the retries, so that those who wait share them too.
        .layer(PollingLayer::new(polls(route, lasting, commons)))
        // What the route knows to be wrong ends here: it costs no key and no credit.
        .layer(SchemaLayer::new(schema(route, lasting, commons)))
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

/// Where a route takes deliveries in, and by which stages it makes them.
fn inbox(route: &Route, lasting: &Lasting, commons: &Commons, pool: &Pool) -> Option<inbox::Desk> {
    let (rules, tray) = (route.inbox.clone()?, lasting.tray.as_ref()?);
    let retry = &route.retry;
    let timeout = retry.attempt_timeout.unwrap_or(ANSWER_WITHIN);
    let sender = Sender::new(pool.clone(), Some(timeout), retry.body_idle_timeout);
    let stages = limits(route, lasting).layer(sender);
    let (backoff, longest) = (retry.backoff, retry.retry_after_max);
    let mut applications = tray.applications().to_vec();
    applications.retain(|origin| route.matcher.names(&origin.host, origin.port));
    Some(tray.open(inbox::Terms {
        rules,
        applications,
        concurrency: route.limits.concurrency.unwrap_or(DELIVERIES),
        wait: Arc::new(move |hint, nth, random| match hint {
            Some(hint) => after_hint(hint.min(longest), random),
            None => backoff.wait(nth, random),
        }),
        send: Arc::new(move |request| stages.clone().call(request)),
        metrics: commons.metrics.inbox(&route.name),
    }))
}

/// The stage of a pipeline that claims keys.
pub fn claims(pipeline: &Pipeline) -> &Idempotency<Credit<Retry<Limit<Sender>>>> {
    pipeline.below().below().below()
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
    let metrics = commons.metrics.polls(&route.name);
    if is_own(route) {
        metrics.show();
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
        metrics,
    })
}

/// What bodies are checked by, where the route has a schema.
fn schema(route: &Route, lasting: &Lasting, commons: &Commons) -> Option<schema::Terms> {
    let schema = route.schema.clone()?;
    Some(schema::Terms {
        schema,
        caps: route.body,
        room: commons.room.clone(),
        metrics: lasting.metrics.clone(),
        observes: route.mode == Mode::Observe,
    })
}

fn terms(route: &Route, lasting: &Lasting, commons: &Commons) -> Terms {
    let costs = route.rules.capture.iter().any(|(name, _)| name == COST);
    let lookups = commons.metrics.lookups(&route.name);
    if is_own(route) && route.lookup.is_some() {
        lookups.show();
    }
    Terms {
        rules: route.rules.clone(),
        effects: effects(route),
        caps: route.body,
        repeat_unsafe: route.retry.repeat_unsafe,
        observes: route.mode == Mode::Observe,
        metrics: lasting.metrics.clone(),
        lookup: route.lookup.clone(),
        lookups,
        cost: costs.then(|| money(route, commons)),
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
        metrics: money(route, commons),
    })
}

/// What a route counts of money.
fn money(route: &Route, commons: &Commons) -> CreditMetrics {
    let metrics = commons.metrics.credit(&route.name);
    if is_own(route) {
        metrics.show();
    }
    metrics
}

/// Whether the operator wrote it: its series stand at zero from the start, while those of
/// a preset's route come with their first event.
fn is_own(route: &Route) -> bool {
    route.provenance.built_in().is_none()
}

fn means(route: &Route, lasting: &Lasting, commons: &Commons) -> Means {
    Means {
        budget: lasting.budget.clone(),
        caps: route.body,
        room: commons.room.clone(),
        metrics: lasting.metrics.clone(),
        chance: commons.chance.clone(),
        observes: route.mode == Mode::Observe,
        resumes: route.kind == Some(Kind::Fetch),
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

/// Where the route does not say: an application that has not answered by then hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Where the route does not say: few enough for any application, and one that is slow
/// does not keep the others from their turn.
const DELIVERIES: NonZeroU32 = NonZeroU32::new(4).expect("four is not zero");
