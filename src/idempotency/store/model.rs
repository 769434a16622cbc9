//! Whatever is done to a store, in whatever order, it answers as a small model does.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::time::Instant;

use super::made::{KEEP_KEY, Made, Make, ROOMY, TTL, asked, in_memory, on_disk, print, settlement};
use super::*;

#[test]
fn memory_does_what_the_model_does() {
    check(in_memory, 500);
}

#[test]
fn disk_does_what_the_model_does() {
    check(on_disk, 60);
}

/// Killed at any step, and started again on what it left.
#[test]
fn disk_does_what_the_model_does_through_crashes() {
    let step = prop_oneof![8 => step(), 1 => Just(Step::Crash)];
    check_steps(on_disk, 60, step);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Reserve(u8),
    Settle(u8, End),
    /// Its owner is dropped; the flag says whether it had begun to send.
    Abandon(u8, bool),
    /// With what was last read of it, however long ago.
    Resume(u8),
    Pass(Duration),
    Sweep,
    Forget(u8),
    /// The head of a good answer has come.
    Land(u8),
    /// The process is killed, and another one goes on.
    Crash,
}

#[derive(Clone, Copy, Debug)]
enum State {
    InFlight { ambiguous_before: bool, landed: bool },
    Completed { has_record: bool, since: Instant, kept: Duration },
    Unknown,
}

/// The model: a state for each key that has one, and how often it was claimed.
#[derive(Default)]
struct Model {
    states: HashMap<u8, State>,
    lives: HashMap<u8, u32>,
}

impl Model {
    /// The state of a key, once time has had its way with it.
    fn state(&mut self, n: u8) -> Option<State> {
        let state = *self.states.get(&n)?;
        let State::Completed { has_record, since, kept } = state else { return Some(state) };
        if since.elapsed() >= kept {
            self.states.remove(&n);
            return None;
        }
        Some(State::Completed { has_record: has_record && since.elapsed() < TTL, since, kept })
    }

    fn claim(&mut self, n: u8, ambiguous_before: bool) {
        self.states.insert(n, State::InFlight { ambiguous_before, landed: false });
        *self.lives.entry(n).or_default() += 1;
    }

    fn end(&mut self, n: u8, end: End) {
        let (since, kept) = (Instant::now(), TTL + KEEP_KEY);
        let completed = |has_record| State::Completed { has_record, since, kept };
        match end {
            End::Completed => self.states.insert(n, completed(true)),
            End::NotRetained => self.states.insert(n, completed(false)),
            End::Unknown => self.states.insert(n, State::Unknown),
            End::Released => self.states.remove(&n),
        };
    }

    /// Nobody knows of what was in flight, but what had landed was answered.
    fn crash(&mut self) {
        for state in self.states.values_mut() {
            let State::InFlight { landed, .. } = *state else { continue };
            let (since, kept) = (Instant::now(), KEEP_KEY);
            let answered = State::Completed { has_record: false, since, kept };
            *state = if landed { answered } else { State::Unknown };
        }
    }
}

/// The store, the model beside it, and what was taken from the store so far.
struct Play {
    store: Made,
    model: Model,
    claims: HashMap<u8, Claim>,
    read: HashMap<u8, (Open, u32)>,
}

impl Play {
    async fn reserve(&mut self, n: u8) {
        let reserved = self.store.reserve(&asked(n, Some(print(n)))).await;
        match (reserved.expect("there is room"), self.model.state(n)) {
            (Reserved::Claimed(claim), None) => {
                self.model.claim(n, false);
                assert!(self.claims.insert(n, claim).is_none(), "one claim a key");
            }
            (Reserved::InFlight(_), Some(State::InFlight { .. })) => {}
            (Reserved::Completed(done), Some(State::Completed { has_record, .. })) => {
                assert_eq!(done.record.is_some(), has_record);
                assert_eq!(done.fingerprint, Some(print(n)));
            }
            (Reserved::Unknown(open), Some(State::Unknown)) => {
                self.read.insert(n, (open, self.model.lives[&n]));
            }
            (found, wanted) => panic!("{found:?} where the model has {wanted:?}"),
        }
    }

    async fn resume(&mut self, n: u8) {
        let Some((open, life)) = self.read.get(&n) else { return };
        let resumed = self.store.resume(&asked(n, Some(print(n))), open).await;
        let resumed = resumed.expect("it can be asked");
        let current = *life == self.model.lives[&n];
        let wanted = current && matches!(self.model.state(n), Some(State::Unknown));
        assert_eq!(resumed.is_some(), wanted);
        if let Some(claim) = resumed {
            self.model.claim(n, true);
            self.claims.insert(n, claim);
        }
    }

    fn abandon(&mut self, n: u8, sending: bool) {
        let Some(mut claim) = self.claims.remove(&n) else { return };
        let before =
            matches!(self.model.state(n), Some(State::InFlight { ambiguous_before: true, .. }));
        if sending {
            claim.begin_sending();
        }
        drop(claim);
        self.model.end(n, if before || sending { End::Unknown } else { End::Released });
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Reserve(n) => self.reserve(n).await,
            Step::Resume(n) => self.resume(n).await,
            Step::Abandon(n, sending) => self.abandon(n, sending),
            Step::Settle(n, end) => {
                if let Some(claim) = self.claims.remove(&n) {
                    claim.settle(settlement(end)).await;
                    self.model.end(n, end);
                }
            }
            Step::Land(n) => {
                if let Some(claim) = self.claims.get(&n) {
                    claim.land(&Landing {
                        status: http::StatusCode::CREATED,
                        keep_key: KEEP_KEY,
                        captured: Vec::new(),
                    });
                    if let Some(State::InFlight { landed, .. }) = self.model.states.get_mut(&n) {
                        *landed = true;
                    }
                }
            }
            Step::Crash => {
                self.store.kill().await;
                self.claims.clear();
                self.model.crash();
            }
            Step::Pass(time) => tokio::time::advance(time).await,
            Step::Sweep => {
                self.store.sweep().await.expect("it is swept");
                let known = (0..KEYS).filter(|n| self.model.state(*n).is_some()).count();
                assert_eq!(self.store.size().0, known as u64);
            }
            Step::Forget(n) => {
                forget(&self.store, n).await;
                if !matches!(self.model.state(n), Some(State::InFlight { .. })) {
                    self.model.states.remove(&n);
                }
            }
        }
    }
}

async fn play(store: Made, script: &[Step]) {
    let (model, claims, read) = (Model::default(), HashMap::new(), HashMap::new());
    let mut play = Play { store, model, claims, read };
    for step in script {
        play.step(*step).await;
        assert!(play.store.size().0 <= u64::from(KEYS));
    }
    play.claims.clear();
    for n in 0..KEYS {
        forget(&play.store, n).await;
    }
    play.store.settle_down().await;
    assert_eq!(play.store.size(), (0, 0), "everything was given back");
}

async fn forget(store: &Store, n: u8) {
    let asked = asked(n, None);
    store.forget(&asked.id, &asked.key).await;
}

fn step() -> impl Strategy<Value = Step> {
    let ends = vec![End::Completed, End::NotRetained, End::Released, End::Unknown];
    let key = || 0..KEYS;
    prop_oneof![
        6 => key().prop_map(Step::Reserve),
        3 => (key(), prop::sample::select(ends)).prop_map(|(n, end)| Step::Settle(n, end)),
        2 => (key(), any::<bool>()).prop_map(|(n, sending)| Step::Abandon(n, sending)),
        3 => key().prop_map(Step::Resume),
        1 => prop::sample::select(vec![TTL / 2, TTL, KEEP_KEY / 2, KEEP_KEY]).prop_map(Step::Pass),
        1 => Just(Step::Sweep),
        1 => key().prop_map(Step::Forget),
        1 => key().prop_map(Step::Land),
    ]
}

fn check(make: Make, cases: u32) {
    check_steps(make, cases, step());
}

fn check_steps(make: Make, cases: u32, step: impl Strategy<Value = Step>) {
    let mut runner = TestRunner::new(Config::with_cases(cases));
    let held = runner.run(&prop::collection::vec(step, 0..60), |script| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(async { play(make(ROOMY), &script).await });
        Ok(())
    });
    held.expect("the store does what the model does");
}

/// Few, so that a script meets each of them often.
const KEYS: u8 = 3;
