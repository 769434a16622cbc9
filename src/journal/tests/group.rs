//! What is handed over while the writer works shares a commit, and nobody pays for another.

use futures_util::FutureExt as _;

use super::*;

#[tokio::test]
async fn what_is_handed_over_while_the_writer_works_shares_a_commit() {
    for (handed_over, commits) in [(1, 1), (10, 1), (64, 1), (65, 2)] {
        let scene = Scene::new();
        let gate = scene.busy();
        let before = scene.journal.books().commits();
        let claims = (1..=handed_over).map(|n| Box::pin(scene.journal.reserve(reserve(n))));
        let mut claims: Vec<_> = claims.collect();
        for claim in &mut claims {
            assert!(claim.now_or_never().is_none(), "it waits for the writer");
        }
        drop(gate);
        for claim in claims {
            assert!(matches!(claim.await, Ok(Found::Claimed)));
        }
        // One of them is that of the operation that kept the writer busy.
        assert_eq!(scene.journal.books().commits() - before, commits + 1, "{handed_over}");
        scene.books_are_true().await;
    }
}

#[tokio::test]
async fn one_that_fails_costs_the_others_of_its_commit_nothing() {
    let scene = Scene::new();
    let gate = scene.busy();
    let mut told = Vec::new();
    for n in 1..=9 {
        let claims = reserve(n);
        told.push(scene.journal.submit(move |file, delta| {
            if n == 5 {
                // What it adds to the books goes with it.
                delta.keys += 100;
                return file.execute("INSERT INTO books (keys) VALUES (NULL)", []).map(drop);
            }
            held::insert(file, &claims, n.cast_signed(), delta)
        }));
    }
    drop(gate);
    for (n, told) in (1..).zip(told) {
        let wanted = if n == 5 { Err(Fault::Unwritable) } else { Ok(()) };
        assert_eq!(told.await, wanted, "{n}");
    }
    assert_eq!(scene.journal.size().0, 8);
    scene.books_are_true().await;
}

#[tokio::test]
async fn one_for_which_the_disk_is_too_full_costs_the_others_nothing() {
    let scene = Scene::new();
    for n in 1..=8 {
        scene.claim(n).await;
    }
    // The file may not grow: an answer of a megabyte finds no room, an end does.
    let full = scene.journal.submit(|file, _| {
        file.pragma_query_value(None, "page_count", |row| row.get::<_, i64>(0))
            .and_then(|pages| file.pragma_update(None, "max_page_count", pages))
    });
    full.await.expect("it is set");
    let gate = scene.busy();
    let large = answered(At::Row(vec![7; 1 << 20]));
    let ends: Vec<_> = (1..=8)
        .map(|n| {
            let end = if n == 4 { large.clone() } else { settle(State::Unknown) };
            scene.journal.settle(n, n, end)
        })
        .collect();
    drop(gate);
    for (n, end) in (1..).zip(ends) {
        let wanted = if n == 4 { Err(Fault::Full) } else { Ok(Settled::WithoutAnswer) };
        assert_eq!(end.await, wanted, "{n}");
    }
    assert_eq!(scene.state(4).await, Some(State::InFlight), "it can be ended once there is room");
    scene.books_are_true().await;
}

#[tokio::test]
async fn what_was_told_is_seen_by_whoever_reads_the_file() {
    let scene = Scene::new();
    let reader = scene.reader();
    let there = || -> i64 {
        reader.query_row("SELECT count(*) FROM exchanges", [], |row| row.get(0)).expect("a number")
    };
    for n in 1..=3 {
        let told = scene.journal.reserve(reserve(n)).await;
        assert!(matches!(told, Ok(Found::Claimed)));
        assert_eq!(there(), n.cast_signed(), "it is committed before anybody hears of it");
    }
    // What is not yet committed is seen by nobody.
    let claims = reserve(4);
    let (gate, closed) = mpsc::channel::<()>();
    let (entered, enters) = mpsc::channel();
    let told = scene.journal.submit(move |file, delta| {
        held::insert(file, &claims, 4, delta)?;
        entered.send(()).unwrap_or_default();
        closed.recv().unwrap_or_default();
        Ok(())
    });
    enters.recv().expect("it gets there");
    assert_eq!(there(), 3);
    drop(gate);
    told.await.expect("it is written");
    assert_eq!(there(), 4);
}

#[tokio::test]
async fn what_follows_a_commit_comes_before_whoever_waits_is_told() {
    let scene = Scene::new();
    let (then, heard) = mpsc::channel();
    let told = scene
        .journal
        .submit_then(|_, _| Ok(1), move |result| then.send(*result).unwrap_or_default());
    assert_eq!(told.await, Ok(1));
    assert_eq!(heard.try_recv(), Ok(Ok(1)));
    let (then, heard) = mpsc::channel();
    drop(
        scene
            .journal
            .submit_then(|_, _| Ok(2), move |result| then.send(*result).unwrap_or_default()),
    );
    scene.written().await;
    assert_eq!(heard.try_recv(), Ok(Ok(2)), "whether or not anybody waits");
}
