//! What an attempt came to: exactly one class, read off its response or its failure.

use http::{HeaderMap, StatusCode};

use crate::exchange::{Failure, Outcome, Response, Stop, hint};
use crate::retry::Policy;

/// An attempt, classified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "three facts, none of which follows from another"
)]
pub struct Classified {
    /// Its class.
    pub outcome: Outcome,
    /// Its status, where one came.
    pub status: Option<StatusCode>,
    /// Whether it is proved, or agreed in the trade, that nothing was done.
    pub did_nothing: bool,
    /// Whether it ended because no answer came in time.
    pub timed_out: bool,
    /// Whether another attempt cannot help: a certificate that was refused, or a proxy's rule.
    pub hopeless: bool,
}

/// Classifies an attempt; `None` where none was made: a request that is still
/// being held back, or that may not go where it wants to.
pub fn classify(result: &Result<Response, Failure>, policy: &Policy) -> Option<Classified> {
    match result {
        Ok(response) => Some(of_response(response.status, &response.headers, policy)),
        Err(failure) => of_failure(failure),
    }
}

/// Why no attempt follows that was due: it was held back, which left `result`.
pub fn held_back_by(result: &Result<Response, Failure>) -> Stop {
    match result {
        // Another replica may be sending the key.
        Err(Failure::StoreUnavailable(_)) => Stop::Unsafe,
        _ => Stop::Deadline,
    }
}

fn of_response(status: StatusCode, headers: &HeaderMap, policy: &Policy) -> Classified {
    let outcome = if is_replay(headers) {
        Outcome::Replayed
    } else if hint::throttles(status, headers) {
        Outcome::Throttled
    } else if policy.on.statuses.contains(status) {
        Outcome::Failed
    } else {
        Outcome::Done
    };
    let did_nothing = policy.refused_by.contains(status) || refuses(status);
    Classified { outcome, status: Some(status), did_nothing, timed_out: false, hopeless: false }
}

fn of_failure(failure: &Failure) -> Option<Classified> {
    let (outcome, timed_out, hopeless) = match failure {
        Failure::Unreachable { .. } => (Outcome::NotSent, false, false),
        Failure::Tls { verification, .. } => (Outcome::NotSent, false, *verification),
        Failure::TimedOut { sent, .. } => {
            (if *sent { Outcome::Ambiguous } else { Outcome::NotSent }, true, false)
        }
        Failure::Refused => (Outcome::Refused, false, false),
        Failure::Protocol { .. } => (Outcome::Ambiguous, false, false),
        // Of a client that left, the last byte never went: what arrived is no request.
        Failure::Barred { .. } | Failure::ClientGone => (Outcome::NotSent, false, true),
        Failure::BadRequest(_)
        | Failure::Unfit(_)
        | Failure::HeaderTooLarge
        | Failure::KeyInvalid(_)
        | Failure::KeyMissing(_)
        | Failure::Forbidden(_)
        | Failure::ProxyAuth
        | Failure::InProgress { .. }
        | Failure::OutcomeUnknown(_)
        | Failure::NotRetained { .. }
        | Failure::Misdirected
        | Failure::KeyReused(_)
        | Failure::Overloaded
        | Failure::LimitWait { .. }
        | Failure::InsufficientCredits { .. }
        | Failure::StoreUnavailable(_)
        | Failure::Loop
        | Failure::ReplaySuspended => return None,
    };
    let did_nothing = matches!(outcome, Outcome::NotSent | Outcome::Refused);
    Some(Classified { outcome, status: None, did_nothing, timed_out, hopeless })
}

/// A definite no: a client error, but for those that say something about time.
///
/// 408 may come after the request was processed, 409 may mean that the first try
/// is still running, and 429 proves something only where `refused_by` says so.
fn refuses(status: StatusCode) -> bool {
    status.is_client_error() && !matches!(status.as_u16(), 408 | 409 | 429)
}

/// `Idempotent-Replayed: true`, the convention of Stripe and those who follow it.
fn is_replay(headers: &HeaderMap) -> bool {
    headers
        .get("idempotent-replayed")
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::exchange::Body;
    use crate::retry::tests::policy;

    fn check(status: u16, fields: &[(&'static str, &str)], wanted: (Outcome, bool)) {
        let status = StatusCode::from_u16(status).expect("a status");
        let mut response = Response::new(status, Body::empty());
        for (name, value) in fields {
            response.headers.insert(*name, value.parse().expect("a value"));
        }
        let found = classify(&Ok(response), &policy()).expect("an attempt");
        assert_eq!((found.outcome, found.did_nothing), wanted, "{status} {fields:?}");
    }

    #[test]
    fn every_response_has_one_class() {
        use Outcome::{Done, Failed, Replayed, Throttled};
        check(200, &[], (Done, false));
        check(400, &[], (Done, true));
        check(408, &[], (Done, false));
        check(409, &[], (Done, false));
        check(429, &[], (Throttled, true));
        check(403, &[], (Done, true));
        check(403, &[("retry-after", "3")], (Throttled, true));
        check(403, &[("x-ratelimit-remaining", "0")], (Throttled, true));
        check(500, &[], (Failed, false));
        check(501, &[], (Done, false));
        check(505, &[], (Done, false));
        check(503, &[], (Failed, false));
        check(503, &[("retry-after", "1")], (Throttled, false));
        check(529, &[], (Throttled, false));
        check(500, &[("idempotent-replayed", "true")], (Replayed, false));
        check(429, &[("idempotent-replayed", "TRUE")], (Replayed, true));
    }

    #[test]
    fn every_failure_says_what_was_sent() {
        let secs = Duration::from_secs(1);
        let unreachable = || Failure::Unreachable { detail: String::new(), kind: "dns_error" };
        for (failure, wanted) in [
            (unreachable(), Some((Outcome::NotSent, true))),
            (
                Failure::Barred { detail: String::new(), kind: "http_request_denied" },
                Some((Outcome::NotSent, true)),
            ),
            (
                Failure::Tls { detail: String::new(), verification: true },
                Some((Outcome::NotSent, true)),
            ),
            (Failure::Refused, Some((Outcome::Refused, true))),
            (
                Failure::Protocol { detail: String::new(), broken: true },
                Some((Outcome::Ambiguous, false)),
            ),
            (Failure::TimedOut { after: secs, sent: true }, Some((Outcome::Ambiguous, false))),
            (Failure::TimedOut { after: secs, sent: false }, Some((Outcome::NotSent, true))),
            (Failure::ClientGone, Some((Outcome::NotSent, true))),
            (Failure::LimitWait { retry_after: secs }, None),
            (Failure::InsufficientCredits { detail: String::new(), retry_after: None }, None),
            (Failure::Loop, None),
        ] {
            let text = failure.to_string();
            let found = classify(&Err(failure), &policy());
            let found = found.map(|found| (found.outcome, found.did_nothing));
            assert_eq!(found, wanted, "{text}");
        }
    }
}
