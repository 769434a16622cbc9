//! The body of a download, which goes on where it stopped.
//!
//! # Invariants
//!
//! - What the client gets are the bytes of one representation in their order, or it sees
//!   the body break off: nothing is padded and nothing is spliced on trust.
//! - At most one frame is kept here, and only while it is not known to be the last.
//! - The connection and the slot of a broken answer are given back before the next is
//!   asked for, and no attempt begins that was not paid for.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::Bytes;
use http::Method;
use http_body::{Body as _, Frame, SizeHint};
use tower::Service;

use crate::exchange::body::{BodyEnd, BodyError, Watcher};
use crate::exchange::{Body, BoxFuture, Failure, Request, Response, Stop, Trail, signature};
use crate::failpoint::Failpoint;
use crate::metrics::{Resume, RouteMetrics};
use crate::retry::decision::Decision;
use crate::retry::glance::{Said, set_aside};
use crate::retry::layer::Exchange;
use crate::retry::outcome::{classify, held_back_by};
use crate::retry::policy::Policy;
use crate::retry::resume::{Refusal, Resumption, may_resume};

/// A body that asks for its rest when it breaks off.
struct Resuming<S> {
    state: State<S>,
    /// Bytes that the client is still to get, where its answer's head said how many.
    left: Option<u64>,
}

enum State<S> {
    /// Hands on what comes.
    Reading(Body, Box<Download<S>>),
    /// Asks for the rest.
    Asking(BoxFuture<Result<Rest<S>, BodyError>>),
    /// It came whole.
    Ended,
    /// It broke off for good.
    Broken,
}

/// The rest of a download, and the download that reads it.
type Rest<S> = (Body, Box<Download<S>>);

/// What the reader of a body is told.
type Told = Option<Result<Frame<Bytes>, BodyError>>;

/// A download on its way.
struct Download<S> {
    exchange: Exchange,
    inner: S,
    resumption: Resumption,
    /// Whether anything came since the last attempt began.
    progress: bool,
    /// Whether what is read now is the rest of an answer that broke off.
    resumed: bool,
    /// What may be the last of it: kept until it is known that nothing follows.
    last: Option<Bytes>,
}

/// What to do with what came.
enum Step {
    /// Hand it on.
    Pass(Frame<Bytes>),
    /// Read on.
    Again,
    /// Ask for the rest.
    Resume(BodyError),
    /// Break off.
    Break(BodyError),
    /// It came whole; this is the last of it.
    End(Option<Bytes>),
}

impl Exchange {
    /// The answer as it goes on; on a route of downloads its body can be resumed.
    pub(super) fn passed<S>(
        self,
        inner: S,
        result: Result<Response, Failure>,
    ) -> Result<Response, Failure>
    where
        S: Service<Request, Response = Response, Error = Failure> + Send + 'static,
        S::Future: Send,
    {
        // No copy is kept where a single attempt is wanted: then there is no second here.
        if !self.shared.means.resumes || !self.copies || self.parts.method != Method::GET {
            return result;
        }
        let mut response = result?;
        if response.body.is_empty() || !response.status.is_success() {
            return Ok(response);
        }
        // A signed request goes out as it came or not at all.
        let query = self.parts.path.query();
        let signed = signature::signature(&self.parts.headers, query, SystemTime::now());
        let resumption = may_resume(&self.parts.headers, &response).filter(|_| signed.is_none());
        let body = std::mem::take(&mut response.body);
        response.body = match resumption {
            None => body.watched(Unresumed {
                metrics: self.shared.means.metrics.clone(),
                trail: self.parts.trail.clone(),
            }),
            Some(resumption) => {
                let left = body.length();
                let download = Download {
                    exchange: self,
                    inner,
                    resumption,
                    progress: false,
                    resumed: false,
                    last: None,
                };
                let state = State::Reading(body, Box::new(download));
                Body::wrap(Resuming { state, left })
            }
        };
        Ok(response)
    }

    fn note_resume(&self, result: Resume) {
        note(&self.shared.means.metrics, &self.parts.trail, result);
    }

    /// Notes why no attempt follows that was due.
    fn give_up<T>(&self, stop: Stop, result: Result<Response, Failure>) -> Option<T> {
        drop(self.stop(stop, result));
        self.note_resume(Resume::GaveUp);
        None
    }
}

impl<S> Download<S> {
    /// Looks at what came of `body`.
    fn look(&mut self, came: Told, body: &Body) -> Step {
        match came {
            Some(Ok(frame)) if self.resumed => self.rest(frame, body),
            Some(Ok(frame)) => {
                self.advance(frame.data_ref().map_or(0, Bytes::len));
                Step::Pass(frame)
            }
            Some(Err(broke)) => Step::Resume(broke),
            // It ended too early, by a framing that does not show it.
            None if self.resumption.left().is_some_and(|left| left > 0) => {
                Step::Resume(BodyError::UpstreamBroke)
            }
            None => Step::End(self.last.take()),
        }
    }

    /// A piece of the rest: no byte more than was announced, and no trailers, since what
    /// a part says of itself is not true of the whole.
    fn rest(&mut self, frame: Frame<Bytes>, body: &Body) -> Step {
        let Ok(data) = frame.into_data() else { return Step::Again };
        let left = self.resumption.left().unwrap_or(0);
        let length = data.len() as u64;
        if length > left {
            self.exchange.note_resume(Resume::Refused);
            return Step::Break(BodyError::UpstreamBroke);
        }
        self.advance(data.len());
        let may_be_followed = body.length() != Some(0) && !body.is_end_stream();
        if length > 0 && length == left && may_be_followed {
            self.last = Some(data);
            return Step::Again;
        }
        Step::Pass(Frame::data(data))
    }

    fn advance(&mut self, bytes: usize) {
        self.resumption.advance(bytes);
        self.progress |= bytes > 0;
    }
}

impl<S> Download<S>
where
    S: Service<Request, Response = Response, Error = Failure> + Send + 'static,
    S::Future: Send,
{
    /// Asks for the rest until it comes; the error is the one that broke the body.
    ///
    /// `retry.attempts` bounds the attempts that bring nothing: whoever sets it to three
    /// wants a dead upstream to be left after three, not a long file to fail at its third
    /// cut. So a resume that brought a byte begins the count anew, as the tools do that
    /// people download with. The deadline and the budget bound the sum: each resume is paid
    /// for as after any ambiguous outcome.
    async fn resume(mut self: Box<Self>, broke: BodyError) -> Result<Rest<S>, BodyError> {
        if self.resumption.left() == Some(0) {
            // Every byte came and the end of it did not: there is no rest to ask for.
            self.exchange.note_resume(Resume::Refused);
            return Err(broke);
        }
        if std::mem::take(&mut self.progress) {
            self.exchange.made = 1;
        }
        let response = self.answer(broke).await.ok_or(broke)?;
        match self.resumption.accepts(&response) {
            Ok(span) => {
                self.exchange.note_resume(Resume::Resumed);
                self.resumption.learn(span);
                self.resumed = true;
                Ok((response.body, self))
            }
            Err(refusal) => {
                self.exchange.note_resume(match refusal {
                    Refusal::Changed => Resume::Changed,
                    Refusal::Refused => Resume::Refused,
                });
                Err(broke)
            }
        }
    }

    /// Sends attempts until one is answered for good; `None` where none is.
    async fn answer(&mut self, broke: BodyError) -> Option<Response> {
        let exchange = &mut self.exchange;
        let shared = exchange.shared.clone();
        let mut result = Err(failure(broke, &shared.policy));
        let mut said = Said::default();
        while let Some(attempt) = classify(&result, &shared.policy) {
            match exchange.decide(attempt, &result, said) {
                Decision::Pass => {
                    let answer = result.ok();
                    if answer.is_none() {
                        exchange.note_resume(Resume::GaveUp); // the route does not retry that
                    }
                    return answer;
                }
                Decision::Stop(stop) => return exchange.give_up(stop, result),
                Decision::Retry { wait, asked, cost, reason } => {
                    let Some(paid) = exchange.pay(cost) else {
                        return exchange.give_up(Stop::Budget, result);
                    };
                    shared.means.metrics.retry(reason, wait, asked);
                    exchange.parts.trail.another_follows();
                    drop(set_aside(result).await);
                    if !exchange.wait(wait).await {
                        return None; // the client left: nobody wants the rest
                    }
                    paid.spend();
                    Failpoint::BetweenAttempts.pass();
                    exchange.began = SystemTime::now();
                }
            }
            let mut request = exchange.attempt();
            self.resumption.ask(&mut request.headers);
            result = self.inner.call(request).await;
            if let Some(attempt) = classify(&result, &shared.policy) {
                (result, said) = exchange.note(attempt, result).await;
            }
        }
        exchange.give_up(held_back_by(&result), result)
    }
}

impl<S> http_body::Body for Resuming<S>
where
    S: Service<Request, Response = Response, Error = Failure> + Send + 'static,
    S::Future: Send,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Told> {
        let this = self.get_mut();
        loop {
            let step = match &mut this.state {
                State::Reading(body, download) => {
                    let came = ready!(Pin::new(&mut *body).poll_frame(cx));
                    download.look(came, body)
                }
                State::Asking(asking) => match ready!(asking.as_mut().poll(cx)) {
                    Ok((body, download)) => {
                        this.state = State::Reading(body, download);
                        Step::Again
                    }
                    Err(broke) => Step::Break(broke),
                },
                State::Ended | State::Broken => return Poll::Ready(None),
            };
            if let ControlFlow::Break(told) = this.take(step) {
                return Poll::Ready(told);
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Reading(body, download) => {
                let all_came = download.resumption.left().is_none_or(|left| left == 0);
                all_came && download.last.is_none() && body.is_end_stream()
            }
            State::Ended => true,
            State::Asking(_) | State::Broken => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl<S> Resuming<S>
where
    S: Service<Request, Response = Response, Error = Failure> + Send + 'static,
    S::Future: Send,
{
    /// Takes a step; it breaks with what the reader is told, and continues where that is
    /// nothing yet.
    fn take(&mut self, step: Step) -> ControlFlow<Told> {
        match step {
            Step::Again => ControlFlow::Continue(()),
            Step::Pass(frame) => ControlFlow::Break(Some(Ok(self.counted(frame)))),
            Step::Resume(broke) => {
                self.ask(broke);
                ControlFlow::Continue(())
            }
            Step::Break(broke) => {
                self.state = State::Broken;
                ControlFlow::Break(Some(Err(broke)))
            }
            Step::End(last) => {
                self.state = State::Ended;
                ControlFlow::Break(last.map(|last| Ok(self.counted(Frame::data(last)))))
            }
        }
    }

    fn ask(&mut self, broke: BodyError) {
        if let State::Reading(body, download) = std::mem::replace(&mut self.state, State::Broken) {
            drop(body); // and with it the connection and the slot
            self.state = State::Asking(Box::pin(download.resume(broke)));
        }
    }

    fn counted(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        if let (Some(left), Some(data)) = (self.left.as_mut(), frame.data_ref()) {
            *left = left.saturating_sub(data.len() as u64);
        }
        frame
    }
}

/// Counts a download that breaks off and that nothing could prove the rest of.
struct Unresumed {
    metrics: RouteMetrics,
    trail: Trail,
}

impl Watcher for Unresumed {
    fn ended(&mut self, end: BodyEnd) {
        if end == BodyEnd::Broken {
            note(&self.metrics, &self.trail, Resume::Refused);
        }
    }
}

fn note(metrics: &RouteMetrics, trail: &Trail, result: Resume) {
    metrics.resume(result);
    trail.with(|notes| notes.resume = Some(result.as_str()));
}

/// A body that broke off, as the attempt that it makes of the one that brought it.
fn failure(broke: BodyError, policy: &Policy) -> Failure {
    match broke {
        BodyError::Idle => {
            let after = policy.body_idle_timeout.unwrap_or_default();
            Failure::TimedOut { after, sent: true }
        }
        BodyError::UpstreamBroke
        | BodyError::ClientLeft
        | BodyError::Malformed(_)
        | BodyError::CopyLost => Failure::Protocol { detail: broke.to_string(), broken: true },
    }
}

#[cfg(test)]
mod tests;
