//! Claims the key, calls what is below, and carries out how the claim ends.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::Method;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tower::{Layer, Service};

use crate::exchange::body::{Caps, Held, Room};
use crate::exchange::ending::{AskedBy, Decide};
use crate::exchange::id::Names;
use crate::exchange::trail::{KeyNote, Replay};
use crate::exchange::{BoxFuture, Chance, Failure, Request, Response};
use crate::idempotency::Rules;
use crate::idempotency::fingerprint::{Fingerprint, Fingerprinter};
use crate::idempotency::identify::{self, Identified, Looked};
use crate::idempotency::key::{Secret, Source};
use crate::idempotency::lead::{self, Lead};
use crate::idempotency::orphans::{Likeness, Orphans};
use crate::idempotency::repeat::{self, Next};
use crate::idempotency::scope::{Credential, RecordId, Scope, Target, record_id, scope};
use crate::idempotency::store::Store;
use crate::idempotency::suspension::Suspensions;
use crate::metrics::{KeyEvent, Metrics, RouteMetrics};

/// Wraps a stage in [`Idempotency`].
#[derive(Clone, Debug)]
pub struct IdempotencyLayer {
    shared: Arc<Shared>,
}

/// Gives a request its key, and each key one exchange at a time.
#[derive(Clone, Debug)]
pub struct Idempotency<S> {
    shared: Arc<Shared>,
    inner: S,
}

/// What all routes share.
#[derive(Clone, Debug)]
pub struct Commons {
    /// Claims and records.
    pub store: Store,
    /// Keyless exchanges that may not have been delivered.
    pub orphans: Orphans,
    /// Credentials whose answers are held back.
    pub suspensions: Suspensions,
    /// What keys are derived with.
    pub secret: Secret,
    /// What random keys are made of.
    pub chance: Chance,
    /// What exchanges are called.
    pub names: Arc<Names>,
    /// Where exchanges go on that outlive their client.
    pub tasks: TaskTracker,
    /// Where bodies are held.
    pub room: Room,
    /// Where the store counts.
    pub metrics: Metrics,
}

/// What one route brings.
#[derive(Debug)]
pub struct Terms {
    /// Its rules.
    pub rules: Rules,
    /// Which of its requests have an effect.
    pub effects: Effects,
    /// How much of a body it holds.
    pub caps: Caps,
    /// Whether an operator accepts duplicates: `retry.unsafe`.
    pub repeat_unsafe: bool,
    /// Whether decisions are only counted.
    pub observes: bool,
    /// Where it counts.
    pub metrics: RouteMetrics,
    /// How a claim ends: the one function that decides it.
    pub decide: Decide,
}

/// Which requests of a route have an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effects {
    /// POST and PATCH.
    ByMethod,
    /// All.
    All,
    /// None.
    Nothing,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) commons: Commons,
    pub(super) terms: Terms,
}

impl IdempotencyLayer {
    /// One key, one effect, by the `terms` of a route.
    pub fn new(terms: Terms, commons: Commons) -> Self {
        Self { shared: Arc::new(Shared { commons, terms }) }
    }
}

impl std::ops::Deref for Shared {
    type Target = Commons;

    fn deref(&self) -> &Commons {
        &self.commons
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
    S: Service<Request, Response = Response, Error = Failure> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Failure;
    type Future = BoxFuture<Result<Response, Failure>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // The clone is the one that is not ready; the ready one goes with the future.
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(pass(self.shared.clone(), inner, request))
    }
}

async fn pass<S>(shared: Arc<Shared>, mut inner: S, request: Request) -> Result<Response, Failure>
where
    S: Service<Request, Response = Response, Error = Failure> + Send + 'static,
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

impl Shared {
    pub(super) fn is_effect(&self, method: &Method) -> bool {
        match self.terms.effects {
            Effects::ByMethod => matches!(*method, Method::POST | Method::PATCH),
            Effects::All => true,
            Effects::Nothing => false,
        }
    }

    /// Whether a request can have a key at all.
    fn is_concerned(&self, request: &Request) -> bool {
        let identified = request.wishes.identity.is_some() || !request.method.is_safe();
        (identified || self.is_effect(&request.method)) && !request.wants_upgrade
    }

    fn scope(&self, request: &Request) -> Scope {
        let target =
            Target { origin: &request.origin, method: &request.method, path: request.path.path() };
        scope(&self.secret, &target, &Credential(request.caller))
    }

    pub(super) fn fingerprinter(&self, request: &Request) -> Fingerprinter {
        let limit = usize::try_from(self.terms.caps.memory).unwrap_or(usize::MAX);
        let rules = &self.terms.rules;
        Fingerprinter::new(request.query(), &request.headers, &rules.carrier, &rules.ignore, limit)
    }

    fn count_source(&self, source: Source) {
        self.terms.metrics.key(match source {
            Source::Client => KeyEvent::Client,
            Source::Header | Source::Identity | Source::Invocation => KeyEvent::Derived,
            Source::Random => KeyEvent::Injected,
        });
    }
}

async fn keyed<S>(shared: Arc<Shared>, mut inner: S, request: Request) -> Result<Response, Failure>
where
    S: Service<Request, Response = Response, Error = Failure> + Send + 'static,
    S::Future: Send,
{
    let Looked { mut request, found, bare } = identify::look(&shared, request).await?;
    let Some(mut found) = found else { return inner.call(request).await };
    shared.count_source(found.source);
    if shared.terms.observes {
        return inner.call(request).await;
    }
    let mut likeness = None;
    let mut adopted = false;
    if found.source == Source::Random {
        likeness = likeness_of(&shared, &mut request).await?;
        let window = shared.terms.rules.adopt_orphans;
        let Some(alike) = &likeness else {
            note(&shared, &request, &found);
            return lead::without_claim(&shared, inner, request, &found).await;
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
    Box::pin(claimed(shared, inner, request, Ask { id, found, adopted, likeness })).await
}

/// What is asked of the store.
pub(super) struct Ask {
    pub(super) id: RecordId,
    pub(super) found: Identified,
    pub(super) adopted: bool,
    pub(super) likeness: Option<Likeness>,
}

impl Ask {
    /// Who can ask for the key again.
    pub(super) fn asked_by(&self) -> AskedBy {
        match self.found.source {
            Source::Client => AskedBy::Vouching,
            Source::Header | Source::Identity | Source::Invocation => AskedBy::Identity,
            Source::Random if self.likeness.is_some() => AskedBy::Orphan,
            Source::Random => AskedBy::Nobody,
        }
    }
}

async fn claimed<S>(
    shared: Arc<Shared>,
    mut inner: S,
    mut request: Request,
    ask: Ask,
) -> Result<Response, Failure>
where
    S: Service<Request, Response = Response, Error = Failure> + Send + 'static,
    S::Future: Send,
{
    let orphan = ask.likeness.map(|likeness| {
        let client = request.client.presence.clone();
        shared.orphans.begin(likeness, ask.found.key.clone(), client, Instant::now())
    });
    let known = ask.likeness.map(|(_, fingerprint)| fingerprint);
    let (trail, adopted) = (request.trail.clone(), ask.adopted);
    let replays = |how| {
        let how = if adopted { Replay::Adopted } else { how };
        trail.with(|notes| notes.replay = Some(how));
    };
    let failure = match repeat::Repeat::new(&shared, &ask, known).next(&mut request).await {
        Ok(Next::Lead(claim)) => {
            let lead = Lead::new(shared.clone(), &request, &ask, (claim, orphan));
            return lead.run(inner, request).await;
        }
        Ok(Next::Replay(replayed)) => {
            replays(replayed.how);
            return Ok(replayed.response);
        }
        Ok(Next::Forward) => return inner.call(request).await,
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

/// What an equal request would be found by; `None` where adoption is off, or the
/// body is not one that can be waited for.
async fn likeness_of(shared: &Shared, request: &mut Request) -> Result<Option<Likeness>, Failure> {
    let on = !shared.terms.rules.adopt_orphans.is_zero();
    let caps = &shared.terms.caps;
    let most = caps.memory.saturating_add(caps.disk);
    // What cannot be kept whole cannot be read first and sent then.
    let fits = request.body.length().is_some_and(|length| length <= most);
    if !on || !fits || is_grpc(request) {
        return Ok(None);
    }
    let fingerprint = whole_fingerprint(shared, request).await?;
    Ok(Some((shared.scope(request), fingerprint)))
}

/// Reads the whole body, keeps it for sending, and takes its fingerprint.
pub(super) async fn whole_fingerprint(
    shared: &Shared,
    request: &mut Request,
) -> Result<Fingerprint, Failure> {
    let mut fingerprinter = shared.fingerprinter(request);
    let body = std::mem::take(&mut request.body);
    let held = Held::new(body, shared.terms.caps, &shared.room);
    let mut reading = held.reader();
    while let Some(frame) = http_body_util::BodyExt::frame(&mut reading).await {
        match frame {
            Ok(frame) => {
                if let Some(data) = frame.data_ref() {
                    fingerprinter.feed(data);
                }
            }
            Err(crate::exchange::body::BodyError::Malformed(why)) => {
                return Err(Failure::BadRequest(why));
            }
            Err(_left) => return Err(Failure::ClientGone),
        }
    }
    request.body = held.reader();
    request.replayable = held.is_replayable();
    Ok(fingerprinter.finish())
}

fn is_grpc(request: &Request) -> bool {
    let kind = request.headers.get(http::header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Notes the key for the response's headers and for the log.
fn note(shared: &Shared, request: &Request, found: &Identified) {
    // Only the log reads it, and a digest has its price.
    let logged = tracing::enabled!(tracing::Level::INFO);
    let told =
        logged.then(|| KeyNote { source: found.source.as_str(), digest: found.key.digest() });
    request.trail.with(|notes| {
        notes.key = found.sent.then(|| found.key.header_value());
        notes.key_note = told;
        notes.never_dedupes = shared.terms.rules.upstream_dedupes == Some(false);
    });
}
