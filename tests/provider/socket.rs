//! A connection that can be ended in every way TCP and TLS know.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A TCP connection, with or without TLS, of which several hands may hold a clone.
///
/// The HTTP/2 layer owns one clone for as long as it lives; the other is kept to
/// kill the socket under it.
#[derive(Clone)]
pub(crate) struct Socket(Arc<Mutex<Inner>>);

enum Inner {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    pub(crate) fn plain(tcp: TcpStream) -> Self {
        Self(Arc::new(Mutex::new(Inner::Plain(tcp))))
    }

    pub(crate) fn tls(tls: TlsStream<TcpStream>) -> Self {
        Self(Arc::new(Mutex::new(Inner::Tls(Box::new(tls)))))
    }

    /// Drops this clone such that the kernel sends a reset once the last one is gone.
    pub(crate) fn reset(self) -> io::Result<()> {
        match &*self.lock() {
            Inner::Plain(tcp) => tcp.set_zero_linger(),
            Inner::Tls(tls) => tls.get_ref().0.set_zero_linger(),
        }
    }

    /// Ends the connection in order, TLS first.
    ///
    /// What the peer still sends is read for a while: a socket closed over unread
    /// bytes is reset by the kernel, and the reset can overtake what was written.
    pub(crate) async fn close(mut self) -> io::Result<()> {
        self.shutdown().await?;
        tokio::time::timeout(Duration::from_secs(1), self.drain()).await.unwrap_or(Ok(()))
    }

    /// Reads, and forgets, until the peer is gone.
    pub(crate) async fn drain(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 16 * 1024];
        while self.read(&mut buffer).await? > 0 {}
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nothing panics while it holds a socket")
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self.lock() {
            Inner::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Inner::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self.lock() {
            Inner::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Inner::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.lock() {
            Inner::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Inner::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.lock() {
            Inner::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Inner::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
