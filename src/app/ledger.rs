//! The store and its ledger: where they are, and who is asked about them.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use crate::admin::Books;
use crate::app::{Home, ending, shared};
use crate::config::{self, Config};
use crate::exchange::id::ExchangeId;
use crate::idempotency::Commons;
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::key::Key;
use crate::idempotency::orphans::Orphans;
use crate::idempotency::scope::Scope;
use crate::idempotency::store::{Disk, Memory, Store};
use crate::intercept::Roots;
use crate::journal::ledger::Entry;
use crate::journal::moment::micros;
use crate::journal::resolve::{Resolution, Verdict};
use crate::journal::schema::{self, FILE};
use crate::journal::{Clock, Fault, Journal, OpenFault, Options, State};
use crate::metrics::Metrics;
use crate::route::Route;

/// The store of this replica alone, and the newest name in it.
pub(super) async fn store(
    config: &Config,
    tasks: &TaskTracker,
    metrics: &Metrics,
) -> Result<(Store, u64), Unusable> {
    let state = &config.state;
    if state.journal == config::Journal::Memory {
        return Ok((Store::Memory(Memory::new(state.max_size, Clock::System)), 0));
    }
    let journal = Journal::open(options(config))?;
    journal.tell_in(tasks);
    let (newest, epoch) = journal.newest().await?;
    let disk = Disk::new(journal, state.hot_memory, epoch, metrics.clone());
    Ok((Store::Disk(disk), newest))
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenFault),
    /// It was opened, and cannot be read.
    #[error("the journal: {0}")]
    Read(#[from] Fault),
}

/// Takes up the keys that the process before left undelivered.
pub(super) async fn restore(
    orphans: &Orphans,
    store: &Store,
    window: Duration,
) -> Result<(), Unusable> {
    let Some(journal) = store.journal().filter(|_| !window.is_zero()) else { return Ok(()) };
    for orphan in journal.orphans(micros(window)).await? {
        // A key that was written is one that can be read.
        if let Ok(key) = Key::parse(orphan.key.as_bytes()) {
            let likeness = (Scope(orphan.scope), Fingerprint(orphan.fingerprint));
            orphans.restore(likeness, key, Duration::from_micros(orphan.age.unsigned_abs()));
        }
    }
    Ok(())
}

/// The longest time in which any route lets a key be taken over.
pub(super) fn adoption_window(config: &Config) -> Duration {
    let windows = config.routes.iter().map(|route| route.rules.adopt_orphans);
    windows.max().unwrap_or_default()
}

/// Both of the first promises hold for as long as the storage does: who relies on it is
/// told where it does not last.
pub(super) fn warn_of_loss(config: &Config) {
    let relies = |route: &Route| {
        let rules = &route.rules;
        // What a preset adopts is more than was asked for.
        let asked = route.provenance.built_in().is_none();
        asked && (rules.identity.is_some() || rules.require || !rules.adopt_orphans.is_zero())
    };
    let state = &config.state;
    if state.shared.is_some() || !config.routes.iter().any(relies) {
        return;
    }
    let dir = state.dir.display();
    match state.journal {
        config::Journal::Memory => tracing::warn!(
            "routes rely on business identities, and keys end with this process: state.journal is memory"
        ),
        config::Journal::Disk => {
            if let Some(kind) = schema::passing(&state.dir) {
                tracing::warn!(
                    %dir,
                    kind,
                    "routes rely on business identities, and state.dir is on storage that does not last"
                );
            }
        }
    }
}

/// What the admin side asks of the ledger.
pub(super) fn books(commons: &Commons) -> Books {
    let [list, show] = [(); 2].map(|()| (commons.store.clone(), commons.running.clone()));
    let [resolve, free] = [(); 2].map(|()| commons.store.clone());
    Books {
        list: Arc::new(move |filter| {
            let (store, running) = list.clone();
            Box::pin(async move {
                let mut entries = running.list(&filter);
                let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
                entries.extend(store.list(filter).await?);
                // One that ended in between is in both: its row says more.
                entries.sort_by_key(|entry| (Reverse(entry.seq), entry.state == State::InFlight));
                entries.dedup_by_key(|entry| (entry.seq, entry.instance));
                entries.truncate(limit);
                Ok(entries)
            })
        }),
        show: Arc::new(move |id| {
            let (store, running) = show.clone();
            Box::pin(async move {
                match running.show(id.parts()) {
                    Some(entry) => Ok(Some(entry)),
                    None => store.show(id).await,
                }
            })
        }),
        resolve: Arc::new(move |id, verdict| {
            let store = resolve.clone();
            Box::pin(async move { store.resolve(id, verdict).await })
        }),
        free: Arc::new(move |key| {
            let store = free.clone();
            Box::pin(async move { store.free(key).await })
        }),
        ended: commons.ended.clone(),
    }
}

/// Settles an unknown outcome while no sidecar runs, in this directory and, where replicas
/// share their keys, there; and shows what is known then.
///
/// # Errors
///
/// Why it could not be settled; it is unknown as before.
pub async fn resolve_alone(
    config: &Config,
    _locked: &Home,
    exchange: ExchangeId,
    verdict: Verdict,
) -> Result<(Resolution, Option<Entry>), Unusable> {
    let (tasks, metrics) = (TaskTracker::new(), Metrics::new());
    let (mut store, _) = store(config, &tasks, &metrics).await?;
    if let Some(wanted) = &config.state.shared {
        let owner = blake3::hash(exchange.to_string().as_bytes());
        let owner = owner.as_bytes().first_chunk().copied().unwrap_or_default();
        let redis = shared::start(wanted, &Roots::system(), owner, &tasks);
        store = shared::before(store, &redis, wanted, (&tasks, &metrics));
    }
    let resolution = store.resolve(exchange, verdict).await?;
    let entry = store.show(exchange).await?;
    store.close(ending::CLOSE_WITHIN).await;
    Ok((resolution, entry))
}

/// How the config wants the journal kept.
pub fn options(config: &Config) -> Options {
    let state = &config.state;
    Options {
        folder: folder(&state.dir),
        durability: state.durability,
        bytes_max: state.max_size,
        ledger_micros: micros(state.keep_ledger),
        clock: Clock::System,
    }
}

/// The journal's file in a state directory.
pub fn file(dir: &Path) -> PathBuf {
    folder(dir).join(FILE)
}

/// The file in a state directory that says where the admin side listens.
pub fn admin_file(dir: &Path) -> PathBuf {
    dir.join("admin")
}

fn folder(dir: &Path) -> PathBuf {
    dir.join("journal")
}

/// Ends that a reader of the events may be behind.
pub(super) const ENDED_MAX: usize = 256;
