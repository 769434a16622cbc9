//! Tables of what is tried again, and why not.

use std::num::NonZeroU32;

use http::StatusCode;

use super::*;
use crate::exchange::Statuses;
use crate::retry::tests::policy;
use crate::retry::{Backoff, Jitter, Triggers};

const MS: fn(u64) -> Duration = Duration::from_millis;
const SECS: fn(u64) -> Duration = Duration::from_secs;
const TICK: Duration = Duration::from_nanos(1);

/// What is decided, without the particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Pass,
    Again,
    Because(Stop),
}

/// A reason to stop, and how it comes to be there.
type Bar = (Stop, fn(&mut Facts));

pub(super) fn attempt(outcome: Outcome, status: u16) -> Classified {
    let status = StatusCode::from_u16(status).ok();
    Classified { outcome, status, did_nothing: false, timed_out: false, hopeless: false }
}

/// A first attempt that was answered 500, with everything in favour of another.
pub(super) fn facts() -> Facts {
    let now = Instant::now();
    Facts {
        attempt: attempt(Outcome::Failed, 500),
        made: 1,
        free_used: 0,
        hint: Hint::Absent,
        instructed: None,
        permanent: false,
        in_progress: false,
        repeatable: true,
        replayable: true,
        signed: None,
        off: false,
        sdk_retry: false,
        now,
        deadline: now + SECS(300),
    }
}

fn word(policy: &Policy, facts: &Facts) -> Word {
    match decide(policy, facts, 0.5) {
        Decision::Pass => Word::Pass,
        Decision::Stop(stop) => Word::Because(stop),
        Decision::Retry { .. } => Word::Again,
    }
}

fn unscattered() -> Policy {
    Policy { backoff: Backoff { jitter: Jitter::None, ..policy().backoff }, ..policy() }
}

pub(super) fn at_most(attempts: u32) -> Attempts {
    Attempts::AtMost(NonZeroU32::new(attempts).expect("not zero"))
}

#[test]
fn each_outcome_is_tried_again_where_that_is_harmless() {
    use Outcome::{Ambiguous, Done, Failed, NotSent, Refused, Replayed, Throttled};
    use Word::{Again, Pass};
    const UNSAFE: Word = Word::Because(Stop::Unsafe);
    let refusals = [403, 429, 500, 503, 529].into_iter().fold(Statuses::NONE, Statuses::with);
    // (`refused_by` holds the status, repeatable): neither, second, first, both.
    for (outcome, status, wanted) in [
        (NotSent, 0, [Again, Again, Again, Again]),
        (Refused, 0, [Again, Again, Again, Again]),
        (Throttled, 429, [UNSAFE, Again, Again, Again]),
        (Throttled, 503, [UNSAFE, Again, Again, Again]),
        (Throttled, 529, [UNSAFE, Again, Again, Again]),
        (Throttled, 403, [Pass, Pass, Pass, Pass]), // `on` does not hold it
        (Failed, 500, [UNSAFE, Again, UNSAFE, Again]),
        (Ambiguous, 0, [UNSAFE, Again, UNSAFE, Again]),
        (Replayed, 500, [Pass, Pass, Pass, Pass]),
        (Done, 200, [Pass, Pass, Pass, Pass]),
        (Done, 302, [Pass, Pass, Pass, Pass]),
        (Done, 404, [Pass, Pass, Pass, Pass]),
        (Done, 501, [Pass, Pass, Pass, Pass]),
    ] {
        let found = [(false, false), (false, true), (true, false), (true, true)].map(
            |(refused, repeatable)| {
                let refused_by = if refused { refusals } else { Statuses::NONE };
                let facts = Facts { attempt: attempt(outcome, status), repeatable, ..facts() };
                word(&Policy { refused_by, ..policy() }, &facts)
            },
        );
        assert_eq!(found, wanted, "{outcome:?} {status}");
    }
}

#[test]
fn what_is_still_under_way_is_asked_for_again_where_that_is_harmless() {
    use Word::{Again, Pass};
    for (status, in_progress, repeatable, wanted) in [
        (409, true, true, Again),
        (425, true, true, Again),
        (409, true, false, Word::Because(Stop::Unsafe)),
        (409, false, true, Pass),
        (302, true, true, Pass),
    ] {
        let attempt = attempt(Outcome::Done, status);
        let facts = Facts { attempt, in_progress, repeatable, ..facts() };
        assert_eq!(word(&policy(), &facts), wanted, "{status} {in_progress} {repeatable}");
    }
}

#[test]
fn what_the_route_does_not_list_is_passed_on() {
    let timed_out = Classified { timed_out: true, ..attempt(Outcome::Ambiguous, 0) };
    let on = policy().on;
    for (attempt, on) in [
        (attempt(Outcome::NotSent, 0), Triggers { connect: false, ..on }),
        (attempt(Outcome::Ambiguous, 0), Triggers { reset: false, ..on }),
        (timed_out, Triggers { timeout: false, ..on }),
        (attempt(Outcome::Throttled, 429), Triggers { statuses: on.statuses.without(429), ..on }),
    ] {
        let facts = Facts { attempt, ..facts() };
        assert_eq!(word(&policy(), &facts), Word::Again, "{attempt:?}");
        assert_eq!(word(&Policy { on, ..policy() }, &facts), Word::Pass, "{attempt:?}");
    }
}

#[test]
fn a_refused_certificate_and_a_stored_answer_are_never_tried_again() {
    let told = Facts { instructed: Some(Instruction::Retry), ..facts() };
    for outcome in Outcome::ALL {
        let hopeless = Classified { hopeless: true, ..attempt(outcome, 503) };
        assert_eq!(word(&policy(), &Facts { attempt: hopeless, ..told }), Word::Pass);
    }
    for status in [200, 429, 500, 503] {
        let replayed = attempt(Outcome::Replayed, status);
        assert_eq!(word(&policy(), &Facts { attempt: replayed, ..told }), Word::Pass);
    }
}

#[test]
fn an_upstream_can_ask_for_a_retry_and_lifts_no_other_bar() {
    use Outcome::{Done, Throttled};
    let because = Word::Because;
    let told = Facts { instructed: Some(Instruction::Retry), ..facts() };
    let unsafe_one = Facts { repeatable: false, ..told };
    let used_up = Facts { made: 4, ..told };
    for (facts, outcome, status, wanted) in [
        (told, Done, 409, Word::Again),
        (told, Done, 501, Word::Again),
        (told, Throttled, 403, Word::Again),
        (told, Done, 200, Word::Pass),
        (told, Done, 302, Word::Pass),
        (unsafe_one, Done, 409, because(Stop::Unsafe)),
        (unsafe_one, Throttled, 403, because(Stop::Unsafe)),
        (used_up, Done, 409, because(Stop::Attempts)),
    ] {
        let facts = Facts { attempt: attempt(outcome, status), ..facts };
        assert_eq!(word(&policy(), &facts), wanted, "{outcome:?} {status}");
    }
}

#[test]
fn of_several_reasons_to_stop_the_earliest_is_given() {
    const STALE: Signed = Signed { age: Duration::from_secs(241), single_use: false };
    let reasons: [Bar; 9] = [
        (Stop::Unsafe, |facts| facts.repeatable = false),
        (Stop::Body, |facts| facts.replayable = false),
        (Stop::Signed, |facts| facts.signed = Some(STALE)),
        (Stop::Off, |facts| facts.off = true),
        (Stop::UpstreamSaidNo, |facts| facts.instructed = Some(Instruction::Stop)),
        (Stop::Permanent, |facts| facts.permanent = true),
        (Stop::Attempts, |facts| facts.made = 4),
        (Stop::RetryAfter, |facts| facts.hint = Hint::Wait(SECS(121))),
        (Stop::Deadline, |facts| facts.deadline = facts.now),
    ];
    for present in 1..1_u32 << reasons.len() {
        let mut facts = facts();
        let holding = || (0..reasons.len()).filter(move |nth| present >> nth & 1 == 1);
        holding().for_each(|nth| reasons[nth].1(&mut facts));
        let first = holding().next().map(|nth| reasons[nth].0).expect("one holds");
        assert_eq!(word(&policy(), &facts), Word::Because(first), "{present:b}");
    }
}

#[test]
fn a_hint_is_obeyed_up_to_the_cap() {
    for (hint, wanted) in [
        (SECS(120).saturating_sub(TICK), Word::Again),
        (SECS(120), Word::Again),
        (SECS(120) + TICK, Word::Because(Stop::RetryAfter)),
        (Duration::MAX, Word::Because(Stop::RetryAfter)),
    ] {
        for outcome in [Outcome::Throttled, Outcome::Failed] {
            let attempt = attempt(outcome, 503);
            let facts = Facts { attempt, hint: Hint::Wait(hint), ..facts() };
            assert_eq!(word(&policy(), &facts), wanted, "{outcome:?} {hint:?}");
        }
    }
}

#[test]
fn no_wait_is_begun_that_would_pass_the_deadline() {
    let late = Word::Because(Stop::Deadline);
    for (hint, left, wanted) in [
        (Hint::Absent, MS(200), late), // the unscattered backoff is 200 ms
        (Hint::Absent, MS(200) + TICK, Word::Again),
        (Hint::Invalid, MS(200), late),
        (Hint::Wait(SECS(7)), SECS(7).saturating_sub(TICK), late),
        (Hint::Wait(SECS(7)), SECS(7), late),
        (Hint::Wait(SECS(7)), SECS(7) + TICK, Word::Again),
        (Hint::Absent, Duration::ZERO, late),
    ] {
        let base = facts();
        let attempt = attempt(Outcome::Throttled, 429);
        let facts = Facts { attempt, hint, deadline: base.now + left, ..base };
        assert_eq!(word(&unscattered(), &facts), wanted, "{hint:?} with {left:?} left");
    }
}

#[test]
fn a_failing_upstreams_hint_only_ever_raises_the_wait() {
    use Outcome::{Failed, Throttled};
    for (outcome, hint, wanted, whose) in [
        (Failed, Hint::Wait(MS(1)), MS(200), Asked::Backoff),
        (Failed, Hint::Wait(SECS(5)), SECS(5), Asked::Server),
        (Throttled, Hint::Wait(MS(1)), MS(1), Asked::Server),
        (Throttled, Hint::Absent, MS(200), Asked::Backoff),
        (Throttled, Hint::Invalid, MS(200), Asked::Backoff),
    ] {
        let facts = Facts { attempt: attempt(outcome, 503), hint, ..facts() };
        let Decision::Retry { wait, asked, .. } = decide(&unscattered(), &facts, 0.0) else {
            panic!("{outcome:?} is retried");
        };
        assert_eq!((wait, asked), (wanted, whose), "{outcome:?} {hint:?}");
    }
}

#[test]
fn a_retry_costs_what_the_attempt_before_did_to_the_upstream() {
    use Outcome::{Ambiguous, Done, Failed, NotSent, Refused, Throttled};
    let told = Hint::Wait(SECS(1));
    for (outcome, status, free_used, hint, wanted) in [
        (NotSent, 0, 0, Hint::Absent, Cost::Free),
        (NotSent, 0, 1, Hint::Absent, Cost::One),
        (Refused, 0, 0, Hint::Absent, Cost::Free),
        (Refused, 0, 1, Hint::Absent, Cost::One),
        (Throttled, 429, 0, told, Cost::Third),
        (Throttled, 429, 0, Hint::Absent, Cost::One),
        (Throttled, 429, 0, Hint::Invalid, Cost::One),
        (Failed, 500, 0, Hint::Absent, Cost::One),
        (Failed, 500, 0, told, Cost::One),
        (Ambiguous, 0, 0, Hint::Absent, Cost::Two),
        (Done, 409, 0, Hint::Absent, Cost::One),
    ] {
        let instructed = Some(Instruction::Retry);
        let attempt = attempt(outcome, status);
        let facts = Facts { attempt, free_used, hint, instructed, ..facts() };
        let Decision::Retry { cost, .. } = decide(&policy(), &facts, 0.5) else {
            panic!("{outcome:?} is retried");
        };
        assert_eq!(cost, wanted, "{outcome:?} {status} {hint:?} after {free_used}");
    }
}

#[test]
fn a_retry_is_counted_by_what_made_it_necessary() {
    use Outcome::{Ambiguous, Done, Failed, NotSent, Refused, Throttled};
    for (outcome, status, timed_out, wanted) in [
        (NotSent, 0, false, Reason::Connect),
        (NotSent, 0, true, Reason::Connect),
        (Refused, 0, false, Reason::Connect),
        (Ambiguous, 0, false, Reason::Reset),
        (Ambiguous, 0, true, Reason::Timeout),
        (Throttled, 429, false, Reason::Status429),
        (Throttled, 403, false, Reason::Status429),
        (Throttled, 529, false, Reason::Status5xx),
        (Failed, 503, false, Reason::Status5xx),
        (Done, 409, false, Reason::Status429),
    ] {
        let instructed = Some(Instruction::Retry);
        let attempt = Classified { timed_out, ..attempt(outcome, status) };
        let facts = Facts { attempt, instructed, ..facts() };
        let Decision::Retry { reason, .. } = decide(&policy(), &facts, 0.5) else {
            panic!("{outcome:?} is retried");
        };
        assert_eq!(reason, wanted, "{outcome:?} {status}");
    }
}

#[test]
fn attempts_are_counted_with_the_first_and_an_sdk_gets_one_retry_more() {
    let spent = Word::Because(Stop::Attempts);
    for (attempts, sdk_retry, made, wanted) in [
        (at_most(4), false, 3, Word::Again),
        (at_most(4), false, 4, spent),
        (at_most(4), false, 5, spent),
        (at_most(1), false, 1, spent),
        (at_most(4), true, 1, Word::Again),
        (at_most(4), true, 2, spent),
        (at_most(1), true, 1, spent),
        (Attempts::Unlimited, false, 1_000_000, Word::Again),
        (Attempts::Unlimited, true, 1, Word::Again),
        (Attempts::Unlimited, true, 2, spent),
    ] {
        let (policy, facts) =
            (Policy { attempts, ..policy() }, Facts { made, sdk_retry, ..facts() });
        assert_eq!(word(&policy, &facts), wanted, "{attempts:?} {sdk_retry} {made}");
    }
}

#[test]
fn a_signature_bars_a_retry_of_what_may_have_been_seen_once_it_is_old_or_used() {
    use Outcome::{Ambiguous, Failed, NotSent, Refused, Throttled};
    let signed = Word::Because(Stop::Signed);
    let fresh = Signed { age: SECS(240), single_use: false };
    let old = Signed { age: SECS(240) + TICK, ..fresh };
    let used = Signed { age: Duration::ZERO, single_use: true };
    for (outcome, status, wanted) in [
        (NotSent, 0, [Word::Again; 3]),
        (Refused, 0, [Word::Again; 3]),
        (Throttled, 429, [Word::Again, signed, signed]),
        (Failed, 500, [Word::Again, signed, signed]),
        (Ambiguous, 0, [Word::Again, signed, signed]),
    ] {
        let found = [fresh, old, used].map(|signature| {
            let attempt = attempt(outcome, status);
            word(&policy(), &Facts { attempt, signed: Some(signature), ..facts() })
        });
        assert_eq!(found, wanted, "{outcome:?}");
    }
}

#[test]
fn an_effect_is_repeatable_only_on_somebodys_word() {
    let now = Instant::now();
    let (held, over) = (Some(now + TICK), Some(now));
    for (method, dedupes_until, repeat_unsafe, wanted) in [
        ("GET", None, false, true),
        ("HEAD", None, false, true),
        ("OPTIONS", None, false, true),
        ("TRACE", None, false, true),
        ("PUT", None, false, true),
        ("DELETE", None, false, true),
        ("POST", None, false, false),
        ("PATCH", None, false, false),
        ("CONNECT", None, false, false),
        ("BREW", None, false, false),
        ("POST", held, false, true),
        ("POST", over, false, false),
        ("POST", None, true, true),
        ("PATCH", over, true, true),
    ] {
        let method = method.parse().expect("a method");
        let standing = Standing { dedupes_until, ..Standing::default() };
        let policy = Policy { repeat_unsafe, ..policy() };
        assert_eq!(repeatable(&method, &standing, &policy, now), wanted, "{method}");
    }
}
