//! Transparent mode in network namespaces: real rules, and programs that know of no proxy.
//!
//! It takes root, so `cargo test` leaves it out; `make netns-test` runs it.

#![expect(clippy::indexing_slicing, reason = "a test that panics has failed")]

mod rules;
mod traffic;
mod world;
