//! Crash tests: the sidecar is killed, its disk fills, its clock jumps, its Redis dies,
//! and a book that samekey never sees counts what the outside world did.
//!
//! `cargo test` plays the short form, `CRASH_KILLS=500` (`make crash`) the long one, and
//! `CRASH_SEED` plays the lots of a run again. The provider is an example, which
//! `cargo test --test crash` alone does not build: `cargo build --example provider`.

#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that panics has failed, and its tasks end with its runtime"
)]

#[path = "../provider/engine.rs"]
mod provider;
#[expect(dead_code, unused_imports, reason = "the integration tests use the rest")]
#[path = "../it/support/mod.rs"]
mod support;

mod check;
mod customers;
mod durable;
mod game;
mod kills;
mod ledger;
mod order;
mod plan;
mod sidecar;
mod tally;
mod upstream;
mod wounds;

mod shared;
