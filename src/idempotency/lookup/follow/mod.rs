//! Asks the provider for one key, and carries out what its answer comes to.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use tokio::time::{Instant, sleep_until, timeout};
use tower::Service;

use crate::exchange::id::ExchangeId;
use crate::exchange::json;
use crate::exchange::{BoxFuture, Failure, Origin, Request, Response};
use crate::idempotency::ask::Ask;
use crate::idempotency::key::Key;
use crate::idempotency::lookup::access::Access;
use crate::idempotency::lookup::course::{Course, Decision, Named, Seen};
use crate::idempotency::lookup::reading::{self, Question, Read};
use crate::idempotency::lookup::table::{Following, life, quiet_since};
use crate::idempotency::lookup::{JSON, Recipe};
use crate::idempotency::repeat::about;
use crate::idempotency::scope::{RecordId, record_id};
use crate::idempotency::store::{About, Asked, Finding, Open, Record, Reserved};
use crate::idempotency::terms::Shared;
use crate::journal::State;
use crate::journal::moment::micros;
use crate::metrics::{KeyEvent, LookupResult, Operation};

/// The stages below, as a lookup uses them; a clone shares them.
#[derive(Clone)]
pub(in crate::idempotency) struct Asker(pub(super) Arc<Send>);

pub(super) type Send =
    dyn Fn(Request) -> BoxFuture<Result<Response, Failure>> + std::marker::Send + Sync;

/// One key that the provider can be asked for; a clone asks for the same.
#[derive(Clone)]
pub(in crate::idempotency) struct Follow(Arc<Case>);

struct Case {
    shared: Arc<Shared>,
    recipe: Arc<Recipe>,
    asker: Asker,
    access: Access,
    /// Whether it is asked for with the credentials that it was made with.
    is_own: bool,
    id: RecordId,
    key: Key,
    about: About,
}

/// What is left to do for a key.
enum Step {
    /// Nothing: it is not unknown any more.
    Settled,
    /// It is asked for again from then on.
    Again(Instant),
    /// Nothing that could be learned by asking.
    Over,
}

impl Asker {
    /// Asks through `inner`.
    pub(in crate::idempotency) fn new<S>(inner: S) -> Self
    where
        S: Service<Request, Response = Response, Error = Failure>,
        S: Clone + std::marker::Send + Sync + 'static,
        S::Future: std::marker::Send,
    {
        Self(Arc::new(move |request| {
            let mut inner = inner.clone();
            Box::pin(async move {
                std::future::poll_fn(|cx| inner.poll_ready(cx)).await?;
                inner.call(request).await
            })
        }))
    }

    pub(super) async fn ask(&self, request: Request) -> Result<Response, Failure> {
        (self.0)(request).await
    }
}

impl Follow {
    /// What it takes to ask for the key of `request`; none where the route has no recipe, or
    /// nothing to ask with.
    pub(in crate::idempotency) fn of(
        shared: &Arc<Shared>,
        asker: impl FnOnce() -> Asker,
        request: &Request,
        ask: &Ask,
    ) -> Option<Self> {
        let recipe = shared.terms.lookup.clone().filter(|_| shared.is_effect(&request.method))?;
        let own = |own| Access::own(shared, request.origin.clone(), own);
        let access = Access::of(&shared.terms.rules, request)
            .or_else(|| recipe.credentials.as_ref().map(own))?;
        let is_own = access.is_of(request.caller);
        let (id, key) = (ask.id, ask.found.key.clone());
        let about = about(shared, request);
        Some(Self::new(shared, recipe, (asker(), access, is_own), (id, key, about)))
    }

    /// The same for a key of which only the ledger is left.
    pub(super) fn left(
        shared: &Arc<Shared>,
        asker: Asker,
        origin: Origin,
        (id, key, about): (RecordId, Key, About),
    ) -> Option<Self> {
        let recipe = shared.terms.lookup.clone()?;
        let access = Access::own(shared, origin, recipe.credentials.as_ref()?);
        let is_own = record_id(&access.scope(&shared.secret, &about), &key) == id;
        Some(Self::new(shared, recipe, (asker, access, is_own), (id, key, about)))
    }

    fn new(
        shared: &Arc<Shared>,
        recipe: Arc<Recipe>,
        (asker, access, is_own): (Asker, Access, bool),
        (id, key, about): (RecordId, Key, About),
    ) -> Self {
        let shared = shared.clone();
        Self(Arc::new(Case { shared, recipe, asker, access, is_own, id, key, about }))
    }

    /// Asks at once, for one who waits; true where the outcome is not unknown any more.
    /// Where it is, it is asked for again in the background.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it has changed nothing, or settled the key.
    pub(in crate::idempotency) async fn ask(&self, open: &Open) -> bool {
        // Another may be reading, which is as good.
        let step = timeout(reading::WITHIN, self.0.look(open)).await;
        match step.unwrap_or(Step::Over) {
            Step::Settled => return true,
            Step::Over => {}
            Step::Again(next) => self.begin(open.exchange, next),
        }
        false
    }

    /// Asks in the background, from a moment after the last attempt on.
    pub(in crate::idempotency) fn begin_soon(&self, exchange: ExchangeId) {
        self.begin(exchange, Instant::now() + SOON);
    }

    fn begin(&self, exchange: ExchangeId, first: Instant) {
        let lookups = &self.0.shared.lookups;
        if let Some(following) = lookups.follow(self.0.id) {
            let case = self.0.clone();
            lookups.tasks().spawn(async move { case.run(exchange, first, following).await });
        }
    }
}

impl Case {
    /// Asks until it is settled, or nothing is to be learned.
    async fn run(&self, exchange: ExchangeId, first: Instant, _following: Following) {
        let mut next = first;
        for _ in 0..READINGS_MAX {
            sleep_until(next).await;
            let Ok(_turn) = self.shared.lookups.turns().acquire().await else { return };
            let step = match self.open(exchange).await {
                Ok(Some(open)) => self.look(&open).await,
                Ok(None) => return,
                Err(_unavailable) => Step::Again(Instant::now() + self.recipe.patience.every),
            };
            match step {
                Step::Again(then) => next = then,
                Step::Settled | Step::Over => return,
            }
        }
        tracing::debug!(%exchange, "lookups ended and settled nothing");
    }

    /// What is unknown, if it still is.
    async fn open(&self, exchange: ExchangeId) -> Result<Option<Open>, Failure> {
        let entry = self.shared.store.show(exchange).await?;
        if entry.is_none_or(|entry| entry.state != State::Unknown) {
            return Ok(None);
        }
        match self.shared.store.reserve(&self.asked()).await? {
            Reserved::Unknown(open) => Ok(Some(open)),
            // One that turned out to be free is given back as it is dropped.
            Reserved::Claimed(_) | Reserved::InFlight(_) | Reserved::Completed(_) => Ok(None),
        }
    }

    fn asked(&self) -> Asked {
        Asked {
            id: self.id,
            key: self.key.clone(),
            fingerprint: None,
            exchange: self.shared.names.next(),
            scope: None,
            tag: None,
            about: self.about.clone(),
        }
    }

    /// Reads the list once, and does what that comes to.
    async fn look(&self, open: &Open) -> Step {
        let Some(course) = self.shared.lookups.course(self.id, open) else { return Step::Over };
        let mut course = course.lock().await;
        let now = Instant::now();
        course.renew(life(open), quiet_since(open));
        if course.is_settled() {
            return Step::Settled;
        }
        if course.is_fresh(now) {
            return Step::Again(course.due(&self.recipe.patience).unwrap_or(now));
        }
        let read = self.read(open).await;
        self.count(&read);
        if !self.is_own && seen(&read) == Seen::Absent {
            // In the list of another account it would not stand in any case.
            return Step::Over;
        }
        let named =
            open.tag.as_deref() == Some(&*self.recipe.place(&self.shared.terms.rules.carrier));
        let named = if named { Named::Yes } else { Named::No };
        match course.note((now, seen(&read)), named, &self.recipe.patience) {
            Decision::Found => self.conclude(open, &mut course, self.finding(read)).await,
            Decision::Absent => self.conclude(open, &mut course, Finding::Absent).await,
            Decision::Wait(until) | Decision::Inconclusive(until) => Step::Again(until),
            Decision::Unproven => Step::Over,
        }
    }

    async fn read(&self, open: &Open) -> Read {
        let now = self.shared.store.now().wall;
        let question = Question {
            recipe: &self.recipe,
            access: &self.access,
            key: self.key.as_str(),
            since: open.age.map(|age| now.saturating_sub(micros(age))),
            now,
        };
        reading::read(&question, &self.asker).await
    }

    fn count(&self, read: &Read) {
        self.shared.terms.lookups.count(match read {
            Read::Found(_) | Read::Several => LookupResult::Found,
            Read::Absent => LookupResult::Absent,
            Read::Inconclusive => LookupResult::Inconclusive,
            Read::Failed => LookupResult::Failed,
        });
    }

    /// What an item that was found says of the key.
    fn finding(&self, read: Read) -> Finding {
        let Read::Found(item) = read else { return Finding::Landed };
        let Some(body) = rendered(&self.recipe, item) else { return Finding::Landed };
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, JSON)]);
        let rules = &self.shared.terms.rules;
        Finding::Answered {
            captured: rules.capture.of_answer(&headers, Some(&body)),
            record: Record::new(self.recipe.status, &headers, body),
            ttl: rules.ttl,
            // It was asked for by its key: the key is known for as long as any.
            keep_key: rules.keep_key,
        }
    }

    async fn conclude(&self, open: &Open, course: &mut Course, finding: Finding) -> Step {
        let (result, event) = match &finding {
            Finding::Answered { .. } => ("answered", Some(KeyEvent::Recorded)),
            Finding::Landed => ("landed", Some(KeyEvent::NotRecorded)),
            Finding::Absent => ("absent", None),
        };
        let concluded = self.shared.store.conclude(&self.asked(), open, finding).await;
        let Ok(is_ours) = concluded else {
            self.shared.commons.metrics.store_error(Operation::Conclude);
            return Step::Again(Instant::now() + self.recipe.patience.every);
        };
        course.settle();
        self.shared.lookups.forget(&self.id);
        if is_ours {
            let exchange = open.exchange;
            tracing::info!(%exchange, result, "a lookup settled an unknown outcome");
            if let Some(event) = event {
                self.shared.terms.metrics.key(event);
            }
            self.shared.tell(exchange).await;
        }
        Step::Settled
    }
}

fn seen(read: &Read) -> Seen {
    match read {
        Read::Found(_) | Read::Several => Seen::Found,
        Read::Absent => Seen::Absent,
        Read::Inconclusive | Read::Failed => Seen::Dirty,
    }
}

/// The answer that an item becomes.
fn rendered(recipe: &Recipe, item: String) -> Option<Bytes> {
    let Some(shape) = &recipe.answer else { return Some(item.into()) };
    let root = json::parse(item.as_bytes()).ok()?;
    shape.render(&root, item.as_bytes()).map(Bytes::from)
}

impl fmt::Debug for Follow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow").field("id", &self.0.id).finish_non_exhaustive()
    }
}

/// What was created a moment ago is listed in another.
const SOON: std::time::Duration = std::time::Duration::from_secs(1);
/// With twice as long between them each time, they take most of a day.
const READINGS_MAX: usize = 32;

#[cfg(test)]
mod tests;
