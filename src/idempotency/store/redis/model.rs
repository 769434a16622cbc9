//! Whatever two owners do to a key, in whatever order, Redis answers as a small model does.

use std::collections::HashMap;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::server::{LEASE, Server};
use super::*;
use crate::exchange::id::ExchangeId;
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::scope::RecordId;
use crate::idempotency::store::Record;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The owner, the key, and the exchange that asks.
    Reserve(usize, u8, u32),
    /// With the epoch that this owner was last given.
    Settle(usize, u8, End),
    Holds(usize, u8),
    /// With the epoch that anybody last read of it as unknown.
    Resume(usize, u8),
    /// Nobody has seen it yet.
    Expire(u8),
    Peek(usize, u8),
    /// Landed, or absent; of the epoch last read, or of any.
    Resolve(usize, u8, bool, bool),
    Forget(usize, u8),
    /// Of the epoch that this owner was last given.
    Impose(usize, u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Completed,
    Released,
    Unknown,
}

/// A key as the model has it.
#[derive(Clone, Debug)]
struct Entry {
    state: &'static str,
    epoch: u64,
    owner: usize,
    exchange: u32,
    has_record: bool,
    ran_out: bool,
}

impl Entry {
    fn new(state: &'static str, epoch: u64, (owner, exchange): (usize, u32)) -> Self {
        Self { state, epoch, owner, exchange, has_record: false, ran_out: false }
    }
}

#[derive(Default)]
struct Model {
    entries: HashMap<u8, Entry>,
    tombstones: HashMap<u8, u64>,
    /// Who released which life last, while that is remembered.
    released: HashMap<u8, (usize, u64)>,
}

impl Model {
    /// What whoever looks at a key sees, and makes of it.
    fn look(&mut self, n: u8) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(&n)?;
        if entry.ran_out && entry.state == "in flight" {
            entry.state = "unknown";
        }
        entry.ran_out = false;
        Some(entry)
    }
}

struct Play<'a> {
    server: &'a Server,
    owners: &'a [Redis; 2],
    /// Tells the keys of one script from those of the next.
    round: u64,
    model: Model,
    given: HashMap<(usize, u8), (u64, u32)>,
    read: HashMap<u8, u64>,
    epoch_max: HashMap<u8, u64>,
}

impl Play<'_> {
    fn id(&self, n: u8) -> RecordId {
        let mut id = [n; 32];
        id[..8].copy_from_slice(&self.round.to_be_bytes());
        RecordId(id)
    }

    fn born(&mut self, n: u8, epoch: u64) {
        let max = self.epoch_max.entry(n).or_default();
        assert!(epoch > *max, "epochs rise");
        *max = epoch;
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Reserve(who, n, by) => self.reserve(who, n, by).await,
            Step::Settle(who, n, end) => self.settle(who, n, end).await,
            Step::Holds(who, n) => self.holds(who, n).await,
            Step::Resume(who, n) => self.resume(who, n).await,
            Step::Expire(n) => self.expire(n).await,
            Step::Peek(who, n) => self.peek(who, n).await,
            Step::Resolve(who, n, landed, exact) => self.resolve(who, n, (landed, exact)).await,
            Step::Forget(who, n) => self.forget(who, n).await,
            Step::Impose(who, n) => self.impose(who, n).await,
        }
    }

    async fn reserve(&mut self, who: usize, n: u8, by: u32) {
        let asked = Asked {
            exchange: ExchangeId::from_parts(7, by),
            fingerprint: Some(Fingerprint([n; 32])),
            first_sent_wall_micros: 1,
        };
        let found = self.owners[who].reserve(self.id(n), asked).await.expect("it answers");
        let tombstone = self.model.tombstones.get(&n).copied();
        let wanted = self.model.look(n).cloned();
        match (found, wanted) {
            (Found::Claimed { epoch, resolved_epoch }, None) => {
                assert_eq!(resolved_epoch, tombstone);
                self.born(n, epoch);
                let entry = Entry::new("in flight", epoch, (who, by));
                self.model.entries.insert(n, entry);
                self.model.released.remove(&n);
                self.given.insert((who, n), (epoch, by));
            }
            (Found::Claimed { epoch, .. }, Some(entry)) => {
                let again = (entry.state, entry.owner, entry.exchange, entry.epoch);
                assert_eq!(again, ("in flight", who, by, epoch), "run again by the same");
            }
            (Found::Taken(taken), Some(entry)) => {
                let ours = entry.owner == who && entry.exchange == by;
                assert!(!(entry.state == "in flight" && ours), "it would be claimed again");
                self.compare(n, &taken, &entry);
            }
            (found, wanted) => panic!("{found:?} where the model has {wanted:?}"),
        }
    }

    fn compare(&mut self, n: u8, taken: &Taken, entry: &Entry) {
        let state = match &taken.state {
            State::InFlight => "in flight",
            State::Completed { record, .. } => {
                assert_eq!(record.is_some(), entry.has_record);
                "completed"
            }
            State::Unknown => "unknown",
        };
        assert_eq!((state, taken.epoch), (entry.state, entry.epoch));
        if state == "unknown" {
            self.read.insert(n, taken.epoch);
        }
    }

    async fn peek(&mut self, who: usize, n: u8) {
        let found = self.owners[who].peek(self.id(n)).await.expect("it answers");
        let wanted = self.model.look(n).cloned();
        match (found, wanted, self.model.tombstones.get(&n)) {
            (Peek::Absent, None, None) => {}
            (Peek::Resolved { epoch }, None, Some(tombstone)) => assert_eq!(epoch, *tombstone),
            (Peek::Taken(taken), Some(entry), _) => self.compare(n, &taken, &entry),
            (found, wanted, _) => panic!("{found:?} where the model has {wanted:?}"),
        }
    }

    async fn settle(&mut self, who: usize, n: u8, end: End) {
        let Some((epoch, _)) = self.given.get(&(who, n)).copied() else { return };
        let record = Record::new(StatusCode::OK, &HeaderMap::new(), Bytes::from_static(b"x"));
        let (ttl, keep_key) = (LEASE * 60, LEASE * 60);
        let answered = Answered { record: Some(record), captured: Vec::new(), ttl, keep_key };
        let settled = match end {
            End::Completed => Settled { end: Ended::Completed(answered), told: None },
            End::Released => Settled { end: Ended::Released, told: None },
            End::Unknown => Settled::unknown(),
        };
        let done = self.owners[who].settle(self.id(n), epoch, settled).await.expect("it answers");
        let wanted = match self.model.entries.get_mut(&n) {
            // To release it once more is no error.
            None => end == End::Released && self.model.released.get(&n) == Some(&(who, epoch)),
            Some(entry) if entry.owner != who || entry.epoch != epoch => false,
            Some(entry) if entry.state == "completed" => end == End::Completed,
            Some(entry) => {
                match end {
                    End::Completed => (entry.state, entry.has_record) = ("completed", true),
                    End::Unknown => entry.state = "unknown",
                    End::Released => {
                        self.model.entries.remove(&n);
                        self.model.released.insert(n, (who, epoch));
                    }
                }
                true
            }
        };
        assert_eq!(done, wanted, "{end:?}");
    }

    async fn holds(&mut self, who: usize, n: u8) {
        let Some((epoch, _)) = self.given.get(&(who, n)).copied() else { return };
        // As if the last renewal had been a while ago, so that Redis is asked.
        self.owners[who].0.held.age(&self.id(n), LEASE / 3);
        let known = self.owners[who].0.held.lease(&self.id(n), epoch);
        let known = known.is_some_and(|lease| !lease.lost);
        let holds = self.owners[who].holds(self.id(n), epoch).await.expect("it answers");
        let entry = self.model.entries.get_mut(&n);
        let ours = entry.filter(|entry| {
            (entry.owner, entry.epoch, entry.state) == (who, epoch, "in flight") && known
        });
        assert_eq!(holds, ours.is_some());
        if let Some(entry) = ours {
            entry.ran_out = false;
        }
    }

    async fn resume(&mut self, who: usize, n: u8) {
        let Some(read) = self.read.get(&n).copied() else { return };
        let resumed = self.owners[who].resume(self.id(n), read).await.expect("it answers");
        let wanted =
            self.model.look(n).filter(|entry| (entry.state, entry.epoch) == ("unknown", read));
        assert_eq!(resumed.is_some(), wanted.is_some());
        if let (Some(epoch), Some(entry)) = (resumed, wanted) {
            (entry.state, entry.epoch, entry.owner) = ("in flight", epoch, who);
            let exchange = entry.exchange;
            self.born(n, epoch);
            self.given.insert((who, n), (epoch, exchange));
        }
    }

    async fn expire(&mut self, n: u8) {
        let key = format!("samekey:{{{}}}:claim", wire::id_to(&self.id(n)));
        if let Some(entry) = self.model.entries.get_mut(&n)
            && entry.state == "in flight"
        {
            self.server.command(&["HSET", &key, "lease_until", "1"]).await;
            entry.ran_out = true;
        }
    }

    async fn resolve(&mut self, who: usize, n: u8, (landed, exact): (bool, bool)) {
        let epoch = self.read.get(&n).copied().filter(|_| exact);
        let verdict = if landed {
            let (exchange, captured) = (ExchangeId::from_parts(7, 9), Vec::new());
            Verdict::Landed { exchange, fingerprint: None, captured }
        } else {
            Verdict::Absent
        };
        let resolving = self.owners[who].resolve(self.id(n), epoch, &verdict, LEASE * 60);
        let resolution = resolving.await.expect("it answers");
        let entry = self.model.look(n).cloned();
        let tombstone = self.model.tombstones.get(&n).copied().unwrap_or(0);
        let wanted = match &entry {
            Some(entry) if entry.state == "in flight" => Resolution::InFlight,
            Some(entry) if entry.state == "completed" => Resolution::Completed,
            Some(entry) if epoch.is_some_and(|epoch| epoch != entry.epoch) => Resolution::Changed,
            None if epoch.is_some_and(|epoch| epoch < tombstone) && landed => Resolution::Changed,
            None if epoch.is_some_and(|epoch| epoch < tombstone) => {
                Resolution::Done { epoch: tombstone }
            }
            _ => {
                let Resolution::Done { epoch } = resolution else { panic!("{resolution:?}") };
                self.born(n, epoch);
                self.model.released.remove(&n);
                self.model.entries.remove(&n);
                if landed {
                    let entry = Entry {
                        state: "completed",
                        epoch,
                        owner: who,
                        exchange: 9,
                        has_record: false,
                        ran_out: false,
                    };
                    self.model.entries.insert(n, entry);
                } else {
                    self.model.tombstones.insert(n, epoch);
                }
                return;
            }
        };
        assert_eq!(resolution, wanted);
    }

    async fn forget(&mut self, who: usize, n: u8) {
        let forgotten = self.owners[who].forget(self.id(n), LEASE * 60).await.expect("it answers");
        let wanted = self.model.look(n).is_some_and(|entry| entry.state == "completed");
        assert_eq!(forgotten, wanted);
        if wanted {
            self.model.entries.remove(&n);
            let Peek::Resolved { epoch } = self.owners[who].peek(self.id(n)).await.expect("it")
            else {
                panic!("it is remembered that it was forgotten");
            };
            self.born(n, epoch);
            self.model.tombstones.insert(n, epoch);
        }
    }

    async fn impose(&mut self, who: usize, n: u8) {
        let Some((epoch, by)) = self.given.get(&(who, n)).copied() else { return };
        let imposed = Imposed {
            epoch: Some(epoch),
            exchange: ExchangeId::from_parts(7, by),
            fingerprint: None,
            first_sent_wall_micros: 1,
            answered: None,
        };
        let done = self.owners[who].impose(self.id(n), imposed).await.expect("it answers");
        let stale = self.model.tombstones.get(&n).is_some_and(|tombstone| *tombstone >= epoch);
        let wanted = !self.model.entries.contains_key(&n) && !stale;
        assert_eq!(done, wanted);
        if wanted {
            let entry = Entry::new("unknown", epoch, (who, by));
            self.model.entries.insert(n, entry);
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..2_usize;
    let key = || 0..KEYS;
    let end = prop::sample::select(vec![End::Completed, End::Released, End::Unknown]);
    prop_oneof![
        6 => (who(), key(), 0..2_u32).prop_map(|(who, n, by)| Step::Reserve(who, n, by)),
        4 => (who(), key(), end).prop_map(|(who, n, end)| Step::Settle(who, n, end)),
        2 => (who(), key()).prop_map(|(who, n)| Step::Holds(who, n)),
        3 => (who(), key()).prop_map(|(who, n)| Step::Resume(who, n)),
        3 => key().prop_map(Step::Expire),
        2 => (who(), key()).prop_map(|(who, n)| Step::Peek(who, n)),
        2 => (who(), key(), any::<bool>(), any::<bool>())
            .prop_map(|(who, n, landed, exact)| Step::Resolve(who, n, landed, exact)),
        1 => (who(), key()).prop_map(|(who, n)| Step::Forget(who, n)),
        1 => (who(), key()).prop_map(|(who, n)| Step::Impose(who, n)),
    ]
}

#[test]
fn redis_does_what_the_model_does() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let server = runtime.block_on(Server::start());
    let owners = runtime.block_on(async { [server.owner(1).await, server.owner(2).await] });
    let round = AtomicU64::new(0);
    let mut runner = TestRunner::new(Config::with_cases(CASES));
    let held = runner.run(&prop::collection::vec(step(), 0..50), |script| {
        let mut play = Play {
            server: &server,
            owners: &owners,
            round: round.fetch_add(1, Ordering::Relaxed),
            model: Model::default(),
            given: HashMap::new(),
            read: HashMap::new(),
            epoch_max: HashMap::new(),
        };
        runtime.block_on(async {
            for step in script {
                play.step(step).await;
            }
        });
        Ok(())
    });
    held.expect("redis does what the model does");
}

/// Few, so that a script meets each of them often.
const KEYS: u8 = 2;
const CASES: u32 = 200;
