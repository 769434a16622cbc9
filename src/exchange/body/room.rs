//! What all held bodies may take together, in memory and on disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What all held bodies may take together, and where their files are; a clone shares it.
#[derive(Clone, Debug)]
pub struct Room(Arc<Totals>);

#[derive(Debug)]
struct Totals {
    dir: PathBuf,
    memory: Total,
    disk: Total,
}

#[derive(Debug)]
struct Total {
    most: u64,
    used: AtomicU64,
}

impl Room {
    /// Bounds the copies; files are made in `dir`, which must exist.
    pub fn new(dir: PathBuf, memory_max: u64, disk_max: u64) -> Self {
        let (memory, disk) = (Total::new(memory_max), Total::new(disk_max));
        Self(Arc::new(Totals { dir, memory, disk }))
    }

    /// Bytes held in memory and on disk at this moment.
    pub fn used(&self) -> (u64, u64) {
        let load = |total: &Total| total.used.load(Ordering::Relaxed);
        (load(&self.0.memory), load(&self.0.disk))
    }

    pub(super) fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Takes room in memory, if there is that much.
    pub(super) fn take_memory(&self, bytes: u64) -> bool {
        self.0.memory.take(bytes)
    }

    /// Takes room on disk, if there is that much.
    pub(super) fn take_disk(&self, bytes: u64) -> bool {
        self.0.disk.take(bytes)
    }

    /// Gives room back that was taken.
    pub(super) fn give_back(&self, memory: u64, disk: u64) {
        self.0.memory.used.fetch_sub(memory, Ordering::Relaxed);
        self.0.disk.used.fetch_sub(disk, Ordering::Relaxed);
    }
}

impl Total {
    fn new(most: u64) -> Self {
        Self { most, used: AtomicU64::new(0) }
    }

    fn take(&self, bytes: u64) -> bool {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= self.most;
        if !fits {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }
}
