//! Asks what there is to spend, refuses what there is no credit for, and learns from answers.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::MutexGuard;
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::credit::balance::{Balance, Need, Reading, need};
use crate::credit::question::{self, Unread};
use crate::credit::terms::{Shared, Terms, Unsaid};
use crate::credit::{Account, Amount, Estimate, Preflight};
use crate::exchange::body::{BodyError, Filled, Held};
use crate::exchange::{BoxFuture, Failure, Request, Response, Stage, take_ready};

/// Wraps a stage in [`Credit`].
#[derive(Clone, Debug)]
pub struct CreditLayer {
    shared: Option<Arc<Shared>>,
}

/// Sends an effect through the inner stage when there is credit for it.
#[derive(Clone, Debug)]
pub struct Credit<S> {
    /// None where the route asks for nothing.
    shared: Option<Arc<Shared>>,
    inner: S,
}

impl CreditLayer {
    /// Holds back by `terms`; without any, every request passes untouched.
    pub fn new(terms: Option<Terms>) -> Self {
        Self { shared: terms.map(Shared::new).map(Arc::new) }
    }
}

impl<S> Layer<S> for CreditLayer {
    type Service = Credit<S>;

    fn layer(&self, inner: S) -> Credit<S> {
        Credit { shared: self.shared.clone(), inner }
    }
}

type Answered = Result<Response, Failure>;

impl<S: Stage + Sync> Service<Request> for Credit<S> {
    type Response = Response;
    type Error = Failure;
    type Future = BoxFuture<Answered>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let may_cost = !request.wants_upgrade && !request.standing.is_question;
        let concerned = |terms: &Terms| may_cost && terms.effects.hold(&request.method);
        match &self.shared {
            Some(shared) if concerned(&shared.terms) => {
                let inner = take_ready(&mut self.inner);
                Box::pin(Effect { shared: shared.clone(), inner }.pass(request))
            }
            // No future of ours around it: whoever asks for nothing pays nothing.
            Some(_) | None => self.inner.call(request),
        }
    }
}

/// One effect on its way.
struct Effect<S> {
    shared: Arc<Shared>,
    inner: S,
}

impl<S: Stage + Sync> Effect<S> {
    async fn pass(mut self, mut request: Request) -> Answered {
        let terms = &self.shared.terms;
        let account = Account {
            origin: request.origin.clone(),
            caller: request.caller,
            observed: terms.observes,
        };
        if let Some(preflight) = &terms.rules.preflight {
            Box::pin(self.check_balance(preflight, &account, &mut request)).await;
        }
        let trial = self.shared.admit(&account)?;
        if let Some(estimate) = &terms.rules.estimate {
            Box::pin(self.check_cost(estimate, &mut request)).await?;
        }
        let trail = request.trail.clone();
        let response = self.inner.call(request).await?; // failed, it drops `trial`: the next one tries
        match &self.shared.terms.rules.breaker {
            Some(rule) => Ok(self.shared.learn((rule, &account), trial, &trail, response).await),
            None => Ok(response),
        }
    }

    /// Asks for the balance where that is due: what it says opens or closes the breaker.
    async fn check_balance(&self, preflight: &Preflight, account: &Account, request: &mut Request) {
        let Shared { terms, .. } = &*self.shared;
        let Some(balance) = terms.accounts.balances.of(account, &preflight.place) else { return };
        let Some(_asking) = turn(terms, preflight, account, &balance).await else { return };
        let asked = question::balance(request, &preflight.place, &terms.credentials);
        let told = question::ask(self.inner.clone(), asked, &preflight.place.json).await;
        let why = told.as_ref().err().copied();
        let reading = Reading { left: told.ok(), at: Instant::now() };
        let standing = reading.standing(&preflight.at_least);
        let before = balance.last().map(|last| last.standing(&preflight.at_least));
        terms.judge(standing, account);
        balance.note(reading);
        if before != Some(standing) {
            terms.tell(standing, why);
        }
    }

    /// Asks for the cost of a new effect, and refuses what costs too much.
    async fn check_cost(&self, estimate: &Estimate, request: &mut Request) -> Result<(), Failure> {
        // What is sent again under its key was let through when it was new.
        if request.standing.ambiguous_before {
            return Ok(());
        }
        let cost = self.cost(estimate, request).await?;
        self.shared.weigh(estimate, cost)
    }

    /// What an effect will cost, or why nobody says.
    ///
    /// # Errors
    ///
    /// The client left, or sent what a body may not hold.
    async fn cost(
        &self,
        estimate: &Estimate,
        request: &mut Request,
    ) -> Result<Result<Amount, Unsaid>, Failure> {
        let terms = &self.shared.terms;
        let held = Held::new(std::mem::take(&mut request.body), terms.caps, &terms.room);
        let filled = held.fill().await;
        request.body = held.reader();
        let body = match filled {
            Ok(Filled::Whole(body)) => body,
            Ok(Filled::TooLarge) => return Ok(Err(Unsaid::TooLarge)),
            Err(BodyError::Malformed(why)) => return Err(Failure::BadRequest(why)),
            Err(_left) => return Err(Failure::ClientGone),
        };
        let open = terms.wildcards.of(request.path.path());
        let query = terms.key.query_without(request.query());
        let Some(path) = estimate.target.path(&open, query.as_deref()) else {
            return Ok(Err(Unsaid::NoPath));
        };
        let asked = question::estimate(request, path, body, &terms.key);
        let told = question::ask(self.inner.clone(), asked, &estimate.json).await;
        let told =
            told.and_then(|cost| if cost.is_negative() { Err(Unread::NoNumber) } else { Ok(cost) });
        Ok(told.map_err(Unsaid::Unread))
    }
}

/// The right to ask for a balance, where it is to be asked for; waits for whoever asks
/// where nothing is known yet.
async fn turn<'a>(
    terms: &Terms,
    preflight: &Preflight,
    account: &Account,
    balance: &'a Balance,
) -> Option<MutexGuard<'a, ()>> {
    let need = || {
        let now = Instant::now();
        let held = terms.accounts.breakers.holds(account, now);
        need(balance.last().as_ref(), (&preflight.at_least, preflight.every), held, now)
    };
    let asking = match need() {
        Need::Nothing => return None,
        Need::Ask => balance.asking.try_lock().ok()?,
        Need::Know => balance.asking.lock().await,
    };
    // Whoever asked meanwhile asked for this one too.
    (need() != Need::Nothing).then_some(asking)
}

#[cfg(test)]
mod tests;
