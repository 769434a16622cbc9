//! The game itself: what holds without a death, and that it sees what it is there to see.

use crate::game::{Setting, play};
use crate::tally::Tally;
use crate::upstream::Keys;

/// A lane that is not killed.
const CALM: Setting =
    Setting { keys: Keys::Ignored, journal: "memory", seed: 1, kills: 0, faults: 25, lane: (0, 1) };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_nothing_killed_each_order_has_one_effect_and_one_answer() {
    let mut sum = Tally::default();
    for keys in [Keys::Ignored, Keys::Honoured] {
        sum = sum.and(play(Setting { keys, ..CALM }).await);
    }
    assert!(sum.violations.is_empty(), "{sum}\n{}", sum.violations.join("\n"));
    assert!(sum.orders > 0 && sum.effects > 0 && sum.replays > 0, "{sum}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_game_sees_that_a_journal_in_memory_forgets() {
    let tally = play(Setting { kills: 40, ..CALM }).await;
    let told = tally.violations.join("\n");
    assert!(told.contains(" effects: "), "a second effect goes unseen: {tally}\n{told}");
}
