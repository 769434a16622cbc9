//! An exchange that holds no claim: all that stays of it is a row of the ledger.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;
use tower::Service;

use crate::exchange::body::{BodyEnd, Watcher};
use crate::exchange::ending::{AskedBy, BodyCame, History, Kept};
use crate::exchange::trail::{End, Trail};
use crate::exchange::{BoxFuture, Failure, Request, Response};
use crate::idempotency::Captures;
use crate::idempotency::capture::{Ids, READ_MAX};
use crate::idempotency::cost;
use crate::idempotency::identify::Identified;
use crate::idempotency::lead::standing;
use crate::idempotency::outlive::Outlive;
use crate::idempotency::recorder::{Came, Recorder, Settle};
use crate::idempotency::repeat::about;
use crate::idempotency::running::Run;
use crate::idempotency::store;
use crate::idempotency::terms::Shared;
use crate::metrics::KeyEvent;

/// Sends a request whose key nobody can ask for again: it protects our own
/// retries, and needs no place in the store.
pub(super) async fn random<S>(
    shared: &Arc<Shared>,
    inner: S,
    mut request: Request,
    found: &Identified,
) -> Result<Response, Failure>
where
    S: Service<Request, Response = Response, Error = Failure> + Send + 'static,
    S::Future: Send,
{
    let until = Instant::now() + shared.terms.rules.upstream_ttl;
    request.standing = standing(shared, found, Some(until));
    let client = request.client.presence.clone();
    let tasks = shared.tasks.clone();
    let exchange = forwarded(shared.clone(), inner, request, found.key.as_str().to_owned());
    Outlive::new(Box::pin(exchange), client, tasks).await
}

/// Sends a request as it is, whatever its key stands for: the upstream is to decide.
pub(super) async fn forwarded<S>(
    shared: Arc<Shared>,
    mut inner: S,
    request: Request,
    key: String,
) -> Result<Response, Failure>
where
    S: Service<Request, Response = Response, Error = Failure> + Send + 'static,
    S::Future: Send,
{
    let unclaimed = Unclaimed::new(shared, &request, &key);
    match inner.call(request).await {
        Ok(response) => Ok(unclaimed.answered(response).await),
        Err(failure) => {
            unclaimed.end(None, BodyCame::Whole, Vec::new());
            Err(failure)
        }
    }
}

/// Such an exchange, on its way.
struct Unclaimed {
    shared: Arc<Shared>,
    trail: Trail,
    run: Run,
}

impl Unclaimed {
    fn new(shared: Arc<Shared>, request: &Request, key: &str) -> Self {
        let exchange = shared.names.next();
        request.trail.with(|notes| notes.exchange = Some(exchange));
        let about = about(&shared, request);
        let row = store::row(exchange, key, &about, shared.store.now());
        let run = shared.running.begin(row);
        Self { shared, trail: request.trail.clone(), run }
    }

    /// The answer as it goes on: with its end, the exchange ends.
    async fn answered(self, mut response: Response) -> Response {
        if response.body.is_empty() {
            let ids = self.wanted().of_answer(&response.headers, None);
            self.end(Some(response.status), BodyCame::Whole, ids);
            return response;
        }
        let status = response.status;
        if !self.wanted().reads_answers() {
            // Nobody reads on when its client leaves: nobody can ask for it.
            let ids = self.wanted().of_answer(&response.headers, None);
            response.body = response.body.watched(Passing { unclaimed: Some((self, ids)), status });
            return response;
        }
        let tasks = self.shared.tasks.clone();
        let reading = Reading { unclaimed: self, status, headers: response.headers.clone() };
        let recorder = Recorder::record(response.body, READ_MAX, tasks, Box::new(reading));
        response.body = recorder.await;
        response
    }

    fn wanted(&self) -> &Captures {
        &self.shared.terms.rules.capture
    }

    /// Ends it; `ids` are those of the answer.
    fn end(self, status: Option<StatusCode>, body: BodyCame, ids: Ids) {
        let Self { shared, trail, run } = self;
        let (end, attempts, captured) = trail.with(|notes| {
            let ending = (shared.terms.decide.ending)(&History {
                ambiguous_before: false,
                attempts: &notes.attempts,
                says: notes.says,
                body,
                kept: Kept::No,
                asked_by: AskedBy::Nobody,
                client_gone: false,
            });
            let good = status.is_some_and(|status| status.is_success());
            notes.end = (!good || ending.end == End::Unknown).then_some(ending.end);
            let mut captured = notes.captured.clone();
            captured.extend(ids);
            (ending.end, notes.attempts.clone(), captured)
        });
        cost::spent(&shared, (end, status), (&trail, false), &captured);
        if end == End::Unknown {
            shared.terms.metrics.key(KeyEvent::Unknown);
        }
        if let Some(row) = run.end() {
            shared.note(store::note(row, store::state(end), &attempts, &captured));
        }
    }
}

/// Learns how the answer's body ended.
struct Passing {
    unclaimed: Option<(Unclaimed, Ids)>,
    status: StatusCode,
}

impl Watcher for Passing {
    fn ended(&mut self, end: BodyEnd) {
        let body = match end {
            BodyEnd::Broken => BodyCame::Broken,
            // Its client left: that says nothing of what was done.
            BodyEnd::Whole | BodyEnd::Dropped => BodyCame::Whole,
        };
        if let Some((unclaimed, ids)) = self.unclaimed.take() {
            unclaimed.end(Some(self.status), body, ids);
        }
    }
}

/// Reads the answer's body for its ids.
struct Reading {
    unclaimed: Unclaimed,
    status: StatusCode,
    headers: HeaderMap,
}

impl Settle for Reading {
    fn waits(&mut self) {}

    fn settle(self: Box<Self>, came: Came) -> BoxFuture<()> {
        Box::pin(async move {
            let Self { unclaimed, status, headers } = *self;
            let (body, bytes) = match came {
                Came::Whole(bytes) => (BodyCame::Whole, Some(bytes)),
                Came::TooLarge => (BodyCame::Whole, None),
                Came::Broken => (BodyCame::Broken, None),
            };
            let ids = unclaimed.wanted().of_answer(&headers, bytes.as_ref());
            unclaimed.end(Some(status), body, ids);
        })
    }
}
