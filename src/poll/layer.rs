//! Asks the board where a poll's answer comes from, and gets it there.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::RETRY_AFTER;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tower::{Layer, Service};

use crate::exchange::hint::{self, Hint};
use crate::exchange::trail::Replay;
use crate::exchange::{
    BoxFuture, Failure, Origin, Record, Request, RequestParts, Response, Stage, Trail, take_ready,
};
use crate::metrics::{PollEvent, PollMetrics};
use crate::poll::board::{Board, Lesson, Place};
use crate::poll::flight::{Aim, Answer, Pilot, Seat, Told};
use crate::poll::job::{self, Job, Wants};
use crate::poll::shelf::Serves;
use crate::poll::spacing::Pace;
use crate::poll::{Rules, read};

/// Wraps a stage in [`Polling`].
#[derive(Clone, Debug)]
pub struct PollingLayer {
    /// `None`: the route is not for polls.
    terms: Option<Arc<Terms>>,
}

/// Asks once for all who ask the same.
#[derive(Clone, Debug)]
pub struct Polling<S> {
    terms: Option<Arc<Terms>>,
    inner: S,
}

/// What a route's polls are asked by.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The route's name: what is known under one is not known under another.
    pub route: String,
    /// Its rules.
    pub rules: Rules,
    /// The longest hint that is obeyed.
    pub hint_max: Duration,
    /// How long a poll may wait for another's answer.
    pub deadline: Duration,
    /// Whether decisions are only counted.
    pub observes: bool,
    /// What is known of all polls.
    pub board: Board,
    /// Whose credentials the upstream lately refused.
    pub refused: Refused,
    /// Where a poll goes on that somebody else waits for.
    pub tasks: TaskTracker,
    /// Where polls are counted.
    pub metrics: PollMetrics,
}

/// Whether an upstream lately refused a credential, on whatever route.
#[derive(Clone)]
pub struct Refused(Arc<Ask>);

type Ask = dyn Fn(&Origin, [u8; 32]) -> bool + Send + Sync;

impl Refused {
    /// Asks `ask`, which must not wait.
    pub fn new(ask: impl Fn(&Origin, [u8; 32]) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Refused")
    }
}

impl PollingLayer {
    /// Asks by `terms`, where the route is for polls.
    pub fn new(terms: Option<Terms>) -> Self {
        Self { terms: terms.map(Arc::new) }
    }
}

impl<S> Polling<S> {
    /// The stage below.
    pub fn below(&self) -> &S {
        &self.inner
    }
}

impl<S> Layer<S> for PollingLayer {
    type Service = Polling<S>;

    fn layer(&self, inner: S) -> Polling<S> {
        Polling { terms: self.terms.clone(), inner }
    }
}

impl<S: Stage> Service<Request> for Polling<S> {
    type Response = Response;
    type Error = Failure;
    type Future = BoxFuture<Result<Response, Failure>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Some(terms) = self.terms.as_ref() else { return self.inner.call(request) };
        if !job::is_poll(&request) {
            return if request.method.is_safe() {
                self.inner.call(request)
            } else {
                self.change(terms.board.clone(), request)
            };
        }
        let terms = terms.clone();
        let inner = take_ready(&mut self.inner);
        Box::pin(Asking::new(terms, &request).ask(inner, request))
    }
}

impl<S> Polling<S>
where
    S: Service<Request, Future = BoxFuture<Result<Response, Failure>>>,
{
    /// What is changed is another than it was told to be (RFC 9111, section 4.4).
    fn change(&mut self, board: Board, request: Request) -> BoxFuture<Result<Response, Failure>> {
        let holder = job::holder(&request.origin, &request.caller);
        let answered = self.inner.call(request);
        Box::pin(async move {
            let answered = answered.await;
            board.forget(&holder);
            answered
        })
    }
}

/// One poll on its way to its answer.
struct Asking {
    terms: Arc<Terms>,
    aim: Aim,
    wants: Wants,
    began: Instant,
}

impl Asking {
    fn new(terms: Arc<Terms>, request: &RequestParts) -> Self {
        let job = Job::of(&terms.route, request);
        let aim = Aim { job, single_attempt: request.wishes.single_attempt };
        let wants = Wants::of(&request.headers);
        Self { terms, aim, wants, began: Instant::now() }
    }

    async fn ask<S>(self, inner: S, request: Request) -> Result<Response, Failure>
    where
        S: Service<Request, Response = Response, Error = Failure> + Send + 'static,
        S::Future: Send,
    {
        let terms = &self.terms;
        if (terms.refused.0)(&request.origin, request.caller) {
            terms.board.forget(&self.aim.job.holder);
        }
        if self.wants != Wants::Any {
            return self.alone(inner, request).await;
        }
        let place = terms.board.ask(self.aim, &terms.rules, self.began);
        self.count(&place);
        match place {
            Place::Lead(seat, pilot) => self.lead(inner, request, (seat, pilot)).await,
            Place::Stored(..) | Place::Join(_) if terms.observes => {
                drop(place);
                self.apart(inner, request).await
            }
            Place::Stored(record, _) => {
                request.trail.with(|notes| notes.replay = Some(Replay::Stored));
                Ok(record.replay(&request.headers))
            }
            Place::Join(seat) => self.join(inner, request, seat).await,
        }
    }

    fn count(&self, place: &Place) {
        self.terms.metrics.count(match place {
            Place::Lead(..) => PollEvent::Sent,
            Place::Join(_) => PollEvent::Joined,
            Place::Stored(_, Serves::Recent) => PollEvent::Stored,
            Place::Stored(_, Serves::Over) => PollEvent::Over,
        });
    }

    /// Asks for itself alone, and for those that come later if it may.
    async fn alone<S>(self, mut inner: S, request: Request) -> Result<Response, Failure>
    where
        S: Service<Request, Response = Response, Error = Failure>,
    {
        self.terms.metrics.count(PollEvent::Sent);
        let keeps = self.terms.rules.keep() && self.wants != Wants::Unkept;
        let response = inner.call(request).await?;
        self.heed(response.status);
        if !keeps {
            return Ok(response);
        }
        let (response, record) = read::shared(response).await;
        if let Some(record) = &record {
            self.learn(&response, record);
        }
        Ok(response)
    }

    /// Goes on its own, as it came; it is counted already.
    async fn apart<S>(self, mut inner: S, request: Request) -> Result<Response, Failure>
    where
        S: Service<Request, Response = Response, Error = Failure>,
    {
        let response = inner.call(request).await?;
        self.heed(response.status);
        Ok(response)
    }

    /// Asks for all who join, and goes on when this client hangs up and others wait.
    async fn lead<S>(
        self,
        inner: S,
        mut request: Request,
        (seat, pilot): (Seat, Pilot),
    ) -> Result<Response, Failure>
    where
        S: Service<Request, Response = Response, Error = Failure> + Send + 'static,
        S::Future: Send,
    {
        request.client.presence = pilot.presence().clone();
        if let Some(traced) = &request.traced {
            pilot.is_part_of(traced);
        }
        let tasks = self.terms.tasks.clone();
        let (tell, told) = oneshot::channel();
        tasks.spawn(self.fly(inner, request, pilot, tell));
        let told = told.await;
        drop(seat);
        told.unwrap_or_else(|_ended| {
            let detail = "the poll that was under way ended without a word".to_owned();
            Err(Failure::Protocol { detail, broken: true })
        })
    }

    /// The way upstream, for as long as anybody waits.
    async fn fly<S>(
        self,
        inner: S,
        request: Request,
        pilot: Pilot,
        tell: oneshot::Sender<Result<Response, Failure>>,
    ) where
        S: Service<Request, Response = Response, Error = Failure> + Send,
    {
        let presence = pilot.presence().clone();
        let (result, told) = tokio::select! {
            biased;
            came = self.answer(inner, request, &pilot) => came,
            () = presence.gone() => return,
        };
        pilot.land(told);
        // Who began it may have left.
        drop(tell.send(result));
    }

    async fn answer<S>(
        &self,
        mut inner: S,
        request: Request,
        pilot: &Pilot,
    ) -> (Result<Response, Failure>, Told)
    where
        S: Service<Request, Response = Response, Error = Failure> + Send,
    {
        let trail = request.trail.clone();
        let result = inner.call(request).await;
        let keeps = self.terms.rules.keep();
        if !keeps {
            // Whoever comes from here on would get an answer that is older than its question.
            pilot.close();
        }
        let response = match result {
            Ok(response) => response,
            Err(failure) => {
                let stop = trail.with(|notes| notes.stop);
                return (Err(failure.clone()), Told::Failure(failure, stop));
            }
        };
        self.heed(response.status);
        if !keeps && !pilot.has_company() {
            return (Ok(response), Told::Apart); // nobody but its own client will read it
        }
        let (response, record) = read::shared(response).await;
        let Some(record) = record else { return (Ok(response), Told::Apart) };
        self.learn(&response, &record);
        let told = Told::Answer(told(&response, record, &trail));
        (Ok(response), told)
    }

    /// Waits for another's answer, as long as it could have waited for its own.
    async fn join<S>(self, inner: S, request: Request, seat: Seat) -> Result<Response, Failure>
    where
        S: Service<Request, Response = Response, Error = Failure>,
    {
        let patience = hint::client_patience(&request.headers, SystemTime::now());
        let after = patience.map_or(self.terms.deadline, |own| own.min(self.terms.deadline));
        let told = seat.told(request.arrived + after).await;
        let joined = |stop| {
            request.trail.with(|notes| {
                (notes.replay, notes.stop) = (Some(Replay::Joined), stop);
                notes.joined = seat.leader();
            });
        };
        match told {
            None => Err(Failure::TimedOut { after, sent: false }),
            Some(Told::Answer(answer)) => {
                joined(answer.stop);
                let mut response = answer.record.replay(&request.headers);
                if let Some(wait) = answer.retry_after {
                    response.headers.insert(RETRY_AFTER, wait);
                }
                Ok(response)
            }
            Some(Told::Failure(failure, stop)) => {
                joined(stop);
                Err(failure)
            }
            Some(Told::Apart) => {
                drop(seat);
                self.apart(inner, request).await
            }
        }
    }

    /// A credential that is refused loses what it knew.
    fn heed(&self, status: StatusCode) {
        if read::is_refusal(status) {
            self.terms.board.forget(&self.aim.job.holder);
        }
    }

    /// Remembers an answer for the polls that come after it, where it may serve them.
    fn learn(&self, response: &Response, record: &Record) {
        let Terms { rules, hint_max, board, .. } = &*self.terms;
        if !rules.keep() || !read::may_serve_later(response.status) {
            return;
        }
        let headers = &response.headers;
        let hint = match hint::wait(response.status, headers, SystemTime::now()) {
            Hint::Wait(wait) => Some(wait),
            Hint::Absent | Hint::Invalid => None,
        };
        let over = |terminal: &&_| read::is_over(terminal, headers, record);
        let over_for = rules.terminal.as_ref().filter(over).map(|terminal| terminal.lasts);
        let pace = rules.interval.map(|interval| Pace { interval, hint_max: *hint_max });
        let lesson = Lesson { record, asked: self.began, pace, hint, over_for };
        board.learn(self.aim.job, &lesson, Instant::now());
    }
}

/// What those who joined are told.
fn told(response: &Response, record: Record, trail: &Trail) -> Answer {
    let retry_after = response.headers.get(RETRY_AFTER).cloned();
    Answer { record, retry_after, stop: trail.with(|notes| notes.stop) }
}
