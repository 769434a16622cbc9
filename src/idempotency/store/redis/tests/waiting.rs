//! Waiting for what another replica does.

use tokio::time::Instant;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

async fn two() -> (Server, Redis, Redis) {
    let server = Server::start().await;
    let (one, two) = (server.owner(1).await, server.owner(2).await);
    eventually("both listen", async || server.listeners().await == 2).await;
    (server, one, two)
}

#[tokio::test]
async fn the_end_is_told_at_once() {
    let (_server, one, two) = two().await;
    let told = |body: &'static str| Some(record(body));
    let too_long = Some(record(vec![b'x'; TOLD_MAX + 1]));
    let unkept = Answered { record: None, ..answered("") };
    let large = answered(vec![b'x'; RECORD_MAX + 1]);
    let endings = [
        (completed(), "answer {\"id\":1}"),
        (Settled { end: Ended::Completed(unkept.clone()), told: told("teapot") }, "answer teapot"),
        (Settled { end: Ended::Completed(unkept), told: None }, "completed"),
        (Settled { end: Ended::Completed(large), told: None }, "completed elsewhere"),
        (Settled { end: Ended::Released, told: told("no") }, "answer no"),
        (Settled { end: Ended::Released, told: too_long }, "gone"),
        (released(), "gone"),
        (Settled { end: Ended::Unknown, told: told("500") }, "answer 500"),
        (Settled::unknown(), "unknown"),
    ];
    for (n, (settled, wanted)) in (1..).zip(endings) {
        let epoch = one.claim(n, 0).await;
        let brief = Duration::from_millis(20);
        assert!(two.told(id(n), epoch, brief).await.is_none(), "it is in flight");
        let waiting = tokio::join!(two.told(id(n), epoch, PATIENCE), async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let at = Instant::now();
            assert!(one.settles(n, epoch, settled).await);
            at
        });
        // Well within the half second after which it would have asked.
        assert!(waiting.1.elapsed() < Duration::from_millis(450), "{:?}", waiting.1.elapsed());
        assert_eq!(words(waiting.0), wanted);
        assert_eq!(words(two.told(id(n), epoch, Duration::ZERO).await), wanted, "later too");
    }
    assert_eq!(two.0.board.len(), 0, "nobody waits any more");
}

fn words(told: Option<Told>) -> String {
    match told.expect("it has ended") {
        Told::Answer(record) => format!("answer {}", String::from_utf8_lossy(record.body())),
        Told::Completed { at: None, captured: ids } if ids == captured() => "completed".to_owned(),
        Told::Completed { at, .. } if at == Some([1; 16]) => "completed elsewhere".to_owned(),
        Told::Unknown => "unknown".to_owned(),
        Told::Gone => "gone".to_owned(),
        other @ Told::Completed { .. } => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_end_is_found_out_where_nobody_tells_it() {
    let (server, one, two) = two().await;
    server
        .command(&["ACL", "SETUSER", "mute", "on", "nopass", "~*", "+@all", "resetchannels"])
        .await;
    let url = format!("redis://mute:x@127.0.0.1:{}", server.port);
    let mute = Options { address: Address::parse(&url).expect("a URL"), ..server.options(3) };
    let mute = connect(mute).await;
    let epoch = mute.claim(1, 0).await;
    let (told, ()) = tokio::join!(two.told(id(1), epoch, PATIENCE), async {
        assert!(mute.settles(1, epoch, completed()).await);
    });
    assert!(matches!(told, Some(Told::Answer(_))));

    // The listener is cut off, and comes back by itself.
    let epoch = one.claim(2, 0).await;
    let (told, ()) = tokio::join!(two.told(id(2), epoch, PATIENCE), async {
        server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        assert!(one.settles(2, epoch, completed()).await);
    });
    assert!(matches!(told, Some(Told::Answer(_))));
    eventually("both listen again", async || server.listeners().await == 2).await;
}

#[tokio::test]
async fn a_leader_that_dies_leaves_unknown_to_those_who_wait() {
    let (server, one, two) = two().await;
    let epoch = one.claim(1, 0).await;
    let (told, ()) = tokio::join!(two.told(id(1), epoch, PATIENCE), server.expire(1));
    assert!(matches!(told, Some(Told::Unknown)));
    // Another life of the key is another matter.
    let again = two.resume(id(1), epoch).await.expect("it answers").expect("it is open");
    assert!(matches!(one.told(id(1), epoch, PATIENCE).await, Some(Told::Gone)));
    assert!(one.told(id(1), again, Duration::from_millis(20)).await.is_none());
}

#[tokio::test]
async fn what_is_asked_is_told_once_it_is_known() {
    let (_server, one, two) = two().await;
    let unread = Asked { fingerprint: None, ..asked(0) };
    for n in 1..=2 {
        let Ok(Found::Claimed { epoch, .. }) = one.reserve(id(n), unread).await else {
            panic!("it is free");
        };
        let brief = Duration::from_millis(20);
        assert_eq!(two.fingerprint(id(n), epoch, brief).await, None, "it is still uploading");
        let wanted = (n == 1).then(|| print(5));
        let (known, ()) = tokio::join!(two.fingerprint(id(n), epoch, PATIENCE), async {
            match wanted {
                Some(print) => assert_eq!(one.identify(id(n), epoch, print).await, Ok(true)),
                None => assert!(one.settles(n, epoch, released()).await),
            }
        });
        assert_eq!(known, wanted);
    }
    let epoch = one.claim(3, 0).await;
    assert_eq!(two.fingerprint(id(3), epoch, PATIENCE).await, Some(print(1)));
    assert!(one.settles(3, epoch, completed()).await);
    assert_eq!(two.fingerprint(id(3), epoch, PATIENCE).await, Some(print(1)));
}

#[tokio::test]
async fn who_waits_no_longer_is_forgotten_and_closing_ends_all() {
    let (_server, one, two) = two().await;
    let epoch = one.claim(1, 0).await;
    let waiting = two.told(id(1), epoch, PATIENCE);
    assert!(tokio::time::timeout(Duration::from_millis(20), waiting).await.is_err());
    assert_eq!(two.0.board.len(), 0);

    let tasks = TaskTracker::new();
    let server = Server::start().await;
    let redis = Redis::connect(server.options(1), &tasks).await.expect("it answers");
    let epoch = redis.claim(1, 0).await;
    tasks.close();
    let began = Instant::now();
    let (told, ()) = tokio::join!(redis.told(id(1), epoch, PATIENCE), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        redis.close();
        tasks.wait().await;
    });
    assert!(told.is_none() && began.elapsed() < PATIENCE / 2);
}
