//! Rates and pauses of several owners.

use super::*;

const SCOPE: [u8; 32] = [1; 32];

#[tokio::test]
async fn a_rate_is_shared_and_slides() {
    let server = Server::start().await;
    let owners = [server.owner(1).await, server.owner(2).await];
    let per = Duration::from_secs(2);
    let take =
        async |nth: usize| owners[nth % 2].take_rate(&SCOPE, 4, per).await.expect("it answers");
    for nth in 0..4 {
        assert_eq!(take(nth).await, Ok(()));
    }
    let wait = take(0).await.expect_err("four are all there are");
    assert!(wait <= per + per / 32, "{wait:?}");
    let other = [2; 32];
    assert_eq!(owners[0].take_rate(&other, 1, per).await.expect("it answers"), Ok(()));
    // No window ever holds more than four, and what was promised is kept.
    tokio::time::sleep(wait).await;
    assert_eq!(take(1).await, Ok(()));
    let parts = server.command(&["KEYS", "samekey:*:rate:*"]).await;
    for key in redis::from_redis_value::<Vec<String>>(parts).expect("keys") {
        assert_ne!(server.number(&["PTTL", &key]).await, -1, "{key} goes in the end");
        assert!(server.number(&["HLEN", &key]).await <= 66);
    }
    assert!(owners[0].take_rate(&[3; 32], 0, per).await.expect("it answers").is_err());
}

#[tokio::test]
async fn no_window_holds_more_than_the_count() {
    let server = Server::start().await;
    let one = server.owner(1).await;
    let (count, per) = (5, Duration::from_millis(200));
    let mut taken: Vec<tokio::time::Instant> = Vec::new();
    let until = tokio::time::Instant::now() + Duration::from_secs(1);
    while tokio::time::Instant::now() < until {
        // By its own clock the server took it between these two moments.
        let before = tokio::time::Instant::now();
        match one.take_rate(&SCOPE, count, per).await.expect("it answers") {
            Ok(()) => {
                let nth = taken.len().checked_sub(usize::try_from(count).expect("a few"));
                if let Some(first) = nth.map(|nth| taken[nth]) {
                    assert!(tokio::time::Instant::now() - first >= per);
                }
                taken.push(before);
            }
            Err(wait) => tokio::time::sleep(wait.min(Duration::from_millis(7))).await,
        }
    }
    assert!(taken.len() >= 15, "{} in a second", taken.len());
}

#[tokio::test]
async fn a_pause_is_shared_and_the_longer_one_stands() {
    let server = Server::start().await;
    let (one, two) = (server.owner(1).await, server.owner(2).await);
    assert_eq!(two.paused(&SCOPE).await, Ok(None));
    one.pause(&SCOPE, Duration::from_mins(1)).await.expect("it answers");
    two.pause(&SCOPE, Duration::from_secs(1)).await.expect("it answers");
    let left = two.paused(&SCOPE).await.expect("it answers").expect("it is paused");
    assert!(left > Duration::from_secs(50) && left <= Duration::from_mins(1), "{left:?}");
    assert_eq!(two.paused(&[2; 32]).await, Ok(None));
    one.pause(&[2; 32], Duration::from_millis(30)).await.expect("it answers");
    assert!(two.paused(&[2; 32]).await.expect("it answers").is_some());
    eventually("it ends", async || two.paused(&[2; 32]).await == Ok(None)).await;
}
