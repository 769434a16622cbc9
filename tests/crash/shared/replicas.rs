//! What one replica began, the other joins, replays, or names unknown.

use super::redis::Redis;
use super::{Pair, REFUSE, Terms};
use crate::order::{Identity, Order, job};
use crate::upstream::Keys;

#[tokio::test]
async fn a_key_that_one_replica_claimed_is_joined_by_the_other() {
    let redis = Redis::start().await;
    let terms = Terms { blocks: "limits: {max_wait: 20s}", ..REFUSE };
    let mut pair = Pair::up(&redis.url(), terms).await;
    pair.upstream.script("a", "held").await;
    let (first, proxy) = (pair.order("a"), pair.one.proxy());
    let first = tokio::spawn(async move { first.ask(proxy).await });
    pair.upstream.arrived("a").await;
    let told = pair.by_other("a").await;
    assert_eq!(told.said(), (409, "in-progress".to_owned()), "past its wait");
    let (second, proxy) = (pair.order("a"), pair.other.proxy());
    let second = tokio::spawn(async move { second.ask(proxy).await });
    pair.other.it().until("samekey_inflight_exchanges{route=\"r\"}", 1.0).await;
    pair.upstream.release().await;
    let first = first.await.expect("it was not cut").expect("an answer");
    let second = second.await.expect("it was not cut").expect("an answer");
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (201, 201));
    assert_eq!((job(&first), second.header("samekey-attempts")), (job(&second), "0"));
    assert_eq!((pair.upstream.seen("a").await, pair.upstream.count("a")), (1, 1));
}

#[tokio::test]
async fn an_answer_that_one_replica_has_is_replayed_by_the_other_even_after_it_died() {
    let redis = Redis::start().await;
    let mut pair = Pair::up(&redis.url(), REFUSE).await;
    for identity in [Identity::ClientKey, Identity::Wish] {
        let order = Order::new(format!("{identity:?}"), identity, pair.upstream.http);
        let first = order.ask(pair.one.proxy()).await.expect("an answer");
        let second = order.ask(pair.other.proxy()).await.expect("an answer");
        assert_eq!(job(&first), job(&second), "{identity:?}");
        assert_eq!(second.header("samekey-replay"), "stored", "{identity:?}");
    }
    assert_eq!(pair.by_one("last").await.status, 201);
    pair.one.kill().await.expect("it died of it");
    assert_eq!(pair.by_other("last").await.header("samekey-replay"), "stored");
    for event in ["ClientKey", "Wish", "last"] {
        assert_eq!(pair.upstream.count(event), 1, "{event}");
    }
}

#[tokio::test]
async fn an_owner_that_died_leaves_an_unknown_outcome_and_never_a_free_key() {
    let redis = Redis::start().await;
    let mut pair = Pair::up(&redis.url(), REFUSE).await;
    pair.upstream.script("a", "held").await;
    pair.one_dies_amid("a").await;
    let told = pair.by_other_until_not("a", &["in-progress"]).await;
    assert_eq!(told.said(), (409, "outcome-unknown".to_owned()));
    pair.one.start(None).await.expect("it starts");
    let told = pair.by_one_until_not("a", &["in-progress"]).await;
    assert_eq!(told.said(), (409, "outcome-unknown".to_owned()));
    assert_eq!((pair.upstream.seen("a").await, pair.upstream.count("a")), (1, 1));
}

#[tokio::test]
async fn what_a_dead_owner_began_is_finished_by_the_other_where_the_upstream_de_duplicates() {
    let redis = Redis::start().await;
    let mut pair = Pair::up(&redis.url(), Terms { keys: Keys::Honoured, ..REFUSE }).await;
    pair.upstream.script("a", "held").await;
    pair.one_dies_amid("a").await;
    pair.upstream.release().await;
    let answer = pair.by_other_until_not("a", &["in-progress"]).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!((pair.upstream.seen("a").await, pair.upstream.count("a")), (2, 1));
    pair.one.start(None).await.expect("it starts");
    let again = pair.by_one("a").await;
    assert_eq!((job(&again), pair.upstream.seen("a").await), (job(&answer), 2));
}
