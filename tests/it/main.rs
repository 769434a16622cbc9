//! End to end: the real binary, real sockets, real TLS, and a provider that counts effects.

#[path = "../provider/engine.rs"]
mod provider;
mod support;

mod adoption;
mod clients;
mod cli;
mod config;
mod hostile;
mod http2;
mod idempotency;
mod intercept;
mod limits;
mod retry;
mod seen;
mod streams;
