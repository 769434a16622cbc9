//! Keys that nobody knows, and that an equal request may take over.

use crate::journal::bodies::Hash;
use crate::journal::{Fault, Journal, Moment};

/// A key that an equal request may take over.
#[derive(Clone, Debug)]
pub struct Orphan {
    /// Whose key it is.
    pub scope: Hash,
    /// What was asked.
    pub fingerprint: Hash,
    /// The key.
    pub key: String,
    /// How long ago it was asked, in microseconds.
    pub age: i64,
}

impl Journal {
    /// The keys that an equal request may take over, of the last `window` microseconds.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when they cannot be read.
    pub async fn orphans(&self, window: i64) -> Result<Vec<Orphan>, Fault> {
        let now = self.now();
        self.submit(move |connection, _delta| {
            let mut rows = connection.prepare(
                "SELECT scope, fingerprint, key, began_at, began_boot, began_up FROM exchanges
                 WHERE scope IS NOT NULL AND holds = 1 AND fingerprint IS NOT NULL ORDER BY seq",
            )?;
            let orphans = rows.query_map([], |row| {
                let began = Moment { wall: row.get(3)?, boot: row.get(4)?, up: row.get(5)? };
                let (scope, fingerprint, key) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok(Orphan { scope, fingerprint, key, age: began.least_age(now) })
            })?;
            let mut orphans: Vec<Orphan> = orphans.collect::<rusqlite::Result<_>>()?;
            orphans.retain(|orphan| orphan.age <= window);
            Ok(orphans)
        })
        .await
    }
}
