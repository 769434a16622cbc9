//! What the tests share: a sidecar of their own, and clients to talk to it.

pub(crate) mod client;
pub(crate) mod proxy;

pub(crate) use client::{Answer, Client};
pub(crate) use proxy::Samekey;
