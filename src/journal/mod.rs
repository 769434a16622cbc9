//! The one file in which keys and answers outlive the process.
//!
//! One thread writes it. What is asked of it while it commits is committed together
//! the next time, so that many exchanges share one commit; whoever asks is answered
//! after the commit, never before. [`claims`] has the transitions of a key, [`key`] its
//! words, [`ledger`] what was tried, to be read, [`deliveries`] what waits for an application;
//! [`schema`] has the tables and what is wrong with
//! a file that cannot be trusted.
//!
//! # Invariants
//!
//! - What a caller was told is committed, and survives the process.
//! - A row that is in flight or unknown, and whose key somebody can ask for, is never
//!   deleted by time.
//! - A file that cannot be trusted is never replaced: it may hold unknowns.
//! - It holds numbers, texts and bytes of others; what they mean is said elsewhere.

pub mod bodies;
mod captured;
mod claims;
pub mod deliveries;
mod held;
pub mod key;
pub mod ledger;
pub mod moment;
pub mod orphans;
mod queue;
pub mod resolve;
pub mod row;
pub mod schema;
mod sweep;
pub mod tally;
pub mod tags;
mod writer;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

pub use bodies::Bodies;
pub use moment::{Clock, Moment};
use queue::{Queue, Urgency};
pub use row::{NewRow, State};
pub use schema::OpenFault;
use schema::Opened;
use writer::{Job, Teller, Work};

/// What a commit survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The end of the process.
    Process,
    /// A power cut.
    Power,
}

/// How a journal is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// In which folder; one process uses it.
    pub folder: PathBuf,
    /// What a commit survives.
    pub durability: Durability,
    /// Bytes of keys and answers together.
    pub bytes_max: u64,
    /// How long a row outlives the key that it was about, in microseconds.
    pub ledger_micros: i64,
    /// What tells the time.
    pub clock: Clock,
}

/// Why the journal did not do what was asked; nothing of it was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.as_str())]
pub enum Fault {
    /// The disk is full.
    Full,
    /// `state.max_size` is used up.
    Crowded,
    /// More waits to be written than may.
    Behind,
    /// The file turned out to be damaged.
    Damaged,
    /// It cannot be written.
    Unwritable,
    /// What replicas share would have to be told as well, and does not answer.
    Away,
}

impl Fault {
    /// What it is, in a clause for whoever has to be told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "the disk with state.dir is full",
            Self::Crowded => "state.max_size is used up",
            Self::Behind => "the journal cannot keep up",
            Self::Damaged => "the journal is damaged",
            Self::Unwritable => "the journal cannot be written",
            Self::Away => "state.shared does not answer",
        }
    }
}

/// A journal that is open; a clone shares it.
#[derive(Clone, Debug)]
pub struct Journal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    jobs: Arc<Queue<Box<dyn Job>>>,
    teller: Arc<Teller>,
    thread: Mutex<Option<JoinHandle<()>>>,
    books: Arc<Books>,
    readers: ledger::Readers,
    bodies: Bodies,
    boot: i64,
    options: Options,
}

/// How much is in it, as of the last commit.
#[derive(Debug, Default)]
pub struct Books {
    /// Rows that close a key.
    keys: AtomicU64,
    /// Rows that close none.
    loose: AtomicU64,
    /// Bytes of answers.
    answers: AtomicU64,
    /// Commits of this process.
    commits: AtomicU64,
}

/// What one operation adds to the books; committed with it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delta {
    pub(crate) keys: i64,
    pub(crate) loose: i64,
    pub(crate) answers: i64,
}

impl Journal {
    /// Opens it, and makes it where there is none.
    ///
    /// Whatever was in flight when the process before ended is unknown from now on;
    /// where the head of a good answer had come, it is answered and not retained.
    ///
    /// # Errors
    ///
    /// An [`OpenFault`]: one line that names the file and what to do.
    pub fn open(options: Options) -> Result<Self, OpenFault> {
        let Opened { connection, boot, delta, readers, bodies } = schema::open(&options)?;
        let books = Arc::new(Books::default());
        books.add(delta);
        let jobs = Arc::new(Queue::new());
        let teller = Arc::new(Teller::default());
        let thread = writer::start(connection, jobs.clone(), (books.clone(), teller.clone()))?;
        let thread = Mutex::new(Some(thread));
        Ok(Self(Arc::new(Inner { jobs, teller, thread, books, readers, bodies, boot, options })))
    }

    /// Tells those who wait in a task of this tracker, which is woken once a commit; until
    /// it is called they are told from the thread that writes.
    pub fn tell_in(&self, tasks: &TaskTracker) {
        if let Some(telling) = self.0.teller.listen() {
            tasks.spawn(telling);
        }
    }

    /// What is in it.
    pub fn books(&self) -> &Books {
        &self.0.books
    }

    /// Where large bodies are kept.
    pub fn bodies(&self) -> &Bodies {
        &self.0.bodies
    }

    /// The time, as rows are dated.
    pub fn now(&self) -> Moment {
        self.0.options.clock.now(self.0.boot)
    }

    /// What still fits, to be asked in an operation.
    pub(crate) fn room(&self) -> Room {
        Room { books: self.0.books.clone(), bytes_max: self.0.options.bytes_max }
    }

    /// Keys and bytes that are kept.
    pub fn size(&self) -> (u64, u64) {
        let books = &self.0.books;
        let keys = books.keys.load(Ordering::Relaxed);
        (keys, keys * ROW_BYTES + books.answers.load(Ordering::Relaxed))
    }

    /// Rows that close no key, at most.
    pub(crate) fn loose_max(&self) -> u64 {
        (self.0.options.bytes_max / LOOSE_SHARE / ROW_BYTES).max(1)
    }

    /// Does `act` in the next commit, and answers after it.
    ///
    /// What `act` does may be done again from the start, where another operation of
    /// the same commit failed.
    ///
    /// # Cancel safety
    ///
    /// It is done whether or not anybody waits for it.
    pub(crate) fn submit<T: Send + 'static>(
        &self,
        act: impl FnMut(&Connection, &mut Delta) -> rusqlite::Result<T> + Send + 'static,
    ) -> Pending<T> {
        self.submit_then(act, |_result| ())
    }

    /// As [`submit`](Self::submit); after the commit, and before anybody hears of it,
    /// `then` is called with what came of it, in the order of the commits.
    pub(crate) fn submit_then<T: Send + 'static>(
        &self,
        act: impl FnMut(&Connection, &mut Delta) -> rusqlite::Result<T> + Send + 'static,
        then: impl FnOnce(&Result<T, Fault>) + Send + 'static,
    ) -> Pending<T> {
        let (tell, told) = oneshot::channel();
        let work = Work::new(act, |result| {
            then(&result);
            drop(tell.send(result)); // whoever waited may have left
        });
        self.0.jobs.push(Box::new(work), Urgency::Now);
        Box::pin(heard(told))
    }

    /// As [`submit`](Self::submit), where there is room in the queue.
    pub(crate) fn submit_if_room<T: Send + 'static>(
        &self,
        act: impl FnMut(&Connection, &mut Delta) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<Pending<T>, Fault> {
        if self.0.jobs.len() >= QUEUE_MAX {
            return Err(Fault::Behind);
        }
        Ok(self.submit(act))
    }

    /// Returns once all that was handed over before is committed.
    ///
    /// # Errors
    ///
    /// A [`Fault`] where nothing can be committed.
    pub async fn flush(&self) -> Result<(), Fault> {
        self.0.jobs.hurry();
        self.submit(|_connection, _delta| Ok(())).await
    }

    /// Does `act` in some commit to come, soon; nobody waits for it.
    pub(crate) fn post(
        &self,
        act: impl FnMut(&Connection, &mut Delta) -> rusqlite::Result<()> + Send + 'static,
    ) {
        self.0.jobs.push(Box::new(Work::new(act, drop)), Urgency::Later);
    }

    /// As [`post`](Self::post), where it may be needless in a moment.
    pub(crate) fn put_off(
        &self,
        act: impl FnMut(&Connection, &mut Delta) -> rusqlite::Result<()> + Send + 'static,
    ) {
        self.0.jobs.put_off(Box::new(Work::new(act, drop)));
    }

    /// Writes what waits, brings the log back into the file, and closes it. Nothing is
    /// written after that. It takes as long as the disk does: whoever calls it sets a limit.
    pub async fn close(&self) {
        self.0.jobs.close();
        self.0.readers.close();
        let thread = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(tokio::task::spawn_blocking(move || thread.map(JoinHandle::join)).await);
    }

    /// How many operations wait.
    pub(crate) fn waiting(&self) -> usize {
        self.0.jobs.len()
    }
}

impl Drop for Inner {
    /// Nobody can ask any more: the thread ends once it has written what waits.
    fn drop(&mut self) {
        self.jobs.close();
    }
}

impl Books {
    /// Commits of this process so far; what they wrote can be read.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Acquire)
    }

    /// Rows that close no key: what only the ledger is for.
    pub fn loose(&self) -> u64 {
        self.loose.load(Ordering::Relaxed)
    }

    fn add(&self, delta: Delta) {
        let add = |count: &AtomicU64, change: i64| {
            count.fetch_add(change.cast_unsigned(), Ordering::Relaxed); // wraps to a subtraction
        };
        add(&self.keys, delta.keys);
        add(&self.loose, delta.loose);
        add(&self.answers, delta.answers);
    }
}

/// An operation that was handed to the writer; it is done whether or not this is polled.
pub type Pending<T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send>>;

/// What still fits.
pub(crate) struct Room {
    books: Arc<Books>,
    bytes_max: u64,
}

impl Room {
    /// Whether another key, or an answer of so many bytes, fits beside what `delta` adds.
    pub(crate) fn fits(&self, delta: &Delta, share: Share, bytes: u64) -> bool {
        let with = |count: &AtomicU64, change: i64| {
            count.load(Ordering::Relaxed).saturating_add_signed(change)
        };
        let keys = with(&self.books.keys, delta.keys).saturating_mul(ROW_BYTES);
        let used = keys.saturating_add(with(&self.books.answers, delta.answers));
        let most = match share {
            Share::Keys => self.bytes_max,
            // The last part is for keys alone: a journal full of answers still takes them.
            Share::Answers => self.bytes_max - self.bytes_max / KEYS_SHARE,
        };
        used.saturating_add(bytes) <= most
    }
}

/// What room is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    Keys,
    Answers,
}

/// Under a paused clock, time must not jump while the thread works: a blocking task
/// holds it.
#[cfg(test)]
async fn heard<T: Send + 'static>(told: oneshot::Receiver<Result<T, Fault>>) -> Result<T, Fault> {
    let told = tokio::task::spawn_blocking(move || told.blocking_recv()).await;
    told.expect("it does not panic").unwrap_or(Err(Fault::Unwritable))
}

#[cfg(not(test))]
async fn heard<T: Send + 'static>(told: oneshot::Receiver<Result<T, Fault>>) -> Result<T, Fault> {
    told.await.unwrap_or(Err(Fault::Unwritable))
}

/// An eighth of the room is kept for keys.
const KEYS_SHARE: u64 = 8;
/// Rows that close no key may take a quarter as much again.
const LOOSE_SHARE: u64 = 4;
/// What a row costs, its place in the indexes included: measured with a URL of 100
/// characters, and rounded up.
pub(crate) const ROW_BYTES: u64 = 512;
/// Claims that wait to be written; each has a client that waits for it.
const QUEUE_MAX: usize = 65_536;

#[cfg(test)]
pub(crate) mod tests;
