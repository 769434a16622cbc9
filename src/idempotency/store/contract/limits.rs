//! The contract's end of time, and of room.

use super::*;

/// An answer goes, then its key; what nobody knows never goes.
pub(super) async fn the_end_of_time(store: Made) {
    for sweeps in [false, true] {
        claim(&store, 1).await.settle(settlement(End::Completed)).await;
        let brief = Settlement { keep_key: Duration::ZERO, ..settlement(End::Completed) };
        claim(&store, 2).await.settle(brief).await;
        claim(&store, 3).await.settle(settlement(End::Unknown)).await;
        let held = claim(&store, 4).await;
        let full = store.size().1;
        tokio::time::advance(TTL.saturating_sub(TICK)).await;
        store.swept().await;
        assert!(completed(&store, 1).await.record.is_some());
        assert!(completed(&store, 2).await.record.is_some());
        tokio::time::advance(TICK).await;
        if sweeps {
            store.swept().await;
            assert_eq!(store.size().0, 3);
        }
        let done = completed(&store, 1).await;
        assert!(done.record.is_none(), "the key outlives the answer");
        assert_eq!(done.captured.len(), 1, "and so do the ids");
        assert!(!sweeps || store.size().1 < full);
        drop(claim(&store, 2).await);
        tokio::time::advance(KEEP_KEY.saturating_sub(TICK)).await;
        store.swept().await;
        drop(completed(&store, 1).await);
        tokio::time::advance(TICK + KEEP_KEY * 10).await;
        if sweeps {
            store.swept().await;
            assert_eq!(store.size().0, 2);
        }
        drop(claim(&store, 1).await);
        drop(waiter(&store, 4).await);
        open(&store, 3).await;
        drop(held);
        forget(&store, 3).await;
        assert_eq!(store.size(), (0, 0), "everything was given back");
    }
}

/// A full store takes no new key, and keeps a key whose answer it cannot take.
pub(super) async fn a_full_store(make: Make) {
    let probe = make(ROOMY);
    let held = claim(&probe, 1).await;
    let one = probe.size().1;
    held.settle(settlement(End::Completed)).await;
    let with_answer = probe.size().1;

    // An eighth is for keys alone, so that a store full of answers still takes some.
    let enough = (with_answer..2 * with_answer)
        .find(|room| room - room / 8 >= with_answer)
        .expect("some room");
    for (room, keeps) in [(enough - 1, false), (enough, true)] {
        let store = make(room);
        claim(&store, 1).await.settle(settlement(End::Completed)).await;
        assert_eq!(completed(&store, 1).await.record.is_some(), keeps, "{room} of {with_answer}");
        assert!(store.size().1 <= room);
    }
    let store = make(40 * one);
    for nth in 1..=30 {
        claim(&store, nth).await.settle(settlement(End::Completed)).await;
    }
    assert!(completed(&store, 1).await.record.is_some());
    assert!(
        completed(&store, 30).await.record.is_none(),
        "the answers' share is used up, the keys' is not"
    );
    // Past it, answers give way to keys, those first that would go first; keys never do.
    let mut taken = 30;
    while let Ok(Reserved::Claimed(next)) = store.reserve(&asked(taken + 1, None)).await {
        next.settle(settlement(End::NotRetained)).await;
        taken += 1;
    }
    assert!(taken >= 35, "{taken} keys, of 40 that fit without an answer");
    for nth in 1..=taken {
        assert_eq!(completed(&store, nth).await.captured.len(), 1, "{nth} of {taken}");
    }
    assert!(store.size().1 <= 40 * one);
    for (room, fits) in [(2 * one - 1, false), (2 * one, true)] {
        let store = make(room);
        let _held = claim(&store, 1).await;
        let second = store.reserve(&asked(2, None)).await;
        assert_eq!(second.is_ok(), fits, "{room} for two of {one}");
        assert!(fits || matches!(second, Err(Failure::StoreUnavailable(_))));
        drop(waiter(&store, 1).await);
    }
    // What is given back can be taken again.
    let store = make(one);
    drop(claim(&store, 1).await);
    let brief = Settlement { keep_key: Duration::ZERO, ..settlement(End::NotRetained) };
    claim(&store, 2).await.settle(brief).await;
    assert!(store.reserve(&asked(3, None)).await.is_err());
    tokio::time::advance(TTL).await;
    store.swept().await;
    drop(claim(&store, 3).await);
}
