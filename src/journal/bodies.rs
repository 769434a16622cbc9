//! Bodies too large for a row: files that are named by what is in them.
//!
//! A file is on the disk before a row speaks of it, and goes after the last row that
//! does. Two answers that are equal share one.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _};
use tokio::time::Instant;

/// A digest that names a body, or what a key is found by.
pub type Hash = [u8; 32];

/// The folder of the files; a clone is the same one.
#[derive(Clone, Debug)]
pub struct Bodies(Arc<Folder>);

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Files that were written lately, perhaps for a row that is not yet there, and when.
    /// Whoever names or deletes a file holds the lock.
    fresh: Mutex<HashMap<Hash, Instant>>,
}

impl Bodies {
    /// Opens the folder, and makes it where there is none.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        if !folder.is_dir() {
            DirBuilder::new().mode(0o700).create(folder)?;
        }
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        let (path, fresh) = (folder.to_owned(), Mutex::default());
        Ok(Self(Arc::new(Folder { path, fresh })))
    }

    /// Writes a body, and returns its name once it is on the disk.
    ///
    /// It blocks: a body of 64 MiB takes as long as the disk does.
    ///
    /// # Errors
    ///
    /// When the disk takes no more; nothing of it stays then.
    pub fn write(&self, body: &[u8]) -> io::Result<Hash> {
        let hash = *blake3::hash(body).as_bytes();
        let path = self.path(&hash);
        {
            let mut fresh = self.fresh();
            if fs::metadata(&path).is_ok_and(|there| there.len() == body.len() as u64) {
                fresh.insert(hash, Instant::now());
                return Ok(hash);
            }
        }
        let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.0.path)?;
        file.write_all(body)?;
        file.as_file().sync_all()?;
        {
            let mut fresh = self.fresh();
            fresh.insert(hash, Instant::now());
            file.persist(&path).map_err(|failed| failed.error)?;
        }
        File::open(&self.0.path)?.sync_all()?;
        Ok(hash)
    }

    /// Reads a body back; it blocks.
    ///
    /// # Errors
    ///
    /// When it is not there, or is not what was written.
    pub fn read(&self, hash: &Hash) -> io::Result<Bytes> {
        let mut body = Vec::new();
        File::open(self.path(hash))?.take(READ_MAX).read_to_end(&mut body)?;
        if blake3::hash(&body).as_bytes() != hash {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not what was written"));
        }
        Ok(body.into())
    }

    /// Deletes a file of which no row speaks any more.
    ///
    /// A young one is left to the next start: an equal answer may be about to be kept,
    /// and its row not yet written.
    pub(super) fn drop_file(&self, hash: &Hash) {
        let fresh = self.fresh();
        if fresh.contains_key(hash) {
            return;
        }
        if let Err(error) = fs::remove_file(self.path(hash)) {
            tracing::debug!(%error, "a body's file could not be deleted");
        }
    }

    /// Deletes what a crash left: files of which no row speaks.
    pub(super) fn drop_strangers(
        &self,
        is_known: impl Fn(&Hash) -> rusqlite::Result<bool>,
    ) -> rusqlite::Result<()> {
        let Ok(files) = fs::read_dir(&self.0.path) else { return Ok(()) };
        for file in files.flatten() {
            let name = file.file_name();
            let name = name.to_string_lossy();
            let hash = blake3::Hash::from_hex(name.as_bytes());
            let stranger = match hash {
                Ok(hash) => !is_known(hash.as_bytes())?,
                Err(_) => name.starts_with(UNFINISHED),
            };
            if stranger && let Err(error) = fs::remove_file(file.path()) {
                tracing::debug!(%error, "a body's file could not be deleted");
            }
        }
        Ok(())
    }

    /// The young ones, and the lock on all.
    fn fresh(&self) -> MutexGuard<'_, HashMap<Hash, Instant>> {
        let mut fresh = self.0.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.retain(|_, written| written.elapsed() < YOUNG);
        fresh
    }

    fn path(&self, hash: &Hash) -> PathBuf {
        self.0.path.join(blake3::Hash::from_bytes(*hash).to_hex().as_str())
    }
}

/// Whether a row speaks of a file.
pub(super) fn is_filed(connection: &Connection, hash: &Hash) -> rusqlite::Result<bool> {
    let found = connection
        .prepare_cached("SELECT 1 FROM answers WHERE file = ?1 LIMIT 1")?
        .query_row([hash], |_row| Ok(()))
        .optional()?;
    Ok(found.is_some())
}

/// What is being written; a crash leaves it, and the next start deletes it.
const UNFINISHED: &str = "unfinished-";
/// Longer than it takes from a file's last byte to the commit of its row.
pub(super) const YOUNG: Duration = Duration::from_mins(1);
/// More than is ever kept, so that a file that grew by other hands is not read whole.
const READ_MAX: u64 = 65 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_what_was_written_or_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let bodies = Bodies::open(folder.path()).expect("it is opened");
        let hash = bodies.write(b"an answer").expect("it is written");
        assert_eq!(bodies.write(b"an answer").expect("again"), hash, "equal ones share a file");
        assert_eq!(bodies.read(&hash).expect("it is there"), "an answer");
        fs::write(bodies.path(&hash), b"an onswer").expect("somebody writes into it");
        assert_eq!(bodies.read(&hash).expect_err("noticed").kind(), io::ErrorKind::InvalidData);
        fs::write(folder.path().join("unfinished-1"), b"half").expect("a crash leaves it");
        bodies.drop_strangers(|_hash| Ok(false)).expect("they go");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }
}
