//! Effects on file, one JSON line each, for a reader that trusts nobody's memory.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

/// A file that only grows: each effect is in it before its answer goes out.
#[derive(Debug)]
pub(crate) struct Book(File);

impl Book {
    /// Opens a file, and makes it where there is none.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new().create(true).append(true).open(path).map(Self)
    }

    /// Writes an effect down. One write to a file opened for appending: whole lines
    /// stand in it whoever is killed next.
    ///
    /// # Panics
    ///
    /// When the file cannot be written: what is counted from it would be wrong.
    pub(crate) fn enter(&self, job: &str, key: Option<&str>, event: &str) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_millis());
        let at = u64::try_from(at).unwrap_or(u64::MAX);
        let line = json!({"event": event, "key": key, "job": job, "at_ms": at});
        (&self.0).write_all(format!("{line}\n").as_bytes()).expect("the book takes a line");
    }
}
