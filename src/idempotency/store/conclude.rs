//! Ends an unknown outcome by what the provider said of it.

use std::time::Duration;

use crate::exchange::Failure;
use crate::exchange::trail::End;
use crate::idempotency::store::{Asked, Open, Record, Settlement, Store, Told, ledger};

/// What the provider said of a key whose outcome was unknown.
#[derive(Clone, Debug)]
pub enum Finding {
    /// It did what was asked, and this is the answer.
    Answered {
        /// The answer.
        record: Record,
        /// Ids that were taken from it.
        captured: Vec<(String, String)>,
        /// How long the answer is kept.
        ttl: Duration,
        /// How long the key outlives it.
        keep_key: Duration,
    },
    /// It did what was asked; what it answered cannot be told.
    Landed,
    /// It did nothing: the key is free.
    Absent,
}

impl Store {
    /// Ends the unknown outcome that `open` is; false where it has gone on since: somebody
    /// resolved it, or sends its key again.
    ///
    /// It is claimed first, as for sending it again, so that of several who know better one
    /// is heard, on whichever replica; a crash in between leaves it unknown.
    ///
    /// # Errors
    ///
    /// [`Failure::StoreUnavailable`]: it is unknown as before.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it leaves what was unknown so, or the end.
    pub async fn conclude(
        &self,
        asked: &Asked,
        open: &Open,
        finding: Finding,
    ) -> Result<bool, Failure> {
        // What was asked is what it was: whoever concludes it may have asked something else.
        let asked = Asked {
            exchange: open.exchange,
            fingerprint: open.fingerprint,
            tag: open.tag.clone(),
            ..asked.clone()
        };
        let Some(claim) = self.resume(&asked, open).await? else { return Ok(false) };
        let known = self.show(open.exchange).await.ok().flatten();
        let known = known.map(|entry| entry.captured).unwrap_or_default();
        claim.settle(settlement(finding, known)).await;
        Ok(true)
    }
}

/// How the claim is settled, whose request brought the ids that are `known`.
fn settlement(finding: Finding, mut known: Vec<(String, String)>) -> Settlement {
    let (end, record, captured, told, ttl, keep_key) = match finding {
        Finding::Answered { record, captured, ttl, keep_key } => {
            let told = Told::Answer(record.clone());
            known.retain(|(name, _)| captured.iter().all(|(own, _)| own != name));
            known.extend(captured);
            (End::Completed, Some(record), known, told, ttl, keep_key)
        }
        Finding::Landed => {
            // As what an operator settles without an answer.
            let keep = ledger::RESOLVED_FOR;
            (End::NotRetained, None, known, Told::TooLarge, Duration::ZERO, keep)
        }
        Finding::Absent => {
            let none = Duration::ZERO;
            (End::Released, None, known, Told::AskAgain, none, none)
        }
    };
    let stays = end != End::Released;
    Settlement { end, stays, record, captured, told, ttl, keep_key, attempts: Vec::new() }
}
