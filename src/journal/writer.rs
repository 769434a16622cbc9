//! The one thread that writes: takes what waits, commits it together, then answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use tokio::time::Instant;

use crate::journal::{Books, Delta, Fault, OpenFault};

/// Something to be done in a commit.
pub(super) trait Job: Send {
    /// Does it; again from the start, where the commit that it was in failed.
    fn run(&mut self, connection: &Connection, delta: &mut Delta) -> rusqlite::Result<()>;

    /// Tells whoever waits how that went.
    fn tell(self: Box<Self>, fault: Option<Fault>);
}

/// An operation, what it came to, and what is done with that.
pub(super) struct Work<T, F, G> {
    act: F,
    value: Option<T>,
    tell: G,
}

impl<T, F, G> Work<T, F, G> {
    pub(super) fn new(act: F, tell: G) -> Self {
        Self { act, value: None, tell }
    }
}

impl<T, F, G> Job for Work<T, F, G>
where
    T: Send,
    F: FnMut(&Connection, &mut Delta) -> rusqlite::Result<T> + Send,
    G: FnOnce(Result<T, Fault>) + Send,
{
    fn run(&mut self, connection: &Connection, delta: &mut Delta) -> rusqlite::Result<()> {
        self.value = Some((self.act)(connection, delta)?);
        Ok(())
    }

    fn tell(self: Box<Self>, fault: Option<Fault>) {
        let Self { value, tell, .. } = *self;
        tell(fault.map_or_else(|| value.ok_or(Fault::Unwritable), Err));
    }
}

/// Starts the thread; it ends when nobody can ask any more.
pub(super) fn start(
    connection: Connection,
    waiting: Receiver<Box<dyn Job>>,
    queued: Arc<AtomicU64>,
    books: Arc<Books>,
) -> Result<(), OpenFault> {
    let writer = Writer { connection, queued, books, usual: 0 };
    let thread = std::thread::Builder::new().name("journal".to_owned());
    let started = thread.spawn(move || writer.run(&waiting));
    started.map(drop).map_err(OpenFault::Thread)
}

struct Writer {
    connection: Connection,
    queued: Arc<AtomicU64>,
    books: Arc<Books>,
    /// How many were committed together lately.
    usual: usize,
}

impl Writer {
    fn run(mut self, waiting: &Receiver<Box<dyn Job>>) {
        let mut group = Vec::with_capacity(GROUP_MAX);
        while let Ok(first) = waiting.recv() {
            group.push(first);
            self.gather(waiting, &mut group);
            self.usual = group.len();
            self.queued.fetch_sub(group.len() as u64, Ordering::Relaxed);
            self.commit(&mut group);
        }
        // A file that is closed well needs no recovery; one that is not is recovered.
        drop(self.connection.close());
    }

    /// Takes what waits. Where several came together lately, the others are as good as
    /// here: they are waited for, since a commit costs the same for one as for many.
    fn gather(&self, waiting: &Receiver<Box<dyn Job>>, group: &mut Vec<Box<dyn Job>>) {
        let mut until = None;
        while group.len() < GROUP_MAX {
            let next = match waiting.try_recv() {
                Ok(job) => Ok(job),
                Err(_) if group.len() < self.usual => {
                    let now = Instant::now();
                    let left = *until.get_or_insert(now + LINGER_MAX) - now;
                    waiting.recv_timeout(LINGER.min(left))
                }
                Err(_) => return,
            };
            match next {
                Ok(job) => group.push(job),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn commit(&self, group: &mut Vec<Box<dyn Job>>) {
        match self.together(group) {
            Ok(()) => group.drain(..).for_each(|job| job.tell(None)),
            // Perhaps one of them spoilt it for all: each has a commit of its own, so that
            // what frees room still succeeds where there is none.
            Err(_) if group.len() > 1 => {
                for job in group.drain(..) {
                    let mut alone = [job];
                    let fault = self.together(&mut alone).err();
                    let [job] = alone;
                    job.tell(fault);
                }
            }
            Err(fault) => group.drain(..).for_each(|job| job.tell(Some(fault))),
        }
    }

    fn together(&self, group: &mut [Box<dyn Job>]) -> Result<(), Fault> {
        let mut delta = Delta::default();
        let done = self.transaction(group, &mut delta);
        if let Err(error) = &done {
            if !self.connection.is_autocommit() {
                // Where it cannot be undone, it is undone when the file is next opened.
                drop(self.connection.execute_batch("ROLLBACK"));
            }
            tracing::debug!(%error, "a commit of the journal failed");
        }
        done.map_err(|error| fault(&error))?;
        self.books.add(delta);
        self.books.commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn transaction(&self, group: &mut [Box<dyn Job>], delta: &mut Delta) -> rusqlite::Result<()> {
        let connection = &self.connection;
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        for job in group {
            job.run(connection, delta)?;
        }
        if delta.keys != 0 || delta.loose != 0 || delta.answers != 0 {
            connection
                .prepare_cached(
                    "UPDATE books SET keys = keys + ?1, loose = loose + ?2, answers = answers + ?3",
                )?
                .execute([delta.keys, delta.loose, delta.answers])?;
        }
        connection.prepare_cached("COMMIT")?.execute([]).map(drop)
    }
}

fn fault(error: &rusqlite::Error) -> Fault {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Fault::Full,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Fault::Damaged,
        _ => Fault::Unwritable,
    }
}

/// `design.md` asks for at most 64 operations, or two milliseconds, a commit.
const GROUP_MAX: usize = 64;
/// How long the first of a group waits for all others together.
const LINGER_MAX: Duration = Duration::from_millis(2);
/// How long one is waited for that came together with others lately.
const LINGER: Duration = Duration::from_micros(200);
