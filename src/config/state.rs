//! The file's `state`: what is kept, where, and how much of it.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::leaf::{DAY, GIB, Later, MIB, SECOND, SIZE_MAX, Size, Span, Word, Words};
use crate::config::reading::block;
use crate::journal::Durability;

block! {
    /// What is kept, where, and how much of it.
    StateBlock {
        /// What the sidecar keeps for itself.
        dir: PathBuf = "./samekey-data".into(),
        /// What applications may read; null: `dir`/public.
        public: Option<PathBuf> = None,
        /// Where keys and answers are kept.
        journal: Word<Journal> = Word(Journal::Disk),
        /// The secret that derives keys; null: made once in `dir`.
        secret_file: Option<PathBuf> = None,
        /// What a kept answer survives.
        durability: Word<Durability> = Word(Durability::Process),
        /// Bytes of answers kept in all.
        max_size: Size<MIB, SIZE_MAX> = Size::of(GIB),
        /// Bytes of all requests together that are kept in memory for sending them again.
        held_memory: Size<0, SIZE_MAX> = Size::of(64 * MIB),
        /// The same in files.
        held_disk: Size<0, SIZE_MAX> = Size::of(GIB),
        /// Bytes of answers kept in memory too, so that a repeat does not touch the disk.
        hot_memory: Size<0, SIZE_MAX> = Size::of(64 * MIB),
        /// How long the ledger shows an exchange whose key is free, or was forgotten.
        keep_ledger: Span<{ 60 * SECOND }, { 3650 * DAY }> = Span::of(90 * DAY),
        /// A store that replicas share; comes with a later version.
        shared: Later = Later,
    }
}

/// The `state` block, as meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// What the sidecar keeps for itself.
    pub dir: PathBuf,
    /// What applications may read.
    pub public: PathBuf,
    /// Where keys and answers are kept.
    pub journal: Journal,
    /// The secret that derives keys; `None`: made once in `dir`.
    pub secret_file: Option<PathBuf>,
    /// What a kept answer survives.
    pub durability: Durability,
    /// Bytes of answers kept in all.
    pub max_size: u64,
    /// Bytes of all requests together that are kept in memory for sending them again.
    pub held_memory: u64,
    /// The same in files.
    pub held_disk: u64,
    /// Bytes of answers kept in memory too, where they are kept on disk.
    pub hot_memory: u64,
    /// How long the ledger shows an exchange whose key is free.
    pub keep_ledger: Duration,
}

/// Where keys and answers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journal {
    /// In `state.dir`.
    Disk,
    /// In memory: gone with the process.
    Memory,
}

impl Words for Journal {
    const WORDS: &'static [(&'static str, Self)] =
        &[("disk", Self::Disk), ("memory", Self::Memory)];
}

impl Words for Durability {
    const WORDS: &'static [(&'static str, Self)] =
        &[("process", Self::Process), ("power", Self::Power)];
}

impl StateBlock {
    /// As meant.
    pub(super) fn meant(&self) -> State {
        State {
            dir: self.dir.clone(),
            public: self.public.clone().unwrap_or_else(|| self.dir.join("public")),
            journal: self.journal.0,
            secret_file: self.secret_file.clone(),
            durability: self.durability.0,
            max_size: self.max_size.bytes(),
            held_memory: self.held_memory.bytes(),
            held_disk: self.held_disk.bytes(),
            hot_memory: self.hot_memory.bytes(),
            keep_ledger: self.keep_ledger.duration(),
        }
    }
}
