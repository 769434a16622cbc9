//! What waits to be written has a limit.

use super::*;

#[tokio::test]
async fn claims_wait_up_to_a_limit_and_notes_up_to_a_lower_one() {
    let scene = Scene::of(1 << 40);
    let gate = scene.busy();
    let fill = |until: usize| {
        while scene.journal.waiting() < until {
            scene.journal.post(|_, _| Ok(()));
        }
    };
    fill(ledger::NOTES_MAX - 1);
    assert!(scene.journal.note(note(1)), "under, and with it at");
    assert!(!scene.journal.note(note(2)), "over");
    fill(QUEUE_MAX - 1);
    assert!(!scene.journal.note(note(3)));
    let last = scene.journal.submit_if_room(|_, _| Ok(())).expect("under, and with it at");
    assert_eq!(scene.journal.submit_if_room(|_, _| Ok(())).err(), Some(Fault::Behind), "over");
    let over = scene.journal.reserve(reserve(1)).await;
    assert!(matches!(over, Err(Fault::Behind)));
    assert_eq!(scene.journal.resume((1, 1), 2, None).await, Err(Fault::Behind));
    // An end has been paid for by its claim: it is taken in any case.
    let end = scene.journal.settle(1, 1, settle(State::Unknown));
    drop(gate);
    last.await.expect("it is written");
    assert_eq!(end.await, Ok(Settled::Late));
    scene.claim(4).await;
    assert_eq!(scene.state(1).await, Some(State::Failed), "the first note");
    assert_eq!(scene.state(2).await, None);
    scene.books_are_true().await;
}
