//! Looks into an answer before it is passed on, or put aside for another attempt.

use std::time::Duration;

use crate::exchange::trail::Says;
use crate::exchange::{Body, Condition, Failure, Response, coding, headers, json};
use crate::retry::outcome::Classified;
use crate::retry::policy::Policy;

/// What the body of an answer said.
#[derive(Clone, Copy, Default)]
pub(super) struct Said {
    /// That no repetition will help (`never_when`).
    pub(super) permanent: bool,
    /// That the first request under the key is still under way (`in_progress_when`).
    pub(super) in_progress: bool,
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
        !(policy.never_when.is_empty() && policy.in_progress_when.is_empty())
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
    let mut response = match result {
        Ok(response) => response,
        Err(failure) => return (Err(failure), Said::default()),
    };
    let body = std::mem::take(&mut response.body);
    let peeked = body.peek(READ_MAX, READ_WITHIN).await;
    response.body = peeked.body;
    let mut said = Said::default();
    let encoding = headers::content_coding(&response.headers);
    let text = peeked.whole.as_ref();
    let text = text.and_then(|whole| coding::decode(encoding, whole, READ_MAX));
    if let Some(Ok(root)) = text.as_deref().map(json::parse) {
        let bad = |conditions: &[Condition]| !good && conditions.iter().any(|it| it.holds(&root));
        said.permanent = bad(&policy.never_when);
        said.in_progress = bad(&policy.in_progress_when);
        let failed = policy.failed_when.iter().find(|failed| good && failed.condition.holds(&root));
        said.says = failed.map(|failed| failed.means);
    }
    (Ok(response), said)
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

/// `design.md`, section 6: at most 64 KiB of an answer are read to judge it.
const READ_MAX: usize = 64 * 1024;
/// An answer that trickles is handed on unread.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// `semantics.md`, rule 54: longer is dearer than a new connection.
const DRAIN_WITHIN: Duration = Duration::from_millis(200);
