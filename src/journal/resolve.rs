//! What an operator says about a key: that it landed, that it did not, that it may go.

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::failpoint::Failpoint;
use crate::journal::bodies::Hash;
use crate::journal::held::loosen;
use crate::journal::row::{State, key_hash, signed};
use crate::journal::{Delta, Fault, Journal, Moment};

/// What came of an exchange that nobody knew of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It had its effect. Its answer is not known.
    Landed,
    /// It had none: the key is free.
    Absent,
}

/// What a resolution met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// It was unknown, and is settled.
    Settled(Resolved),
    /// It is in another state, which stands.
    Stands(State),
    /// There is no such exchange.
    Missing,
}

/// An exchange that was unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// What its key is found by; none where nobody can ask for it.
    pub id: Option<Hash>,
    /// Which life of the key it was in the store that replicas share.
    pub shared_epoch: Option<u64>,
    /// How long the key is known from now on, in microseconds.
    pub keep: i64,
}

/// What came of opening a key by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Freed {
    /// It is free; it was found by these.
    Ids(Vec<Hash>),
    /// It is in flight, or unknown: that is resolved, not forgotten.
    Busy(State),
}

impl Journal {
    /// What closes the key of an exchange whose outcome is unknown, and which life of it
    /// that is in the store that replicas share.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when it cannot be read.
    pub async fn unknown(
        &self,
        (seq, instance): (u64, u32),
    ) -> Result<Option<(Hash, Option<u64>)>, Fault> {
        self.submit(move |connection, _delta| {
            connection
                .prepare_cached(
                    "SELECT id, shared_epoch FROM exchanges
                     WHERE seq = ?1 AND instance = ?2 AND state = ?3 AND holds = 1",
                )?
                .query_row(params![signed(seq), instance, State::Unknown], |row| {
                    let shared = row.get::<_, Option<i64>>(1)?.map(i64::cast_unsigned);
                    Ok((row.get(0)?, shared))
                })
                .optional()
        })
        .await
    }

    /// Settles an unknown outcome.
    ///
    /// # Errors
    ///
    /// A [`Fault`]: it is unknown as before.
    ///
    /// # Cancel safety
    ///
    /// It is done whether or not anybody waits for it.
    pub async fn resolve(
        &self,
        (seq, instance): (u64, u32),
        verdict: Verdict,
    ) -> Result<Resolution, Fault> {
        self.resolve_then((seq, instance), verdict, |_resolution| ()).await
    }

    /// As [`resolve`](Self::resolve); `then` is told what came of it, waited for or not.
    pub(crate) async fn resolve_then(
        &self,
        (seq, instance): (u64, u32),
        verdict: Verdict,
        then: impl FnOnce(&Result<Resolution, Fault>) + Send + 'static,
    ) -> Result<Resolution, Fault> {
        let (now, ledger) = (self.now(), self.0.options.ledger_micros);
        let act = move |connection: &Connection, delta: &mut Delta| {
            resolve(connection, (seq, instance), verdict, (now, ledger), delta)
        };
        self.submit_then(act, then).await
    }

    /// Opens a key, in every scope that has it, unless it is in flight or unknown. `then`
    /// is told which it was, waited for or not.
    ///
    /// # Errors
    ///
    /// A [`Fault`]: it is as it was.
    ///
    /// # Cancel safety
    ///
    /// It is done whether or not anybody waits for it.
    pub async fn free(
        &self,
        key: String,
        then: impl FnOnce(&Result<Freed, Fault>) + Send + 'static,
    ) -> Result<Freed, Fault> {
        let (now, ledger) = (self.now(), self.0.options.ledger_micros);
        let act = move |connection: &Connection, delta: &mut Delta| {
            let rows = holders(connection, &key)?;
            let busy = |(_, _, state): &&(i64, Hash, State)| *state != State::Completed;
            if let Some((_, _, state)) = rows.iter().find(busy) {
                return Ok(Freed::Busy(*state));
            }
            for (seq, ..) in &rows {
                let until = now.wall.saturating_add(ledger);
                loosen(connection, seq.cast_unsigned(), (now, until), delta)?;
            }
            Ok(Freed::Ids(rows.into_iter().map(|(_, id, _)| id).collect()))
        };
        self.submit_then(act, then).await
    }
}

fn resolve(
    connection: &Connection,
    (seq, instance): (u64, u32),
    verdict: Verdict,
    (now, ledger): (Moment, i64),
    delta: &mut Delta,
) -> rusqlite::Result<Resolution> {
    let found = connection
        .prepare_cached(
            "SELECT state, holds, id, shared_epoch, coalesce(ttl, 0) + coalesce(keep, 0)
             FROM exchanges WHERE seq = ?1 AND instance = ?2",
        )?
        .query_row(params![signed(seq), instance], |row| {
            let shared = row.get::<_, Option<i64>>(3)?.map(i64::cast_unsigned);
            Ok((
                row.get::<_, State>(0)?,
                row.get::<_, bool>(1)?,
                row.get::<_, Option<Hash>>(2)?,
                shared,
                row.get(4)?,
            ))
        })
        .optional()?;
    let Some((state, holds, id, shared_epoch, kept)) = found else {
        return Ok(Resolution::Missing);
    };
    if state != State::Unknown {
        return Ok(Resolution::Stands(state));
    }
    // What was settled by hand is known for as long as anything is.
    let keep = ledger.max(kept);
    let state = match verdict {
        Verdict::Landed => State::Completed,
        Verdict::Absent => State::Released,
    };
    connection
        .prepare_cached(
            "UPDATE exchanges SET state = ?2, ttl = 0, keep = ?3, gone_at = ?4,
                    ended_at = ?5, ended_boot = ?6, ended_up = ?7 WHERE seq = ?1",
        )?
        .execute(params![signed(seq), state, keep, now.wall + keep, now.wall, now.boot, now.up])?;
    if verdict == Verdict::Absent && holds {
        loosen(connection, seq, (now, now.wall.saturating_add(ledger)), delta)?;
    }
    Failpoint::InResolve.pass();
    Ok(Resolution::Settled(Resolved { id: id.filter(|_| holds), shared_epoch, keep }))
}

/// The rows that close a key, in every scope.
fn holders(connection: &Connection, key: &str) -> rusqlite::Result<Vec<(i64, Hash, State)>> {
    let mut rows = connection.prepare_cached(
        "SELECT seq, id, state FROM exchanges WHERE key_hash = ?1 AND holds = 1 AND key = ?2",
    )?;
    let rows = rows.query_map(params![key_hash(key), key], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })?;
    rows.collect()
}
