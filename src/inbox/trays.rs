//! What waits on all routes, by name: it outlives reloads, and each has its worker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::exchange::{Chance, Origin};
use crate::inbox::{Store, Tray, worker};
use crate::journal::Fault;

/// The trays of all routes; a clone shares them.
#[derive(Clone, Debug)]
pub struct Trays(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    means: Means,
    trays: Mutex<BTreeMap<String, Tray>>,
}

/// What all workers share.
#[derive(Clone, Debug)]
pub struct Means {
    /// Where deliveries wait.
    pub store: Store,
    /// Where the workers run, so that draining waits for them.
    pub tasks: TaskTracker,
    /// Cancelled when draining begins.
    pub draining: CancellationToken,
    /// What scatters waits.
    pub chance: Chance,
    /// Where applications are now: what the listeners in front of them lead to.
    pub applications: Vec<Origin>,
}

impl Trays {
    /// No route has one yet.
    pub fn new(means: Means) -> Self {
        Self(Arc::new(Inner { means, trays: Mutex::default() }))
    }

    /// The tray of a route; the first time its worker is started.
    pub fn of(&self, route: &str) -> Tray {
        let mut trays = self.trays();
        if let Some(tray) = trays.get(route) {
            return tray.clone();
        }
        let means = &self.0.means;
        let tray = Tray::new(route, means);
        means.tasks.spawn(worker::run(tray.clone(), means.clone()));
        trays.insert(route.to_owned(), tray.clone());
        tray
    }

    /// Stops delivering on routes that no longer have an inbox; what waits there stays.
    pub fn retire(&self, has_inbox: impl Fn(&str) -> bool) {
        for tray in self.trays().values().filter(|tray| tray.is_open()) {
            if !has_inbox(tray.route()) {
                let waiting = tray.close();
                warn_of_waiting(tray.route(), waiting);
            }
        }
    }

    /// Warns of deliveries that the process before has left on routes without an inbox.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when it cannot be read.
    pub async fn warn_of_strangers(&self) -> Result<(), Fault> {
        let Store::Disk(journal) = &self.0.means.store else { return Ok(()) };
        for (route, waiting) in journal.routes_with_deliveries().await? {
            if !self.trays().contains_key(&route) {
                warn_of_waiting(&route, waiting);
            }
        }
        Ok(())
    }

    /// How many deliveries wait.
    pub fn waiting(&self) -> u64 {
        self.trays().values().map(Tray::waiting).sum()
    }

    /// Forgets what is past its time; called every few seconds.
    pub fn sweep(&self) {
        self.0.means.store.sweep();
    }

    fn trays(&self) -> MutexGuard<'_, BTreeMap<String, Tray>> {
        self.0.trays.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn warn_of_waiting(route: &str, waiting: u64) {
    if waiting > 0 {
        tracing::warn!(
            route,
            waiting,
            "deliveries wait for a route that has no inbox; they are made once it has one again"
        );
    }
}
