//! Costs, asked for before an effect is sent.

use std::num::NonZeroUsize;

use super::*;

#[tokio::test(start_paused = true)]
async fn an_effect_may_cost_what_the_route_allows_and_no_more() {
    for (answer, wanted) in [
        (r#"{"credits": 49.99}"#, "201"),
        (r#"{"credits": 50.00}"#, "201"),
        (
            r#"{"credits": 50.000000000000000001}"#,
            "estimate 50.000000000000000001 is above at_most 50",
        ),
        (r#"{"credits": 51}"#, "estimate 51 is above at_most 50"),
    ] {
        let bench = bench(estimate(OnFailure::Refuse));
        bench.json(200, answer);
        if wanted == "201" {
            bench.json(201, "{}");
        }
        assert_eq!(bench.order().await, wanted, "{answer}");
        let bodies: Vec<_> = bench.upstream.calls().into_iter().map(|call| call.body).collect();
        assert!(bodies.iter().all(|body| body.as_deref() == Some(b"{}")), "each got the body");
        assert_eq!(bodies.len(), if wanted == "201" { 2 } else { 1 });
    }
    let bench = bench(estimate(OnFailure::Refuse));
    bench.json(200, r#"{"credits": 62.5}"#);
    bench.order().await;
    assert!(bench.counts("cost_total{kind=\"refused\",route=\"r\"} 62.5"));
    assert!(bench.counts("calls_saved_total{kind=\"refused\",route=\"r\"} 1"));
}

#[tokio::test(start_paused = true)]
async fn a_cost_that_nobody_says_is_the_routes_to_decide() {
    for answer in [r#"{"credits": "much"}"#, r#"{"credits": -1}"#] {
        let bench = bench(estimate(OnFailure::Refuse));
        bench.json(200, answer);
        let told = bench.order().await;
        assert!(
            told.starts_with("failed: the cost of this request could not be asked for"),
            "{told}"
        );
        assert_eq!(bench.sent(), 1);
    }
    let bench = bench(estimate(OnFailure::Forward));
    bench.json(500, "{}").json(201, "{}");
    assert_eq!(bench.order().await, "201");
}

#[tokio::test(start_paused = true)]
async fn a_body_is_estimated_as_far_as_memory_holds_it_and_is_never_lost() {
    let pieces = |size: usize| streamed(std::iter::repeat_with(|| data("x")).take(size));
    for (size, fits) in [(7, true), (8, true), (9, false)] {
        for on_failure in [OnFailure::Refuse, OnFailure::Forward] {
            let bench = bench(estimate(on_failure));
            if fits {
                bench.json(200, r#"{"credits": 1}"#);
            }
            let sent = fits || on_failure == OnFailure::Forward;
            if sent {
                bench.json(201, "{}");
            }
            let told = bench.told(request(Method::POST, pieces(size))).await;
            let wanted = "the cost of this request could not be asked for: its body does not fit into body.memory";
            assert_eq!(told, if sent { "201" } else { wanted }, "{size} {on_failure:?}");
            let last = bench.upstream.calls().pop().and_then(|call| call.body);
            let length = last.map(|body| NonZeroUsize::new(body.len()));
            assert_eq!(length.flatten(), NonZeroUsize::new(size).filter(|_| sent));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_effect_whose_client_leaves_is_neither_estimated_nor_sent() {
    let bench = bench(estimate(OnFailure::Forward));
    let broke = streamed([data("a"), Err(BodyError::ClientLeft)]);
    let told = bench.send(request(Method::POST, broke)).await;
    assert!(matches!(told, Err(Failure::ClientGone)));
    let broke = streamed([data("a"), Err(BodyError::Malformed("a bad chunk"))]);
    let told = bench.send(request(Method::POST, broke)).await;
    assert!(matches!(told, Err(Failure::BadRequest("a bad chunk"))));
    assert_eq!(bench.sent(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_again_is_not_estimated_again() {
    let bench = bench(estimate(OnFailure::Refuse));
    let mut again = post();
    again.standing.ambiguous_before = true;
    bench.json(201, "{}");
    assert_eq!(bench.told(again).await, "201");
    assert_eq!(bench.sent(), 1);
}
