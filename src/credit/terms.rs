//! What one route brings to the credit stage, and what it makes of what it hears.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::Instant;

use crate::credit::balance::Standing;
use crate::credit::breakers::{Admission, Cause, Trial};
use crate::credit::question::{Credentials, KeyPlace, Unread};
use crate::credit::{Account, Accounts, Amount, BreakerRule, Estimate, OnFailure, Rules};
use crate::exchange::body::{Caps, Room};
use crate::exchange::glance::into_json;
use crate::exchange::json::Node;
use crate::exchange::{Effects, Failure, Outcome, Response, Trail, headers};
use crate::metrics::{Check, CreditMetrics, Found};

/// What one route brings.
#[derive(Clone, Debug)]
pub struct Terms {
    /// What it asks for.
    pub rules: Rules,
    /// Which of its requests have an effect.
    pub effects: Effects,
    /// What is known of every credential.
    pub accounts: Accounts,
    /// Which fields say who asks.
    pub credentials: Credentials,
    /// Where a request carries its key.
    pub key: KeyPlace,
    /// What its patterns leave open in a path.
    pub wildcards: Wildcards,
    /// How much of a body is held.
    pub caps: Caps,
    /// Where it is held.
    pub room: Room,
    /// Whether decisions are only counted.
    pub observes: bool,
    /// Where it counts.
    pub metrics: CreditMetrics,
}

/// What the patterns of a route leave open in a path, in order.
#[derive(Clone)]
pub struct Wildcards(Arc<OpenIn>);

type OpenIn = dyn Fn(&str) -> Vec<String> + Send + Sync;

impl Wildcards {
    /// Reads them off a path by `open`.
    pub fn new(open: impl Fn(&str) -> Vec<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(open))
    }

    /// Those of `path`.
    pub(super) fn of(&self, path: &str) -> Vec<String> {
        (self.0)(path)
    }
}

impl fmt::Debug for Wildcards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wildcards")
    }
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) terms: Terms,
    /// Whether the last estimate failed: the log says so once.
    unsaid: AtomicBool,
}

impl Terms {
    /// Opens or closes the breaker by what a balance says.
    pub(super) fn judge(&self, standing: Standing, account: &Account) {
        let found = match standing {
            Standing::Enough => Found::Enough,
            Standing::Low => Found::Short,
            Standing::Unread => Found::Failed,
        };
        self.metrics.checked(Check::Preflight, found);
        match (standing, &self.rules.breaker) {
            (Standing::Low, Some(rule)) => self.open(rule, account, Cause::Balance),
            (Standing::Enough, _) => self.closed(self.accounts.breakers.close(account)),
            (Standing::Low | Standing::Unread, _) => {}
        }
    }

    /// Says once what a balance has come to.
    pub(super) fn tell(&self, standing: Standing, why: Option<Unread>) {
        let route = self.metrics.route();
        match (standing, why) {
            (Standing::Enough, _) => tracing::info!(route, "a balance is as high as it must be"),
            (Standing::Low, _) => tracing::warn!(route, "a balance is lower than it must be"),
            (Standing::Unread, why) => {
                let why = why.map(tracing::field::display);
                tracing::warn!(route, why, "a balance could not be read, and holds nothing back");
            }
        }
    }

    fn open(&self, rule: &BreakerRule, account: &Account, cause: Cause) {
        let when = (Instant::now(), rule.reset_after);
        if self.accounts.breakers.open(account, cause, when, &self.metrics) {
            let (route, host) = (self.metrics.route(), &*account.origin.host);
            let why = cause.as_str();
            tracing::warn!(route, host, why, "a credit breaker opened: effects are refused");
        }
    }

    fn closed(&self, closed: bool) {
        if closed {
            tracing::info!(route = self.metrics.route(), "a credit breaker closed");
        }
    }
}

impl Shared {
    pub(super) fn new(terms: Terms) -> Self {
        Self { terms, unsaid: AtomicBool::new(false) }
    }

    /// Lets an effect go on unless its credential is held back.
    pub(super) fn admit(&self, account: &Account) -> Result<Option<Trial>, Failure> {
        let terms = &self.terms;
        if terms.rules.breaker.is_none() {
            return Ok(None);
        }
        match terms.accounts.breakers.ask(account, Instant::now()) {
            Admission::Go => Ok(None),
            Admission::GoFirst(trial) => Ok(Some(trial)),
            Admission::Refused { cause, wait } => {
                terms.metrics.refused(None);
                if terms.observes {
                    return Ok(None);
                }
                let detail = cause.as_str().to_owned();
                Err(Failure::InsufficientCredits { detail, retry_after: Some(wait) })
            }
        }
    }

    /// Holds a cost against what the route allows.
    pub(super) fn weigh(
        &self,
        estimate: &Estimate,
        cost: Result<Amount, Unsaid>,
    ) -> Result<(), Failure> {
        let metrics = &self.terms.metrics;
        self.tell(cost.as_ref().err());
        let failure = match cost {
            Ok(cost) if cost <= estimate.at_most => {
                metrics.checked(Check::Estimate, Found::Enough);
                return Ok(());
            }
            Ok(cost) => {
                metrics.checked(Check::Estimate, Found::Short);
                metrics.refused(Some(cost.nearest()));
                let detail = format!("estimate {cost} is above at_most {}", estimate.at_most);
                Failure::InsufficientCredits { detail, retry_after: None }
            }
            Err(unsaid) => {
                metrics.checked(Check::Estimate, Found::Failed);
                if estimate.on_failure == OnFailure::Forward {
                    return Ok(());
                }
                metrics.refused(None);
                unsaid.into()
            }
        };
        if self.terms.observes { Ok(()) } else { Err(failure) }
    }

    /// Says once that estimates fail, and once that they do no longer.
    fn tell(&self, unsaid: Option<&Unsaid>) {
        let route = self.terms.metrics.route();
        let before = self.unsaid.swap(unsaid.is_some(), Ordering::Relaxed);
        match unsaid {
            Some(why) if !before => tracing::warn!(route, %why, "a cost could not be asked for"),
            None if before => tracing::info!(route, "costs can be asked for again"),
            Some(_) | None => {}
        }
    }

    /// Opens or closes the breaker by what an effect was answered.
    pub(super) async fn learn(
        &self,
        (rule, account): (&BreakerRule, &Account),
        trial: Option<Trial>,
        trail: &Trail,
        response: Response,
    ) -> Response {
        let (replayed, failed) = trail.with(|notes| {
            let last = notes.attempts.last().map(|attempt| attempt.outcome);
            (last == Some(Outcome::Replayed), notes.says.is_some())
        });
        // What the upstream said before says nothing of what it would say now.
        if replayed {
            return response;
        }
        if response.status.is_success() || response.status.is_redirection() {
            let closed = !failed && trial.is_some_and(Trial::succeed);
            self.terms.closed(closed);
            return response;
        }
        let (response, out_of_credit) = judge(rule, response).await;
        if out_of_credit {
            self.terms.open(rule, account, Cause::Answer);
        }
        response
    }
}

/// Whether an error answer says that there is no credit; the answer is as it was.
async fn judge(rule: &BreakerRule, response: Response) -> (Response, bool) {
    if rule.statuses.contains(response.status) {
        return (response, true);
    }
    if rule.when.is_empty() || !headers::is_json(&response.headers) {
        return (response, false);
    }
    let says = |root: &Node<'_>| rule.when.iter().any(|condition| condition.holds(root));
    let (response, said) = Box::pin(into_json(response, says)).await;
    (response, said.unwrap_or(false))
}

/// Why nobody says what an effect costs.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(super) enum Unsaid {
    /// Its body cannot be held, to be sent twice.
    #[error("its body does not fit into body.memory")]
    TooLarge,
    /// Its path leaves nothing to put into that of the estimate.
    #[error("its path makes no path for an estimate")]
    NoPath,
    /// The upstream does not.
    #[error("{0}")]
    Unread(Unread),
}

impl From<Unsaid> for Failure {
    /// What lies with the request stays so, and is no better the next time; what lies with
    /// the upstream may be, and a client may ask again.
    fn from(unsaid: Unsaid) -> Self {
        let detail = format!("the cost of this request could not be asked for: {unsaid}");
        match unsaid {
            Unsaid::TooLarge | Unsaid::NoPath => {
                Self::InsufficientCredits { detail, retry_after: None }
            }
            Unsaid::Unread(_) => Self::Unreachable { detail, kind: "destination_unavailable" },
        }
    }
}
