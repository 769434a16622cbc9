//! Somebody sets the wall clock, in one boot and between two.

use super::*;

const YEAR: i64 = 365 * TTL;

/// The same instant, by a wall clock that was set.
fn set(moment: Moment, by: i64) -> Moment {
    Moment { wall: moment.wall + by, ..moment }
}

/// A key that is answered, and one that is answered and for the ledger alone.
async fn scene() -> Scene {
    let scene = Scene::new();
    scene.ended(1, answered(At::Row(b"body".to_vec()))).await;
    scene.ended(2, Settle { holds: false, ..settle(State::Completed) }).await;
    scene.killed(START).await
}

async fn swept(scene: &Scene) {
    scene.journal.sweep().await.expect("it is swept");
    scene.books_are_true().await;
}

#[tokio::test(start_paused = true)]
async fn in_one_boot_nothing_goes_early_whatever_the_wall_clock_is_set_to() {
    let mut scene = scene().await;
    let soon = after(START, TTL - 1);
    for by in [YEAR, -YEAR, 10 * YEAR, 0] {
        scene = scene.killed(set(soon, by)).await;
        swept(&scene).await;
        assert!(scene.completed(1, 11).await.answer.is_some(), "set by {by}");
        assert!(scene.state(2).await.is_some(), "set by {by}");
    }
}

#[tokio::test(start_paused = true)]
async fn in_one_boot_an_answer_ends_in_time_whatever_the_wall_clock_is_set_to() {
    for by in [YEAR, -YEAR] {
        let scene = scene().await.killed(set(after(START, TTL), by)).await;
        assert!(scene.completed(1, 11).await.answer.is_none(), "set by {by}");
        let scene = scene.killed(set(after(START, TTL + KEEP), by)).await;
        assert!(matches!(scene.found(1, 12).await, Found::Claimed), "set by {by}");
    }
}

#[tokio::test(start_paused = true)]
async fn between_boots_a_clock_that_was_set_back_keeps_everything() {
    let mut scene = scene().await;
    for boot in 2..5 {
        let now = Moment { wall: START.wall - boot * TTL, boot, up: boot };
        scene = scene.killed(now).await;
        swept(&scene).await;
        assert!(scene.completed(1, 11).await.answer.is_some());
    }
    // And when it is right again, things end in time.
    for (time, is_kept) in [(TTL - 1, true), (TTL, false)] {
        scene = scene.killed(Moment { wall: START.wall + time, boot: 6, up: 0 }).await;
        assert_eq!(scene.completed(1, 12).await.answer.is_some(), is_kept);
    }
}

#[tokio::test(start_paused = true)]
async fn after_the_clock_was_set_forward_what_is_kept_still_goes_in_its_time() {
    let scene = scene().await.killed(set(START, YEAR)).await;
    swept(&scene).await;
    assert_eq!(scene.count("count(*) FROM answers"), 1, "it was looked at, and left");
    for (hours, is_kept) in [(23, 1), (1, 0)] {
        pass(hours * TTL / 24).await;
        swept(&scene).await;
        assert_eq!(scene.count("count(*) FROM answers"), is_kept);
    }
    let soon = || async {
        let next = "min(gone_at) FROM exchanges WHERE gone_at IS NOT NULL";
        scene.count(next) - scene.journal.now().wall
    };
    assert!(soon().await <= 3600 * SECOND, "it is set back again, and nothing waits for a year");
}

#[tokio::test(start_paused = true)]
async fn between_boots_a_clock_that_was_set_forward_ends_nothing_that_is_open() {
    let scene = Scene::new();
    scene.claim(1).await;
    scene.ended(2, settle(State::Unknown)).await;
    let scene = scene.killed(Moment { boot: 2, up: 0, ..set(START, 10 * YEAR) }).await;
    swept(&scene).await;
    scene.is_unknown(1, 11).await;
    scene.is_unknown(2, 12).await;
}
