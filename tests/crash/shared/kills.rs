//! Replicas die by turns amid orders that go through both.

use std::io::{self, Write as _};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use samekey::failpoint::Failpoint;
use tokio::time::{Duration, timeout};

use super::redis::Redis;
use super::{REFUSE, Terms, config};
use crate::check::{book_agrees, described, stays};
use crate::customers::Customers;
use crate::ledger;
use crate::order::{End, Identity, Order};
use crate::sidecar::{Sidecar, Started};
use crate::tally::{AT_REST, Tally};
use crate::upstream::{Keys, Upstream};

struct Game {
    keys: Keys,
    rng: StdRng,
    upstream: Arc<Upstream>,
    replicas: [Sidecar; 2],
    tally: Tally,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_replica_is_killed_nothing_is_done_twice_and_no_answer_is_lost() {
    let mut sum = Tally::default();
    for keys in [Keys::Ignored, Keys::Honoured] {
        let redis = Redis::start().await;
        let text = config(&redis.url(), Terms { keys, ..REFUSE });
        let mut game = Game {
            keys,
            rng: StdRng::seed_from_u64(SEED),
            upstream: Arc::new(Upstream::start(keys, SEED, 25).await),
            replicas: [Sidecar::new(&text), Sidecar::new(&text)],
            tally: Tally::default(),
        };
        for round in 0..ROUNDS {
            if let Err(wrong) = game.round(round).await {
                game.tally.violations.push(format!("{keys:?}, round {round}: {wrong}"));
                break;
            }
        }
        game.tally.effects = game.upstream.effects().values().map(Vec::len).sum();
        sum = sum.and(game.tally);
    }
    writeln!(io::stdout(), "two replicas: {sum}").expect("it can be written");
    assert!(sum.violations.is_empty(), "{}", sum.violations.join("\n"));
}

impl Game {
    /// One of the two dies and comes back while the other goes on; then all is looked at.
    async fn round(&mut self, round: usize) -> Result<(), String> {
        let places = Failpoint::ALL.into_iter().filter(|place| *place != Failpoint::InResolve);
        let places = places.collect::<Vec<_>>();
        let place = *places.choose(&mut self.rng).expect("some are left");
        let armed = format!("{}:{}", place.as_str(), self.rng.random_range(1..8));
        let dies = self.rng.random_range(0..2);
        self.replicas[1 - dies].start(None).await?;
        let up = self.replicas[dies].start(Some(&armed)).await? == Started::Up;
        let doors = [self.replicas[0].whereabouts(), self.replicas[1].whereabouts()];
        let name = format!("{:?}-{round}", self.keys);
        let seed = self.rng.random();
        let customers = Customers::enter(&name, seed, &self.upstream, (None, IDENTITIES), &doors);
        if up {
            self.die(dies, place).await?;
        } else {
            self.tally.killed(place.as_str());
        }
        self.replicas[dies].start(None).await?;
        customers.close();
        let orders = customers.orders().await;
        let wrong = self.look(&orders).await;
        self.tally.orders += orders.len();
        for replica in &mut self.replicas {
            replica.kill().await?;
            self.tally.killed(AT_REST);
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    /// Sees it dead: at its place, or at any moment where that is not met soon.
    async fn die(&mut self, dies: usize, place: Failpoint) -> Result<(), String> {
        if let Ok(died) = timeout(MET_WITHIN, self.replicas[dies].died()).await {
            self.tally.killed(place.as_str());
            return died;
        }
        self.tally.missed(place.as_str());
        self.tally.killed("random");
        self.replicas[dies].kill().await
    }

    async fn look(&mut self, orders: &[Order]) -> Vec<String> {
        let mut wrong = book_agrees(orders, &self.upstream.effects(), self.keys);
        let mut listed = std::collections::BTreeSet::new();
        for replica in &mut self.replicas {
            match ledger::unknowns(replica.admin()).await {
                Ok(unknowns) => listed.extend(unknowns),
                Err(error) => wrong.push(error),
            }
        }
        for order in orders {
            if let Some(End::Unknown(exchange)) = &order.end {
                self.tally.unknowns += 1;
                if !listed.contains(exchange) {
                    wrong.push(described(order, "no replica's ledger lists it as unknown"));
                }
            }
            let mut kept = 0;
            let mut elsewhere = Vec::new();
            for replica in &mut self.replicas {
                match stays(order, replica.proxy()).await {
                    Ok(()) => kept += 1,
                    // A large answer stays with the replica that has it.
                    Err(not_here) if not_here.contains("response-not-retained") => {
                        elsewhere.push(not_here);
                    }
                    Err(violation) => wrong.push(violation),
                }
            }
            self.tally.replays += kept;
            if kept == 0 {
                wrong.append(&mut elsewhere);
            }
        }
        wrong.extend(book_agrees(orders, &self.upstream.effects(), self.keys));
        wrong
    }
}

/// An orphan is its own replica's: only orders with an identity may change doors.
const IDENTITIES: &[Identity] = &[Identity::ClientKey, Identity::Wish];
const ROUNDS: usize = 5;
const SEED: u64 = 3;
/// How long a place is waited for amid the orders.
const MET_WITHIN: Duration = Duration::from_secs(3);
