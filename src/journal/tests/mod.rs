//! A journal in a folder of its own, and what is tried on it.

mod books;
mod captured;
mod clock;
mod deliveries;
mod group;
mod queue;
mod recovery;
mod sweep;
mod tally;
mod thin;
mod transitions;

use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use super::bodies::Hash;
use super::key::{Answer, At, Done, Found, Open, Reserve, Settle, Settled, Soon};
use super::ledger::{Entry, Note};
use super::schema::FILE;
use super::*;

/// An open journal, its folder, and those that it was before.
pub(super) struct Scene {
    pub(super) journal: Journal,
    pub(super) folder: PathBuf,
    kept: Vec<(TempDir, Option<Journal>)>,
}

impl Scene {
    pub(super) fn new() -> Self {
        Self::of(1 << 30)
    }

    pub(super) fn of(bytes_max: u64) -> Self {
        let kept = tempfile::tempdir().expect("a folder");
        let folder = kept.path().join("journal");
        let journal = open(&folder, bytes_max, START);
        Self { journal, folder, kept: vec![(kept, None)] }
    }

    /// Goes on with what a `kill -9` leaves of it, at `now`.
    pub(super) async fn killed(mut self, now: Moment) -> Self {
        self.written().await;
        let kept = tempfile::tempdir().expect("a folder");
        let folder = kept.path().join("journal");
        copy(&self.folder, &folder);
        let journal = open(&folder, self.journal.0.options.bytes_max, now);
        // Closed, the one before would write its log back; it is as good as dead.
        let before = std::mem::replace(&mut self.journal, journal);
        self.kept.push((kept, Some(before)));
        Self { folder, ..self }
    }

    /// Waits until all that was handed over is written.
    pub(super) async fn written(&self) {
        self.journal.newest().await.expect("it works");
    }

    /// Claims key `n` for exchange `n`, with epoch `n`.
    pub(super) async fn claim(&self, n: u64) {
        let found = self.journal.reserve(reserve(n)).await.expect("there is room");
        assert!(matches!(found, Found::Claimed), "{found:?}");
    }

    /// Claims key `n`, and ends it like this.
    pub(super) async fn ended(&self, n: u64, settle: Settle) {
        self.claim(n).await;
        self.end(n, settle).await;
    }

    pub(super) async fn end(&self, n: u64, settle: Settle) {
        let settled = self.journal.settle(n, n, settle).await.expect("it is written");
        assert_ne!(settled, Settled::Late);
    }

    /// What exchange `by` is told of key `n`.
    pub(super) async fn found(&self, n: u64, by: u64) -> Found {
        let asked = Reserve { row: row(by, n), epoch: by, ..reserve(n) };
        self.journal.reserve(asked).await.expect("there is room")
    }

    pub(super) async fn completed(&self, n: u64, by: u64) -> Done {
        match self.found(n, by).await {
            Found::Completed(done) => done,
            other => panic!("it was answered: {other:?}"),
        }
    }

    pub(super) async fn unknown(&self, n: u64, by: u64) -> Open {
        match self.found(n, by).await {
            Found::Unknown(open) => open,
            other => panic!("nobody knows: {other:?}"),
        }
    }

    pub(super) async fn is_unknown(&self, n: u64, by: u64) {
        assert_eq!(self.unknown(n, by).await.holder.seq, n);
    }

    pub(super) async fn shown(&self, n: u64) -> Option<Entry> {
        self.journal.show(n, INSTANCE).await.expect("it is read")
    }

    pub(super) async fn state(&self, n: u64) -> Option<State> {
        self.shown(n).await.map(|entry| entry.state)
    }

    /// Another connection to the file, as a reader has it.
    pub(super) fn reader(&self) -> Connection {
        ledger::open(&self.folder.join(FILE)).expect("it is opened")
    }

    pub(super) fn count(&self, of: &str) -> i64 {
        self.reader().query_row(&format!("SELECT {of}"), [], |row| row.get(0)).expect("a number")
    }

    /// What is counted as one goes is what is there.
    pub(super) async fn books_are_true(&self) {
        self.written().await;
        let there = [
            "(SELECT count(*) FROM exchanges WHERE holds = 1) + (SELECT count(*) FROM deliveries)",
            "count(*) FROM exchanges WHERE holds = 0",
            "(SELECT coalesce(sum(size), 0) FROM answers)
             + (SELECT coalesce(sum(size), 0) FROM deliveries)",
        ]
        .map(|of| self.count(of));
        let written = ["keys FROM books", "loose FROM books", "answers FROM books"];
        assert_eq!(written.map(|of| self.count(of)), there);
        let books = self.journal.books();
        let counted = [&books.keys, &books.loose, &books.answers];
        let counted = counted.map(|count| count.load(Ordering::Relaxed).cast_signed());
        assert_eq!(counted, there);
    }

    /// Has the file refuse a change to a table, until it [relents](Self::relent).
    pub(super) async fn refuse(&self, change: &str) {
        let trigger = format!(
            "CREATE TEMP TRIGGER refused BEFORE {change} BEGIN SELECT RAISE(ABORT, 'no'); END"
        );
        let refuse = self.journal.submit(move |file, _| file.execute_batch(&trigger));
        refuse.await.expect("a trigger");
    }

    pub(super) async fn relent(&self) {
        let relent = self.journal.submit(|file, _| file.execute_batch("DROP TRIGGER refused"));
        relent.await.expect("no trigger");
    }

    /// Keeps the writer busy; it goes on when the gate is dropped.
    pub(super) fn busy(&self) -> mpsc::Sender<()> {
        let (gate, closed) = mpsc::channel::<()>();
        let (entered, enters) = mpsc::channel();
        self.journal.post(move |_, _| {
            entered.send(()).unwrap_or_default();
            closed.recv().unwrap_or_default();
            Ok(())
        });
        enters.recv().expect("it gets there");
        gate
    }
}

/// Opens the journal in `folder` at `now`; from then on its clock is steady.
pub(super) fn open(folder: &Path, bytes_max: u64, now: Moment) -> Journal {
    Journal::open(options(folder, bytes_max, now)).expect("it is opened")
}

pub(super) fn options(folder: &Path, bytes_max: u64, now: Moment) -> Options {
    Options {
        folder: folder.to_owned(),
        durability: Durability::Process,
        bytes_max,
        ledger_micros: LEDGER,
        clock: Clock::Steady(now, Instant::now()),
    }
}

/// Copies what is in a folder, but not the index of the log, which a crash loses.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else if !name.to_string_lossy().ends_with("-shm") {
            fs::copy(path, to.join(name)).expect("it is copied");
        }
    }
}

pub(super) fn id(n: u64) -> Hash {
    *blake3::hash(&n.to_be_bytes()).as_bytes()
}

/// Exchange `seq`, which asks for key `n`.
pub(super) fn row(seq: u64, n: u64) -> NewRow {
    NewRow {
        seq,
        instance: INSTANCE,
        key: format!("key-{n}"),
        route: "r".to_owned(),
        method: "POST".to_owned(),
        url: "https://a.test/v1/jobs".to_owned(),
        captured: None,
        began: START,
    }
}

pub(super) fn reserve(n: u64) -> Reserve {
    Reserve {
        row: row(n, n),
        id: id(n),
        epoch: n,
        fingerprint: Some(id(n)),
        scope: None,
        tag: None,
    }
}

pub(super) fn note(seq: u64) -> Note {
    let (state, attempts) = (State::Failed, String::new());
    Note {
        row: row(seq, seq),
        state,
        status: Some(500),
        attempts,
        captured: None,
        ended: START.wall,
    }
}

/// An end in `state`, which closes the key unless it is released.
pub(super) fn settle(state: State) -> Settle {
    Settle {
        state,
        holds: state != State::Released,
        status: Some(201),
        attempts: r#"["done",201,0,1]"#.to_owned(),
        fingerprint: None,
        captured: None,
        answer: None,
        ttl: TTL,
        keep: KEEP,
    }
}

pub(super) fn answered(body: At) -> Settle {
    let answer = Some(Answer { head: b"head".to_vec(), body, size: 1000 });
    Settle { answer, ..settle(State::Completed) }
}

/// Lets that much time pass, where it is paused.
pub(super) async fn pass(micros: i64) {
    tokio::time::advance(Duration::from_micros(micros.unsigned_abs())).await;
}

/// So much later.
pub(super) fn after(moment: Moment, micros: i64) -> Moment {
    Moment { wall: moment.wall + micros, up: moment.up + micros, ..moment }
}

pub(super) const START: Moment = Moment { wall: 1 << 50, boot: 1, up: 1 << 40 };
pub(super) const INSTANCE: u32 = 7;
pub(super) const SECOND: i64 = 1_000_000;
pub(super) const TTL: i64 = 24 * 3600 * SECOND;
pub(super) const KEEP: i64 = 90 * TTL;
pub(super) const LEDGER: i64 = 120 * TTL;
