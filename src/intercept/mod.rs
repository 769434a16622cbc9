//! Reading inside TLS.
//!
//! [`decide`] says which connections are opened. [`handshake()`] opens one, with a
//! leaf that the [`Authority`] signs for the host; [`Hearing`] reads whom it is for and
//! opens nothing. [`publish`] and [`Environment`] give clients what they need to trust
//! that CA; [`Roots`] are whom we trust upstream.
//!
//! # Invariants
//!
//! - The CA's key is never logged, never sent, and written nowhere but to its own file.
//! - Our own CA is never trusted upstream, whatever the roots hold.
//! - A host has one leaf at a time, and is signed for once, however many ask.

mod authority;
mod ca;
mod cache;
mod decision;
mod environment;
mod files;
mod handshake;
mod hello;
mod leaf;
mod shown;
mod trust;
mod truststore;

pub use authority::{Authority, warm};
pub use ca::CaFault;
pub use decision::{Asked, Decision, Distrust, OWN_HOST, Why, decide, is_own};
pub use environment::{Environment, Format, Own};
pub use handshake::{Handshake, Opened, Protocol, distrust_in, handshake};
pub use hello::{Hearing, Hello};
pub use leaf::MintFault;
pub use shown::{Shown, shown};
pub use trust::{Roots, RootsFault, bundle, publish, published, truststore};
pub use truststore::PASSWORD as TRUSTSTORE_PASSWORD;

use std::path::PathBuf;

/// The `intercept` block, as meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Which hosts are opened.
    pub hosts: Hosts,
    /// Hosts never opened: names, `*.suffix`.
    pub except: Vec<String>,
    /// What happens to a host whose client refused our certificate.
    pub on_distrust: OnDistrust,
    /// A CA of the operator's; `None`: made once in the state directory.
    pub ca: Option<CaFiles>,
    /// Leaf certificates kept ready.
    pub leaf_cache: usize,
}

/// Which hosts are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// Those that a route names.
    Routed,
    /// All.
    All,
    /// None.
    Nothing,
}

/// What happens to a host whose client refused our certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDistrust {
    /// Each further try fails as the first did.
    Fail,
    /// The host is tunnelled for ten minutes.
    Tunnel,
}

/// Where the operator's CA is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaFiles {
    /// The certificate, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}
