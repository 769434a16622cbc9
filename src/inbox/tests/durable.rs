//! What the journal holds outlives the process, and what it cannot hold is not answered for.

use super::*;
use crate::journal::{Durability, Journal, Options};

fn journal(folder: &std::path::Path) -> Journal {
    let options = Options {
        folder: folder.to_owned(),
        durability: Durability::Process,
        bytes_max: 1 << 30,
        ledger_micros: 1 << 50,
        clock: Clock::System,
    };
    Journal::open(options).expect("it is opened")
}

#[tokio::test(start_paused = true)]
async fn draining_ends_with_the_attempt_and_the_next_start_goes_on() {
    let kept = tempfile::tempdir().expect("a folder");
    let folder = kept.path().join("journal");
    let scene =
        Scene::on(Store::Disk(journal(&folder)), None, rules(), &[Act::Slow(100), Act::Slow(100)]);
    scene.events("a b c d").await;
    while scene.seen().len() < 2 {
        sleep(Duration::from_millis(1)).await;
    }
    scene.drain().await;
    // Two go together, and either may be there first.
    let got = scene.got();
    assert!(["a b", "b a"].contains(&got.as_str()), "{got}");
    assert_eq!(scene.trays.waiting(), 2);
    let Store::Disk(before) = scene.tray.store() else { panic!("it is on disk") };
    before.close().await;
    let scene = Scene::on(Store::Disk(journal(&folder)), Some(kept), rules(), &[]);
    while scene.seen().len() < 2 {
        sleep(Duration::from_millis(1)).await;
    }
    scene.settled().await;
    assert!(["c d", "d c"].contains(&scene.got().as_str()), "{}", scene.got());
    scene.events("a b c d").await;
    assert_eq!(scene.counted("repeated"), 4, "what was delivered before is known");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_write_is_not_answered_for() {
    let kept = tempfile::tempdir().expect("a folder");
    let journal = journal(&kept.path().join("journal"));
    let scene = Scene::on(Store::Disk(journal.clone()), Some(kept), rules(), &[]);
    scene.events("a").await;
    scene.settled().await;
    let trigger = "CREATE TEMP TRIGGER refused BEFORE INSERT ON deliveries
                   BEGIN SELECT RAISE(ABORT, 'no'); END";
    let refuse = journal.submit(move |file, _| file.execute_batch(trigger));
    refuse.await.expect("a trigger");
    let failure = scene.event("b").await.expect_err("it cannot be kept");
    assert!(matches!(failure, Failure::StoreUnavailable(_)), "{failure}");
    assert_eq!((scene.trays.waiting(), scene.got().as_str()), (0, "a"));
}

#[tokio::test(start_paused = true)]
async fn one_whose_end_cannot_be_written_is_not_delivered_again() {
    let kept = tempfile::tempdir().expect("a folder");
    let journal = journal(&kept.path().join("journal"));
    let trigger = "CREATE TEMP TRIGGER refused BEFORE UPDATE ON deliveries
                   BEGIN SELECT RAISE(ABORT, 'no'); END";
    let refuse = journal.submit(move |file, _| file.execute_batch(trigger));
    refuse.await.expect("a trigger");
    let scene = Scene::on(Store::Disk(journal.clone()), Some(kept), rules(), &[]);
    scene.events("a").await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!((scene.got().as_str(), scene.trays.waiting()), ("a", 1));
    let relent = journal.submit(|file, _| file.execute_batch("DROP TRIGGER refused"));
    relent.await.expect("no trigger");
    scene.settled().await;
    assert_eq!((scene.got().as_str(), scene.counted("delivered")), ("a", 1));
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_hangs_up_once_it_is_written_is_delivered_all_the_same() {
    let kept = tempfile::tempdir().expect("a folder");
    let journal = journal(&kept.path().join("journal"));
    let scene = Scene::on(Store::Disk(journal.clone()), Some(kept), rules(), &[]);
    scene.tray.restore().await.expect("it is read");
    let (gate, closed) = std::sync::mpsc::channel::<()>();
    journal.post(move |_, _| {
        closed.recv().unwrap_or_default(); // the writer is busy until the gate is dropped
        Ok(())
    });
    let sending = scene.event("a");
    tokio::select! {
        biased;
        answer = sending => panic!("it waits for the commit: {answer:?}"),
        () = std::future::ready(()) => {}
    }
    drop(gate);
    while scene.seen().is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    scene.settled().await;
    assert_eq!(scene.counted("accepted"), 1);
}
