//! Sends a request under its key, and settles its claim by what came of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;
use tower::Service;

use crate::exchange::ending::{AskedBy, BodyCame, Ending, History, Kept, Resend};
use crate::exchange::headers;
use crate::exchange::trail::{End, Presence, Trail};
use crate::exchange::{BoxFuture, Failure, Request, Response, Standing};
use crate::idempotency::ask::Ask;
use crate::idempotency::capture::Ids;
use crate::idempotency::cost;
use crate::idempotency::cut::until_cut;
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::identify::Identified;
use crate::idempotency::key::Key;
use crate::idempotency::leading::Leads;
use crate::idempotency::lookup::Follow;
use crate::idempotency::orphans::Orphan;
use crate::idempotency::outlive::Outlive;
use crate::idempotency::recorder::{Came, Recorder, Settle};
use crate::idempotency::repeat::resend;
use crate::idempotency::scope::RecordId;
use crate::idempotency::store::{Claim, Landing, Record, Settlement, Told};
use crate::idempotency::tee::Tee;
use crate::idempotency::terms::Shared;
use crate::metrics::{KeyEvent, Timed};

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
    key: Key,
    trail: Trail,
    client: Presence,
    asked_by: AskedBy,
    ambiguous_before: bool,
    orphan: Option<Arc<Orphan>>,
    /// How the provider is asked, where nobody may send the key again.
    follow: Option<Follow>,
    /// Lets those that join it know it.
    _leads: Option<Leads>,
}

impl Lead {
    pub(super) fn new(
        shared: Arc<Shared>,
        request: &Request,
        ask: &Ask,
        (claim, orphan, follow): (Claim, Option<Arc<Orphan>>, Option<Follow>),
    ) -> Self {
        let once = resend(&shared, &request.method, ask) == Resend::Never;
        let times_seen = headers::times_seen(&request.headers);
        let leads = shared.leading.begin(claim.exchange(), request.traced.as_ref(), times_seen);
        let seen = Seen {
            shared,
            id: claim.id(),
            key: ask.found.key.clone(),
            trail: request.trail.clone(),
            client: request.client.presence.clone(),
            asked_by: ask.asked_by(),
            ambiguous_before: claim.ambiguous_before(),
            orphan,
            follow: follow.filter(|_| once),
            _leads: leads,
        };
        let promise = seen.shared.terms.rules.upstream_ttl;
        let until = claim.promised_until(promise);
        let mut standing = standing(&seen.shared, &ask.found, until);
        standing.ambiguous_before = claim.ambiguous_before();
        Self { claim, seen, standing, fingerprint_known: ask.fingerprint.is_some() }
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
        request.guard = self.claim.guard();
        self.seen.trail.with(|notes| {
            (notes.diary, notes.guarded) = (self.claim.diary(), self.claim.guarded());
        });
        if !self.fingerprint_known {
            let fingerprinter = shared.fingerprinter(&request);
            let body = std::mem::take(&mut request.body);
            request.body = Tee::body(body, fingerprinter, self.told_whole());
        }
        self.claim.begin_sending();
        let client = self.seen.client.clone();
        let tasks = shared.tasks.clone();
        // Each look at the token takes its lock: no two exchanges share one.
        let end = (shared.cut.child_token(), request.trail.clone());
        let exchange = async move {
            let result = until_cut(inner.call(request), end).await;
            self.answered(result).await
        };
        Outlive::new(Box::pin(exchange), client, tasks).await
    }

    /// What is to be noted once the request has gone up whole.
    fn told_whole(&self) -> impl FnOnce(Fingerprint) + Send + Unpin + use<> {
        let identify = self.claim.identifier();
        let reads = self.seen.shared.terms.rules.capture.reads_requests();
        let capture = reads.then(|| (self.claim.capturer(), self.seen.trail.clone()));
        move |fingerprint| {
            identify(fingerprint);
            if let Some((capture, trail)) = capture {
                capture(&trail.with(|notes| notes.captured.clone()));
            }
        }
    }

    async fn answered(self, result: Result<Response, Failure>) -> Result<Response, Failure> {
        let mut response = match result {
            Ok(response) => response,
            Err(failure) => {
                self.seen.failed(self.claim, &failure).await;
                return Err(failure);
            }
        };
        let tasks = self.seen.shared.tasks.clone();
        let (status, headers) = (response.status, response.headers.clone());
        let (seen, claim) = (self.seen, self.claim);
        let settling = Settling { seen, claim, status, headers, landed: false };
        let recorder = Recorder::record(response.body, KEPT_MAX, tasks, Box::new(settling));
        response.body = recorder.await;
        Ok(response)
    }
}

/// A claim whose answer is on its way.
struct Settling {
    seen: Seen,
    claim: Claim,
    status: StatusCode,
    headers: HeaderMap,
    landed: bool,
}

impl Settle for Settling {
    fn waits(&mut self) {
        if !std::mem::replace(&mut self.landed, true) {
            self.seen.land(&self.claim, self.status, &self.headers);
        }
    }

    fn settle(self: Box<Self>, came: Came) -> BoxFuture<()> {
        Box::pin(async move {
            let Self { seen, claim, status, headers, .. } = *self;
            seen.came(claim, (status, &headers), came).await;
        })
    }
}

impl Seen {
    /// Settles a claim whose exchange has no answer.
    async fn failed(&self, claim: Claim, failure: &Failure) {
        let ending = self.ending(BodyCame::Whole, Kept::No);
        // Those who wait for an outcome that nobody knows are told just that by
        // the failure itself: it says what was sent. That it gave up before the
        // first attempt because its client left is no answer to theirs.
        let given_up = self.client.is_gone() && self.trail.attempts() == 0;
        let told = Told::Failure(if given_up { Failure::ClientGone } else { failure.clone() });
        self.settle(claim, ending, (None, self.asked_ids(), told)).await;
    }

    /// Notes that a good answer has begun to come: a crash from here on leaves it
    /// answered and not retained.
    fn land(&self, claim: &Claim, status: StatusCode, headers: &HeaderMap) {
        let ending = self.foresee(BodyCame::Whole, Kept::No);
        if ending.end == End::NotRetained && ending.stays {
            let rules = &self.shared.terms.rules;
            let keep_key = if self.outlives() { rules.keep_key } else { Duration::ZERO };
            let keep_key = rules.ttl.saturating_add(keep_key);
            claim.land(&Landing { status, keep_key, captured: self.ids(headers, None) });
        }
    }

    /// Settles a claim by the answer that came.
    async fn came(&self, claim: Claim, (status, headers): (StatusCode, &HeaderMap), came: Came) {
        let rules = &self.shared.terms.rules;
        let (body, record) = match came {
            Came::Whole(bytes) => (BodyCame::Whole, Some(Record::new(status, headers, bytes))),
            Came::TooLarge => (BodyCame::Whole, None),
            Came::Broken => (BodyCame::Broken, None),
        };
        let kept = record.is_some() && rules.record.contains(status);
        let ending = self.ending(body, if kept { Kept::Yes } else { Kept::No });
        let captured = self.ids(headers, record.as_ref().map(Record::body));
        let asked = (&self.trail, self.ambiguous_before);
        cost::spent(&self.shared, (ending.end, Some(status)), asked, &captured);
        let told = match (&record, body) {
            (Some(record), _) => Told::Answer(record.clone()),
            (None, BodyCame::Whole) => Told::TooLarge,
            (None, BodyCame::Broken) => Told::Unknown,
        };
        let record = record.filter(|_| ending.end == End::Completed);
        self.settle(claim, ending, (record, captured, told)).await;
    }

    /// The ids of the request, and of its answer as far as it came.
    fn ids(&self, headers: &HeaderMap, body: Option<&Bytes>) -> Ids {
        let mut ids = self.asked_ids();
        ids.extend(self.shared.terms.rules.capture.of_answer(headers, body));
        ids
    }

    /// The ids of the request.
    fn asked_ids(&self) -> Ids {
        self.shared.terms.rules.capture.noted(&self.trail)
    }

    fn ending(&self, body: BodyCame, kept: Kept) -> Ending {
        let ending = self.foresee(body, kept);
        self.trail.with(|notes| notes.end = Some(ending.end));
        ending
    }

    /// How the claim ends, if it ends like this.
    fn foresee(&self, body: BodyCame, kept: Kept) -> Ending {
        let decide = self.shared.terms.decide.ending;
        self.trail.with(|notes| {
            decide(&History {
                ambiguous_before: self.ambiguous_before,
                attempts: &notes.attempts,
                says: notes.says,
                body,
                kept,
                asked_by: self.asked_by,
                client_gone: self.client.is_gone(),
            })
        })
    }

    /// Whether the key outlives its answer.
    fn outlives(&self) -> bool {
        match self.asked_by {
            AskedBy::Identity => true,
            // Only where the upstream would take it for a new order.
            AskedBy::Vouching => self.shared.terms.rules.upstream_dedupes == Some(false),
            AskedBy::Orphan | AskedBy::Nobody => false,
        }
    }

    async fn settle(
        &self,
        claim: Claim,
        ending: Ending,
        (record, captured, told): (Option<Record>, Ids, Told),
    ) {
        let rules = &self.shared.terms.rules;
        self.count(ending, record.is_some());
        if let Some(orphan) = self.orphan.as_ref().filter(|_| ending.adoptable) {
            orphan.leave_open();
        }
        let attempts = self.trail.with(|notes| notes.unwritten().to_vec());
        let exchange = claim.exchange();
        let started = Instant::now();
        let settled = claim.settle(Settlement {
            end: ending.end,
            stays: ending.stays,
            record,
            captured,
            told,
            ttl: rules.ttl,
            keep_key: if self.outlives() { rules.keep_key } else { Duration::ZERO },
            attempts,
        });
        settled.await;
        self.shared.commons.metrics.store_operation(Timed::Settle, started.elapsed());
        self.shared.tell(exchange).await;
        if let Some(follow) =
            self.follow.as_ref().filter(|_| ending.stays && ending.end == End::Unknown)
        {
            follow.begin_soon(exchange);
        }
        if self.asked_by == AskedBy::Orphan && !ending.adoptable {
            forget_when_served(&self.shared, self.client.clone(), (self.id, self.key.clone()));
        }
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
}

/// An answer that was delivered is nobody's any more: the next equal order is another.
pub(super) fn forget_when_served(shared: &Shared, client: Presence, (id, key): (RecordId, Key)) {
    let store = shared.store.clone();
    shared.tasks.spawn(async move {
        client.settled().await;
        if client.is_served() {
            store.forget(&id, &key).await;
        }
    });
}

/// What the key tells the stages below.
pub(super) fn standing(
    shared: &Shared,
    found: &Identified,
    promised_until: Option<Instant>,
) -> Standing {
    let rules = &shared.terms.rules;
    let promised = found.sent && rules.upstream_dedupes == Some(true);
    Standing {
        dedupes_until: promised_until.filter(|_| promised),
        client_knows_identity: found.source.is_known_to_client(),
        outlives_client: true,
        ..Standing::default()
    }
}

/// `design.md`, section 7: a larger answer is passed on and not kept.
const KEPT_MAX: usize = 64 * 1024 * 1024;
