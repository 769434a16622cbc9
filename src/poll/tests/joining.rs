//! Who waits for whose answer.

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::exchange::tests::{data, fed};
use crate::poll::read::ANSWER_MAX;

#[tokio::test(start_paused = true)]
async fn many_polls_of_one_job_are_one_request() {
    let stage = Stage::new(Rules::default());
    stage.slow(200, "running");
    let all = join_all((0..50).map(|_| stage.get())).await;
    assert_eq!(all[0], got(200, "running", ""));
    assert!(all[1..].iter().all(|one| *one == got(200, "running", "joined")), "{all:?}");
    assert_eq!(stage.sent(), 1);
    // What was answered is nobody's any more.
    stage.slow(200, "done");
    assert_eq!(stage.get().await, got(200, "done", ""));
    assert!(stage.counted("sent") && stage.counted("joined") && !stage.counted("stored"));
}

#[tokio::test(start_paused = true)]
async fn no_caller_gets_the_answer_of_another() {
    for rules in [Rules::default(), spaced(60), terminal(60)] {
        let stage = Stage::new(rules);
        for _ in 0..3 {
            stage.slow(200, "{\"status\":\"done\"}");
        }
        let (one, other, token) = tokio::join!(
            stage.get_with(1, &[]),
            stage.get_with(2, &[]),
            stage.get_with(1, &[("authorization", "x")]),
        );
        assert!([one.2, other.2, token.2].iter().all(|replay| replay.is_empty()));
        assert_eq!(stage.sent(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_once_the_answer_has_begun_asks_anew() {
    for (rules, last, sent) in
        [(Rules::default(), got(200, "new", ""), 2), (spaced(60), got(200, "old", "joined"), 1)]
    {
        let stage = Stage::new(rules);
        let (upstream, body) = fed();
        stage.upstream.answer_after(SECOND, Ok(response(200, &[], body)));
        stage.says(200, &[], "new");
        let late = async {
            sleep(SECOND + SECOND / 2).await;
            let feed = async {
                sleep(SECOND / 4).await;
                upstream.send(data("old")).expect("it is read");
                drop(upstream);
            };
            tokio::join!(stage.get(), feed).0
        };
        let (first, joined, late) = tokio::join!(stage.get(), stage.get(), late);
        assert_eq!((first, joined), (got(200, "old", ""), got(200, "old", "joined")));
        assert_eq!((late, stage.sent()), (last, sent));
    }
}

#[tokio::test(start_paused = true)]
async fn a_poll_outlives_its_own_client_while_others_wait() {
    let stage = Stage::new(Rules::default());
    stage.slow(200, "running");
    let leader = timeout(SECOND / 2, stage.get());
    let (leader, joined) = tokio::join!(leader, stage.get());
    assert!(leader.is_err());
    assert_eq!(joined, got(200, "running", "joined"));
    assert_eq!(stage.sent(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_poll_ends_when_nobody_waits_any_more() {
    let stage = Stage::new(Rules::default());
    stage.upstream.answer_after(SECOND * 3600, Ok(response(200, &[], full("late"))));
    let began = Instant::now();
    let both = tokio::join!(timeout(SECOND, stage.get()), timeout(SECOND * 2, stage.get()));
    assert!(both.0.is_err() && both.1.is_err());
    stage.tasks.close();
    stage.tasks.wait().await;
    assert_eq!(began.elapsed(), SECOND * 2);
    // The next one begins anew.
    stage.slow(200, "running");
    assert_eq!((stage.get().await, stage.sent()), (got(200, "running", ""), 2));
}

#[tokio::test(start_paused = true)]
async fn who_joins_waits_as_long_as_it_would_have_waited_alone() {
    let stage = Stage::changed(Rules::default(), |terms| terms.deadline = SECOND * 10);
    let slow = Ok(response(200, &[], full("late")));
    stage.upstream.answer_after(SECOND * 20, slow);
    let began = Instant::now();
    let joined = async {
        sleep(SECOND).await;
        let (result, replay, _) = stage.call(7, &[]).await;
        (result.expect_err("too late"), replay, began.elapsed())
    };
    let (leader, (failure, replay, after)) = tokio::join!(stage.get(), joined);
    assert_eq!(leader, got(200, "late", ""));
    assert!(matches!(failure, Failure::TimedOut { sent: false, .. }), "{failure:?}");
    assert_eq!((replay, after), ("", SECOND * 11));
}

#[tokio::test(start_paused = true)]
async fn who_joins_shares_a_failure_too() {
    let stage = Stage::new(spaced(60));
    let fields = [("retry-after", "9"), ("set-cookie", "a"), ("date", "b"), ("etag", "c")];
    stage.upstream.answer_after(SECOND, Ok(response(503, &fields, full("down"))));
    let (first, (joined, replay, _)) = tokio::join!(stage.get(), stage.call(7, &[]));
    let joined = joined.expect("an answer");
    assert_eq!((first.0, joined.status.as_u16(), replay), (503, 503, "joined"));
    let mut names: Vec<&str> = joined.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["etag", "retry-after"]);
    let broken = || Failure::Protocol { detail: "it broke".to_owned(), broken: true };
    stage.upstream.answer_after(SECOND, Err(broken()));
    let ((first, ..), (joined, replay, _)) = tokio::join!(stage.call(7, &[]), stage.call(7, &[]));
    assert!(matches!(first, Err(Failure::Protocol { .. })));
    assert!(matches!(joined, Err(Failure::Protocol { .. })));
    assert_eq!((replay, stage.sent()), ("joined", 2));
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_or_streams_goes_to_who_asked_for_it() {
    let large = |size: usize| Body::full(Bytes::from(vec![b'x'; size]));
    let events = [("content-type", "text/event-stream")];
    for (answer, size, sent) in [
        (response(200, &[], large(ANSWER_MAX)), ANSWER_MAX, 1),
        (response(200, &[], large(ANSWER_MAX + 1)), ANSWER_MAX + 1, 3),
        (response(200, &events, full("data")), 4, 3),
    ] {
        let stage = Stage::new(spaced(60));
        stage.upstream.answer_after(SECOND, Ok(answer));
        stage.says(200, &[], "own");
        stage.says(200, &[], "own");
        let (first, second, third) = tokio::join!(stage.get(), stage.get(), stage.get());
        assert_eq!((first.1.len(), stage.sent()), (size, sent));
        let wanted = if sent == 1 { "joined" } else { "" };
        assert!([second, third].iter().all(|one| one.2 == wanted));
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_that_observes_counts_and_sends_all() {
    let stage = Stage::changed(spaced(60), |terms| terms.observes = true);
    for _ in 0..3 {
        stage.slow(200, "a");
    }
    let (first, second) = tokio::join!(stage.get(), stage.get());
    let third = stage.get().await;
    assert!([first, second, third].iter().all(|one| *one == got(200, "a", "")));
    assert_eq!(stage.sent(), 3);
    assert!(stage.counted("sent") && stage.counted("joined") && stage.counted("stored"));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_poll_passes() {
    let upstream = Scripted::default();
    let other = PollingLayer::new(None).layer(upstream.clone());
    let stage = Stage::new(spaced(60));
    for (service, upstream, method) in [
        (other, upstream, Method::GET),
        (stage.polling.clone(), stage.upstream.clone(), Method::HEAD),
        (stage.polling.clone(), stage.upstream.clone(), Method::POST),
    ] {
        let before = upstream.calls().len();
        let asked = (0..2).map(|_| {
            upstream.answer_after(SECOND, Ok(response(200, &[], Body::empty())));
            service.clone().call(request(method.clone(), Body::empty()))
        });
        let answers = join_all(asked).await;
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(upstream.calls().len(), before + 2, "{method}");
    }
}
