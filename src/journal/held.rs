//! The row that closes a key: found, written, ended, opened.
//!
//! Each of these is part of an operation; what is committed whole is said where they
//! are called.

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, params};

use crate::journal::bodies::{Hash, YOUNG};
use crate::journal::key::{Answer, At, Done, Found, Holder, Open, Reserve, Settle};
use crate::journal::moment::micros;
use crate::journal::row::{State, signed};
use crate::journal::{Delta, Moment, tags};

/// The row that closes a key, as it was found.
pub(super) struct Held {
    pub(super) holder: Holder,
    pub(super) state: State,
    captured: Option<String>,
    began: Moment,
    ended: Option<Moment>,
    ttl: i64,
    keep: i64,
}

impl Held {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let ended = match row.get(12)? {
            None => None,
            Some(wall) => Some(Moment { wall, boot: row.get(13)?, up: row.get(14)? }),
        };
        Ok(Self {
            holder: Holder {
                seq: row.get::<_, i64>(0)?.cast_unsigned(),
                instance: row.get(1)?,
                epoch: row.get::<_, i64>(3)?.cast_unsigned(),
                shared_epoch: row.get::<_, Option<i64>>(4)?.map(i64::cast_unsigned),
                fingerprint: row.get(5)?,
            },
            state: row.get(2)?,
            captured: row.get(6)?,
            began: Moment { wall: row.get(9)?, boot: row.get(10)?, up: row.get(11)? },
            ended,
            ttl: row.get::<_, Option<i64>>(7)?.unwrap_or(0),
            keep: row.get::<_, Option<i64>>(8)?.unwrap_or(0),
        })
    }

    /// Whether its key is past its time.
    pub(super) fn is_gone(&self, now: Moment) -> bool {
        let past = |ended: Moment| ended.least_age(now) >= self.ttl.saturating_add(self.keep);
        self.state == State::Completed && self.ended.is_some_and(past)
    }

    /// Until when its row is shown in the ledger, by the wall clock.
    pub(super) fn shown_until(&self, now: Moment, ledger: i64) -> i64 {
        let age = self.ended.map_or(0, |ended| ended.least_age(now));
        now.wall.saturating_add(ledger.saturating_sub(age).max(0))
    }

    pub(super) fn found(self, connection: &Connection, now: Moment) -> rusqlite::Result<Found> {
        match (self.state, self.ended) {
            (State::Completed, Some(ended)) => {
                let fresh = ended.least_age(now) < self.ttl;
                let answer = if fresh { answer(connection, self.holder.seq)? } else { None };
                Ok(Found::Completed(Done {
                    holder: self.holder,
                    answer,
                    captured: self.captured,
                    ended,
                    ttl: self.ttl,
                    keep: self.keep,
                }))
            }
            (State::InFlight, _) => {
                // In flight in the file and not in this process: its end could not be
                // written, and is not owed any more.
                lose(connection, &self.holder, now)?;
                self.open(connection, now)
            }
            (_, ended) => self.open(connection, ended.unwrap_or(now)),
        }
    }

    fn open(self, connection: &Connection, ended: Moment) -> rusqlite::Result<Found> {
        let tag = tags::of(connection, self.holder.seq)?;
        Ok(Found::Unknown(Open { holder: self.holder, began: self.began, ended, tag }))
    }
}

/// Who closes a key.
pub(super) fn holder(
    connection: &Connection,
    hash: i64,
    id: &Hash,
) -> rusqlite::Result<Option<Held>> {
    connection
        .prepare_cached(
            "SELECT seq, instance, state, epoch, shared_epoch, fingerprint, captured, ttl, keep,
                    began_at, began_boot, began_up, ended_at, ended_boot, ended_up
             FROM exchanges WHERE key_hash = ?1 AND holds = 1 AND id = ?2",
        )?
        .query_row(params![hash, id], Held::read)
        .optional()
}

/// Writes down a claim.
pub(super) fn insert(
    connection: &Connection,
    reserve: &Reserve,
    hash: i64,
    delta: &mut Delta,
) -> rusqlite::Result<()> {
    match begin(connection, reserve, hash) {
        // The exchange had the key before, and its row closes none any more: it asks anew.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            let gone = connection
                .prepare_cached(
                    "DELETE FROM exchanges WHERE seq = ?1 AND instance = ?2 AND holds = 0",
                )?
                .execute(params![signed(reserve.row.seq), reserve.row.instance])?;
            if gone == 0 {
                return Err(error);
            }
            delta.loose -= 1;
            begin(connection, reserve, hash)?;
        }
        begun => begun?,
    }
    delta.keys += 1;
    tags::put(connection, reserve.row.seq, reserve.tag.as_deref())
}

fn begin(connection: &Connection, reserve: &Reserve, hash: i64) -> rusqlite::Result<()> {
    let row = &reserve.row;
    connection
        .prepare_cached(
            "INSERT INTO exchanges (seq, instance, id, key, key_hash, holds, epoch, state, route,
                                    method, url, fingerprint, scope, began_at, began_boot, began_up,
                                    captured)
             VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        )?
        .execute(params![
            signed(row.seq),
            row.instance,
            reserve.id,
            row.key,
            hash,
            signed(reserve.epoch),
            State::InFlight,
            row.route,
            row.method,
            row.url,
            reserve.fingerprint,
            reserve.scope,
            row.began.wall,
            row.began.boot,
            row.began.up,
            row.captured,
        ])
        .map(drop)
}

/// Notes that nobody will ever say how a claim ended.
fn lose(connection: &Connection, holder: &Holder, now: Moment) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE exchanges SET state = ?3, ended_at = ?4, ended_boot = ?5, ended_up = ?6
             WHERE seq = ?1 AND epoch = ?2",
        )?
        .execute(params![
            signed(holder.seq),
            signed(holder.epoch),
            State::Unknown,
            now.wall,
            now.boot,
            now.up
        ])
        .map(drop)
}

/// Ends a claim; false where it is no longer this owner's.
pub(super) fn end(
    connection: &Connection,
    (seq, epoch): (u64, u64),
    settle: &Settle,
    (now, ledger): (Moment, i64),
) -> rusqlite::Result<bool> {
    let gone_at = match (settle.holds, settle.state) {
        (false, _) => Some(now.wall.saturating_add(ledger)),
        (true, State::Completed) => {
            Some(now.wall.saturating_add(settle.ttl).saturating_add(settle.keep))
        }
        (true, _) => None, // by time alone it never goes
    };
    let changed = connection
        .prepare_cached(
            "UPDATE exchanges SET state = ?4, holds = ?5, status = coalesce(?6, status),
                    attempts = concat_ws(',', nullif(attempts, ''), nullif(?7, '')),
                    captured = coalesce(?8, captured),
                    fingerprint = coalesce(?15, fingerprint), ttl = ?9, keep = ?10, gone_at = ?11,
                    ended_at = ?12, ended_boot = ?13, ended_up = ?14
             WHERE seq = ?1 AND epoch = ?2 AND state = ?3",
        )?
        .execute(params![
            signed(seq),
            signed(epoch),
            State::InFlight,
            settle.state,
            settle.holds,
            settle.status,
            settle.attempts,
            settle.captured,
            settle.ttl,
            settle.keep,
            gone_at,
            now.wall,
            now.boot,
            now.up,
            settle.fingerprint,
        ])?;
    Ok(changed == 1)
}

/// Keeps an answer.
pub(super) fn keep(
    connection: &Connection,
    seq: u64,
    answer: &Answer,
    until: i64,
) -> rusqlite::Result<()> {
    let (body, file) = match &answer.body {
        At::Row(body) => (Some(body), None),
        At::File(hash) => (None, Some(hash)),
    };
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO answers (seq, head, body, file, size, kept_until)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![signed(seq), answer.head, body, file, signed(answer.size), until])
        .map(drop)
}

fn answer(connection: &Connection, seq: u64) -> rusqlite::Result<Option<Answer>> {
    connection
        .prepare_cached("SELECT head, body, file, size FROM answers WHERE seq = ?1 AND size > 0")?
        .query_row([signed(seq)], |row| {
            let body = match row.get::<_, Option<Hash>>(2)? {
                Some(hash) => At::File(hash),
                None => At::Row(row.get::<_, Option<Vec<u8>>>(1)?.unwrap_or_default()),
            };
            Ok(Answer { head: row.get(0)?, body, size: row.get::<_, i64>(3)?.cast_unsigned() })
        })
        .optional()
}

/// Opens the key of a settled row; the row is shown until `until`.
pub(super) fn loosen(
    connection: &Connection,
    seq: u64,
    (now, until): (Moment, i64),
    delta: &mut Delta,
) -> rusqlite::Result<()> {
    let changed = connection
        .prepare_cached(
            "UPDATE exchanges SET holds = 0, gone_at = ?2 WHERE seq = ?1 AND holds = 1",
        )?
        .execute([signed(seq), until])?;
    if changed == 1 {
        delta.keys -= 1;
        delta.loose += 1;
        drop_answer(connection, seq, now, delta)?;
    }
    Ok(())
}

/// Drops an answer. Where it has a file, that one's name stays for a sweep that comes
/// when nobody can be about to keep an equal one.
pub(super) fn drop_answer(
    connection: &Connection,
    seq: u64,
    now: Moment,
    delta: &mut Delta,
) -> rusqlite::Result<()> {
    let found = connection
        .prepare_cached("SELECT size, file IS NOT NULL FROM answers WHERE seq = ?1")?
        .query_row([signed(seq)], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?)))
        .optional()?;
    let Some((size, is_filed)) = found else { return Ok(()) };
    delta.answers -= size;
    if is_filed {
        let name_alone = "UPDATE answers SET head = x'', size = 0, kept_until = ?2 WHERE seq = ?1";
        let until = now.wall.saturating_add(micros(YOUNG));
        connection.prepare_cached(name_alone)?.execute([signed(seq), until]).map(drop)
    } else {
        connection
            .prepare_cached("DELETE FROM answers WHERE seq = ?1")?
            .execute([signed(seq)])
            .map(drop)
    }
}
