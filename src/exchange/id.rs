//! Names for exchanges: short, unique in a process's life and beyond, sorted by time.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The name of one exchange, as the ledger and the log show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExchangeId(u64, u32);

/// Makes names.
#[derive(Debug)]
pub struct Names {
    instance: u32,
    next: AtomicU64,
}

impl Names {
    /// `instance` tells processes apart; names start at `now`, in microseconds.
    pub fn new(instance: u32, now: SystemTime) -> Self {
        let micros = now.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_micros());
        Self { instance, next: AtomicU64::new(u64::try_from(micros).unwrap_or(u64::MAX / 2)) }
    }

    /// A name that this process has not given before.
    pub fn next(&self) -> ExchangeId {
        ExchangeId(self.next.fetch_add(1, Ordering::Relaxed), self.instance)
    }
}

impl ExchangeId {
    /// The two numbers that it is made of, for where it is kept.
    pub fn parts(self) -> (u64, u32) {
        (self.0, self.1)
    }

    /// The name that [`parts`](Self::parts) took apart.
    pub fn from_parts((at, instance): (u64, u32)) -> Self {
        Self(at, instance)
    }
}

impl fmt::Display for ExchangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:013x}{:08x}", self.0, self.1)
    }
}
