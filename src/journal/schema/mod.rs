//! The tables, and what is wrong with a file that cannot be trusted.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, params};

use crate::journal::ledger::Readers;
use crate::journal::row::State;
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
    migrate(&mut connection, &file)?;
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
        whole(&file)?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&file, flags).map_err(|error| failed(&error))?;
    set_up(&connection, durability).map_err(|error| failed(&error))?;
    if !fresh {
        check(&connection, &file)?;
    }
    Ok((connection, file))
}

/// What every connection to the file is told.
fn set_up(connection: &Connection, durability: Durability) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_FOR)?;
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

/// The header says how many pages there are: a file that is shorter was cut.
fn whole(file: &Path) -> Result<(), OpenFault> {
    let mut head = [0; 100];
    let read = || -> io::Result<u64> {
        use std::io::Read as _;
        let mut open = fs::File::open(file)?;
        open.read_exact(&mut head)?;
        Ok(open.metadata()?.len())
    };
    let length = { read }().map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            OpenFault::Damaged { file: file.to_owned(), why: "it is cut short".to_owned() }
        }
        _ => unusable(file, error),
    })?;
    let says = |why: &str| OpenFault::Damaged { file: file.to_owned(), why: why.to_owned() };
    if !head.starts_with(b"SQLite format 3\0") {
        return Err(says("it is no SQLite file"));
    }
    let number = |at: usize| -> u64 {
        let four = head.get(at..at + 4).and_then(|four| four.first_chunk::<4>());
        four.map_or(0, |four| u32::from_be_bytes(*four).into())
    };
    let page = match number(16) >> 16 {
        1 => 65_536,
        size => size,
    };
    // Bytes 24 and 92 agree where the page count at 28 is to be believed.
    if number(24) == number(92) && number(28).saturating_mul(page) > length {
        return Err(says("it is cut short"));
    }
    Ok(())
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

/// Brings the tables to this version's format, each step in a transaction of its own.
fn migrate(connection: &mut Connection, file: &Path) -> Result<(), OpenFault> {
    let fault = |error: rusqlite::Error| damaged(file, &error);
    let stated = |name| connection.pragma_query_value::<i64, _>(None, name, |row| row.get(0));
    let (application, mut format) =
        (stated("application_id").map_err(fault)?, stated("user_version").map_err(fault)?);
    let fresh = application == 0 && format == 0;
    if !fresh && application != APPLICATION {
        let why = "it belongs to another program".to_owned();
        return Err(OpenFault::Damaged { file: file.to_owned(), why });
    }
    if format > FORMAT.into() {
        return Err(OpenFault::Later { file: file.to_owned(), found: format });
    }
    for step in STEPS.iter().skip(usize::try_from(format).unwrap_or(0)) {
        format += 1;
        let upgrade = |connection: &mut Connection| -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            transaction.execute_batch(step)?;
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            transaction.pragma_update(None, "user_version", format)?;
            transaction.commit()
        };
        upgrade(connection).map_err(fault)?;
    }
    Ok(())
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

fn refuse_network(folder: &Path) -> Result<(), OpenFault> {
    let found = rustix::fs::statfs(folder).map_err(|error| unusable(folder, error.into()))?;
    #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "32 bits are told")]
    let magic = found.f_type as u32;
    match NETWORK.iter().find(|(number, _)| *number == magic) {
        Some((_, kind)) => Err(OpenFault::Network { folder: folder.to_owned(), kind }),
        None => Ok(()),
    }
}

fn make_private(folder: &Path) -> io::Result<()> {
    if !folder.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    fs::set_permissions(folder, Permissions::from_mode(0o700))
}

/// The log and the index beside it take the file's mode over.
fn make_file(file: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(file).map(drop)
}

fn is_missing_or_empty(file: &Path) -> bool {
    fs::metadata(file).map_or(true, |found| found.len() == 0)
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
const FORMAT: u32 = 1;
/// Each step from one format to the next; what is released is never changed.
const STEPS: [&str; FORMAT as usize] = [include_str!("format1.sql")];
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
/// statfs(2), linux/magic.h: locks and shared memory maps do not reach other machines,
/// and cached pages may be lost (sqlite.org/wal.html, "all processes on one host").
const NETWORK: [(u32, &str); 9] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x0102_1997, "9P"),
];

#[cfg(test)]
mod tests;
