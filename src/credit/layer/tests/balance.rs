//! Balances, asked for before anything is spent.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_low_balance_opens_the_breaker_before_anything_is_spent() {
    let bench = bench(preflight());
    bench.json(200, r#"{"credits": 0.99}"#);
    assert_eq!(bench.order().await, "refused for 300s");
    assert_eq!(bench.order().await, "refused for 300s", "the reading is used");
    assert_eq!(bench.sent(), 1, "the question alone");
    advance(EVERY).await;
    bench.json(200, r#"{"credits": 1}"#).json(201, "{}");
    assert_eq!(bench.order().await, "201", "it was topped up");
    assert!(
        bench.counts("credit_checks_total{check=\"preflight\",result=\"short\",route=\"r\"} 1")
    );
    assert!(bench.counts("breakers_open{route=\"r\"} 0"));
}

#[tokio::test(start_paused = true)]
async fn a_good_balance_closes_what_an_answer_opened() {
    let bench = bench(preflight());
    bench.json(200, r#"{"credits": 5}"#).json(402, "{}");
    assert_eq!(bench.order().await, "402");
    assert_eq!(bench.order().await, "refused for 300s", "the reading was older");
    advance(EVERY).await;
    bench.json(200, r#"{"credits": 5}"#).json(201, "{}");
    assert_eq!(bench.order().await, "201");
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_resets_is_asked_about_anew() {
    let bench = bench(preflight());
    bench.json(200, r#"{"credits": 0}"#);
    assert_eq!(bench.order().await, "refused for 300s");
    assert_eq!(bench.accounts.breakers.reset(Some("r")), 1);
    bench.json(200, r#"{"credits": 9}"#).json(201, "{}");
    assert_eq!(bench.order().await, "201");
}

#[tokio::test(start_paused = true)]
async fn a_balance_that_cannot_be_had_holds_nothing_back() {
    let bench = bench(preflight());
    bench.json(500, "{}").json(201, "{}").json(201, "{}");
    assert_eq!(bench.order().await, "201");
    assert_eq!(bench.order().await, "201", "nor is it asked for each time");
    assert_eq!(bench.sent(), 3);
    advance(EVERY).await;
    bench.upstream.answer_after(Duration::from_mins(1), Err(Failure::Refused));
    bench.json(201, "{}");
    let began = Instant::now();
    assert_eq!(bench.order().await, "201");
    assert_eq!(began.elapsed(), Duration::from_secs(10));
    assert!(
        bench.counts("credit_checks_total{check=\"preflight\",result=\"failed\",route=\"r\"} 2")
    );
}

#[tokio::test(start_paused = true)]
async fn one_asks_and_the_others_wait_or_go_by_what_is_known() {
    let bench = bench(preflight());
    let slow = |text| {
        let answer = response(200, JSON, full(text));
        bench.upstream.answer_after(Duration::from_secs(3), Ok(answer));
    };
    slow(r#"{"credits": 2}"#);
    bench.json(201, "{}").json(201, "{}").json(201, "{}");
    let began = Instant::now();
    let told = tokio::join!(bench.order(), bench.order(), bench.order());
    assert_eq!(told, ("201".to_owned(), "201".to_owned(), "201".to_owned()));
    assert_eq!((began.elapsed(), bench.sent()), (Duration::from_secs(3), 4), "one question");
    advance(EVERY).await;
    slow(r#"{"credits": 2}"#);
    bench.json(201, "{}").json(201, "{}");
    let began = Instant::now();
    let by_what_is_known = async {
        tokio::task::yield_now().await;
        let told = bench.order().await;
        (told, began.elapsed())
    };
    let (_, second) = tokio::join!(bench.order(), by_what_is_known);
    assert_eq!(second, ("201".to_owned(), Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_and_leaves_is_followed_by_another() {
    let bench = bench(preflight());
    bench.upstream.answer_after(Duration::from_secs(5), Err(Failure::Refused));
    let left = tokio::time::timeout(Duration::from_secs(1), bench.order()).await;
    assert!(left.is_err());
    bench.json(200, r#"{"credits": 0}"#);
    assert_eq!(bench.order().await, "refused for 300s");
}

#[tokio::test(start_paused = true)]
async fn credentials_do_not_share_a_balance() {
    let bench = bench(preflight());
    bench.json(200, r#"{"credits": 0}"#);
    assert_eq!(bench.order().await, "refused for 300s");
    bench.json(200, r#"{"credits": 7}"#).json(201, "{}");
    assert_eq!(bench.told(of_caller(9)).await, "201");
}
