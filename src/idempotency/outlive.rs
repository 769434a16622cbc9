//! An exchange that goes on when its client hangs up.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio_util::task::TaskTracker;

use crate::exchange::trail::Presence;
use crate::exchange::{BoxFuture, Failure, Response};

/// Runs in its client's place until that hangs up, and then on its own.
///
/// Nothing is spawned while the client waits: only a dropped future moves.
pub(super) struct Outlive {
    exchange: Option<BoxFuture<Result<Response, Failure>>>,
    client: Presence,
    tasks: TaskTracker,
}

impl Outlive {
    pub(super) fn new(
        exchange: BoxFuture<Result<Response, Failure>>,
        client: Presence,
        tasks: TaskTracker,
    ) -> Self {
        Self { exchange: Some(exchange), client, tasks }
    }
}

impl Future for Outlive {
    type Output = Result<Response, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(exchange) = self.exchange.as_mut() else { return Poll::Pending };
        let result = std::task::ready!(exchange.as_mut().poll(cx));
        self.exchange = None;
        Poll::Ready(result)
    }
}

impl Drop for Outlive {
    fn drop(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            self.client.leave();
            // The response's body reads itself to its end when it is dropped.
            self.tasks.spawn(async move { drop(exchange.await) });
        }
    }
}
