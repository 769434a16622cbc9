//! What replicas share of a limit: the rate of one account, and the pauses it is given.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::exchange::{BoxFuture, Origin};
use crate::limit::{Caller, Rate};

/// Asks and tells other replicas; it says nothing where they cannot be reached, and then
/// each replica is on its own.
pub trait Coordinate: Send + Sync {
    /// Takes one attempt of a rate, or says when to ask again.
    fn take(&self, scope: [u8; 32], rate: Rate) -> BoxFuture<Option<Result<(), Duration>>>;

    /// Tells of a pause; nobody waits for it.
    fn pause(&self, scope: [u8; 32], pause: Duration);

    /// How long a pause still lasts that any replica told of.
    fn paused(&self, scope: [u8; 32]) -> BoxFuture<Option<Duration>>;
}

/// One route's, or one group's, share in what replicas know.
#[derive(Clone)]
pub(super) struct Replicas {
    pub(super) coordinate: Arc<dyn Coordinate>,
    /// Of the route, or of the group.
    pub(super) name: Arc<str>,
}

impl Replicas {
    /// Takes one attempt of a rate, or says when to ask again.
    pub(super) async fn take(&self, caller: &Caller, rate: Rate) -> Option<Result<(), Duration>> {
        self.coordinate.take(self.scope("rate", caller, None), rate).await
    }

    /// Tells of a pause.
    pub(super) fn pause(&self, caller: &Caller, origin: Option<&Origin>, pause: Duration) {
        self.coordinate.pause(self.scope("pause", caller, origin), pause);
    }

    /// How long a pause still lasts.
    pub(super) async fn paused(
        &self,
        caller: &Caller,
        origin: Option<&Origin>,
    ) -> Option<Duration> {
        self.coordinate.paused(self.scope("pause", caller, origin)).await
    }

    /// A caller is a digest under the secret: what goes out tells nobody whose it is.
    fn scope(&self, what: &str, caller: &Caller, origin: Option<&Origin>) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(caller);
        let origin = origin.map(Origin::to_string).unwrap_or_default();
        for field in [what, &*self.name, &origin] {
            hasher.update(&(field.len() as u64).to_be_bytes());
            hasher.update(field.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

impl fmt::Debug for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicas").field("name", &self.name).finish_non_exhaustive()
    }
}
