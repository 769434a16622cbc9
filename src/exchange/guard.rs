//! What is asked before every attempt: whether it may still be made.

use std::fmt;
use std::sync::Arc;

use crate::exchange::{BoxFuture, Failure};

/// Asks, right before an attempt, whether the exchange still holds its claim.
#[derive(Clone)]
pub struct Guard(Arc<Check>);

type Check = dyn Fn() -> BoxFuture<Result<(), Failure>> + Send + Sync;

impl Guard {
    /// Asks by `check`.
    pub fn new(check: impl Fn() -> BoxFuture<Result<(), Failure>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(check))
    }

    /// Asks.
    ///
    /// # Errors
    ///
    /// Why the attempt may not be made; nothing of it was sent.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only asks.
    pub async fn check(&self) -> Result<(), Failure> {
        (self.0)().await
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}
