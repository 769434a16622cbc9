//! Request, response, and the words that all stages share.

pub mod answer;
pub mod body;
pub mod chance;
pub mod coding;
pub mod effects;
pub mod ending;
pub mod failure;
pub mod glance;
pub mod guard;
pub mod headers;
pub mod hint;
pub mod id;
pub mod instant;
pub mod json;
pub mod origin;
pub mod pointer;
pub mod query;
pub mod record;
pub mod shape;
pub mod signature;
pub mod stage;
pub mod statuses;
pub mod traced;
pub mod traceparent;
pub mod trail;

use std::pin::Pin;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode};
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

pub use body::{Body, Upload};
pub use chance::Chance;
pub use effects::Effects;
pub use failure::Failure;
pub use guard::Guard;
pub use origin::{Origin, Scheme};
pub use pointer::{Condition, Pointer, Scalar};
pub use record::Record;
pub use shape::Shape;
pub use stage::{Stage, take_ready};
pub use statuses::Statuses;
pub use traced::Traced;
pub use trail::{End, Outcome, Stop, Trail};

/// A future that a stage returns.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A request on its way through the stages. Each of them moves it, and it is large: so it is boxed.
pub type Request = Box<RequestParts>;

/// What the client asked, cleaned of what was meant for this proxy alone.
#[derive(Debug)]
pub struct RequestParts {
    /// The method.
    pub method: Method,
    /// Where it goes.
    pub origin: Origin,
    /// Path and query, byte for byte as they came.
    pub path: PathAndQuery,
    /// The end-to-end header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
    /// What the stages learn on the way.
    pub trail: Trail,
    /// The trace that it is part of, where somebody wants it traced.
    pub traced: Option<Traced>,
    /// Who asked, as far as this proxy knows.
    pub client: Client,
    /// A digest of the credentials that it carries.
    pub caller: [u8; 32],
    /// When its head had arrived.
    pub arrived: Instant,
    /// How far its body has come, where it has one.
    pub upload: Option<Arc<Upload>>,
    /// Whether it asks for another protocol on its connection; then its headers say which.
    pub wants_upgrade: bool,
    /// Whether its body can still be sent from its start.
    pub replayable: bool,
    /// When a running attempt is cut, where the route says so.
    pub cut_at: Option<Instant>,
    /// Until when it may wait for its turn; `None`: as long as the route's limits say.
    pub wait_until: Option<Instant>,
    /// What the client told this proxy about the request.
    pub wishes: Wishes,
    /// What the idempotency stage found out; retry and upstream go by it.
    pub standing: Standing,
    /// Asked before every attempt, where the claim can be lost to another replica.
    pub guard: Option<Guard>,
}

/// What the upstream answered, or what stood at rest for it.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The end-to-end header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
    /// The upstream's side of a protocol switch (101).
    pub upgrade: Option<OnUpgrade>,
}

/// Who asked.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// The user of `Proxy-Authorization`, once verified.
    pub user: Option<String>,
    /// Whether it is still there, and what became of its answers.
    pub presence: trail::Presence,
}

/// What the client told this proxy, in fields that go no further.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// `Samekey-Key`: the business identity, as it came.
    pub identity: Option<http::HeaderValue>,
    /// `Samekey-Retry: off`, or a protocol switch, which is never repeated.
    pub single_attempt: bool,
}

/// Whether, and why, a request may be sent more than once.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each read by its name")]
pub struct Standing {
    /// A key goes with it, and until then the upstream promises to de-duplicate by it.
    pub dedupes_until: Option<Instant>,
    /// An earlier attempt under this key, before this exchange, may have had an effect.
    pub ambiguous_before: bool,
    /// The client can ask for the answer again under an identity that it knows.
    pub client_knows_identity: bool,
    /// The exchange holds a claim: it goes on when the client hangs up.
    pub outlives_client: bool,
    /// It may only take a connection that is fresh, since it cannot be repeated.
    pub fresh_connection: bool,
    /// It is a question of ours and no effect, whatever its route says of requests.
    pub is_question: bool,
}

impl RequestParts {
    /// A request that arrives now, and with nothing that a client would bring: of its
    /// own trail, for its attempts are those of no other exchange.
    pub fn new(method: Method, origin: Origin, path: PathAndQuery, body: Body) -> Request {
        Box::new(Self {
            method,
            origin,
            path,
            headers: HeaderMap::new(),
            body,
            trail: Trail::default(),
            traced: None,
            client: Client::default(),
            caller: [0; 32],
            arrived: Instant::now(),
            upload: None,
            wants_upgrade: false,
            replayable: true,
            cut_at: None,
            wait_until: None,
            wishes: Wishes::default(),
            standing: Standing::default(),
            guard: None,
        })
    }

    /// The query, where there is one.
    pub fn query(&self) -> Option<&str> {
        self.path.query()
    }
}

impl Response {
    /// A response with nothing in it but its status.
    pub fn new(status: StatusCode, body: Body) -> Self {
        Self { status, headers: HeaderMap::new(), body, upgrade: None }
    }
}

#[cfg(test)]
pub(crate) mod tests;
