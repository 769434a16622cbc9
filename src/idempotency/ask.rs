//! What is asked of the store, and what an equal request would be found by.

use crate::exchange::body::{BodyError, Held};
use crate::exchange::ending::AskedBy;
use crate::exchange::{Failure, Request};
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::identify::Identified;
use crate::idempotency::key::Source;
use crate::idempotency::orphans::Likeness;
use crate::idempotency::scope::RecordId;
use crate::idempotency::terms::Shared;

/// What is asked of the store.
pub(super) struct Ask {
    pub(super) id: RecordId,
    pub(super) found: Identified,
    pub(super) adopted: bool,
    pub(super) likeness: Option<Likeness>,
    /// What is asked, where that was read off the body by then.
    pub(super) fingerprint: Option<Fingerprint>,
    /// Where in the request its key stands, for the provider to be asked by.
    pub(super) tag: Option<String>,
}

impl Ask {
    /// Who can ask for the key again.
    pub(super) fn asked_by(&self) -> AskedBy {
        match self.found.source {
            Source::Client => AskedBy::Vouching,
            Source::Header | Source::Identity | Source::Invocation => AskedBy::Identity,
            Source::Random if self.likeness.is_some() => AskedBy::Orphan,
            Source::Random => AskedBy::Nobody,
        }
    }
}

/// What an equal request would be found by; `None` where adoption is off, or the
/// body is not one that can be waited for.
pub(super) async fn likeness_of(
    shared: &Shared,
    request: &mut Request,
) -> Result<Option<Likeness>, Failure> {
    let on = !shared.terms.rules.adopt_orphans.is_zero();
    let caps = &shared.terms.caps;
    let most = caps.memory.saturating_add(caps.disk);
    // What cannot be kept whole cannot be read first and sent then.
    let fits = request.body.length().is_some_and(|length| length <= most);
    if !on || !fits || is_grpc(request) {
        return Ok(None);
    }
    let fingerprint = whole_fingerprint(shared, request).await?;
    if !request.replayable {
        // It was read to be compared and found no room: there is nothing left to send.
        return Err(Failure::StoreUnavailable("state.held_memory and state.held_disk are used up"));
    }
    Ok(Some((shared.scope(request), fingerprint)))
}

/// Reads the whole body, keeps it for sending, and takes its fingerprint.
pub(super) async fn whole_fingerprint(
    shared: &Shared,
    request: &mut Request,
) -> Result<Fingerprint, Failure> {
    let mut fingerprinter = shared.fingerprinter(request);
    let body = std::mem::take(&mut request.body);
    let held = Held::new(body, shared.terms.caps, &shared.room);
    let mut reading = held.reader();
    while let Some(frame) = http_body_util::BodyExt::frame(&mut reading).await {
        match frame {
            Ok(frame) => {
                if let Some(data) = frame.data_ref() {
                    fingerprinter.feed(data);
                }
            }
            Err(BodyError::Malformed(why)) => {
                return Err(Failure::BadRequest(why));
            }
            Err(_left) => return Err(Failure::ClientGone),
        }
    }
    request.body = held.reader();
    request.replayable = held.is_replayable();
    Ok(fingerprinter.finish())
}

fn is_grpc(request: &Request) -> bool {
    let kind = request.headers.get(http::header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
