//! What routes of a kind start from, where neither they nor `defaults` say otherwise.

use std::time::Duration;

use crate::config::leaf::{Count, SECOND, Span, Word, WordOr};
use crate::config::reading::Reading;
use crate::config::retry::{RetryBlock, Unlimited};
use crate::config::route::RouteBlock;
use crate::retry::Growth;
use crate::route::Kind;

/// Writes into a route what its kind starts from.
pub(super) fn fill(block: &mut RouteBlock, at: &str, reading: &Reading<'_>) {
    let Some(Word(kind)) = block.kind else { return };
    for (_, key, write) in STARTS.iter().filter(|(of, ..)| *of == kind) {
        if !reading.wrote(&reading.written_at(at, key)) {
            write(&mut block.retry);
        }
    }
}

type Start = (Kind, &'static str, fn(&mut RetryBlock));

/// A key of a route, and what it is for a kind. A poll goes on for as long as it has
/// time: what it asks about goes on as well. A download is repeated soon and seldom.
const STARTS: &[Start] = &[
    (Kind::Poll, "retry.attempts", |retry| retry.attempts = WordOr::Word(Word(Unlimited))),
    (Kind::Fetch, "retry.attempts", |retry| retry.attempts = WordOr::Other(Count(3))),
    (Kind::Fetch, "retry.backoff.kind", |retry| retry.backoff.kind = Word(Growth::Linear)),
    // Neither goes against the other where that was written.
    (Kind::Fetch, "retry.backoff.initial", |retry| {
        if retry.backoff.max.duration() >= Duration::from_millis(500) {
            retry.backoff.initial = Span::of(500);
        }
    }),
    (Kind::Fetch, "retry.backoff.max", |retry| {
        if retry.backoff.initial.duration() <= Duration::from_secs(5) {
            retry.backoff.max = Span::of(5 * SECOND);
        }
    }),
];
