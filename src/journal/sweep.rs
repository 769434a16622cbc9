//! What is past its time goes, a few rows a commit, so that nobody waits for long.

use rusqlite::{Connection, params};

use crate::failpoint::Failpoint;
use crate::journal::bodies::{Hash, is_filed};
use crate::journal::held::{drop_answer, loosen};
use crate::journal::row::{State, signed};
use crate::journal::{Delta, Fault, Journal, Moment};

impl Journal {
    /// Drops answers, keys and rows that are past their time.
    ///
    /// # Errors
    ///
    /// A [`Fault`]: the rest goes another time.
    ///
    /// # Cancel safety
    ///
    /// What was begun is finished.
    pub async fn sweep(&self) -> Result<(), Fault> {
        let (now, ledger) = (self.now(), self.0.options.ledger_micros);
        for _ in 0..CHUNKS_MAX {
            let swept = self.submit(move |connection, delta| {
                let answers = answers(connection, now, delta)?;
                let keys = keys(connection, (now, ledger), delta)?;
                let files = unfiled(connection, &answers.files)?;
                Failpoint::DuringSweep.pass();
                Ok((answers.looked_at.max(keys), files))
            });
            let (looked_at, files) = swept.await?;
            for hash in &files {
                self.bodies().drop_file(hash);
            }
            if looked_at < CHUNK {
                break;
            }
        }
        Ok(())
    }
}

struct Answers {
    looked_at: i64,
    files: Vec<Hash>,
}

/// Drops answers whose time is over by the clock that can be relied on.
fn answers(connection: &Connection, now: Moment, delta: &mut Delta) -> rusqlite::Result<Answers> {
    let mut due = connection.prepare_cached(
        "SELECT answers.seq, file, ended_at, ended_boot, ended_up, ttl
         FROM answers JOIN exchanges USING (seq)
         WHERE kept_until <= ?1 ORDER BY kept_until LIMIT ?2",
    )?;
    let due = due.query_map(params![now.wall, CHUNK], |row| {
        let ended = Moment { wall: row.get(2)?, boot: row.get(3)?, up: row.get(4)? };
        let over = ended.least_age(now) >= row.get(5)?;
        Ok((row.get::<_, i64>(0)?, row.get::<_, Option<Hash>>(1)?, over, ended))
    })?;
    let due = due.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut files = Vec::new();
    for (seq, file, over, _) in &due {
        if *over {
            drop_answer(connection, seq.cast_unsigned(), delta)?;
            files.extend(*file);
        } else {
            // The wall clock was set: it is looked at again when its time may have come.
            postpone(connection, "UPDATE answers SET kept_until = ?2 WHERE seq = ?1", *seq, now)?;
        }
    }
    Ok(Answers { looked_at: count(due.len()), files })
}

/// Opens keys and drops rows whose time is over.
fn keys(
    connection: &Connection,
    (now, ledger): (Moment, i64),
    delta: &mut Delta,
) -> rusqlite::Result<i64> {
    let mut due = connection.prepare_cached(
        "SELECT seq, holds, ended_at, ended_boot, ended_up, ttl, keep, state
         FROM exchanges WHERE gone_at <= ?1 ORDER BY gone_at LIMIT ?2",
    )?;
    let due = due.query_map(params![now.wall, CHUNK], |row| {
        let ended = Moment { wall: row.get(2)?, boot: row.get(3)?, up: row.get(4)? };
        let kept =
            row.get::<_, Option<i64>>(5)?.unwrap_or(0) + row.get::<_, Option<i64>>(6)?.unwrap_or(0);
        Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?, ended, kept, row.get::<_, State>(7)?))
    })?;
    let due = due.collect::<rusqlite::Result<Vec<_>>>()?;
    for (seq, holds, ended, kept, state) in &due {
        let age = ended.least_age(now);
        match (holds, state) {
            (true, State::Completed) if age >= *kept => {
                let shown_for = ledger.saturating_sub(age);
                loosen(connection, seq.cast_unsigned(), Some(now.wall + shown_for.max(0)), delta)?;
            }
            (false, _) if age >= ledger => {
                delta.loose -= 1;
                connection
                    .prepare_cached("DELETE FROM exchanges WHERE seq = ?1")?
                    .execute([seq])?;
            }
            (true, State::Completed) | (false, _) => {
                let later = "UPDATE exchanges SET gone_at = ?2 WHERE seq = ?1";
                postpone(connection, later, *seq, now)?;
            }
            // One that holds and is not answered has no time to be past.
            (true, _) => {
                let never = "UPDATE exchanges SET gone_at = NULL WHERE seq = ?1";
                connection.prepare_cached(never)?.execute([seq])?;
            }
        }
    }
    Ok(count(due.len()))
}

/// Drops the oldest rows that close no key, a few more than came, where there are too many.
pub(super) fn thin(
    connection: &Connection,
    loose_max: u64,
    delta: &mut Delta,
) -> rusqlite::Result<()> {
    let loose: i64 =
        connection.prepare_cached("SELECT loose FROM books")?.query_row([], |row| row.get(0))?;
    let over = loose + delta.loose - signed(loose_max);
    if over <= 0 {
        return Ok(());
    }
    let gone = connection
        .prepare_cached(
            "DELETE FROM exchanges WHERE seq IN
             (SELECT seq FROM exchanges WHERE holds = 0 ORDER BY seq LIMIT ?1)",
        )?
        .execute([over])?;
    delta.loose -= i64::try_from(gone).unwrap_or(0);
    Ok(())
}

fn postpone(connection: &Connection, how: &str, seq: i64, now: Moment) -> rusqlite::Result<()> {
    connection.prepare_cached(how)?.execute([seq, now.wall + AGAIN]).map(drop)
}

/// The files of which no row speaks any more.
fn unfiled(connection: &Connection, files: &[Hash]) -> rusqlite::Result<Vec<Hash>> {
    let mut gone = Vec::new();
    for file in files {
        if !is_filed(connection, file)? {
            gone.push(*file);
        }
    }
    Ok(gone)
}

fn count(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// Rows a commit: a few milliseconds of the writer's time.
const CHUNK: i64 = 200;
/// Commits a sweep: what is left waits for the next one, some seconds later.
const CHUNKS_MAX: usize = 100;
/// After the wall clock was set, in microseconds.
const AGAIN: i64 = 60_000_000;
