//! Between what the store says and what the journal holds.

use bytes::Bytes;

use crate::exchange::id::ExchangeId;
use crate::exchange::trail::End;
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::store::disk::hot::Hot;
use crate::idempotency::store::{Completed, Record, Settlement, ledger};
use crate::journal::Bodies;
use crate::journal::key::{Answer, At, Done, Holder, Settle};
use crate::journal::ledger as rows;
use crate::journal::moment::micros;

/// An answer as the file has it, its body read from where it is.
pub(super) async fn read(bodies: &Bodies, done: Done) -> Hot {
    let record = match done.answer {
        None => None,
        Some(Answer { head, body: At::Row(body), .. }) => Record::unpack(&head, Bytes::from(body)),
        Some(Answer { head, body: At::File(hash), .. }) => {
            let bodies = bodies.clone();
            let read = tokio::task::spawn_blocking(move || bodies.read(&hash)).await;
            let read = read.map_err(std::io::Error::other).and_then(|read| read);
            match read {
                Ok(body) => Record::unpack(&head, body),
                Err(error) => {
                    tracing::error!(%error, "the body of an answer could not be read back");
                    None
                }
            }
        }
    };
    let done_at = Completed {
        fingerprint: done.holder.fingerprint.map(Fingerprint),
        exchange: name_of(&done.holder),
        record,
        captured: done.captured.as_deref().map(rows::captured).unwrap_or_default(),
    };
    Hot { done: done_at, ended: done.ended, ttl: done.ttl }
}

/// What is written of an end; a large body is on the disk when this returns.
pub(super) async fn ends(
    bodies: &Bodies,
    settlement: &Settlement,
    fingerprint: Option<Fingerprint>,
) -> Settle {
    let record = settlement.record.as_ref().filter(|_| ends_with_answer(settlement));
    let Some(record) = record else { return settle_row(settlement, None, fingerprint) };
    let body = if record.body().len() <= ROW_BODY_MAX {
        Some(At::Row(record.body().to_vec()))
    } else {
        write(bodies, record.body().clone()).await
    };
    let answer = body.map(|body| Answer { head: record.pack(), body, size: record.size() });
    settle_row(settlement, answer, fingerprint)
}

async fn write(bodies: &Bodies, body: Bytes) -> Option<At> {
    let bodies = bodies.clone();
    let written = tokio::task::spawn_blocking(move || bodies.write(&body)).await;
    match written.map_err(std::io::Error::other).and_then(|written| written) {
        Ok(hash) => Some(At::File(hash)),
        Err(error) => {
            tracing::warn!(%error, "an answer's body could not be kept");
            None
        }
    }
}

/// Whether the key is answered from then on, with or without an answer that is kept.
pub(super) fn ends_answered(settlement: &Settlement) -> bool {
    settlement.stays && matches!(settlement.end, End::Completed | End::NotRetained)
}

fn ends_with_answer(settlement: &Settlement) -> bool {
    settlement.stays && settlement.end == End::Completed
}

/// What is written of an end.
pub(super) fn settle_row(
    settlement: &Settlement,
    answer: Option<Answer>,
    fingerprint: Option<Fingerprint>,
) -> Settle {
    Settle {
        state: ledger::state(settlement.end),
        holds: settlement.stays && settlement.end != End::Released,
        status: ledger::status(&settlement.attempts),
        attempts: ledger::texts(&settlement.attempts),
        fingerprint: fingerprint.map(|fingerprint| fingerprint.0),
        captured: rows::captured_text(&settlement.captured),
        answer,
        ttl: micros(settlement.ttl),
        keep: micros(settlement.keep_key),
    }
}

pub(super) fn name_of(holder: &Holder) -> ExchangeId {
    ExchangeId::from_parts(holder.seq, holder.instance)
}

/// `design.md`, section 7: larger bodies go into files.
const ROW_BODY_MAX: usize = 256 * 1024;
