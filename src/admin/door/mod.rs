//! Who is let in at the admin listener: so many connections, each of which asks in time,
//! and takes its answers in time.

mod taken;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use taken::Taken;

/// Whether a caller is on this machine.
pub(super) fn is_near(peer: SocketAddr) -> bool {
    peer.ip().to_canonical().is_loopback()
}

/// Who gets in.
pub(super) struct Door {
    /// How many connections there may be at one time.
    pub(super) connections: u32,
    /// Who has seats that others cannot take.
    pub(super) near: fn(SocketAddr) -> bool,
}

impl Door {
    /// Accepts until it is closed, and returns when all that was let in has ended.
    pub(super) async fn keep(self, socket: TcpListener, app: Router, closing: CancellationToken) {
        let (guests, seats) = (TaskTracker::new(), Seats::new(self.connections));
        let mut warned = None;
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = closing.cancelled() => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, mostly: trying at once would only spin.
                    tracing::warn!(%error, "an admin connection could not be accepted");
                    sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            let Some(seat) = seats.take((self.near)(peer)) else {
                warn_sometimes(&mut warned, peer);
                continue;
            };
            let (app, closing) = (app.clone(), closing.clone());
            guests.spawn(async move {
                let _seat = seat;
                attend(stream, peer, app, closing).await;
            });
        }
        drop(socket);
        guests.close();
        guests.wait().await;
    }
}

fn warn_sometimes(warned: &mut Option<Instant>, peer: SocketAddr) {
    if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
        *warned = Some(Instant::now());
        tracing::warn!(%peer, "an admin connection was refused: admin.max_connections is reached");
    }
}

/// Those of the admin listener; the last few are for callers on this machine.
struct Seats {
    all: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

/// One of them; dropped, it is free.
struct Seat {
    _one: OwnedSemaphorePermit,
    _of_strangers: Option<OwnedSemaphorePermit>,
}

impl Seats {
    fn new(connections: u32) -> Self {
        let seats = |count: u32| Arc::new(Semaphore::new(count as usize));
        Self { all: seats(connections), strangers: seats(connections.saturating_sub(KEPT)) }
    }

    fn take(&self, near: bool) -> Option<Seat> {
        let of_strangers =
            if near { None } else { Some(self.strangers.clone().try_acquire_owned().ok()?) };
        let one = self.all.clone().try_acquire_owned().ok()?;
        Some(Seat { _one: one, _of_strangers: of_strangers })
    }
}

async fn attend(stream: TcpStream, peer: SocketAddr, app: Router, closing: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "an admin connection ended before it began");
        return;
    }
    if let Err(error) = serve(stream, peer, app, closing).await {
        tracing::debug!(%error, %peer, "an admin connection broke off");
    }
}

/// Serves one connection until it ends, is silent or does not read for too long, or the
/// listener closes and its answer is out.
async fn serve(
    io: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    app: Router,
    closing: CancellationToken,
) -> hyper::Result<()> {
    let asked = AtomicBool::new(false);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        let (mut app, mut request) = (app.clone(), request.map(Body::new));
        request.extensions_mut().insert(ConnectInfo(peer));
        async move { app.call(request).await }
    });
    let mut builder = http1::Builder::new();
    // hyper counts from the last answer on: it is the limit of a pause, and of a later head.
    builder.timer(TokioTimer::new()).header_read_timeout(IDLE);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(Taken::new(io)), service));
    let silent = async {
        sleep(FIRST_HEAD).await;
        if asked.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = silent => Ok(()),
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

/// Seats that only callers on this machine may take: for its probes, and `samekey ledger`.
const KEPT: u32 = 16;
/// How long a connection may take to ask anything.
const FIRST_HEAD: Duration = Duration::from_secs(10);
/// How long it may wait after an answer: longer than the pause between two scrapes, mostly.
const IDLE: Duration = Duration::from_secs(75);
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
const WARN_EVERY: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests;
