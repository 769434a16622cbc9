//! Exchanges, told as they end: server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::{MethodRouter, get};
use futures_util::stream::unfold;
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::admin::Desk;
use crate::admin::api::problem;
use crate::admin::shown::Exchange;
use crate::journal::ledger::Entry;

/// Tells every reader until draining begins.
pub(super) fn route() -> MethodRouter<Desk> {
    let seats = Arc::new(Semaphore::new(READERS_MAX));
    get(move |State(desk): State<Desk>| async move {
        let Ok(seat) = seats.try_acquire_owned() else {
            let detail = format!("{READERS_MAX} readers are told already");
            return problem(StatusCode::SERVICE_UNAVAILABLE, "overloaded", &detail);
        };
        let reader = Reader { ended: desk.books.ended.subscribe(), draining: desk.leaving, seat };
        let events = unfold(reader, |mut reader| async move {
            let event = reader.next().await?;
            Some((Ok::<_, Infallible>(event), reader))
        });
        Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response()
    })
}

struct Reader {
    ended: Receiver<Arc<Entry>>,
    draining: CancellationToken,
    /// Free again once the reader has left.
    #[expect(dead_code, reason = "it is held, not read")]
    seat: OwnedSemaphorePermit,
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        let told = tokio::select! {
            biased;
            () = self.draining.cancelled() => return None,
            told = self.ended.recv() => told,
        };
        match told {
            Ok(entry) => Some(event("exchange", &Exchange::from(entry.as_ref()))),
            Err(RecvError::Lagged(missed)) => Some(event("lagged", &json!({"missed": missed}))),
            Err(RecvError::Closed) => None,
        }
    }
}

fn event(kind: &str, what: &impl serde::Serialize) -> Event {
    // JSON escapes line ends, which would end the event.
    Event::default().event(kind).data(serde_json::to_string(what).unwrap_or_default())
}

/// Each is a connection and a task.
const READERS_MAX: usize = 16;
/// Shorter than what proxies and NATs forget a silent connection after.
const HEARTBEAT: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::extract::Request;
    use axum::response::Response;
    use http_body_util::BodyExt as _;
    use tokio::sync::broadcast;
    use tower::Service as _;

    use super::*;
    use crate::admin::Ended;
    use crate::admin::books::tests::desk;
    use crate::admin::shown::tests::entry;
    use crate::journal::State;

    /// The events of a desk that knows nothing else.
    fn router() -> (Router, Ended, CancellationToken) {
        let (ended, _nobody) = broadcast::channel(4);
        let desk = desk(ended.clone());
        let draining = desk.leaving.clone();
        (Router::new().route("/events", route()).with_state(desk), ended, draining)
    }

    async fn listen(router: &mut Router) -> Response {
        let request = Request::get("/events").body(Body::empty()).expect("a request");
        router.call(request).await.expect("an answer")
    }

    /// What comes next; nothing at the end.
    async fn next(response: &mut Response) -> String {
        let frame = response.body_mut().frame().await;
        let data = frame.map(|frame| frame.expect("it is whole").into_data().expect("data"));
        String::from_utf8(data.unwrap_or_default().to_vec()).expect("text")
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_is_told_of_each_end_until_draining_begins() {
        let (mut router, ended, draining) = router();
        let mut reader = listen(&mut router).await;
        assert_eq!(reader.headers()["content-type"], "text/event-stream");
        assert_eq!(next(&mut reader).await, ":\n\n", "a sign of life after 15 seconds");
        ended.send(Arc::new(entry(1_000, Some("k"), State::Unknown))).expect("it is heard");
        let event = next(&mut reader).await;
        let data = event.strip_prefix("event: exchange\ndata: ").expect("an event");
        let told: Exchange = serde_json::from_str(data.trim_end()).expect("an exchange");
        assert_eq!(told, Exchange::from(&entry(1_000, Some("k"), State::Unknown)));
        for seq in 1..=6 {
            ended.send(Arc::new(entry(seq, None, State::Completed))).expect("it is heard");
        }
        assert_eq!(next(&mut reader).await, "event: lagged\ndata: {\"missed\":2}\n\n");
        assert!(next(&mut reader).await.contains(r#""id":"000000000000300000007""#));
        draining.cancel();
        assert_eq!(next(&mut reader).await, "");
    }

    #[tokio::test]
    async fn sixteen_are_told_and_no_more_until_one_leaves() {
        let (mut router, _ended, _draining) = router();
        let mut readers = Vec::new();
        for _ in 0..16 {
            readers.push(listen(&mut router).await);
        }
        assert!(readers.iter().all(|reader| reader.status() == 200));
        assert_eq!(listen(&mut router).await.status(), 503);
        readers.pop();
        assert_eq!(listen(&mut router).await.status(), 200);
    }
}
