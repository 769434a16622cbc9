//! What `state` may say of how much is remembered, and what it comes to.

use super::{check, loaded};
use crate::idempotency::lookup;
use crate::poll;

#[test]
fn what_is_remembered_has_bounds_that_have_their_own() {
    let within = |key: &str, least: &str, most: &str, (under, over): (&str, &str)| {
        let of = |value: &str| format!("state: {{{key}: {value}}}");
        let told = |wish: &str, got: &str| format!("1: state.{key}: must be {wish} (got {got})");
        check(&[
            (&of(least), &[]),
            (&of(most), &[]),
            (&of(under), &[&told(&format!("at least {least}"), under)]),
            (&of(over), &[&told(&format!("at most {most}"), over)]),
        ]);
    };
    within("polled_jobs", "1", "1000000", ("0", "1000001"));
    within("followed_lookups", "1", "1000000", ("0", "1000001"));
    within("lookup_turns", "1", "1000", ("0", "1001"));
    within("credit_accounts", "1", "1000000", ("0", "1000001"));
    check(&[
        ("state: {polled_memory: 1B}", &[]),
        ("state: {polled_memory: 0B}", &["1: state.polled_memory: must be at least 1B (got `0B`)"]),
    ]);
}

#[test]
fn each_bound_is_the_one_that_was_written() {
    let state = loaded("state: {polled_jobs: 2, polled_memory: 3KiB}").state;
    assert_eq!(state.polls, poll::Most { jobs: 2, bytes: 3 << 10 });
    let state = loaded("state: {followed_lookups: 4, lookup_turns: 5}").state;
    assert_eq!(state.lookups, lookup::Most { followed: 4, turns: 5 });
    assert_eq!(loaded("state: {credit_accounts: 6}").state.credit_accounts, 6);
    let state = loaded("").state;
    assert_eq!(state.credit_accounts, 16_384);
    assert_eq!(state.lookups, lookup::Most { followed: 1000, turns: 16 });
    assert_eq!(state.polls, poll::Most { jobs: 10_000, bytes: 16 << 20 });
}
