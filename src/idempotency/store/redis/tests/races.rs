//! Several owners, and owners that come late.

use tokio::task::JoinSet;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_ask_at_one_time_one_gets_the_claim() {
    let server = Server::start().await;
    let owners = [server.owner(1).await, server.owner(2).await];
    for n in 0..10 {
        let mut asking = JoinSet::new();
        for by in 0..40_u32 {
            let redis = owners[usize::from(by % 2 == 0)].clone();
            asking.spawn(async move { redis.reserve(id(n), asked(by)).await.expect("it answers") });
        }
        let found = asking.join_all().await;
        let claimed: Vec<u64> = found
            .iter()
            .filter_map(|found| match found {
                Found::Claimed { epoch, .. } => Some(*epoch),
                Found::Taken(_) => None,
            })
            .collect();
        assert_eq!(claimed.len(), 1);
        for owner in &owners {
            owner.settle(id(n), claimed[0], Settled::unknown()).await.expect("it answers");
        }
        let mut resuming = JoinSet::new();
        for by in 0..20_usize {
            let (redis, epoch) = (owners[by % 2].clone(), claimed[0]);
            resuming.spawn(async move { redis.resume(id(n), epoch).await.expect("it answers") });
        }
        assert_eq!(resuming.join_all().await.into_iter().flatten().count(), 1);
    }
}

#[tokio::test]
async fn to_reserve_again_in_one_name_finds_the_same_claim() {
    let server = Server::start().await;
    let (one, two) = (server.owner(1).await, server.owner(2).await);
    let epoch = one.claim(1, 0).await;
    assert_eq!(one.claim(1, 0).await, epoch);
    assert_eq!(one.taken(1).await.epoch, epoch, "another exchange of the same process");
    let same_name = two.reserve(id(1), asked(0)).await;
    assert!(matches!(same_name, Ok(Found::Taken(_))), "another process");
    assert!(one.settles(1, epoch, completed()).await);
    assert!(matches!(one.reserve(id(1), asked(0)).await, Ok(Found::Taken(_))));
}

#[tokio::test]
async fn a_late_owner_changes_nothing() {
    let server = Server::start().await;
    let (one, two) = (server.owner(1).await, server.owner(2).await);
    let late = one.claim(1, 0).await;
    server.expire(1).await;
    let unknown = two.taken(1).await;
    assert_eq!((unknown.state.word(), unknown.epoch), ("unknown", late), "never free");
    let epoch = two.resume(id(1), late).await.expect("it answers").expect("it is open");
    for settled in [completed(), released(), Settled::unknown()] {
        assert!(!one.settles(1, late, settled).await);
        assert_eq!(two.word(1).await, "in flight");
    }
    assert_eq!(one.identify(id(1), late, print(9)).await, Ok(false));
    assert!(!one.settles(1, epoch, completed()).await, "not even with the epoch of another");
    assert!(two.settles(1, epoch, completed()).await);
    assert_eq!(two.taken(1).await.fingerprint, Some(print(1)));

    // Nor where the key went on to be free, and was claimed by another order.
    let late = one.claim(2, 0).await;
    server.expire(2).await;
    assert_eq!(two.word(2).await, "unknown");
    let done = two.resolve(id(2), Some(late), &Verdict::Absent, KEEP).await;
    assert!(matches!(done, Ok(Resolution::Done { .. })));
    assert!(!one.settles(2, late, completed()).await);
    two.claim(2, 1).await;
    assert!(!one.settles(2, late, released()).await);
    assert_eq!(two.word(2).await, "in flight");
}

#[tokio::test]
async fn the_answer_of_an_owner_that_was_only_slow_is_the_truth() {
    let server = Server::start().await;
    let (one, two) = (server.owner(1).await, server.owner(2).await);
    for (n, settled, word) in [(1, completed(), "completed"), (2, released(), "absent")] {
        let epoch = one.claim(n, 0).await;
        server.expire(n).await;
        assert_eq!(two.word(n).await, "unknown");
        one.0.held.age(&id(n), LEASE);
        assert_eq!(one.holds(id(n), epoch).await, Ok(false), "it may not send again");
        assert_eq!(one.holds(id(n), epoch).await, Ok(false), "and need not ask again");
        assert!(one.settles(n, epoch, settled).await);
        assert_eq!(two.word(n).await, word);
    }
}

#[tokio::test]
async fn a_lease_that_ran_out_unseen_is_taken_up_again() {
    let server = Server::start().await;
    let (one, two) = (server.owner(1).await, server.owner(2).await);
    let epoch = one.claim(1, 0).await;
    server.expire(1).await;
    one.0.held.age(&id(1), LEASE);
    assert_eq!(one.holds(id(1), epoch).await, Ok(true));
    assert_eq!(two.word(1).await, "in flight");
    assert_eq!(one.holds(id(1), epoch + 1).await, Ok(false));
    assert_eq!(one.holds(id(2), epoch).await, Ok(false));
    one.let_go(id(1), epoch);
    assert_eq!(one.holds(id(1), epoch).await, Ok(false));
}

#[tokio::test]
async fn a_lease_found_run_out_by_whoever_resolves_is_unknown() {
    let server = Server::start().await;
    let (one, two) = (server.owner(1).await, server.owner(2).await);
    let epoch = one.claim(1, 0).await;
    server.expire(1).await;
    let done = two.resolve(id(1), Some(epoch), &landed(), KEEP).await;
    assert!(matches!(done, Ok(Resolution::Done { .. })));
    let epoch = one.claim(2, 0).await;
    server.expire(2).await;
    assert!(two.resume(id(2), epoch).await.expect("it answers").is_some());
    let epoch = one.claim(3, 0).await;
    server.expire(3).await;
    assert_eq!(two.forget(id(3), KEEP).await, Ok(false));
    assert_eq!(two.taken(3).await.epoch, epoch);
}

#[tokio::test]
async fn the_heartbeat_keeps_leases_and_finds_out_what_is_lost() {
    let server = Server::start().await;
    let lease = Duration::from_millis(300);
    let one = connect(Options { lease, ..server.options(1) }).await;
    let two = server.owner(2).await;
    let kept = one.claim(1, 0).await;
    let left = one.claim(2, 0).await;
    one.let_go(id(2), left);
    let lost = one.claim(3, 0).await;
    server.command(&["DEL", &key(3, "claim")]).await;
    eventually("the lease runs out", async || two.word(2).await == "unknown").await;
    assert_eq!(two.word(1).await, "in flight", "it has been renewed meanwhile");
    assert_eq!(one.holds(id(1), kept).await, Ok(true));
    let known = async || one.0.held.lease(&id(3), lost).is_some_and(|lease| lease.lost);
    eventually("the loss is known", known).await;
    assert_eq!(one.holds(id(3), lost).await, Ok(false));
    one.close();
    eventually("the lease runs out", async || two.word(1).await == "unknown").await;
}

#[tokio::test]
async fn a_reservation_whose_reply_nobody_waits_for_is_taken_back() {
    let server = Server::start().await;
    let lease = Duration::from_millis(600);
    let one = connect(Options { lease, ..server.options(1) }).await;
    let two = server.owner(2).await;
    one.claim(9, 0).await; // the server knows the script now
    // It reaches the server, and whoever asked is gone before the answer.
    server.pause();
    let asking = one.reserve(id(1), asked(0));
    assert!(tokio::time::timeout(Duration::from_millis(50), asking).await.is_err());
    server.go_on();
    eventually("it is free again", async || {
        two.word(1).await == "absent" && one.0.held.strays().is_empty()
    })
    .await;
    assert_eq!(one.held(), 1);
    // One that asked again in the same name meanwhile keeps its claim.
    let stray = |nonce| held::Stray {
        id: id(1),
        exchange: exchange(0),
        nonce,
        since: tokio::time::Instant::now(),
    };
    let epoch = one.claim(1, 0).await;
    one.0.held.stray(stray(2));
    assert_eq!(one.0.abandon(&stray(2)).await, Ok(false));
    assert_eq!(one.holds(id(1), epoch).await, Ok(true));
    assert_eq!(two.word(1).await, "in flight");
}
