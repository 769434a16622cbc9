//! Stores that the tests make, and what they ask of them.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::*;
use crate::journal::moment::micros;
use crate::journal::{Clock, Durability, Options};
use crate::metrics::Metrics;

/// Makes an empty store that holds so many bytes.
pub(super) type Make = fn(u64) -> Made;

/// A store, and what goes with it.
pub(super) struct Made {
    pub(super) store: Store,
    pub(super) folder: Option<tempfile::TempDir>,
    pub(super) clock: Clock,
    /// A second, or what stands for one where time cannot be advanced.
    pub(super) second: Duration,
    /// Where goes on what nobody waits for.
    pub(super) tasks: TaskTracker,
}

impl Made {
    /// Lets that much time pass.
    pub(super) async fn pass(&self, time: Duration) {
        if self.second == SECOND {
            tokio::time::advance(time).await;
        } else {
            tokio::time::sleep(time).await;
        }
    }
}

impl Made {
    /// Goes on with what a `kill -9` leaves on the disk. Whoever held a claim holds it in
    /// a process that is no more.
    pub(super) async fn kill(&mut self) {
        self.settle_down().await;
        let folder = tempfile::tempdir().expect("a folder");
        let before = self.folder.as_ref().expect("it is on disk").path().join("journal");
        crate::journal::tests::copy(&before, &folder.path().join("journal"));
        let journal = journal(folder.path(), ROOMY, self.clock);
        let (_, epoch) = journal.newest().await.expect("it works");
        self.store = Store::Disk(Disk::new(journal, 1 << 20, epoch, Metrics::new()));
        self.folder = Some(folder);
    }
}

impl std::ops::Deref for Made {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

/// The clock that the tests advance.
fn clock() -> Clock {
    Clock::Steady(Moment { wall: 1 << 50, boot: 1, up: 1 << 40 }, Instant::now())
}

pub(super) fn in_memory(bytes_max: u64) -> Made {
    let clock = clock();
    let store = Store::Memory(Memory::new(bytes_max, clock));
    Made { store, folder: None, clock, second: SECOND, tasks: TaskTracker::new() }
}

pub(super) fn on_disk(bytes_max: u64) -> Made {
    let (folder, clock) = (tempfile::tempdir().expect("a folder"), clock());
    let journal = journal(folder.path(), bytes_max, clock);
    let store = Store::Disk(Disk::new(journal, 1 << 20, 0, Metrics::new()));
    Made { store, folder: Some(folder), clock, second: SECOND, tasks: TaskTracker::new() }
}

/// As [`on_disk`], with nothing in memory: every answer is read from the file.
pub(super) fn cold(bytes_max: u64) -> Made {
    let (folder, clock) = (tempfile::tempdir().expect("a folder"), clock());
    let journal = journal(folder.path(), bytes_max, clock);
    let store = Store::Disk(Disk::new(journal, 0, 0, Metrics::new()));
    Made { store, folder: Some(folder), clock, second: SECOND, tasks: TaskTracker::new() }
}

fn journal(folder: &std::path::Path, bytes_max: u64, clock: Clock) -> Journal {
    let journal = Journal::open(Options {
        folder: folder.join("journal"),
        durability: Durability::Process,
        bytes_max,
        ledger_micros: micros(KEEP_KEY),
        clock,
    });
    journal.expect("it is opened")
}

impl Made {
    /// Waits until all is done that nobody waits for.
    pub(super) async fn settle_down(&self) {
        self.flush().await;
        while !self.tasks.is_empty() {
            tokio::task::yield_now().await;
        }
    }

    /// Drops a claim on its way, and waits until that is known everywhere.
    pub(super) async fn abandon(&self, claim: Claim) {
        drop(claim);
        self.settle_down().await;
    }
}

impl Store {
    pub(super) async fn swept(&self) {
        self.sweep().await.expect("it is swept");
    }
}

pub(super) const ROOMY: u64 = 1 << 30;
pub(super) const TTL: Duration = Duration::from_hours(24);
pub(super) const KEEP_KEY: Duration = Duration::from_hours(90 * 24);
pub(super) const TICK: Duration = Duration::from_micros(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn id(n: u8) -> RecordId {
    RecordId([n; 32])
}

pub(super) fn print(n: u8) -> Fingerprint {
    Fingerprint([n; 32])
}

/// Another exchange with every call.
pub(super) fn exchange() -> ExchangeId {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    ExchangeId::from_parts(NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed), 7)
}

/// A new exchange that asks for a key.
pub(super) fn asked(n: u8, fingerprint: Option<Fingerprint>) -> Asked {
    Asked {
        id: id(n),
        key: Key::parse(format!("key-{n}").as_bytes()).expect("a key"),
        fingerprint,
        exchange: exchange(),
        scope: None,
        tag: None,
        about: About {
            route: "r".to_owned(),
            method: Method::POST,
            captured: Vec::new(),
            url: "https://a.test/v1/jobs".to_owned(),
        },
    }
}

pub(super) fn record(text: &'static str) -> Record {
    Record::new(StatusCode::CREATED, &HeaderMap::new(), Bytes::from_static(text.as_bytes()))
}

pub(super) fn settlement(end: End) -> Settlement {
    let answer = record("{\"id\":1}");
    Settlement {
        end,
        stays: end != End::Released,
        record: (end == End::Completed).then(|| answer.clone()),
        captured: vec![("job".to_owned(), "j-1".to_owned())],
        told: Told::Answer(answer),
        ttl: TTL,
        keep_key: KEEP_KEY,
        attempts: Vec::new(),
    }
}
