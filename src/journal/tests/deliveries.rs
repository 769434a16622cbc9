//! What was taken in is there until it ends, and is known by its identity after that.

use bytes::Bytes;

use super::super::deliveries::{Alike, Contents, Ended, NewDelivery, Taken};
use super::*;

fn delivery(n: u64, body: &'static [u8]) -> NewDelivery {
    NewDelivery {
        route: "hooks".to_owned(),
        id: id(n),
        digest: *blake3::hash(body).as_bytes(),
        head: b"head".to_vec(),
        body: Bytes::from_static(body),
        came: START,
    }
}

async fn take(scene: &Scene, new: NewDelivery) -> Result<Taken, Fault> {
    let (tell, told) = mpsc::channel();
    let taken = scene.journal.take_in(new, move |taken| tell.send(*taken).unwrap_or_default());
    let taken = taken.await;
    assert_eq!(told.recv(), Ok(taken), "whoever does not wait is told the same");
    taken
}

async fn new(scene: &Scene, n: u64) -> u64 {
    match take(scene, delivery(n, b"body")).await {
        Ok(Taken::New(seq)) => seq,
        other => panic!("it is new: {other:?}"),
    }
}

async fn waiting(scene: &Scene) -> Vec<u64> {
    let waiting = scene.journal.waiting_deliveries("hooks".to_owned()).await;
    waiting.expect("it is read").iter().map(|waiting| waiting.seq).collect()
}

#[tokio::test(start_paused = true)]
async fn a_repeat_is_known_before_and_after_its_first_is_delivered_and_over_a_kill() {
    let mut scene = Scene::new();
    let seq = new(&scene, 1).await;
    for delivered in [false, true] {
        if delivered {
            let ended = scene.journal.end_delivery(seq, Ended::Delivered, KEEP);
            ended.await.expect("it is written");
        }
        scene = scene.killed(START).await;
        for (body, alike) in [(&b"body"[..], Alike::Same), (b"another", Alike::Other)] {
            assert_eq!(take(&scene, delivery(1, body)).await, Ok(Taken::Repeat(alike)));
        }
        assert_eq!(waiting(&scene).await.is_empty(), delivered);
        scene.books_are_true().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_outlives_a_kill_in_order_with_all_that_is_in_it() {
    let scene = Scene::new();
    let (first, second) = (new(&scene, 2).await, new(&scene, 1).await);
    scene.journal.note_tried(first, 3);
    let scene = scene.killed(after(START, SECOND)).await;
    let rows = scene.journal.waiting_deliveries("hooks".to_owned()).await.expect("it is read");
    let told: Vec<_> = rows.iter().map(|row| (row.seq, row.id, row.size, row.attempts)).collect();
    assert_eq!(told, [(first, id(2), 8, 3), (second, id(1), 8, 0)]);
    assert_eq!(rows.first().map(|row| row.came), Some(START));
    let contents = Contents { head: b"head".to_vec(), body: b"body".to_vec() };
    assert_eq!(scene.journal.delivery(first).await, Ok(Some(contents)));
    let routes = scene.journal.routes_with_deliveries().await;
    assert_eq!(routes, Ok(vec![("hooks".to_owned(), 2)]));
}

#[tokio::test(start_paused = true)]
async fn one_that_was_given_up_is_new_when_it_comes_again() {
    let scene = Scene::new();
    let seq = new(&scene, 1).await;
    scene.journal.end_delivery(seq, Ended::GivenUp, KEEP).await.expect("it is written");
    assert!(waiting(&scene).await.is_empty());
    assert_eq!(scene.journal.delivery(seq).await, Ok(None), "its bytes are gone");
    new(&scene, 1).await;
    assert_eq!(waiting(&scene).await.len(), 1);
    scene.books_are_true().await;
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_is_forgotten_in_time_and_what_waits_never() {
    let scene = Scene::new();
    let seq = new(&scene, 1).await;
    new(&scene, 2).await;
    scene.journal.end_delivery(seq, Ended::Delivered, TTL).await.expect("it is written");
    for (time, left) in [(TTL - 1, 2), (1, 1), (LEDGER, 1)] {
        pass(time).await;
        scene.journal.sweep().await.expect("it is swept");
        scene.books_are_true().await;
        assert_eq!(scene.count("count(*) FROM deliveries"), left, "{time} later");
    }
    assert_eq!(waiting(&scene).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_refused_and_leaves_nothing() {
    let row = i64::try_from(ROW_BYTES).expect("a size") + 8;
    for (room, fits) in [(row - 1, false), (row, true), (row + 1, true)] {
        let scene = Scene::of(room.cast_unsigned());
        assert_eq!(take(&scene, delivery(1, b"body")).await.is_ok(), fits, "{room}");
        assert_eq!(waiting(&scene).await.len(), usize::from(fits));
        scene.books_are_true().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_gives_way_to_a_delivery() {
    let scene = Scene::of(2 * ROW_BYTES + 1007);
    scene.ended(1, answered(At::Row(b"body".to_vec()))).await;
    new(&scene, 1).await;
    assert!(scene.completed(1, 11).await.answer.is_none());
    scene.books_are_true().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_file_refuses_was_not_taken() {
    let scene = Scene::new();
    scene.refuse("INSERT ON deliveries").await;
    assert_eq!(take(&scene, delivery(1, b"body")).await, Err(Fault::Unwritable));
    scene.relent().await;
    new(&scene, 1).await;
}

/// Format 1, as the version before left it, with a key in it.
#[tokio::test(start_paused = true)]
async fn a_file_of_the_format_before_opens_with_all_that_is_in_it() {
    let kept = tempfile::tempdir().expect("a folder");
    let folder = kept.path().join("journal");
    fs::create_dir(&folder).expect("a folder");
    let file = Connection::open(folder.join(FILE)).expect("it is made");
    file.execute_batch(include_str!("../schema/format1.sql")).expect("its tables");
    file.execute_batch(
        "PRAGMA application_id = 0x534d4b59; PRAGMA user_version = 1;
         UPDATE books SET keys = 1;
         INSERT INTO exchanges (seq, instance, holds, epoch, state, route, method, url,
                                began_at, began_boot, began_up)
         VALUES (1, 7, 1, 1, 2, 'r', 'POST', 'https://a.test/', 1, 1, 1);",
    )
    .expect("its rows");
    file.close().expect("it is closed");
    for _ in 0..2 {
        let journal = open(&folder, 1 << 30, START);
        let entry = journal.show(1, INSTANCE).await.expect("it is read").expect("it is there");
        assert_eq!(entry.state, State::Unknown);
        assert_eq!(journal.routes_with_deliveries().await, Ok(Vec::new()));
        journal.close().await;
    }
}
