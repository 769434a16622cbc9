//! Once, however often it is asked.
//!
//! [`Rules`] say which requests of a route carry a key, where it travels and how
//! long its answer is kept. `identify` finds the key or has `key` make it,
//! `fingerprint` tells whether two requests that carry it ask the same thing,
//! `capture` takes ids for the ledger,
//! `store` holds claims and records, and `layer` claims the key. `lead` sends for
//! the claim and carries out the end state that the one verdict function decided;
//! `repeat` answers whoever brings the key after that.

use std::time::Duration;

use http::{HeaderName, Method, StatusCode};

use crate::exchange::{Pointer, Statuses};

pub mod capture;
pub mod fingerprint;
pub mod key;
pub mod layer;
pub mod lookup;
pub mod orphans;
pub mod scope;
pub mod splice;
pub mod store;
pub mod suspension;
pub mod template;

mod ask;
mod cost;
mod cut;
mod gather;
mod identify;
mod lead;
pub mod leading;
mod outlive;
mod recorder;
mod repeat;
pub mod running;
mod tee;
mod terms;
mod unclaimed;

pub use capture::Captures;
pub use cost::COST;
pub use layer::{Idempotency, IdempotencyLayer};
pub use template::Template;
pub use terms::{Commons, Terms};

/// The `idempotency` block of a route, as meant.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Where the key travels (`header`).
    pub carrier: Carrier,
    /// Whether a request without a key is given one; `None`: effect requests are.
    pub inject: Option<bool>,
    /// The shape of keys that are made here.
    pub format: Format,
    /// Whether the upstream promises that a repeated key has one effect.
    pub upstream_dedupes: Option<bool>,
    /// How long it promises that.
    pub upstream_ttl: Duration,
    /// What makes two requests the same business event.
    pub identity: Option<Template>,
    /// How long after an undelivered answer an equal request may take it over; zero is off.
    pub adopt_orphans: Duration,
    /// Whether an effect request without an identity is refused.
    pub require: bool,
    /// Further fields that tell callers apart.
    pub credentials: Vec<CredentialField>,
    /// What tells callers apart.
    pub principal: Principal,
    /// How long a repeat waits for the exchange that holds the claim.
    pub join_wait: Duration,
    /// How long an answer is kept.
    pub ttl: Duration,
    /// How long derived keys outlive their answer.
    pub keep_key: Duration,
    /// Statuses worth keeping.
    pub record: Statuses,
    /// What a repeat does while the first is in flight.
    pub in_progress: InProgress,
    /// What happens when a key comes back with another fingerprint.
    pub mismatch: Mismatch,
    /// JSON members left out of the fingerprint.
    pub ignore: Vec<Pointer>,
    /// Ids to take from the request and its answer, by name.
    pub capture: Captures,
    /// Whether a client's malformed key is passed on unkeyed, as the built-in
    /// route does, instead of being refused.
    pub pass_malformed_keys: bool,
}

impl Rules {
    /// Whether a request that creates something is refused where it has neither key nor identity.
    pub fn wants_identity(&self, method: &Method) -> bool {
        self.require && matches!(*method, Method::POST | Method::PATCH)
    }
}

/// Where a key travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// In a header field.
    Header(HeaderName),
    /// In a member of a JSON body.
    Json(Pointer),
    /// In a query parameter.
    Query(String),
}

/// The shape of a key that is made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A `UUIDv4`, or one shaped like it when derived.
    Uuid,
    /// 32 lower-case hexadecimal digits.
    Hex32,
    /// 22 signs of `[A-Za-z0-9_-]`.
    Token,
}

/// What tells callers apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Principal {
    /// The bytes of the credentials that the request carries.
    Credentials,
    /// The access key id of an AWS signature.
    SigV4,
    /// The `iss` and `sub` of a bearer JWT, unverified.
    Jwt,
    /// Nothing: all callers of the route are one.
    Static,
}

/// A field, beyond the usual ones, that tells callers apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialField {
    /// A header field.
    Header(HeaderName),
    /// A query parameter.
    Query(String),
}

/// What a repeat does while the first is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InProgress {
    /// Waits for the first one's answer.
    Join,
    /// Is answered `in-progress` at once.
    Reject,
}

/// What happens when a key comes back with another fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// It is answered `key-reused` with this status.
    Answer(StatusCode),
    /// It is forwarded: the upstream decides.
    Forward,
}

#[cfg(test)]
mod tests;
