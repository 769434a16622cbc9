//! How a claim ends: one pure function, and nothing else decides it.
//!
//! # Invariants
//!
//! - Ambiguity sticks: once an attempt may have had an effect, the claim ends in
//!   a good or replayed answer or in [`End::Unknown`], whatever came later.
//! - [`End::Released`] needs every attempt to have done nothing.

use http::{Method, StatusCode};

use crate::exchange::Outcome;
use crate::exchange::ending::{AskedBy, BodyCame, Ending, History, Kept, Resend};
use crate::exchange::trail::{Attempt, End, Says};

/// Decides how a claim ends.
pub fn ending(history: &History<'_>) -> Ending {
    let end = end(history);
    let stays = end != End::Released && history.asked_by != AskedBy::Nobody;
    // Two equal orders whose answers were both delivered stay two orders; an
    // answer of ours for an outcome that nobody knows settles nothing, though.
    let unanswered = history.attempts.last().is_none_or(|last| last.status.is_none());
    let undelivered = history.client_gone || end == End::Unknown && unanswered;
    let adoptable = stays && history.asked_by == AskedBy::Orphan && undelivered;
    Ending { end, stays, adoptable }
}

fn end(history: &History<'_>) -> End {
    let stuck = history.ambiguous_before || history.attempts.iter().any(is_ambiguous);
    let nothing_done = if stuck { End::Unknown } else { End::Released };
    let Some(last) = history.attempts.last() else { return nothing_done };
    let Some(status) = last.status else {
        return if last.did_nothing { nothing_done } else { End::Unknown };
    };
    match last.outcome {
        Outcome::NotSent | Outcome::Refused => nothing_done,
        Outcome::Ambiguous => End::Unknown,
        Outcome::Throttled | Outcome::Failed => {
            if last.did_nothing {
                nothing_done
            } else {
                End::Unknown
            }
        }
        Outcome::Replayed | Outcome::Done => answered(history, status, last, nothing_done),
    }
}

fn answered(history: &History<'_>, status: StatusCode, last: &Attempt, nothing_done: End) -> End {
    if status.is_success() || status.is_redirection() {
        return match (history.says, history.body, history.kept) {
            (Some(Says::Refused), BodyCame::Whole, _) => nothing_done,
            (Some(Says::Unknown), _, _) | (_, BodyCame::Broken, _) => End::Unknown,
            (None, BodyCame::Whole, Kept::Yes) => End::Completed,
            (None, BodyCame::Whole, Kept::No) => End::NotRetained,
        };
    }
    if !last.did_nothing {
        return End::Unknown; // 5xx, 408 and 409 say nothing about what was done
    }
    // A stored refusal is the upstream's last word on this key, whatever came before.
    if last.outcome == Outcome::Replayed { End::Released } else { nothing_done }
}

/// Whether an attempt may have had an effect that no later one undoes.
fn is_ambiguous(attempt: &Attempt) -> bool {
    match attempt.outcome {
        Outcome::Ambiguous => true,
        Outcome::Failed | Outcome::Throttled => !attempt.did_nothing,
        // A 408 or a 409 that the upstream wanted to see again.
        Outcome::Done => !attempt.did_nothing && attempt.status.is_some_and(is_error),
        Outcome::NotSent | Outcome::Refused | Outcome::Replayed => false,
    }
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// Whether a request whose outcome is unknown may be sent again under its key.
pub fn resend(
    method: &Method,
    dedupes: Option<bool>,
    repeat_unsafe: bool,
    asked_by: AskedBy,
) -> Resend {
    match dedupes {
        _ if repeat_unsafe || method.is_idempotent() => Resend::Always,
        Some(true) => Resend::WhilePromised,
        None if asked_by == AskedBy::Vouching => Resend::Always,
        None | Some(false) => Resend::Never,
    }
}

#[cfg(test)]
mod tests;
