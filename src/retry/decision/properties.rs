//! What holds of every decision, whatever comes.

use http::StatusCode;
use proptest::prelude::*;

use super::tests::{at_most, attempt, facts};
use super::*;
use crate::retry::tests::policy;

const MS: fn(u64) -> Duration = Duration::from_millis;
const SECS: fn(u64) -> Duration = Duration::from_secs;

fn some_facts() -> impl Strategy<Value = Facts> {
    let outcome = prop::sample::select(Outcome::ALL.to_vec());
    let status =
        prop::sample::select(vec![0_u16, 200, 302, 400, 403, 408, 409, 429, 500, 503, 529]);
    let hint = prop_oneof![
        Just(Hint::Absent),
        Just(Hint::Invalid),
        (1_u64..200_000).prop_map(|ms| Hint::Wait(MS(ms))),
    ];
    let word = prop::sample::select(vec![None, Some(Instruction::Stop), Some(Instruction::Retry)]);
    let signed = prop::option::of((0_u64..500, any::<bool>()));
    let (counts, left) = ((1_u32..7, 0_u32..3), 0_u64..400_000);
    let bars = prop::array::uniform4(prop::bool::weighted(0.1));
    let rest = (any::<bool>(), prop::bool::weighted(0.1), any::<bool>());
    (outcome, status, hint, word, signed, counts, left, bars, rest).prop_map(
        |(outcome, status, hint, instructed, signed, (made, free_used), left, bars, rest)| {
            let [permanent, lost, off, sdk_retry] = bars;
            let (repeatable, hopeless, timed_out) = rest;
            let base = facts();
            Facts {
                attempt: Classified { timed_out, hopeless, ..attempt(outcome, status) },
                made,
                free_used,
                hint,
                instructed,
                permanent,
                repeatable,
                replayable: !lost,
                signed: signed.map(|(age, single_use)| Signed { age: SECS(age), single_use }),
                off,
                sdk_retry,
                deadline: base.now + MS(left),
                ..base
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn a_retry_is_in_time_as_told_and_within_every_bound(
        facts in some_facts(), most in 1_u32..6, random in 0.0..1.0,
    ) {
        let policy = Policy { attempts: at_most(most), ..policy() };
        let Decision::Retry { wait, .. } = decide(&policy, &facts, random) else { return Ok(()) };
        let Classified { outcome, status, hopeless, .. } = facts.attempt;
        prop_assert!(wait > Duration::ZERO);
        prop_assert!(wait < facts.deadline - facts.now);
        if let Hint::Wait(hint) = facts.hint {
            prop_assert!(wait >= hint && hint <= policy.retry_after_max);
        }
        prop_assert!(facts.made < most);
        prop_assert!(!facts.sdk_retry || facts.made < 2);
        prop_assert!(outcome != Outcome::Replayed && !hopeless);
        prop_assert!(facts.replayable && !facts.off && !facts.permanent);
        prop_assert!(facts.instructed != Some(Instruction::Stop));
        let unsent = matches!(outcome, Outcome::NotSent | Outcome::Refused);
        let refused = outcome == Outcome::Throttled && status == Some(StatusCode::TOO_MANY_REQUESTS);
        prop_assert!(facts.repeatable || unsent || refused);
    }

    #[test]
    fn jitter_gives_way_to_a_deadline_that_the_hint_itself_meets(
        hint in 1_u64..120_000, spare in 1_u64..10_000, random in 0.0..1.0,
    ) {
        let (base, hint) = (facts(), MS(hint));
        let attempt = attempt(Outcome::Throttled, 429);
        let deadline = base.now + hint + MS(spare);
        let facts = Facts { attempt, hint: Hint::Wait(hint), deadline, ..base };
        let Decision::Retry { wait, asked, .. } = decide(&policy(), &facts, random) else {
            panic!("there is time for it");
        };
        prop_assert!(wait >= hint && wait < hint + MS(spare));
        prop_assert_eq!(asked, Asked::Server);
    }
}
