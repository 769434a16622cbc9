//! Asks the decisions and does the sending.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use http::uri::PathAndQuery;
use http::{HeaderMap, Method};
use tokio::time::{Instant, sleep};
use tower::{Layer, Service};

use crate::exchange::body::{Caps, Held, Room};
use crate::exchange::hint::{self, Hint};
use crate::exchange::trail::{Attempt, Says, Stop};
use crate::exchange::{
    BoxFuture, Chance, Client, Failure, Origin, Outcome, Request, Response, Standing, Trail, Upload, json,
    signature,
};
use crate::metrics::RouteMetrics;
use crate::retry::budget::{Budget, Receipt};
use crate::retry::decision::{Decision, Facts, decide, repeatable};
use crate::retry::outcome::{Classified, classify};
use crate::retry::policy::{Attempts, Policy};

/// Wraps a stage in [`Retry`].
#[derive(Clone, Debug)]
pub struct RetryLayer {
    shared: Arc<Shared>,
}

/// Sends a request through the inner stage until its answer is final.
#[derive(Clone, Debug)]
pub struct Retry<S> {
    shared: Arc<Shared>,
    inner: S,
}

#[derive(Debug)]
struct Shared {
    policy: Policy,
    means: Means,
}

/// What a route's retries are made with.
#[derive(Clone, Debug)]
pub struct Means {
    /// What pays for them.
    pub budget: Budget,
    /// How much of a body is kept.
    pub caps: Caps,
    /// Where it is kept.
    pub room: Room,
    /// Where they are counted.
    pub metrics: RouteMetrics,
    /// What scatters their waits.
    pub chance: Chance,
    /// Whether decisions are counted and not carried out.
    pub observes: bool,
}

impl RetryLayer {
    /// Retries by `policy`, with what `means` it has.
    pub fn new(policy: Policy, means: Means) -> Self {
        Self { shared: Arc::new(Shared { policy, means }) }
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry { shared: self.shared.clone(), inner }
    }
}

impl<S> Service<Request> for Retry<S>
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
        let exchange = Exchange::new(self.shared.clone(), request);
        Box::pin(exchange.run(inner))
    }
}

/// One exchange on its way through its attempts.
struct Exchange {
    shared: Arc<Shared>,
    parts: Parts,
    body: Held,
    made: u32,
    free_used: u32,
    ambiguous: bool,
    waited: Duration,
}

/// What of a request is the same on each attempt.
struct Parts {
    method: Method,
    origin: Origin,
    path: PathAndQuery,
    headers: HeaderMap,
    trail: Trail,
    client: Client,
    caller: [u8; 32],
    arrived: Instant,
    upload: Option<Arc<Upload>>,
    wants_upgrade: bool,
    off: bool,
    standing: Standing,
}

impl Exchange {
    fn new(shared: Arc<Shared>, request: Request) -> Self {
        let once = request.wishes.single_attempt || request.wants_upgrade || shared.means.observes;
        let caps = if once || is_single(&shared.policy) {
            Caps { memory: 0, disk: 0 } // nobody will want the copy
        } else {
            shared.means.caps
        };
        let body = Held::new(request.body, caps, &shared.means.room);
        let parts = Parts {
            method: request.method,
            origin: request.origin,
            path: request.path,
            headers: request.headers,
            trail: request.trail,
            client: request.client,
            caller: request.caller,
            arrived: request.arrived,
            upload: request.upload,
            wants_upgrade: request.wants_upgrade,
            off: request.wishes.single_attempt || request.wants_upgrade,
            standing: request.standing,
        };
        let ambiguous = parts.standing.ambiguous_before;
        Self { shared, parts, body, made: 0, free_used: 0, ambiguous, waited: Duration::ZERO }
    }

    async fn run<S>(mut self, mut inner: S) -> Result<Response, Failure>
    where
        S: Service<Request, Response = Response, Error = Failure> + Clone + Send + 'static,
        S::Future: Send,
    {
        let mut kept = None;
        loop {
            let result = inner.call(self.attempt()).await;
            let Some(attempt) = classify(&result, &self.shared.policy) else {
                // Held back before it was sent: an answer that is already there
                // says more than that it was held back.
                let Some(kept) = kept else { return result };
                return self.stop(Stop::Deadline, Ok(kept));
            };
            let (result, says) = self.note(attempt, result).await;
            match self.decide(&attempt, &result, says.permanent) {
                Decision::Pass => return result,
                Decision::Stop(stop) => return self.stop(stop, result),
                Decision::Retry { .. } if self.shared.means.observes => return result,
                Decision::Retry { wait, asked, cost, reason } => {
                    let Some(paid) = self.pay(cost) else {
                        return self.stop(Stop::Budget, result);
                    };
                    self.shared.means.metrics.retry(reason, wait, asked);
                    let result = set_aside(result).await;
                    if !self.wait(wait).await {
                        return result;
                    }
                    paid.spend();
                    kept = result.ok();
                }
            }
        }
    }

    /// The request as it goes out on this attempt.
    fn attempt(&mut self) -> Request {
        let parts = &self.parts;
        let mut standing = parts.standing;
        let now = Instant::now();
        standing.fresh_connection =
            !repeatable(&parts.method, &parts.standing, &self.shared.policy, now);
        let deadline = self.shared.policy.deadline;
        Request {
            method: parts.method.clone(),
            origin: parts.origin.clone(),
            path: parts.path.clone(),
            headers: parts.headers.clone(),
            body: self.body.reader(),
            trail: parts.trail.clone(),
            client: parts.client.clone(),
            caller: parts.caller,
            arrived: parts.arrived,
            upload: parts.upload.clone(),
            wants_upgrade: parts.wants_upgrade,
            cut_at: deadline.cuts_attempts.then(|| parts.arrived + deadline.after),
            replayable: true,
            wait_until: self.wait_until(),
            wishes: crate::exchange::Wishes::default(),
            standing,
        }
    }

    /// A retry may wait for its turn until its deadline; a first attempt as the route says.
    fn wait_until(&self) -> Option<Instant> {
        let until = self.parts.arrived.checked_add(self.shared.policy.deadline.after);
        if self.made == 0 { None } else { until }
    }

    /// Notes an attempt, and what its answer's body says.
    async fn note(
        &mut self,
        attempt: Classified,
        result: Result<Response, Failure>,
    ) -> (Result<Response, Failure>, Said) {
        let policy = &self.shared.policy;
        self.made += 1;
        self.shared.means.metrics.attempt(attempt.outcome.as_str());
        let (result, said) = read(policy, attempt, result).await;
        let waited = std::mem::take(&mut self.waited);
        let (outcome, status) = (attempt.outcome, attempt.status);
        let did_nothing = attempt.did_nothing;
        self.ambiguous |= matches!(outcome, Outcome::Ambiguous)
            || matches!(outcome, Outcome::Failed | Outcome::Throttled) && !did_nothing;
        self.parts.trail.with(|notes| {
            notes.attempts.push(Attempt { outcome, status, did_nothing, waited });
            notes.says = said.says;
        });
        let good = outcome == Outcome::Done && attempt.status.is_some_and(|s| !s.is_server_error());
        if good && self.made == 1 && !hint::is_sdk_retry(&self.parts.headers) {
            self.shared.means.budget.deposit();
        } else if self.made > 1 && attempt.status.is_some_and(|status| status.is_success()) {
            self.shared.means.metrics.recovered();
        }
        (result, said)
    }

    fn decide(
        &self,
        attempt: &Classified,
        result: &Result<Response, Failure>,
        permanent: bool,
    ) -> Decision {
        let settled = attempt.outcome == Outcome::Done
            && attempt.status.is_some_and(|s| s.is_success() || s.is_redirection());
        if settled {
            return Decision::Pass; // the common case reads no header and no clock
        }
        let (parts, policy) = (&self.parts, &self.shared.policy);
        let (now, wall) = (Instant::now(), SystemTime::now());
        let none = HeaderMap::new();
        let headers = result.as_ref().map_or(&none, |response| &response.headers);
        let hint =
            attempt.status.map_or(Hint::Absent, |status| hint::wait(status, headers, wall));
        let patience = hint::client_patience(&parts.headers, wall);
        let time = patience.map_or(policy.deadline.after, |own| own.min(policy.deadline.after));
        let facts = Facts {
            attempt: *attempt,
            made: self.made,
            free_used: self.free_used,
            hint,
            instructed: hint::instructed(headers),
            permanent,
            repeatable: repeatable(&parts.method, &parts.standing, policy, now),
            replayable: self.body.is_replayable(),
            signed: signature::signature(&parts.headers, parts.path.query(), wall),
            off: parts.off,
            sdk_retry: hint::is_sdk_retry(&parts.headers),
            now,
            deadline: parts.arrived + time,
        };
        decide(policy, &facts, self.shared.means.chance.unit())
    }

    fn pay(&mut self, cost: crate::retry::budget::Cost) -> Option<Paid> {
        let (budget, now) = (&self.shared.means.budget, Instant::now());
        let receipt = budget.withdraw(cost, now);
        self.shared.means.metrics.budget(budget.whole_tokens(now));
        if cost == crate::retry::budget::Cost::Free {
            self.free_used += 1;
        }
        receipt.map(|receipt| Paid { budget: budget.clone(), receipt: Some(receipt) })
    }

    /// Waits; `false` when the client left and nobody wants another attempt.
    async fn wait(&mut self, wait: Duration) -> bool {
        let standing = &self.parts.standing;
        let now = Instant::now();
        let owed = self.ambiguous
            && repeatable(&self.parts.method, standing, &self.shared.policy, now);
        self.waited = wait;
        if !standing.outlives_client || standing.client_knows_identity || owed {
            sleep(wait).await;
            return true;
        }
        tokio::select! {
            () = sleep(wait) => true,
            () = self.parts.client.presence.gone() => false,
        }
    }

    /// Hands on what came, and says why.
    fn stop(&self, stop: Stop, result: Result<Response, Failure>) -> Result<Response, Failure> {
        self.shared.means.metrics.stopped(stop.as_str());
        if !self.shared.means.observes {
            self.parts.trail.with(|notes| notes.stop = Some(stop));
        }
        result
    }
}

/// A retry that is paid for; dropped before it is made, it gives the tokens back.
struct Paid {
    budget: Budget,
    receipt: Option<Receipt>,
}

impl Paid {
    fn spend(mut self) {
        self.receipt = None;
    }
}

impl Drop for Paid {
    fn drop(&mut self) {
        if let Some(receipt) = self.receipt.take() {
            self.budget.refund(receipt);
        }
    }
}

/// What the body of an answer said.
#[derive(Clone, Copy, Default)]
struct Said {
    permanent: bool,
    says: Option<Says>,
}

/// Reads the beginning of an answer, where the route has something to look for in it.
async fn read(
    policy: &Policy,
    attempt: Classified,
    result: Result<Response, Failure>,
) -> (Result<Response, Failure>, Said) {
    let good = attempt.status.is_some_and(|status| status.is_success());
    let wanted = if good { !policy.failed_when.is_empty() } else { !policy.never_when.is_empty() };
    let mut response = match result {
        Ok(response) if wanted && is_json(&response.headers) => response,
        other => return (other, Said::default()),
    };
    let body = std::mem::take(&mut response.body);
    let peeked = body.peek(READ_MAX, READ_WITHIN).await;
    response.body = peeked.body;
    let mut said = Said::default();
    let encoding = response.headers.get(http::header::CONTENT_ENCODING);
    let encoding = encoding.and_then(|value| value.to_str().ok());
    let text = peeked.whole.as_ref();
    let text = text.and_then(|whole| crate::exchange::coding::decode(encoding, whole, READ_MAX));
    if let Some(Ok(root)) = text.as_deref().map(json::parse) {
        said.permanent = !good && policy.never_when.iter().any(|never| never.holds(&root));
        let failed = policy.failed_when.iter().find(|failed| good && failed.condition.holds(&root));
        said.says = failed.map(|failed| failed.means);
    }
    (Ok(response), said)
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.to_ascii_lowercase().contains("json"))
}

/// Frees the connection and the slot of an answer that is being retried, and
/// keeps the answer, if it is small, in case no further attempt can start.
async fn set_aside(result: Result<Response, Failure>) -> Result<Response, Failure> {
    let mut response = result?;
    let body = std::mem::take(&mut response.body);
    let peeked = body.peek(READ_MAX, DRAIN_WITHIN).await;
    if peeked.whole.is_none() {
        return Err(Failure::Protocol {
            detail: format!("the upstream answered {} and no further attempt began", response.status),
            broken: true,
        });
    }
    response.body = peeked.body;
    Ok(response)
}

fn is_single(policy: &Policy) -> bool {
    matches!(policy.attempts, Attempts::AtMost(most) if most.get() == 1)
}

/// `design.md`, section 6: at most 64 KiB of an answer are read to judge it.
const READ_MAX: usize = 64 * 1024;
/// An answer that trickles is handed on unread.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// `semantics.md`, rule 54: longer is dearer than a new connection.
const DRAIN_WITHIN: Duration = Duration::from_millis(200);
