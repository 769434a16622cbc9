//! An exchange that is given up at the end of the process, where nothing of it is under way.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio_util::sync::CancellationToken;

use crate::exchange::trail::Trail;
use crate::exchange::{Failure, Response};

/// Runs an exchange until it ends or, once it is cut, until all that can have been sent is
/// among its attempts: those say how its claim ends.
///
/// A wait, a queue and a pause end so (`design.md`, section 3: RELEASED if nothing was sent);
/// what is on a connection goes on for as long as the process does.
///
/// # Errors
///
/// Those of the exchange; [`Failure::ClientGone`] where it was cut, as its connection is.
pub(super) async fn until_cut(
    exchange: impl Future<Output = Result<Response, Failure>>,
    (cut, trail): (CancellationToken, Trail),
) -> Result<Response, Failure> {
    let (mut exchange, mut cut) = (pin!(exchange), pin!(cut.cancelled_owned()));
    poll_fn(|cx| match exchange.as_mut().poll(cx) {
        Poll::Pending if cut.as_mut().poll(cx).is_ready() && trail.is_at_rest() => {
            Poll::Ready(Err(Failure::ClientGone))
        }
        ended => ended,
    })
    .await
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::time::{Duration, timeout};

    use super::*;
    use crate::exchange::trail::Attempting;

    /// An exchange that was cut: whether it ended.
    async fn ended(
        exchange: impl Future<Output = Result<Response, Failure>>,
        trail: Trail,
    ) -> bool {
        let cut = CancellationToken::new();
        let cutting = async {
            tokio::task::yield_now().await;
            cut.cancel();
            std::future::pending::<()>().await;
        };
        let exchange = until_cut(exchange, (cut.clone(), trail));
        let both = async {
            tokio::select! { result = exchange => result, () = cutting => unreachable!() }
        };
        let ended = timeout(Duration::from_mins(1), both).await;
        assert!(matches!(ended, Err(_) | Ok(Err(Failure::ClientGone))), "{ended:?}");
        ended.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_on_a_connection_goes_on_and_what_waits_is_given_up() {
        for what in [Attempting::Nothing, Attempting::UnderWay] {
            let trail = Trail::default();
            trail.attempting(what);
            assert_eq!(ended(std::future::pending(), trail).await, what == Attempting::Nothing);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_ends_after_the_cut_is_the_last() {
        let trail = Trail::default();
        trail.attempting(Attempting::UnderWay);
        let (noted, (ends, attempt)) = (trail.clone(), oneshot::channel::<()>());
        let exchange = async move {
            attempt.await.unwrap_or_default();
            noted.attempting(Attempting::Nothing);
            std::future::pending().await // for the next one
        };
        let answered = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            ends.send(()).unwrap_or_default();
        };
        assert!(tokio::join!(ended(exchange, trail), answered).0);
    }
}
