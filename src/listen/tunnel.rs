//! Bytes copied untouched, and counted.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::metrics::Metrics;

/// Copies both ways until both sides have ended; a half-closed side stays open
/// for what the other still sends.
pub(super) async fn join<IO, UP>(client: IO, upstream: UP, metrics: &Metrics)
where
    IO: AsyncRead + AsyncWrite + Unpin,
    UP: AsyncRead + AsyncWrite + Unpin,
{
    metrics.tunnel();
    let (up, down) = metrics.tunnel_bytes();
    let mut client = Counted { io: client, read: up };
    let mut upstream = Counted { io: upstream, read: down };
    let copied =
        tokio::io::copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER).await;
    if let Err(error) = copied {
        tracing::debug!(%error, "a tunnel broke off");
    }
}

/// A stream whose bytes are counted as they are read.
struct Counted<IO> {
    io: IO,
    read: IntCounter,
}

impl<IO: AsyncRead + Unpin> AsyncRead for Counted<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.read.inc_by((buf.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Counted<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// 64 KiB: 1.17 GB/s through one core in the tunnel benchmark.
const BUFFER: usize = 64 * 1024;
