//! Redis dead, paused, and back with nothing in it.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::redis::Redis;
use super::{Pair, REFUSE, Terms};
use crate::order::{Identity, Order};

#[tokio::test]
async fn without_redis_refuse_sends_nothing_and_goes_on_once_it_is_back() {
    let mut redis = Redis::start().await;
    let mut pair = Pair::up(&redis.url(), REFUSE).await;
    assert_eq!(pair.by_one("before").await.status, 201);
    redis.kill().await;
    for event in ["a", "b"] {
        let told = pair.by_one(event).await;
        assert_eq!(told.said(), (503, "store-unavailable".to_owned()));
        assert_eq!(pair.upstream.seen(event).await, 0);
    }
    let keyless = Order::new("keyless".to_owned(), Identity::Keyless, pair.upstream.http);
    let answer = keyless.ask(pair.one.proxy()).await.expect("an answer");
    assert_eq!(answer.status, 201, "random keys go on");
    redis.start_again().await;
    let answer = pair.by_one_until_not("a", &["store-unavailable"]).await;
    assert_eq!((answer.status.as_u16(), pair.upstream.count("a")), (201, 1));
}

#[tokio::test]
async fn without_redis_forward_goes_on_and_its_own_journal_still_holds() {
    let mut redis = Redis::start().await;
    let mut pair = Pair::up(&redis.url(), Terms { on_failure: "forward", ..REFUSE }).await;
    assert_eq!(pair.by_one("before").await.status, 201);
    redis.kill().await;
    assert_eq!(pair.by_one("a").await.status, 201);
    pair.upstream.script("u", "500 effect; ok").await;
    assert_eq!(pair.by_one("u").await.status, 500);
    for status in ["\"status\":201", "\"status\":500"] {
        pair.one.it().logged(&["exchange", status, "by this replica alone"]).await;
    }
    for _ in 0..2 {
        assert_eq!(pair.by_one("before").await.header("samekey-replay"), "stored");
        assert_eq!(pair.by_one("a").await.header("samekey-replay"), "stored");
        assert_eq!(pair.by_one("u").await.said(), (409, "outcome-unknown".to_owned()));
        pair.one.kill().await.expect("it died of it");
        pair.one.start(None).await.expect("it starts without Redis");
    }
    redis.start_again().await;
    assert_eq!(pair.by_one("a").await.header("samekey-replay"), "stored");
    assert_eq!(pair.by_one("u").await.said(), (409, "outcome-unknown".to_owned()));
    for event in ["before", "a", "u"] {
        assert_eq!(pair.upstream.count(event), 1, "{event}");
    }
}

#[tokio::test]
async fn a_redis_that_hangs_holds_nobody_for_long() {
    let redis = Redis::start().await;
    let mut pair = Pair::up(&redis.url(), REFUSE).await;
    assert_eq!(pair.by_one("before").await.status, 201);
    redis.pause();
    let began = Instant::now();
    let told = pair.by_one("a").await;
    assert_eq!(told.said(), (503, "store-unavailable".to_owned()));
    assert!(began.elapsed() < HANG_MAX, "it took {:?}", began.elapsed());
    assert_eq!(pair.upstream.seen("a").await, 0);
    redis.resume();
    // The claim that Redis took in its sleep is this exchange's own: it may not block it for good.
    let passing = ["store-unavailable", "in-progress"];
    let answer = pair.by_one_until_not("a", &passing).await;
    let known = [(201, String::new()), (409, "outcome-unknown".to_owned())];
    assert!(known.contains(&answer.said()), "{:?}", answer.said());
    assert!(pair.upstream.count("a") <= 1);
    let other = timeout(HANG_MAX, pair.by_other("b")).await.expect("it is not held");
    assert_eq!((other.status.as_u16(), pair.upstream.count("b")), (201, 1));
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_undoes_nothing_of_a_replicas_own_journal() {
    let mut redis = Redis::start().await;
    let mut pair = Pair::up(&redis.url(), REFUSE).await;
    pair.upstream.script("u", "500 effect; ok").await;
    assert_eq!(pair.by_one("a").await.status, 201);
    assert_eq!(pair.by_one("u").await.status, 500);
    redis.kill().await;
    redis.start_again().await;
    for _ in 0..2 {
        let answer = pair.by_one_until_not("a", &["store-unavailable"]).await;
        assert_eq!(answer.header("samekey-replay"), "stored");
        assert_eq!(pair.by_one("u").await.said(), (409, "outcome-unknown".to_owned()));
        pair.one.kill().await.expect("it died of it");
        pair.one.start(None).await.expect("it starts");
    }
    assert_eq!((pair.upstream.count("a"), pair.upstream.count("u")), (1, 1));
    assert_eq!((pair.upstream.seen("a").await, pair.upstream.seen("u").await), (1, 1));
}

/// How long a client may be held by a store that does not answer.
const HANG_MAX: Duration = Duration::from_secs(10);
