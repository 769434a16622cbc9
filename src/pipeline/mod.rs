//! What happens to a request, in order. This is the page to read.

use tower::ServiceBuilder;

use crate::credit::{self, Credit, CreditLayer};
use crate::idempotency::{Commons, Idempotency, IdempotencyLayer};
use crate::inbox::{Inbox, InboxLayer, Tray};
use crate::limit::{Gate, Limit};
use crate::metrics::RouteMetrics;
use crate::poll::{self, Polling, PollingLayer};
use crate::retry::{Budget, Retry, RetryLayer};
use crate::route::Route;
use crate::schema::{Checked, SchemaLayer};
use crate::upstream::{Pool, Sender};

mod terms;

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
    pub polls: poll::Board,
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
        .layer(InboxLayer::new(terms::inbox(route, lasting, commons, pool)))
        // Many polls of one job, one request: who joins or comes too soon ends here. Above
        // the retries, so that those who wait share them too.
        .layer(PollingLayer::new(terms::polls(route, lasting, commons)))
        // What the route knows to be wrong ends here: it costs no key and no credit.
        .layer(SchemaLayer::new(terms::schema(route, lasting, commons)))
        // One key for all attempts, and one exchange at a time for each key: what
        // is answered already ends here and costs the upstream nothing.
        .layer(IdempotencyLayer::new(terms::keys(route, lasting, commons), commons.clone()))
        // Whether there is credit for it: a replay costs none and ends above, and what is
        // refused here was never sent.
        .layer(CreditLayer::new(terms::credit(route, lasting, commons)))
        // Again, while that is safe and paid for. Above the limits, so that a wait
        // between two attempts holds no slot.
        .layer(RetryLayer::new(route.retry.clone(), terms::retries(route, lasting, commons)))
        // Each attempt passes the pause, a slot and the rate: a retry takes its
        // turn like any other.
        .layer(terms::limits(route, lasting))
        // One sending, with proof of what was sent when it fails.
        .service(terms::wire(route, pool))
}

/// The stage of a pipeline that claims keys.
pub fn claims(pipeline: &Pipeline) -> &Idempotency<Credit<Retry<Limit<Sender>>>> {
    pipeline.below().below().below()
}

/// The stages of a request that no route matches: sent once, as it came.
pub fn unrouted(pool: &Pool) -> Sender {
    Sender::new(pool.clone(), None, None)
}
