//! Sends a request under its key, and settles its claim by what came of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;
use tower::Service;

use crate::exchange::ending::{AskedBy, BodyCame, Ending, History, Kept};
use crate::exchange::trail::{End, Presence, Trail};
use crate::exchange::{Failure, Request, Response, Standing, coding, headers, json};
use crate::idempotency::ask::Ask;
use crate::idempotency::identify::Identified;
use crate::idempotency::orphans::Orphan;
use crate::idempotency::outlive::Outlive;
use crate::idempotency::recorder::{Came, Recorder};
use crate::idempotency::scope::RecordId;
use crate::idempotency::store::{Claim, Record, Settlement, Told};
use crate::idempotency::tee::Tee;
use crate::idempotency::terms::Shared;
use crate::metrics::KeyEvent;

/// One exchange that holds a claim.
pub(super) struct Lead {
    claim: Claim,
    seen: Seen,
    standing: Standing,
    fingerprint_known: bool,
}

/// What it takes to settle.
struct Seen {
    shared: Arc<Shared>,
    id: RecordId,
    trail: Trail,
    client: Presence,
    asked_by: AskedBy,
    ambiguous_before: bool,
    orphan: Option<Arc<Orphan>>,
}

impl Lead {
    pub(super) fn new(
        shared: Arc<Shared>,
        request: &Request,
        ask: &Ask,
        (claim, orphan): (Claim, Option<Arc<Orphan>>),
    ) -> Self {
        let seen = Seen {
            shared,
            id: claim.id(),
            trail: request.trail.clone(),
            client: request.client.presence.clone(),
            asked_by: ask.asked_by(),
            ambiguous_before: claim.ambiguous_before(),
            orphan,
        };
        let mut standing = standing(&seen.shared, &ask.found, claim.first_sent());
        standing.ambiguous_before = claim.ambiguous_before();
        Self { claim, seen, standing, fingerprint_known: ask.likeness.is_some() }
    }

    /// Sends the request; the exchange goes on when its client hangs up.
    pub(super) async fn run<S>(
        mut self,
        mut inner: S,
        mut request: Request,
    ) -> Result<Response, Failure>
    where
        S: Service<Request, Response = Response, Error = Failure> + Send + 'static,
        S::Future: Send,
    {
        let shared = self.seen.shared.clone();
        request.standing = self.standing;
        if !self.fingerprint_known {
            let fingerprinter = shared.fingerprinter(&request);
            let body = std::mem::take(&mut request.body);
            request.body = Tee::body(body, fingerprinter, self.claim.identifier());
        }
        self.claim.begin_sending();
        let client = self.seen.client.clone();
        let tasks = shared.tasks.clone();
        let exchange = async move {
            let result = inner.call(request).await;
            self.answered(result)
        };
        Outlive::new(Box::pin(exchange), client, tasks).await
    }

    fn answered(self, result: Result<Response, Failure>) -> Result<Response, Failure> {
        let mut response = match result {
            Ok(response) => response,
            Err(failure) => {
                self.seen.failed(self.claim, &failure);
                return Err(failure);
            }
        };
        let (seen, claim) = (self.seen, self.claim);
        let (status, headers) = (response.status, response.headers.clone());
        let tasks = seen.shared.tasks.clone();
        let settle = Box::new(move |came| seen.came(claim, (status, &headers), came));
        response.body = Recorder::record(response.body, KEPT_MAX, tasks, settle);
        Ok(response)
    }
}

impl Seen {
    /// Settles a claim whose exchange has no answer.
    fn failed(&self, claim: Claim, failure: &Failure) {
        let ending = self.ending(BodyCame::Whole, Kept::No);
        // Those who wait for an outcome that nobody knows are told just that by
        // the failure itself: it says what was sent. That it gave up before the
        // first attempt because its client left is no answer to theirs.
        let given_up = self.client.is_gone() && self.trail.attempts() == 0;
        let told = Told::Failure(if given_up { Failure::ClientGone } else { failure.clone() });
        self.settle(claim, ending, (None, Vec::new(), told));
    }

    /// Settles a claim by the answer that came.
    fn came(&self, claim: Claim, (status, headers): (StatusCode, &HeaderMap), came: Came) {
        let rules = &self.shared.terms.rules;
        let (body, record) = match came {
            Came::Whole(bytes) => (BodyCame::Whole, Some(Record::new(status, headers, bytes))),
            Came::TooLarge => (BodyCame::Whole, None),
            Came::Broken => (BodyCame::Broken, None),
        };
        let kept = record.is_some() && rules.record.contains(status);
        let ending = self.ending(body, if kept { Kept::Yes } else { Kept::No });
        let captured = record.as_ref().map(|record| self.captured(headers, record.body()));
        let told = match (&record, body) {
            (Some(record), _) => Told::Answer(record.clone()),
            (None, BodyCame::Whole) => Told::TooLarge,
            (None, BodyCame::Broken) => Told::Unknown,
        };
        let record = record.filter(|_| ending.end == End::Completed);
        self.settle(claim, ending, (record, captured.unwrap_or_default(), told));
    }

    fn ending(&self, body: BodyCame, kept: Kept) -> Ending {
        let decide = self.shared.terms.decide.ending;
        self.trail.with(|notes| {
            let ending = decide(&History {
                ambiguous_before: self.ambiguous_before,
                attempts: &notes.attempts,
                says: notes.says,
                body,
                kept,
                asked_by: self.asked_by,
                client_gone: self.client.is_gone(),
            });
            notes.end = Some(ending.end);
            ending
        })
    }

    fn settle(
        &self,
        claim: Claim,
        ending: Ending,
        (record, captured, told): (Option<Record>, Vec<(String, String)>, Told),
    ) {
        let rules = &self.shared.terms.rules;
        self.count(ending, record.is_some());
        if let Some(orphan) = self.orphan.as_ref().filter(|_| ending.adoptable) {
            orphan.leave_open();
        }
        let outlives = match self.asked_by {
            AskedBy::Identity => true,
            // Only where the upstream would take it for a new order.
            AskedBy::Vouching => rules.upstream_dedupes == Some(false),
            AskedBy::Orphan | AskedBy::Nobody => false,
        };
        let started = Instant::now();
        claim.settle(Settlement {
            end: ending.end,
            stays: ending.stays,
            record,
            captured,
            told,
            ttl: rules.ttl,
            keep_key: if outlives { rules.keep_key } else { Duration::ZERO },
        });
        self.shared.commons.metrics.store_operation("settle", started.elapsed());
        if self.asked_by == AskedBy::Orphan && !ending.adoptable {
            self.forget_when_served();
        }
    }

    /// An answer that was delivered is nobody's any more: the next equal order is another.
    fn forget_when_served(&self) {
        let (client, store, id) = (self.client.clone(), self.shared.store.clone(), self.id);
        self.shared.tasks.spawn(async move {
            client.settled().await;
            if client.is_served() {
                store.forget(&id);
            }
        });
    }

    fn count(&self, ending: Ending, recorded: bool) {
        let metrics = &self.shared.terms.metrics;
        match ending.end {
            End::Unknown => metrics.key(KeyEvent::Unknown),
            End::Completed if recorded => metrics.key(KeyEvent::Recorded),
            End::Completed | End::NotRetained => metrics.key(KeyEvent::NotRecorded),
            End::Released => {}
        }
    }

    /// The ids that the route wants from an answer.
    fn captured(&self, headers: &HeaderMap, body: &Bytes) -> Vec<(String, String)> {
        let wanted = &self.shared.terms.rules.capture;
        if wanted.is_empty() {
            return Vec::new();
        }
        let encoding = headers::content_coding(headers);
        let Some(text) = coding::decode(encoding, body, READ_MAX) else { return Vec::new() };
        let Ok(root) = json::parse(&text) else { return Vec::new() };
        let found = wanted.iter().filter_map(|(name, pointer)| {
            let value = root.at(pointer)?.text()?;
            (value.len() <= ID_MAX).then(|| (name.clone(), value.into_owned()))
        });
        found.collect()
    }
}

/// Sends a request whose key nobody can ask for again: it protects our own
/// retries, and needs no place in the store.
pub(super) async fn without_claim<S>(
    shared: &Arc<Shared>,
    mut inner: S,
    mut request: Request,
    found: &Identified,
) -> Result<Response, Failure>
where
    S: Service<Request, Response = Response, Error = Failure> + Send + 'static,
    S::Future: Send,
{
    request.standing = standing(shared, found, Instant::now());
    let client = request.client.presence.clone();
    let tasks = shared.tasks.clone();
    let (trail, shared) = (request.trail.clone(), shared.clone());
    let exchange = async move {
        let result = inner.call(request).await;
        let status = result.as_ref().ok().map(|response| response.status);
        if status.is_some_and(|status| status.is_success()) {
            return result; // the rule; whether its body comes whole is for the client to see
        }
        let ending = trail.with(|notes| {
            let ending = (shared.terms.decide.ending)(&History {
                ambiguous_before: false,
                attempts: &notes.attempts,
                says: notes.says,
                body: BodyCame::Whole,
                kept: Kept::No,
                asked_by: AskedBy::Nobody,
                client_gone: false,
            });
            notes.end = Some(ending.end);
            ending
        });
        if ending.end == End::Unknown {
            shared.terms.metrics.key(KeyEvent::Unknown);
        }
        result
    };
    Outlive::new(Box::pin(exchange), client, tasks).await
}

/// What the key tells the stages below.
fn standing(shared: &Shared, found: &Identified, first_sent: Instant) -> Standing {
    let rules = &shared.terms.rules;
    let promised = found.sent && rules.upstream_dedupes == Some(true);
    Standing {
        dedupes_until: promised.then(|| first_sent + rules.upstream_ttl),
        client_knows_identity: found.source.is_known_to_client(),
        outlives_client: true,
        ..Standing::default()
    }
}

/// `design.md`, section 7: a larger answer is passed on and not kept.
const KEPT_MAX: usize = 64 * 1024 * 1024;
/// What is read of an answer for its ids.
const READ_MAX: usize = 1024 * 1024;
/// An id is short; what is not is no id.
const ID_MAX: usize = 256;
