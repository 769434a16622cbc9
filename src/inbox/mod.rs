//! Takes deliveries in for an application, and brings them to it in its own time:
//! `providers.md`, "Webhook inbox".
//!
//! A provider that calls back wants its answer in seconds, calls again when it gets none,
//! and may call twice all the same. The receiving side, `layer`, reads a delivery whole,
//! has [`signature`] prove whose it is, reads its `identity`, and answers once it is in
//! the [`store`]: before the application has seen it. Then `worker` brings it there,
//! first come first sent, as often as it takes; [`delivery`] says what an answer means and
//! when the next attempt is, `line` whose turn it is, and neither touches the network.
//!
//! # Invariants
//!
//! - What was answered 200 is as durable as the store is, and is brought to the
//!   application at least once, or given up with a word in the log.
//! - An identity that came before is dropped, for as long as it is remembered.
//! - Each attempt carries one id, the same after a restart: the application can tell a
//!   delivery that it has from one that it has not.
//! - One that fails never keeps the others from their turn.
//! - A client's `Authorization` and `Cookie` are never kept.

pub mod delivery;
pub mod identity;
mod layer;
mod line;
pub mod parcel;
pub mod signature;
pub mod store;
mod tray;
mod trays;
mod worker;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::exchange::{BoxFuture, Failure, Origin, Request, Response};
use crate::metrics::InboxMetrics;

pub use identity::Identity;
pub use layer::{Inbox, InboxLayer};
pub use signature::{Secret, Signature};
pub use store::Store;
pub use tray::{Intake, Tray};
pub use trays::{Means, Trays};

/// The `inbox` block of a route, as meant.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What makes two deliveries one.
    pub identity: Identity,
    /// What proves whose a delivery is; `None`: nothing is asked for.
    pub signature: Option<Signature>,
    /// Further fields that are kept and passed on.
    pub headers: Vec<HeaderName>,
    /// How long a delivery is remembered after its end.
    pub keep: Duration,
    /// Bytes of one delivery's body.
    pub max_size: usize,
    /// Deliveries that wait at one time.
    pub max_waiting: u64,
    /// Bytes of them all.
    pub max_bytes: u64,
    /// Bodies that are read at one time.
    pub max_reading: usize,
    /// Deliveries that are remembered after their end, where that is in memory.
    pub max_remembered: usize,
    /// Attempts in all; `None`: as many as there is time for.
    pub attempts: Option<NonZeroU32>,
    /// How long after its arrival a delivery is given up.
    pub give_up_after: Duration,
}

/// What one route brings to its inbox.
#[derive(Clone)]
pub struct Terms {
    /// Its rules.
    pub rules: Rules,
    /// The applications that it takes deliveries in for: where listeners lead to that are
    /// in front of one, as far as the route matches them.
    pub applications: Vec<Origin>,
    /// Deliveries under way at one time.
    pub concurrency: NonZeroU32,
    /// How long is waited before the next attempt.
    pub wait: Wait,
    /// Makes one attempt.
    pub send: Attempt,
    /// Where it counts.
    pub metrics: InboxMetrics,
}

/// How long is waited: by the application's hint, or else by how often it failed before,
/// from 0; the last is uniform in [0, 1).
pub type Wait = Arc<dyn Fn(Option<Duration>, u32, f64) -> Duration + Send + Sync>;

/// Makes one attempt: the stages of the route below its retries.
pub type Attempt = Arc<dyn Fn(Request) -> BoxFuture<Result<Response, Failure>> + Send + Sync>;

impl std::fmt::Debug for Terms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terms")
            .field("rules", &self.rules)
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
