//! What is noted of a claim on its way; nobody waits for it.

use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::store::claim::Name;
use crate::idempotency::store::disk::{Disk, Flight};
use crate::idempotency::store::{Claim, Landing};
use crate::journal::key::Soon;
use crate::journal::ledger::captured_text;
use crate::journal::moment::micros;

impl Disk {
    pub(in crate::idempotency::store) fn identify(&self, name: &Name, fingerprint: Fingerprint) {
        let (seq, _) = name.exchange.parts();
        let flies = |flight: &Flight| flight.epoch == name.epoch;
        let ended = self.0.flights.get(&name.id).is_none_or(|flight| !flies(&flight));
        let soon = if ended { Soon::Yes } else { Soon::No };
        self.0.journal.identify((seq, name.epoch), fingerprint.0, soon);
    }

    pub(in crate::idempotency::store) fn capture(
        &self,
        name: &Name,
        captured: &[(String, String)],
    ) {
        let (seq, _) = name.exchange.parts();
        if let Some(text) = captured_text(captured) {
            self.0.journal.note_captured((seq, name.epoch), text);
        }
    }

    pub(in crate::idempotency::store) fn land(&self, claim: &Claim, landing: &Landing) {
        let (seq, _) = claim.exchange().parts();
        let (status, keep) = (landing.status.as_u16(), micros(landing.keep_key));
        let captured = captured_text(&landing.captured);
        self.0.journal.land((seq, claim.epoch()), status, keep, captured);
    }
}
