//! The transitions of a key, each one operation that is committed whole.
//!
//! Every one of them names the row and its epoch, and changes nothing where the row
//! has gone on without it: a late owner writes over nobody.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::journal::bodies::Hash;
use crate::journal::row::{NewRow, State, key_hash, signed};
use crate::journal::{Delta, Fault, Journal, Moment, Pending, ROW_BYTES, Share};

/// A key to be claimed.
#[derive(Clone, Debug)]
pub struct Reserve {
    /// The exchange that wants it.
    pub row: NewRow,
    /// What the key is found by.
    pub id: Hash,
    /// Which life of the key it would be.
    pub epoch: u64,
    /// What is asked, where that is known.
    pub fingerprint: Option<Hash>,
    /// Where an equal request may take the key over.
    pub scope: Option<Hash>,
}

/// What has become of a key.
#[derive(Debug)]
pub enum Found {
    /// It was free, and is claimed now.
    Claimed,
    /// It was answered.
    Completed(Done),
    /// Nobody knows what came of it.
    Unknown(Open),
}

/// Whose a key is.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The row that closes it.
    pub seq: u64,
    /// The second part of that exchange's name.
    pub instance: u32,
    /// Which life of the key it is.
    pub epoch: u64,
    /// The same in the store that replicas share.
    pub shared_epoch: Option<u64>,
    /// What was asked.
    pub fingerprint: Option<Hash>,
}

/// A key that was answered.
#[derive(Debug)]
pub struct Done {
    /// Whose it is.
    pub holder: Holder,
    /// The answer, where it is still kept.
    pub answer: Option<Answer>,
    /// Ids that were taken from the answer: a JSON object.
    pub captured: Option<String>,
    /// When it was answered.
    pub ended: Moment,
    /// How long the answer is kept after that, in microseconds.
    pub ttl: i64,
    /// How long the key is.
    pub keep: i64,
}

/// A key whose outcome is unknown.
#[derive(Debug)]
pub struct Open {
    /// Whose it is.
    pub holder: Holder,
    /// When it first went upstream.
    pub began: Moment,
}

/// An answer at rest.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status and fields.
    pub head: Vec<u8>,
    /// The body.
    pub body: At,
    /// Bytes that it counts for.
    pub size: u64,
}

/// Where a body is.
#[derive(Clone, Debug)]
pub enum At {
    /// In the row.
    Row(Vec<u8>),
    /// In the file of this name.
    File(Hash),
}

/// How a claim ends.
#[derive(Clone, Debug)]
pub struct Settle {
    /// What has become of it.
    pub state: State,
    /// Whether the key stays closed.
    pub holds: bool,
    /// The last status.
    pub status: Option<u16>,
    /// The attempts: JSON arrays, parted by commas.
    pub attempts: String,
    /// Ids that were taken from the answer: a JSON object.
    pub captured: Option<String>,
    /// The answer, where it is kept.
    pub answer: Option<Answer>,
    /// How long the answer is kept, in microseconds.
    pub ttl: i64,
    /// How long the key is.
    pub keep: i64,
}

/// What came of ending a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It ended, and its answer is kept.
    WithAnswer,
    /// It ended, and no answer is kept.
    WithoutAnswer,
    /// It was no longer this owner's; nothing changed.
    Late,
}

impl Journal {
    /// Claims a key, or says what has become of it.
    ///
    /// # Errors
    ///
    /// A [`Fault`]: the key is as it was.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may have been claimed: [`withdraw`](Self::withdraw) it.
    pub async fn reserve(&self, reserve: Reserve) -> Result<Found, Fault> {
        let now = self.now();
        let room = self.room();
        let hash = key_hash(&reserve.row.key);
        let found = self.submit_if_room(move |connection, delta| {
            match holder(connection, hash, &reserve.id)? {
                Some(held) if held.is_gone(now) => {
                    let ledger_only = Some(now.wall);
                    loosen(connection, held.holder.seq, ledger_only, delta)?;
                    insert(connection, &reserve, hash, delta).map(|()| Some(Found::Claimed))
                }
                Some(held) => held.found(connection, now).map(Some),
                None if !room.fits(delta, Share::Keys, ROW_BYTES) => Ok(None),
                None => insert(connection, &reserve, hash, delta).map(|()| Some(Found::Claimed)),
            }
        })?;
        found.await?.ok_or(Fault::Crowded)
    }

    /// Takes back a claim under which nothing was sent; it leaves no row.
    pub fn withdraw(&self, seq: u64, epoch: u64) {
        self.post(move |connection, delta| {
            let gone = connection
                .prepare_cached(
                    "DELETE FROM exchanges WHERE seq = ?1 AND epoch = ?2 AND state = ?3",
                )?
                .execute(params![signed(seq), signed(epoch), State::InFlight])?;
            delta.keys -= i64::try_from(gone).unwrap_or(0);
            Ok(())
        });
    }

    /// Claims a key whose outcome is unknown, to send it again; false where it has gone on.
    ///
    /// # Errors
    ///
    /// A [`Fault`]: it is unknown as before.
    pub async fn resume(&self, seq: u64, epoch: u64, next: u64) -> Result<bool, Fault> {
        let resumed = self.submit_if_room(move |connection, _delta| {
            let changed = connection
                .prepare_cached(
                    "UPDATE exchanges SET state = ?4, epoch = ?3, landed = NULL, gone_at = NULL,
                            ended_at = NULL, ended_boot = NULL, ended_up = NULL
                     WHERE seq = ?1 AND epoch = ?2 AND state = ?5 AND holds = 1",
                )?
                .execute(params![
                    signed(seq),
                    signed(epoch),
                    signed(next),
                    State::InFlight,
                    State::Unknown
                ])?;
            Ok(changed == 1)
        })?;
        resumed.await
    }

    /// Notes what is asked.
    pub fn identify(&self, seq: u64, epoch: u64, fingerprint: Hash) {
        self.post(move |connection, _delta| {
            connection
                .prepare_cached(
                    "UPDATE exchanges SET fingerprint = ?3 WHERE seq = ?1 AND epoch = ?2",
                )?
                .execute(params![signed(seq), signed(epoch), fingerprint])
                .map(drop)
        });
    }

    /// Notes which life of the key it is in the store that replicas share.
    pub fn note_shared(&self, seq: u64, epoch: u64, shared_epoch: u64) {
        self.post(move |connection, _delta| {
            connection
                .prepare_cached(
                    "UPDATE exchanges SET shared_epoch = ?3 WHERE seq = ?1 AND epoch = ?2",
                )?
                .execute([signed(seq), signed(epoch), signed(shared_epoch)])
                .map(drop)
        });
    }

    /// Notes that the head of a good answer has come: from here on a crash leaves
    /// *answered, not retained*.
    pub fn land(&self, seq: u64, epoch: u64, status: u16, keep: i64) {
        self.post(move |connection, _delta| {
            connection
                .prepare_cached(
                    "UPDATE exchanges SET landed = ?3, ttl = 0, keep = ?4
                     WHERE seq = ?1 AND epoch = ?2 AND state = ?5",
                )?
                .execute(params![signed(seq), signed(epoch), status, keep, State::InFlight])
                .map(drop)
        });
    }

    /// Ends a claim, unless it is no longer this owner's to end. An answer for which
    /// there is no room is left out.
    ///
    /// # Errors
    ///
    /// A [`Fault`]: in the file it is in flight as before, and unknown after a crash.
    ///
    /// # Cancel safety
    ///
    /// It is done whether or not anybody waits for it.
    pub fn settle(&self, seq: u64, epoch: u64, settle: Settle) -> Pending<Settled> {
        let now = self.now();
        let ledger = self.0.options.ledger_micros;
        let (room, loose_max) = (self.room(), self.loose_max());
        self.submit(move |connection, delta| {
            let changed = end(connection, (seq, epoch), &settle, (now, ledger))?;
            if changed && !settle.holds {
                delta.keys -= 1;
                delta.loose += 1;
                thin(connection, loose_max, delta)?;
            }
            let answer = settle.answer.as_ref().filter(|answer| {
                changed && settle.holds && room.fits(delta, Share::Answers, answer.size)
            });
            if let Some(answer) = answer {
                keep(connection, seq, answer, now.wall + settle.ttl)?;
                delta.answers += signed(answer.size);
            }
            Ok(match (changed, answer) {
                (false, _) => Settled::Late,
                (true, None) => Settled::WithoutAnswer,
                (true, Some(_)) => Settled::WithAnswer,
            })
        })
    }

    /// Opens a key that nobody can ask for any more; its row stays in the ledger.
    ///
    /// # Errors
    ///
    /// A [`Fault`]: the key is as it was.
    pub async fn forget(&self, key: &str, id: Hash) -> Result<bool, Fault> {
        let (hash, now, ledger) = (key_hash(key), self.now(), self.0.options.ledger_micros);
        let forgotten =
            self.submit(move |connection, delta| match holder(connection, hash, &id)? {
                Some(held) if held.state != State::InFlight => {
                    loosen(connection, held.holder.seq, Some(now.wall + ledger), delta)?;
                    Ok(true)
                }
                Some(_) | None => Ok(false),
            });
        forgotten.await
    }

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

    fn found(self, connection: &Connection, now: Moment) -> rusqlite::Result<Found> {
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
            // In flight in the file and not in this process: its end could not be written.
            _ => Ok(Found::Unknown(Open { holder: self.holder, began: self.began })),
        }
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

fn insert(
    connection: &Connection,
    reserve: &Reserve,
    hash: i64,
    delta: &mut Delta,
) -> rusqlite::Result<()> {
    let row = &reserve.row;
    connection
        .prepare_cached(
            "INSERT INTO exchanges (seq, instance, id, key, key_hash, holds, epoch, state, route,
                                    method, url, fingerprint, scope, began_at, began_boot, began_up)
             VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
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
        ])?;
    delta.keys += 1;
    Ok(())
}

fn end(
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
                    attempts = CASE WHEN attempts IS NULL OR attempts = '' THEN ?7
                                    WHEN ?7 = '' THEN attempts ELSE attempts || ',' || ?7 END,
                    captured = coalesce(?8, captured), ttl = ?9, keep = ?10, gone_at = ?11,
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
        ])?;
    Ok(changed == 1)
}

/// Keeps an answer.
fn keep(connection: &Connection, seq: u64, answer: &Answer, until: i64) -> rusqlite::Result<()> {
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
        .prepare_cached("SELECT head, body, file, size FROM answers WHERE seq = ?1")?
        .query_row([signed(seq)], |row| {
            let body = match row.get::<_, Option<Hash>>(2)? {
                Some(hash) => At::File(hash),
                None => At::Row(row.get::<_, Option<Vec<u8>>>(1)?.unwrap_or_default()),
            };
            Ok(Answer { head: row.get(0)?, body, size: row.get::<_, i64>(3)?.cast_unsigned() })
        })
        .optional()
}

/// Opens the key of a settled row; the row stays until `gone_at`.
pub(super) fn loosen(
    connection: &Connection,
    seq: u64,
    gone_at: Option<i64>,
    delta: &mut Delta,
) -> rusqlite::Result<()> {
    let changed = connection
        .prepare_cached(
            "UPDATE exchanges SET holds = 0, gone_at = ?2 WHERE seq = ?1 AND holds = 1",
        )?
        .execute(params![signed(seq), gone_at])?;
    if changed == 1 {
        delta.keys -= 1;
        delta.loose += 1;
        drop_answer(connection, seq, delta)?;
    }
    Ok(())
}

/// Drops an answer; its file, where it has one, goes with the next sweep.
pub(super) fn drop_answer(
    connection: &Connection,
    seq: u64,
    delta: &mut Delta,
) -> rusqlite::Result<()> {
    let size: Option<i64> = connection
        .prepare_cached("DELETE FROM answers WHERE seq = ?1 RETURNING size")?
        .query_row([signed(seq)], |row| row.get(0))
        .optional()?;
    delta.answers -= size.unwrap_or(0);
    Ok(())
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
