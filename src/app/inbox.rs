//! The inboxes: what they share, and what is said of them when the config changes.

use tokio_util::sync::CancellationToken;

use crate::app::ledger::Unusable;
use crate::config::{self, Config};
use crate::idempotency::Commons;
use crate::inbox::store::Memory;
use crate::inbox::{Means, Store, Trays};
use crate::journal::{Clock, schema};

/// What all inboxes share: the journal, where there is one.
pub(super) fn trays(config: &Config, commons: &Commons, draining: &CancellationToken) -> Trays {
    let store = match commons.store.journal() {
        Some(journal) => Store::Disk(journal.clone()),
        None => Store::Memory(Memory::new(Clock::System)),
    };
    let applications =
        config.listeners.iter().filter_map(|listener| listener.mode.upstream().cloned());
    Trays::new(Means {
        store,
        tasks: commons.tasks.clone(),
        draining: draining.clone(),
        chance: commons.chance.clone(),
        applications: applications.collect(),
    })
}

/// Stops delivering on routes that are gone, or have no inbox any more.
pub(super) fn retire(trays: &Trays, config: &Config) {
    let has_inbox =
        |name: &str| config.routes.iter().any(|route| route.name == name && route.inbox.is_some());
    trays.retire(has_inbox);
}

/// Warns where what was answered 200 can be lost, and where it waits for a route that is
/// gone.
pub(super) async fn warn_of_loss(config: &Config, trays: &Trays) -> Result<(), Unusable> {
    let state = &config.state;
    if config.routes.iter().any(|route| route.inbox.is_some()) {
        let dir = state.dir.display();
        match state.journal {
            config::Journal::Memory => tracing::warn!(
                "routes have an inbox, and what waits in it ends with this process: \
                 state.journal is memory"
            ),
            config::Journal::Disk => {
                if let Some(kind) = schema::passing(&state.dir) {
                    tracing::warn!(
                        %dir,
                        kind,
                        "routes have an inbox, and state.dir is on storage that does not last"
                    );
                }
            }
        }
    }
    Ok(trays.warn_of_strangers().await?)
}
