//! What was sent for an application and answered on its behalf, until the application has it.
//!
//! A delivery is one operation that is committed before anybody is told. Its identity
//! outlives it, so that a repeat is known; its bytes go with its end.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::journal::bodies::Hash;
use crate::journal::claims::make_room;
use crate::journal::row::signed;
use crate::journal::{Delta, Fault, Journal, Moment, Pending, ROW_BYTES};

/// A delivery as it came.
#[derive(Clone, Debug)]
pub struct NewDelivery {
    /// The name of the route.
    pub route: String,
    /// What makes two deliveries one.
    pub id: Hash,
    /// Of the body.
    pub digest: Hash,
    /// Method, target and fields.
    pub head: Vec<u8>,
    /// The body.
    pub body: Bytes,
    /// When it came.
    pub came: Moment,
}

impl NewDelivery {
    /// Bytes that it counts for.
    pub fn size(&self) -> u64 {
        self.head.len() as u64 + self.body.len() as u64
    }
}

/// Whether a delivery is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is, and is kept under this number.
    New(u64),
    /// Its identity came before.
    Repeat(Alike),
}

/// How a repeat compares with what came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alike {
    /// It is the same to the byte.
    Same,
    /// Its body is another.
    Other,
}

/// A delivery that waits, without what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its number, which runs with arrival.
    pub seq: u64,
    /// What makes two deliveries one.
    pub id: Hash,
    /// Bytes that it counts for.
    pub size: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// When it came.
    pub came: Moment,
}

/// What is in a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Method, target and fields.
    pub head: Vec<u8>,
    /// The body.
    pub body: Vec<u8>,
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The application has it. A repeat is dropped.
    Delivered,
    /// It was given up. A repeat is taken for a new one.
    GivenUp,
}

impl Ended {
    fn state(self) -> i64 {
        match self {
            Self::Delivered => DELIVERED,
            Self::GivenUp => GIVEN_UP,
        }
    }
}

impl Journal {
    /// Takes a delivery in, unless its identity came before; `then` is told, waited for
    /// or not.
    ///
    /// # Errors
    ///
    /// A [`Fault`]: nothing of it is kept.
    ///
    /// # Cancel safety
    ///
    /// It is done whether or not anybody waits for it.
    pub fn take_in(
        &self,
        new: NewDelivery,
        then: impl FnOnce(&Result<Taken, Fault>) + Send + 'static,
    ) -> Pending<Taken> {
        if self.waiting() >= QUEUE_MAX {
            then(&Err(Fault::Behind));
            return Box::pin(std::future::ready(Err(Fault::Behind)));
        }
        let (now, room) = (self.now(), self.room());
        let act = move |connection: &Connection, delta: &mut Delta| {
            if let Some(alike) = known(connection, &new, delta)? {
                return Ok(Ok(Taken::Repeat(alike)));
            }
            if !make_room(connection, &room, (now, ROW_BYTES + new.size()), delta)? {
                return Ok(Err(Fault::Crowded));
            }
            insert(connection, &new, delta).map(|seq| Ok(Taken::New(seq)))
        };
        let taken = self.submit_then(act, move |done| then(&flat(*done)));
        Box::pin(async move { flat(taken.await) })
    }

    /// What waits on a route, in the order of arrival.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when it cannot be read.
    pub async fn waiting_deliveries(&self, route: String) -> Result<Vec<Waiting>, Fault> {
        self.submit(move |connection, _delta| {
            let mut rows = connection.prepare_cached(
                "SELECT seq, id, size, attempts, came_at, came_boot, came_up
                 FROM deliveries WHERE route = ?1 AND state = 0 ORDER BY seq",
            )?;
            let rows = rows.query_map([&route], |row| {
                Ok(Waiting {
                    seq: row.get::<_, i64>(0)?.cast_unsigned(),
                    id: row.get(1)?,
                    size: row.get::<_, i64>(2)?.cast_unsigned(),
                    attempts: row.get(3)?,
                    came: Moment { wall: row.get(4)?, boot: row.get(5)?, up: row.get(6)? },
                })
            })?;
            rows.collect()
        })
        .await
    }

    /// The routes on which anything waits, and how much of it.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when it cannot be read.
    pub async fn routes_with_deliveries(&self) -> Result<Vec<(String, u64)>, Fault> {
        self.submit(|connection, _delta| {
            let mut routes = connection.prepare_cached(
                "SELECT route, count(*) FROM deliveries WHERE state = 0 GROUP BY route",
            )?;
            let routes = routes
                .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?;
            routes.collect()
        })
        .await
    }

    /// What is in a delivery; `None` where it does not wait.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when it cannot be read.
    pub async fn delivery(&self, seq: u64) -> Result<Option<Contents>, Fault> {
        self.submit(move |connection, _delta| {
            connection
                .prepare_cached("SELECT head, body FROM deliveries WHERE seq = ?1 AND state = 0")?
                .query_row([signed(seq)], |row| {
                    Ok(Contents { head: row.get(0)?, body: row.get(1)? })
                })
                .optional()
        })
        .await
    }

    /// Notes how often a delivery was tried; nobody waits for it.
    pub fn note_tried(&self, seq: u64, attempts: u32) {
        self.post(move |connection, _delta| {
            connection
                .prepare_cached("UPDATE deliveries SET attempts = ?2 WHERE seq = ?1 AND state = 0")?
                .execute(params![signed(seq), attempts])
                .map(drop)
        });
    }

    /// Ends a delivery, and remembers it for `keep` microseconds more.
    ///
    /// # Errors
    ///
    /// A [`Fault`]: it waits as before.
    ///
    /// # Cancel safety
    ///
    /// It is done whether or not anybody waits for it.
    pub fn end_delivery(&self, seq: u64, ended: Ended, keep: i64) -> Pending<()> {
        let now = self.now();
        self.submit(move |connection, delta| {
            let size: Option<i64> = connection
                .prepare_cached("SELECT size FROM deliveries WHERE seq = ?1 AND state = 0")?
                .query_row([signed(seq)], |row| row.get(0))
                .optional()?;
            let Some(size) = size else { return Ok(()) };
            delta.answers -= size;
            connection
                .prepare_cached(
                    "UPDATE deliveries SET state = ?2, head = NULL, body = NULL, size = 0,
                            ended_at = ?3, ended_boot = ?4, ended_up = ?5, keep = ?6, gone_at = ?7
                     WHERE seq = ?1",
                )?
                .execute(params![
                    signed(seq),
                    ended.state(),
                    now.wall,
                    now.boot,
                    now.up,
                    keep,
                    now.wall.saturating_add(keep),
                ])
                .map(drop)
        })
    }
}

/// Whether an identity came before. One that was given up makes way: whoever sends it
/// again wants it delivered after all.
fn known(
    connection: &Connection,
    new: &NewDelivery,
    delta: &mut Delta,
) -> rusqlite::Result<Option<Alike>> {
    let found: Option<(i64, i64, Hash)> = connection
        .prepare_cached("SELECT seq, state, digest FROM deliveries WHERE id = ?1")?
        .query_row([&new.id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    match found {
        None => Ok(None),
        Some((seq, GIVEN_UP, _)) => forget(connection, seq, delta).map(|()| None),
        Some((_, _, digest)) if digest == new.digest => Ok(Some(Alike::Same)),
        Some(_) => Ok(Some(Alike::Other)),
    }
}

fn insert(connection: &Connection, new: &NewDelivery, delta: &mut Delta) -> rusqlite::Result<u64> {
    let Moment { wall, boot, up } = new.came;
    connection
        .prepare_cached(
            "INSERT INTO deliveries (route, id, digest, state, head, body, size, attempts,
                    came_at, came_boot, came_up)
             VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, 0, ?7, ?8, ?9)",
        )?
        .execute(params![
            new.route,
            new.id,
            new.digest,
            new.head,
            &*new.body,
            signed(new.size()),
            wall,
            boot,
            up,
        ])?;
    delta.keys += 1;
    delta.answers += signed(new.size());
    Ok(connection.last_insert_rowid().cast_unsigned())
}

/// Drops a row whose bytes went with its end.
pub(super) fn forget(connection: &Connection, seq: i64, delta: &mut Delta) -> rusqlite::Result<()> {
    delta.keys -= 1;
    connection.prepare_cached("DELETE FROM deliveries WHERE seq = ?1")?.execute([seq]).map(drop)
}

/// What was committed may still say that there is no room.
fn flat(taken: Result<Result<Taken, Fault>, Fault>) -> Result<Taken, Fault> {
    taken.and_then(|taken| taken)
}

const DELIVERED: i64 = 1;
const GIVEN_UP: i64 = 2;
/// Deliveries that wait to be written; each has a sender that waits for it.
const QUEUE_MAX: usize = 65_536;
