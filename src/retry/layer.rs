//! Asks the decisions and does the sending.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use http::uri::PathAndQuery;
use http::{HeaderMap, Method};
use tokio::time::{Instant, sleep};
use tower::{Layer, Service};

use crate::exchange::body::{Caps, Held, Room};
use crate::exchange::hint::{self, Hint};
use crate::exchange::trail::{Attempt, Attempting, Stop};
use crate::exchange::{
    BoxFuture, Chance, Client, Failure, Guard, Origin, Outcome, Request, RequestParts, Response,
    Standing, Traced, Trail, Upload, signature, take_ready,
};
use crate::failpoint::Failpoint;
use crate::metrics::RouteMetrics;
use crate::retry::budget::{Budget, Paid};
use crate::retry::decision::{Decision, Facts, decide, repeatable};
use crate::retry::glance::{self, Said, set_aside};
use crate::retry::outcome::{Classified, classify, held_back_by};
use crate::retry::policy::Policy;

/// Wraps a stage in [`Retry`].
#[derive(Clone, Debug)]
pub struct RetryLayer {
    shared: Arc<Shared>,
}

/// Sends a request through the inner stage until its answer is final.
#[derive(Clone, Debug)]
pub struct Retry<S> {
    shared: Arc<Shared>,
    inner: S,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) policy: Policy,
    pub(super) means: Means,
}

/// What a route's retries are made with.
#[derive(Clone, Debug)]
pub struct Means {
    /// What pays for them.
    pub budget: Budget,
    /// How much of a body is kept.
    pub caps: Caps,
    /// Where it is kept.
    pub room: Room,
    /// Where they are counted.
    pub metrics: RouteMetrics,
    /// What scatters their waits.
    pub chance: Chance,
    /// Whether decisions are counted and not carried out.
    pub observes: bool,
    /// Whether a download that breaks off goes on where it stopped.
    pub resumes: bool,
}

impl RetryLayer {
    /// Retries by `policy`, with what `means` it has.
    pub fn new(policy: Policy, means: Means) -> Self {
        Self { shared: Arc::new(Shared { policy, means }) }
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry { shared: self.shared.clone(), inner }
    }
}

impl<S> Service<Request> for Retry<S>
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
        let exchange = Exchange::new(self.shared.clone(), request);
        Box::pin(exchange.run(inner))
    }
}

/// One exchange on its way through its attempts.
pub(super) struct Exchange {
    pub(super) shared: Arc<Shared>,
    pub(super) parts: Parts,
    body: Held,
    /// Whether a copy of the body is kept. Where none is, it is not for want of room.
    pub(super) copies: bool,
    pub(super) made: u32,
    free_used: u32,
    ambiguous: bool,
    pub(super) waited: Duration,
    /// When the attempt under way began.
    pub(super) began: SystemTime,
}

/// What of a request is the same on each attempt.
pub(super) struct Parts {
    pub(super) method: Method,
    origin: Origin,
    pub(super) path: PathAndQuery,
    pub(super) headers: HeaderMap,
    pub(super) trail: Trail,
    pub(super) traced: Option<Traced>,
    client: Client,
    caller: [u8; 32],
    arrived: Instant,
    upload: Option<Arc<Upload>>,
    wants_upgrade: bool,
    off: bool,
    standing: Standing,
    guard: Option<Guard>,
}

impl Exchange {
    fn new(shared: Arc<Shared>, request: Request) -> Self {
        let request = *request;
        let once = request.wishes.single_attempt || request.wants_upgrade || shared.means.observes;
        let copies = !once && !shared.policy.attempts.is_single();
        let nothing = Caps { memory: 0, disk: 0 }; // nobody will want the copy
        let caps = if copies { shared.means.caps } else { nothing };
        let body = Held::new(request.body, caps, &shared.means.room);
        let parts = Parts {
            method: request.method,
            origin: request.origin,
            path: request.path,
            headers: request.headers,
            trail: request.trail,
            traced: request.traced,
            client: request.client,
            caller: request.caller,
            arrived: request.arrived,
            upload: request.upload,
            wants_upgrade: request.wants_upgrade,
            off: request.wishes.single_attempt || request.wants_upgrade,
            standing: request.standing,
            guard: request.guard,
        };
        let ambiguous = parts.standing.ambiguous_before;
        Self {
            shared,
            parts,
            body,
            copies,
            made: 0,
            free_used: 0,
            ambiguous,
            waited: Duration::ZERO,
            began: SystemTime::now(),
        }
    }

    async fn run<S>(mut self, mut inner: S) -> Result<Response, Failure>
    where
        S: Service<Request, Response = Response, Error = Failure> + Clone + Send + 'static,
        S::Future: Send,
    {
        let mut kept = None;
        loop {
            let request = self.attempt();
            let under_way = self.under_way();
            let result = inner.call(request).await;
            under_way.ended();
            let Some(attempt) = classify(&result, &self.shared.policy) else {
                return self.held_back(kept, result);
            };
            let (result, said) = self.note(attempt, result).await;
            self.credit(attempt, said);
            match self.decide(attempt, &result, said) {
                Decision::Pass => return self.passed(inner, result),
                Decision::Stop(stop) => return self.stop(stop, result),
                Decision::Retry { wait, asked, cost, reason } => {
                    if self.shared.means.observes {
                        self.shared.means.metrics.retry(reason, wait, asked);
                        return result;
                    }
                    let Some(paid) = self.pay(cost) else {
                        return self.stop(Stop::Budget, result);
                    };
                    self.shared.means.metrics.retry(reason, wait, asked);
                    self.parts.trail.another_follows();
                    let result = Box::pin(set_aside(result)).await;
                    if !self.wait(wait).await {
                        return result;
                    }
                    paid.spend();
                    Failpoint::BetweenAttempts.pass();
                    self.began = SystemTime::now();
                    kept = Some(result);
                }
            }
        }
    }

    /// The request as it goes out on this attempt.
    pub(super) fn attempt(&mut self) -> Request {
        let parts = &self.parts;
        let mut standing = parts.standing;
        let now = Instant::now();
        standing.fresh_connection =
            !repeatable(&parts.method, &parts.standing, &self.shared.policy, now);
        standing.outlives_client = self.outlives_client();
        let deadline = self.shared.policy.deadline;
        Box::new(RequestParts {
            method: parts.method.clone(),
            origin: parts.origin.clone(),
            path: parts.path.clone(),
            headers: parts.headers.clone(),
            body: self.body.reader(),
            trail: parts.trail.clone(),
            traced: parts.traced.clone(),
            client: parts.client.clone(),
            caller: parts.caller,
            arrived: parts.arrived,
            upload: parts.upload.clone(),
            wants_upgrade: parts.wants_upgrade,
            cut_at: deadline.cuts_attempts.then(|| parts.arrived + deadline.after),
            replayable: true,
            wait_until: Some(self.deadline()),
            wishes: crate::exchange::Wishes::default(),
            standing,
            guard: parts.guard.clone(),
        })
    }

    /// When no further attempt starts: the route's deadline, or the client's own. Once
    /// an attempt may have had an effect, the upstream's promise has to hold as well.
    fn deadline(&self) -> Instant {
        let policy = &self.shared.policy;
        let patience = hint::client_patience(&self.parts.headers, SystemTime::now());
        let after = policy.deadline.after;
        let deadline = self.parts.arrived + patience.map_or(after, |own| own.min(after));
        let harmless = self.parts.method.is_idempotent() || policy.repeat_unsafe;
        let promised = self.parts.standing.dedupes_until.filter(|_| self.ambiguous && !harmless);
        promised.map_or(deadline, |until| until.min(deadline))
    }

    /// Whether another attempt begins although the client hung up: it knows what to
    /// ask for, or an attempt that may have had an effect can be repeated to learn
    /// of it. What the client never sent whole cannot be sent on.
    fn outlives_client(&self) -> bool {
        let parts = &self.parts;
        let sent_whole = parts.upload.as_ref().is_none_or(|upload| upload.is_complete());
        let owed = || {
            let now = Instant::now();
            self.ambiguous && repeatable(&parts.method, &parts.standing, &self.shared.policy, now)
        };
        let wanted = parts.standing.client_knows_identity || owed();
        parts.standing.outlives_client && sent_whole && wanted
    }

    /// Notes an attempt, and what its answer's body says.
    pub(super) async fn note(
        &mut self,
        attempt: Classified,
        result: Result<Response, Failure>,
    ) -> (Result<Response, Failure>, Said) {
        let policy = &self.shared.policy;
        self.made += 1;
        self.shared.means.metrics.attempt(attempt.outcome.as_str());
        let (result, said) = if glance::is_wanted(policy, attempt, &result) {
            Box::pin(glance::read(policy, attempt, result)).await
        } else {
            (result, Said::default())
        };
        let (waited, at) = (std::mem::take(&mut self.waited), self.began);
        let (outcome, status) = (attempt.outcome, attempt.status);
        let did_nothing = attempt.did_nothing;
        self.ambiguous |= !did_nothing;
        if let Some(traced) = &self.parts.traced {
            traced.classified(outcome, waited);
        }
        self.parts.trail.with(|notes| {
            notes.attempts.push(Attempt { outcome, status, did_nothing, waited, at });
            (notes.says, notes.attempting) = (said.says, Attempting::Nothing);
        });
        (result, said)
    }

    /// Lets the budget earn by an exchange that needed no retry, and counts one that did.
    fn credit(&self, attempt: Classified, said: Said) {
        let good = attempt.outcome == Outcome::Done
            && attempt.status.is_some_and(|s| !s.is_server_error())
            && said.says.is_none();
        if good && self.made == 1 && !hint::is_sdk_retry(&self.parts.headers) {
            self.shared.means.budget.deposit();
        } else if self.made > 1
            && said.says.is_none()
            && attempt.status.is_some_and(|status| status.is_success())
        {
            self.shared.means.metrics.recovered();
        }
    }

    pub(super) fn decide(
        &self,
        attempt: Classified,
        result: &Result<Response, Failure>,
        said: Said,
    ) -> Decision {
        let settled = attempt.outcome == Outcome::Done
            && attempt.status.is_some_and(|s| s.is_success() || s.is_redirection());
        if settled {
            // The common case reads no header and no clock.
            return if said.permanent { Decision::Stop(Stop::Permanent) } else { Decision::Pass };
        }
        let (parts, policy) = (&self.parts, &self.shared.policy);
        let (now, wall) = (Instant::now(), SystemTime::now());
        let none = HeaderMap::new();
        let headers = result.as_ref().map_or(&none, |response| &response.headers);
        let hint = attempt.status.map_or(Hint::Absent, |status| hint::wait(status, headers, wall));
        let facts = Facts {
            attempt,
            made: self.made,
            free_used: self.free_used,
            hint,
            instructed: hint::instructed(headers),
            permanent: said.permanent,
            in_progress: said.in_progress,
            repeatable: repeatable(&parts.method, &parts.standing, policy, now),
            replayable: !self.copies || self.body.is_replayable(),
            signed: signature::signature(&parts.headers, parts.path.query(), wall),
            off: parts.off,
            sdk_retry: hint::is_sdk_retry(&parts.headers),
            now,
            deadline: self.deadline(),
        };
        decide(policy, &facts, self.shared.means.chance.unit())
    }

    pub(super) fn pay(&mut self, cost: crate::retry::budget::Cost) -> Option<Paid> {
        let (budget, now) = (&self.shared.means.budget, Instant::now());
        let receipt = budget.withdraw(cost, now);
        self.shared.means.metrics.budget(budget.whole_tokens(now));
        if cost == crate::retry::budget::Cost::Free {
            self.free_used += 1;
        }
        receipt.map(|receipt| Paid::with(budget, receipt))
    }

    /// Waits; `false` when the client left and nobody wants another attempt.
    pub(super) async fn wait(&mut self, wait: Duration) -> bool {
        self.waited = wait;
        if self.outlives_client() {
            sleep(wait).await;
            return true;
        }
        tokio::select! {
            () = sleep(wait) => true,
            () = self.parts.client.presence.gone() => false,
        }
    }

    /// Hands on what came of the attempts before, where there were any: it says
    /// more than that this one was held back before it was sent.
    fn held_back(
        &self,
        kept: Option<Result<Response, Failure>>,
        result: Result<Response, Failure>,
    ) -> Result<Response, Failure> {
        match kept {
            None => result,
            Some(kept) if self.parts.client.presence.is_gone() => kept,
            Some(kept) => self.stop(held_back_by(&result), kept),
        }
    }

    /// Hands on what came, and says why.
    pub(super) fn stop(
        &self,
        stop: Stop,
        result: Result<Response, Failure>,
    ) -> Result<Response, Failure> {
        self.shared.means.metrics.stopped(stop.as_str());
        if !self.shared.means.observes {
            self.parts.trail.with(|notes| notes.stop = Some(stop));
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use tokio::time::timeout;

    use super::*;
    use crate::exchange::tests::{
        Scripted, data, fed, full, headers, request, response, rest, streamed,
    };
    use crate::exchange::trail::Says;
    use crate::exchange::{Body, Condition, Pointer, Scalar, Wishes};
    use crate::metrics::Metrics;
    use crate::retry::budget::Terms;
    use crate::retry::policy::{Attempts, FailedWhen};
    use crate::retry::tests::policy;

    const SECOND: Duration = Duration::from_secs(1);
    const RETRY_AFTER_2: &[(&str, &str)] = &[("retry-after", "2")];

    /// A route that retries, and all that can be seen of it.
    struct Bench {
        retry: Retry<Scripted>,
        upstream: Scripted,
        metrics: Metrics,
        budget: Budget,
        trail: Trail,
    }

    fn bench(policy: Policy) -> Bench {
        bench_that(policy, |_means| ())
    }

    fn bench_that(policy: Policy, tuned: impl FnOnce(&mut Means)) -> Bench {
        let (metrics, upstream) = (Metrics::new(), Scripted::default());
        let budget = Budget::new(policy.budget, Instant::now());
        let mut means = Means {
            budget: budget.clone(),
            caps: Caps { memory: 1024, disk: 0 },
            room: Room::new(std::env::temp_dir(), 1024, 0),
            metrics: metrics.route("r"),
            chance: Chance::new([1; 32]),
            observes: false,
            resumes: false,
        };
        tuned(&mut means);
        let retry = RetryLayer::new(policy, means).layer(upstream.clone());
        Bench { retry, upstream, metrics, budget, trail: Trail::default() }
    }

    impl Bench {
        async fn send(&mut self, request: Request) -> Result<Response, Failure> {
            self.trail = request.trail.clone();
            self.retry.call(request).await
        }

        /// What came, how many attempts it took, and why it stopped.
        async fn outcome(&mut self, request: Request) -> (u16, usize, Option<Stop>) {
            let status = self.send(request).await.map_or(0, |response| response.status.as_u16());
            (status, self.upstream.calls().len(), self.stop())
        }

        fn stop(&self) -> Option<Stop> {
            self.trail.with(|notes| notes.stop)
        }

        fn outcomes(&self) -> Vec<Outcome> {
            self.trail.with(|notes| notes.attempts.iter().map(|attempt| attempt.outcome).collect())
        }

        /// Whether the metrics hold this line.
        fn counts(&self, series: &str) -> bool {
            self.metrics.text().contains(&format!("samekey_{series}"))
        }

        fn tokens(&self) -> u64 {
            self.budget.whole_tokens(Instant::now())
        }
    }

    fn post(body: Body) -> Request {
        request(Method::POST, body)
    }

    fn put(body: Body) -> Request {
        request(Method::PUT, body)
    }

    fn broke() -> Result<Response, Failure> {
        Err(Failure::Protocol { detail: "reset".to_owned(), broken: true })
    }

    fn unreachable() -> Result<Response, Failure> {
        Err(Failure::Unreachable { detail: "refused".to_owned(), kind: "connection_refused" })
    }

    fn held_back() -> Result<Response, Failure> {
        Err(Failure::LimitWait { retry_after: SECOND })
    }

    fn poor() -> Policy {
        Policy { budget: Terms { ratio_milli: 0, per_second: 0, burst: 0 }, ..policy() }
    }

    fn condition(pointer: &str, value: Scalar) -> Condition {
        let pointer = Pointer::parse(pointer).expect("a pointer");
        Condition { pointer, values: vec![value] }
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_request_is_sent_again_whole_once_the_hint_has_passed() {
        let mut bench = bench(policy());
        bench.upstream.status(429, RETRY_AFTER_2).status(200, &[]);
        let answer = bench.send(post(streamed([data("ab"), data("cd")]))).await.expect("it came");
        assert_eq!(answer.status, 200);
        let calls = bench.upstream.calls();
        assert!(calls.iter().all(|call| call.body.as_deref() == Some(b"abcd")));
        let waited = calls[1].at - calls[0].at;
        assert!((SECOND * 2..SECOND * 3).contains(&waited), "{waited:?}");
        assert_eq!(bench.outcomes(), [Outcome::Throttled, Outcome::Done]);
        let noted = bench.trail.with(|notes| notes.attempts[1].waited);
        assert!(noted >= SECOND * 2 && noted <= waited);
        assert_eq!(bench.stop(), None);
        for series in [
            r#"attempts_total{outcome="throttled",route="r"} 1"#,
            r#"attempts_total{outcome="done",route="r"} 1"#,
            r#"retries_total{reason="status_429",route="r"} 1"#,
            r#"retry_recovered_total{route="r"} 1"#,
            r#"retry_wait_seconds_count{route="r",source="server"} 1"#,
        ] {
            assert!(bench.counts(series), "{series}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_tried_again_says_why() {
        let off = Wishes { single_attempt: true, ..Wishes::default() };
        let attempts = Attempts::AtMost(std::num::NonZeroU32::MIN);
        let once = Policy { attempts, ..policy() };
        let stream = || streamed([data("ab")]);
        for (policy, request, status, fields, wanted) in [
            (policy(), post(stream()), 500, &[][..], Some(Stop::Unsafe)),
            (policy(), put(stream()), 501, &[], None),
            (
                policy(),
                put(stream()),
                503,
                &[("x-should-retry", "false")],
                Some(Stop::UpstreamSaidNo),
            ),
            (policy(), put(stream()), 429, &[("retry-after", "121")], Some(Stop::RetryAfter)),
            (
                policy(),
                Box::new(RequestParts { wishes: off, ..*put(stream()) }),
                503,
                &[],
                Some(Stop::Off),
            ),
            (once, put(stream()), 503, &[], Some(Stop::Attempts)),
            (poor(), put(stream()), 503, &[], Some(Stop::Budget)),
            (
                policy(),
                put(streamed([(); 80].map(|()| data("a longer body ")))),
                503,
                &[],
                Some(Stop::Body),
            ),
        ] {
            let mut bench = bench(policy);
            bench.upstream.status(status, fields);
            assert_eq!(bench.outcome(request).await, (status, 1, wanted), "{fields:?}");
            let Some(stop) = wanted else { continue };
            let series =
                format!(r#"retry_stopped_total{{reason="{}",route="r"}} 1"#, stop.as_str());
            assert!(bench.counts(&series), "{series}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_end_and_the_last_answer_is_handed_on_as_it_came() {
        let mut bench = bench(policy());
        for text in ["one", "two", "three", "four"] {
            bench.upstream.answer(Ok(response(503, &[("x-nth", text)], full(text))));
        }
        let mut answer = bench.send(put(full("ab"))).await.expect("it came");
        assert_eq!(rest(&mut answer.body).await, "four");
        assert_eq!(answer.headers["x-nth"], "four");
        assert_eq!((bench.stop(), bench.outcomes().len()), (Some(Stop::Attempts), 4));
        assert!(!bench.counts(r#"retry_recovered_total{route="r"} 1"#));
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_first_retry_of_what_was_never_sent_is_free() {
        let mut bench = bench(poor());
        bench.upstream.answer(unreachable()).answer(unreachable());
        assert_eq!(bench.outcome(post(full("ab"))).await, (0, 2, Some(Stop::Budget)));
        bench.upstream.answer(unreachable()).status(200, &[]);
        assert_eq!(bench.outcome(post(full("ab"))).await, (200, 4, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_attempt_that_succeeds_earns_unless_it_is_an_sdks_retry() {
        let terms = Terms { ratio_milli: 1000, per_second: 0, burst: 2 };
        for (status, sdk, earned) in
            [(200, "0", 1), (204, "0", 1), (200, "1", 0), (501, "0", 0), (500, "0", 0)]
        {
            let mut bench = bench(Policy { budget: terms, ..policy() });
            let spent = bench.budget.withdraw(crate::retry::budget::Cost::Two, Instant::now());
            assert!(spent.is_some());
            bench.upstream.status(status, &[]);
            let fields = headers(&[("x-stainless-retry-count", sdk)]);
            drop(
                bench
                    .send(Box::new(RequestParts { headers: fields, ..*post(Body::empty()) }))
                    .await,
            );
            assert_eq!(bench.tokens(), earned, "{status} {sdk}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_that_is_dropped_in_its_wait_is_refunded() {
        let mut bench = bench(policy());
        bench.upstream.status(503, &[("retry-after", "60")]);
        let before = bench.tokens();
        let waiting = bench.send(put(full("ab")));
        assert!(timeout(SECOND, waiting).await.is_err());
        assert_eq!(bench.tokens(), before);
        assert_eq!(bench.upstream.calls().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_left_is_waited_for_only_where_the_answer_is_of_use() {
        let throttled = || Ok(response(429, &[("retry-after", "60")], Body::empty()));
        let holds = Standing { outlives_client: true, ..Standing::default() };
        let knows = Standing { client_knows_identity: true, ..holds };
        for (request, first, standing, wanted) in [
            (post(full("ab")), throttled(), holds, (429, 1)),
            (post(full("ab")), throttled(), knows, (200, 2)),
            (put(full("ab")), throttled(), holds, (429, 1)),
            (put(full("ab")), broke(), holds, (200, 2)), // owed: it may have landed
            (put(full("ab")), throttled(), Standing { ambiguous_before: true, ..holds }, (200, 2)),
            (post(full("ab")), throttled(), Standing { ambiguous_before: true, ..holds }, (429, 1)),
            (post(full("ab")), unreachable(), holds, (0, 1)),
        ] {
            let mut bench = bench(policy());
            bench.upstream.answer(first).status(200, &[]);
            let (before, started) = (bench.tokens(), Instant::now());
            let client = request.client.presence.clone();
            client.leave();
            let request = Box::new(RequestParts { standing, ..*request });
            let (status, calls, stop) = bench.outcome(request).await;
            assert_eq!((status, calls), wanted, "{standing:?}");
            assert_eq!(stop, None);
            if calls == 1 {
                assert_eq!(started.elapsed(), Duration::ZERO);
                assert_eq!(bench.tokens(), before, "what was not sent is not paid for");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_during_the_wait_ends_it() {
        let mut bench = bench(policy());
        bench.upstream.status(429, &[("retry-after", "60")]);
        let standing = Standing { outlives_client: true, ..Standing::default() };
        let request = Box::new(RequestParts { standing, ..*post(full("ab")) });
        let (client, started) = (request.client.presence.clone(), Instant::now());
        let leaves = async {
            tokio::time::advance(SECOND).await;
            client.leave();
        };
        let (outcome, ()) = tokio::join!(bench.outcome(request), leaves);
        assert_eq!(outcome, (429, 1, None));
        assert_eq!(started.elapsed(), SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_that_is_held_back_leaves_what_came_before() {
        let mut bench = bench(policy());
        bench.upstream.answer(Ok(response(429, &[], full("slow down")))).answer(held_back());
        let mut answer = bench.send(post(full("ab"))).await.expect("the first answer is kept");
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(rest(&mut answer.body).await, "slow down");
        assert_eq!((bench.stop(), bench.outcomes().len()), (Some(Stop::Deadline), 1));

        let lost = Err(Failure::StoreUnavailable("another replica took the claim over"));
        bench.upstream.answer(Ok(response(429, &[], full("slow down")))).answer(lost);
        let answer = bench.send(post(full("ab"))).await.expect("the first answer");
        assert_eq!((answer.status.as_u16(), bench.stop()), (429, Some(Stop::Unsafe)));

        // That the outcome is not known says more than that nothing was sent now.
        bench.upstream.answer(broke()).answer(held_back());
        let failure = bench.send(put(full("ab"))).await.expect_err("nothing came");
        assert!(matches!(failure, Failure::Protocol { .. }), "{failure:?}");
        assert_eq!(bench.outcomes(), [Outcome::Ambiguous]);

        bench.upstream.answer(held_back());
        let failure = bench.send(post(full("ab"))).await.expect_err("it never began");
        assert!(matches!(failure, Failure::LimitWait { .. }), "{failure:?}");
        assert_eq!((bench.stop(), bench.outcomes().len()), (None, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_too_long_to_be_put_aside_is_not_passed_for_whole() {
        let mut bench = bench(policy());
        let (_upstream, endless) = fed();
        bench.upstream.answer(Ok(response(429, &[], endless))).answer(held_back());
        let failure = bench.send(post(full("ab"))).await.expect_err("its body never ended");
        assert!(matches!(failure, Failure::Protocol { .. }), "{failure:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_observed_route_counts_and_sends_once() {
        let stream = || streamed([data("ab")]);
        for (request, series) in [
            (put(stream()), r#"retries_total{reason="status_5xx",route="r"} 1"#),
            (post(stream()), r#"retry_stopped_total{reason="unsafe",route="r"} 1"#),
        ] {
            let mut bench = bench_that(policy(), |means| means.observes = true);
            bench.upstream.status(503, &[]);
            let before = bench.tokens();
            assert_eq!(bench.outcome(request).await, (503, 1, None));
            assert!(bench.counts(series), "{series}");
            assert_eq!(bench.tokens(), before);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_exchange_that_failed_first_is_recovered() {
        for (answers, wanted) in [(&[200][..], 0), (&[429, 200], 1), (&[429, 400], 0), (&[400], 0)]
        {
            let mut bench = bench(policy());
            for status in answers {
                bench.upstream.status(*status, &[]);
            }
            drop(bench.send(post(full("ab"))).await);
            let series = format!(r#"retry_recovered_total{{route="r"}} {wanted}"#);
            assert!(bench.counts(&series), "{answers:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_believed_by_its_body_where_the_route_says_so() {
        let never = condition("/error/code", Scalar::String("insufficient_quota".to_owned()));
        let failed = condition("/success", Scalar::Bool(false));
        let failed_when = vec![FailedWhen { condition: failed, means: Says::Refused }];
        let policy = Policy { never_when: vec![never], failed_when, ..policy() };
        let json = &[("content-type", "application/problem+json")][..];
        let quota = r#"{"error":{"code":"insufficient_quota"}}"#;
        let busy = r#"{"error":{"code":"busy"}}"#;
        let both = r#"{"success":false,"error":{"code":"insufficient_quota"}}"#;
        let (no, yes) = (r#"{"success":false}"#, r#"{"success":true}"#);
        for (status, fields, text, calls, stop, says) in [
            (429, json, quota, 1, Some(Stop::Permanent), None),
            (429, &[], quota, 2, None, None),
            (429, json, busy, 2, None, None),
            (429, json, "{", 2, None, None),
            (200, json, no, 1, None, Some(Says::Refused)),
            (200, json, yes, 1, None, None),
            (200, &[], no, 1, None, None),
            (200, json, quota, 1, None, None), // nothing says that it failed
            (200, json, both, 1, Some(Stop::Permanent), Some(Says::Refused)),
            (302, json, no, 1, None, Some(Says::Refused)),
            (400, json, quota, 1, None, None), // no retry was due
            (400, json, no, 1, None, None),    // the status says it already
        ] {
            let mut bench = bench(policy.clone());
            bench.upstream.answer(Ok(response(status, fields, streamed([data(text)]))));
            bench.upstream.status(204, &[]);
            let mut answer = bench.send(post(full("ab"))).await.expect("it came");
            assert_eq!((bench.outcomes().len(), bench.stop()), (calls, stop), "{status} {text}");
            assert_eq!(bench.trail.with(|notes| notes.says), says, "{status} {text}");
            let passed_on = rest(&mut answer.body).await;
            assert!(calls == 2 || passed_on == text, "{passed_on}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_upstream_is_waited_for_where_its_body_says_so() {
        let running = condition("/error/code", Scalar::String("request_in_progress".to_owned()));
        let policy = Policy { in_progress_when: vec![running], ..policy() };
        let until = Some(Instant::now() + Duration::from_hours(1));
        let promised = Standing { dedupes_until: until, ..Standing::default() };
        let json = &[("content-type", "application/json"), ("retry-after", "2")][..];
        let running = r#"{"error":{"code":"request_in_progress"}}"#;
        let reused = r#"{"error":{"code":"idempotency_key_reuse"}}"#;
        for (standing, fields, text, wanted) in [
            (promised, json, running, (200, 2, None)),
            (promised, json, reused, (409, 1, None)),
            (promised, &[], running, (409, 1, None)),
            (Standing::default(), json, running, (409, 1, Some(Stop::Unsafe))),
        ] {
            let mut bench = bench(policy.clone());
            bench.upstream.answer(Ok(response(409, fields, streamed([data(text)]))));
            bench.upstream.status(200, &[]);
            let started = Instant::now();
            let request = Box::new(RequestParts { standing, ..*post(full("ab")) });
            assert_eq!(bench.outcome(request).await, wanted, "{standing:?} {text}");
            assert!(wanted.1 == 1 || started.elapsed() >= Duration::from_secs(2), "as it asked");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_clients_own_patience_is_a_deadline() {
        for (fields, wanted) in [
            (&[][..], (200, 2, None)),
            (&[("x-stainless-timeout", "60")], (200, 2, None)),
            (&[("x-stainless-timeout", "2")], (429, 1, Some(Stop::Deadline))),
        ] {
            let mut bench = bench(policy());
            bench.upstream.status(429, RETRY_AFTER_2).status(200, &[]);
            let started = Instant::now();
            let request = Box::new(RequestParts { headers: headers(fields), ..*post(full("ab")) });
            assert_eq!(bench.outcome(request).await, wanted, "{fields:?}");
            assert!(wanted.1 == 2 || started.elapsed() == Duration::ZERO, "it never waits in vain");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_attempt_follows_an_ambiguous_one_once_the_promise_is_over() {
        let broke = || Failure::Protocol { detail: String::new(), broken: true };
        let gone = || Failure::Unreachable { detail: String::new(), kind: "dns_error" };
        for (promise, wanted) in [(SECOND, 2), (SECOND * 10, 3)] {
            let throttled = (429, RETRY_AFTER_2);
            let mut bench = bench(policy());
            bench.upstream.answer(Err(broke())).status(throttled.0, throttled.1).status(200, &[]);
            let until = Some(Instant::now() + promise);
            let standing = Standing { dedupes_until: until, ..Standing::default() };
            let request = Box::new(RequestParts { standing, ..*post(full("ab")) });
            let stop = (wanted == 2).then_some(Stop::Deadline);
            let status = if wanted == 2 { 429 } else { 200 };
            assert_eq!(bench.outcome(request).await, (status, wanted, stop), "{promise:?}");
        }
        // What never left is free to go where nothing was ambiguous before.
        let mut bench = bench(policy());
        bench.upstream.answer(Err(gone())).status(200, &[]);
        let standing = Standing { dedupes_until: Some(Instant::now()), ..Standing::default() };
        let request = Box::new(RequestParts { standing, ..*post(full("ab")) });
        assert_eq!(bench.outcome(request).await, (200, 2, None));
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_not_be_repeated_asks_for_a_fresh_connection() {
        let promised =
            Standing { dedupes_until: Some(Instant::now() + SECOND), ..Standing::default() };
        for (request, fresh) in [
            (post(full("ab")), true),
            (put(full("ab")), false),
            (Box::new(RequestParts { standing: promised, ..*post(full("ab")) }), false),
        ] {
            let mut bench = bench(policy());
            bench.upstream.status(200, &[]);
            drop(bench.send(request).await);
            assert_eq!(bench.upstream.calls()[0].standing.fresh_connection, fresh);
        }
    }
}
