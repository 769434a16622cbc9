//! Keys that nobody knows, and that an equal request may take over.

use crate::journal::bodies::Hash;
use crate::journal::held::loosen;
use crate::journal::row::State;
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
    /// Older ones nobody can ask for any more: they are opened, and stay in the ledger.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when they cannot be read.
    pub async fn orphans(&self, window: i64) -> Result<Vec<Orphan>, Fault> {
        let (now, ledger) = (self.now(), self.0.options.ledger_micros);
        self.submit(move |connection, delta| {
            let mut rows = connection.prepare(
                "SELECT scope, fingerprint, key, began_at, began_boot, began_up, seq, state
                 FROM exchanges WHERE scope IS NOT NULL AND holds = 1
                 AND fingerprint IS NOT NULL ORDER BY seq",
            )?;
            let orphans = rows.query_map([], |row| {
                let began = Moment { wall: row.get(3)?, boot: row.get(4)?, up: row.get(5)? };
                let (scope, fingerprint, key) = (row.get(0)?, row.get(1)?, row.get(2)?);
                let orphan = Orphan { scope, fingerprint, key, age: began.least_age(now) };
                Ok((orphan, row.get::<_, i64>(6)?, row.get::<_, State>(7)?))
            })?;
            let mut within = Vec::new();
            for (orphan, seq, state) in orphans.collect::<rusqlite::Result<Vec<_>>>()? {
                if orphan.age <= window {
                    within.push(orphan);
                } else if state != State::InFlight {
                    let until = now.wall.saturating_add(ledger);
                    loosen(connection, seq.cast_unsigned(), (now, until), delta)?;
                }
            }
            Ok(within)
        })
        .await
    }
}
