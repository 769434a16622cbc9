//! Who may change a row, and who is too late.

use futures_util::FutureExt as _;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_late_owner_changes_nothing() {
    let scene = Scene::new();
    scene.ended(1, settle(State::Unknown)).await;
    assert!(scene.journal.resume((1, 1), 2, None).await.expect("it is asked"));
    assert!(
        !scene.journal.resume((1, 1), 3, None).await.expect("it is asked"),
        "another was faster"
    );
    // All that the first owner could still do.
    for state in [State::Completed, State::Unknown, State::Released] {
        assert_eq!(scene.journal.settle(1, 1, settle(state)).await, Ok(Settled::Late));
    }
    scene.journal.identify((1, 1), id(99), Soon::Yes);
    scene.journal.note_shared(1, 1, 99);
    scene.journal.land((1, 1), 201, KEEP, None);
    assert_eq!(scene.journal.withdraw((1, 1), |_| ()).await, Ok(()));
    scene.books_are_true().await;
    let scene = scene.killed(START).await;
    let open = scene.unknown(1, 11).await;
    assert_eq!(open.holder.epoch, 2);
    assert_eq!((open.holder.fingerprint, open.holder.shared_epoch), (Some(id(1)), None));
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_resumed_is_not_withdrawn_by_the_life_before() {
    let scene = Scene::new();
    scene.claim(1).await;
    drop(scene.journal.settle(1, 1, settle(State::Unknown)));
    assert!(scene.journal.resume((1, 1), 2, None).await.expect("it is asked"));
    assert_eq!(scene.journal.withdraw((1, 1), |_| ()).await, Ok(()));
    assert_eq!(scene.state(1).await, Some(State::InFlight));
    scene.journal.withdraw((1, 2), |_| ()).await.expect("it is written");
    assert_eq!(scene.state(1).await, None);
    scene.books_are_true().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_withdrawn_leaves_no_row_and_what_has_ended_is_not_withdrawn() {
    let scene = Scene::new();
    scene.claim(1).await;
    scene.journal.withdraw((1, 1), |_| ()).await.expect("it is written");
    assert_eq!(scene.state(1).await, None);
    for state in [State::Completed, State::Unknown, State::Released] {
        scene.ended(1, settle(state)).await;
        scene.journal.withdraw((1, 1), |_| ()).await.expect("it is written");
        assert_eq!(scene.state(1).await, Some(state));
        scene.books_are_true().await;
        if state == State::Unknown {
            break; // it holds the key
        }
        scene.journal.forget("key-1", id(1), |_| ()).await.expect("it is written");
    }
}

#[tokio::test(start_paused = true)]
async fn an_exchange_that_asks_anew_gets_its_claim_under_the_name_that_it_has() {
    let scene = Scene::new();
    scene.ended(1, settle(State::Unknown)).await;
    let said = scene.journal.resolve((1, INSTANCE), resolve::Verdict::Absent).await;
    assert!(matches!(said, Ok(resolve::Resolution::Settled(_))));
    // The same exchange had looped: it finds the key free, and its own row there.
    let again = Reserve { epoch: 5, ..reserve(1) };
    let found = scene.journal.reserve(again).await;
    assert!(matches!(found, Ok(Found::Claimed)), "{found:?}");
    scene.books_are_true().await;
    assert_eq!(scene.state(1).await, Some(State::InFlight));
    assert_eq!(scene.journal.settle(1, 1, settle(State::Completed)).await, Ok(Settled::Late));
    assert_eq!(
        scene.journal.settle(1, 5, settle(State::Completed)).await,
        Ok(Settled::WithoutAnswer)
    );
}

#[tokio::test(start_paused = true)]
async fn a_name_that_another_key_holds_is_refused_and_spoils_no_commit() {
    let scene = Scene::new();
    scene.claim(1).await;
    let gate = scene.busy();
    let ask = |(seq, n)| {
        let asked = Reserve { row: row(seq, n), epoch: 50 + n, ..reserve(n) };
        Box::pin(scene.journal.reserve(asked))
    };
    let mut asked = [(2, 2), (1, 3), (4, 4)].map(ask);
    for asked in &mut asked {
        assert!(asked.now_or_never().is_none(), "it waits for the writer");
    }
    drop(gate);
    let mut told = Vec::new();
    for asked in asked {
        told.push(asked.await.is_ok());
    }
    assert_eq!(told, [true, false, true]);
    assert_eq!(scene.shown(1).await.and_then(|entry| entry.key).as_deref(), Some("key-1"));
    scene.books_are_true().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_is_written_with_the_end_where_it_was_not_before() {
    let scene = Scene::new();
    let asked = Reserve { fingerprint: None, ..reserve(1) };
    drop(scene.journal.reserve(asked).await.expect("it is claimed"));
    scene.refuse("UPDATE OF fingerprint ON exchanges").await;
    scene.journal.identify((1, 1), id(1), Soon::Yes);
    scene.written().await;
    scene.relent().await;
    scene.end(1, Settle { fingerprint: Some(id(1)), ..settle(State::Completed) }).await;
    assert_eq!(scene.completed(1, 11).await.holder.fingerprint, Some(id(1)));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_was_never_written_is_unknown_to_whoever_asks() {
    let scene = Scene::new();
    scene.claim(1).await;
    // Nobody in this process has the claim any more: the store asks only then.
    let open = scene.unknown(1, 11).await;
    assert_eq!(open.holder.epoch, 1);
    assert_eq!(scene.state(1).await, Some(State::Unknown), "it can be resolved by hand");
    assert!(scene.journal.resume((1, 1), 2, None).await.expect("it is asked"), "or be sent again");
    scene.books_are_true().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_for_which_there_is_no_room_is_left_out() {
    // An eighth is for keys alone.
    let enough = (1..10_000).find(|room| room - room / KEYS_SHARE == ROW_BYTES + 1000);
    let enough = enough.expect("some room");
    for (room, settled) in [(enough, Settled::WithAnswer), (enough - 1, Settled::WithoutAnswer)] {
        let scene = Scene::of(room);
        scene.claim(1).await;
        let end = scene.journal.settle(1, 1, answered(At::Row(Vec::new()))).await;
        assert_eq!(end, Ok(settled), "{room}");
        scene.books_are_true().await;
    }
}
