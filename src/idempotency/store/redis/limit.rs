//! Rates and pauses that all replicas share.

use std::time::Duration;

use super::script::{self, Call};
use super::wire;
use super::{Redis, Unavailable};

impl Redis {
    /// Takes one of the `count` that a scope has in any `per`; or says when to ask again.
    ///
    /// The window slides in steps of a 64th of it, and errs on the side of fewer.
    ///
    /// # Errors
    ///
    /// Where Redis cannot say. One may have been taken all the same.
    pub async fn take_rate(
        &self,
        scope: &[u8; 32],
        count: u32,
        per: Duration,
    ) -> Result<Result<(), Duration>, Unavailable> {
        let per = wire::micros(per).max(1);
        // A window of another length has its parts elsewhere.
        let part = format!("rate:{per}");
        let call = Call::about(&script::RATE, &wire::hex(scope), &part);
        let call = call.arg(count).arg(per).arg(PARTS);
        let wait = self.0.links.run(&call).await?.number()?;
        Ok(if wait == 0 { Ok(()) } else { Err(Duration::from_micros(wait)) })
    }

    /// Pauses a scope; a longer pause that is in force stays.
    ///
    /// # Errors
    ///
    /// Where Redis cannot say.
    pub async fn pause(&self, scope: &[u8; 32], pause: Duration) -> Result<(), Unavailable> {
        let call = Call::about(&script::PAUSE, &wire::hex(scope), "pause");
        self.0.links.run(&call.arg(wire::millis(pause).max(1))).await?;
        Ok(())
    }

    /// How long a scope is still paused.
    ///
    /// # Errors
    ///
    /// Where Redis cannot say.
    pub async fn paused(&self, scope: &[u8; 32]) -> Result<Option<Duration>, Unavailable> {
        let call = Call::about(&script::PAUSED, &wire::hex(scope), "pause");
        let left = self.0.links.run(&call).await?.text()?;
        // Below zero there is none.
        let left = left.parse().ok().filter(|left: &u64| *left > 0);
        Ok(left.map(Duration::from_millis))
    }
}

/// What is kept of a window: at most two parts more than these.
const PARTS: u32 = 64;
