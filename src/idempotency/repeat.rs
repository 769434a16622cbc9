//! What a key has come to, and what a request that brings it is to do.

use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use crate::exchange::body::Held;
use crate::exchange::ending::Resend;
use crate::exchange::headers;
use crate::exchange::id::ExchangeId;
use crate::exchange::trail::Replay;
use crate::exchange::{Failure, Request, Response};
use crate::idempotency::ask::{Ask, whole_fingerprint};
use crate::idempotency::cost;
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::lookup::Follow;
use crate::idempotency::store::{
    self, About, Asked, Claim, Completed, Open, Record, Reserved, Told, Waiter,
};
use crate::idempotency::terms::Shared;
use crate::idempotency::{InProgress, Mismatch};
use crate::metrics::{KeyEvent, Operation, Timed};

/// A request on its way to its key.
pub(super) struct Repeat<'a> {
    shared: &'a Shared,
    ask: &'a Ask,
    /// How the provider is asked, where it can be.
    follow: Option<&'a Follow>,
    exchange: ExchangeId,
    /// What it asks, once its body has been read.
    fingerprint: Option<Fingerprint>,
    /// Until when it waits for those who hold the claim, once it waits.
    patience: Option<Instant>,
}

/// What a request is to do.
pub(super) enum Next {
    /// It holds the claim: send it.
    Lead(Claim),
    /// It was answered.
    Replay(Replayed),
    /// The exchange that it waited for failed like this.
    Told(Failure),
    /// The upstream is to decide.
    Forward,
}

/// A stored answer, and how it came here.
pub(super) struct Replayed {
    pub(super) response: Response,
    pub(super) how: Replay,
}

impl<'a> Repeat<'a> {
    pub(super) fn new(shared: &'a Shared, ask: &'a Ask, follow: Option<&'a Follow>) -> Self {
        let (exchange, fingerprint) = (shared.names.next(), ask.fingerprint);
        Self { shared, ask, follow, exchange, fingerprint, patience: None }
    }

    /// What the exchange is called in the store.
    pub(super) fn exchange(&self) -> ExchangeId {
        self.exchange
    }

    /// Asks the store until its answer says what to do.
    pub(super) async fn next(&mut self, request: &mut Request) -> Result<Next, Failure> {
        for _ in 0..TURNS_MAX {
            if let Some(next) = self.ask(request).await? {
                return Ok(next);
            }
        }
        Err(self.in_progress())
    }

    /// Asks the store, and works out what its answer means; `None` where the key
    /// changed hands meanwhile.
    async fn ask(&mut self, request: &mut Request) -> Result<Option<Next>, Failure> {
        let began = Instant::now();
        let asked = self.asked(request);
        let reserved = self.shared.store.reserve(&asked).await;
        let metrics = &self.shared.commons.metrics;
        metrics.store_operation(Timed::Reserve, began.elapsed());
        match reserved.inspect_err(|_failed| metrics.store_error(Operation::Reserve))? {
            Reserved::Claimed(claim) => Ok(Some(Next::Lead(claim))),
            Reserved::Completed(done) => self.completed(request, done).await.map(Some),
            Reserved::Unknown(open) => self.unknown(request, open).await,
            Reserved::InFlight(waiter) => self.in_flight(request, waiter).await,
        }
    }

    async fn completed(&mut self, request: &mut Request, done: Completed) -> Result<Next, Failure> {
        if let Some(next) = self.mismatch(request, done.fingerprint).await? {
            return Ok(next);
        }
        let route = self.shared.terms.metrics.name();
        if self.shared.suspensions.holds(&request.origin, request.caller, route) {
            return Err(Failure::ReplaySuspended);
        }
        // Where the upstream answered before the request was complete, nobody can say
        // whether this one asks the same.
        let known = done.fingerprint.is_some();
        let Some(record) = done.record.filter(|_| known) else {
            return Err(Failure::NotRetained { exchange: done.exchange, captured: done.captured });
        };
        self.shared.terms.metrics.key(KeyEvent::Replayed);
        cost::saved(self.shared, &done.captured);
        let response = record.replay(&request.headers);
        Ok(Next::Replay(Replayed { response, how: Replay::Stored }))
    }

    async fn unknown(
        &mut self,
        request: &mut Request,
        open: Open,
    ) -> Result<Option<Next>, Failure> {
        if let Some(next) = self.mismatch(request, open.fingerprint).await? {
            return Ok(Some(next));
        }
        // What the provider says of it by now decides at once, also where a client vouches
        // for its key; where the upstream de-duplicates, sending it again asks the same.
        let promised = self.shared.terms.rules.upstream_dedupes == Some(true);
        if let Some(follow) = self.follow.filter(|_| !promised)
            && follow.ask(&open).await
        {
            return Ok(None);
        }
        if !self.may_resend(request, &open) {
            return Err(Failure::OutcomeUnknown(open.exchange));
        }
        let (began, metrics) = (Instant::now(), &self.shared.commons.metrics);
        let resumed = self.shared.store.resume(&self.asked(request), &open).await;
        metrics.store_operation(Timed::Resume, began.elapsed());
        let failed = |_: &Failure| metrics.store_error(Operation::Resume);
        Ok(resumed.inspect_err(failed)?.map(Next::Lead))
    }

    /// What the store is asked.
    fn asked(&self, request: &Request) -> Asked {
        let keyless = self.ask.likeness.map(|(scope, _)| scope);
        Asked {
            id: self.ask.id,
            key: self.ask.found.key.clone(),
            fingerprint: self.fingerprint,
            exchange: self.exchange,
            scope: keyless,
            tag: self.ask.tag.clone(),
            about: about(self.shared, request),
        }
    }

    async fn in_flight(
        &mut self,
        request: &mut Request,
        mut waiter: Waiter,
    ) -> Result<Option<Next>, Failure> {
        let rules = &self.shared.terms.rules;
        let own = self.own(request).await?;
        let until = *self.patience.get_or_insert_with(|| Instant::now() + rules.join_wait);
        match waiter.claimed(left(until)).await {
            Some(true) => {}
            Some(false) => return Ok(None), // it only asked, as this one does
            None => return Err(self.in_progress()),
        }
        // The one in flight may still be uploading what it asks; who is rejected
        // in any case need not wait for that.
        let joins = rules.in_progress == InProgress::Join;
        let theirs = waiter.fingerprint(if joins { left(until) } else { Duration::ZERO }).await;
        if theirs.is_some_and(|theirs| theirs != own) {
            return self.differs(request).map(Some);
        }
        let exchange = waiter.exchange;
        if waiter.is_here()
            && self.shared.leading.came_back(exchange, headers::times_seen(&request.headers))
        {
            return Err(Failure::Loop); // it would wait for itself
        }
        // Asked now: once it has ended, nobody knows.
        let leader = self.shared.leading.of(exchange);
        let told = if joins { waiter.told(left(until)).await } else { None };
        let Some(told) = told else { return Err(self.in_progress()) };
        if matches!(told, Told::AskAgain) {
            return Ok(None);
        }
        if let Told::Failure(Failure::ClientGone | Failure::BadRequest(_)) = &told {
            // Its request never went out whole, by its own client's doing: that is
            // no answer to ours. The store says whether ours may go.
            return if request.replayable { Ok(None) } else { Err(self.in_progress()) };
        }
        self.shared.terms.metrics.key(KeyEvent::Joined);
        request.trail.with(|notes| notes.joined = leader);
        match told {
            Told::Answer(record) => {
                self.count_saved(&record);
                let response = record.replay(&request.headers);
                Ok(Some(Next::Replay(Replayed { response, how: Replay::Joined })))
            }
            Told::Failure(failure) => Ok(Some(Next::Told(failure))),
            Told::TooLarge => Err(Failure::NotRetained { exchange, captured: Vec::new() }),
            Told::Unknown | Told::AskAgain => Err(Failure::OutcomeUnknown(exchange)),
        }
    }

    /// Whoever joins is told the answer alone: what it cost is read from that.
    fn count_saved(&self, record: &Record) {
        if self.shared.terms.cost.is_some() && record.status().is_success() {
            let wanted = &self.shared.terms.rules.capture;
            let captured = wanted.of_answer(record.headers(), Some(record.body()));
            cost::saved(self.shared, &captured);
        }
    }

    fn in_progress(&self) -> Failure {
        self.shared.terms.metrics.key(KeyEvent::InProgress);
        Failure::InProgress { retry_after: SOON }
    }

    /// What to do where the key came before with another request; a key whose
    /// request was never seen whole can belong to any.
    async fn mismatch(
        &mut self,
        request: &mut Request,
        theirs: Option<Fingerprint>,
    ) -> Result<Option<Next>, Failure> {
        let own = self.own(request).await?;
        if theirs.is_none_or(|theirs| theirs == own) {
            return Ok(None);
        }
        self.differs(request).map(Some)
    }

    fn differs(&self, request: &Request) -> Result<Next, Failure> {
        self.shared.terms.metrics.key(KeyEvent::Reused);
        match self.shared.terms.rules.mismatch {
            Mismatch::Answer(status) => Err(Failure::KeyReused(status)),
            // Its body was read to be compared: past the caps it is no longer there.
            Mismatch::Forward if !request.replayable => {
                Err(Failure::KeyReused(http::StatusCode::UNPROCESSABLE_ENTITY))
            }
            Mismatch::Forward => Ok(Next::Forward),
        }
    }

    async fn own(&mut self, request: &mut Request) -> Result<Fingerprint, Failure> {
        if let Some(known) = self.fingerprint {
            return Ok(known);
        }
        let own = whole_fingerprint(self.shared, request).await?;
        self.fingerprint = Some(own);
        Ok(own)
    }

    fn may_resend(&self, request: &Request, open: &Open) -> bool {
        let body_there = request.replayable || Held::is_at_hand(&request.body);
        if !body_there {
            return false;
        }
        match resend(self.shared, &request.method, self.ask) {
            Resend::Never => false,
            Resend::Always => true,
            Resend::WhilePromised => {
                let ttl = self.shared.terms.rules.upstream_ttl;
                // A tenth less: their clock began when the request arrived there.
                open.age.is_some_and(|age| age < ttl.saturating_sub(ttl / 10))
            }
        }
    }
}

/// Whether a key whose outcome is unknown may be sent again.
pub(super) fn resend(shared: &Shared, method: &Method, ask: &Ask) -> Resend {
    let terms = &shared.terms;
    // Nobody can de-duplicate by a key that is not sent.
    let dedupes = terms.rules.upstream_dedupes.filter(|promised| !promised || ask.found.sent);
    (terms.decide.resend)(method, dedupes, terms.repeat_unsafe, ask.asked_by())
}

/// What the ledger says of a request: of its query the names alone.
pub(super) fn about(shared: &Shared, request: &Request) -> About {
    let url = store::url(&request.origin, request.path.path(), request.query());
    let route = shared.terms.metrics.name().to_owned();
    let captured = shared.terms.rules.capture.noted(&request.trail);
    About { route, method: request.method.clone(), url, captured }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

/// A key that changes hands so often while one request asks for it is asked for again later.
const TURNS_MAX: usize = 64;
/// When to ask again for what is in progress.
const SOON: Duration = Duration::from_secs(1);
