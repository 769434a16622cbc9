//! Polls of one job, under a paused clock and an upstream with a script.

mod joining;
mod places;
mod serving;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Method;
use tokio_util::task::TaskTracker;
use tower::{Layer as _, Service as _};

use super::*;
use crate::exchange::tests::{Scripted, full, headers, request, response, rest};
use crate::exchange::{Body, Failure, Pointer, Response, Scalar, Stop};
use crate::metrics::Metrics;

const SECOND: Duration = Duration::from_secs(1);

/// A route's polls, and the upstream that they would reach.
struct Stage {
    upstream: Scripted,
    polling: Polling<Scripted>,
    tasks: TaskTracker,
    metrics: Metrics,
    refused: Arc<AtomicBool>,
}

/// A board with room for all that one test has.
fn board() -> Board {
    Board::new(Most { jobs: 100, bytes: 1 << 20 })
}

/// What a client got: status, body, and how it came here.
type Got = (u16, String, &'static str);

impl Stage {
    fn new(rules: Rules) -> Self {
        Self::changed(rules, |_| {})
    }

    fn changed(rules: Rules, change: impl FnOnce(&mut Terms)) -> Self {
        let (upstream, tasks, metrics) = (Scripted::default(), TaskTracker::new(), Metrics::new());
        let refused = Arc::new(AtomicBool::new(false));
        let asked = refused.clone();
        let mut terms = Terms {
            route: "r".to_owned(),
            rules,
            hint_max: SECOND * 60,
            deadline: SECOND * 300,
            observes: false,
            board: board(),
            refused: Refused::new(move |_, _| asked.load(Ordering::Relaxed)),
            tasks: tasks.clone(),
            metrics: metrics.polls("r"),
        };
        change(&mut terms);
        let polling = PollingLayer::new(Some(terms)).layer(upstream.clone());
        Self { upstream, polling, tasks, metrics, refused }
    }

    async fn call(
        &self,
        caller: u8,
        fields: &[(&'static str, &str)],
    ) -> (Result<Response, Failure>, &'static str, Option<Stop>) {
        let mut request = request(Method::GET, Body::empty());
        request.caller = [caller; 32];
        request.headers = headers(fields);
        let trail = request.trail.clone();
        let result = self.polling.clone().call(request).await;
        let (replay, stop) = trail.with(|notes| (notes.replay, notes.stop));
        (result, replay.map_or("", crate::exchange::trail::Replay::as_str), stop)
    }

    async fn get_with(&self, caller: u8, fields: &[(&'static str, &str)]) -> Got {
        let (result, replay, _) = self.call(caller, fields).await;
        let mut response = result.expect("an answer");
        (response.status.as_u16(), rest(&mut response.body).await, replay)
    }

    async fn get(&self) -> Got {
        self.get_with(7, &[]).await
    }

    /// The upstream will answer this after a second.
    fn slow(&self, status: u16, body: &'static str) {
        self.upstream.answer_after(SECOND, Ok(response(status, &[], full(body))));
    }

    /// The upstream will answer this at once, as JSON.
    fn says(&self, status: u16, fields: &[(&'static str, &str)], body: &'static str) {
        let mut answer = response(status, fields, full(body));
        answer.headers.insert("content-type", "application/json".parse().expect("a value"));
        self.upstream.answer(Ok(answer));
    }

    fn sent(&self) -> usize {
        self.upstream.calls().len()
    }

    fn counted(&self, event: &str) -> bool {
        let series = format!("samekey_polls_total{{event=\"{event}\",route=\"r\"}} ");
        let text = self.metrics.text();
        text.lines().any(|line| line.strip_prefix(&series).is_some_and(|value| value != "0"))
    }
}

fn got(status: u16, body: &str, replay: &'static str) -> Got {
    (status, body.to_owned(), replay)
}

fn spaced(seconds: u64) -> Rules {
    Rules { interval: Some(Duration::from_secs(seconds)), terminal: None }
}

fn terminal(seconds: u64) -> Rules {
    let condition = crate::exchange::Condition {
        pointer: Pointer::parse("/status").expect("a pointer"),
        values: vec![Scalar::String("done".to_owned())],
    };
    let terminal = Terminal { condition, lasts: Duration::from_secs(seconds) };
    Rules { interval: None, terminal: Some(terminal) }
}
