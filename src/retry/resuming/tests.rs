//! Downloads that break off, over an upstream that has a script.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, timeout};
use tower::Layer as _;

use super::*;
use crate::exchange::body::{Caps, Room};
use crate::exchange::tests::{
    Piece, Scripted, data, fed, full, headers, next, request, response, rest, streamed, trailers,
};
use crate::exchange::{Chance, Outcome, RequestParts};
use crate::metrics::Metrics;
use crate::retry::budget::Terms;
use crate::retry::policy::Attempts;
use crate::retry::tests::policy;
use crate::retry::{Budget, Means, Retry, RetryLayer};

/// A route of downloads, and all that can be seen of it.
struct Bench {
    retry: Retry<Scripted>,
    upstream: Scripted,
    metrics: Metrics,
    trail: Trail,
}

fn bench(policy: Policy) -> Bench {
    bench_that(policy, |_means| ())
}

fn bench_that(policy: Policy, tuned: impl FnOnce(&mut Means)) -> Bench {
    let (metrics, upstream) = (Metrics::new(), Scripted::default());
    let mut means = Means {
        budget: Budget::new(policy.budget, Instant::now()),
        caps: Caps { memory: 1024, disk: 0 },
        room: Room::new(std::env::temp_dir(), 1024, 0),
        metrics: metrics.route("r"),
        chance: Chance::new([1; 32]),
        observes: false,
        resumes: true,
    };
    tuned(&mut means);
    let retry = RetryLayer::new(policy, means).layer(upstream.clone());
    Bench { retry, upstream, metrics, trail: Trail::default() }
}

impl Bench {
    /// The body of the answer to a request.
    async fn ask(&mut self, request: Request) -> Body {
        self.trail = request.trail.clone();
        self.retry.call(request).await.expect("an answer").body
    }

    /// All that a `GET` brings, with `!` where it broke off.
    async fn get(&mut self) -> String {
        let mut body = self.ask(request(Method::GET, Body::empty())).await;
        rest(&mut body).await
    }

    fn counts(&self, series: &str) -> bool {
        self.metrics.text().contains(&format!("samekey_{series}"))
    }

    fn resumed(&self, result: &str, times: u32) -> bool {
        self.counts(&format!(r#"resumes_total{{result="{result}",route="r"}} {times}"#))
    }

    /// What each attempt asked for.
    fn ranges(&self) -> Vec<String> {
        let calls = self.upstream.calls();
        let text = |call: &crate::exchange::tests::Call| {
            let range = call.headers.get("range").map(|value| value.to_str().expect("text"));
            range.unwrap_or_default().to_owned()
        };
        calls.iter().map(text).collect()
    }

    /// It will begin a file of `abcdefgh` in these pieces.
    fn begins(&self, pieces: impl IntoIterator<Item = Piece>) -> &Self {
        self.upstream.answer(Ok(response(200, &[TAG], streamed(pieces))));
        self
    }

    /// It will go on with it: the range, and its pieces.
    fn goes_on(&self, range: &str, pieces: impl IntoIterator<Item = Piece>) -> &Self {
        let fields = [TAG, ("content-range", range)];
        self.upstream.answer(Ok(response(206, &fields, streamed(pieces))));
        self
    }
}

type Tuned = fn(&mut Means);

const TAG: (&str, &str) = ("etag", "\"t\"");

fn broke() -> Piece {
    Err(BodyError::UpstreamBroke)
}

fn few(attempts: u32) -> Policy {
    let attempts = NonZeroU32::new(attempts).expect("not zero");
    Policy { attempts: Attempts::AtMost(attempts), ..policy() }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_goes_on_where_it_stopped() {
    let mut bench = bench(policy());
    bench.begins([data("ab"), data("c"), broke()]);
    bench.goes_on("bytes 3-7/8", [data("d"), Err(BodyError::Idle)]);
    bench.goes_on("bytes 4-7/8", [data("ef"), data("gh"), trailers("x-sum")]);
    assert_eq!(bench.get().await, "abcdefgh");
    assert_eq!(bench.ranges(), ["", "bytes=3-", "bytes=4-7"]);
    let calls = bench.upstream.calls();
    assert!(calls[1..].iter().all(|call| call.headers["if-range"] == "\"t\""));
    assert!(bench.resumed("resumed", 2) && bench.resumed("gave_up", 0));
    for series in [
        r#"attempts_total{outcome="done",route="r"} 3"#,
        r#"retries_total{reason="reset",route="r"} 1"#,
        r#"retries_total{reason="timeout",route="r"} 1"#,
        r#"retry_recovered_total{route="r"} 0"#,
    ] {
        assert!(bench.counts(series), "{series}");
    }
    let statuses = bench.trail.with(|notes| {
        assert_eq!((notes.resume, notes.stop), (Some("resumed"), None));
        notes.attempts.iter().filter_map(|attempt| attempt.status).collect::<Vec<_>>()
    });
    assert_eq!(
        statuses,
        [StatusCode::OK, StatusCode::PARTIAL_CONTENT, StatusCode::PARTIAL_CONTENT]
    );
}

#[tokio::test(start_paused = true)]
async fn attempts_that_fail_on_the_way_are_retried_by_the_routes_rules() {
    use Outcome::{Done, Refused, Throttled};
    let mut bench = bench(policy());
    bench.begins([data("abc"), broke()]);
    bench.upstream.answer(Err(Failure::Refused)).status(429, &[("retry-after", "2")]);
    bench.goes_on("bytes 3-7/8", [data("defgh")]);
    let started = Instant::now();
    assert_eq!(bench.get().await, "abcdefgh");
    assert!(started.elapsed() >= Duration::from_secs(2), "it waits as it is asked to");
    let outcomes: Vec<_> =
        bench.trail.with(|notes| notes.attempts.iter().map(|attempt| attempt.outcome).collect());
    assert_eq!(outcomes, [Done, Refused, Throttled, Done]);
}

#[tokio::test(start_paused = true)]
async fn attempts_count_from_the_last_byte_that_came() {
    // Each of three resumes brings a byte, and three attempts are more than any needs.
    let mut lucky = bench(few(2));
    lucky.begins([data("a"), broke()]);
    lucky.goes_on("bytes 1-3/4", [data("b"), broke()]);
    lucky.goes_on("bytes 2-3/4", [data("c"), broke()]);
    lucky.goes_on("bytes 3-3/4", [data("d")]);
    assert_eq!(lucky.get().await, "abcd");

    // Without progress there are two in all.
    for (attempts, wanted, calls) in [(2, "a!", 2), (3, "abcd", 3)] {
        let mut barren = bench(few(attempts));
        barren.begins([data("a"), broke()]);
        barren.goes_on("bytes 1-3/4", [broke()]);
        barren.goes_on("bytes 1-3/4", [data("bcd")]);
        assert_eq!(barren.get().await, wanted, "{attempts}");
        assert_eq!(barren.ranges().len(), calls);
        let stop = (wanted == "a!").then_some(Stop::Attempts);
        assert_eq!(barren.trail.with(|notes| notes.stop), stop);
        assert!(barren.resumed("gave_up", u32::from(stop.is_some())));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_the_rest_never_reaches_the_client() {
    let rest = |range, pieces: Vec<Piece>| {
        response(206, &[TAG, ("content-range", range)], streamed(pieces))
    };
    for (answer, wanted, result) in [
        (response(200, &[TAG], full("abcdefgh")), "abc!", "refused"),
        (response(200, &[("etag", "\"u\"")], full("ABCDEFGH")), "abc!", "changed"),
        (response(412, &[], Body::empty()), "abc!", "changed"),
        (response(416, &[], Body::empty()), "abc!", "refused"),
        (response(404, &[], Body::empty()), "abc!", "refused"),
        (rest("bytes 2-7/8", vec![data("cdefgh")]), "abc!", "refused"),
        (rest("bytes 3-7/8", vec![data("defghi")]), "abc!", "refused"),
        // The last piece is not passed on before it is known to be the last.
        (rest("bytes 3-7/8", vec![data("de"), data("fgh"), data("i")]), "abcde!", "refused"),
        (rest("bytes 3-7/8", vec![data("de"), data("fgh"), broke()]), "abcde!", "refused"),
    ] {
        let mut bench = bench(policy());
        bench.begins([data("abc"), broke()]);
        let shown = format!("{answer:?}");
        bench.upstream.answer(Ok(answer));
        assert_eq!(bench.get().await, wanted, "{shown}");
        assert_eq!(bench.trail.with(|notes| notes.resume), Some(result), "{shown}");
        assert!(bench.resumed(result, 1), "{shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rest_that_ends_too_early_is_broken() {
    let mut bench = bench(policy());
    bench.begins([data("abc"), broke()]);
    bench.goes_on("bytes 3-7/8", [data("de")]); // and then it ends as if it were whole
    bench.goes_on("bytes 5-7/8", [data("fgh")]);
    assert_eq!(bench.get().await, "abcdefgh");
    assert_eq!(bench.ranges(), ["", "bytes=3-", "bytes=5-7"]);
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_resumed_breaks_off_as_it_came() {
    let weak = ("etag", "W/\"t\"");
    let head = |fields: &[(&'static str, &str)]| {
        let asked = request(Method::GET, Body::empty());
        Box::new(RequestParts { headers: headers(fields), ..*asked })
    };
    let post = request(Method::POST, Body::empty());
    let mut off = head(&[]);
    off.wishes.single_attempt = true;
    let signed = head(&[("authorization", "AWS4-HMAC-SHA256 Credential=x")]);
    let none = |_: &mut Means| ();
    for (asked, field, policy, tuned, counted) in [
        (head(&[]), weak, policy(), none as Tuned, 1),
        (signed, TAG, policy(), none, 1),
        (post, TAG, policy(), none, 0),
        (off, TAG, policy(), none, 0),
        (head(&[]), TAG, few(1), none, 0),
        (head(&[]), TAG, policy(), |means| means.observes = true, 0),
        (head(&[]), TAG, policy(), |means| means.resumes = false, 0),
    ] {
        let mut bench = bench_that(policy, tuned);
        let shown = format!("{asked:?}");
        let body = streamed([data("abc"), broke()]);
        bench.upstream.answer(Ok(response(200, &[field], body)));
        let mut body = bench.ask(asked).await;
        assert_eq!(rest(&mut body).await, "abc!", "{shown}");
        drop(body);
        assert_eq!(bench.ranges().len(), 1, "{shown}");
        assert!(bench.resumed("refused", counted), "{shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_resume_is_paid_for_as_an_ambiguous_outcome() {
    for (burst, wanted) in [(1, "abc!"), (2, "abcdefgh")] {
        let terms = Terms { ratio_milli: 0, per_second: 0, burst };
        let mut bench = bench(Policy { budget: terms, ..policy() });
        bench.begins([data("abc"), broke()]).goes_on("bytes 3-7/8", [data("defgh")]);
        assert_eq!(bench.get().await, wanted, "{burst}");
        assert!(bench.resumed("gave_up", u32::from(burst == 1)));
    }
}

#[tokio::test(start_paused = true)]
async fn no_resume_begins_after_the_deadline() {
    let mut bench = bench(policy());
    let (upstream, body) = fed();
    bench.upstream.answer(Ok(response(200, &[TAG], body)));
    let mut body = bench.ask(request(Method::GET, Body::empty())).await;
    upstream.send(data("abc")).expect("it is read");
    assert_eq!(next(&mut body).await.as_deref(), Some("abc"));
    tokio::time::advance(policy().deadline.after).await;
    upstream.send(broke()).expect("it is read");
    assert_eq!(rest(&mut body).await, "!");
    assert_eq!(bench.trail.with(|notes| notes.stop), Some(Stop::Deadline));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_ends_the_wait() {
    for drops in [true, false] {
        let mut bench = bench(policy());
        bench.begins([data("abc"), broke()]);
        bench.upstream.status(503, &[("retry-after", "60")]);
        let asked = request(Method::GET, Body::empty());
        let presence = asked.client.presence.clone();
        let mut body = bench.ask(asked).await;
        assert_eq!(next(&mut body).await.as_deref(), Some("abc"));
        let started = Instant::now();
        let second = Duration::from_secs(1);
        assert!(timeout(second, next(&mut body)).await.is_err(), "it waits");
        if drops {
            drop(body);
        } else {
            presence.leave();
            assert_eq!(rest(&mut body).await, "!");
        }
        assert_eq!((started.elapsed(), bench.ranges().len()), (second, 2));
        assert!(bench.resumed("gave_up", 0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_broken_answer_held_is_given_back_before_the_next_is_asked_for() {
    let mut bench = bench(policy());
    let slot = Arc::new(());
    let body = streamed([data("abc"), broke()]).holding(slot.clone());
    bench.upstream.answer(Ok(response(200, &[TAG], body)));
    bench.upstream.status(503, &[("retry-after", "60")]);
    let last = Arc::new(());
    let body = streamed([data("defgh")]).holding(last.clone());
    let fields = [TAG, ("content-range", "bytes 3-7/8")];
    bench.upstream.answer(Ok(response(206, &fields, body)));
    let mut body = bench.ask(request(Method::GET, Body::empty())).await;
    assert_eq!(next(&mut body).await.as_deref(), Some("abc"));
    assert_eq!(Arc::strong_count(&slot), 2);
    assert!(timeout(Duration::from_secs(1), next(&mut body)).await.is_err(), "it waits");
    assert_eq!(Arc::strong_count(&slot), 1);
    assert_eq!(next(&mut body).await.as_deref(), Some("defgh"));
    assert_eq!(next(&mut body).await, None);
    assert_eq!(Arc::strong_count(&last), 1, "the last byte takes the slot along");
}

#[tokio::test(start_paused = true)]
async fn a_length_that_was_told_stays_told() {
    let mut bench = bench(policy());
    let fields = [TAG, ("content-length", "8")];
    bench.upstream.answer(Ok(response(200, &fields, full("abcdefgh"))));
    let body = bench.ask(request(Method::GET, Body::empty())).await;
    assert_eq!(body.length(), Some(8));
}
