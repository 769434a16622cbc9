//! A stream whose TLS hello can be read before it is answered, or passed on.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use crate::intercept::{Hearing, Hello};

/// A stream that remembers what was read of it, until that is read again.
#[derive(Debug)]
pub(super) struct Heard<IO> {
    io: IO,
    held: Vec<u8>,
    read: usize,
}

impl<IO> Heard<IO> {
    pub(super) fn new(io: IO) -> Self {
        Self { io, held: Vec::new(), read: 0 }
    }
}

impl<IO: AsyncRead + Unpin> Heard<IO> {
    /// Waits until the hello is whole; it is never [`Hello::More`].
    ///
    /// # Errors
    ///
    /// When the stream cannot be read.
    ///
    /// # Cancel safety
    ///
    /// No byte is lost; but a hello cannot be read twice.
    pub(super) async fn hello(&mut self) -> io::Result<Hello> {
        let mut hearing = Hearing::default();
        let mut piece = [0; PIECE];
        loop {
            let count = self.io.read(&mut piece).await?;
            let new = piece.get(..count).unwrap_or_default();
            self.held.extend_from_slice(new);
            let ends = count == 0 || self.held.len() > HELLO_MAX;
            match hearing.hear(new) {
                Hello::More if ends => return Ok(Hello::Unreadable),
                Hello::More => {}
                said => return Ok(said),
            }
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Heard<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let unread = this.held.get(this.read..).unwrap_or_default();
        if unread.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let now = unread.get(..buf.remaining()).unwrap_or(unread);
        buf.put_slice(now);
        this.read += now.len();
        if this.read == this.held.len() {
            this.held = Vec::new();
            this.read = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Heard<IO> {
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

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// A hello of today is one segment of TCP, or two with a post-quantum key.
const PIECE: usize = 2048;
/// A message has at most 64 KiB; records of a few bytes each make more of it.
const HELLO_MAX: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn what_was_heard_is_read_again_byte_for_byte() {
        for (sent, wanted) in [
            (&b"\x16\x03\x01\x00\x05hello and more"[..], Hello::Unreadable),
            (b"\x16\x03\x01", Hello::Unreadable), // the client ended amid it
        ] {
            let (mut near, far) = duplex(1024);
            near.write_all(sent).await.unwrap();
            near.shutdown().await.unwrap();
            let mut heard = Heard::new(far);
            assert_eq!(heard.hello().await.unwrap(), wanted);
            let mut read = Vec::new();
            let mut piece = [0; 3];
            while let count @ 1.. = heard.read(&mut piece).await.unwrap() {
                read.extend_from_slice(&piece[..count]);
            }
            assert_eq!(read, sent);
        }
    }
}
