//! A route: which requests it matches, and the policy they get.

pub mod index;
pub mod matcher;
pub mod provenance;

use std::sync::Arc;

use http::Method;

pub use index::Index;
pub use matcher::{HostPattern, Matcher, PathPattern};
pub use provenance::Provenance;

use crate::credit;
use crate::exchange::Shape;
use crate::exchange::body::Caps;
use crate::idempotency;
use crate::inbox;
use crate::limit;
use crate::poll;
use crate::retry;
use crate::schema::Schema;

/// A named rule.
#[derive(Clone, Debug)]
pub struct Route {
    /// The name: a metrics label, and whose budget it is across reloads.
    pub name: String,
    /// Which requests it matches.
    pub matcher: Matcher,
    /// What kind of request it carries; `None`: read off the method.
    pub kind: Option<Kind>,
    /// Whether decisions are carried out.
    pub mode: Mode,
    /// When a request is sent again.
    pub retry: retry::Policy,
    /// Which requests carry a key.
    pub rules: idempotency::Rules,
    /// How the provider is asked what became of a key.
    pub lookup: Option<Arc<idempotency::lookup::Recipe>>,
    /// What is held back.
    pub limits: limit::Limits,
    /// How polls are spaced, and when their job is over.
    pub polls: poll::Rules,
    /// Which effects are held back for want of credit.
    pub credit: credit::Rules,
    /// How much of a body is kept for sending it again.
    pub body: Caps,
    /// How answers look that are made here.
    pub errors: Shape,
    /// What JSON bodies of requests are to fit.
    pub schema: Option<Schema>,
    /// How deliveries are taken in for the application behind it.
    pub inbox: Option<inbox::Rules>,
    /// Where all this was written.
    pub provenance: Provenance,
}

impl Route {
    /// What kind of request one with this method is.
    pub fn kind_of(&self, method: &Method) -> Kind {
        self.kind.unwrap_or(match *method {
            Method::POST | Method::PATCH => Kind::Effect,
            _ => Kind::Read,
        })
    }
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Creates or changes something.
    Effect,
    /// Reads.
    Read,
    /// Asks how a job goes.
    Poll,
    /// Downloads.
    Fetch,
}

/// Whether decisions are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They are.
    Enforce,
    /// They are counted, and the request is sent as it came.
    Observe,
}
