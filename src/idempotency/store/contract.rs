//! What every store promises: one contract, run over each variant of [`Store`].

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::task::JoinSet;

use super::*;
use crate::exchange::id::Names;

/// Makes an empty store that holds so many bytes.
pub(super) type Make = fn(u64) -> Store;

pub(super) const ROOMY: u64 = 1 << 30;
pub(super) const TTL: Duration = Duration::from_hours(24);
pub(super) const KEEP_KEY: Duration = Duration::from_hours(90 * 24);
const TICK: Duration = Duration::from_nanos(1);
const SECOND: Duration = Duration::from_secs(1);

/// Runs the whole contract.
async fn check(make: Make) {
    each_transition(make(ROOMY)).await;
    an_unsettled_claim(make(ROOMY)).await;
    a_late_owner(make(ROOMY)).await;
    fingerprints(make(ROOMY)).await;
    waiters(make(ROOMY)).await;
    a_crowd(make(ROOMY)).await;
    the_end_of_time(make(ROOMY)).await;
    a_full_store(make).await;
    forgetting(&make(ROOMY));
}

#[tokio::test(start_paused = true)]
async fn memory_keeps_the_contract() {
    check(|bytes_max| Store::Memory(Memory::new(bytes_max))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_gives_one_claim_to_those_who_race() {
    a_race(Store::Memory(Memory::new(ROOMY))).await;
}

pub(super) fn id(n: u8) -> RecordId {
    RecordId([n; 32])
}

pub(super) fn print(n: u8) -> Fingerprint {
    Fingerprint([n; 32])
}

pub(super) fn exchange(nth: usize) -> ExchangeId {
    let names = Names::new(1, std::time::UNIX_EPOCH);
    let mut all = std::iter::repeat_with(|| names.next());
    all.nth(nth).expect("names never end")
}

fn record(text: &'static str) -> Record {
    Record::new(StatusCode::CREATED, &HeaderMap::new(), Bytes::from_static(text.as_bytes()))
}

pub(super) fn settlement(end: End) -> Settlement {
    let answer = record("{\"id\":1}");
    Settlement {
        end,
        stays: end != End::Released,
        record: (end == End::Completed).then(|| answer.clone()),
        captured: vec![("job".to_owned(), "j-1".to_owned())],
        told: Told::Answer(answer),
        ttl: TTL,
        keep_key: KEEP_KEY,
    }
}

fn reserve(store: &Store, n: u8) -> Reserved {
    let reserved = store.reserve(id(n), Some(print(n)), exchange(0), Instant::now());
    reserved.expect("there is room")
}

fn claim(store: &Store, n: u8) -> Claim {
    match reserve(store, n) {
        Reserved::Claimed(claim) => claim,
        other => panic!("the key is free: {other:?}"),
    }
}

fn waiter(store: &Store, n: u8) -> Waiter {
    match reserve(store, n) {
        Reserved::InFlight(waiter) => waiter,
        other => panic!("the key is in flight: {other:?}"),
    }
}

fn completed(store: &Store, n: u8) -> Completed {
    match reserve(store, n) {
        Reserved::Completed(completed) => completed,
        other => panic!("the key was answered: {other:?}"),
    }
}

fn open(store: &Store, n: u8) -> Open {
    match reserve(store, n) {
        Reserved::Unknown(open) => open,
        other => panic!("nobody knows of the key: {other:?}"),
    }
}

/// NEW to IN FLIGHT and from there to each end, and from UNKNOWN on again.
async fn each_transition(store: Store) {
    let began = Instant::now();
    assert_eq!(store.size(), (0, 0));
    claim(&store, 1).settle(settlement(End::Completed));
    let done = completed(&store, 1);
    assert_eq!(done.record.expect("it is kept").body(), "{\"id\":1}");
    assert_eq!(done.captured, [("job".to_owned(), "j-1".to_owned())]);
    assert_eq!(done.exchange, exchange(0));

    claim(&store, 2).settle(settlement(End::NotRetained));
    assert!(completed(&store, 2).record.is_none(), "answered, and not kept");

    claim(&store, 3).settle(settlement(End::Released));
    drop(claim(&store, 3));

    // A random key that nobody can ask for leaves nothing, however it ended.
    for end in [End::Completed, End::NotRetained, End::Unknown] {
        claim(&store, 4).settle(Settlement { stays: false, ..settlement(end) });
    }
    drop(claim(&store, 4));

    claim(&store, 5).settle(settlement(End::Unknown));
    tokio::time::advance(SECOND).await;
    let unknown = open(&store, 5);
    assert_eq!((unknown.exchange, unknown.first_sent), (exchange(0), began));
    let again = store.resume(id(5), &unknown).expect("it is still open");
    assert!(again.ambiguous_before());
    assert_eq!((again.id(), again.first_sent()), (id(5), began), "the promise counts from here");
    assert!(store.resume(id(5), &unknown).is_none(), "another was faster");
    drop(waiter(&store, 5));
    again.settle(settlement(End::Completed));
    assert!(completed(&store, 5).record.is_some());
    assert!(store.resume(id(5), &unknown).is_none(), "it is answered");
    assert!(store.resume(id(6), &unknown).is_none(), "it was never there");
    assert_eq!(store.size().0, 3);
}

/// Whoever panics, or is dropped on the way, leaves its claim open, never free.
async fn an_unsettled_claim(store: Store) {
    drop(claim(&store, 1));
    let mut sending = claim(&store, 1);
    let mut waits = waiter(&store, 1);
    sending.begin_sending();
    drop(sending);
    assert!(matches!(waits.told(SECOND).await, Some(Told::Unknown)));
    let unknown = open(&store, 1);
    assert_eq!(unknown.fingerprint, Some(print(1)));

    // One that was taken up again stays open, though it sent nothing this time.
    drop(store.resume(id(1), &unknown).expect("it is open"));
    let after = open(&store, 1);
    assert_ne!(after.epoch, unknown.epoch, "each life has its own epoch");
    assert!(store.resume(id(1), &unknown).is_none(), "what was read in an earlier life");
    drop(store.resume(id(1), &after).expect("what was read in this one"));
}

/// An owner that lost its claim changes nothing in the life that came after.
async fn a_late_owner(store: Store) {
    let late = claim(&store, 1);
    let late_identifier = late.identifier();
    // Its lease is lost: somebody else finds the key open and sends again.
    store.settle(&late, settlement(End::Unknown));
    let owner = store.resume(id(1), &open(&store, 1)).expect("it is open");
    for end in [End::Completed, End::NotRetained, End::Released, End::Unknown] {
        store.settle(&late, settlement(end));
        drop(waiter(&store, 1));
    }
    late_identifier(print(99));
    late.identify(print(98));
    drop(late);
    let mut waits = waiter(&store, 1);
    assert_eq!(waits.fingerprint(SECOND).await, Some(print(1)));
    owner.settle(settlement(End::Completed));
    let done = completed(&store, 1);
    assert_eq!(done.fingerprint, Some(print(1)));

    // Nor where the key went on to be free, and was claimed by another order.
    let late = claim(&store, 2);
    store.settle(&late, settlement(End::Released));
    let owner = claim(&store, 2);
    drop(late);
    drop(waiter(&store, 2));
    owner.settle(settlement(End::Completed));
    assert!(completed(&store, 2).record.is_some());
}

/// What was asked is told with every state, from when it is known.
async fn fingerprints(store: Store) {
    let now = Instant::now();
    let reserve = |n| store.reserve(id(n), None, exchange(0), now).expect("there is room");
    let Reserved::Claimed(claim) = reserve(1) else { panic!("the key is free") };
    let Reserved::InFlight(mut waits) = reserve(1) else { panic!("it is in flight") };
    assert_eq!(waits.fingerprint(SECOND).await, None, "it is still uploading");
    claim.identify(print(1));
    assert_eq!(waits.fingerprint(SECOND).await, Some(print(1)));
    claim.settle(settlement(End::Completed));
    assert_eq!(completed(&store, 1).fingerprint, Some(print(1)));

    let Reserved::Claimed(claim) = reserve(2) else { panic!("the key is free") };
    let identify = claim.identifier();
    let Reserved::InFlight(mut waits) = reserve(2) else { panic!("it is in flight") };
    // An answer may come before the request is complete.
    claim.settle(settlement(End::Unknown));
    assert_eq!(waits.fingerprint(SECOND).await, None, "it ended before that was known");
    assert_eq!(open(&store, 2).fingerprint, None);
    identify(print(2));
    assert_eq!(open(&store, 2).fingerprint, Some(print(2)));
}

/// Everyone who waits is told how it ended, and waking claims nothing.
async fn waiters(store: Store) {
    let ends = [
        (End::Completed, Told::Answer(record("a"))),
        (End::Released, Told::Failure(Failure::Refused)),
        (End::NotRetained, Told::TooLarge),
        (End::Unknown, Told::Unknown),
    ];
    for (n, (end, told)) in (1..).zip(ends) {
        let held = claim(&store, n);
        let mut waiting = [(); 3].map(|()| waiter(&store, n));
        for waits in &mut waiting {
            assert!(waits.told(SECOND).await.is_none(), "it is still in flight");
        }
        let late = waiting[0].clone();
        held.settle(Settlement { told: told.clone(), ..settlement(end) });
        for mut waits in waiting.into_iter().chain([late]) {
            let heard = waits.told(Duration::ZERO).await.expect("it has ended");
            assert_eq!(format!("{heard:?}"), format!("{told:?}"), "{end:?}");
        }
    }
}

/// Of many that ask at one time, one gets the claim and the rest its answer.
async fn a_crowd(store: Store) {
    let mut asking = JoinSet::new();
    for nth in 0..200 {
        let store = store.clone();
        asking.spawn(async move {
            let asked = store.reserve(id(1), Some(print(1)), exchange(nth), Instant::now());
            match asked.expect("there is room") {
                Reserved::Claimed(mut claim) => {
                    claim.begin_sending();
                    tokio::time::sleep(SECOND).await;
                    claim.settle(settlement(End::Completed));
                    1
                }
                Reserved::InFlight(mut waits) => {
                    assert!(matches!(waits.told(SECOND * 2).await, Some(Told::Answer(_))));
                    0
                }
                other => panic!("nobody can be later than that: {other:?}"),
            }
        });
    }
    assert_eq!(asking.join_all().await.into_iter().sum::<u32>(), 1);
    claim(&store, 2).settle(settlement(End::Unknown));
    let seen = [(); 200].map(|()| open(&store, 2));
    let resumed: Vec<Claim> = seen.iter().filter_map(|open| store.resume(id(2), open)).collect();
    assert_eq!(resumed.len(), 1);
}

/// The same, on threads that really run at one time.
async fn a_race(store: Store) {
    for round in 0..20 {
        let mut asking = JoinSet::new();
        let together = std::sync::Arc::new(tokio::sync::Barrier::new(50));
        for nth in 0..50 {
            let (store, together) = (store.clone(), together.clone());
            asking.spawn(async move {
                together.wait().await;
                store.reserve(id(round), None, exchange(nth), Instant::now())
            });
        }
        let asked = asking.join_all().await;
        let claimed = |asked: &&Result<_, _>| matches!(asked, Ok(Reserved::Claimed(_)));
        assert_eq!(asked.iter().filter(claimed).count(), 1);
    }
}

/// An answer goes, then its key; what nobody knows never goes.
async fn the_end_of_time(store: Store) {
    for sweeps in [false, true] {
        claim(&store, 1).settle(settlement(End::Completed));
        claim(&store, 2)
            .settle(Settlement { keep_key: Duration::ZERO, ..settlement(End::Completed) });
        claim(&store, 3).settle(settlement(End::Unknown));
        let held = claim(&store, 4);
        let full = store.size().1;
        tokio::time::advance(TTL.saturating_sub(TICK)).await;
        store.sweep(Instant::now());
        assert!(completed(&store, 1).record.is_some());
        assert!(completed(&store, 2).record.is_some());
        tokio::time::advance(TICK).await;
        if sweeps {
            store.sweep(Instant::now());
            assert_eq!(store.size().0, 3);
        }
        let done = completed(&store, 1);
        assert!(done.record.is_none(), "the key outlives the answer");
        assert_eq!(done.captured.len(), 1, "and so do the ids");
        assert!(store.size().1 < full);
        drop(claim(&store, 2));
        tokio::time::advance(KEEP_KEY.saturating_sub(TICK)).await;
        store.sweep(Instant::now());
        drop(completed(&store, 1));
        tokio::time::advance(TICK + KEEP_KEY * 10).await;
        if sweeps {
            store.sweep(Instant::now());
            assert_eq!(store.size().0, 2);
        }
        drop(claim(&store, 1));
        drop(waiter(&store, 4));
        open(&store, 3);
        drop(held);
        store.forget(&id(3));
        assert_eq!(store.size(), (0, 0), "everything was given back");
    }
}

/// A full store takes no new key, and keeps a key whose answer it cannot take.
async fn a_full_store(make: Make) {
    let probe = make(ROOMY);
    let held = claim(&probe, 1);
    let one = probe.size().1;
    held.settle(settlement(End::Completed));
    let with_answer = probe.size().1;

    // An eighth is for keys alone, so that a store full of answers still takes some.
    let enough = (with_answer..2 * with_answer)
        .find(|room| room - room / 8 >= with_answer)
        .expect("some room");
    for (room, keeps) in [(enough - 1, false), (enough, true)] {
        let store = make(room);
        claim(&store, 1).settle(settlement(End::Completed));
        assert_eq!(completed(&store, 1).record.is_some(), keeps, "{room} of {with_answer}");
        assert!(store.size().1 <= room);
    }
    let store = make(40 * one);
    (1..=30).for_each(|nth| claim(&store, nth).settle(settlement(End::Completed)));
    assert!(completed(&store, 1).record.is_some());
    assert!(
        completed(&store, 30).record.is_none(),
        "the answers' share is used up, the keys' is not"
    );
    for (room, fits) in [(2 * one - 1, false), (2 * one, true)] {
        let store = make(room);
        let _held = claim(&store, 1);
        let second = store.reserve(id(2), None, exchange(0), Instant::now());
        assert_eq!(second.is_ok(), fits, "{room} for two of {one}");
        assert!(fits || matches!(second, Err(Failure::StoreUnavailable(_))));
        drop(waiter(&store, 1));
    }
    // What is given back can be taken again.
    let store = make(one);
    drop(claim(&store, 1));
    let brief = Settlement { keep_key: Duration::ZERO, ..settlement(End::NotRetained) };
    claim(&store, 2).settle(brief);
    assert!(store.reserve(id(3), None, exchange(0), Instant::now()).is_err());
    tokio::time::advance(TTL).await;
    store.sweep(Instant::now());
    drop(claim(&store, 3));
}

/// A key that is in flight cannot be forgotten; any other can.
fn forgetting(store: &Store) {
    store.forget(&id(1));
    let held = claim(store, 1);
    store.forget(&id(1));
    drop(waiter(store, 1));
    held.settle(settlement(End::Completed));
    store.forget(&id(1));
    claim(store, 1).settle(settlement(End::Unknown));
    store.forget(&id(1));
    drop(claim(store, 1));
    assert_eq!(store.size(), (0, 0));
}
