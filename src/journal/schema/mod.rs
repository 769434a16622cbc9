//! The tables, and what is wrong with a file that cannot be trusted.

mod file;

use std::path::{Path, PathBuf};
use std::{fs, io};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, params};

pub use file::passing;

use crate::journal::ledger::Readers;
use crate::journal::row::State;
use crate::journal::schema::file::{
    is_missing_or_empty, make_file, make_private, refuse_network, whole,
};
use crate::journal::{Bodies, Delta, Durability, Moment, Options};

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenFault {
    /// The file is not what was written. It may hold unknowns, so it is left as it is.
    #[error(
        "{}: the journal is damaged ({why}); nothing was changed. It may hold keys whose outcome \
         is unknown. To begin anew without them, move it aside: mv {folder} {folder}.damaged",
        file.display(),
        folder = quoted(file.parent().unwrap_or(file)),
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It was written by a later version.
    #[error("{}: the journal was written by a later version of samekey (format {found}, this one \
             knows {FORMAT})", file.display())]
    Later {
        /// The file.
        file: PathBuf,
        /// The format that it is in.
        found: i64,
    },
    /// The file system gives no locks and no memory maps that can be relied on.
    #[error("{}: state.dir is on a network file system ({kind}), on which a journal can be \
             damaged; use a local disk, or state.journal: memory", folder.display())]
    Network {
        /// The folder.
        folder: PathBuf,
        /// What it is on.
        kind: &'static str,
    },
    /// The folder or the file cannot be used.
    #[error("{}: {error}; the journal needs a directory that this user may write", path.display())]
    Unusable {
        /// What was tried.
        path: PathBuf,
        /// Why it failed.
        error: io::Error,
    },
    /// The library is older than the first one without a known way to damage a file.
    #[error("SQLite {0} can damage a journal; at least 3.51.3 is wanted")]
    Library(&'static str),
    /// No thread could be started.
    #[error("the journal's thread cannot be started: {0}")]
    Thread(io::Error),
}

/// A journal that was found in order.
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) boot: i64,
    pub(super) delta: Delta,
    pub(super) readers: Readers,
    pub(super) bodies: Bodies,
}

/// Opens it, checks it, brings it up to date, and ends what was under way.
pub(super) fn open(options: &Options) -> Result<Opened, OpenFault> {
    if rusqlite::version_number() < LIBRARY_MIN {
        return Err(OpenFault::Library(rusqlite::version()));
    }
    let folder = &options.folder;
    let (mut connection, file) = open_file(folder, options.durability)?;
    let bodies = Bodies::open(&folder.join(BODIES));
    let bodies = bodies.map_err(|error| unusable(&folder.join(BODIES), error))?;
    let fault = |error: &rusqlite::Error| damaged(&file, error);
    if migrate(&mut connection, &file)? {
        // A file whose log is lost is not to look like one that was never written.
        let written = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_row| Ok(()));
        written.map_err(|error| fault(&error))?;
    }
    let boot = boot(&connection).map_err(|error| fault(&error))?;
    let now = options.clock.now(boot);
    recover(&connection, now).map_err(|error| fault(&error))?;
    let delta = connection
        .query_row("SELECT keys, loose, answers FROM books", [], |row| {
            Ok(Delta { keys: row.get(0)?, loose: row.get(1)?, answers: row.get(2)? })
        })
        .map_err(|error| fault(&error))?;
    let known = |hash: &[u8; 32]| super::bodies::is_filed(&connection, hash);
    bodies.drop_strangers(known).map_err(|error| fault(&error))?;
    let readers = Readers::of(file.clone());
    Ok(Opened { connection, boot, delta, readers, bodies })
}

fn open_file(folder: &Path, durability: Durability) -> Result<(Connection, PathBuf), OpenFault> {
    make_private(folder).map_err(|error| unusable(folder, error))?;
    refuse_network(folder)?;
    let file = folder.join(FILE);
    let fresh = is_missing_or_empty(&file);
    let log = folder.join(format!("{FILE}-wal"));
    if fresh && !is_missing_or_empty(&log) {
        // SQLite would delete the log of a file that is not there.
        return Err(OpenFault::Damaged { file, why: "its log is there and it is not".to_owned() });
    }
    let failed = |error: &rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged(&file, error),
        _ => unusable(&file, io::Error::other(error.to_string())),
    };
    if fresh {
        make_file(&file).map_err(|error| unusable(&file, error))?;
    } else {
        whole(&file, &log)?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&file, flags).map_err(|error| failed(&error))?;
    // Whatever is refused is left as it was found: its log is not written back.
    keep_log(&connection, true).map_err(|error| failed(&error))?;
    connection.busy_timeout(BUSY_FOR).map_err(|error| failed(&error))?;
    owned(&connection, &file)?;
    set_up(&connection, durability).map_err(|error| failed(&error))?;
    if !fresh {
        check(&connection, &file)?;
    }
    keep_log(&connection, false).map_err(|error| failed(&error))?;
    Ok((connection, file))
}

fn keep_log(connection: &Connection, keeps: bool) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keeps).map(drop)
}

/// Refuses a file of another program, or of a later version.
fn owned(connection: &Connection, file: &Path) -> Result<(), OpenFault> {
    let stated = |name| connection.pragma_query_value::<i64, _>(None, name, |row| row.get(0));
    let read = || -> rusqlite::Result<(i64, i64, i64)> {
        let tables = "SELECT count(*) FROM sqlite_schema";
        let tables = connection.query_row(tables, [], |row| row.get(0))?;
        Ok((stated("application_id")?, stated("user_version")?, tables))
    };
    let (application, format, tables) = read().map_err(|error| damaged(file, &error))?;
    let fresh = (application, format, tables) == (0, 0, 0);
    if !fresh && application != APPLICATION {
        let why = "it belongs to another program".to_owned();
        return Err(OpenFault::Damaged { file: file.to_owned(), why });
    }
    if format > FORMAT.into() {
        return Err(OpenFault::Later { file: file.to_owned(), found: format });
    }
    Ok(())
}

/// What the connection that writes is told.
fn set_up(connection: &Connection, durability: Durability) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match durability {
        Durability::Process => "NORMAL",
        Durability::Power => "FULL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // A checksum is not kept a page; a cell that points out of its page is noticed.
    connection.pragma_update(None, "cell_size_check", true)
}

/// A small file is read whole. A large one would delay the start: its rows that matter
/// most, those in flight or unknown, are read, and what else is damaged fails when it is
/// met.
fn check(connection: &Connection, file: &Path) -> Result<(), OpenFault> {
    let pages = |name| connection.pragma_query_value::<i64, _>(None, name, |row| row.get(0));
    let read = || -> rusqlite::Result<String> {
        let bytes = pages("page_count")? * pages("page_size")?;
        let how = if bytes <= CHECKED_WHOLE { "PRAGMA quick_check(1)" } else { CHECK_OPEN_ROWS };
        connection.query_row(how, [], |row| row.get(0))
    };
    match read() {
        Ok(said) if said == "ok" => Ok(()),
        Ok(said) => Err(OpenFault::Damaged { file: file.to_owned(), why: first_line(&said) }),
        Err(error) => Err(damaged(file, &error)),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim_start_matches("*** ").to_owned()
}

/// Brings the tables to this version's format, each step in a transaction of its own;
/// whether there was any to take.
fn migrate(connection: &mut Connection, file: &Path) -> Result<bool, OpenFault> {
    let fault = |error: rusqlite::Error| damaged(file, &error);
    let format = connection.pragma_query_value::<i64, _>(None, "user_version", |row| row.get(0));
    let format = usize::try_from(format.map_err(fault)?).unwrap_or(0);
    for (format, step) in (1_u32..).zip(STEPS).skip(format) {
        let upgrade = |connection: &mut Connection| -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            transaction.execute_batch(step)?;
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            transaction.pragma_update(None, "user_version", format)?;
            transaction.commit()
        };
        upgrade(connection).map_err(fault)?;
    }
    Ok(format < STEPS.len())
}

/// The number of this boot of the machine: one more than the last, unless it still runs.
fn boot(connection: &Connection) -> rusqlite::Result<i64> {
    let this = fs::read_to_string(BOOT_ID).unwrap_or_default();
    let this = this.trim();
    let last: Option<(i64, String)> = connection
        .query_row("SELECT boot, boot_id FROM books", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (number, id) = last.unwrap_or_default();
    if !this.is_empty() && id == this {
        return Ok(number);
    }
    connection.execute("UPDATE books SET boot = ?1, boot_id = ?2", params![number + 1, this])?;
    Ok(number + 1)
}

/// After a crash: what was in flight is unknown, or answered and not retained where the
/// head of a good answer had come.
fn recover(connection: &Connection, now: Moment) -> rusqlite::Result<()> {
    let ended =
        params![State::InFlight, State::Completed, State::Unknown, now.wall, now.boot, now.up];
    connection.execute(
        "UPDATE exchanges SET state = CASE WHEN landed IS NULL THEN ?3 ELSE ?2 END,
                status = coalesce(status, landed), ended_at = ?4, ended_boot = ?5, ended_up = ?6,
                gone_at = CASE WHEN landed IS NULL THEN NULL ELSE ?4 + coalesce(keep, 0) END
         WHERE state = ?1",
        ended,
    )?;
    Ok(())
}

fn unusable(path: &Path, error: io::Error) -> OpenFault {
    OpenFault::Unusable { path: path.to_owned(), error }
}

fn damaged(file: &Path, error: &rusqlite::Error) -> OpenFault {
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DiskFull
            | ErrorCode::ReadOnly
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::SystemIoFailure,
        ) => unusable(file, io::Error::other(error.to_string())),
        _ => OpenFault::Damaged { file: file.to_owned(), why: error.to_string() },
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

/// The file's name in its folder.
pub const FILE: &str = "journal.sqlite";
/// The folder of large bodies, beside it.
const BODIES: &str = "bodies";

/// "SMKY": whose file it is.
const APPLICATION: i64 = 0x534d_4b59;
/// The format that this version writes: how many steps lead to it.
const FORMAT: u32 = 4;
/// Each step from one format to the next; what is released is never changed.
const STEPS: [&str; FORMAT as usize] = [
    include_str!("format1.sql"),
    include_str!("format2.sql"),
    include_str!("format3.sql"),
    include_str!("format4.sql"),
];
/// Versions before it can lose a write-ahead log's reset: sqlite.org/wal.html, "The
/// WAL-reset bug", fixed in 3.51.3.
const LIBRARY_MIN: i32 = 3_051_003;
/// The kernel's name for this boot (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Nobody else writes; a reader that opens the file holds it for a moment.
const BUSY_FOR: std::time::Duration = std::time::Duration::from_secs(5);
/// Sixteen MiB of log before it is written back: fewer syncs, and still a quick start.
const LOG_PAGES: u32 = 4096;
/// What a log is cut to once it was larger.
const LOG_BYTES: u32 = 64 * 1024 * 1024;
/// What the writer keeps of the file in memory.
const CACHE_KIB: i32 = 16 * 1024;
/// What is read in well under half a second.
const CHECKED_WHOLE: i64 = 64 * 1024 * 1024;
/// Reads every row that is in flight or unknown, by the index and from the table.
const CHECK_OPEN_ROWS: &str =
    "SELECT 'ok' FROM (SELECT count(url) FROM exchanges WHERE state IN (0, 2))";
#[cfg(test)]
mod tests;
