//! The transitions of a key, each one operation that is committed whole.
//!
//! Every one of them names the row and its epoch, and changes nothing where the row
//! has gone on without it: a late owner writes over nobody.

use rusqlite::{Connection, params};

use crate::journal::bodies::Hash;
use crate::journal::held::{Held, drop_answer, end, holder, insert, keep, loosen};
use crate::journal::key::{Found, Reserve, Settle, Settled, Soon};
use crate::journal::row::{State, key_hash, signed};
use crate::journal::sweep::thin;
use crate::journal::{Delta, Fault, Journal, Moment, Pending, ROW_BYTES, Room, Share, tags};

/// Makes room for another key, or for what else must not be refused: answers give way, those first that would go first.
pub(super) fn make_room(
    connection: &Connection,
    room: &Room,
    (now, bytes): (Moment, u64),
    delta: &mut Delta,
) -> rusqlite::Result<bool> {
    while !room.fits(delta, Share::Keys, bytes) {
        let mut oldest = connection.prepare_cached(
            "SELECT seq FROM answers WHERE size > 0 ORDER BY kept_until LIMIT 32",
        )?;
        let oldest = oldest.query_map([], |row| row.get::<_, i64>(0))?;
        let oldest = oldest.collect::<rusqlite::Result<Vec<_>>>()?;
        if oldest.is_empty() {
            return Ok(false);
        }
        for seq in oldest {
            drop_answer(connection, seq.cast_unsigned(), now, delta)?;
        }
    }
    Ok(true)
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
        let (now, ledger, room) = (self.now(), self.0.options.ledger_micros, self.room());
        let hash = key_hash(&reserve.row.key);
        let found = self.submit_if_room(move |connection, delta| {
            match holder(connection, hash, &reserve.id)? {
                Some(held) if held.is_gone(now) => {
                    let until = held.shown_until(now, ledger);
                    loosen(connection, held.holder.seq, (now, until), delta)?;
                    insert(connection, &reserve, hash, delta).map(|()| Some(Found::Claimed))
                }
                Some(held) => held.found(connection, now).map(Some),
                None if !make_room(connection, &room, (now, ROW_BYTES), delta)? => Ok(None),
                None => insert(connection, &reserve, hash, delta).map(|()| Some(Found::Claimed)),
            }
        })?;
        found.await?.ok_or(Fault::Crowded)
    }

    /// Takes back a claim under which nothing was sent; it leaves no row. `then` is told
    /// what came of that, waited for or not.
    ///
    /// # Errors
    ///
    /// A [`Fault`]: in the file it is in flight as before.
    ///
    /// # Cancel safety
    ///
    /// It is done whether or not anybody waits for it.
    pub fn withdraw(
        &self,
        (seq, epoch): (u64, u64),
        then: impl FnOnce(&Result<(), Fault>) + Send + 'static,
    ) -> Pending<()> {
        let withdraw = move |connection: &Connection, delta: &mut Delta| {
            let gone = connection
                .prepare_cached(
                    "DELETE FROM exchanges WHERE seq = ?1 AND epoch = ?2 AND state = ?3",
                )?
                .execute(params![signed(seq), signed(epoch), State::InFlight])?;
            delta.keys -= i64::try_from(gone).unwrap_or(0);
            Ok(())
        };
        self.submit_then(withdraw, then)
    }

    /// Claims a key whose outcome is unknown, to send it again with `tag` where that says; false
    /// where it has gone on.
    ///
    /// # Errors
    ///
    /// A [`Fault`]: it is unknown as before.
    pub async fn resume(
        &self,
        (seq, epoch): (u64, u64),
        next: u64,
        tag: Option<String>,
    ) -> Result<bool, Fault> {
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
            if changed == 1 {
                tags::narrow(connection, seq, tag.as_deref())?;
            }
            Ok(changed == 1)
        })?;
        resumed.await
    }

    /// Notes what is asked; `soon` where the end of the claim will not say it.
    pub fn identify(&self, (seq, epoch): (u64, u64), fingerprint: Hash, soon: Soon) {
        let identify = move |connection: &Connection, _delta: &mut Delta| {
            connection
                .prepare_cached(
                    "UPDATE exchanges SET fingerprint = ?3
                     WHERE seq = ?1 AND epoch = ?2 AND fingerprint IS NOT ?3",
                )?
                .execute(params![signed(seq), signed(epoch), fingerprint])
                .map(drop)
        };
        match soon {
            Soon::Yes => self.post(identify),
            // Most claims end within the moment, and their end says it too.
            Soon::No => self.put_off(identify),
        }
    }

    /// Notes ids that were taken from the request, while the claim is under way; its end
    /// says them too.
    pub fn note_captured(&self, (seq, epoch): (u64, u64), captured: String) {
        self.put_off(move |connection, _delta| {
            connection
                .prepare_cached(
                    "UPDATE exchanges SET captured = ?3 WHERE seq = ?1 AND epoch = ?2 AND state = ?4",
                )?
                .execute(params![signed(seq), signed(epoch), captured, State::InFlight])
                .map(drop)
        });
    }

    /// Notes that a key first went out at that time, by the wall clock of another machine.
    pub fn backdate(&self, seq: u64, epoch: u64, first_sent_wall: i64) {
        self.post(move |connection, _delta| {
            connection
                .prepare_cached(
                    "UPDATE exchanges SET began_at = ?3, began_boot = -1, began_up = 0
                     WHERE seq = ?1 AND epoch = ?2",
                )?
                .execute([signed(seq), signed(epoch), first_sent_wall])
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

    /// Adds attempts to a claim that goes on, and the last status that came; nobody waits
    /// for it.
    pub fn note_attempts(&self, (seq, epoch): (u64, u64), attempts: String, status: Option<u16>) {
        self.post(move |connection, _delta| {
            connection
                .prepare_cached(
                    "UPDATE exchanges SET attempts = concat_ws(',', nullif(attempts, ''), ?3),
                            status = coalesce(?4, status)
                     WHERE seq = ?1 AND epoch = ?2 AND state = ?5",
                )?
                .execute(params![signed(seq), signed(epoch), attempts, status, State::InFlight])
                .map(drop)
        });
    }

    /// Notes that the head of a good answer has come, and the ids that are known by then:
    /// from here on a crash leaves *answered, not retained*.
    pub fn land(&self, (seq, epoch): (u64, u64), status: u16, keep: i64, captured: Option<String>) {
        self.post(move |connection, _delta| {
            connection
                .prepare_cached(
                    "UPDATE exchanges SET landed = ?3, ttl = 0, keep = ?4,
                            captured = coalesce(?6, captured)
                     WHERE seq = ?1 AND epoch = ?2 AND state = ?5",
                )?
                .execute(params![
                    signed(seq),
                    signed(epoch),
                    status,
                    keep,
                    State::InFlight,
                    captured
                ])
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
        self.settle_then((seq, epoch), settle, |_settled| ())
    }

    /// As [`settle`](Self::settle); `then` is told what came of it, waited for or not.
    pub fn settle_then(
        &self,
        (seq, epoch): (u64, u64),
        settle: Settle,
        then: impl FnOnce(&Result<Settled, Fault>) + Send + 'static,
    ) -> Pending<Settled> {
        let now = self.now();
        let ledger = self.0.options.ledger_micros;
        let (room, loose_max) = (self.room(), self.loose_max());
        let act = move |connection: &Connection, delta: &mut Delta| {
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
        };
        self.submit_then(act, then)
    }

    /// Opens a key that nobody can ask for any more; its row stays in the ledger. `then`
    /// is told whether it was opened before anybody can claim it.
    ///
    /// # Errors
    ///
    /// A [`Fault`]: the key is as it was.
    ///
    /// # Cancel safety
    ///
    /// It is done whether or not anybody waits for it.
    pub fn forget(
        &self,
        key: &str,
        id: Hash,
        then: impl FnOnce(&Result<bool, Fault>) + Send + 'static,
    ) -> Pending<bool> {
        let (hash, now, ledger) = (key_hash(key), self.now(), self.0.options.ledger_micros);
        let forget = move |connection: &Connection, delta: &mut Delta| {
            let settled = |held: &Held| held.state != State::InFlight;
            let Some(held) = holder(connection, hash, &id)?.filter(settled) else {
                return Ok(false);
            };
            let until = now.wall.saturating_add(ledger);
            loosen(connection, held.holder.seq, (now, until), delta)?;
            Ok(true)
        };
        self.submit_then(forget, then)
    }
}
