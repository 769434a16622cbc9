//! The file's `upstream` and `egress`: how upstreams are reached, and which may be.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::config::intercept::HostName;
use crate::config::leaf::{
    Count, HOUR, Later, MINUTE, Parse, Parsed, SECOND, Span, Word, WordOr, Words, meant,
};
use crate::config::reading::block;
use crate::upstream::{Allowed, Egress, Options};

block! {
    /// How upstreams are reached.
    UpstreamBlock {
        /// `system`, or a file of further PEM roots, added to the system's.
        roots: WordOr<System, PathBuf> = WordOr::Word(Word(System)),
        /// How long a connection may take to be made, TLS included.
        connect_timeout: Span<1, HOUR> = Span::of(10 * SECOND),
        /// How long an unused connection is kept.
        idle_timeout: Span<1, { 24 * HOUR }> = Span::of(MINUTE + 30 * SECOND),
        /// Unused connections kept per origin.
        idle_per_host: Count<0, 10_000> = Count(256),
        /// A further proxy to go through; comes with a later version.
        proxy: Later = Later,
    }
}

block! {
    /// Which addresses may be reached; checked on the resolved address.
    EgressBlock {
        /// Networks that are never reached.
        deny: Vec<Parsed<IpNet>> = link_local(),
        /// When not empty, hosts or networks that alone may be reached.
        allow: Vec<Parsed<Allowed>> = Vec::new(),
    }
}

/// The word `system`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct System;

impl Words for System {
    const WORDS: &'static [(&'static str, Self)] = &[("system", Self)];
}

impl UpstreamBlock {
    /// As meant.
    pub(super) fn meant(&self) -> Options {
        let extra_roots = match &self.roots {
            WordOr::Word(_) => None,
            WordOr::Other(file) => Some(file.clone()),
        };
        Options {
            extra_roots,
            connect_timeout: self.connect_timeout.duration(),
            idle_timeout: self.idle_timeout.duration(),
            idle_per_host: self.idle_per_host.size(),
        }
    }
}

impl EgressBlock {
    /// As meant.
    pub(super) fn meant(&self) -> Egress {
        Egress { deny: meant(&self.deny), allow: meant(&self.allow) }
    }
}

impl Parse for IpNet {
    fn parse(text: &str) -> Result<Self, String> {
        let address = || text.parse::<IpAddr>().map(Self::from);
        let net = text.parse::<Self>().or_else(|_not_a_net| address());
        net.map(|net| net.trunc()).map_err(|_not_an_address| {
            "must be a network such as 10.0.0.0/8 or fe80::/10".to_owned()
        })
    }
}

impl Parse for Allowed {
    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(net) = <IpNet as Parse>::parse(text) {
            return Ok(Self::Network(net));
        }
        let host = if text.contains('/') { None } else { HostName::parse(text).ok() };
        host.map(|host| Self::Host(host.0)).ok_or_else(|| {
            "must be a host without port or a network, such as *.example.net or 10.0.0.0/8"
                .to_owned()
        })
    }
}

/// Where clouds keep the credentials of a machine: no API that is called lives there.
fn link_local() -> Vec<Parsed<IpNet>> {
    let read = |text: &str| IpNet::parse(text).map(|meant| Parsed { text: text.to_owned(), meant });
    ["169.254.0.0/16", "fe80::/10"].into_iter().flat_map(read).collect()
}
