//! The count of what nobody knows is what the rows say, after a crash too.

use super::resolve::Verdict;
use super::*;
use crate::journal::tally::Tally;

impl Scene {
    /// Unknown outcomes: those whose key is closed, and those that close none.
    async fn unknowns(&self) -> (u64, u64) {
        let counts = self.journal.tally_unknowns().await.expect("they can be counted");
        let of = |closed: bool| {
            let same = |each: &&Tally| each.closed == closed && each.route == "r";
            counts.iter().filter(same).map(|each| each.count).sum()
        };
        assert_eq!(of(true) + of(false), counts.iter().map(|each| each.count).sum::<u64>());
        (of(true), of(false))
    }
}

#[tokio::test(start_paused = true)]
async fn each_transition_is_in_the_count() {
    let scene = Scene::new();
    assert_eq!(scene.unknowns().await, (0, 0));
    scene.claim(1).await;
    scene.ended(2, settle(State::Completed)).await;
    scene.ended(3, settle(State::Unknown)).await;
    scene.ended(4, Settle { holds: false, ..settle(State::Unknown) }).await;
    scene.journal.note(Note { state: State::Unknown, ..note(5) });
    scene.written().await;
    assert_eq!(scene.unknowns().await, (1, 2));
    assert!(scene.journal.resume((3, 3), 70, None).await.expect("it is asked"));
    assert_eq!(scene.unknowns().await, (0, 2), "it is in flight again");
    let scene = scene.killed(after(START, SECOND)).await;
    assert_eq!(scene.unknowns().await, (2, 2), "both that were in flight");
    for (n, verdict, left) in
        [(1, Verdict::Landed, (1, 2)), (3, Verdict::Absent, (0, 2)), (5, Verdict::Landed, (0, 1))]
    {
        scene.journal.resolve((n, INSTANCE), verdict).await.expect("it is asked");
        assert_eq!(scene.unknowns().await, left, "{n}");
    }
    pass(2 * LEDGER).await;
    scene.journal.sweep().await.expect("it is swept");
    assert_eq!(scene.unknowns().await, (0, 0), "what closes no key goes with the ledger");
}

/// A scrape does not wait for a count that goes on and on; what an alert waits for is not
/// hidden behind what closes no key.
#[tokio::test]
async fn of_very_many_of_a_sort_the_oldest_are_counted() {
    for (many, closed, counted) in [
        (10_003, "seq > 10000", (3, 10_000)),
        (10_003, "seq <= 10001", (10_000, 2)),
        (10_000, "1", (10_000, 0)),
        (10_001, "0", (0, 10_000)),
    ] {
        let scene = Scene::new();
        let rows = format!(
            "WITH RECURSIVE n(seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM n LIMIT {many})
             INSERT INTO exchanges (seq, instance, holds, epoch, state, route, method, url,
                                    began_at, began_boot, began_up)
             SELECT seq, 1, {closed}, 1, 2, 'r', 'POST', 'https://a.test/', 1, 1, 1 FROM n"
        );
        scene.journal.submit(move |file, _| file.execute_batch(&rows)).await.expect("rows");
        assert_eq!(scene.unknowns().await, counted, "{closed} of {many}");
    }
}
