//! A replica that was away comes back with a journal that the others have overtaken.

use super::redis::Redis;
use super::{Pair, REFUSE};
use crate::ledger::{self, Truth};
use crate::order::{End, exchange};

/// An unknown outcome in the journal of the one, which dies; its name, by the other.
async fn unknown(pair: &mut Pair, event: &str, steps: &str) -> String {
    pair.upstream.script(event, steps).await;
    assert_eq!(pair.by_one(event).await.status, 500);
    assert_eq!(pair.by_one(event).await.said(), (409, "outcome-unknown".to_owned()));
    pair.one.kill().await.expect("it died of it");
    let told = pair.by_other_until_not(event, &["in-progress"]).await;
    assert_eq!(told.said(), (409, "outcome-unknown".to_owned()));
    exchange(&told)
}

async fn resolve(pair: &mut Pair, name: &str, truth: Truth) {
    let answer = ledger::resolve(pair.other.admin(), name, truth).await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn a_stale_journal_does_not_undo_that_it_landed() {
    let redis = Redis::start().await;
    let mut pair = Pair::up(&redis.url(), REFUSE).await;
    let name = unknown(&mut pair, "a", "500 effect; ok").await;
    resolve(&mut pair, &name, Truth::Landed).await;
    let landed = (409, "response-not-retained".to_owned());
    assert_eq!(pair.by_other("a").await.said(), landed);
    pair.one.start(None).await.expect("it starts");
    assert_eq!(pair.by_one("a").await.said(), landed, "by who was away");
    assert_eq!(pair.by_other("a").await.said(), landed, "and by all others still");
    assert_eq!((pair.upstream.seen("a").await, pair.upstream.count("a")), (1, 1));
}

#[tokio::test]
async fn a_stale_journal_does_not_undo_that_it_never_landed() {
    let redis = Redis::start().await;
    let mut pair = Pair::up(&redis.url(), REFUSE).await;
    let name = unknown(&mut pair, "a", "500; ok").await;
    resolve(&mut pair, &name, Truth::Absent).await;
    pair.one.start(None).await.expect("it starts");
    assert_eq!(pair.by_one("a").await.status, 201, "the key is free, by who was away too");
    assert_eq!(pair.by_other("a").await.header("samekey-replay"), "stored");
    assert_eq!((pair.upstream.seen("a").await, pair.upstream.count("a")), (2, 1));
}

#[tokio::test]
async fn a_stale_journal_does_not_undo_what_was_done_after_it_never_landed() {
    let redis = Redis::start().await;
    let mut pair = Pair::up(&redis.url(), REFUSE).await;
    let name = unknown(&mut pair, "a", "500; ok").await;
    resolve(&mut pair, &name, Truth::Absent).await;
    let answer = pair.by_other("a").await;
    assert_eq!(answer.status, 201);
    let job = crate::order::job(&answer);
    pair.one.start(None).await.expect("it starts");
    let mut order = pair.order("a");
    order.end = Some(End::Done(job));
    for proxy in [pair.one.proxy(), pair.other.proxy(), pair.one.proxy()] {
        crate::check::stays(&order, proxy).await.expect("it stays");
    }
    assert_eq!((pair.upstream.seen("a").await, pair.upstream.count("a")), (2, 1));
}
