//! Lets an attempt pass when its turn has come.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until, timeout_at};
use tower::{Layer, Service};

use crate::exchange::hint::{self, Hint};
use crate::exchange::trail::Presence;
use crate::exchange::{BoxFuture, Failure, Origin, Request, Response};
use crate::limit::pause::{Pass, Pause};
use crate::limit::turn::{Slot, Taken};
use crate::limit::{Caller, Gate, Limits};
use crate::metrics::RouteMetrics;

/// Wraps a stage in [`Limit`].
#[derive(Clone)]
pub struct LimitLayer {
    shared: Arc<Shared>,
}

/// Passes an attempt on when no pause, slot or rate holds it back.
#[derive(Clone)]
pub struct Limit<S> {
    shared: Arc<Shared>,
    inner: S,
}

struct Shared {
    gate: Gate,
    limits: Limits,
    /// The longest pause; a hint beyond it is not waited for, but asked about again.
    pause_max: Duration,
    metrics: RouteMetrics,
}

impl LimitLayer {
    /// Holds back at `gate` by `limits`; a pause lasts at most `pause_max`.
    pub fn new(
        gate: Gate,
        limits: Limits,
        pause_max: Duration,
        metrics: RouteMetrics,
    ) -> Self {
        Self { shared: Arc::new(Shared { gate, limits, pause_max, metrics }) }
    }
}

impl<S> Layer<S> for LimitLayer {
    type Service = Limit<S>;

    fn layer(&self, inner: S) -> Limit<S> {
        Limit { shared: self.shared.clone(), inner }
    }
}

impl<S> Service<Request> for Limit<S>
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
    let limited = shared.limits.concurrency.is_some() || shared.limits.rate.is_some();
    let turn = if limited || shared.gate.has_pauses() {
        shared.turn(shared.asker(&request)).await?
    } else {
        Turn::default()
    };
    let response = inner.call(request).await?; // failed, it drops `first`: the next one tries
    shared.see(&response, caller, &origin, turn.first);
    Ok(match turn.slot {
        // The slot goes with the body: an exchange is in flight until its last
        // byte, not until its headers.
        Some(slot) => Response { body: response.body.holding(slot), ..response },
        None => response,
    })
}

/// An attempt that wants to pass.
struct Asker {
    caller: Caller,
    origin: Origin,
    /// How long it waits for that.
    until: Instant,
    /// The client without which nobody wants it.
    client: Option<Presence>,
}

/// What an attempt holds while it is under way.
#[derive(Default)]
struct Turn {
    slot: Option<Slot>,
    first: Option<First>,
}

/// The right to go first after a pause; dropped without a word, the next one tries.
struct First {
    pause: Arc<Pause>,
}

impl Drop for First {
    fn drop(&mut self) {
        self.pause.first_failed();
    }
}

impl Shared {
    /// A first attempt waits as long as the route says, a retry until the deadline
    /// of its exchange.
    fn asker(&self, request: &Request) -> Asker {
        let limit = Instant::now() + self.limits.max_wait;
        let deadline = request.wait_until.unwrap_or(limit);
        Asker {
            caller: request.caller,
            origin: request.origin.clone(),
            until: if request.trail.attempts() == 0 { limit.min(deadline) } else { deadline },
            client: (!request.standing.outlives_client).then(|| request.client.presence.clone()),
        }
    }

    /// Waits for the turn.
    async fn turn(&self, asker: Asker) -> Result<Turn, Failure> {
        let Some(client) = &asker.client else { return self.await_turn(&asker).await };
        tokio::select! {
            biased;
            turn = self.await_turn(&asker) => turn,
            () = client.gone() => Err(Failure::LimitWait { retry_after: SOON }),
        }
    }

    async fn await_turn(&self, asker: &Asker) -> Result<Turn, Failure> {
        let started = Instant::now();
        let Asker { caller, origin, until, .. } = asker;
        let (caller, until) = (*caller, *until);
        let waits = self.gate.inner.waiting.fetch_add(1, Ordering::AcqRel);
        let _leave = Leaving(&self.gate);
        let origin = self.pause_origin(origin);
        let mut waited = false;
        let turn = loop {
            let turn = self.try_turn(&caller, origin, until, waits).await?;
            match turn {
                Ready(turn) => break turn,
                Again(at) if at > until => return Err(too_late(at, started)),
                Again(at) => sleep_until(at).await,
            }
            waited = true;
        };
        if waited || started.elapsed() > Duration::ZERO {
            self.metrics.held_back(started.elapsed());
        }
        Ok(turn)
    }

    /// One round: the pause, then a slot, then the rate. Whatever makes it wait,
    /// it holds nothing meanwhile.
    async fn try_turn(
        &self,
        caller: &Caller,
        origin: Option<&Origin>,
        until: Instant,
        waits: usize,
    ) -> Result<Step, Failure> {
        let first = match self.past_pause(caller, origin, until).await? {
            Ok(first) => first,
            Err(at) => return Ok(Again(at)),
        };
        let slot = match self.limits.concurrency {
            None => None,
            Some(limit) => match self.gate.turns(*caller).take(limit) {
                Taken::Slot(slot) => Some(slot),
                Taken::Queued(_) if waits >= self.queue_max() => return Err(Failure::Overloaded),
                Taken::Queued(queued) => Some(
                    timeout_at(until, queued)
                        .await
                        .ok()
                        .and_then(Result::ok)
                        .ok_or_else(|| too_late(until + SOON, until))?,
                ),
            },
        };
        if let Some(rate) = self.limits.rate {
            let taken = self.gate.turns(*caller).take_rate(rate, Instant::now());
            if let Err(at) = taken {
                if waits >= self.queue_max() {
                    return Err(Failure::Overloaded);
                }
                return Ok(Again(at)); // the slot is dropped here: a wait holds none
            }
        }
        Ok(Ready(Turn { slot, first }))
    }

    /// `Ok(Ok(_))` past the pause, `Ok(Err(at))` when to ask again.
    async fn past_pause(
        &self,
        caller: &Caller,
        origin: Option<&Origin>,
        until: Instant,
    ) -> Result<Result<Option<First>, Instant>, Failure> {
        loop {
            let now = Instant::now();
            let Some(pause) = self.gate.pause(caller, origin) else { return Ok(Ok(None)) };
            match pause.ask(now) {
                Pass::Go => return Ok(Ok(None)),
                Pass::GoFirst => return Ok(Ok(Some(First { pause }))),
                Pass::Wait(at) => return Ok(Err(at)),
                Pass::WaitForFirst => {
                    let changed = timeout_at(until, pause.change()).await;
                    changed.map_err(|_elapsed| too_late(until + SOON, until))?;
                }
            }
        }
    }

    /// Reads off an answer whether a pause begins, goes on or is over.
    fn see(&self, response: &Response, caller: Caller, origin: &Origin, first: Option<First>) {
        let origin = self.pause_origin(origin);
        if hint::throttles(response.status, &response.headers) {
            let hint = hint::wait(response.status, &response.headers, SystemTime::now());
            if let Hint::Wait(hint) = hint {
                let until = Instant::now() + hint.min(self.pause_max);
                self.gate.begin(caller, origin, until);
                self.metrics.paused();
            }
        } else if first.is_some() {
            self.gate.end(&caller, origin);
        }
    }

    fn queue_max(&self) -> usize {
        usize::try_from(self.limits.max_queue).unwrap_or(usize::MAX)
    }

    /// A route's pause is for one upstream; a group's, for all that its routes reach.
    fn pause_origin<'a>(&self, origin: &'a Origin) -> Option<&'a Origin> {
        self.limits.group.is_none().then_some(origin)
    }
}

enum Step {
    Ready(Turn),
    Again(Instant),
}
use Step::{Again, Ready};

struct Leaving<'a>(&'a Gate);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.inner.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

fn too_late(at: Instant, since: Instant) -> Failure {
    Failure::LimitWait { retry_after: at.saturating_duration_since(since) }
}

/// When asking again is worth it, where nothing says when the turn will come.
const SOON: Duration = Duration::from_secs(1);

impl fmt::Debug for LimitLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitLayer").field("limits", &self.shared.limits).finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for Limit<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit").field("limits", &self.shared.limits).finish_non_exhaustive()
    }
}
