//! What is counted as one goes is what is there, whatever is done and in whatever order.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::resolve::Verdict;
use super::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Reserve(u64, u64),
    Withdraw(u64),
    Settle(u64, State, bool),
    Resume(u64),
    Forget(u64),
    Free(u64),
    Resolve(u64, Verdict),
    Note(u64),
    Fail,
    Sweep,
    Pass(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 1..KEYS;
    let seq = || 1..SEQS;
    let verdict = prop::sample::select(vec![Verdict::Landed, Verdict::Absent]);
    let end = prop::sample::select(vec![State::Completed, State::Unknown, State::Released]);
    prop_oneof![
        8 => (seq(), key()).prop_map(|(seq, n)| Step::Reserve(seq, n)),
        1 => seq().prop_map(Step::Withdraw),
        6 => (seq(), end, any::<bool>()).prop_map(|(seq, end, filed)| Step::Settle(seq, end, filed)),
        2 => seq().prop_map(Step::Resume),
        1 => key().prop_map(Step::Forget),
        1 => key().prop_map(Step::Free),
        1 => (seq(), verdict).prop_map(|(seq, verdict)| Step::Resolve(seq, verdict)),
        2 => seq().prop_map(Step::Note),
        1 => Just(Step::Fail),
        1 => Just(Step::Sweep),
        1 => prop::sample::select(vec![TTL, KEEP, LEDGER]).prop_map(Step::Pass),
    ]
}

/// Hands a step over, without waiting for it.
async fn hand_over(scene: &Scene, step: Step, tasks: &mut tokio::task::JoinSet<()>) {
    let journal = scene.journal.clone();
    let key = |n: u64| format!("key-{n}");
    match step {
        Step::Reserve(seq, n) => {
            let asked = Reserve { row: row(seq, n), epoch: seq, ..reserve(n) };
            tasks.spawn(async move { drop(journal.reserve(asked).await) });
        }
        Step::Withdraw(seq) => drop(journal.withdraw((seq, seq), |_| ())),
        Step::Settle(seq, end, filed) => {
            let body = if filed { At::File(id(seq)) } else { At::Row(vec![1; 10]) };
            let end = if end == State::Completed { answered(body) } else { settle(end) };
            drop(journal.settle(seq, seq, end));
        }
        Step::Resume(seq) => {
            let resuming = async move { journal.resume((seq, seq), seq, None).await.map(|_| ()) };
            tasks.spawn(async move { resuming.await.unwrap_or_default() });
        }
        Step::Forget(n) => drop(journal.forget(&key(n), id(n), |_| ())),
        Step::Free(n) => {
            tasks.spawn(async move { drop(journal.free(key(n), |_| ()).await) });
        }
        Step::Resolve(seq, verdict) => {
            tasks.spawn(async move { drop(journal.resolve((seq, INSTANCE), verdict).await) });
        }
        Step::Note(seq) => drop(journal.note(note(seq))),
        Step::Fail => drop(journal.submit(|file, delta| {
            (delta.keys, delta.loose, delta.answers) = (5, 5, 5);
            file.execute("INSERT INTO books (keys) VALUES (NULL)", []).map(drop)
        })),
        Step::Sweep => {
            tasks.spawn(async move { journal.sweep().await.expect("it is swept") });
        }
        Step::Pass(time) => pass(time).await,
    }
}

#[test]
fn the_books_are_true_after_whatever_is_done() {
    let groups = prop::collection::vec(prop::collection::vec(step(), 1..12), 1..12);
    let mut runner = TestRunner::new(Config::with_cases(60));
    let held = runner.run(&groups, |groups| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            // Little room, so that rows are thinned and answers left out.
            let scene = Scene::of(16 * ROW_BYTES);
            for group in groups {
                let mut tasks = tokio::task::JoinSet::new();
                let gate = scene.busy();
                for step in group {
                    hand_over(&scene, step, &mut tasks).await;
                }
                tokio::task::yield_now().await;
                drop(gate);
                tasks.join_all().await;
                scene.books_are_true().await;
            }
        });
        Ok(())
    });
    held.expect("what is counted is there");
}

const KEYS: u64 = 4;
/// Few, so that names and epochs meet each other again.
const SEQS: u64 = 8;
