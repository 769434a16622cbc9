//! What the tests share: a sidecar of their own, and clients to talk to it.

pub(crate) mod client;
pub(crate) mod further;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod stage;

pub(crate) use client::{Answer, Client};
pub(crate) use further::Further;
pub(crate) use proxy::Samekey;
pub(crate) use stage::{ORDER, Stage};
