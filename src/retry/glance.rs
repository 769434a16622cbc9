//! Looks into an answer before it is passed on, or put aside for another attempt.

use std::time::Duration;

use crate::exchange::glance::{READ_MAX, into_json};
use crate::exchange::trail::Says;
use crate::exchange::{Body, Failure, Response, headers};
use crate::retry::outcome::Classified;
use crate::retry::policy::Policy;

/// What the body of an answer said.
#[derive(Clone, Copy, Default)]
pub(super) struct Said {
    /// That no repetition will help (`never_when`).
    pub(super) permanent: bool,
    /// That a good status is a failure (`failed_when`).
    pub(super) says: Option<Says>,
}

/// Whether the route has something to look for in this answer.
pub(super) fn is_wanted(
    policy: &Policy,
    attempt: Classified,
    result: &Result<Response, Failure>,
) -> bool {
    let looks = if is_good(attempt) {
        !policy.failed_when.is_empty()
    } else {
        !policy.never_when.is_empty()
    };
    looks && result.as_ref().is_ok_and(|response| headers::is_json(&response.headers))
}

/// Reads the beginning of an answer, and what it says.
pub(super) async fn read(
    policy: &Policy,
    attempt: Classified,
    result: Result<Response, Failure>,
) -> (Result<Response, Failure>, Said) {
    let good = is_good(attempt);
    let response = match result {
        Ok(response) => response,
        Err(failure) => return (Err(failure), Said::default()),
    };
    let (response, said) = into_json(response, |root| {
        let permanent = !good && policy.never_when.iter().any(|never| never.holds(root));
        let failed = policy.failed_when.iter().find(|failed| good && failed.condition.holds(root));
        Said { permanent, says: failed.map(|failed| failed.means) }
    })
    .await;
    (Ok(response), said.unwrap_or_default())
}

fn is_good(attempt: Classified) -> bool {
    attempt.status.is_some_and(|status| status.is_success())
}

/// Frees the connection and the slot of an answer that is being retried, and
/// keeps the answer, if it is small, in case no further attempt can start.
pub(super) async fn set_aside(result: Result<Response, Failure>) -> Result<Response, Failure> {
    let mut response = result?;
    let body = std::mem::take(&mut response.body);
    let peeked = body.peek(READ_MAX, DRAIN_WITHIN).await;
    let Some(whole) = peeked.whole else {
        return Err(Failure::Protocol {
            detail: format!(
                "the upstream answered {} and no further attempt began",
                response.status
            ),
            broken: true,
        });
    };
    // Its bytes and no more: what is put down here holds neither slot nor connection.
    response.body = Body::full(whole);
    Ok(response)
}

/// `semantics.md`, rule 54: longer is dearer than a new connection.
const DRAIN_WITHIN: Duration = Duration::from_millis(200);
