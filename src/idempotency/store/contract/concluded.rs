//! What an unknown outcome comes to once the provider has been asked.

use super::*;

pub(super) async fn check(store: Made) {
    answered(&store).await;
    landed(&store).await;
    absent(&store).await;
    told_to_those_who_wait(&store).await;
    late(&store).await;
    tags(&store).await;
    quiet(&store).await;
}

fn found() -> Finding {
    let captured = vec![("job".to_owned(), "j-9".to_owned())];
    Finding::Answered { record: record("{\"id\":9}"), captured, ttl: TTL, keep_key: KEEP_KEY }
}

fn tagged(n: u8, place: Option<&str>) -> Asked {
    Asked { tag: place.map(str::to_owned), ..asked(n, Some(print(n))) }
}

async fn claimed(store: &Store, asked: &Asked) -> Claim {
    match store.reserve(asked).await.expect("there is room") {
        Reserved::Claimed(claim) => claim,
        other => panic!("the key is free: {other:?}"),
    }
}

/// Key `n`, whose outcome is unknown, with its tag.
async fn unknown(store: &Store, n: u8) -> Open {
    let held = claimed(store, &tagged(n, Some("/tag"))).await;
    held.settle(settlement(End::Unknown)).await;
    open(store, n).await
}

async fn conclude(store: &Store, n: u8, open: &Open, finding: Finding) -> bool {
    store.conclude(&asked(n, None), open, finding).await.expect("it can be asked")
}

async fn answered(store: &Store) {
    let known = unknown(store, 40).await;
    assert!(conclude(store, 40, &known, found()).await);
    let done = completed(store, 40).await;
    let record = done.record.expect("it is kept");
    assert_eq!(
        (record.status(), record.body().as_ref()),
        (201.try_into().expect("a status"), &b"{\"id\":9}"[..])
    );
    assert_eq!((done.exchange, done.fingerprint), (known.exchange, Some(print(40))));
    assert_eq!(done.captured, [("job".to_owned(), "j-9".to_owned())]);
    let entry = store.show(known.exchange).await.expect("it is read").expect("it has a row");
    assert_eq!((entry.state, entry.captured), (State::Completed, done.captured));
    // The first word stands, whoever comes after.
    assert!(!conclude(store, 40, &known, Finding::Absent).await);
    let resolved = store.resolve(known.exchange, Verdict::Absent).await.expect("it can be asked");
    assert_eq!(resolved, Resolution::Stands(State::Completed));
}

async fn landed(store: &Store) {
    let known = unknown(store, 41).await;
    assert!(conclude(store, 41, &known, Finding::Landed).await);
    assert!(completed(store, 41).await.record.is_none());
}

async fn absent(store: &Store) {
    let known = unknown(store, 42).await;
    assert!(conclude(store, 42, &known, Finding::Absent).await);
    let entry = store.show(known.exchange).await.expect("it is read").expect("it has a row");
    assert_eq!(entry.state, State::Released);
    let held = claim(store, 42).await;
    assert!(!held.ambiguous_before(), "it is a new order");
    assert_ne!(held.exchange(), known.exchange);
    // What was read of the life before says nothing of this one.
    assert!(!conclude(store, 42, &known, found()).await);
    held.settle(settlement(End::Released)).await;
}

async fn told_to_those_who_wait(store: &Store) {
    let known = unknown(store, 43).await;
    let resumed = store.resume(&asked(43, None), &known).await.expect("it can be asked");
    let held = resumed.expect("nobody else has it");
    let mut waits = waiter(store, 43).await;
    held.settle(settlement(End::Completed)).await;
    let told = waits.told(Duration::from_secs(5)).await;
    assert!(matches!(told, Some(Told::Answer(_))), "{told:?}");
}

/// Whoever read of a life of the key that has gone on since changes nothing.
async fn late(store: &Store) {
    let known = unknown(store, 44).await;
    let resumed = store.resume(&asked(44, None), &known).await.expect("it can be asked");
    let again = resumed.expect("nobody else has it");
    assert!(!conclude(store, 44, &known, Finding::Absent).await, "it is being sent again");
    again.settle(settlement(End::Unknown)).await;
    assert!(!conclude(store, 44, &known, Finding::Absent).await, "it was sent again");
    let now = open(store, 44).await;
    store.resolve(now.exchange, Verdict::Landed).await.expect("it can be asked");
    assert!(!conclude(store, 44, &now, found()).await, "an operator was faster");
    assert!(completed(store, 44).await.record.is_none());
}

async fn tags(store: &Store) {
    for (n, again, left) in
        [(45, Some("/tag"), true), (46, Some("/else"), false), (47, None, false)]
    {
        let known = unknown(store, n).await;
        assert_eq!(known.tag.as_deref(), Some("/tag"));
        let resumed = store.resume(&tagged(n, again), &known).await.expect("it can be asked");
        let held = resumed.expect("nobody else has it");
        held.settle(settlement(End::Unknown)).await;
        assert_eq!(open(store, n).await.tag.is_some(), left, "{again:?}");
    }
    let plain = claim(store, 48).await;
    plain.settle(settlement(End::Unknown)).await;
    assert_eq!(open(store, 48).await.tag, None);
}

async fn quiet(store: &Made) {
    let known = unknown(store, 49).await;
    assert!(known.quiet < store.second, "it has just ended");
    tokio::time::sleep(store.second * 2).await;
    let later = open(store, 49).await.quiet;
    assert!(later >= store.second && later < store.second * 60, "{later:?}");
}
