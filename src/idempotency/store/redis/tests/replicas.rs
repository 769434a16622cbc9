//! Reservations that count only once replicas of Redis have them.

use super::*;

async fn waiting(server: &Server, owner: u8) -> Redis {
    connect(Options { wait_replicas: 1, ..server.options(owner) }).await
}

#[tokio::test]
async fn without_a_replica_nothing_is_reserved() {
    let server = Server::start().await;
    let (one, two) = (waiting(&server, 1).await, server.owner(2).await);
    let missed = Unavailable::NotReplicated { acknowledged: 0, wanted: 1 };
    let (first, second) = tokio::join!(one.reserve(id(1), asked(0)), one.reserve(id(2), asked(0)));
    assert_eq!(first.expect_err("no replica has it"), missed);
    assert_eq!(second.expect_err("no replica has it"), missed);
    assert_eq!([two.word(1).await, two.word(2).await], ["absent", "absent"], "both were undone");
    assert_eq!(one.held(), 0);
    assert!(one.0.held.strays().is_empty());

    let epoch = two.claim(3, 0).await;
    assert!(two.settles(3, epoch, Settled::unknown()).await);
    assert_eq!(one.resume(id(3), epoch).await, Err(missed.clone()));
    assert_eq!(two.word(3).await, "unknown");
    assert_eq!(one.secret(b"x").await, Err(missed));
    assert!(one.warnings().await.iter().any(|warning| warning.contains("0 replicas")));
}

#[tokio::test]
async fn with_a_replica_what_is_reserved_is_there_too() {
    let server = Server::start().await;
    let master = server.port.to_string();
    let replica = Server::with(&["--replicaof", "127.0.0.1", &master]).await;
    eventually("it follows", async || {
        server.text(&["INFO", "replication"]).await.contains("state=online")
    })
    .await;
    let one = waiting(&server, 1).await;
    for n in 1..=20 {
        let epoch = one.claim(n, 0).await;
        let there = replica.text(&["HGET", &key(n, "claim"), "epoch"]).await;
        assert_eq!(there, epoch.to_string());
        assert!(one.settles(n, epoch, completed()).await);
        assert_eq!(replica.text(&["HGET", &key(n, "claim"), "state"]).await, "completed");
    }
    assert_eq!(one.under_replicated(), 0);

    // Settling goes on without it, and is counted; reserving does not.
    let epoch = one.claim(21, 0).await;
    replica.pause();
    assert!(one.settles(21, epoch, completed()).await);
    assert_eq!(one.under_replicated(), 1);
    assert!(one.reserve(id(22), asked(0)).await.is_err());
    let began = tokio::time::Instant::now();
    let (slow, word) = tokio::join!(one.reserve(id(23), asked(0)), async {
        let word = one.word(21).await;
        assert!(began.elapsed() < Duration::from_millis(900), "nobody else is held up");
        word
    });
    assert!(slow.is_err());
    assert_eq!(word, "completed");
    replica.go_on();
    eventually("it is back", async || one.reserve(id(24), asked(0)).await.is_ok()).await;
    assert_eq!(one.word(22).await, "absent");
}
