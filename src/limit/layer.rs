//! Lets an attempt pass when its turn has come.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until, timeout_at};
use tower::{Layer, Service};

use crate::exchange::hint::{self, Hint};
use crate::exchange::trail::Presence;
use crate::exchange::{BoxFuture, Failure, Origin, Request, Response, take_ready};
use crate::limit::pause::{Pass, Pause};
use crate::limit::turn::{Slot, Taken};
use crate::limit::{Caller, Gate, Limits, Rate};
use crate::metrics::RouteMetrics;

/// Wraps a stage in [`Limit`].
#[derive(Clone)]
pub struct LimitLayer {
    shared: Arc<Shared>,
}

/// Passes an attempt on when no pause, slot or rate holds it back.
#[derive(Clone)]
pub struct Limit<S> {
    shared: Arc<Shared>,
    inner: S,
}

struct Shared {
    gate: Gate,
    limits: Limits,
    /// The longest pause; a hint beyond it is not waited for, but asked about again.
    pause_max: Duration,
    metrics: RouteMetrics,
}

impl LimitLayer {
    /// Holds back at `gate` by `limits`; a pause lasts at most `pause_max`.
    pub fn new(gate: Gate, limits: Limits, pause_max: Duration, metrics: RouteMetrics) -> Self {
        Self { shared: Arc::new(Shared { gate, limits, pause_max, metrics }) }
    }
}

impl<S> Layer<S> for LimitLayer {
    type Service = Limit<S>;

    fn layer(&self, inner: S) -> Limit<S> {
        Limit { shared: self.shared.clone(), inner }
    }
}

impl<S> Service<Request> for Limit<S>
where
    S: Service<Request, Response = Response, Error = Failure> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Failure;
    type Future = BoxFuture<Result<Response, Failure>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let inner = take_ready(&mut self.inner);
        Box::pin(pass(self.shared.clone(), inner, request))
    }
}

async fn pass<S>(shared: Arc<Shared>, mut inner: S, request: Request) -> Result<Response, Failure>
where
    S: Service<Request, Response = Response, Error = Failure> + Send + 'static,
    S::Future: Send,
{
    let (origin, caller) = (request.origin.clone(), request.caller);
    let limited = shared.limits.concurrency.is_some() || shared.limits.rate.is_some();
    let turn = if limited || shared.gate.has_pauses() || shared.gate.replicas.is_some() {
        Box::pin(shared.turn(shared.asker(&request))).await? // the rule is not to wait
    } else {
        Turn::default()
    };
    let response = inner.call(request).await?; // failed, it drops `first`: the next one tries
    shared.see(&response, caller, &origin, turn.first.as_ref());
    Ok(match turn.slot {
        // The slot goes with the body: an exchange is in flight until its last
        // byte, not until its headers.
        Some(slot) => Response { body: response.body.holding(slot), ..response },
        None => response,
    })
}

/// An attempt that wants to pass.
struct Asker {
    caller: Caller,
    origin: Origin,
    /// How long it waits for that.
    until: Instant,
    /// The client without which nobody wants it.
    client: Option<Presence>,
}

/// What an attempt holds while it is under way.
#[derive(Default)]
struct Turn {
    slot: Option<Slot>,
    first: Option<First>,
}

/// The right to go first after a pause; dropped without a word, the next one tries.
struct First {
    pause: Arc<Pause>,
}

impl Drop for First {
    fn drop(&mut self) {
        self.pause.first_failed();
    }
}

impl Shared {
    /// A first attempt waits as long as the route says, a retry until the deadline
    /// of its exchange.
    fn asker(&self, request: &Request) -> Asker {
        let limit = Instant::now() + self.limits.max_wait;
        let deadline = request.wait_until.unwrap_or(limit);
        Asker {
            caller: request.caller,
            origin: request.origin.clone(),
            until: if request.trail.attempts() == 0 { limit.min(deadline) } else { deadline },
            client: (!request.standing.outlives_client).then(|| request.client.presence.clone()),
        }
    }

    /// Waits for the turn.
    async fn turn(&self, asker: Asker) -> Result<Turn, Failure> {
        let Some(client) = &asker.client else { return self.await_turn(&asker).await };
        tokio::select! {
            biased;
            turn = self.await_turn(&asker) => turn,
            () = client.gone() => Err(Failure::LimitWait { retry_after: SOON }),
        }
    }

    async fn await_turn(&self, asker: &Asker) -> Result<Turn, Failure> {
        let started = Instant::now();
        let Asker { caller, origin, until, .. } = asker;
        let (caller, until) = (*caller, *until);
        let waits = self.gate.inner.waiting.fetch_add(1, Ordering::AcqRel);
        let _leave = Leaving(&self.gate);
        let origin = self.pause_origin(origin);
        self.learn_of_pause(&caller, origin).await;
        let turn = loop {
            let turn = self.try_turn(&caller, origin, until, waits).await?;
            match turn {
                Ready(turn) => break turn,
                Again(at) if at > until => return Err(too_late(at, started)),
                Again(at) => sleep_until(at).await,
            }
        };
        self.metrics.held_back(started.elapsed());
        Ok(turn)
    }

    /// One round: the pause, then a slot, then the rate. Whatever makes it wait,
    /// it holds nothing meanwhile.
    async fn try_turn(
        &self,
        caller: &Caller,
        origin: Option<&Origin>,
        until: Instant,
        waits: usize,
    ) -> Result<Step, Failure> {
        let mut first = match self.past_pause(caller, origin, until).await? {
            Ok(first) => first,
            Err(_) if waits >= self.queue_max() => return Err(Failure::Overloaded),
            Err(at) => return Ok(Again(at)),
        };
        let mut queued = false;
        let slot = match self.limits.concurrency {
            None => None,
            Some(limit) => match self.gate.turns(*caller).take(limit) {
                Taken::Slot(slot) => Some(slot),
                Taken::Queued(_) if waits >= self.queue_max() => return Err(Failure::Overloaded),
                Taken::Queued(slot) => {
                    queued = true;
                    let slot = timeout_at(until, slot).await.ok().and_then(Result::ok);
                    Some(slot.ok_or_else(|| too_late(until + SOON, until))?)
                }
            },
        };
        if queued && first.is_none() {
            // The one that held the slot before may have begun a pause.
            let pause = self.gate.pause(caller, origin);
            let now = Instant::now();
            match pause.as_ref().map(|pause| pause.ask(now)) {
                Some(Pass::Wait(at)) => return Ok(Again(at)), // without the slot
                Some(Pass::WaitForFirst) => return Ok(Again(now)),
                Some(Pass::GoFirst) => first = pause.map(|pause| First { pause }),
                Some(Pass::Go) | None => {}
            }
        }
        if let Some(rate) = self.limits.rate
            && let Err(at) = self.take_rate(caller, rate).await
        {
            if waits >= self.queue_max() {
                return Err(Failure::Overloaded);
            }
            return Ok(Again(at)); // the slot is dropped here: a wait holds none
        }
        Ok(Ready(Turn { slot, first }))
    }

    /// Takes one attempt of the rate; the error says when to ask again. Where replicas
    /// share it, what they took counts, and what this one takes is noted here as well,
    /// for the time in which they cannot be asked.
    async fn take_rate(&self, caller: &Caller, rate: Rate) -> Result<(), Instant> {
        let shared = match &self.gate.replicas {
            Some(replicas) => replicas.take(caller, rate).await,
            None => None,
        };
        let own = self.gate.turns(*caller).take_rate(rate, Instant::now());
        match shared {
            None => own,
            Some(taken) => taken.map_err(|wait| Instant::now() + wait),
        }
    }

    /// Begins here a pause that another replica was given.
    async fn learn_of_pause(&self, caller: &Caller, origin: Option<&Origin>) {
        let Some(replicas) = &self.gate.replicas else { return };
        if let Some(left) = replicas.paused(caller, origin).await {
            self.gate.begin(*caller, origin, Instant::now() + left.min(self.pause_max));
        }
    }

    /// `Ok(Ok(_))` past the pause, `Ok(Err(at))` when to ask again.
    async fn past_pause(
        &self,
        caller: &Caller,
        origin: Option<&Origin>,
        until: Instant,
    ) -> Result<Result<Option<First>, Instant>, Failure> {
        loop {
            let now = Instant::now();
            let Some(pause) = self.gate.pause(caller, origin) else { return Ok(Ok(None)) };
            match pause.ask(now) {
                Pass::Go => return Ok(Ok(None)),
                Pass::GoFirst => return Ok(Ok(Some(First { pause }))),
                Pass::Wait(at) => return Ok(Err(at)),
                Pass::WaitForFirst => {
                    let changed = timeout_at(until, pause.change()).await;
                    changed.map_err(|_elapsed| too_late(until + SOON, until))?;
                }
            }
        }
    }

    /// Reads off an answer whether a pause begins, goes on or is over.
    fn see(&self, response: &Response, caller: Caller, origin: &Origin, first: Option<&First>) {
        let origin = self.pause_origin(origin);
        if hint::throttles(response.status, &response.headers) {
            let hint = hint::wait(response.status, &response.headers, SystemTime::now());
            if let Hint::Wait(hint) = hint {
                let pause = hint.min(self.pause_max);
                self.gate.begin(caller, origin, Instant::now() + pause);
                if let Some(replicas) = &self.gate.replicas {
                    replicas.pause(&caller, origin, pause);
                }
                self.metrics.paused();
            }
        } else if first.is_some() {
            self.gate.end(&caller, origin);
        }
    }

    fn queue_max(&self) -> usize {
        usize::try_from(self.limits.max_queue).unwrap_or(usize::MAX)
    }

    /// A route's pause is for one upstream; a group's, for all that its routes reach.
    fn pause_origin<'a>(&self, origin: &'a Origin) -> Option<&'a Origin> {
        self.limits.group.is_none().then_some(origin)
    }
}

enum Step {
    Ready(Turn),
    Again(Instant),
}
use Step::{Again, Ready};

struct Leaving<'a>(&'a Gate);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.inner.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

fn too_late(at: Instant, since: Instant) -> Failure {
    Failure::LimitWait { retry_after: at.saturating_duration_since(since) }
}

/// When asking again is worth it, where nothing says when the turn will come.
const SOON: Duration = Duration::from_secs(1);

impl fmt::Debug for LimitLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitLayer").field("limits", &self.shared.limits).finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for Limit<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit").field("limits", &self.shared.limits).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use http::Method;
    use tokio::task::JoinSet;

    use super::*;
    use crate::exchange::RequestParts;
    use crate::exchange::tests::{Scripted, data, full, request, response, streamed};
    use crate::exchange::trail::Attempt;
    use crate::exchange::{Body, Outcome};
    use crate::metrics::Metrics;

    const SECOND: Duration = Duration::from_secs(1);
    const RETRY_AFTER_5: &[(&str, &str)] = &[("retry-after", "5")];

    fn limits() -> Limits {
        Limits {
            concurrency: None,
            rate: None,
            max_wait: SECOND * 30,
            max_queue: 100,
            group: None,
            shared: false,
        }
    }

    fn slots(slots: u32) -> Option<NonZeroU32> {
        NonZeroU32::new(slots)
    }

    /// A limited route, and when what came through it was sent.
    struct Bench {
        limit: Limit<Scripted>,
        upstream: Scripted,
        gate: Gate,
        metrics: Metrics,
        began: Instant,
        under_way: JoinSet<Result<(), Failure>>,
    }

    fn bench(limits: Limits) -> Bench {
        let (upstream, gate, metrics) = (Scripted::default(), Gate::default(), Metrics::new());
        let layer = LimitLayer::new(gate.clone(), limits, SECOND * 120, metrics.route("r"));
        let limit = layer.layer(upstream.clone());
        let (began, under_way) = (Instant::now(), JoinSet::new());
        Bench { limit, upstream, gate, metrics, began, under_way }
    }

    impl Bench {
        async fn send(&mut self, request: Request) -> Result<Response, Failure> {
            self.limit.call(request).await
        }

        /// Sends a request, and goes on as soon as that waits or is done.
        async fn begin(&mut self, request: Request) {
            let sent = self.limit.call(request);
            self.under_way.spawn(async { sent.await.map(drop) });
            for _turn in 0..20 {
                tokio::task::yield_now().await;
            }
        }

        /// Waits for all that was begun; how many of them failed.
        async fn failures(&mut self) -> usize {
            let ended = std::mem::take(&mut self.under_way).join_all().await;
            ended.iter().filter(|result| result.is_err()).count()
        }

        /// When each attempt was sent, in seconds.
        fn sent(&self) -> Vec<u64> {
            let after = |at: Instant| at.saturating_duration_since(self.began).as_secs();
            self.upstream.calls().iter().map(|call| after(call.at)).collect()
        }
    }

    fn get() -> Request {
        let request = request(Method::GET, Body::empty());
        // Somebody wants it, whether or not its client is still there.
        let standing = crate::exchange::Standing { outlives_client: true, ..request.standing };
        Box::new(RequestParts { standing, ..*request })
    }

    fn body(text: &'static str) -> Response {
        response(200, &[], streamed([data(text)]))
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_all_back_then_one_goes_first_and_the_rest_follow_its_answer() {
        let mut bench = bench(limits());
        bench.upstream.status(429, RETRY_AFTER_5);
        bench
            .upstream
            .answer_after(SECOND * 2, Ok(body("first")))
            .status(200, &[])
            .status(200, &[]);
        drop(bench.send(get()).await);
        for _each in 0..3 {
            bench.begin(get()).await;
        }
        assert_eq!(bench.failures().await, 0);
        assert_eq!(bench.sent(), [0, 5, 7, 7]);
        assert!(!bench.gate.has_pauses());
        assert!(bench.metrics.text().contains(r#"samekey_pauses_total{route="r"} 1"#));
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_that_is_throttled_again_makes_the_rest_wait_again() {
        let mut bench = bench(limits());
        bench.upstream.status(429, RETRY_AFTER_5).status(503, RETRY_AFTER_5);
        bench.upstream.status(200, &[]).status(200, &[]);
        drop(bench.send(get()).await);
        for _each in 0..3 {
            bench.begin(get()).await;
        }
        assert_eq!(bench.failures().await, 0);
        assert_eq!(bench.sent(), [0, 5, 10, 10]);
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_first_fails_the_next_tries() {
        let mut bench = bench(limits());
        let unreachable = Failure::Unreachable { detail: String::new(), kind: "dns_error" };
        bench.upstream.status(429, RETRY_AFTER_5);
        bench.upstream.answer_after(SECOND, Err(unreachable));
        bench.upstream.answer_after(SECOND, Ok(body("second"))).status(200, &[]);
        drop(bench.send(get()).await);
        for _each in 0..3 {
            bench.begin(get()).await;
        }
        assert_eq!(bench.failures().await, 1);
        assert_eq!(bench.sent(), [0, 5, 6, 7]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_for_one_caller_and_one_upstream_unless_a_group_shares_it() {
        let others = || {
            let elsewhere = Origin::parse("https://other.test").expect("an origin");
            [
                Box::new(RequestParts { caller: [8; 32], ..*get() }),
                Box::new(RequestParts { origin: elsewhere, ..*get() }),
            ]
        };
        let group = Some("g".to_owned());
        for (limits, wanted) in [
            (limits(), [0, 0, 0]),
            (Limits { group, ..limits() }, [0, 0, 5]), // the group's upstreams share it
        ] {
            let mut bench = bench(limits);
            bench.upstream.status(429, RETRY_AFTER_5).status(200, &[]).status(200, &[]);
            drop(bench.send(get()).await);
            for other in others() {
                drop(bench.send(other).await);
            }
            assert_eq!(bench.sent(), wanted);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_wait_too_long_is_told_at_once() {
        for (seconds, wanted) in [("29", 29), ("30", 30), ("31", 0), ("600", 0)] {
            let mut bench = bench(limits());
            bench.upstream.status(429, &[("retry-after", seconds)]).status(200, &[]);
            drop(bench.send(get()).await);
            let result = bench.send(get()).await;
            assert_eq!(bench.began.elapsed(), SECOND * wanted, "{seconds}");
            assert_eq!(result.is_ok(), wanted != 0, "{seconds}");
            if let Err(failure) = result {
                // A hint beyond the longest pause is asked about again after that.
                let told = SECOND * seconds.parse::<u32>().expect("a number").min(120);
                assert!(
                    matches!(failure, Failure::LimitWait { retry_after } if retry_after == told)
                );
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_waits_until_the_deadline_of_its_exchange() {
        for (deadline, sent) in [(60, &[0, 60][..]), (59, &[0])] {
            let mut bench = bench(limits());
            bench.upstream.status(429, &[("retry-after", "60")]).status(200, &[]);
            drop(bench.send(get()).await);
            let wait_until = Some(Instant::now() + SECOND * deadline);
            let retry = Box::new(RequestParts { wait_until, ..*get() });
            retry.trail.with(|notes| {
                let (outcome, status, did_nothing) = (Outcome::Throttled, None, true);
                notes.attempts.push(Attempt {
                    outcome,
                    status,
                    did_nothing,
                    waited: SECOND,
                    at: std::time::UNIX_EPOCH,
                });
            });
            assert_eq!(bench.send(retry).await.is_ok(), sent.len() == 2);
            assert_eq!(bench.sent(), sent);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_hint_there_is_no_pause() {
        for (status, fields, pauses) in [
            (429, &[][..], false),
            (429, &[("retry-after", "0")], false),
            (429, &[("retry-after", "soon")], false),
            (200, RETRY_AFTER_5, false),
            (500, RETRY_AFTER_5, false),
            (429, RETRY_AFTER_5, true),
            (503, RETRY_AFTER_5, true),
            (403, RETRY_AFTER_5, true),
            (529, RETRY_AFTER_5, true),
        ] {
            let mut bench = bench(limits());
            bench.upstream.status(status, fields);
            drop(bench.send(get()).await);
            assert_eq!(bench.gate.has_pauses(), pauses, "{status} {fields:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_leaves_with_the_bodys_last_byte() {
        let mut bench = bench(Limits { concurrency: slots(1), ..limits() });
        bench.upstream.answer(Ok(body("one"))).answer(Ok(body("two")));
        let first = bench.send(get()).await.expect("a slot is free");
        bench.begin(get()).await;
        assert_eq!(bench.sent(), [0], "the first body is not read yet");
        tokio::time::advance(SECOND * 3).await;
        drop(first);
        assert_eq!(bench.failures().await, 0);
        assert_eq!(bench.sent(), [0, 3]);

        // An attempt that failed holds none.
        bench.upstream.answer(Err(Failure::Refused)).status(200, &[]);
        assert!(bench.send(get()).await.is_err());
        assert!(bench.send(get()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_that_does_not_come_in_time_is_waited_for_no_longer() {
        let mut bench = bench(Limits { concurrency: slots(1), ..limits() });
        bench.upstream.answer(Ok(body("one")));
        let _first = bench.send(get()).await.expect("a slot is free");
        let late = bench.send(get()).await.expect_err("the slot is taken");
        assert!(matches!(late, Failure::LimitWait { .. }), "{late:?}");
        assert_eq!(bench.began.elapsed(), SECOND * 30);
        let shown = r#"samekey_limit_wait_seconds_count{route="r"}"#;
        assert!(bench.metrics.text().contains(shown));
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_bounded_and_fair() {
        let mut bench = bench(Limits { concurrency: slots(1), max_queue: 2, ..limits() });
        bench.upstream.answer(Ok(body("running")));
        let running = bench.send(get()).await.expect("a slot is free");
        for text in ["a", "b"] {
            let waits = request(Method::POST, full(text));
            bench.begin(Box::new(RequestParts { standing: get().standing, ..*waits })).await;
        }
        let refused = bench.send(get()).await.expect_err("two wait already");
        assert!(matches!(refused, Failure::Overloaded), "{refused:?}");
        assert_eq!(bench.began.elapsed(), Duration::ZERO);
        bench.upstream.status(200, &[]).status(200, &[]);
        drop(running);
        assert_eq!(bench.failures().await, 0);
        let order: Vec<_> =
            bench.upstream.calls().into_iter().filter_map(|call| call.body).collect();
        assert_eq!(order, ["", "a", "b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_begins_while_others_queue_for_a_slot_holds_them_back_too() {
        let mut bench = bench(Limits { concurrency: slots(1), ..limits() });
        let throttled = response(429, RETRY_AFTER_5, Body::empty());
        bench.upstream.answer_after(SECOND, Ok(throttled));
        bench.upstream.answer_after(SECOND, Ok(body("first"))).status(200, &[]);
        for _each in 0..3 {
            bench.begin(get()).await;
        }
        assert_eq!(bench.failures().await, 0);
        assert_eq!(bench.sent(), [0, 6, 7]);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_for_a_pause_are_bounded_too() {
        let mut bench = bench(Limits { max_queue: 2, ..limits() });
        bench.upstream.status(429, RETRY_AFTER_5).status(200, &[]).status(200, &[]);
        drop(bench.send(get()).await);
        bench.begin(get()).await;
        bench.begin(get()).await;
        let refused = bench.send(get()).await.expect_err("two wait already");
        assert!(matches!(refused, Failure::Overloaded), "{refused:?}");
        assert_eq!(bench.failures().await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_the_rate_holds_no_slot() {
        let rate = Rate { count: NonZeroU32::MIN, per: SECOND * 10 };
        let mut bench = bench(Limits { concurrency: slots(1), rate: Some(rate), ..limits() });
        bench.upstream.status(200, &[]).status(200, &[]);
        drop(bench.send(get()).await);
        bench.begin(get()).await;
        let free = bench.gate.turns(get().caller).take(NonZeroU32::MIN);
        assert!(matches!(free, Taken::Slot(_)), "it waits for the rate alone");
        drop(free);
        assert_eq!(bench.failures().await, 0);
        assert_eq!(bench.sent(), [0, 10]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_gives_up_its_turn() {
        let mut bench = bench(limits());
        bench.upstream.status(429, RETRY_AFTER_5);
        drop(bench.send(get()).await);
        let waits = request(Method::GET, Body::empty());
        let client = waits.client.presence.clone();
        let leaves = async {
            tokio::time::advance(SECOND).await;
            client.leave();
        };
        let (result, ()) = tokio::join!(bench.send(waits), leaves);
        assert!(result.is_err());
        assert_eq!((bench.began.elapsed(), bench.sent().len()), (SECOND, 1));
    }
}
