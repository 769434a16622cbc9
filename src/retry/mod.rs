//! Sends a failed request again, when that is safe and the route can afford it.
//!
//! Each question has a file of its own, and none of them touches the network:
//! [`outcome`] says what an attempt came to, [`policy`] what a route allows,
//! [`decision`] whether there is to be another attempt, [`budget`] whether the
//! route has earned it, [`backoff`] how long to wait first, [`verdict`] what the
//! whole history means for the key. [`layer`] asks them and does the sending.
//! On a route of downloads [`resume`] says whether one that broke off may go on, and
//! `resuming` is the body that does.
//!
//! # Invariants
//!
//! - Nothing is sent twice unless the attempt before did nothing, repeating is
//!   harmless, or the upstream de-duplicates by key.
//! - Once a byte of a response has reached the client, that response is final: what is
//!   resumed is the rest of it, to the byte, or nothing.
//! - A retry is paid for before it waits, so waiting retries are bounded too.

pub mod backoff;
pub mod budget;
pub mod decision;
pub mod layer;
pub mod outcome;
pub mod policy;
pub mod resume;
pub mod verdict;

mod glance;
mod resuming;
mod unfinished;

pub use backoff::{Backoff, Growth, Jitter};
pub use budget::Budget;
pub use layer::{Means, Retry, RetryLayer};
pub use policy::{Attempts, Deadline, FailedWhen, Policy, Triggers};

#[cfg(test)]
pub(crate) mod tests;
