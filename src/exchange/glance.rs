//! Looks into an answer's JSON before it is passed on.

use std::time::Duration;

use crate::exchange::json::{self, Node};
use crate::exchange::{Response, coding, headers};

/// Reads the beginning of an answer for what `see` finds in it, and gives the answer back
/// as it was; `None` where it is no JSON, or too large or too slow to be looked into.
///
/// # Cancel safety
///
/// Not cancel safe: what was read is lost.
pub async fn into_json<T>(
    mut response: Response,
    see: impl FnOnce(&Node<'_>) -> T,
) -> (Response, Option<T>) {
    let body = std::mem::take(&mut response.body);
    let peeked = body.peek(READ_MAX, READ_WITHIN).await;
    response.body = peeked.body;
    let encoding = headers::content_coding(&response.headers);
    let text = peeked.whole.as_ref();
    let text = text.and_then(|whole| coding::decode(encoding, whole, READ_MAX));
    let root = text.as_deref().map(json::parse);
    let seen = root.and_then(Result::ok).map(|root| see(&root));
    (response, seen)
}

/// `design.md`, section 6: at most 64 KiB of an answer are read to judge it. Errors and
/// the states of jobs are smaller; what is larger is a download.
pub const READ_MAX: usize = 64 * 1024;
/// An answer that trickles is handed on unread.
pub const READ_WITHIN: Duration = Duration::from_secs(2);
