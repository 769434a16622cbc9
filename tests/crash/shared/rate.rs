//! One account's rate, kept by two replicas together.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::redis::Redis;
use super::{Pair, REFUSE, Terms};
use crate::order::{Identity, Order};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_clients_of_two_replicas_keep_one_rate() {
    let redis = Redis::start().await;
    let terms = Terms { blocks: "limits: {rate: 20/1s, shared: true}", ..REFUSE };
    let mut pair = Pair::up(&redis.url(), terms).await;
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for nth in 0..10 {
        let proxy = if nth % 2 == 0 { pair.one.proxy() } else { pair.other.proxy() };
        let upstream = pair.upstream.http;
        clients.spawn(shop(format!("c-{nth}"), proxy, upstream, began));
    }
    clients.join_all().await;
    let elapsed = began.elapsed().as_secs_f64();
    let effects = pair.upstream.effects().values().map(Vec::len).sum::<usize>();
    let effects = f64::from(u32::try_from(effects).expect("it is few"));
    // A full bucket at the start, and one request on its way for each client at the end.
    let most = RATE.mul_add(elapsed, RATE + 10.0);
    let least = RATE * elapsed * 0.6;
    assert!(effects <= most, "{effects} in {elapsed} s; two rates of their own would be more");
    assert!(effects >= least, "{effects} in {elapsed} s: the rate is not used");
}

/// Orders one thing after another, until it is time.
async fn shop(name: String, proxy: SocketAddr, upstream: SocketAddr, began: Instant) {
    for turn in 0.. {
        let order = Order::new(format!("{name}-{turn}"), Identity::ClientKey, upstream);
        let left = PLAYED.saturating_sub(began.elapsed());
        // What does not come in time was held back, as it should be.
        if timeout(left, order.ask(proxy)).await.is_err() {
            return;
        }
    }
}

/// Requests a second.
const RATE: f64 = 20.0;
/// Long enough that twice the rate cannot be taken for the bucket's first fill.
const PLAYED: Duration = Duration::from_secs(5);
