//! Finds a request's key, claims it, and sends or answers by what the claim came to.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;
use tower::{Layer, Service};

use crate::exchange::trail::{KeyNote, Replay};
use crate::exchange::{BoxFuture, Failure, Request, Response, take_ready};
use crate::idempotency::ask::{Ask, likeness_of};
use crate::idempotency::capture;
use crate::idempotency::identify::{self, Identified, Looked};
use crate::idempotency::key::Source;
use crate::idempotency::lead::{self, Lead};
use crate::idempotency::lookup::{self, Asker, Follow, Tagged};
use crate::idempotency::repeat::{self, Next};
use crate::idempotency::scope::record_id;
use crate::idempotency::terms::{Commons, Shared, Terms};
use crate::idempotency::unclaimed;
use crate::metrics::KeyEvent;

/// Wraps a stage in [`Idempotency`].
#[derive(Clone, Debug)]
pub struct IdempotencyLayer {
    shared: Arc<Shared>,
}

/// Gives a request its key, and each key one exchange at a time.
#[derive(Clone, Debug)]
pub struct Idempotency<S> {
    pub(super) shared: Arc<Shared>,
    pub(super) inner: S,
}

impl IdempotencyLayer {
    /// One key, one effect, by the `terms` of a route.
    pub fn new(terms: Terms, commons: Commons) -> Self {
        Self { shared: Arc::new(Shared { commons, terms }) }
    }
}

impl<S> Layer<S> for IdempotencyLayer {
    type Service = Idempotency<S>;

    fn layer(&self, inner: S) -> Idempotency<S> {
        Idempotency { shared: self.shared.clone(), inner }
    }
}

impl<S> Service<Request> for Idempotency<S>
where
    S: Service<Request, Response = Response, Error = Failure> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Failure;
    type Future = BoxFuture<Result<Response, Failure>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let inner = take_ready(&mut self.inner);
        Box::pin(pass(self.shared.clone(), inner, request))
    }
}

async fn pass<S>(shared: Arc<Shared>, mut inner: S, request: Request) -> Result<Response, Failure>
where
    S: Service<Request, Response = Response, Error = Failure> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let (origin, caller) = (request.origin.clone(), request.caller);
    let result = if shared.is_concerned(&request) {
        // Boxed, so that a request without a key does not carry the state of one with.
        Box::pin(keyed(shared.clone(), inner, request)).await
    } else {
        inner.call(request).await
    };
    if let Ok(response) = &result {
        // A stored answer is no word of the upstream's, but says nothing new either.
        let route = shared.terms.metrics.name();
        shared.suspensions.observe(&origin, caller, route, response.status);
    }
    result
}

async fn keyed<S>(shared: Arc<Shared>, mut inner: S, request: Request) -> Result<Response, Failure>
where
    S: Service<Request, Response = Response, Error = Failure> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let Looked { mut request, found, bare } = identify::look(&shared, request).await?;
    let Some(mut found) = found else { return inner.call(request).await };
    shared.count_source(found.source);
    if shared.terms.observes {
        return inner.call(request).await;
    }
    capture::listen(&shared, &mut request, bare.text());
    let mut likeness = None;
    let mut adopted = false;
    if found.source == Source::Random {
        likeness = likeness_of(&shared, &mut request).await?;
        let window = shared.terms.rules.adopt_orphans;
        let Some(alike) = &likeness else {
            note(&shared, &request, &found);
            return unclaimed::random(&shared, inner, request, &found).await;
        };
        if let Some(key) = shared.orphans.adopt(alike, window).await {
            adopted = true;
            found = identify::replace(&shared.terms.rules, &mut request, &bare, &found, key);
            shared.terms.metrics.key(KeyEvent::Adopted);
        }
    }
    drop(bare);
    note(&shared, &request, &found);
    let id = record_id(&shared.scope(&request), &found.key);
    let Tagged { place, fingerprint } = lookup::put(&shared, &mut request, &found).await?;
    let fingerprint = fingerprint.or_else(|| likeness.map(|(_, asked)| asked));
    let ask = Ask { id, found, adopted, likeness, fingerprint, tag: place };
    Box::pin(claimed(shared, inner, request, ask)).await
}

async fn claimed<S>(
    shared: Arc<Shared>,
    inner: S,
    mut request: Request,
    ask: Ask,
) -> Result<Response, Failure>
where
    S: Service<Request, Response = Response, Error = Failure> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let orphan = ask.likeness.map(|likeness| {
        let client = request.client.presence.clone();
        shared.orphans.begin(likeness, ask.found.key.clone(), client, Instant::now())
    });
    let follow = Follow::of(&shared, || Asker::new(inner.clone()), &request, &ask);
    let (trail, adopted) = (request.trail.clone(), ask.adopted);
    let client = request.client.presence.clone();
    let replays = |how| {
        let how = if adopted { Replay::Adopted } else { how };
        trail.with(|notes| notes.replay = Some(how));
    };
    let mut repeat = repeat::Repeat::new(&shared, &ask, follow.as_ref());
    trail.with(|notes| notes.exchange = Some(repeat.exchange()));
    let failure = match repeat.next(&mut request).await {
        Ok(Next::Lead(claim)) => {
            // The row of a key that is sent again goes on under its name.
            trail.with(|notes| notes.exchange = Some(claim.exchange()));
            let lead = Lead::new(shared.clone(), &request, &ask, (claim, orphan, follow));
            return lead.run(inner, request).await;
        }
        Ok(Next::Replay(replayed)) => {
            replays(replayed.how);
            if adopted {
                // Once it is delivered, the next equal order is another.
                lead::forget_when_served(&shared, client, (ask.id, ask.found.key.clone()));
            }
            return Ok(replayed.response);
        }
        Ok(Next::Forward) => {
            let key = ask.found.key.as_str().to_owned();
            return unclaimed::forwarded(shared, inner, request, key).await;
        }
        Ok(Next::Told(failure)) => {
            replays(Replay::Joined);
            failure
        }
        Err(failure) => failure,
    };
    // Whoever took an orphan over and has no answer either leaves it to the next:
    // a third try would be a second order otherwise.
    if let Some(orphan) = orphan {
        orphan.leave_open();
    }
    Err(failure)
}

/// Notes the key for the response's headers and for the log.
fn note(shared: &Shared, request: &Request, found: &Identified) {
    // Only the log and a trace read it, and a digest has its price.
    let logged = tracing::enabled!(tracing::Level::INFO) || request.traced.is_some();
    let told = logged.then(|| KeyNote {
        source: found.source.as_str(),
        digest: found.key.digest(&shared.secret),
    });
    request.trail.with(|notes| {
        notes.keyed = true;
        notes.key = found.sent.then(|| found.key.header_value());
        notes.key_note = told;
        notes.never_dedupes = shared.terms.rules.upstream_dedupes == Some(false);
    });
}
