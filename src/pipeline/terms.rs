//! What each stage is given of its route, and of what outlives the route.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tower::{Layer as _, Service as _};

use crate::credit::{self, Credentials, KeyPlace, Wildcards};
use crate::exchange::ending::Decide;
use crate::exchange::{Effects, Origin};
use crate::idempotency::{self, COST, Carrier, Commons, CredentialField};
use crate::inbox::{self, Intake};
use crate::limit::LimitLayer;
use crate::metrics::CreditMetrics;
use crate::pipeline::Lasting;
use crate::poll::{self, Refused};
use crate::retry::backoff::after_hint;
use crate::retry::{Means, verdict};
use crate::route::{Kind, Mode, Route};
use crate::schema;
use crate::upstream::{Pool, Sender};

/// Where a route takes deliveries in, and by which stages it makes them.
pub(super) fn inbox(
    route: &Route,
    lasting: &Lasting,
    commons: &Commons,
    pool: &Pool,
) -> Option<Intake> {
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

/// What polls are asked by; nothing for a route of another kind.
pub(super) fn polls(route: &Route, lasting: &Lasting, commons: &Commons) -> Option<poll::Terms> {
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
        board: lasting.polls.clone(),
        refused: Refused::new(refused),
        tasks: commons.tasks.clone(),
        metrics,
    })
}

/// What bodies are checked by, where the route has a schema.
pub(super) fn schema(route: &Route, lasting: &Lasting, commons: &Commons) -> Option<schema::Terms> {
    let schema = route.schema.clone()?;
    Some(schema::Terms {
        schema,
        caps: route.body,
        room: commons.room.clone(),
        metrics: lasting.metrics.clone(),
        observes: route.mode == Mode::Observe,
    })
}

/// By what keys are claimed, and answers kept.
pub(super) fn keys(route: &Route, lasting: &Lasting, commons: &Commons) -> idempotency::Terms {
    let costs = route.rules.capture.iter().any(|(name, _)| name == COST);
    let lookups = commons.metrics.lookups(&route.name);
    if is_own(route) && route.lookup.is_some() {
        lookups.show();
    }
    idempotency::Terms {
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

/// What credit is asked for; a route that asks for nothing has no terms, and its requests
/// pass untouched.
pub(super) fn credit(route: &Route, lasting: &Lasting, commons: &Commons) -> Option<credit::Terms> {
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

/// What retries are paid from and counted by.
pub(super) fn retries(route: &Route, lasting: &Lasting, commons: &Commons) -> Means {
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
pub(super) fn limits(route: &Route, lasting: &Lasting) -> LimitLayer {
    let mut limits = route.limits.clone();
    let mut pause_max = route.retry.retry_after_max;
    if route.mode == Mode::Observe {
        (limits.concurrency, limits.rate, pause_max) = (None, None, Duration::ZERO);
    }
    LimitLayer::new(lasting.gate.clone(), limits, pause_max, lasting.metrics.clone())
}

/// What sends one attempt.
pub(super) fn wire(route: &Route, pool: &Pool) -> Sender {
    Sender::new(pool.clone(), route.retry.attempt_timeout, route.retry.body_idle_timeout)
}

/// Which of a route's requests create or change something.
fn effects(route: &Route) -> Effects {
    match route.kind {
        None => Effects::ByMethod,
        Some(Kind::Effect) => Effects::All,
        Some(Kind::Read | Kind::Poll | Kind::Fetch) => Effects::Nothing,
    }
}

/// Where the route does not say: an application that has not answered by then hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Where the route does not say: few enough for any application, and one that is slow
/// does not keep the others from their turn.
const DELIVERIES: NonZeroU32 = NonZeroU32::new(4).expect("four is not zero");
