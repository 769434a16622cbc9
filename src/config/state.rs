//! The file's `state`: what is kept, where, and how much of it.

use std::path::PathBuf;
use std::time::Duration;

use schemars::json_schema;

use crate::config::leaf::{
    Count, DAY, GIB, HOUR, MIB, SECOND, SIZE_MAX, Size, Span, Word, Words, form,
};
use crate::config::reading::{Reading, Written, block};
use crate::config::tree::{Node, Value};
use crate::idempotency::lookup;
use crate::idempotency::store::redis::Address;
use crate::idempotency::store::shared::OnFailure;
use crate::journal::Durability;
use crate::poll;

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
        /// Jobs whose last answer is remembered for polls that come later.
        // Far more than one application waits for at one time.
        polled_jobs: Count<1, 1_000_000> = Count(10_000),
        /// Bytes of those answers; past either the oldest is forgotten.
        // Enough for 10,000 answers of the size that job APIs give.
        polled_memory: Size<1, SIZE_MAX> = Size::of(16 * MIB),
        /// Keys that providers are asked for in the background, where a route has a `lookup`.
        followed_lookups: Count<1, 1_000_000> = Count(1000),
        /// How many of them at one time.
        lookup_turns: Count<1, 1000> = Count(16),
        /// Credentials that are held back for want of credit at one time, and balances that
        /// are known; past it nothing is held back or asked for.
        credit_accounts: Count<1, 1_000_000> = Count(16_384),
        /// How long the ledger shows an exchange whose key is free, or was forgotten.
        keep_ledger: Span<{ 60 * SECOND }, { 3650 * DAY }> = Span::of(90 * DAY),
        /// A store that replicas share; null: this one is alone.
        shared: Option<SharedBlock> = None,
    }
}

block! {
    /// A Redis or Valkey that replicas share.
    SharedBlock {
        /// Where it is: redis://, rediss://, redis+sentinel://, redis+cluster://.
        url: Option<Url> = None,
        /// What is done for client and derived keys while it is away.
        on_failure: Word<OnFailure> = Word(OnFailure::Refuse),
        /// How long a claim outlives the last word of the replica that holds it.
        lease: Span<SECOND, HOUR> = Span::of(15 * SECOND),
        /// How many replicas of Redis must have a reservation before it counts.
        wait_replicas: Count<0, 16> = Count(0),
    }
}

/// A URL that may hold a password: a fault does not repeat it.
#[derive(Clone, Debug)]
pub(super) struct Url(Address);

form!([] Url, self => self.0.to_string(), json_schema!({ "type": "string" }));

impl Written for Url {
    fn fresh(node: &Node, at: &str, reading: &mut Reading<'_>) -> Option<Self> {
        let read = match &node.value {
            Value::Text(text) => Address::parse(text),
            _ => Err("text".to_owned()),
        };
        match read {
            Ok(address) => Some(Self(address)),
            Err(wish) => {
                reading.fault(at, format!("must be {wish}"));
                None
            }
        }
    }
}

impl Words for OnFailure {
    const WORDS: &'static [(&'static str, Self)] =
        &[("refuse", Self::Refuse), ("forward", Self::Forward)];
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
    /// What is remembered of the jobs that polls ask about.
    pub polls: poll::Most,
    /// How much is asked for in the background.
    pub lookups: lookup::Most,
    /// Credentials held back at one time, and balances known.
    pub credit_accounts: usize,
    /// How long the ledger shows an exchange whose key is free.
    pub keep_ledger: Duration,
    /// What replicas share.
    pub shared: Option<Shared>,
}

/// The `state.shared` block, as meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Where it is.
    pub address: Address,
    /// What is done for client and derived keys while it is away.
    pub on_failure: OnFailure,
    /// How long a claim outlives the last word of the replica that holds it.
    pub lease: Duration,
    /// How many replicas of Redis must have a reservation before it counts.
    pub wait_replicas: u32,
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
    pub(super) fn meant(&self, reading: &mut Reading<'_>) -> State {
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
            polls: poll::Most { jobs: self.polled_jobs.size(), bytes: self.polled_memory.bytes() },
            lookups: lookup::Most {
                followed: self.followed_lookups.size(),
                turns: self.lookup_turns.size(),
            },
            credit_accounts: self.credit_accounts.size(),
            keep_ledger: self.keep_ledger.duration(),
            shared: self.shared.as_ref().and_then(|shared| shared.meant(reading)),
        }
    }
}

impl SharedBlock {
    /// As meant; `None`: it was refused.
    fn meant(&self, reading: &mut Reading<'_>) -> Option<Shared> {
        let Some(url) = &self.url else {
            reading.miss("state.shared.url", "must be given, such as redis://127.0.0.1:6379");
            return None;
        };
        Some(Shared {
            address: url.0.clone(),
            on_failure: self.on_failure.0,
            lease: self.lease.duration(),
            wait_replicas: self.wait_replicas.0,
        })
    }
}
