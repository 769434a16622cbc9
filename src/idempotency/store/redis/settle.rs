//! From a claim to its end, and what is written where there is no claim.

use std::time::Duration;

use super::script::{self, Call};
use super::wire;
use super::{Inner, Redis, Unavailable};
use crate::exchange::id::ExchangeId;
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::scope::RecordId;
use crate::idempotency::store::Record;

/// How a claim ends, and what those who wait for it on other replicas are told.
#[derive(Clone, Debug)]
pub struct Settled {
    /// The end.
    pub end: Ended,
    /// The exchange's answer whatever its status, where it is not the record; kept
    /// for a minute, and only up to [`TOLD_MAX`].
    pub told: Option<Record>,
}

/// How a claim ends.
#[derive(Clone, Debug)]
pub enum Ended {
    /// It was answered.
    Completed(Answered),
    /// Nothing was done: the key is free.
    Released,
    /// Nobody knows.
    Unknown,
}

/// An answer, and how long it is kept.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The answer, where it is worth keeping. Above [`RECORD_MAX`] it stays with this
    /// process, and Redis only notes with which.
    pub record: Option<Record>,
    /// Ids that were taken from it.
    pub captured: Vec<(String, String)>,
    /// How long the answer is kept.
    pub ttl: Duration,
    /// How long the key, its fingerprint and the captured ids outlive the answer.
    pub keep_key: Duration,
}

/// A local state that Redis has lost.
#[derive(Clone, Debug)]
pub struct Imposed {
    /// Its epoch, where Redis gave it one.
    pub epoch: Option<u64>,
    /// The exchange that did it, or tried.
    pub exchange: ExchangeId,
    /// What was asked.
    pub fingerprint: Option<Fingerprint>,
    /// When it first went upstream, in microseconds of the wall clock.
    pub first_sent_wall_micros: u64,
    /// The answer; `None` where nobody knows.
    pub answered: Option<Answered>,
}

/// What an unknown outcome turned out to be.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It was done.
    Landed {
        /// The exchange that did it, for a key of which Redis knows nothing.
        exchange: ExchangeId,
        /// What was asked, for the same.
        fingerprint: Option<Fingerprint>,
        /// Ids that it goes by.
        captured: Vec<(String, String)>,
    },
    /// It was not done: the key is free.
    Absent,
}

/// What became of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// It stands.
    Done {
        /// The life that begins, or ended, with it.
        epoch: u64,
    },
    /// Somebody is sending the key again.
    InFlight,
    /// It was answered.
    Completed,
    /// It is not the unknown that was meant.
    Changed,
}

impl Settled {
    /// Nobody knows, and nothing is told.
    pub fn unknown() -> Self {
        Self { end: Ended::Unknown, told: None }
    }
}

impl Redis {
    /// Ends a claim of this process; `false` where it is another's by now, and nothing changed.
    ///
    /// A claim whose lease ran out, and that nobody took up, is still this process's to
    /// end: the answer is the truth. Settling it again in the same way is no error.
    ///
    /// # Errors
    ///
    /// Where Redis cannot say. The claim is not renewed any more: it is unknown when its
    /// lease runs out, until this is tried again.
    pub async fn settle(
        &self,
        id: RecordId,
        epoch: u64,
        settled: Settled,
    ) -> Result<bool, Unavailable> {
        let inner = &*self.0;
        inner.held.remove(&id, epoch);
        let call = inner.settling(&id, epoch, &settled);
        self.heard_of(inner.links.run_replicated(&call).await?).flag()
    }

    /// Writes down a state of this process's where Redis has none, as after it lost
    /// its data; `false` where it has one, or remembers that a later life of the key
    /// was resolved or forgotten.
    ///
    /// # Errors
    ///
    /// Where Redis cannot say.
    pub async fn impose(&self, id: RecordId, imposed: Imposed) -> Result<bool, Unavailable> {
        let inner = &*self.0;
        let answered = imposed.answered.as_ref();
        let kept = Kept::new(answered, &inner.owner);
        let call = inner
            .call(&script::IMPOSE, &id)
            .arg(if answered.is_some() { "completed" } else { "unknown" })
            .arg(imposed.epoch.unwrap_or(0))
            .arg(wire::exchange_to(imposed.exchange))
            .arg(wire::fingerprint_to(imposed.fingerprint))
            .arg(imposed.first_sent_wall_micros)
            .arg(kept.captured)
            .arg(kept.at)
            .arg(kept.answer)
            .arg(kept.ttl)
            .arg(kept.keep);
        self.heard_of(inner.links.run_replicated(&call).await?).flag()
    }

    /// Ends an unknown outcome: the one of `epoch`, where it is given, or whichever
    /// there is; also one of which Redis knows nothing. The verdict is remembered for
    /// `keep`, and by then no replica may still hold the unknown.
    ///
    /// # Errors
    ///
    /// Where Redis cannot say.
    pub async fn resolve(
        &self,
        id: RecordId,
        epoch: Option<u64>,
        verdict: &Verdict,
        keep: Duration,
    ) -> Result<Resolution, Unavailable> {
        let inner = &*self.0;
        let call = inner
            .call(&script::RESOLVE, &id)
            .arg(epoch.map(|epoch| epoch.to_string()).unwrap_or_default());
        let (word, exchange, fingerprint, captured) = match verdict {
            Verdict::Absent => ("absent", String::new(), None, Vec::new()),
            Verdict::Landed { exchange, fingerprint, captured } => {
                let captured = wire::captured_to(captured);
                ("landed", wire::exchange_to(*exchange), *fingerprint, captured)
            }
        };
        let call = call
            .arg(word)
            .arg(wire::millis(keep).max(1))
            .arg(inner.nonce())
            .arg(exchange)
            .arg(wire::fingerprint_to(fingerprint))
            .arg(captured);
        let mut row = self.heard_of(inner.links.run_replicated(&call).await?);
        match row.text()?.as_str() {
            "done" => Ok(Resolution::Done { epoch: row.number()? }),
            "in_flight" => Ok(Resolution::InFlight),
            "completed" => Ok(Resolution::Completed),
            "changed" => Ok(Resolution::Changed),
            _ => Err(Unavailable::Garbled),
        }
    }

    /// Forgets a key that was answered; `false` where it was not. For `keep` it is
    /// remembered that this was meant, so that no replica writes its own copy back.
    ///
    /// # Errors
    ///
    /// Where Redis cannot say.
    pub async fn forget(&self, id: RecordId, keep: Duration) -> Result<bool, Unavailable> {
        let inner = &*self.0;
        let call = inner.call(&script::FORGET, &id).arg(wire::millis(keep));
        self.heard_of(inner.links.run_replicated(&call).await?).flag()
    }
}

impl Inner {
    pub(super) fn settling(&self, id: &RecordId, epoch: u64, settled: &Settled) -> Call {
        let (ending, answered) = match &settled.end {
            Ended::Completed(answered) => ("completed", Some(answered)),
            Ended::Released => ("released", None),
            Ended::Unknown => ("unknown", None),
        };
        let kept = Kept::new(answered, &self.owner);
        let told = settled.told.as_ref().filter(|told| told.body().len() <= TOLD_MAX);
        // An answer that is kept tells for itself.
        let told = told.filter(|_| kept.answer.is_empty()).map(wire::record_to);
        self.call(&script::SETTLE, id)
            .arg(epoch)
            .arg(ending)
            .arg(kept.captured)
            .arg(kept.at)
            .arg(kept.answer)
            .arg(kept.ttl)
            .arg(kept.keep)
            .arg(told.unwrap_or_default())
            .arg(wire::millis(TOLD_TTL))
    }
}

/// An answer as Redis keeps it.
#[derive(Default)]
struct Kept {
    captured: Vec<u8>,
    /// The owner, where the answer stays with it.
    at: Vec<u8>,
    answer: Vec<u8>,
    ttl: u64,
    keep: u64,
}

impl Kept {
    fn new(answered: Option<&Answered>, owner: &[u8; 16]) -> Self {
        let Some(answered) = answered else { return Self::default() };
        let record = answered.record.as_ref();
        let fits = record.filter(|record| record.body().len() <= RECORD_MAX);
        let stays_local = record.is_some() && fits.is_none();
        Self {
            captured: wire::captured_to(&answered.captured),
            at: if stays_local { owner.to_vec() } else { Vec::new() },
            answer: fits.map(wire::record_to).unwrap_or_default(),
            ttl: wire::millis(answered.ttl),
            keep: wire::millis(answered.ttl.saturating_add(answered.keep_key)),
        }
    }
}

/// A larger answer stays with the process that has it.
pub const RECORD_MAX: usize = 256 * 1024;
/// A larger answer is not told to those who wait elsewhere, unless it is the record.
pub const TOLD_MAX: usize = 64 * 1024;
/// Longer than anybody waits for an exchange in flight.
const TOLD_TTL: Duration = Duration::from_mins(1);
