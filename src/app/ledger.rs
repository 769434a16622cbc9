//! The ledger: where it is, and who is asked about it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;

use crate::admin::{Books, Ended};
use crate::config::{self, Config};
use crate::journal::moment::micros;
use crate::journal::schema::FILE;
use crate::journal::{Clock, Durability, Journal, OpenFault, Options, Place};

/// The journal, and who is told of exchanges that end.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) journal: Journal,
    pub(super) ended: Ended,
}

impl Ledger {
    pub(super) fn open(config: &Config) -> Result<Self, OpenFault> {
        let (ended, _nobody) = broadcast::channel(ENDED_MAX);
        Ok(Self { journal: Journal::open(options(config))?, ended })
    }

    /// What the admin side asks.
    pub(super) fn books(&self) -> Books {
        let [list, show, resolve, free] = [(); 4].map(|()| self.journal.clone());
        Books {
            list: Arc::new(move |filter| {
                let journal = list.clone();
                Box::pin(async move { journal.list(filter).await })
            }),
            show: Arc::new(move |id| {
                let ((seq, instance), journal) = (id.parts(), show.clone());
                Box::pin(async move { journal.show(seq, instance).await })
            }),
            resolve: Arc::new(move |id, verdict| {
                let journal = resolve.clone();
                Box::pin(async move { journal.resolve(id.parts(), verdict).await })
            }),
            free: Arc::new(move |key| {
                let journal = free.clone();
                Box::pin(async move { journal.free(key).await })
            }),
            ended: self.ended.clone(),
        }
    }
}

/// How the config wants the journal kept.
pub fn options(config: &Config) -> Options {
    let state = &config.state;
    Options {
        place: match state.journal {
            config::Journal::Disk => Place::Folder(folder(&state.dir)),
            config::Journal::Memory => Place::Memory,
        },
        durability: match state.durability {
            config::Durability::Process => Durability::Process,
            config::Durability::Power => Durability::Power,
        },
        bytes_max: state.max_size,
        ledger_micros: micros(LEDGER),
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

/// How long a row can be read after its key is free: as long as keys are kept.
const LEDGER: Duration = Duration::from_hours(90 * 24);
/// Ends that a reader may be behind.
const ENDED_MAX: usize = 256;
