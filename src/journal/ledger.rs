//! What was tried, to be read: the rows of the journal, newest first.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags, Row as Columns, ToSql, params};
use serde_json::Value;

use crate::journal::captured::needle;
pub use crate::journal::captured::{captured, captured_text};
use crate::journal::row::{NewRow, State, key_hash, signed};
use crate::journal::sweep::thin;
use crate::journal::{Fault, Journal};

/// One exchange, as the ledger shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The first part of its name.
    pub seq: u64,
    /// The second part.
    pub instance: u32,
    /// The name of the route.
    pub route: String,
    /// The method.
    pub method: String,
    /// The URL without its query's values.
    pub url: String,
    /// The key as it went upstream.
    pub key: Option<String>,
    /// What has become of it.
    pub state: State,
    /// Its attempts, in order.
    pub attempts: Vec<Attempt>,
    /// The last status.
    pub status: Option<u16>,
    /// Ids that were taken from the request and its answer.
    pub captured: Vec<(String, String)>,
    /// When it began, in microseconds since 1970.
    pub began: i64,
    /// When it ended.
    pub ended: Option<i64>,
}

impl Entry {
    /// An exchange as it begins.
    pub fn of(row: NewRow) -> Self {
        Self {
            seq: row.seq,
            instance: row.instance,
            route: row.route,
            method: row.method,
            url: row.url,
            key: (!row.key.is_empty()).then_some(row.key),
            state: State::InFlight,
            attempts: Vec::new(),
            status: None,
            captured: row.captured.as_deref().map(captured).unwrap_or_default(),
            began: row.began.wall,
            ended: None,
        }
    }
}

impl From<Note> for Entry {
    fn from(note: Note) -> Self {
        Self {
            state: note.state,
            status: note.status,
            attempts: attempts(&note.attempts),
            captured: note.captured.as_deref().map(captured).unwrap_or_default(),
            ended: Some(note.ended),
            ..Self::of(note.row)
        }
    }
}

/// One attempt, as the ledger shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The word of its outcome.
    pub outcome: String,
    /// Its status, where one came.
    pub status: Option<u16>,
    /// How long was waited before it, in milliseconds.
    pub wait_ms: u64,
    /// When it began, in microseconds since 1970.
    pub at: i64,
}

/// Which entries are wanted, newest first.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this route alone.
    pub route: Option<String>,
    /// With this key alone.
    pub key: Option<String>,
    /// In this state alone.
    pub state: Option<State>,
    /// With this id alone: its name and its value.
    pub captured: Option<(String, String)>,
    /// Older than the one that this is the first part of the name of.
    pub before: Option<u64>,
    /// At most so many.
    pub limit: u32,
}

impl Filter {
    /// Whether it wants an entry.
    pub fn wants(&self, entry: &Entry) -> bool {
        self.before.is_none_or(|before| entry.seq < before)
            && self.route.as_ref().is_none_or(|route| *route == entry.route)
            && self.state.is_none_or(|state| state == entry.state)
            && self.key.as_ref().is_none_or(|key| Some(key) == entry.key.as_ref())
            && self.captured.as_ref().is_none_or(|id| entry.captured.contains(id))
    }
}

/// Reads the file beside whoever writes it.
#[derive(Clone, Debug)]
pub struct Readers(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    file: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

/// An exchange that held no claim, as it ended.
#[derive(Clone, Debug)]
pub struct Note {
    /// What it was; its key may be empty.
    pub row: NewRow,
    /// What has become of it.
    pub state: State,
    /// The last status.
    pub status: Option<u16>,
    /// The attempts: JSON arrays, parted by commas.
    pub attempts: String,
    /// Ids that were taken from the request and its answer: a JSON object.
    pub captured: Option<String>,
    /// When it ended, in microseconds since 1970.
    pub ended: i64,
}

impl Journal {
    /// Notes an exchange that held no claim; nobody waits for it. Where the journal
    /// cannot keep up it is left out, and false is returned.
    pub fn note(&self, note: Note) -> bool {
        if self.waiting() >= NOTES_MAX {
            return false;
        }
        let (now, ledger, most) = (self.now(), self.0.options.ledger_micros, self.loose_max());
        self.post(move |connection, delta| {
            let row = &note.row;
            let key = (!row.key.is_empty()).then_some(&row.key);
            let hash = key.map(|key| key_hash(key));
            let noted = connection
                .prepare_cached(
                    "INSERT OR IGNORE INTO exchanges (seq, instance, key, key_hash, holds, epoch, state, route,
                                            method, url, attempts, status, began_at, began_boot,
                                            began_up, ended_at, ended_boot, ended_up, gone_at, captured)
                     VALUES (?1, ?2, ?3, ?4, 0, 0, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14,
                             ?15, ?16, ?17, ?18)",
                )?
                .execute(params![
                    signed(row.seq),
                    row.instance,
                    key,
                    hash,
                    note.state,
                    row.route,
                    row.method,
                    row.url,
                    note.attempts,
                    note.status,
                    row.began.wall,
                    row.began.boot,
                    row.began.up,
                    now.wall,
                    now.boot,
                    now.up,
                    now.wall.saturating_add(ledger),
                    note.captured,
                ])?;
            delta.loose += i64::try_from(noted).unwrap_or(0);
            thin(connection, most, delta)
        });
        true
    }

    /// The entries that `filter` wants.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when they cannot be read.
    pub async fn list(&self, filter: Filter) -> Result<Vec<Entry>, Fault> {
        self.read(move |connection| list(connection, &filter)).await
    }

    /// One entry, by the parts of its name.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when it cannot be read.
    pub async fn show(&self, seq: u64, instance: u32) -> Result<Option<Entry>, Fault> {
        self.read(move |connection| show(connection, seq, instance)).await
    }

    /// The first part of the newest name in the file: names go on from there, whatever
    /// the clock says.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when it cannot be read.
    pub async fn newest(&self) -> Result<(u64, u64), Fault> {
        self.submit(|connection, _delta| {
            connection.query_row(
                "SELECT coalesce(max(seq), 0), coalesce((SELECT max(epoch) FROM exchanges
                        WHERE state IN (0, 2)), 0) FROM exchanges",
                [],
                |row| {
                    let (seq, epoch): (i64, i64) = (row.get(0)?, row.get(1)?);
                    Ok((seq.cast_unsigned(), epoch.cast_unsigned()))
                },
            )
        })
        .await
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        // What was noted a moment ago is to be seen.
        self.flush().await?;
        self.read_as_it_is(read).await
    }

    /// As of the last commit.
    pub(super) async fn read_as_it_is<T: Send + 'static>(
        &self,
        read: impl FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let pool = self.0.readers.0.clone();
        let reading = tokio::task::spawn_blocking(move || pool.read(read)).await;
        reading.map_or(Err(Fault::Unwritable), |read| read.map_err(|_error| Fault::Unwritable))
    }
}

impl Readers {
    pub(super) fn of(file: PathBuf) -> Self {
        Self(Arc::new(Pool { file, idle: Mutex::default() }))
    }

    /// Gives up the connections that wait to be used again: the last one to close the
    /// file brings its log back into it.
    pub(super) fn close(&self) {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Pool {
    fn read<T>(
        &self,
        mut read: impl FnMut(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = idle.map_or_else(|| open(&self.file), Ok)?;
        let read = read(&connection);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
        read
    }
}

/// Opens a journal's file to be read, whether or not anybody writes it.
///
/// # Errors
///
/// When it cannot be opened, or is no journal.
pub fn open(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(connection)
}

/// The entries that `filter` wants.
///
/// # Errors
///
/// When they cannot be read.
pub fn list(connection: &Connection, filter: &Filter) -> rusqlite::Result<Vec<Entry>> {
    let before = filter.before.map_or(i64::MAX, signed);
    let mut wanted = vec!["seq < ?1".to_owned()];
    let mut values: Vec<Box<dyn ToSql>> = vec![Box::new(before), Box::new(filter.limit)];
    if let Some(route) = &filter.route {
        values.push(Box::new(route.clone()));
        wanted.push(format!("route = ?{}", values.len()));
    }
    if let Some(key) = &filter.key {
        values.push(Box::new(key_hash(key)));
        values.push(Box::new(key.clone()));
        let nth = values.len();
        wanted.push(format!("key_hash = ?{} AND key = ?{nth}", nth - 1));
    }
    if let Some((name, value)) = &filter.captured {
        values.push(Box::new(needle(name, value)));
        wanted.push(format!("instr(captured, ?{}) > 0", values.len()));
    }
    match filter.state {
        None => {}
        // Written out, so that the index of those alone serves.
        Some(State::InFlight) => wanted.push("state = 0".to_owned()),
        Some(State::Unknown) => wanted.push("state = 2".to_owned()),
        Some(state @ (State::Completed | State::Released | State::Failed)) => {
            values.push(Box::new(state));
            wanted.push(format!("state = ?{}", values.len()));
        }
    }
    let wanted = wanted.join(" AND ");
    let query =
        format!("SELECT {COLUMNS} FROM exchanges WHERE {wanted} ORDER BY seq DESC LIMIT ?2");
    let mut statement = connection.prepare(&query)?;
    let rows = statement.query_map(rusqlite::params_from_iter(values), entry)?;
    rows.collect()
}

/// One entry, by the parts of its name.
///
/// # Errors
///
/// When it cannot be read.
pub fn show(connection: &Connection, seq: u64, instance: u32) -> rusqlite::Result<Option<Entry>> {
    let query = format!("SELECT {COLUMNS} FROM exchanges WHERE seq = ?1 AND instance = ?2");
    let mut statement = connection.prepare(&query)?;
    let mut rows = statement.query_map(params![signed(seq), instance], entry)?;
    rows.next().transpose()
}

fn entry(row: &Columns<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        seq: row.get::<_, i64>(0)?.cast_unsigned(),
        instance: row.get(1)?,
        route: row.get(2)?,
        method: row.get(3)?,
        url: row.get(4)?,
        key: row.get(5)?,
        state: row.get(6)?,
        attempts: attempts(&row.get::<_, Option<String>>(7)?.unwrap_or_default()),
        status: row.get(8)?,
        captured: captured(&row.get::<_, Option<String>>(9)?.unwrap_or_default()),
        began: row.get(10)?,
        ended: row.get(11)?,
    })
}

/// What [`Settle::attempts`](super::key::Settle) and [`Note::attempts`] hold.
pub fn attempts(text: &str) -> Vec<Attempt> {
    let all: Vec<Value> = serde_json::from_str(&format!("[{text}]")).unwrap_or_default();
    let read = |value: &Value| {
        Some(Attempt {
            outcome: value.get(0)?.as_str()?.to_owned(),
            status: value.get(1)?.as_u64().and_then(|status| status.try_into().ok()),
            wait_ms: value.get(2)?.as_u64()?,
            at: value.get(3)?.as_i64()?,
        })
    };
    all.iter().filter_map(read).collect()
}

/// An attempt as it stands in a row.
pub fn written(attempt: &Attempt) -> String {
    let Attempt { outcome, status, wait_ms, at } = attempt;
    serde_json::json!([outcome, status, wait_ms, at]).to_string()
}

const COLUMNS: &str = "seq, instance, route, method, url, key, state, attempts, status, captured, \
                       began_at, ended_at";
/// Callers of the admin side are few.
const IDLE_MAX: usize = 2;
/// Notes that wait to be written; keys are claimed before them.
pub(super) const NOTES_MAX: usize = 16_384;
