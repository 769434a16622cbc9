//! Memory and file agree, whoever fails, is dropped, or comes between.

use std::pin::pin;
use std::sync::mpsc;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::StatusCode;

use super::*;
use crate::exchange::trail::{End, Outcome};
use crate::idempotency::store::made::{Made, ROOMY, asked, cold, id, on_disk, print, settlement};
use crate::journal::State;

impl Made {
    fn file(&self) -> &Journal {
        self.journal().expect("it is on disk")
    }

    /// Has the file refuse a change, until it [relents](Self::relent).
    async fn refuse(&self, change: &str) {
        let trigger = format!(
            "CREATE TEMP TRIGGER refused BEFORE {change} BEGIN SELECT RAISE(ABORT, 'no'); END"
        );
        let refuse = self.file().submit(move |file, _| file.execute_batch(&trigger));
        refuse.await.expect("a trigger");
    }

    async fn relent(&self) {
        let relent = self.file().submit(|file, _| file.execute_batch("DROP TRIGGER refused"));
        relent.await.expect("no trigger");
    }

    /// Keeps the writer busy until the gate is dropped.
    fn busy(&self) -> mpsc::Sender<()> {
        let (gate, closed) = mpsc::channel::<()>();
        self.file().post(move |_, _| {
            closed.recv().unwrap_or_default();
            Ok(())
        });
        gate
    }

    async fn ask(&self, n: u8) -> Result<Reserved, Failure> {
        self.reserve(&asked(n, Some(print(n)))).await
    }

    async fn claim(&self, n: u8) -> Claim {
        match self.ask(n).await {
            Ok(Reserved::Claimed(claim)) => claim,
            other => panic!("the key is free: {other:?}"),
        }
    }

    async fn sending(&self, n: u8) -> Claim {
        let mut claim = self.claim(n).await;
        claim.begin_sending();
        claim
    }

    async fn swept(&self) {
        self.sweep().await.expect("it is swept");
    }

    /// The same journal, with nothing in memory.
    fn afresh(mut self) -> Self {
        self.store = Store::Disk(Disk::new(self.file().clone(), 1 << 20, 0, Metrics::new()));
        self
    }
}

/// An end with one attempt, by which it is seen how often it was written.
fn ended(end: End) -> Settlement {
    let mut settlement = settlement(end);
    settlement.attempts.push(crate::exchange::trail::Attempt {
        outcome: Outcome::Done,
        did_nothing: false,
        status: Some(StatusCode::CREATED),
        waited: Duration::ZERO,
        at: std::time::SystemTime::UNIX_EPOCH,
    });
    settlement
}

async fn shown(store: &Store, exchange: ExchangeId) -> Option<(State, usize)> {
    let entry = store.show(exchange).await.expect("it is read");
    entry.map(|entry| (entry.state, entry.attempts.len()))
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_the_file_did_not_take_is_told_from_memory_and_written_once() {
    for make in [on_disk, cold] {
        let store = make(ROOMY);
        let claim = store.sending(1).await;
        let exchange = claim.exchange();
        store.refuse("UPDATE ON exchanges").await;
        claim.settle(ended(End::Completed)).await;
        for _ in 0..3 {
            let Ok(Reserved::Completed(done)) = store.ask(1).await else { panic!("answered") };
            assert!(done.record.is_some());
            assert_eq!((done.exchange, done.fingerprint), (exchange, Some(print(1))));
            assert_eq!(shown(&store, exchange).await, Some((State::InFlight, 0)));
            store.swept().await;
        }
        store.relent().await;
        for _ in 0..3 {
            store.swept().await;
            assert_eq!(shown(&store, exchange).await, Some((State::Completed, 1)));
        }
        let store = store.afresh();
        let Ok(Reserved::Completed(done)) = store.ask(1).await else { panic!("answered") };
        assert!(done.record.is_some(), "and the file has the answer");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_has_what_is_owed_written_first() {
    let store = cold(ROOMY);
    for (n, end) in [(1, End::Completed), (2, End::NotRetained), (3, End::Unknown)] {
        let claim = store.sending(n).await;
        let exchange = claim.exchange();
        store.refuse("UPDATE ON exchanges").await;
        claim.settle(ended(end)).await;
        store.relent().await;
        match (end, store.ask(n).await.expect("the file takes it")) {
            (End::Completed, Reserved::Completed(done)) => assert!(done.record.is_some()),
            (End::NotRetained, Reserved::Completed(done)) => assert!(done.record.is_none()),
            (End::Unknown, Reserved::Unknown(open)) => {
                assert_eq!(open.exchange, exchange);
                let again = store.resume(&asked(n, Some(print(n))), &open).await;
                assert!(again.expect("it is asked").is_some(), "and it can be sent again");
            }
            (end, other) => panic!("{end:?} is {other:?}"),
        }
        store.settle_down().await;
        assert_eq!(shown(&store, exchange).await.map(|(_, attempts)| attempts), Some(1));
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_the_file_did_not_take_counts_once_however_often_it_is_tried() {
    let (mut store, metrics) = (on_disk(ROOMY), Metrics::new());
    store.store = Store::Disk(Disk::new(store.file().clone(), 1 << 20, 0, metrics.clone()));
    let counted = |ends: u8| {
        let (text, name) = (metrics.text(), "samekey_store_errors_total{operation=\"settle\"}");
        assert!(text.contains(&format!("{name} {ends}\n")), "not {ends} in\n{text}");
    };
    store.sending(1).await.settle(ended(End::Completed)).await;
    let (settled, dropped) = (store.sending(2).await, store.sending(3).await);
    counted(0);
    store.refuse("UPDATE ON exchanges").await;
    settled.settle(ended(End::Unknown)).await;
    counted(1);
    drop(dropped);
    store.settle_down().await;
    counted(2);
    for n in [2, 3] {
        assert!(matches!(store.ask(n).await, Err(Failure::StoreUnavailable(_))));
    }
    store.swept().await;
    store.relent().await;
    store.swept().await;
    counted(2);
}

#[tokio::test(start_paused = true)]
async fn a_release_that_is_owed_lets_nobody_in_before_it_is_written() {
    let store = on_disk(ROOMY);
    let claim = store.sending(1).await;
    let exchange = claim.exchange();
    store.refuse("UPDATE ON exchanges").await;
    claim.settle(ended(End::Released)).await;
    for _ in 0..3 {
        assert!(matches!(store.ask(1).await, Err(Failure::StoreUnavailable(_))));
    }
    store.relent().await;
    let next = store.claim(1).await;
    assert_eq!(shown(&store, exchange).await, Some((State::Released, 1)));
    assert_eq!(shown(&store, next.exchange()).await, Some((State::InFlight, 0)));
    store.swept().await;
    assert_eq!(shown(&store, next.exchange()).await, Some((State::InFlight, 0)));
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_is_owed_is_neither_resumed_nor_asked_without_end() {
    let store = on_disk(ROOMY);
    store.sending(1).await.settle(ended(End::Unknown)).await;
    let Ok(Reserved::Unknown(open)) = store.ask(1).await else { panic!("unknown") };
    let again = store.resume(&asked(1, Some(print(1))), &open).await;
    let again = again.expect("it is asked").expect("it is open");
    store.refuse("UPDATE ON exchanges").await;
    again.settle(ended(End::Unknown)).await;
    // With what was read before nothing is gained, and whoever asks is told why.
    let stale = store.resume(&asked(1, Some(print(1))), &open).await;
    assert!(stale.expect("it is asked").is_none());
    assert!(matches!(store.ask(1).await, Err(Failure::StoreUnavailable(_))));
    store.relent().await;
    let Ok(Reserved::Unknown(open)) = store.ask(1).await else { panic!("unknown") };
    let again = store.resume(&asked(1, Some(print(1))), &open).await;
    assert!(again.expect("it is asked").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_withdrawal_that_the_file_did_not_take_is_done_before_the_next_claim() {
    let store = on_disk(ROOMY);
    let claim = store.claim(1).await;
    let exchange = claim.exchange();
    store.refuse("DELETE ON exchanges").await;
    drop(claim);
    store.settle_down().await;
    assert!(matches!(store.ask(1).await, Err(Failure::StoreUnavailable(_))));
    store.relent().await;
    drop(store.claim(1).await);
    store.settle_down().await;
    assert_eq!(shown(&store, exchange).await, None, "nothing was sent, and no row is left");
    assert_eq!(store.size(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_claim_whose_end_was_refused_is_unknown_once_it_is_written() {
    let store = on_disk(ROOMY);
    let claim = store.sending(1).await;
    let exchange = claim.exchange();
    store.refuse("UPDATE ON exchanges").await;
    drop(claim);
    store.settle_down().await;
    assert!(matches!(store.ask(1).await, Err(Failure::StoreUnavailable(_))));
    store.relent().await;
    store.swept().await;
    assert_eq!(shown(&store, exchange).await, Some((State::Unknown, 0)));
    let resolution = store.resolve(exchange, Verdict::Absent).await.expect("it is asked");
    assert!(matches!(resolution, Resolution::Settled(_)));
    drop(store.claim(1).await);
}

#[tokio::test(start_paused = true)]
async fn what_is_owed_is_written_before_it_is_resolved_or_opened_and_when_the_process_ends() {
    let owing = async |end| {
        let store = on_disk(ROOMY);
        let claim = store.sending(1).await;
        let exchange = claim.exchange();
        store.refuse("UPDATE ON exchanges").await;
        claim.settle(ended(end)).await;
        let freed = store.free("key-1".to_owned()).await.expect("it is asked");
        assert_eq!(freed, Freed::Busy(State::InFlight), "the file does not take it yet");
        store.relent().await;
        (store, exchange)
    };
    let (store, exchange) = owing(End::Unknown).await;
    let resolution = store.resolve(exchange, Verdict::Landed).await;
    assert!(matches!(resolution, Ok(Resolution::Settled(_))), "{resolution:?}");

    let (store, _) = owing(End::Completed).await;
    assert_eq!(store.free("key-1".to_owned()).await, Ok(Freed::Ids(vec![id(1).0])));
    drop(store.claim(1).await);

    let (store, _) = owing(End::Completed).await;
    store.forget(&id(1), &asked(1, None).key).await;
    drop(store.claim(1).await);

    let (store, exchange) = owing(End::Completed).await;
    store.flush().await;
    assert_eq!(shown(&store, exchange).await, Some((State::Completed, 1)));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_dropped_on_its_way_is_what_was_written_or_unknown() {
    for refused in [false, true] {
        let store = on_disk(ROOMY);
        let claim = store.sending(1).await;
        if refused {
            // The answer is refused; that nobody knows of it is not.
            store.refuse("INSERT ON answers").await;
        }
        let gate = store.busy();
        let mut settling = Box::pin(claim.settle(ended(End::Completed)));
        assert!((&mut settling).now_or_never().is_none(), "it waits for the writer");
        drop(settling);
        drop(gate);
        match store.ask(1).await.expect("it is asked") {
            Reserved::Completed(done) => assert!(!refused && done.record.is_some()),
            Reserved::Unknown(_) => assert!(refused),
            other => panic!("it has ended: {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_nobody_took_is_taken_back() {
    let store = on_disk(ROOMY);
    let gate = store.busy();
    {
        let mut asking = pin!(store.ask(1));
        assert!(asking.as_mut().now_or_never().is_none(), "it waits for the writer");
    }
    drop(gate);
    drop(store.claim(1).await);
    store.settle_down().await;
    assert_eq!(store.size(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_resumed_claim_that_nobody_took_is_unknown_again() {
    let store = on_disk(ROOMY);
    store.sending(1).await.settle(ended(End::Unknown)).await;
    let Ok(Reserved::Unknown(open)) = store.ask(1).await else { panic!("unknown") };
    let again = asked(1, Some(print(1)));
    let gate = store.busy();
    {
        let mut resuming = pin!(store.resume(&again, &open));
        assert!(resuming.as_mut().now_or_never().is_none(), "it waits for the writer");
    }
    drop(gate);
    let Ok(Reserved::Unknown(after)) = store.ask(1).await else { panic!("unknown") };
    assert_ne!(after.epoch, open.epoch);
}

/// Opens key 1 while `other` is under way in the writer, and then lets `other` go on.
async fn opened_meanwhile(store: &Made, other: impl Future) {
    let gate = store.busy();
    let mut other = pin!(other);
    assert!(other.as_mut().now_or_never().is_none(), "it waits for the writer");
    let free = store.free("key-1".to_owned());
    {
        // Nobody waits to hear of it.
        assert!(pin!(free).as_mut().now_or_never().is_none());
    }
    drop(gate);
    store.settle_down().await;
    other.await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_opened_while_it_is_read_does_not_stay_in_memory() {
    let store = on_disk(ROOMY);
    store.sending(1).await.settle(ended(End::Completed)).await;
    let store = store.afresh();
    opened_meanwhile(&store, async {
        let read = store.ask(1).await;
        assert!(matches!(read, Ok(Reserved::Completed(_))), "it came first: {read:?}");
    })
    .await;
    drop(store.claim(1).await);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_opened_as_it_is_answered_does_not_stay_in_memory() {
    let store = on_disk(ROOMY);
    let claim = store.sending(1).await;
    opened_meanwhile(&store, claim.settle(ended(End::Completed))).await;
    drop(store.claim(1).await);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_opened_leaves_memory_though_nobody_waits_for_it() {
    let store = on_disk(ROOMY);
    store.sending(1).await.settle(ended(End::Completed)).await;
    opened_meanwhile(&store, store.file().newest()).await;
    drop(store.claim(1).await);
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_is_found_though_it_became_known_after_the_answer() {
    let store = on_disk(ROOMY);
    let Ok(Reserved::Claimed(mut claim)) = store.reserve(&asked(1, None)).await else {
        panic!("the key is free")
    };
    claim.begin_sending();
    let identify = claim.identifier();
    claim.settle(ended(End::Completed)).await;
    let told = async || match store.ask(1).await {
        Ok(Reserved::Completed(done)) => done.fingerprint,
        other => panic!("answered: {other:?}"),
    };
    assert_eq!(told().await, None);
    identify(print(1));
    assert_eq!(told().await, Some(print(1)));
}

#[tokio::test]
async fn a_file_is_closed_in_time_or_left_to_the_next_start() {
    let store = on_disk(ROOMY);
    let folder = store.folder.as_ref().expect("it is on disk").path().join("journal");
    let log = folder.join(format!("{}-wal", crate::journal::schema::FILE));
    drop(store.claim(1).await);
    let gate = store.busy();
    let began = tokio::time::Instant::now();
    store.close(Duration::from_millis(50)).await;
    assert!(began.elapsed() < Duration::from_secs(10) && log.exists(), "it is not waited for");
    drop(gate);
    store.close(Duration::from_mins(1)).await;
    assert!(!log.exists(), "it is brought back into the file");
}
