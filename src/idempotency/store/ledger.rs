//! What the ledger is told, in its own plain words.

use std::time::{Duration, SystemTime};

use crate::exchange::id::ExchangeId;
use crate::exchange::trail::{self, End};
use crate::exchange::{Origin, query};
use crate::idempotency::store::{About, Settlement};
use crate::journal::ledger::{self as rows, Attempt, Entry, Note, written};
use crate::journal::moment::micros_of;
use crate::journal::resolve::Verdict;
use crate::journal::{Moment, NewRow, State};

/// An exchange as it begins.
pub fn row(exchange: ExchangeId, key: &str, about: &About, began: Moment) -> NewRow {
    let (seq, instance) = exchange.parts();
    NewRow {
        seq,
        instance,
        key: key.to_owned(),
        route: about.route.clone(),
        method: about.method.as_str().to_owned(),
        url: about.url.clone(),
        captured: rows::captured_text(&about.captured),
        began,
    }
}

/// A URL as the ledger shows it: of its query the names alone, and not without end.
pub fn url(origin: &Origin, path: &str, query: Option<&str>) -> String {
    let mut url = match query {
        None => format!("{origin}{path}"),
        Some(query) => format!("{origin}{path}?{}", query::names(query)),
    };
    let end = (0..=URL_MAX).rev().find(|end| url.is_char_boundary(*end)).unwrap_or(0);
    url.truncate(end.min(url.len()));
    url
}

/// An exchange that held no claim, as it ended.
pub fn note(
    row: NewRow,
    state: State,
    attempts: &[trail::Attempt],
    captured: &[(String, String)],
) -> Note {
    let ended = micros_of(SystemTime::now());
    let captured = rows::captured_text(captured);
    Note { row, state, status: status(attempts), attempts: texts(attempts), captured, ended }
}

/// Ends an entry as its claim was settled.
pub(super) fn end(entry: &mut Entry, settlement: &Settlement, ended: i64) {
    entry.state = state(settlement.end);
    entry.ended = Some(ended);
    entry.status = status(&settlement.attempts).or(entry.status);
    entry.attempts.extend(settlement.attempts.iter().map(attempt));
    if !settlement.captured.is_empty() {
        entry.captured.clone_from(&settlement.captured);
    }
}

/// The last status that came.
pub(super) fn status(attempts: &[trail::Attempt]) -> Option<u16> {
    attempts.last().and_then(|last| last.status).map(|status| status.as_u16())
}

/// The attempts as they stand in a row.
pub(super) fn texts(attempts: &[trail::Attempt]) -> String {
    let texts: Vec<String> = attempts.iter().map(|made| written(&attempt(made))).collect();
    texts.join(",")
}

/// How long ago a key first went out, at the most.
pub(super) fn age(first_sent: Moment, now: Moment) -> Option<Duration> {
    let micros = first_sent.most_age(now)?;
    Some(Duration::from_micros(micros.unsigned_abs()))
}

/// How long ago its last exchange ended, at the least.
pub(super) fn quiet(ended: Moment, now: Moment) -> Duration {
    Duration::from_micros(ended.least_age(now).unsigned_abs())
}

/// What becomes of an exchange whose claim ends like this.
pub fn state(end: End) -> State {
    match end {
        End::Completed | End::NotRetained => State::Completed,
        End::Released => State::Released,
        End::Unknown => State::Unknown,
    }
}

/// What becomes of one that was settled by hand.
pub(super) fn resolved(verdict: Verdict) -> State {
    match verdict {
        Verdict::Landed => State::Completed,
        Verdict::Absent => State::Released,
    }
}

/// What was settled by hand is known for as long as a derived key is: the default
/// of `keep_key`.
pub(super) const RESOLVED_FOR: Duration = Duration::from_hours(90 * 24);
/// A path can be as long as a listener takes; a row is read by people.
const URL_MAX: usize = 2048;

fn attempt(made: &trail::Attempt) -> Attempt {
    Attempt {
        outcome: made.outcome.as_str().to_owned(),
        status: made.status.map(|status| status.as_u16()),
        wait_ms: u64::try_from(made.waited.as_millis()).unwrap_or(u64::MAX),
        at: micros_of(made.at),
    }
}
