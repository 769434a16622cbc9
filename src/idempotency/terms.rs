//! What a route's idempotency stage works with: what all routes share, and what one brings.

use std::sync::Arc;

use http::Method;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::exchange::body::{Caps, Room};
use crate::exchange::ending::Decide;
use crate::exchange::id::{ExchangeId, Names};
use crate::exchange::{Chance, Effects, Request};
use crate::idempotency::Rules;
use crate::idempotency::fingerprint::Fingerprinter;
use crate::idempotency::key::{Secret, Source};
use crate::idempotency::leading::Leading;
use crate::idempotency::lookup::{Lookups, Recipe};
use crate::idempotency::orphans::Orphans;
use crate::idempotency::running::Running;
use crate::idempotency::scope::{Credential, Scope, Target, scope};
use crate::idempotency::store::Store;
use crate::idempotency::suspension::Suspensions;
use crate::journal::ledger::{Entry, Note};
use crate::metrics::{CreditMetrics, KeyEvent, LookupMetrics, Metrics, Operation, RouteMetrics};

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
    /// Cancelled when the grace of an ending process is over: what waits is given up.
    pub cut: CancellationToken,
    /// Where bodies are held.
    pub room: Room,
    /// Where the store counts.
    pub metrics: Metrics,
    /// Exchanges under way of which no row is written yet.
    pub running: Running,
    /// Exchanges in flight that are traced.
    pub leading: Leading,
    /// Keys whose outcome is unknown, and what providers said of them so far.
    pub lookups: Lookups,
    /// Told of every exchange of the ledger that ends.
    pub ended: broadcast::Sender<Arc<Entry>>,
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
    /// How the provider is asked what became of a key.
    pub lookup: Option<Arc<Recipe>>,
    /// Where that counts.
    pub lookups: LookupMetrics,
    /// Where costs are counted, where the route captures them.
    pub cost: Option<CreditMetrics>,
    /// How a claim ends: the one function that decides it.
    pub decide: Decide,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) commons: Commons,
    pub(super) terms: Terms,
}

impl Commons {
    /// Notes in the ledger an exchange that held no claim.
    pub fn note(&self, note: Note) {
        if self.ended.receiver_count() > 0 {
            let entry = Entry::from(note.clone());
            self.ended.send(Arc::new(entry)).unwrap_or_default();
        }
        if !self.store.note(note) {
            self.metrics.store_error(Operation::Ledger);
        }
    }
}

impl std::ops::Deref for Shared {
    type Target = Commons;

    fn deref(&self) -> &Commons {
        &self.commons
    }
}

impl Shared {
    pub(super) fn is_effect(&self, method: &Method) -> bool {
        self.terms.effects.hold(method)
    }

    /// Whether a request can have a key at all.
    pub(super) fn is_concerned(&self, request: &Request) -> bool {
        let identified = request.wishes.identity.is_some() || !request.method.is_safe();
        (identified || self.is_effect(&request.method)) && !request.wants_upgrade
    }

    pub(super) fn scope(&self, request: &Request) -> Scope {
        let target =
            Target { origin: &request.origin, method: &request.method, path: request.path.path() };
        scope(&self.secret, &target, &Credential(request.caller))
    }

    pub(super) fn fingerprinter(&self, request: &Request) -> Fingerprinter {
        let limit = usize::try_from(self.terms.caps.memory).unwrap_or(usize::MAX);
        let rules = &self.terms.rules;
        Fingerprinter::new(request.query(), &request.headers, &rules.carrier, &rules.ignore, limit)
    }

    /// Tells those who watch the ledger how an exchange ended, if anybody does.
    pub(super) async fn tell(&self, exchange: ExchangeId) {
        if self.ended.receiver_count() > 0
            && let Ok(Some(entry)) = self.store.show(exchange).await
        {
            self.ended.send(Arc::new(entry)).unwrap_or_default();
        }
    }

    pub(super) fn count_source(&self, source: Source) {
        self.terms.metrics.key(match source {
            Source::Client => KeyEvent::Client,
            Source::Header | Source::Identity | Source::Invocation => KeyEvent::Derived,
            Source::Random => KeyEvent::Injected,
        });
    }
}
