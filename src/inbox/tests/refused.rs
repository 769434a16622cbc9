//! What is turned away, at, under and over each limit.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::*;
use crate::exchange::body::BodyError;
use crate::exchange::tests::{data, streamed};

/// A body of which nothing comes.
struct Silent;

impl http_body::Body for Silent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn so_many_bodies_are_read_at_a_time_and_no_more() {
    const MOST: usize = 3;
    let scene = Scene::new(Rules { max_reading: MOST, ..rules() }, &[]);
    let mut reading = Vec::new();
    for n in 0..MOST {
        let answer = scene.event(&format!("e-{n}")).await;
        assert!(answer.is_ok(), "{n} are read, and there is a place for one more");
        let mut one = Box::pin(scene.send(Body::wrap(Silent)));
        let waits = poll_fn(|cx| Poll::Ready(one.as_mut().poll(cx).is_pending())).await;
        assert!(waits, "nothing came yet");
        reading.push(one);
        scene.settled().await;
    }
    let refused = scene.event("one too many").await.expect_err("all places are taken");
    assert!(matches!(refused, Failure::Overloaded), "{refused}");
    reading.pop(); // its sender left
    scene.events("later").await;
    assert_eq!(scene.counted("refused"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reload_changes_how_many_bodies_are_read() {
    let scene = Scene::new(Rules { max_reading: 1, ..rules() }, &[]);
    let reloaded = |max_reading| {
        let rules = Rules { max_reading, ..rules() };
        scene.tray.open(terms(&scene.application, rules, (&scene.metrics, &scene.tray)))
    };
    let one = scene.intake.place().expect("there is one");
    assert!(scene.intake.place().is_err());
    let more = reloaded(2);
    let two = more.place().expect("there is another");
    assert!(more.place().is_err());
    let fewer = reloaded(1);
    drop(one);
    assert!(fewer.place().is_err(), "one is read as before");
    drop(two);
    assert!(fewer.place().is_ok());
}

#[tokio::test(start_paused = true)]
async fn so_many_deliveries_are_remembered_in_memory() {
    for (max_remembered, accepted) in [(1, 3), (2, 2)] {
        let scene = Scene::new(Rules { max_remembered, ..rules() }, &[]);
        for id in ["a", "b", "a"] {
            scene.events(id).await;
            scene.settled().await;
        }
        assert_eq!(scene.counted("accepted"), accepted, "{max_remembered}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_has_a_limit_in_number_and_in_bytes() {
    let size = 8 + 11 + "POST https://api.test\n/v1/jobs\n".len() as u64 - 8;
    for (max_waiting, max_bytes, taken) in [
        (3, 1 << 20, 3),
        (4, 1 << 20, 4),
        (9, 4 * size - 1, 3),
        (9, 4 * size, 4),
        (9, 4 * size + 1, 4),
    ] {
        let scene = Scene::new(Rules { max_waiting, max_bytes, ..rules() }, &[Act::Slow(1000); 9]);
        let mut good = 0;
        for id in ["a", "b", "c", "d", "e"] {
            match scene.event(id).await {
                Ok(_) => good += 1,
                Err(failure) => assert!(matches!(failure, Failure::Overloaded), "{failure}"),
            }
        }
        assert_eq!(good, taken, "{max_waiting} {max_bytes}");
        scene.settled().await;
        scene.events("e").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_has_a_limit_whether_or_not_it_says_how_long_it_is() {
    let head = r#"{"id": "a", "pad": ""}"#.len();
    for (size, fits) in [(999, true), (1000, true), (1001, false)] {
        let text = format!(r#"{{"id": "a", "pad": "{}"}}"#, "x".repeat(size - head));
        let pieces: &'static str = text.clone().leak();
        for body in [Body::full(Bytes::from(text.clone())), streamed([data(pieces)])] {
            let scene = Scene::new(rules(), &[]);
            let answer = scene.send(body).await;
            assert_eq!(answer.is_ok(), fits, "{size}");
            assert_eq!(scene.counted("refused"), u32::from(!fits));
            scene.settled().await;
            assert_eq!(scene.seen().len(), usize::from(fits));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_signature_that_is_wrong_leaves_nothing_behind() {
    let signature = Signature {
        header: HeaderName::from_static("x-signature"),
        secret: Secret::new(b"Jefe"),
        format: signature::Format::Hex,
        prefix: String::new(),
        signed: signature::Signed::Body,
    };
    let scene = Scene::new(Rules { signature: Some(signature), ..rules() }, &[]);
    let failure = scene.event("a").await.expect_err("it is unsigned");
    assert!(matches!(failure, Failure::BadRequest(_)), "{failure}");
    assert_eq!((scene.trays.waiting(), scene.counted("refused")), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ends_and_keeps_nothing_takes_nothing_in() {
    let scene = Scene::new(rules(), &[]);
    scene.events("a").await;
    scene.drain().await;
    let failure = scene.event("b").await.expect_err("it would be lost");
    assert!(matches!(failure, Failure::StoreUnavailable(_)), "{failure}");
    assert_eq!(scene.counted("accepted"), 1);
}
