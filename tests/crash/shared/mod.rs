//! Two replicas, each with a journal of its own, and one Redis between them.

mod failover;
mod kills;
mod outage;
mod rate;
mod redis;
mod replicas;
mod stale;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::order::{Identity, Order};
use crate::sidecar::Sidecar;
use crate::support::Answer;
use crate::upstream::{Keys, Upstream};

/// An upstream that fails by script alone, and two sidecars that share a store.
struct Pair {
    upstream: Upstream,
    one: Sidecar,
    other: Sidecar,
}

/// What a test may say of `state.shared` and of the route.
#[derive(Clone, Copy)]
struct Terms<'a> {
    keys: Keys,
    on_failure: &'a str,
    wait_replicas: u8,
    /// Further blocks of the route, in flow style.
    blocks: &'a str,
}

/// What most tests want.
const REFUSE: Terms<'static> =
    Terms { keys: Keys::Ignored, on_failure: "refuse", wait_replicas: 0, blocks: "" };

impl Pair {
    /// Starts all three beside the store at `url`.
    async fn up(url: &str, terms: Terms<'_>) -> Self {
        let upstream = Upstream::start(terms.keys, 0, 0).await;
        let text = config(url, terms);
        let mut pair = Self { upstream, one: Sidecar::new(&text), other: Sidecar::new(&text) };
        pair.one.start(None).await.expect("it starts");
        pair.other.start(None).await.expect("it starts");
        pair
    }

    fn order(&self, event: &str) -> Order {
        Order::new(event.to_owned(), Identity::ClientKey, self.upstream.http)
    }

    async fn by_one(&mut self, event: &str) -> Answer {
        self.order(event).ask(self.one.proxy()).await.expect("an answer")
    }

    async fn by_other(&mut self, event: &str) -> Answer {
        self.order(event).ask(self.other.proxy()).await.expect("an answer")
    }

    /// Orders through the other until the answer is none of these slugs.
    async fn by_other_until_not(&mut self, event: &str, passing: &[&str]) -> Answer {
        let proxy = self.other.proxy();
        until_not(&self.order(event), proxy, passing).await
    }

    /// Kills the one while the upstream withholds its answer to an order.
    async fn one_dies_amid(&mut self, event: &str) {
        let (order, proxy) = (self.order(event), self.one.proxy());
        let asks = tokio::spawn(async move { order.ask(proxy).await });
        self.upstream.arrived(event).await;
        self.one.kill().await.expect("it died of it");
        assert!(asks.await.expect("it was not cut").is_err());
    }

    /// Orders through the one until the answer is none of these slugs.
    async fn by_one_until_not(&mut self, event: &str, passing: &[&str]) -> Answer {
        let proxy = self.one.proxy();
        until_not(&self.order(event), proxy, passing).await
    }
}

async fn until_not(order: &Order, proxy: std::net::SocketAddr, passing: &[&str]) -> Answer {
    let began = Instant::now();
    loop {
        let answer = order.ask(proxy).await.expect("an answer");
        if !passing.contains(&answer.said().1.as_str()) {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "{}: still {:?}", order.event, answer.said());
        sleep(Duration::from_millis(100)).await;
    }
}

fn config(url: &str, terms: Terms<'_>) -> String {
    let Terms { keys, on_failure, wait_replicas, blocks } = terms;
    let dedupes = keys == Keys::Honoured;
    let comma = if blocks.is_empty() { "" } else { ", " };
    format!(
        "listeners: [{{address: '127.0.0.1:0'}}]\nadmin: {{address: '127.0.0.1:0'}}\n\
         state: {{dir: state, journal: disk, shared: {{url: \"{url}\", on_failure: {on_failure}, \
         lease: 2s, wait_replicas: {wait_replicas}}}}}\n\
         routes: [{{name: r, match: {{hosts: ['*']}}, retry: {{attempts: 1, attempt_timeout: 6s}}, \
         idempotency: {{upstream_dedupes: {dedupes}, join_wait: 1s}}{comma}{blocks}}}]\n"
    )
}

/// Longer than any lease here, and than a Redis is away.
const PATIENCE: Duration = Duration::from_secs(25);
