//! The yardstick: an origin, a bare proxy, a load, and what the kernel says they cost.

pub(crate) mod bare;
pub(crate) mod cores;
pub(crate) mod line;
pub(crate) mod load;
pub(crate) mod origin;
pub(crate) mod payload;
pub(crate) mod pki;
pub(crate) mod process;

/// Whatever is wrong ends the bench: a number from half a run misleads.
pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

/// The name that all requests are for; it resolves everywhere, to loopback.
pub(crate) const HOST: &str = "localhost";
