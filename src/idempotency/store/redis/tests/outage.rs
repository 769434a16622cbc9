//! A server that dies, stalls, comes back empty, or was never there.

use tokio::time::Instant;

use super::*;

/// The time of a command, and room for a busy machine.
const IN_TIME: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_server_that_is_not_there_is_named_without_its_password() {
    let address = Address::parse("redis://ann:hunter2@127.0.0.1:1").expect("a URL");
    let server = Server::start().await;
    let options = Options { address, ..server.options(1) };
    assert!(!format!("{options:?}").contains("hunter2"));
    let refused = Redis::connect(options, &TaskTracker::new()).await.expect_err("nobody is there");
    assert!(matches!(refused, Unavailable::Unreachable(_)), "{refused:?}");
    server.command(&["CONFIG", "SET", "requirepass", "right"]).await;
    let address = Address::parse(&format!("redis://:hunter2@127.0.0.1:{}", server.port));
    let options = Options { address: address.expect("a URL"), ..server.options(1) };
    let refused = Redis::connect(options, &TaskTracker::new()).await.expect_err("it is wrong");
    assert!(!format!("{refused:?} {refused}").contains("hunter2"), "{refused:?}");
}

#[tokio::test]
async fn a_dead_server_is_unavailable_and_a_new_one_is_not() {
    let mut server = Server::start().await;
    let one = server.owner(1).await;
    let epoch = one.claim(1, 0).await;
    server.kill();
    let began = Instant::now();
    assert!(one.reserve(id(2), asked(0)).await.is_err());
    assert!(one.peek(id(1)).await.is_err());
    assert!(one.secret(b"x").await.is_err());
    assert!(one.warnings().await.join("").contains("noeviction"));
    one.0.held.age(&id(1), LEASE / 3);
    assert_eq!(one.holds(id(1), epoch).await, Ok(true), "it was renewed lately");
    one.0.held.age(&id(1), LEASE / 2);
    assert!(one.holds(id(1), epoch).await.is_err(), "it is not known any more");
    assert!(one.told(id(1), epoch, Duration::from_millis(10)).await.is_none());
    assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());

    server.restart().await;
    assert_eq!(one.holds(id(1), epoch).await, Ok(false), "it came back empty");
    assert_eq!(one.word(1).await, "absent");
    let again = one.claim(1, 1).await;
    assert!(again > epoch, "an epoch is never given twice");
    assert!(!one.settles(1, epoch, completed()).await);
}

#[tokio::test]
async fn a_server_that_stalls_is_unavailable_in_time() {
    let server = Server::start().await;
    let one = server.owner(1).await;
    let epoch = one.claim(1, 0).await;
    server.pause();
    let began = Instant::now();
    let (reserved, settled, peeked) = tokio::join!(
        one.reserve(id(2), asked(0)),
        one.settle(id(1), epoch, completed()),
        one.peek(id(1)),
    );
    assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());
    assert!(matches!(reserved, Err(Unavailable::TimedOut(_))));
    assert!(matches!(settled, Err(Unavailable::TimedOut(_))));
    assert!(matches!(peeked, Err(Unavailable::TimedOut(_))));
    server.go_on();
    // What it was asked before it stalled it may still do, and once more is no harm.
    assert!(one.settles(1, epoch, completed()).await);
    assert_eq!(one.word(1).await, "completed");
}

#[tokio::test]
async fn a_connection_that_was_cut_is_made_again_unnoticed() {
    let server = Server::start().await;
    let one = server.owner(1).await;
    let epoch = one.claim(1, 0).await;
    for _ in 0..3 {
        server.command(&["CLIENT", "KILL", "TYPE", "normal"]).await;
        assert_eq!(one.word(1).await, "in flight");
        server.command(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(one.word(1).await, "in flight");
    }
    assert!(one.settles(1, epoch, completed()).await);
}

fn imposed(epoch: Option<u64>, answered: Option<Answered>) -> Imposed {
    Imposed {
        epoch,
        exchange: exchange(5),
        fingerprint: Some(print(5)),
        first_sent_wall_micros: SENT,
        answered,
    }
}

#[tokio::test]
async fn what_redis_lost_is_written_down_again() {
    let server = Server::start().await;
    let (one, two) = (server.owner(1).await, server.owner(2).await);
    let unknown = one.claim(1, 0).await;
    let done = one.claim(2, 0).await;
    server.command(&["FLUSHALL"]).await;
    assert_eq!(one.impose(id(1), imposed(Some(unknown), None)).await, Ok(true));
    assert_eq!(one.impose(id(2), imposed(Some(done), Some(answered("kept")))).await, Ok(true));
    let taken = two.taken(1).await;
    assert_eq!((taken.state.word(), taken.epoch, taken.owner), ("unknown", unknown, [1; 16]));
    assert_eq!((taken.exchange, taken.fingerprint), (exchange(5), Some(print(5))));
    assert_eq!(taken.first_sent_wall_micros, SENT);
    assert_eq!(two.word(2).await, "completed");
    assert!(server.number(&["PTTL", &key(2, "claim")]).await > 0);
    // The answer of the one that was in flight is the truth.
    assert!(one.settles(1, unknown, completed()).await);
    assert_eq!(two.word(1).await, "completed");

    // Without an epoch it gets one.
    assert_eq!(two.impose(id(3), imposed(None, None)).await, Ok(true));
    let epoch = one.taken(3).await.epoch;
    assert!(one.resume(id(3), epoch).await.expect("it answers").is_some_and(|next| next > epoch));
}

#[tokio::test]
async fn nothing_that_is_there_is_written_over() {
    let server = Server::start().await;
    let (one, two) = (server.owner(1).await, server.owner(2).await);
    let held = one.claim(1, 0).await;
    let open = one.claim(2, 0).await;
    assert!(one.settles(2, open, Settled::unknown()).await);
    let done = one.claim(3, 0).await;
    assert!(one.settles(3, done, completed()).await);
    let later = [held, open, done].into_iter().max().expect("three") + 1_000_000_000;
    for n in 1..=3 {
        for answer in [None, Some(answered("x"))] {
            for epoch in [None, Some(later)] {
                let imposing = two.impose(id(n), imposed(epoch, answer.clone()));
                assert_eq!(imposing.await, Ok(false));
            }
        }
    }
    assert_eq!(
        [one.word(1).await, one.word(2).await, one.word(3).await],
        ["in flight", "unknown", "completed"]
    );

    // A verdict beats an unknown that is older than it, and not one that is younger.
    let gone = two.resolve(id(2), None, &Verdict::Absent, KEEP).await;
    let Ok(Resolution::Done { epoch: gone }) = gone else { panic!("it was unknown") };
    for stale in [None, Some(open), Some(gone)] {
        assert_eq!(one.impose(id(2), imposed(stale, None)).await, Ok(false));
    }
    assert_eq!(one.word(2).await, "resolved");
    assert_eq!(one.impose(id(2), imposed(Some(gone + 1), None)).await, Ok(true));
    assert_eq!(one.word(2).await, "unknown");
}

#[tokio::test]
async fn epochs_rise_though_the_clock_was_set_back() {
    let server = Server::start().await;
    let one = server.owner(1).await;
    let future = 4_000_000_000_000_000;
    server.command(&["SET", &key(1, "resolved"), &future.to_string()]).await;
    assert_eq!(one.claim(1, 0).await, future + 1);
    assert_eq!(one.impose(id(2), imposed(Some(future), None)).await, Ok(true));
    assert_eq!(one.resume(id(2), future).await, Ok(Some(future + 1)));
    assert_eq!(one.impose(id(3), imposed(Some(future), None)).await, Ok(true));
    let gone = one.resolve(id(3), None, &Verdict::Absent, KEEP).await;
    assert_eq!(gone, Ok(Resolution::Done { epoch: future + 1 }));
}
