//! The one thread that writes: takes what waits, commits it together, then answers.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use rusqlite::{Connection, ErrorCode};
use tokio::sync::mpsc;

use crate::journal::queue::Queue;
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

/// A job that is over, and how it went.
type Over = (Box<dyn Job>, Option<Fault>);

/// Where those who wait are told: in the runtime, once somebody there offered to.
///
/// Told from the writer's thread, each of them would wake the runtime by itself; told
/// there, a commit wakes it once.
#[derive(Debug, Default)]
pub(super) struct Teller(OnceLock<mpsc::UnboundedSender<Vec<Over>>>);

impl Teller {
    /// Tells in this task from now on; it ends with the last handle to the journal.
    pub(super) fn listen(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let (over, mut told) = mpsc::unbounded_channel();
        self.0.set(over).ok()?;
        Some(async move {
            while let Some(group) = told.recv().await {
                tell(group);
            }
        })
    }

    fn tell(&self, group: Vec<Over>) {
        let unheard = match self.0.get() {
            None => group,
            Some(over) => match over.send(group) {
                Ok(()) => return,
                Err(mpsc::error::SendError(group)) => group, // that runtime has ended
            },
        };
        tell(unheard);
    }
}

fn tell(group: Vec<Over>) {
    for (job, fault) in group {
        job.tell(fault);
    }
}

/// Starts the thread; it ends when nobody can ask any more.
pub(super) fn start(
    connection: Connection,
    waiting: Arc<Queue<Box<dyn Job>>>,
    (books, teller): (Arc<Books>, Arc<Teller>),
) -> Result<JoinHandle<()>, OpenFault> {
    let writer = Writer { connection, books, teller };
    let thread = std::thread::Builder::new().name("journal".to_owned());
    thread.spawn(move || writer.run(&waiting)).map_err(OpenFault::Thread)
}

struct Writer {
    connection: Connection,
    books: Arc<Books>,
    teller: Arc<Teller>,
}

impl Writer {
    fn run(self, waiting: &Queue<Box<dyn Job>>) {
        let mut usual = 0;
        while let Some(group) = waiting.take(usual) {
            usual = group.len();
            self.teller.tell(self.commit(group));
        }
        // A file that is closed well needs no recovery; one that is not is recovered.
        drop(self.connection.close());
    }

    fn commit(&self, mut group: Vec<Box<dyn Job>>) -> Vec<Over> {
        match self.together(&mut group) {
            Ok(()) => group.into_iter().map(|job| (job, None)).collect(),
            // Perhaps one of them spoilt it for all: each has a commit of its own, so that
            // what frees room still succeeds where there is none.
            Err(_) if group.len() > 1 => {
                let alone = group.into_iter().map(|job| {
                    let mut alone = [job];
                    let fault = self.together(&mut alone).err();
                    let [job] = alone;
                    (job, fault)
                });
                alone.collect()
            }
            Err(fault) => group.into_iter().map(|job| (job, Some(fault))).collect(),
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
        self.books.commits.fetch_add(1, Ordering::Release);
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
