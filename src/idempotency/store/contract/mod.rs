//! What every store promises: one contract, run over each variant of [`Store`].

mod ids;
mod concluded;
mod limits;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::made::{
    KEEP_KEY, Made, Make, ROOMY, TICK, TTL, asked, cold, exchange, id, in_memory, on_disk, print,
    record, settlement,
};
use super::redis::server::Server;
use super::shared::OnFailure;
use super::*;
use crate::journal::State;

/// Runs the whole contract.
async fn check(make: Make) {
    each_transition(make(ROOMY)).await;
    an_unsettled_claim(make(ROOMY)).await;
    a_late_owner(make(ROOMY)).await;
    fingerprints(make(ROOMY)).await;
    waiters(make(ROOMY)).await;
    a_crowd(make(ROOMY)).await;
    limits::the_end_of_time(make(ROOMY)).await;
    limits::a_full_store(make).await;
    forgetting(make(ROOMY)).await;
    by_hand(make(ROOMY)).await;
    ids::stay_with_the_row(make(ROOMY)).await;
    concluded::check(make(ROOMY)).await;
}

#[tokio::test(start_paused = true)]
async fn memory_keeps_the_contract() {
    check(in_memory).await;
}

#[tokio::test(start_paused = true)]
async fn disk_keeps_the_contract() {
    check(on_disk).await;
}

#[tokio::test(start_paused = true)]
async fn disk_keeps_the_contract_with_nothing_in_memory() {
    check(cold).await;
}

/// What of the contract needs no clock but Redis's own, over either local store. How
/// answers and keys age there, and what is full, is tested beside it.
async fn check_shared(local: Make) {
    let server = Server::start().await;
    let made = async || {
        let tasks = TaskTracker::new();
        server.command(&["FLUSHALL"]).await;
        let Made { store, folder, clock, .. } = local(ROOMY);
        let (redis, metrics) = (server.owner(1).await, crate::metrics::Metrics::new());
        let with = (tasks.clone(), metrics);
        let store = Store::Shared(Shared::new(store, redis, OnFailure::Refuse, with));
        Made { store, folder, clock, second: Duration::from_millis(100), tasks }
    };
    each_transition(made().await).await;
    an_unsettled_claim(made().await).await;
    a_late_owner(made().await).await;
    fingerprints(made().await).await;
    waiters(made().await).await;
    a_crowd(made().await).await;
    forgetting(made().await).await;
    by_hand(made().await).await;
    ids::stay_with_the_row(made().await).await;
    concluded::check(made().await).await;
}

#[tokio::test]
async fn redis_before_memory_keeps_the_contract() {
    check_shared(in_memory).await;
}

#[tokio::test]
async fn redis_before_the_disk_keeps_the_contract() {
    check_shared(on_disk).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_gives_one_claim_to_those_who_race() {
    a_race(in_memory(ROOMY)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn disk_gives_one_claim_to_those_who_race() {
    a_race(on_disk(ROOMY)).await;
}

async fn reserve(store: &Store, n: u8) -> Reserved {
    store.reserve(&asked(n, Some(print(n)))).await.expect("there is room")
}

async fn claim(store: &Store, n: u8) -> Claim {
    match reserve(store, n).await {
        Reserved::Claimed(claim) => claim,
        other => panic!("the key is free: {other:?}"),
    }
}

async fn waiter(store: &Store, n: u8) -> Waiter {
    match reserve(store, n).await {
        Reserved::InFlight(waiter) => waiter,
        other => panic!("the key is in flight: {other:?}"),
    }
}

async fn completed(store: &Store, n: u8) -> Completed {
    match reserve(store, n).await {
        Reserved::Completed(completed) => completed,
        other => panic!("the key was answered: {other:?}"),
    }
}

async fn open(store: &Store, n: u8) -> Open {
    match reserve(store, n).await {
        Reserved::Unknown(open) => open,
        other => panic!("nobody knows of the key: {other:?}"),
    }
}

async fn resume(store: &Store, n: u8, open: &Open) -> Option<Claim> {
    store.resume(&asked(n, Some(print(n))), open).await.expect("it can be asked")
}

/// NEW to IN FLIGHT and from there to each end, and from UNKNOWN on again.
async fn each_transition(store: Made) {
    assert_eq!(store.size(), (0, 0));
    let held = claim(&store, 1).await;
    let exchange = held.exchange();
    held.settle(settlement(End::Completed)).await;
    let done = completed(&store, 1).await;
    assert_eq!(done.record.expect("it is kept").body(), "{\"id\":1}");
    assert_eq!(done.captured, [("job".to_owned(), "j-1".to_owned())]);
    assert_eq!(done.exchange, exchange);

    claim(&store, 2).await.settle(settlement(End::NotRetained)).await;
    assert!(completed(&store, 2).await.record.is_none(), "answered, and not kept");

    claim(&store, 3).await.settle(settlement(End::Released)).await;
    store.abandon(claim(&store, 3).await).await;

    // A random key that nobody can ask for leaves nothing, however it ended.
    for end in [End::Completed, End::NotRetained, End::Unknown] {
        claim(&store, 4).await.settle(Settlement { stays: false, ..settlement(end) }).await;
    }
    store.abandon(claim(&store, 4).await).await;

    let held = claim(&store, 5).await;
    let exchange = held.exchange();
    held.settle(settlement(End::Unknown)).await;
    store.pass(store.second).await;
    let unknown = open(&store, 5).await;
    assert_eq!(unknown.exchange, exchange);
    let age = unknown.age.expect("the clock was not set");
    assert!(age >= store.second && age < store.second * 10, "{age:?}");
    let again = resume(&store, 5, &unknown).await.expect("it is still open");
    assert!(again.ambiguous_before());
    assert_eq!((again.id(), again.exchange()), (id(5), exchange), "the row goes on");
    let promised = again.promised_until(age * 3).expect("it is not over");
    assert!(promised <= Instant::now() + age * 2, "it counts from the first sending");
    assert_eq!(again.promised_until(age / 2), None, "and is over by then");
    assert!(resume(&store, 5, &unknown).await.is_none(), "another was faster");
    drop(waiter(&store, 5).await);
    again.settle(settlement(End::Completed)).await;
    assert!(completed(&store, 5).await.record.is_some());
    assert!(resume(&store, 5, &unknown).await.is_none(), "it is answered");
    assert!(resume(&store, 6, &unknown).await.is_none(), "it was never there");
    assert_eq!(store.size().0, 3);
}

/// Whoever panics, or is dropped on the way, leaves its claim open, never free.
async fn an_unsettled_claim(store: Made) {
    store.abandon(claim(&store, 1).await).await;
    let mut sending = claim(&store, 1).await;
    let mut waits = waiter(&store, 1).await;
    sending.begin_sending();
    store.abandon(sending).await;
    assert!(matches!(waits.told(store.second).await, Some(Told::Unknown)));
    let unknown = open(&store, 1).await;
    assert_eq!(unknown.fingerprint, Some(print(1)));

    // One that was taken up again stays open, though it sent nothing this time.
    store.abandon(resume(&store, 1, &unknown).await.expect("it is open")).await;
    let after = open(&store, 1).await;
    assert_ne!(after.epoch, unknown.epoch, "each life has its own epoch");
    assert!(resume(&store, 1, &unknown).await.is_none(), "what was read in an earlier life");
    store.abandon(resume(&store, 1, &after).await.expect("what was read in this one")).await;
}

/// An owner that lost its claim changes nothing in the life that came after.
async fn a_late_owner(store: Made) {
    let late = claim(&store, 1).await;
    let late_identifier = late.identifier();
    // Its lease is lost: somebody else finds the key open and sends again.
    store.settle(&late, &settlement(End::Unknown)).await;
    let found = open(&store, 1).await;
    let owner = resume(&store, 1, &found).await.expect("it is open");
    for end in [End::Completed, End::NotRetained, End::Released, End::Unknown] {
        store.settle(&late, &settlement(end)).await;
        drop(waiter(&store, 1).await);
    }
    late_identifier(print(99));
    late.identify(print(98));
    store.abandon(late).await;
    let mut waits = waiter(&store, 1).await;
    assert_eq!(waits.fingerprint(store.second).await, Some(print(1)));
    owner.settle(settlement(End::Completed)).await;
    let done = completed(&store, 1).await;
    assert_eq!(done.fingerprint, Some(print(1)));

    // Nor where the key went on to be free, and was claimed by another order.
    let late = claim(&store, 2).await;
    store.settle(&late, &settlement(End::Released)).await;
    let owner = claim(&store, 2).await;
    store.abandon(late).await;
    drop(waiter(&store, 2).await);
    owner.settle(settlement(End::Completed)).await;
    assert!(completed(&store, 2).await.record.is_some());
}

/// What was asked is told with every state, from when it is known.
async fn fingerprints(store: Made) {
    let reserve = async |n| store.reserve(&asked(n, None)).await.expect("there is room");
    let Reserved::Claimed(claim) = reserve(1).await else { panic!("the key is free") };
    let Reserved::InFlight(mut waits) = reserve(1).await else { panic!("it is in flight") };
    assert_eq!(waits.fingerprint(store.second).await, None, "it is still uploading");
    claim.identify(print(1));
    assert_eq!(waits.fingerprint(store.second).await, Some(print(1)));
    claim.settle(settlement(End::Completed)).await;
    assert_eq!(completed(&store, 1).await.fingerprint, Some(print(1)));

    let Reserved::Claimed(claim) = reserve(2).await else { panic!("the key is free") };
    let identify = claim.identifier();
    let Reserved::InFlight(mut waits) = reserve(2).await else { panic!("it is in flight") };
    // An answer may come before the request is complete.
    claim.settle(settlement(End::Unknown)).await;
    assert_eq!(waits.fingerprint(store.second).await, None, "it ended before that was known");
    assert_eq!(open(&store, 2).await.fingerprint, None);
    identify(print(2));
    assert_eq!(open(&store, 2).await.fingerprint, Some(print(2)));
}

/// Everyone who waits is told how it ended, and waking claims nothing.
async fn waiters(store: Made) {
    let ends = [
        (End::Completed, Told::Answer(record("a"))),
        (End::Released, Told::Failure(Failure::Refused)),
        (End::NotRetained, Told::TooLarge),
        (End::Unknown, Told::Unknown),
    ];
    for (n, (end, told)) in (1..).zip(ends) {
        let held = claim(&store, n).await;
        let mut waiting = Vec::new();
        for _ in 0..3 {
            waiting.push(waiter(&store, n).await);
        }
        for waits in &mut waiting {
            assert!(waits.told(store.second).await.is_none(), "it is still in flight");
        }
        let late = waiting[0].clone();
        held.settle(Settlement { told: told.clone(), ..settlement(end) }).await;
        for mut waits in waiting.into_iter().chain([late]) {
            let heard = waits.told(Duration::ZERO).await.expect("it has ended");
            assert_eq!(format!("{heard:?}"), format!("{told:?}"), "{end:?}");
        }
    }
}

/// Of many that ask at one time, one gets the claim and the rest its answer.
async fn a_crowd(store: Made) {
    let mut asking = JoinSet::new();
    for _ in 0..200 {
        let (store, second) = (store.clone(), store.second);
        asking.spawn(async move {
            match reserve(&store, 1).await {
                Reserved::Claimed(mut claim) => {
                    claim.begin_sending();
                    tokio::time::sleep(second).await;
                    claim.settle(settlement(End::Completed)).await;
                    1
                }
                Reserved::InFlight(mut waits) => {
                    assert!(matches!(waits.told(second * 20).await, Some(Told::Answer(_))));
                    0
                }
                other => panic!("nobody can be later than that: {other:?}"),
            }
        });
    }
    assert_eq!(asking.join_all().await.into_iter().sum::<u32>(), 1);
    claim(&store, 2).await.settle(settlement(End::Unknown)).await;
    let seen = open(&store, 2).await;
    let mut resumed = Vec::new();
    for _ in 0..200 {
        resumed.extend(resume(&store, 2, &seen).await);
    }
    assert_eq!(resumed.len(), 1);
}

/// The same, on threads that really run at one time.
async fn a_race(store: Made) {
    for round in 0..20 {
        let mut asking = JoinSet::new();
        let together = std::sync::Arc::new(tokio::sync::Barrier::new(50));
        for _ in 0..50 {
            let (store, together) = (store.clone(), together.clone());
            asking.spawn(async move {
                together.wait().await;
                store.reserve(&asked(round, None)).await
            });
        }
        let asked = asking.join_all().await;
        let claimed = |asked: &&Result<_, _>| matches!(asked, Ok(Reserved::Claimed(_)));
        assert_eq!(asked.iter().filter(claimed).count(), 1);
    }
}

/// A key that is in flight cannot be forgotten; any other can.
async fn forgetting(store: Made) {
    forget(&store, 1).await;
    let held = claim(&store, 1).await;
    forget(&store, 1).await;
    drop(waiter(&store, 1).await);
    held.settle(settlement(End::Completed)).await;
    forget(&store, 1).await;
    claim(&store, 1).await.settle(settlement(End::Unknown)).await;
    forget(&store, 1).await;
    store.abandon(claim(&store, 1).await).await;
    store.settle_down().await;
    assert_eq!(store.size(), (0, 0));
}

async fn forget(store: &Store, n: u8) {
    let asked = asked(n, None);
    store.forget(&asked.id, &asked.key).await;
}

/// What nobody knows is settled by hand, once; what is known, or under way, is not.
async fn by_hand(store: Made) {
    let resolve =
        async |exchange, verdict| store.resolve(exchange, verdict).await.expect("it can be asked");
    let unknown = async |n| {
        let held = claim(&store, n).await;
        let exchange = held.exchange();
        held.settle(settlement(End::Unknown)).await;
        exchange
    };
    let closed = async || {
        let counts = store.tally_unknowns().await.expect("they can be counted");
        assert!(counts.iter().all(|each| each.closed && each.route == "r"), "{counts:?}");
        counts.iter().map(|each| each.count).sum::<u64>()
    };
    assert_eq!(closed().await, 0);
    let landed = unknown(1).await;
    assert_eq!(closed().await, 1);
    assert!(matches!(resolve(landed, Verdict::Landed).await, Resolution::Settled(_)));
    let done = completed(&store, 1).await;
    assert_eq!(closed().await, 0);
    assert!(done.record.is_none(), "its answer is not known");
    assert_eq!((done.exchange, done.captured.len()), (landed, 1));
    let stands = Resolution::Stands(State::Completed);
    assert_eq!(resolve(landed, Verdict::Absent).await, stands, "the first word stands");

    let absent = unknown(2).await;
    assert!(matches!(resolve(absent, Verdict::Absent).await, Resolution::Settled(_)));
    let held = claim(&store, 2).await;
    assert_eq!(resolve(absent, Verdict::Landed).await, Resolution::Stands(State::Released));
    let stands = Resolution::Stands(State::InFlight);
    assert_eq!(resolve(held.exchange(), Verdict::Absent).await, stands);
    assert_eq!(resolve(exchange(), Verdict::Absent).await, Resolution::Missing);

    let free = async |n: u8| store.free(format!("key-{n}")).await.expect("it can be asked");
    assert_eq!(free(2).await, Freed::Busy(State::InFlight));
    store.abandon(held).await;
    unknown(3).await;
    assert_eq!(closed().await, 1);
    assert_eq!(free(3).await, Freed::Busy(State::Unknown));
    assert_eq!(free(1).await, Freed::Ids(vec![id(1).0]));
    assert_eq!(free(1).await, Freed::Ids(Vec::new()));
    store.abandon(claim(&store, 1).await).await;
}
