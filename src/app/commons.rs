//! Builds what all routes share, the store first.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{Home, StartFault, ledger, shared, state};
use crate::config::Config;
use crate::exchange::Chance;
use crate::exchange::body::Room;
use crate::exchange::id::Names;
use crate::idempotency::Commons;
use crate::idempotency::leading::Leading;
use crate::idempotency::lookup::Lookups;
use crate::idempotency::orphans::Orphans;
use crate::idempotency::running::Running;
use crate::idempotency::suspension::Suspensions;
use crate::intercept::Roots;
use crate::limit::Gates;
use crate::metrics::Metrics;

/// What it is built with.
#[derive(Clone, Copy)]
pub(super) struct Means<'a> {
    /// Where exchanges go on that outlive their client.
    pub(super) tasks: &'a TaskTracker,
    /// Where goes on what nobody waits for.
    pub(super) background: &'a TaskTracker,
    /// Where the store counts.
    pub(super) metrics: &'a Metrics,
}

/// What all routes share, and the gates that hold them back.
pub(super) async fn build(
    config: &Config,
    home: &Home,
    roots: &Roots,
    means: Means<'_>,
) -> Result<(Commons, Gates), StartFault> {
    let state = &config.state;
    let (mut store, newest) = ledger::store(config, means.background, means.metrics).await?;
    let seed = state::seed()?;
    let mut gates = Gates::default();
    let secret = match &state.shared {
        None => home.secret(state.secret_file.as_deref())?,
        Some(wanted) => {
            let redis = shared::start(wanted, roots, owner(&seed), means.background);
            let has_keys = store.size().0 > 0;
            let secret = shared::secret(state, home, &redis, has_keys).await?;
            shared::warn(&redis).await;
            store = shared::before(store, &redis, wanted, (means.background, means.metrics));
            gates = Gates::new(Some(shared::limits(&redis, (means.background, means.metrics))));
            secret
        }
    };
    let orphans = Orphans::default();
    ledger::restore(&orphans, &store, ledger::adoption_window(config)).await?;
    let commons = Commons {
        store,
        orphans,
        suspensions: Suspensions::default(),
        secret,
        names: Arc::new(Names::new(instance(&seed), SystemTime::now()).after(newest)),
        chance: Chance::new(seed),
        tasks: means.tasks.clone(),
        cut: CancellationToken::new(),
        room: Room::new(home.spill_dir(), state.held_memory, state.held_disk),
        metrics: means.metrics.clone(),
        running: Running::default(),
        leading: Leading::default(),
        lookups: Lookups::new(state.lookups, means.background.clone()),
        ended: broadcast::channel(ledger::ENDED_MAX).0,
    };
    Ok((commons, gates))
}

/// What tells this process apart from all that write names beside it or after it: in
/// containers each of them is process 1.
fn instance(seed: &[u8; 32]) -> u32 {
    let digest = blake3::derive_key("samekey 2026 instance", seed);
    digest.first_chunk().map_or(0, |four| u32::from_be_bytes(*four))
}

/// What tells it apart from all that share its claims.
fn owner(seed: &[u8; 32]) -> [u8; 16] {
    let digest = blake3::derive_key("samekey 2026 owner", seed);
    digest.first_chunk().copied().unwrap_or_default()
}
