//! One attempt: a pooled connection, a deadline, and proof of what was sent.
//!
//! `pool` keeps the connections, `dial` makes them, by `way` of a [`FurtherProxy`] where
//! there is one or to the one address that is `pinned`, `race` for the first address that
//! answers, `ourselves` knows what would come back here, a `connection` speaks HTTP on what
//! was made, `load` counts what each carries,
//! `sender` sends one attempt on one of them, as the `parcel` that it wants, `sent` knows
//! how far it has come, and `proof` says what is known if it fails.
//!
//! # Invariants
//!
//! - Every sending is one attempt: a request goes to a second connection only
//!   where the first gave it back untouched.
//! - A request that may not be repeated never rides a connection that the
//!   upstream may be closing.
//! - The upstream's certificate is always verified.

mod connection;
pub mod dial;
mod further;
mod line;
mod load;
mod ourselves;
mod parcel;
mod pinned;
mod pool;
mod proof;
mod race;
mod sender;
mod sent;
mod way;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

pub use dial::Dialer;
pub use further::FurtherProxy;
pub use line::Line;
pub use ourselves::Ourselves;
pub use pool::Pool;
pub use sender::Sender;

/// The `upstream` block, as meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A file of PEM roots, added to the system's.
    pub extra_roots: Option<PathBuf>,
    /// How long a connection may take to be made, TLS included.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Unused connections kept per origin.
    pub idle_per_host: usize,
    /// What upstreams are reached through.
    pub proxy: Option<FurtherProxy>,
}

/// The `egress` block, as meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// Networks that are never reached.
    pub deny: Vec<IpNet>,
    /// When not empty, what alone may be reached.
    pub allow: Vec<Allowed>,
}

/// Hosts that are allowed, or excepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// A host by name: `api.example.com` or `*.example.net`.
    Host(String),
    /// A network by address.
    Network(IpNet),
}

impl Egress {
    /// Whether `host`, which resolved to `address`, may be reached.
    ///
    /// IPv4 addresses that hide in IPv6 ones (`::ffff:a.b.c.d`) are judged as IPv4.
    pub fn permits(&self, host: &str, address: IpAddr) -> bool {
        !self.denies(address) && self.allows(host, Some(address.to_canonical()))
    }

    /// Whether a network that is never reached holds `address`.
    pub(in crate::upstream) fn denies(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.deny.iter().any(|network| network.contains(&address))
    }

    /// Whether `host` may be reached, as far as can be told without its address.
    pub fn permits_name(&self, host: &str) -> bool {
        self.allows(host, None)
    }

    fn allows(&self, host: &str, address: Option<IpAddr>) -> bool {
        self.allow.is_empty() || self.allow.iter().any(|allowed| allowed.covers(host, address))
    }
}

impl Allowed {
    /// Whether it means `host`, which has this address where that is known.
    pub(in crate::upstream) fn covers(&self, host: &str, address: Option<IpAddr>) -> bool {
        match self {
            Self::Network(network) => address.is_some_and(|address| network.contains(&address)),
            Self::Host(name) => match name.strip_prefix('*') {
                Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
                None => name == host,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn egress_denies_before_it_allows() {
        let egress = Egress {
            deny: vec!["169.254.0.0/16".parse().expect("a network")],
            allow: vec![
                Allowed::Host("*.example.net".to_owned()),
                Allowed::Network("10.0.0.0/8".parse().expect("a network")),
            ],
        };
        for (host, address, wanted) in [
            ("a.example.net", "203.0.113.9", true),
            ("a.example.net", "169.254.169.254", false),
            ("a.example.net", "::ffff:169.254.169.254", false),
            ("example.net", "203.0.113.9", false),
            ("b.test", "10.1.2.3", true),
            ("b.test", "203.0.113.9", false),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(egress.permits(host, address), wanted, "{host} at {address}");
        }
    }
}
