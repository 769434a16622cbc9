//! A client's socket, and its place among the connections of its listener.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::metrics::Raised;

/// A socket that is counted, and takes a place, for as long as it is open.
///
/// The place goes with the socket and not with the task that accepted it: a
/// tunnel and a connection that switched its protocol outlive that task.
pub(super) struct Seated {
    tcp: TcpStream,
    fuse: Fuse,
    /// What the socket was told last.
    armed: bool,
    _place: Place,
}

/// Whether the end of the connection is the end of an answer that is under way.
///
/// A client of HTTP/1.0 knows no other end where the length is not known (RFC 9112,
/// section 6.3): what is cut, by us, by the upstream or by a `kill -9`, must not end as
/// what is whole does. While this is armed, a socket that closes resets its connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Fuse(Arc<AtomicBool>);

impl Fuse {
    pub(super) fn arm(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn disarm(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// One more in the gauge, one less under the cap.
pub(super) type Place = (Raised, OwnedSemaphorePermit);

impl Seated {
    pub(super) fn new(tcp: TcpStream, place: Place) -> Self {
        Self { tcp, fuse: Fuse::default(), armed: false, _place: place }
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    pub(super) fn fuse(&self) -> Fuse {
        self.fuse.clone()
    }

    /// Tells the socket, where that has changed, how it is to close.
    fn obey(&mut self) {
        let armed = self.fuse.0.load(Ordering::Relaxed);
        if armed != self.armed {
            self.armed = armed;
            let linger = armed.then_some(Duration::ZERO);
            if let Err(error) = set_socket_linger(&self.tcp, linger) {
                tracing::debug!(%error, "a socket does not take how it is to close");
            }
        }
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.obey();
    }
}

impl AsyncRead for Seated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Seated {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.obey();
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.obey();
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.obey();
        Pin::new(&mut self.tcp).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
}

impl fmt::Debug for Seated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seated").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}
