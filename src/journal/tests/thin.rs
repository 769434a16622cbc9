//! Rows that close no key are thinned where there are too many, the oldest first.

use super::*;

/// Room for so many rows that close no key.
const ROWS: u64 = 4;

fn scene() -> Scene {
    let scene = Scene::of(ROWS * LOOSE_SHARE * ROW_BYTES);
    assert_eq!(scene.journal.loose_max(), ROWS);
    scene
}

#[tokio::test]
async fn the_ledger_keeps_the_newest_rows_that_close_no_key() {
    for (noted, gone) in [(ROWS - 1, 0), (ROWS, 0), (ROWS + 1, 1), (3 * ROWS, 2 * ROWS)] {
        let scene = scene();
        for n in 1..=noted {
            assert!(scene.journal.note(note(n)));
        }
        scene.written().await;
        assert_eq!(scene.journal.books().loose(), noted.min(ROWS));
        for n in 1..=noted {
            assert_eq!(scene.state(n).await.is_some(), n > gone, "{n} of {noted}");
        }
        scene.books_are_true().await;
    }
}

#[tokio::test]
async fn many_in_one_commit_are_thinned_as_one_by_one() {
    let scene = scene();
    let gate = scene.busy();
    for n in 1..=3 * ROWS {
        scene.journal.note(note(n));
    }
    drop(gate);
    scene.books_are_true().await;
    assert_eq!(scene.journal.books().loose(), ROWS);
    assert_eq!(scene.state(2 * ROWS).await, None);
    assert!(scene.state(2 * ROWS + 1).await.is_some());
}

#[tokio::test]
async fn a_row_that_closes_a_key_is_never_thinned() {
    let scene = scene();
    scene.claim(1).await;
    scene.ended(2, settle(State::Unknown)).await;
    scene.ended(3, settle(State::Completed)).await;
    for n in 4..100 {
        scene.ended(n, settle(State::Released)).await;
    }
    assert_eq!(scene.state(1).await, Some(State::InFlight));
    assert_eq!(scene.state(2).await, Some(State::Unknown));
    assert_eq!(scene.state(3).await, Some(State::Completed));
    assert_eq!(scene.journal.books().loose(), ROWS);
    scene.books_are_true().await;
}

#[tokio::test]
async fn a_note_under_a_name_that_is_taken_changes_nothing() {
    let scene = scene();
    scene.claim(1).await;
    scene.journal.note(note(1));
    scene.books_are_true().await;
    assert_eq!(scene.state(1).await, Some(State::InFlight));
}
