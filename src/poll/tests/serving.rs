//! Which answers serve the polls that come after them.

use tokio::time::{advance, sleep};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_poll_that_comes_too_soon_gets_the_last_answer() {
    let stage = Stage::new(spaced(4));
    stage.slow(200, "a");
    assert_eq!(stage.get().await, got(200, "a", ""));
    for (wait, body, replay) in [
        (2999, "a", "stored"), // four seconds from the beginning of the poll before
        (1, "a", ""),
        (5999, "a", "stored"), // nothing had changed: by half
        (1, "a", ""),
        (7999, "a", "stored"), // and up to twice
        (1, "a", ""),
        (7999, "a", "stored"),
        (1, "b", ""),
        (3999, "b", "stored"), // it changed
        (1, "b", ""),
    ] {
        advance(Duration::from_millis(wait)).await;
        if replay.is_empty() {
            stage.says(200, &[], body);
        }
        assert_eq!(stage.get().await, got(200, body, replay), "after {wait} ms");
    }
    assert!(stage.counted("stored"));
}

#[tokio::test(start_paused = true)]
async fn what_the_upstream_asks_for_is_obeyed_up_to_the_longest_hint() {
    for (hint, spacing) in [("3", 4), ("9", 9), ("61", 60)] {
        let stage = Stage::new(spaced(4));
        stage.says(200, &[("retry-after", hint)], "a");
        stage.get().await;
        advance(Duration::from_millis(spacing * 1000 - 1)).await;
        assert_eq!(stage.get().await, got(200, "a", "stored"), "{hint}");
        advance(Duration::from_millis(1)).await;
        stage.says(200, &[], "b");
        assert_eq!(stage.get().await, got(200, "b", ""), "{hint}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_no_last_answer() {
    for status in [400, 401, 403, 429, 500, 503] {
        let stage = Stage::new(spaced(60));
        stage.says(status, &[("retry-after", "9")], "no");
        stage.says(200, &[], "yes");
        assert_eq!(stage.get().await.0, status);
        assert_eq!(stage.get().await, got(200, "yes", ""));
        assert_eq!(stage.get().await, got(200, "yes", "stored"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_over_is_not_asked_about_for_a_while() {
    let stage = Stage::new(terminal(600));
    stage.says(200, &[], r#"{"status":"error"}"#);
    assert_eq!(stage.get().await.2, "");
    let done = r#"{"status":"done"}"#;
    stage.says(200, &[("set-cookie", "a"), ("etag", "e")], done);
    assert_eq!(stage.get().await, got(200, done, ""), "an interim state is remembered by nobody");
    advance(Duration::from_millis(599_999)).await;
    let (stored, replay, _) = stage.call(7, &[]).await;
    let stored = stored.expect("an answer");
    assert_eq!((replay, stored.headers.contains_key("set-cookie")), ("stored", false));
    assert_eq!(stored.headers.get("etag").expect("it is kept"), "e");
    assert!(stage.counted("terminal") && !stage.counted("stored"));
    advance(Duration::from_millis(1)).await;
    stage.says(200, &[], done);
    assert_eq!((stage.get().await.2, stage.sent()), ("", 3));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_runs_again_is_not_over() {
    let stage = Stage::new(terminal(600));
    stage.says(200, &[], r#"{"status":"done"}"#);
    stage.get().await;
    stage.says(200, &[], r#"{"status":"running"}"#);
    let fresh = stage.get_with(7, &[("cache-control", "no-cache")]).await;
    assert_eq!(fresh.2, "");
    stage.says(200, &[], r#"{"status":"running"}"#);
    assert_eq!((stage.get().await.2, stage.sent()), ("", 3));
}

#[tokio::test(start_paused = true)]
async fn a_refused_credential_loses_what_it_knew() {
    let done = r#"{"status":"done"}"#;
    for (status, lost) in [(401, true), (403, true), (404, false), (500, false)] {
        let stage = Stage::new(terminal(600));
        for caller in [1, 2] {
            stage.says(200, &[], done);
            stage.get_with(caller, &[]).await;
        }
        // Of another job of the same caller.
        stage.says(status, &[], "{}");
        assert_eq!(stage.get_with(1, &[("accept", "x")]).await.0, status);
        stage.says(200, &[], done);
        let replay = if lost { "" } else { "stored" };
        assert_eq!(stage.get_with(1, &[]).await.2, replay, "{status}");
        assert_eq!(stage.get_with(2, &[]).await.2, "stored", "another caller");
    }
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_was_refused_elsewhere_asks_anew() {
    let stage = Stage::new(spaced(60));
    stage.says(200, &[], "a");
    stage.get().await;
    stage.refused.store(true, Ordering::Relaxed);
    stage.says(200, &[], "b");
    assert_eq!(stage.get().await, got(200, "b", ""));
    stage.refused.store(false, Ordering::Relaxed);
    assert_eq!(stage.get().await, got(200, "b", "stored"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_wants_it_fresh_asks_the_upstream() {
    for (fields, later) in [
        (&[("cache-control", "no-cache")][..], "fresh"),
        (&[("pragma", "no-cache")], "fresh"),
        (&[("cache-control", "no-store")], "old"),
    ] {
        let stage = Stage::new(spaced(60));
        stage.slow(200, "old");
        stage.slow(200, "fresh");
        let leader = stage.get();
        let own = async {
            sleep(SECOND / 2).await;
            stage.get_with(7, fields).await
        };
        let (_, own) = tokio::join!(leader, own);
        assert_eq!((own, stage.sent()), (got(200, "fresh", ""), 2), "it does not join");
        assert_eq!(stage.get().await, got(200, later, "stored"), "{fields:?}");
        stage.says(200, &[], "again");
        assert_eq!(stage.get_with(7, fields).await, got(200, "again", ""));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_route_no_longer_wants_serves_nobody() {
    let board = board();
    let rules = Rules { interval: spaced(60).interval, ..terminal(60) };
    let stage = |rules| Stage::changed(rules, |terms| terms.board = board.clone());
    let before = stage(rules);
    before.says(200, &[], r#"{"status":"done"}"#);
    before.get().await;
    for (rules, replay) in
        [(spaced(60), "stored"), (terminal(60), "stored"), (Rules::default(), "")]
    {
        let after = stage(rules);
        after.says(200, &[], "{}");
        assert_eq!(after.get().await.2, replay);
    }
}

#[tokio::test(start_paused = true)]
async fn what_changes_a_job_makes_the_next_poll_ask_anew() {
    for (method, is_change) in [
        (Method::DELETE, true),
        (Method::POST, true),
        (Method::PATCH, true),
        (Method::HEAD, false),
        (Method::OPTIONS, false),
    ] {
        let stage = Stage::new(terminal(600));
        stage.says(200, &[], r#"{"status":"done"}"#);
        stage.get().await;
        let mut request = request(method.clone(), Body::empty());
        request.caller = [7; 32];
        stage.says(200, &[], "{}");
        stage.polling.clone().call(request).await.expect("an answer");
        stage.says(200, &[], r#"{"status":"gone"}"#);
        assert_eq!(stage.get().await.2, if is_change { "" } else { "stored" }, "{method}");
    }
}
