//! From a free key to a claim, and what a claim is while it is held.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::held::Stray;
use super::script::{self, Call};
use super::wire::{self, Row};
use super::{Inner, Redis, Settled, Unavailable};
use crate::exchange::id::ExchangeId;
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::scope::RecordId;
use crate::idempotency::store::Record;

/// Who asks for a key.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// What the exchange is called; asking again under the same name finds the same claim.
    pub exchange: ExchangeId,
    /// What it asks, where that is known already.
    pub fingerprint: Option<Fingerprint>,
    /// When the key first goes upstream, in microseconds of the wall clock.
    pub first_sent_wall_micros: u64,
}

/// What became of asking for a key.
#[derive(Debug)]
pub enum Found {
    /// It is the asker's to send.
    Claimed {
        /// Which of the key's lives this is.
        epoch: u64,
        /// The life in which the key was last resolved `absent` or forgotten, while
        /// that is remembered: an unknown of an earlier one is no longer true.
        resolved_epoch: Option<u64>,
    },
    /// Somebody had it before.
    Taken(Taken),
}

/// What is known of a key.
#[derive(Debug)]
pub enum Peek {
    /// Nothing.
    Absent,
    /// It was resolved `absent` or forgotten, and is free.
    Resolved {
        /// The life in which that was.
        epoch: u64,
    },
    /// It is taken.
    Taken(Taken),
}

/// A key that somebody has claimed.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Which of its lives this is.
    pub epoch: u64,
    /// The process that had it last.
    pub owner: [u8; 16],
    /// The exchange that claimed it.
    pub exchange: ExchangeId,
    /// What was asked.
    pub fingerprint: Option<Fingerprint>,
    /// When it first went upstream, in microseconds of the wall clock.
    pub first_sent_wall_micros: u64,
    /// What has come of it.
    pub state: State,
}

/// What has come of a claim.
#[derive(Clone, Debug)]
pub enum State {
    /// Nothing yet.
    InFlight,
    /// It was answered.
    Completed {
        /// The answer, where it is kept here.
        record: Option<Record>,
        /// Ids that were taken from it.
        captured: Vec<(String, String)>,
        /// The process that keeps an answer too large for here.
        at: Option<[u8; 16]>,
    },
    /// Nobody knows.
    Unknown,
}

impl Redis {
    /// Claims a key, or says what has become of it.
    ///
    /// # Errors
    ///
    /// Whoever is told of one holds no claim. One that Redis may have noted all the
    /// same is taken back as soon as it can be reached.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe in the same way.
    pub async fn reserve(&self, id: RecordId, asked: Asked) -> Result<Found, Unavailable> {
        let inner = &*self.0;
        if inner.held.is_full() {
            return Err(Unavailable::Full);
        }
        let nonce = inner.nonce();
        let since = Instant::now();
        let call = inner
            .call(&script::RESERVE, &id)
            .arg(wire::exchange_to(asked.exchange))
            .arg(wire::fingerprint_to(asked.fingerprint))
            .arg(asked.first_sent_wall_micros)
            .arg(wire::micros(inner.lease))
            .arg(nonce);
        let stray = Stray { id, exchange: asked.exchange, nonce, since };
        let mut unheard = Unheard { inner, stray: Some(stray) };
        let heard = inner.links.run_replicated(&call).await?;
        let mut row = heard.row;
        let state = row.text()?;
        if state != "claimed" {
            unheard.stray = None;
            return Ok(Found::Taken(taken(&state, row)?));
        }
        if let Some(missed) = heard.missed {
            // Nothing was sent under it: it is taken back at once, or by the heartbeat.
            if inner.abandon(&stray).await.is_ok() {
                unheard.stray = None;
            }
            return Err(missed);
        }
        let (epoch, resolved_epoch) = (row.number()?, row.some_number()?);
        inner.held.insert(id, epoch, since);
        unheard.stray = None;
        Ok(Found::Claimed { epoch, resolved_epoch })
    }

    /// Says what is known of a key, and claims nothing.
    ///
    /// # Errors
    ///
    /// Where Redis cannot say.
    pub async fn peek(&self, id: RecordId) -> Result<Peek, Unavailable> {
        let mut row = self.0.links.run(&self.0.call(&script::PEEK, &id)).await?;
        let state = row.text()?;
        if state != "absent" {
            return taken(&state, row).map(Peek::Taken);
        }
        Ok(match row.some_number()? {
            Some(epoch) => Peek::Resolved { epoch },
            None => Peek::Absent,
        })
    }

    /// Claims a key whose outcome is unknown since `epoch`, to send it again; the
    /// claim's epoch, or `None` where somebody else was faster.
    ///
    /// # Errors
    ///
    /// Whoever is told of one holds no claim; the key is unknown again at the latest
    /// when the lease runs out.
    pub async fn resume(&self, id: RecordId, epoch: u64) -> Result<Option<u64>, Unavailable> {
        let inner = &*self.0;
        if inner.held.is_full() {
            return Err(Unavailable::Full);
        }
        let since = Instant::now();
        let call = inner
            .call(&script::RESUME, &id)
            .arg(epoch)
            .arg(wire::micros(inner.lease))
            .arg(inner.nonce());
        let heard = inner.links.run_replicated(&call).await?;
        let mut row = heard.row;
        let Some(epoch) = row.some_number()? else { return Ok(None) };
        if let Some(missed) = heard.missed {
            // Left alone, it is unknown again when the lease runs out.
            let undo = inner.settling(&id, epoch, &Settled::unknown());
            if let Err(error) = inner.links.run(&undo).await {
                tracing::debug!(%error, "a key that was not taken up stays in flight for a while");
            }
            return Err(missed);
        }
        inner.held.insert(id, epoch, since);
        Ok(Some(epoch))
    }

    /// Notes what is asked under a claim of this process; `false` where it is not its any more.
    ///
    /// # Errors
    ///
    /// Where Redis cannot say.
    pub async fn identify(
        &self,
        id: RecordId,
        epoch: u64,
        fingerprint: Fingerprint,
    ) -> Result<bool, Unavailable> {
        let call = self.0.call(&script::IDENTIFY, &id);
        let call = call.arg(epoch).arg(wire::fingerprint_to(Some(fingerprint)));
        self.0.links.run(&call).await?.flag()
    }

    /// Whether a claim of this process still holds: asked before each attempt.
    ///
    /// Redis is asked, which renews the lease, unless it was asked a moment ago. While
    /// Redis cannot be reached, a claim that was renewed within half a lease holds.
    ///
    /// # Errors
    ///
    /// Where Redis cannot say, and has not said lately: the attempt may not be made.
    pub async fn holds(&self, id: RecordId, epoch: u64) -> Result<bool, Unavailable> {
        let inner = &*self.0;
        let Some(lease) = inner.held.lease(&id, epoch) else { return Ok(false) };
        if lease.lost {
            return Ok(false);
        }
        if lease.renewed.elapsed() < inner.fresh {
            return Ok(true);
        }
        match inner.renew(id, epoch).await {
            Ok(holds) => Ok(holds),
            Err(unavailable) => {
                // The heartbeat may have been luckier, or may have heard that it is lost.
                let lease = inner.held.lease(&id, epoch).filter(|lease| !lease.lost);
                match lease {
                    None => Ok(false),
                    Some(lease) if lease.renewed.elapsed() < inner.lease / 2 => Ok(true),
                    Some(_) => Err(unavailable),
                }
            }
        }
    }

    /// Stops renewing a claim, which becomes unknown when its lease runs out: for an
    /// owner that is dropped and cannot wait.
    pub fn let_go(&self, id: RecordId, epoch: u64) {
        self.0.held.remove(&id, epoch);
    }
}

impl Inner {
    pub(super) fn call(&self, source: &'static script::Source, id: &RecordId) -> Call {
        Call::on(source, id, &self.owner)
    }

    /// A number that this process has not used before, for a script that may be run twice.
    pub(super) fn nonce(&self) -> u64 {
        self.nonces.fetch_add(1, Ordering::Relaxed)
    }

    /// Renews the lease of a claim; `false`, here too from now on, where it is lost.
    pub(super) async fn renew(&self, id: RecordId, epoch: u64) -> Result<bool, Unavailable> {
        let at = Instant::now();
        let call = self.call(&script::RENEW, &id).arg(epoch).arg(wire::micros(self.lease));
        let holds = self.links.run(&call).await?.flag()?;
        if holds {
            self.held.renewed(&id, epoch, at);
        } else {
            self.held.lost(&id, epoch);
        }
        Ok(holds)
    }

    /// Takes a reservation back; `true` where it was there.
    pub(super) async fn abandon(&self, stray: &Stray) -> Result<bool, Unavailable> {
        let call = self.call(&script::ABANDON, &stray.id);
        let call = call.arg(wire::exchange_to(stray.exchange)).arg(stray.nonce);
        self.links.run(&call).await?.flag()
    }
}

/// A reservation whose reply has not come; dropped as that, it is looked for later.
struct Unheard<'a> {
    inner: &'a Inner,
    stray: Option<Stray>,
}

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        if let Some(stray) = self.stray {
            self.inner.held.stray(stray);
        }
    }
}

/// Reads what `describe` in `lua/common.lua` writes.
pub(super) fn taken(state: &str, mut row: Row) -> Result<Taken, Unavailable> {
    let (epoch, owner) = (row.number()?, row.owner()?);
    let (exchange, fingerprint) = (row.exchange()?, row.fingerprint()?);
    let first_sent_wall_micros = row.number()?;
    let (captured, at, record) = (row.captured()?, row.some_owner()?, row.record()?);
    let state = match state {
        "in_flight" => State::InFlight,
        "completed" => State::Completed { record, captured, at },
        "unknown" => State::Unknown,
        _ => return Err(Unavailable::Garbled),
    };
    Ok(Taken { epoch, owner, exchange, fingerprint, first_sent_wall_micros, state })
}
