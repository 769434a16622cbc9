//! The bytes of a connection: over TCP, or inside TLS that ends at a further proxy.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

use crate::upstream::ourselves::Call;

/// A connection to an upstream, or to a further proxy that leads there.
pub struct Line {
    way: Way,
    /// What came in one piece with a proxy's consent, and is the upstream's.
    ahead: Bytes,
}

enum Way {
    Tcp(Call),
    Tls(Box<TlsStream<Call>>),
}

impl Line {
    pub(super) fn tcp(tcp: Call) -> Self {
        Self { way: Way::Tcp(tcp), ahead: Bytes::new() }
    }

    pub(super) fn tls(tls: TlsStream<Call>) -> Self {
        Self { way: Way::Tls(Box::new(tls)), ahead: Bytes::new() }
    }

    /// Gives these bytes back, to be read first.
    pub(super) fn after(self, ahead: Bytes) -> Self {
        Self { ahead, ..self }
    }

    /// Waits until the upstream has said something, or ended.
    ///
    /// # Errors
    ///
    /// When the connection broke.
    ///
    /// # Cancel safety
    ///
    /// Nothing is read.
    pub async fn heard(&self) -> io::Result<()> {
        match &self.way {
            _ if !self.ahead.is_empty() => Ok(()),
            Way::Tcp(tcp) => tcp.heard().await,
            // What the proxy itself says in TLS counts too: better once too often.
            Way::Tls(tls) => tls.get_ref().0.heard().await,
        }
    }

    fn way(&mut self) -> Pin<&mut (dyn Both + '_)> {
        match &mut self.way {
            Way::Tcp(tcp) => Pin::new(tcp),
            Way::Tls(tls) => Pin::new(&mut **tls),
        }
    }
}

trait Both: AsyncRead + AsyncWrite + Unpin {}

impl<IO: AsyncRead + AsyncWrite + Unpin> Both for IO {}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let ahead = self.ahead.len().min(buf.remaining());
        if ahead > 0 {
            buf.put_slice(&self.ahead.copy_to_bytes(ahead));
            return Poll::Ready(Ok(()));
        }
        self.way().poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.way().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.way().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.way().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.way().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.way {
            Way::Tcp(tcp) => tcp.is_write_vectored(),
            Way::Tls(tls) => tls.is_write_vectored(),
        }
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if matches!(self.way, Way::Tcp(_)) { "tcp" } else { "tls" };
        f.debug_struct("Line").field("way", &way).finish_non_exhaustive()
    }
}
