//! The coordinator between replicas: claims, answers and limits in Redis or Valkey.
//!
//! ```text
//! nothing ─ reserve ─► IN FLIGHT ─ settle ─► COMPLETED ─ ttl ─► its key alone ─ keep_key ─► nothing
//!    ▲                   │   ▲  └─ settle ─► nothing (released)
//!    │     lease runs out│   │resume
//!    │                   ▼   │
//!    └─ resolve absent ─ UNKNOWN ─ resolve landed ─► COMPLETED
//! ```
//!
//! Each arrow is one script in `lua/`, which Redis runs as one step, by its own clock.
//!
//! # Invariants
//!
//! - An owner changes its claim only while owner and epoch are still those it was
//!   given; an epoch is never given twice, even after Redis lost its data.
//! - In flight and unknown have no time to live. A lease that ran out makes an unknown,
//!   never a free key.
//! - Every command ends within its time, one way or the other.
//! - Whoever was not told of a claim has not got one, and nothing was sent under it.

mod address;
mod claim;
mod heart;
mod held;
mod limit;
mod link;
mod links;
mod news;
mod script;
mod settle;
mod unavailable;
mod warnings;
mod wire;

#[cfg(test)]
mod model;
#[cfg(test)]
pub(super) mod server;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use address::Address;
pub use claim::{Asked, Found, Peek, State, Taken};
pub use news::Told;
pub use settle::{Answered, Ended, Imposed, RECORD_MAX, Resolution, Settled, TOLD_MAX, Verdict};
pub use unavailable::Unavailable;

use held::Held;
use link::Dialer;
use links::{Heard, Links};
use news::Board;
use script::Call;
use wire::Row;

/// The coordinator; a clone shares it.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    links: Links,
    owner: [u8; 16],
    lease: Duration,
    /// How long a claim need not be asked about again.
    fresh: Duration,
    wait_replicas: u32,
    held: Held,
    board: Board,
    nonces: AtomicU64,
    under_replicated: AtomicU64,
    stop: CancellationToken,
}

/// What a coordinator is told when it is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where Redis is.
    pub address: Address,
    /// PEM roots that are trusted instead of the system's, for TLS.
    pub roots: Option<Vec<u8>>,
    /// How long a claim outlives the last word of its owner.
    pub lease: Duration,
    /// How many replicas of Redis are to have a reservation before it counts.
    pub wait_replicas: u32,
    /// What tells this process from every other: drawn at random at its start.
    pub owner: [u8; 16],
}

impl Redis {
    /// Starts the heartbeat and the listener on `tasks`, whether or not Redis is there:
    /// it may come and go. They hold the handle, and end once it is [closed](Self::close).
    pub fn start(options: Options, tasks: &TaskTracker) -> Self {
        let dialer = Dialer { address: options.address, roots: options.roots };
        let inner = Arc::new(Inner {
            links: Links::new(dialer, options.wait_replicas),
            owner: options.owner,
            lease: options.lease,
            fresh: FRESH_MAX.min(options.lease / 4),
            wait_replicas: options.wait_replicas,
            held: Held::default(),
            board: Board::default(),
            nonces: AtomicU64::new(1),
            under_replicated: AtomicU64::new(0),
            stop: CancellationToken::new(),
        });
        tasks.spawn(heart::beat(inner.clone()));
        tasks.spawn(news::listen(inner.clone()));
        Self(inner)
    }

    /// As [`start`](Self::start), where Redis answers now.
    ///
    /// # Errors
    ///
    /// Where it does not.
    #[cfg(test)]
    pub async fn connect(options: Options, tasks: &TaskTracker) -> Result<Self, Unavailable> {
        let redis = Self::start(options, tasks);
        let pinged = redis.0.links.command(&redis::cmd("PING")).await;
        pinged.map(|_pong| redis.clone()).inspect_err(|_silent| redis.close())
    }

    /// Ends the tasks of this handle. Claims are not renewed any more.
    pub fn close(&self) {
        self.0.stop.cancel();
    }

    /// Offers a secret, and returns the one in force: the first that was ever offered.
    ///
    /// # Errors
    ///
    /// Where Redis cannot say, or fewer replicas than wanted have it.
    pub async fn secret(&self, ours: &[u8]) -> Result<Vec<u8>, Unavailable> {
        let call = Call::about(&script::SECRET, "secret", "v1").arg(ours);
        let mut heard = self.0.links.run_replicated(&call).await?;
        match heard.missed {
            Some(missed) => Err(missed),
            None => heard.row.bytes(),
        }
    }

    /// How many claims this process holds.
    pub fn held(&self) -> usize {
        self.0.held.len()
    }

    /// How many settlements fewer replicas than wanted acknowledged.
    pub fn under_replicated(&self) -> u64 {
        self.0.under_replicated.load(Ordering::Relaxed)
    }

    /// What a command came to whose loss in a failover leaves a more cautious state.
    fn heard_of(&self, heard: Heard) -> Row {
        if let Some(missed) = heard.missed {
            self.0.under_replicated.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(error = %missed, "a failover of redis may lose a settlement");
        }
        heard.row
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis({})", self.0.links.dialer.address)
    }
}

/// The attempt right after a reservation need not ask again.
const FRESH_MAX: Duration = Duration::from_millis(500);
