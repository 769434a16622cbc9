//! The file's `admin`: probes, metrics, API.

use crate::admin::{Expose, Spec};
use crate::config::leaf::{Count, Word, Words};
use crate::config::listen::Address;
use crate::config::reading::block;

block! {
    /// The admin listener: probes, metrics, API.
    AdminBlock {
        /// Where it binds: `host:port`.
        address: Address = Address::loopback(9090),
        /// What a caller that is not on loopback may reach.
        expose: Word<Expose> = Word(Expose::Metrics),
        /// Connections at one time; the last 16 are for callers on this machine.
        max_connections: Count<32, 65_536> = Count(128),
    }
}

impl Words for Expose {
    const WORDS: &'static [(&'static str, Self)] =
        &[("metrics", Self::Metrics), ("all", Self::All)];
}

impl AdminBlock {
    /// As meant.
    pub(super) fn meant(&self) -> Spec {
        Spec {
            address: self.address.text.clone(),
            expose: self.expose.0,
            connections: self.max_connections.0,
        }
    }
}
