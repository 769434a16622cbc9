//! What is past its time goes: the answer, then the key, then the row.

use super::*;

async fn swept(scene: &Scene) {
    scene.journal.sweep().await.expect("it is swept");
    scene.books_are_true().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_goes_then_its_key_then_its_row() {
    let scene = Scene::new();
    scene.ended(1, answered(At::Row(b"body".to_vec()))).await;
    // So long after the step before, what is kept: the answer, the key, the row.
    for (time, answer, key, row) in [
        (TTL - 1, true, true, true),
        (1, false, true, true),
        (1, false, true, true),
        (KEEP - 2, false, true, true),
        (1, false, false, true),
        (1, false, false, true),
        (LEDGER - KEEP - TTL - 2, false, false, true),
        (1, false, false, false),
        (1, false, false, false),
    ] {
        pass(time).await;
        swept(&scene).await;
        let kept = ["answers", "exchanges WHERE holds = 1", "exchanges"]
            .map(|rows| scene.count(&format!("count(*) FROM {rows}")) == 1);
        assert_eq!(kept, [answer, key, row], "{time} later");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_past_its_time_is_gone_before_it_is_swept() {
    let scene = Scene::new();
    scene.ended(1, answered(At::Row(b"body".to_vec()))).await;
    assert!(scene.completed(1, 11).await.answer.is_some());
    pass(TTL).await;
    assert!(scene.completed(1, 12).await.answer.is_none());
    pass(KEEP - 1).await;
    drop(scene.completed(1, 13).await);
    pass(1).await;
    assert!(matches!(scene.found(1, 14).await, Found::Claimed));
    scene.books_are_true().await;
    assert_eq!(scene.state(1).await, Some(State::Completed), "the row stays in the ledger");
    pass(LEDGER - TTL - KEEP).await;
    swept(&scene).await;
    assert_eq!(scene.state(1).await, None);
    assert_eq!(scene.state(14).await, Some(State::InFlight));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_knows_and_what_is_under_way_is_never_swept() {
    let scene = Scene::new();
    scene.claim(1).await;
    scene.ended(2, settle(State::Unknown)).await;
    scene.ended(3, Settle { holds: false, ..settle(State::Unknown) }).await;
    for _ in 0..3 {
        pass(LEDGER).await;
        swept(&scene).await;
    }
    assert_eq!(scene.state(1).await, Some(State::InFlight));
    assert_eq!(scene.state(2).await, Some(State::Unknown));
    assert_eq!(scene.state(3).await, None, "nobody can ask for it");
}

#[tokio::test(start_paused = true)]
async fn more_than_fits_a_commit_goes_in_one_sweep() {
    let scene = Scene::new();
    for n in 1..=450 {
        scene.journal.note(note(n));
    }
    scene.written().await;
    pass(LEDGER).await;
    swept(&scene).await;
    assert_eq!(scene.count("count(*) FROM exchanges"), 0);
}

/// Whether the file of a body is there.
fn is_there(scene: &Scene, body: &[u8]) -> bool {
    let name = blake3::hash(body).to_hex();
    scene.folder.join("bodies").join(name.as_str()).exists()
}

const BODY: &[u8] = b"as if it were large";
const YOUNG: i64 = 60 * SECOND;

/// An exchange that is answered with [`BODY`], which is in a file.
async fn filed(scene: &Scene, n: u64, keeps: Settle) {
    let hash = scene.journal.bodies().write(BODY).expect("it is written");
    scene.ended(n, Settle { answer: answered(At::File(hash)).answer, ..keeps }).await;
}

#[tokio::test(start_paused = true)]
async fn a_large_bodys_file_goes_after_the_last_row_that_speaks_of_it() {
    let scene = Scene::new();
    let brief = || Settle { ttl: SECOND, ..settle(State::Completed) };
    filed(&scene, 1, brief()).await;
    filed(&scene, 2, settle(State::Completed)).await;
    pass(2 * YOUNG).await;
    for _ in 0..2 {
        swept(&scene).await;
        pass(YOUNG).await;
    }
    assert!(scene.completed(1, 11).await.answer.is_none());
    assert!(scene.completed(2, 12).await.answer.is_some());
    assert!(is_there(&scene, BODY), "the second row speaks of it");
    pass(TTL).await;
    swept(&scene).await;
    pass(YOUNG - 1).await;
    swept(&scene).await;
    assert!(is_there(&scene, BODY), "an equal one may have been written before its row went");
    pass(1).await;
    swept(&scene).await;
    assert!(!is_there(&scene, BODY));
    assert_eq!(scene.count("count(*) FROM answers"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_young_file_is_left_for_the_row_that_is_yet_to_come() {
    let scene = Scene::new();
    filed(&scene, 1, Settle { ttl: SECOND, ..settle(State::Completed) }).await;
    pass(SECOND).await;
    swept(&scene).await;
    pass(YOUNG - 1).await;
    // An equal answer has come, and its row is not yet written.
    let hash = scene.journal.bodies().write(BODY).expect("it is there");
    pass(1).await;
    swept(&scene).await;
    assert!(is_there(&scene, BODY));
    scene.ended(2, answered(At::File(hash))).await;
    pass(YOUNG).await;
    swept(&scene).await;
    assert!(scene.completed(2, 12).await.answer.is_some());
    assert_eq!(scene.journal.bodies().read(&hash).expect("it is there"), BODY);
}

#[tokio::test(start_paused = true)]
async fn the_file_of_a_key_that_is_opened_goes_without_a_restart() {
    let opened = async |open: fn(Journal) -> Pending<bool>| {
        let scene = Scene::new();
        filed(&scene, 1, settle(State::Completed)).await;
        let open = open(scene.journal.clone());
        assert!(open.await.expect("it is asked"));
        swept(&scene).await;
        assert!(is_there(&scene, BODY));
        pass(YOUNG).await;
        swept(&scene).await;
        assert!(!is_there(&scene, BODY));
    };
    opened(|journal| journal.forget("key-1", id(1), |_| ())).await;
    opened(|journal| {
        Box::pin(async move { journal.free("key-1".to_owned(), |_| ()).await.map(|_| true) })
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_a_crash_left_goes_with_the_next_start() {
    let scene = Scene::new();
    scene.journal.bodies().write(b"its row never came").expect("it is written");
    filed(&scene, 1, settle(State::Completed)).await;
    let scene = scene.killed(START).await;
    assert!(!is_there(&scene, b"its row never came"));
    assert!(is_there(&scene, BODY));
    assert!(scene.completed(1, 11).await.answer.is_some());
}
