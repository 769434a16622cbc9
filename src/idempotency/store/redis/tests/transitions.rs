//! Each arrow of the diagram, by one owner.

use super::*;

#[tokio::test]
async fn a_claim_is_answered_and_the_key_outlives_its_answer() {
    let server = Server::start().await;
    let one = server.owner(1).await;
    assert_eq!(one.word(1).await, "absent");
    let epoch = one.claim(1, 0).await;
    let taken = one.taken(1).await;
    assert_eq!((taken.epoch, taken.owner, taken.exchange), (epoch, [1; 16], exchange(0)));
    assert_eq!((taken.fingerprint, taken.first_sent_wall_micros), (Some(print(1)), SENT));
    assert_eq!(taken.state.word(), "in flight");
    assert_eq!(server.number(&["PTTL", &key(1, "claim")]).await, -1, "it never expires");
    assert_eq!(one.held(), 1);

    assert!(one.settles(1, epoch, completed()).await);
    assert_eq!(one.held(), 0);
    let Taken { state: State::Completed { record: Some(kept), captured: ids, at }, .. } =
        one.taken(1).await
    else {
        panic!("it was answered");
    };
    assert_eq!((kept.status(), &kept.body()[..]), (StatusCode::CREATED, &b"{\"id\":1}"[..]));
    assert_eq!((ids, at), (captured(), None));

    let (answer, claim) = (key(1, "answer"), key(1, "claim"));
    let (ttl, keep) =
        (server.number(&["PTTL", &answer]).await, server.number(&["PTTL", &claim]).await);
    assert!(ttl > 86_000_000 && ttl <= 86_400_000, "{ttl}");
    assert!(keep > 91 * 86_400_000 - 400_000 && keep <= 91 * 86_400_000, "{keep}");
    server.command(&["PEXPIRE", &answer, "1"]).await;
    eventually("the answer expires", async || one.word(1).await == "its key alone").await;
    let taken = one.taken(1).await;
    assert_eq!(taken.fingerprint, Some(print(1)));
    assert!(matches!(taken.state, State::Completed { captured: ids, .. } if ids == captured()));
    server.command(&["PEXPIRE", &claim, "1"]).await;
    eventually("the key expires", async || one.word(1).await == "absent").await;
    assert!(one.claim(1, 1).await > epoch);
}

#[tokio::test]
async fn times_to_live_are_what_was_asked() {
    let server = Server::start().await;
    let one = server.owner(1).await;
    let brief = |ttl, keep_key| Settled {
        end: Ended::Completed(Answered { ttl, keep_key, ..answered("x") }),
        told: None,
    };
    // No answer is kept, its key is.
    let epoch = one.claim(1, 0).await;
    assert!(one.settles(1, epoch, brief(Duration::ZERO, KEEP)).await);
    assert_eq!(one.word(1).await, "its key alone");
    // Neither is.
    let epoch = one.claim(2, 0).await;
    assert!(one.settles(2, epoch, brief(Duration::ZERO, Duration::ZERO)).await);
    assert_eq!(one.word(2).await, "absent");
    assert!(one.settles(2, epoch, brief(Duration::ZERO, Duration::ZERO)).await, "run again");
    let epoch = one.claim(3, 0).await;
    assert!(one.settles(3, epoch, brief(Duration::MAX, Duration::MAX)).await);
    assert_eq!(one.word(3).await, "completed");
}

#[tokio::test]
async fn a_released_key_is_free() {
    let server = Server::start().await;
    let one = server.owner(1).await;
    let first = one.claim(1, 0).await;
    assert!(one.settles(1, first, released()).await);
    assert_eq!(one.word(1).await, "absent");
    assert!(one.settles(1, first, released()).await, "its reply was lost, and it ran again");
    assert!(!one.settles(1, first, completed()).await);
    let second = one.claim(1, 1).await;
    assert!(second > first);
    assert!(!one.settles(1, first, released()).await);
    assert_eq!(one.word(1).await, "in flight");
}

#[tokio::test]
async fn an_unknown_is_taken_up_once() {
    let server = Server::start().await;
    let one = server.owner(1).await;
    let first = one.claim(1, 0).await;
    assert!(one.settles(1, first, Settled::unknown()).await);
    assert_eq!(server.number(&["PTTL", &key(1, "claim")]).await, -1, "it never expires");
    let resume = async |epoch| one.resume(id(1), epoch).await.expect("it answers");
    assert_eq!(resume(first + 1).await, None);
    let second = resume(first).await.expect("it is open");
    assert!(second > first);
    assert_eq!(resume(first).await, None, "another was faster");
    assert_eq!(resume(second).await, None, "it is in flight");
    let taken = one.taken(1).await;
    assert_eq!(
        (taken.epoch, taken.exchange, taken.first_sent_wall_micros),
        (second, exchange(0), SENT)
    );
    assert!(!one.settles(1, first, completed()).await, "an earlier life");
    assert!(one.settles(1, second, completed()).await);
    assert_eq!(resume(second).await, None, "it is answered");
    assert_eq!(one.resume(id(9), 1).await, Ok(None), "it was never there");
}

#[tokio::test]
async fn settling_again_says_the_same_and_changes_nothing() {
    let server = Server::start().await;
    let one = server.owner(1).await;
    let epoch = one.claim(1, 0).await;
    assert!(one.settles(1, epoch, Settled::unknown()).await);
    assert!(one.settles(1, epoch, Settled::unknown()).await);
    assert!(one.settles(1, epoch, completed()).await, "the answer came after all");
    assert!(one.settles(1, epoch, completed()).await);
    for other in [Settled::unknown(), released()] {
        assert!(!one.settles(1, epoch, other).await);
        assert_eq!(one.word(1).await, "completed");
    }
}

#[tokio::test]
async fn what_is_asked_can_be_known_later() {
    let server = Server::start().await;
    let one = server.owner(1).await;
    let unread = Asked { fingerprint: None, ..asked(0) };
    let Ok(Found::Claimed { epoch, .. }) = one.reserve(id(1), unread).await else {
        panic!("it is free");
    };
    assert_eq!(one.taken(1).await.fingerprint, None);
    assert_eq!(one.identify(id(1), epoch, print(5)).await, Ok(true));
    assert_eq!(one.taken(1).await.fingerprint, Some(print(5)));
    assert_eq!(one.identify(id(1), epoch + 1, print(6)).await, Ok(false));
    assert_eq!(one.identify(id(2), epoch, print(6)).await, Ok(false));
    assert_eq!(one.taken(1).await.fingerprint, Some(print(5)));
    // An answer may come before the request is complete.
    assert!(one.settles(1, epoch, completed()).await);
    assert_eq!(one.identify(id(1), epoch, print(7)).await, Ok(true));
    assert_eq!(one.taken(1).await.fingerprint, Some(print(7)));
    assert!(server.number(&["PTTL", &key(1, "claim")]).await > 0, "and it still expires");
}

#[tokio::test]
async fn a_large_answer_stays_where_it_is() {
    let server = Server::start().await;
    let (one, two) = (server.owner(1).await, server.owner(2).await);
    for (n, size, kept) in [(1, RECORD_MAX, true), (2, RECORD_MAX + 1, false)] {
        let epoch = one.claim(n, 0).await;
        let large = Settled { end: Ended::Completed(answered(vec![b'x'; size])), told: None };
        assert!(one.settles(n, epoch, large).await);
        let State::Completed { record, at, .. } = two.taken(n).await.state else {
            panic!("it was answered");
        };
        assert_eq!(record.is_some(), kept);
        assert_eq!(at, (!kept).then_some([1; 16]), "it says with whom");
    }
}

#[tokio::test]
async fn a_verdict_ends_an_unknown_and_nothing_else() {
    let server = Server::start().await;
    let one = server.owner(1).await;
    let resolve = async |n, epoch, verdict: &Verdict| {
        one.resolve(id(n), epoch, verdict, KEEP).await.expect("it answers")
    };
    // Landed.
    let epoch = one.claim(1, 0).await;
    assert_eq!(resolve(1, None, &landed()).await, Resolution::InFlight);
    assert!(one.settles(1, epoch, Settled::unknown()).await);
    assert_eq!(resolve(1, Some(epoch + 1), &landed()).await, Resolution::Changed);
    let Resolution::Done { epoch: after } = resolve(1, Some(epoch), &landed()).await else {
        panic!("it is unknown");
    };
    assert!(after > epoch);
    let taken = one.taken(1).await;
    assert_eq!((taken.state.word(), taken.exchange), ("its key alone", exchange(0)));
    assert_eq!(taken.fingerprint, Some(print(1)), "of the unknown itself");
    assert!(!one.settles(1, epoch, completed()).await, "a late owner");
    assert_eq!(resolve(1, None, &Verdict::Absent).await, Resolution::Completed);

    // Absent, and what was claimed after it.
    let epoch = one.claim(2, 0).await;
    assert!(one.settles(2, epoch, Settled::unknown()).await);
    let Resolution::Done { epoch: gone } = resolve(2, Some(epoch), &Verdict::Absent).await else {
        panic!("it is unknown");
    };
    assert!(gone > epoch);
    assert!(matches!(one.peek(id(2)).await, Ok(Peek::Resolved { epoch }) if epoch == gone));
    assert_eq!(resolve(2, Some(epoch), &Verdict::Absent).await, Resolution::Done { epoch: gone });
    assert_eq!(resolve(2, Some(epoch), &landed()).await, Resolution::Changed);
    assert!(!one.settles(2, epoch, completed()).await, "a late owner");
    let Ok(Found::Claimed { epoch: next, resolved_epoch }) = one.reserve(id(2), asked(1)).await
    else {
        panic!("it is free");
    };
    assert_eq!(resolved_epoch, Some(gone));
    assert!(next > gone);

    // Of nothing.
    assert!(matches!(resolve(3, None, &landed()).await, Resolution::Done { .. }));
    let taken = one.taken(3).await;
    assert_eq!((taken.exchange, taken.fingerprint), (exchange(77), Some(print(7))));
    assert!(matches!(taken.state, State::Completed { captured: ids, .. } if ids == captured()));
    assert!(matches!(resolve(4, Some(epoch), &Verdict::Absent).await, Resolution::Done { .. }));
    assert_eq!(one.word(4).await, "resolved");
    let keep = server.number(&["PTTL", &key(4, "resolved")]).await;
    assert!(keep > 0, "and that is forgotten in the end");
}

#[tokio::test]
async fn only_what_was_answered_can_be_forgotten() {
    let server = Server::start().await;
    let one = server.owner(1).await;
    let forget = async |n, keep| one.forget(id(n), keep).await.expect("it answers");
    assert!(!forget(1, KEEP).await);
    let epoch = one.claim(1, 0).await;
    assert!(!forget(1, KEEP).await);
    assert!(one.settles(1, epoch, Settled::unknown()).await);
    assert!(!forget(1, KEEP).await);
    assert!(one.settles(1, epoch, completed()).await);
    assert!(forget(1, KEEP).await);
    assert_eq!(one.word(1).await, "resolved");
    let stale = Imposed {
        epoch: Some(epoch),
        exchange: exchange(0),
        fingerprint: None,
        first_sent_wall_micros: SENT,
        answered: Some(answered("x")),
    };
    assert_eq!(one.impose(id(1), stale).await, Ok(false), "no replica writes it back");
    let epoch = one.claim(1, 1).await;
    assert!(one.settles(1, epoch, completed()).await);
    server.command(&["DEL", &key(1, "resolved")]).await;
    assert!(forget(1, Duration::ZERO).await);
    assert_eq!(one.word(1).await, "absent");
}

#[tokio::test]
async fn the_first_secret_is_everybodys() {
    let server = Server::start().await;
    let (one, two) = (server.owner(1).await, server.owner(2).await);
    assert_eq!(one.secret(b"one's").await.expect("it answers"), b"one's");
    assert_eq!(two.secret(b"two's").await.expect("it answers"), b"one's");
    assert_eq!(one.secret(b"another").await.expect("it answers"), b"one's");
}

#[tokio::test]
async fn a_full_server_takes_no_claim_and_still_ends_one() {
    let server = Server::start().await;
    let one = server.owner(1).await;
    let mut epochs = Vec::new();
    for n in 1..=3 {
        epochs.push(one.claim(n, 0).await);
    }
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let refused = one.reserve(id(9), asked(0)).await.expect_err("it is full");
    assert!(refused.to_string().contains("OOM"), "{refused}");
    for n in 1..=3 {
        one.0.held.age(&id(n), LEASE);
    }
    assert_eq!(one.holds(id(1), epochs[0]).await, Ok(true));
    assert!(one.settles(1, epochs[0], completed()).await);
    assert!(one.settles(2, epochs[1], released()).await);
    assert!(one.settles(3, epochs[2], Settled::unknown()).await);
    assert_eq!(
        [one.word(1).await, one.word(2).await, one.word(3).await],
        ["completed", "absent", "unknown"]
    );
    assert_eq!(one.warnings().await.len(), 1, "it keeps nothing over a restart");
    server.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    let warnings = one.warnings().await.join("\n");
    assert!(warnings.contains("noeviction") && warnings.contains("restart"), "{warnings}");
    server.command(&["CONFIG", "SET", "save", "60 1"]).await;
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(one.warnings().await, [""; 0]);
}

#[tokio::test]
async fn what_somebody_else_keeps_there_is_an_error() {
    let server = Server::start().await;
    let one = server.owner(1).await;
    server.command(&["SET", &key(1, "claim"), "x"]).await;
    assert!(one.peek(id(1)).await.is_err());
    server.command(&["HSET", &key(2, "claim"), "state", "odd", "epoch", "1"]).await;
    assert!(one.peek(id(2)).await.is_err());
    server.command(&["HSET", &key(3, "claim"), "a", "b"]).await;
    assert!(one.reserve(id(3), asked(0)).await.is_err());
}
