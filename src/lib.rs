//! samekey: a forward HTTP proxy that makes calls to outside APIs safe to retry.
//!
//! # The way of a request, which is the way down this list
//!
//! | module | what it does with the request |
//! | --- | --- |
//! | [`listen`] | accepts it: as a proxy, through a tunnel, or at a base URL |
//! | [`intercept`] | opens its TLS, with a leaf that our own authority signs |
//! | [`proxy`] | cleans its headers, finds its [`route`], always answers |
//! | [`pipeline`] | the page to read: the stages in order |
//! | [`inbox`] | takes it in, where it is a delivery for the application |
//! | [`poll`] | asks once for all who ask how one job goes; a recent answer ends here |
//! | [`schema`] | refuses a body that does not fit, before it costs anything |
//! | [`idempotency`] | claims its key; a stored answer ends here |
//! | [`credit`] | refuses what there is no credit for, or costs too much |
//! | [`retry`] | sends it again while that is safe and paid for |
//! | [`limit`] | holds it back while the upstream wants that |
//! | [`upstream`] | sends it, once, and proves what was sent |
//!
//! [`exchange`] holds the words that all of them share, [`metrics`] what they count,
//! [`trace`] what a collector is told of them, [`journal`] what outlives the process,
//! [`config`] what the operator wrote and what it means, [`admin`] what can be asked from
//! outside, and [`app`] builds, runs, reloads and drains it all. [`failpoint`] is where
//! tests have it killed.
//!
//! # Invariants
//!
//! - Modules use those on lower floors only; `tests/house.rs` holds the floors.
//! - [`retry::verdict`] alone decides how a claim ends, [`retry::decision`] alone
//!   whether there is another attempt; both are pure.
//! - Nothing that a client or an upstream sends makes us panic.
//! - Keys, credentials, query values and bodies reach no log, label or error text.

pub mod admin;
pub mod app;
pub mod config;
pub mod credit;
pub mod exchange;
pub mod failpoint;
pub mod idempotency;
pub mod inbox;
pub mod intercept;
pub mod journal;
pub mod limit;
pub mod listen;
pub mod metrics;
pub mod pipeline;
pub mod poll;
pub mod proxy;
pub mod retry;
pub mod route;
pub mod schema;
pub mod trace;
pub mod upstream;
