//! How every claim ends: the whole table, held against rules in prose; then the rows that matter.

use std::fmt;
use std::time::Duration;

use super::*;

/// A representative attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    /// No connection was made.
    Unsent,
    /// HTTP/2 refused it unprocessed.
    Nacked,
    /// It broke off, or timed out, with the request on its way.
    Broke,
    /// A status, its class, and whether it is agreed to mean that nothing was done.
    Status(u16, Outcome, bool),
}

const OK: Came = Came::Status(200, Outcome::Done, false);
const MOVED: Came = Came::Status(302, Outcome::Done, false);
const BAD: Came = Came::Status(400, Outcome::Done, true);
const LATE: Came = Came::Status(408, Outcome::Done, false);
const CONFLICT: Came = Came::Status(409, Outcome::Done, false);
const THROTTLED: Came = Came::Status(429, Outcome::Throttled, true);
/// A 429 of a route whose `refused_by` does not hold it.
const BUSY: Came = Came::Status(429, Outcome::Throttled, false);
const FAILED: Came = Came::Status(500, Outcome::Failed, false);
/// A 503 with Retry-After.
const OVERLOADED: Came = Came::Status(503, Outcome::Throttled, false);
const UNLISTED: Came = Came::Status(501, Outcome::Done, false);
const STORED: Came = Came::Status(200, Outcome::Replayed, false);
const STORED_NO: Came = Came::Status(402, Outcome::Replayed, true);
const STORED_FAILURE: Came = Came::Status(500, Outcome::Replayed, false);
use Came::{Broke, Nacked, Status, Unsent};

const ALL: [Came; 16] = [
    Unsent,
    Nacked,
    Broke,
    OK,
    MOVED,
    BAD,
    LATE,
    CONFLICT,
    THROTTLED,
    BUSY,
    FAILED,
    OVERLOADED,
    UNLISTED,
    STORED,
    STORED_NO,
    STORED_FAILURE,
];

impl Came {
    fn attempt(self) -> Attempt {
        let (outcome, status, did_nothing) = match self {
            Unsent => (Outcome::NotSent, None, true),
            Nacked => (Outcome::Refused, None, true),
            Broke => (Outcome::Ambiguous, None, false),
            Status(status, outcome, did_nothing) => (outcome, Some(status), did_nothing),
        };
        let status = status.map(|status| StatusCode::from_u16(status).expect("a status"));
        Attempt { outcome, status, did_nothing, waited: Duration::ZERO, at: std::time::UNIX_EPOCH }
    }

    fn is_good(self) -> bool {
        matches!(self, Status(200..=399, ..))
    }

    /// It did nothing: never sent, refused, or a definite no.
    fn did_nothing(self) -> bool {
        matches!(self, Unsent | Nacked | Status(_, _, true))
    }

    /// It may have done something, and nobody will ever know from it.
    fn may_have_landed(self) -> bool {
        !self.is_good() && !self.did_nothing()
    }

    fn is_stored(self) -> bool {
        matches!(self, Status(_, Outcome::Replayed, _))
    }
}

impl fmt::Debug for Came {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unsent => f.write_str("unsent"),
            Nacked => f.write_str("refused"),
            Broke => f.write_str("broke"),
            Status(status, outcome, _) => write!(f, "{status} {}", outcome.as_str()),
        }
    }
}

/// All that an end depends on beside the attempts.
#[derive(Clone, Copy, Debug)]
struct Around {
    ambiguous_before: bool,
    says: Option<Says>,
    body: BodyCame,
    kept: Kept,
    asked_by: AskedBy,
    client_gone: bool,
}

/// Its answer came whole and is kept, its client waits and vouches for the key.
const PLAIN: Around = Around {
    ambiguous_before: false,
    says: None,
    body: BodyCame::Whole,
    kept: Kept::Yes,
    asked_by: AskedBy::Vouching,
    client_gone: false,
};

const ASKERS: [AskedBy; 4] =
    [AskedBy::Vouching, AskedBy::Identity, AskedBy::Orphan, AskedBy::Nobody];

fn decided(came: &[Came], around: Around) -> Ending {
    let attempts: Vec<Attempt> = came.iter().map(|came| came.attempt()).collect();
    ending(&History {
        ambiguous_before: around.ambiguous_before,
        attempts: &attempts,
        says: around.says,
        body: around.body,
        kept: around.kept,
        asked_by: around.asked_by,
        client_gone: around.client_gone,
    })
}

/// Up to three attempts; none is made after a good answer or a stored one.
fn histories() -> Vec<Vec<Came>> {
    let mut all = vec![Vec::new()];
    let mut growing: Vec<Vec<Came>> = vec![Vec::new()];
    for _nth in 0..3 {
        let goes_on = |history: &&Vec<Came>| {
            history.last().is_none_or(|last: &Came| !last.is_good() && !last.is_stored())
        };
        let longer = growing.iter().filter(goes_on).flat_map(|history| {
            ALL.map(|next| history.iter().copied().chain([next]).collect::<Vec<_>>())
        });
        growing = longer.collect();
        all.extend(growing.iter().cloned());
    }
    all
}

fn surroundings() -> Vec<Around> {
    let with = |all: Vec<Around>, vary: fn(Around) -> Vec<Around>| -> Vec<Around> {
        all.into_iter().flat_map(vary).collect()
    };
    let all = vec![PLAIN];
    let all = with(all, |around| {
        [false, true].map(|ambiguous_before| Around { ambiguous_before, ..around }).to_vec()
    });
    let all = with(all, |around| {
        let says = [None, Some(Says::Refused), Some(Says::Unknown)];
        says.map(|says| Around { says, ..around }).to_vec()
    });
    let all = with(all, |around| {
        [BodyCame::Whole, BodyCame::Broken].map(|body| Around { body, ..around }).to_vec()
    });
    let all =
        with(all, |around| [Kept::Yes, Kept::No].map(|kept| Around { kept, ..around }).to_vec());
    let all = with(all, |around| ASKERS.map(|asked_by| Around { asked_by, ..around }).to_vec());
    with(all, |around| [false, true].map(|client_gone| Around { client_gone, ..around }).to_vec())
}

fn each(rule: impl Fn(&[Came], Around, Ending) -> bool, says: &str) {
    let surroundings = surroundings();
    for history in histories() {
        for around in &surroundings {
            let found = decided(&history, *around);
            assert!(rule(&history, *around, found), "{says}: {history:?} {around:?} {found:?}");
        }
    }
}

/// The end, told anew from what the promises say, and by no word of the code.
fn by_the_book(came: &[Came], around: Around) -> End {
    let last = came.last().copied();
    let answer = last.filter(|last| last.is_good());
    let whole = around.body == BodyCame::Whole;
    // A truncated success, and one that says itself that nobody knows.
    if answer.is_some() && (!whole || around.says == Some(Says::Unknown)) {
        return End::Unknown;
    }
    // A success, but for one whose body says that it was refused.
    if answer.is_some() && around.says.is_none() {
        return if around.kept == Kept::Yes { End::Completed } else { End::NotRetained };
    }
    // A stored refusal is the upstream's last word on the key.
    if last.is_some_and(|last| last.is_stored() && last.did_nothing()) {
        return End::Released;
    }
    // Free again only if every attempt did nothing, the refusing success included.
    let nothing_done = came.iter().all(|came| came.did_nothing() || Some(*came) == answer);
    if nothing_done && !around.ambiguous_before { End::Released } else { End::Unknown }
}

#[test]
fn every_row_ends_by_the_book() {
    let as_written = |came: &[Came], around, found: Ending| found.end == by_the_book(came, around);
    each(as_written, "the end differs from the book");
}

#[test]
fn ambiguity_sticks() {
    each(
        |came, around, found| {
            let stuck = around.ambiguous_before || came.iter().any(|came| came.may_have_landed());
            let released = found.end == End::Released;
            let last_word = came.last().is_some_and(|last| last.is_stored());
            !(stuck && released) || last_word
        },
        "a key is free although an attempt may have landed",
    );
}

#[test]
fn a_good_whole_answer_ends_whatever_was_before() {
    each(
        |came, around, found| {
            let good = came.last().is_some_and(|last| last.is_good())
                && around.body == BodyCame::Whole
                && around.says.is_none();
            !good || matches!(found.end, End::Completed | End::NotRetained)
        },
        "a good answer came whole",
    );
}

#[test]
fn a_key_is_released_only_if_every_attempt_did_nothing() {
    each(
        |came, around, found| {
            let refused = |came: &Came| came.is_good() && around.says == Some(Says::Refused);
            let stored = came.last().is_some_and(|last| last.is_stored());
            found.end != End::Released
                || stored
                || came.iter().all(|came| came.did_nothing() || refused(came))
        },
        "released, and something may have been done",
    );
}

#[test]
fn only_a_key_that_can_be_asked_for_stays_and_only_an_open_orphan_is_adopted() {
    each(
        |came, around, found| {
            let stays = found.end != End::Released && around.asked_by != AskedBy::Nobody;
            let ours = came.last().is_none_or(|last| last.attempt().status.is_none());
            let undelivered = around.client_gone || found.end == End::Unknown && ours;
            let adoptable = stays && around.asked_by == AskedBy::Orphan && undelivered;
            (found.stays, found.adoptable) == (stays, adoptable)
        },
        "who can ask again",
    );
}

#[test]
fn neither_who_asks_nor_who_left_changes_the_end() {
    for history in histories() {
        for around in surroundings() {
            let plain = Around { asked_by: AskedBy::Nobody, client_gone: false, ..around };
            assert_eq!(
                decided(&history, around).end,
                decided(&history, plain).end,
                "{history:?} {around:?}"
            );
        }
    }
}

#[test]
fn the_rows_that_matter_read_as_they_should() {
    use End::{Completed, NotRetained, Released, Unknown};
    let refused = Around { says: Some(Says::Refused), ..PLAIN };
    let unknown = Around { says: Some(Says::Unknown), ..PLAIN };
    let truncated = Around { body: BodyCame::Broken, ..PLAIN };
    let left_out = Around { kept: Kept::No, ..PLAIN };
    let again = Around { ambiguous_before: true, ..PLAIN };
    let rows: &[(&[Came], Around, End)] = &[
        // Good answers.
        (&[OK], PLAIN, Completed),
        (&[OK], left_out, NotRetained),
        (&[MOVED], left_out, NotRetained),
        (&[OK], truncated, Unknown),
        (&[OK], unknown, Unknown),
        (&[OK], refused, Released),
        (&[FAILED, OK], refused, Unknown),
        (&[OK], Around { body: BodyCame::Broken, ..refused }, Unknown),
        // Nothing was done.
        (&[], PLAIN, Released),
        (&[Unsent], PLAIN, Released),
        (&[Nacked], PLAIN, Released),
        (&[BAD], PLAIN, Released),
        (&[THROTTLED], PLAIN, Released),
        (&[THROTTLED, Unsent, BAD], PLAIN, Released),
        (&[BAD], truncated, Released),
        // Nobody knows.
        (&[Broke], PLAIN, Unknown),
        (&[FAILED], PLAIN, Unknown),
        (&[OVERLOADED], PLAIN, Unknown),
        (&[UNLISTED], PLAIN, Unknown),
        (&[LATE], PLAIN, Unknown),
        (&[CONFLICT], PLAIN, Unknown),
        (&[BUSY], PLAIN, Unknown),
        // Ambiguity sticks, within the exchange and across exchanges.
        (&[Broke, THROTTLED], PLAIN, Unknown),
        (&[Broke, BAD], PLAIN, Unknown),
        (&[Broke, Unsent], PLAIN, Unknown),
        (&[FAILED, BAD], PLAIN, Unknown),
        (&[OVERLOADED, BAD], PLAIN, Unknown),
        (&[CONFLICT, BAD], PLAIN, Unknown), // retried because the upstream said so
        (&[LATE, THROTTLED], PLAIN, Unknown),
        (&[], again, Unknown),
        (&[BAD], again, Unknown),
        (&[THROTTLED], again, Unknown),
        (&[Broke, OK], PLAIN, Completed),
        (&[FAILED, MOVED], PLAIN, Completed),
        (&[OK], again, Completed),
        // The upstream's own memory of the key.
        (&[STORED], PLAIN, Completed),
        (&[Broke, STORED], PLAIN, Completed),
        (&[STORED_NO], PLAIN, Released),
        (&[Broke, STORED_NO], PLAIN, Released),
        (&[STORED_NO], again, Released),
        (&[STORED_FAILURE], PLAIN, Unknown),
        (&[Broke, STORED_FAILURE], PLAIN, Unknown),
    ];
    for (came, around, wanted) in rows {
        assert_eq!(decided(came, *around).end, *wanted, "{came:?} {around:?}");
    }
}

#[test]
fn an_unknown_outcome_is_sent_again_only_on_somebodys_word() {
    use Resend::{Always, Never, WhilePromised};
    // Columns: vouching, identity, orphan, nobody.
    for (method, dedupes, repeat_unsafe, wanted) in [
        ("POST", None, false, [Always, Never, Never, Never]),
        ("POST", Some(true), false, [WhilePromised; 4]),
        ("POST", Some(false), false, [Never; 4]),
        ("PATCH", None, false, [Always, Never, Never, Never]),
        ("PATCH", Some(true), false, [WhilePromised; 4]),
        ("PATCH", Some(false), false, [Never; 4]),
        ("POST", None, true, [Always; 4]),
        ("POST", Some(true), true, [Always; 4]),
        ("POST", Some(false), true, [Always; 4]),
        ("PUT", None, false, [Always; 4]),
        ("PUT", Some(true), false, [Always; 4]),
        ("PUT", Some(false), false, [Always; 4]),
        ("DELETE", Some(false), false, [Always; 4]),
        ("BREW", None, false, [Always, Never, Never, Never]),
    ] {
        let method: Method = method.parse().expect("a method");
        let found = ASKERS.map(|asker| resend(&method, dedupes, repeat_unsafe, asker));
        assert_eq!(found, wanted, "{method} {dedupes:?} {repeat_unsafe}");
    }
}
