//! The coordinator against real servers.

mod limits;
mod outage;
mod races;
mod replicas;
mod sites;
mod transitions;
mod waiting;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::server::{LEASE, Server, connect};
use super::*;
use crate::exchange::id::ExchangeId;
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::scope::RecordId;
use crate::idempotency::store::Record;

const TTL: Duration = Duration::from_hours(24);
const KEEP: Duration = Duration::from_hours(90 * 24);
const SENT: u64 = 1_790_000_000_000_000;

fn id(n: u8) -> RecordId {
    RecordId([n; 32])
}

fn print(n: u8) -> Fingerprint {
    Fingerprint([n; 32])
}

fn exchange(n: u32) -> ExchangeId {
    ExchangeId::from_parts(SENT, n)
}

fn asked(n: u32) -> Asked {
    Asked {
        exchange: exchange(n),
        fingerprint: Some(print(1)),
        first_sent_wall_micros: SENT + u64::from(n),
    }
}

fn record(body: impl Into<Bytes>) -> Record {
    Record::new(StatusCode::CREATED, &HeaderMap::new(), body.into())
}

fn captured() -> Vec<(String, String)> {
    vec![("job".to_owned(), "j-1".to_owned())]
}

fn answered(body: impl Into<Bytes>) -> Answered {
    Answered { record: Some(record(body)), captured: captured(), ttl: TTL, keep_key: KEEP }
}

fn completed() -> Settled {
    Settled { end: Ended::Completed(answered("{\"id\":1}")), told: None }
}

fn released() -> Settled {
    Settled { end: Ended::Released, told: None }
}

fn landed() -> Verdict {
    Verdict::Landed { exchange: exchange(77), fingerprint: Some(print(7)), captured: captured() }
}

impl Redis {
    async fn claim(&self, n: u8, by: u32) -> u64 {
        match self.reserve(id(n), asked(by)).await.expect("it answers") {
            Found::Claimed { epoch, .. } => epoch,
            taken @ Found::Taken(_) => panic!("the key is free: {taken:?}"),
        }
    }

    async fn taken(&self, n: u8) -> Taken {
        match self.reserve(id(n), asked(1000)).await.expect("it answers") {
            Found::Taken(taken) => taken,
            claimed @ Found::Claimed { .. } => panic!("the key is taken: {claimed:?}"),
        }
    }

    async fn word(&self, n: u8) -> &'static str {
        match self.peek(id(n)).await.expect("it answers") {
            Peek::Absent => "absent",
            Peek::Resolved { .. } => "resolved",
            Peek::Taken(taken) => taken.state.word(),
        }
    }

    async fn settles(&self, n: u8, epoch: u64, settled: Settled) -> bool {
        self.settle(id(n), epoch, settled).await.expect("it answers")
    }
}

impl State {
    fn word(&self) -> &'static str {
        match self {
            Self::InFlight => "in flight",
            Self::Completed { record: Some(_), .. } => "completed",
            Self::Completed { record: None, .. } => "its key alone",
            Self::Unknown => "unknown",
        }
    }
}

impl Server {
    /// As if the lease of a claim had run out just now.
    async fn expire(&self, n: u8) {
        let key = key(n, "claim");
        if self.number(&["HEXISTS", &key, "lease_until"]).await == 1 {
            self.command(&["HSET", &key, "lease_until", "1"]).await;
        }
    }
}

impl Server {
    /// How many listen to the news.
    async fn listeners(&self) -> i64 {
        let listeners = self.command(&["PUBSUB", "NUMSUB", script::NEWS]).await;
        let (_news, count): (String, i64) = redis::from_redis_value(listeners).expect("a count");
        count
    }
}

fn key(n: u8, part: &str) -> String {
    format!("samekey:{{{}}}:{part}", wire::id_to(&id(n)))
}

/// Waits until something is so; what never is fails the test.
async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), asked).await;
    waited.unwrap_or_else(|_elapsed| panic!("never: {what}"));
}
