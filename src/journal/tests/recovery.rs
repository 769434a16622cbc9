//! What the next process finds after a `kill -9`.

use super::resolve::{Freed, Resolution, Verdict};
use super::*;

#[tokio::test(start_paused = true)]
async fn after_a_crash_nobody_knows_of_what_was_in_flight() {
    let scene = Scene::new();
    scene.claim(1).await;
    scene.ended(2, settle(State::Completed)).await;
    scene.ended(3, settle(State::Released)).await;
    scene.ended(4, settle(State::Unknown)).await;
    scene.journal.note(note(5));
    let scene = scene.killed(after(START, SECOND)).await;
    let entry = scene.shown(1).await.expect("it is in the ledger");
    assert_eq!((entry.state, entry.ended), (State::Unknown, Some(START.wall + SECOND)));
    assert_eq!(scene.unknown(1, 11).await.holder.epoch, 1);
    assert_eq!(scene.state(2).await, Some(State::Completed));
    assert_eq!(scene.completed(2, 12).await.ended, START, "it is not touched");
    assert_eq!(scene.state(3).await, Some(State::Released));
    assert!(matches!(scene.found(3, 13).await, Found::Claimed), "its key is free");
    assert_eq!(scene.state(4).await, Some(State::Unknown));
    assert_eq!(scene.state(5).await, Some(State::Failed));
    scene.books_are_true().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_unknown_before_a_crash_is_unknown_for_ever_after() {
    let mut scene = Scene::new();
    scene.claim(1).await;
    for boot in 1..4 {
        let now = Moment { boot, ..after(START, boot * 10 * LEDGER) };
        scene = scene.killed(now).await;
        scene.journal.sweep().await.expect("it is swept");
        scene.is_unknown(1, 100).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_whose_head_had_come_is_answered_and_not_retained() {
    let scene = Scene::new();
    for n in [1, 2] {
        scene.claim(n).await;
    }
    scene.journal.land((1, 1), 201, KEEP, None);
    scene.journal.land((2, 99), 201, KEEP, None);
    let crash = after(START, SECOND);
    let scene = scene.killed(crash).await;
    let done = scene.completed(1, 11).await;
    assert!(done.answer.is_none());
    assert_eq!((done.ended, done.ttl, done.keep), (crash, 0, KEEP));
    assert_eq!(scene.shown(1).await.and_then(|entry| entry.status), Some(201));
    scene.is_unknown(2, 12).await; // the head was that of another life
    for (left, is_known) in [(KEEP - 1, true), (1, false)] {
        pass(left).await;
        scene.journal.sweep().await.expect("it is swept");
        let found = scene.found(1, 13).await;
        assert_eq!(matches!(found, Found::Completed(_)), is_known, "{found:?}");
    }
    scene.books_are_true().await;
}

#[tokio::test(start_paused = true)]
async fn names_and_epochs_go_on_after_a_crash() {
    let scene = Scene::new();
    scene.claim(5).await;
    scene.ended(9, settle(State::Released)).await;
    scene.ended(3, settle(State::Unknown)).await;
    assert!(scene.journal.resume((3, 3), 70, None).await.expect("it is asked"));
    let scene = scene.killed(START).await;
    assert_eq!(scene.journal.newest().await, Ok((9, 70)));
    assert!(scene.journal.settle(3, 3, settle(State::Completed)).await == Ok(Settled::Late));
    assert!(scene.journal.settle(3, 70, settle(State::Completed)).await == Ok(Settled::Late));
}

#[tokio::test(start_paused = true)]
async fn what_is_resolved_stays_resolved_after_a_crash() {
    let scene = Scene::new();
    for n in 1..=2 {
        scene.ended(n, settle(State::Unknown)).await;
    }
    let said = [(1, Verdict::Landed), (2, Verdict::Absent)];
    for (n, verdict) in said {
        let said = scene.journal.resolve((n, INSTANCE), verdict).await.expect("it is asked");
        assert!(matches!(said, Resolution::Settled(_)), "{said:?}");
    }
    let scene = scene.killed(START).await;
    for (n, verdict) in said {
        let state = match verdict {
            Verdict::Landed => State::Completed,
            Verdict::Absent => State::Released,
        };
        let again = scene.journal.resolve((n, INSTANCE), Verdict::Landed).await;
        assert_eq!(again, Ok(Resolution::Stands(state)), "the first word stands");
    }
    assert!(scene.completed(1, 11).await.answer.is_none());
    assert!(matches!(scene.found(2, 12).await, Found::Claimed));
    scene.books_are_true().await;
}

#[tokio::test(start_paused = true)]
async fn what_stands_is_resolved_by_nobody_and_opened_only_where_it_is_answered() {
    let resolved = async |state: Option<State>, verdict| {
        let scene = Scene::new();
        match state {
            None => {}
            Some(State::InFlight) => scene.claim(1).await,
            Some(state) => scene.ended(1, settle(state)).await,
        }
        let other = scene.journal.resolve((1, INSTANCE + 1), verdict).await;
        assert_eq!(other, Ok(Resolution::Missing), "another replica's name");
        let resolution = scene.journal.resolve((1, INSTANCE), verdict).await;
        scene.books_are_true().await;
        resolution.expect("it is asked")
    };
    for verdict in [Verdict::Landed, Verdict::Absent] {
        assert_eq!(resolved(None, verdict).await, Resolution::Missing);
        for state in [State::InFlight, State::Completed, State::Released] {
            assert_eq!(resolved(Some(state), verdict).await, Resolution::Stands(state));
        }
        let settled = resolved(Some(State::Unknown), verdict).await;
        assert!(matches!(settled, Resolution::Settled(resolved) if resolved.id == Some(id(1))));
    }
    for (state, wanted) in [
        (State::InFlight, Freed::Busy(State::InFlight)),
        (State::Unknown, Freed::Busy(State::Unknown)),
        (State::Completed, Freed::Ids(vec![id(1)])),
        (State::Released, Freed::Ids(Vec::new())),
    ] {
        let scene = Scene::new();
        match state {
            State::InFlight => scene.claim(1).await,
            _ => scene.ended(1, settle(state)).await,
        }
        assert_eq!(scene.journal.free("key-1".to_owned(), |_| ()).await, Ok(wanted.clone()));
        assert_eq!(scene.state(1).await, Some(state), "its row stays");
        let is_free = matches!(wanted, Freed::Ids(_));
        assert_eq!(matches!(scene.found(1, 2).await, Found::Claimed), is_free);
        scene.books_are_true().await;
    }
}

#[tokio::test(start_paused = true)]
async fn keys_that_may_be_taken_over_are_those_of_the_window() {
    let scene = Scene::new();
    let orphan = |n: u64, age: i64| {
        let began = after(START, -age);
        Reserve { row: NewRow { began, ..row(n, n) }, scope: Some(id(100)), ..reserve(n) }
    };
    for (n, age) in [(1, 9), (2, 10), (3, 11)] {
        drop(scene.journal.reserve(orphan(n, age * SECOND)).await.expect("it is claimed"));
    }
    scene.claim(4).await; // somebody can ask for it by its key
    let scene = scene.killed(START).await;
    let orphans = scene.journal.orphans(10 * SECOND).await.expect("they are read");
    let told = orphans.iter().map(|orphan| (orphan.key.as_str(), orphan.age / SECOND));
    assert_eq!(told.collect::<Vec<_>>(), [("key-1", 9), ("key-2", 10)]);
    assert!(orphans.iter().all(|orphan| orphan.scope == id(100)));
    // Nobody can ask for the third any more: its row stays as long as the ledger does.
    assert_eq!(scene.count("sum(seq) FROM exchanges WHERE holds = 0"), 3);
    assert_eq!(scene.state(3).await, Some(State::Unknown));
    scene.is_unknown(4, 14).await;
    scene.books_are_true().await;
}

#[tokio::test(start_paused = true)]
async fn attempts_add_up_and_those_before_a_kill_are_shown_after_it() {
    let scene = Scene::new();
    let first = || r#"["failed",503,0,1]"#.to_owned();
    for n in [1, 2] {
        scene.claim(n).await;
        scene.journal.note_attempts((n, n), first(), Some(503));
    }
    scene.end(1, settle(State::Completed)).await;
    scene.journal.note_attempts((1, 1), first(), Some(503));
    scene.journal.note_attempts((2, 7), first(), Some(500));
    let scene = scene.killed(START).await;
    let outcomes = async |n| {
        let entry = scene.shown(n).await.expect("it is there");
        let outcomes = entry.attempts.into_iter().map(|attempt| attempt.outcome);
        (entry.state, entry.status, outcomes.collect::<Vec<_>>().join(" "))
    };
    assert_eq!(outcomes(1).await, (State::Completed, Some(201), "failed done".to_owned()));
    assert_eq!(outcomes(2).await, (State::Unknown, Some(503), "failed".to_owned()));
}
