//! End to end: the real binary, real sockets, real TLS, and a provider that counts effects.

#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that panics has failed, and its tasks end with its runtime"
)]

#[path = "../provider/engine.rs"]
mod provider;
mod support;

mod adoption;
mod bounds;
mod clients;
mod cli;
mod config;
mod credits;
mod doctor;
mod fetch;
mod further;
mod hostile;
mod http2;
mod idempotency;
mod inbox;
mod intercept;
mod kubernetes;
mod lasting;
mod ledger;
mod lifecycle;
mod limits;
mod lookup;
mod own;
mod page;
mod poll;
mod providers;
mod reading;
mod reloads;
mod presets;
mod retry;
mod schema;
mod seen;
mod shapes;
mod streams;
mod traces;
mod transparent;
mod watched;
