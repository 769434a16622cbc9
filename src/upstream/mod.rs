//! One attempt: a pooled connection, a deadline, and proof of what was sent.
//!
//! `pool` keeps the connections, `dial` makes them, `load` counts what each carries,
//! `sender` sends one attempt on one of them, `sent` knows how far it has come, and `proof`
//! says what is known if it fails.
//!
//! # Invariants
//!
//! - Every sending is one attempt: a request goes to a second connection only
//!   where the first gave it back untouched.
//! - A request that may not be repeated never rides a connection that the
//!   upstream may be closing.
//! - The upstream's certificate is always verified.

pub mod dial;
mod load;
mod pool;
mod proof;
mod sender;
mod sent;

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

pub use dial::{Dialer, Ourselves};
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
}

/// The `egress` block, as meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// Networks that are never reached.
    pub deny: Vec<IpNet>,
    /// When not empty, what alone may be reached.
    pub allow: Vec<Allowed>,
}

/// One entry of `egress.allow`.
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
    pub fn permits(&self, host: &str, address: std::net::IpAddr) -> bool {
        let address = address.to_canonical();
        if self.deny.iter().any(|network| network.contains(&address)) {
            return false;
        }
        self.allow.is_empty()
            || self.allow.iter().any(|allowed| match allowed {
                Allowed::Network(network) => network.contains(&address),
                Allowed::Host(name) => match name.strip_prefix('*') {
                    Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
                    None => name == host,
                },
            })
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
