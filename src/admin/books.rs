//! What the admin side asks of the ledger, and whom.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::broadcast;

use crate::exchange::id::ExchangeId;
use crate::journal::Fault;
use crate::journal::ledger::{Entry, Filter};
use crate::journal::resolve::{Freed, Resolution, Verdict};

/// What will be answered.
pub type Asked<T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send>>;

/// What the admin side asks of the ledger; a clone asks the same one.
#[derive(Clone)]
pub struct Books {
    /// The entries that a filter wants.
    pub list: Arc<dyn Fn(Filter) -> Asked<Vec<Entry>> + Send + Sync>,
    /// One entry.
    pub show: Arc<dyn Fn(ExchangeId) -> Asked<Option<Entry>> + Send + Sync>,
    /// Settles an unknown outcome.
    pub resolve: Arc<dyn Fn(ExchangeId, Verdict) -> Asked<Resolution> + Send + Sync>,
    /// Opens a key, in every scope that has it.
    pub free: Arc<dyn Fn(String) -> Asked<Freed> + Send + Sync>,
    /// Tells of every exchange that ends.
    pub ended: Ended,
}

/// Tells of exchanges that end; whoever is slow misses some, and is told so.
pub type Ended = broadcast::Sender<Arc<Entry>>;

impl fmt::Debug for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Books").finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::admin::{Desk, Expose};
    use crate::credit::Breakers;
    use crate::metrics::Metrics;

    /// A desk whose ledger cannot be read.
    pub(crate) fn desk(ended: Ended) -> Desk {
        let books = Books {
            list: Arc::new(|_filter| Box::pin(async { Err(Fault::Damaged) })),
            show: Arc::new(|_id| Box::pin(async { Err(Fault::Damaged) })),
            resolve: Arc::new(|_id, _verdict| Box::pin(async { Err(Fault::Damaged) })),
            free: Arc::new(|_key| Box::pin(async { Err(Fault::Damaged) })),
            ended,
        };
        Desk {
            metrics: Metrics::new(),
            refresh: Arc::new(|| Box::pin(async {})),
            leaving: CancellationToken::new(),
            status: Arc::new(|| json!({})),
            routes: Arc::new(|| json!({})),
            reload: Arc::new(|| Ok(())),
            breakers: Breakers::new(1),
            books,
            expose: Expose::Metrics,
        }
    }
}
