//! What is past its time goes, a few rows a commit, so that nobody waits for long.

use rusqlite::{Connection, params};

use crate::failpoint::Failpoint;
use crate::journal::bodies::{Hash, is_filed};
use crate::journal::deliveries::forget;
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
                let deliveries = deliveries(connection, now, delta)?;
                let files = unfiled(connection, &answers.files)?;
                Failpoint::DuringSweep.pass();
                Ok((answers.looked_at.max(keys).max(deliveries), files))
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

/// What a row of an answer is due for.
enum Due {
    /// Its time is over.
    Answer,
    /// It was dropped before, and its file is still there.
    FileAlone,
    /// The wall clock was set: its time comes in so many microseconds.
    Later(i64),
}

/// Drops answers whose time is over by the clock that can be relied on.
fn answers(connection: &Connection, now: Moment, delta: &mut Delta) -> rusqlite::Result<Answers> {
    let mut due = connection.prepare_cached(
        "SELECT answers.seq, file, size, ended_at, ended_boot, ended_up, ttl
         FROM answers LEFT JOIN exchanges USING (seq)
         WHERE kept_until <= ?1 ORDER BY kept_until LIMIT ?2",
    )?;
    let due = due.query_map(params![now.wall, CHUNK], |row| {
        let (seq, file) = (row.get::<_, i64>(0)?, row.get::<_, Option<Hash>>(1)?);
        if row.get::<_, i64>(2)? == 0 {
            return Ok((seq, file, Due::FileAlone));
        }
        let ended = Moment { wall: row.get(3)?, boot: row.get(4)?, up: row.get(5)? };
        let left = row.get::<_, i64>(6)? - ended.least_age(now);
        Ok((seq, file, if left <= 0 { Due::Answer } else { Due::Later(left) }))
    })?;
    let due = due.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut files = Vec::new();
    for (seq, file, what) in &due {
        match what {
            Due::Answer => drop_answer(connection, seq.cast_unsigned(), now, delta)?,
            Due::FileAlone => {
                connection.prepare_cached("DELETE FROM answers WHERE seq = ?1")?.execute([seq])?;
                files.extend(*file);
            }
            Due::Later(left) => {
                let later = "UPDATE answers SET kept_until = ?2 WHERE seq = ?1";
                postpone(connection, later, *seq, (now, *left))?;
            }
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
                let until = now.wall.saturating_add(ledger.saturating_sub(age).max(0));
                loosen(connection, seq.cast_unsigned(), (now, until), delta)?;
            }
            (false, _) if age >= ledger => {
                delta.loose -= 1;
                connection
                    .prepare_cached("DELETE FROM exchanges WHERE seq = ?1")?
                    .execute([seq])?;
            }
            (true, State::Completed) | (false, _) => {
                let later = "UPDATE exchanges SET gone_at = ?2 WHERE seq = ?1";
                let left = if *holds { *kept } else { ledger } - age;
                postpone(connection, later, *seq, (now, left))?;
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

/// Forgets deliveries whose time is over.
fn deliveries(connection: &Connection, now: Moment, delta: &mut Delta) -> rusqlite::Result<i64> {
    let mut due = connection.prepare_cached(
        "SELECT seq, ended_at, ended_boot, ended_up, keep
         FROM deliveries WHERE gone_at <= ?1 ORDER BY gone_at LIMIT ?2",
    )?;
    let due = due.query_map(params![now.wall, CHUNK], |row| {
        let ended = Moment { wall: row.get(1)?, boot: row.get(2)?, up: row.get(3)? };
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(4)? - ended.least_age(now)))
    })?;
    let due = due.collect::<rusqlite::Result<Vec<_>>>()?;
    for (seq, left) in &due {
        if *left <= 0 {
            forget(connection, *seq, delta)?;
        } else {
            let later = "UPDATE deliveries SET gone_at = ?2 WHERE seq = ?1";
            postpone(connection, later, *seq, (now, *left))?;
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

/// Looks at a row again when its time may have come: not at once, where the wall clock
/// was set forward, and not too late, where it is set back again.
fn postpone(
    connection: &Connection,
    how: &str,
    seq: i64,
    (now, left): (Moment, i64),
) -> rusqlite::Result<()> {
    let again = now.wall.saturating_add(left.clamp(AGAIN_MIN, AGAIN_MAX));
    connection.prepare_cached(how)?.execute([seq, again]).map(drop)
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
const AGAIN_MIN: i64 = 60_000_000;
/// A million rows that are looked at once an hour cost nothing.
const AGAIN_MAX: i64 = 3_600_000_000;
