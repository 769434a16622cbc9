//! A master dies, a replica takes its place, and reservations may be gone with it.

use std::io::{self, Write as _};

use tokio::task::JoinSet;

use super::redis::Sentinels;
use super::{Pair, REFUSE, Terms};
use crate::support::Answer;

/// What a failover did to reservations whose orders were on their way.
#[derive(Debug)]
struct Failover {
    /// Orders that were sent before the master died.
    sent: usize,
    /// Orders that the store refused, and that were not sent.
    refused: usize,
    /// Orders that were sent a second time afterwards, by the other replica.
    forgotten: usize,
}

/// Plays one. A replica that lags holds nothing of what the master has just been told.
async fn play(wait_replicas: u8, lags: bool) -> Failover {
    let mut sentinels = Sentinels::start().await;
    let terms = Terms { wait_replicas, ..REFUSE };
    let mut pair = Pair::up(&sentinels.url(), terms).await;
    assert_eq!(pair.by_one("before").await.status, 201);
    if lags {
        sentinels.replica.pause();
        sentinels.master.cut_off().await;
    }
    let events: Vec<_> = (0..ORDERS).map(|nth| format!("o-{nth}")).collect();
    let mut orders: JoinSet<Result<Answer, String>> = JoinSet::new();
    for event in &events {
        pair.upstream.script(event, "held; ok").await;
        let (order, proxy) = (pair.order(event), pair.one.proxy());
        orders.spawn(async move { order.ask(proxy).await });
    }
    let refused = until_sent_or_refused(&pair, &events, &mut orders).await;
    sentinels.master.kill().await;
    sentinels.replica.resume();
    sentinels.until_promoted().await;
    let mut told = Failover { sent: 0, refused, forgotten: 0 };
    for event in &events {
        let before = pair.upstream.seen(event).await;
        told.sent += usize::from(before > 0);
        if before > 0 {
            pair.by_other_until_not(event, &["store-unavailable"]).await;
            told.forgotten += usize::from(pair.upstream.seen(event).await > before);
        }
    }
    pair.upstream.release().await;
    while orders.join_next().await.is_some() {}
    told
}

/// Waits until each order was sent or refused; how many were refused.
async fn until_sent_or_refused(
    pair: &Pair,
    events: &[String],
    orders: &mut JoinSet<Result<Answer, String>>,
) -> usize {
    let mut refused = 0;
    loop {
        let mut sent = 0;
        for event in events {
            sent += usize::from(pair.upstream.seen(event).await > 0);
        }
        while let Some(answer) = orders.try_join_next() {
            let answer = answer.expect("it was not cut").expect("an answer");
            assert_eq!(answer.said(), (503, "store-unavailable".to_owned()));
            refused += 1;
        }
        if sent + refused == events.len() {
            return refused;
        }
        tokio::task::yield_now().await;
    }
}

fn say(what: &str, told: &Failover) {
    let Failover { sent, refused, forgotten } = told;
    writeln!(
        io::stdout(),
        "failover: {what}: {sent} reservations on their way, {refused} refused, {forgotten} forgotten"
    )
    .expect("it can be written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_forgets_what_no_replica_had_and_that_is_measured() {
    let told = play(0, false).await;
    say("wait_replicas 0, the replica keeps up", &told);
    let told = play(0, true).await;
    say("wait_replicas 0, the replica lags", &told);
    assert!(told.sent > 0 && told.forgotten > 0, "nothing was lost, so nothing measured: {told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_forgets_nothing_that_waited_for_a_replica() {
    let told = play(1, false).await;
    say("wait_replicas 1, the replica keeps up", &told);
    assert_eq!((told.sent, told.forgotten), (ORDERS, 0), "{told:?}");
    let told = play(1, true).await;
    say("wait_replicas 1, the replica lags", &told);
    assert_eq!((told.refused, told.forgotten), (ORDERS, 0), "{told:?}");
}

/// Reservations that are open when the master dies.
const ORDERS: usize = 20;
