//! What a connection or tunnel speaks, told from its first bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// What the first bytes look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guess {
    /// A TLS client's hello.
    Tls,
    /// A request line of HTTP/1.
    Http1,
    /// The preface of HTTP/2 with prior knowledge.
    Http2,
    /// None of these.
    Neither,
    /// Too little to tell: more bytes will.
    More,
}

/// Guesses what a peer speaks whose first bytes these are.
///
/// 32 bytes are never too little.
pub fn kind(first: &[u8]) -> Guess {
    match first {
        [] | [0x16] | [0x16, 0x03] => Guess::More,
        // A handshake record; the version is SSL 3.0's in old hellos, TLS 1.2's
        // in new ones.
        [0x16, 0x03, 0x00..=0x04, ..] => Guess::Tls,
        _ if first.starts_with(PREFACE) => Guess::Http2,
        _ if PREFACE.starts_with(first) => Guess::More,
        _ => method(first),
    }
}

fn method(first: &[u8]) -> Guess {
    let head = first.get(..LONGEST).unwrap_or(first);
    match head.iter().position(|byte| !is_token(*byte)) {
        Some(0) => Guess::Neither,
        Some(end) if head.get(end) == Some(&b' ') => Guess::Http1,
        None if head.len() < LONGEST => Guess::More,
        Some(_) | None => Guess::Neither,
    }
}

/// A sign of a token (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A stream whose first bytes can be looked at before they are read.
///
/// What was looked at is read first; from then on it costs one comparison.
#[derive(Debug)]
pub struct Prefixed<IO> {
    io: IO,
    seen: [u8; LONGEST],
    /// How much of `seen` holds bytes.
    filled: usize,
    /// How much of those was read.
    read: usize,
}

impl<IO> Prefixed<IO> {
    /// Wraps a stream of which nothing was read.
    pub fn new(io: IO) -> Self {
        Self { io, seen: [0; LONGEST], filled: 0, read: 0 }
    }
}

impl<IO> Prefixed<IO> {
    /// What was looked at so far.
    pub fn seen(&self) -> &[u8] {
        self.seen.get(..self.filled).unwrap_or_default()
    }
}

impl<IO: AsyncRead + Unpin> Prefixed<IO> {
    /// Waits for as many bytes as it takes to tell what the peer speaks.
    ///
    /// It is never [`Guess::More`]: a peer that ends before that speaks neither.
    ///
    /// # Errors
    ///
    /// When the stream cannot be read.
    ///
    /// # Cancel safety
    ///
    /// No byte is lost when the future is dropped, as by a timeout: what came
    /// until then is read first.
    pub async fn guess(&mut self) -> io::Result<Guess> {
        loop {
            let guess = kind(self.seen());
            if guess != Guess::More {
                return Ok(guess);
            }
            let rest = self.seen.get_mut(self.filled..).unwrap_or_default();
            match self.io.read(rest).await? {
                0 => return Ok(Guess::Neither),
                count => self.filled += count,
            }
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Prefixed<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.read < this.filled {
            let unread = this.seen.get(this.read..this.filled).unwrap_or_default();
            let now = unread.get(..buf.remaining()).unwrap_or(unread);
            buf.put_slice(now);
            this.read += now.len();
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Prefixed<IO> {
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

/// The most bytes a guess takes: the preface has 24, and no method that is in
/// use comes near.
const LONGEST: usize = 32;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[test]
    fn first_bytes_tell_what_is_spoken() {
        for (first, wanted) in [
            (&b""[..], Guess::More),
            (b"\x16", Guess::More),
            (b"\x16\x03", Guess::More),
            (b"\x16\x03\x01", Guess::Tls),
            (b"\x16\x03\x03\x02\x00", Guess::Tls),
            (b"\x16\x03\x05", Guess::Neither),
            (b"\x16\x02", Guess::Neither),
            (b"\x80\x2e\x01", Guess::Neither),
            (b"GET / HTTP/1.1\r\n", Guess::Http1),
            (b"GET ", Guess::Http1),
            (b"GET", Guess::More),
            (b"P", Guess::More),
            (b"PO", Guess::More),
            (b"POST ", Guess::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00", Guess::Http2),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", Guess::More),
            (b"PRI * HTTP/1.1\r\n", Guess::Http1),
            (b"PRINT ", Guess::Http1),
            (b"SSH-2.0-OpenSSH_9.6\r\n", Guess::Neither),
            (b" GET /", Guess::Neither),
            (b"\r\nGET /", Guess::Neither),
            (b"GET\r\n", Guess::Neither),
            (b"\x00\x00", Guess::Neither),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDE ", Guess::Http1),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF ", Guess::Neither),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF", Guess::Neither),
        ] {
            assert_eq!(kind(first), wanted, "{}", first.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn enough_bytes_always_tell(first in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(first.len() < LONGEST || kind(&first) != Guess::More);
            // What was told from less is what is told from more.
            let guesses = (0..=first.len()).map(|n| kind(&first[..n])).filter(|g| *g != Guess::More);
            let guesses: Vec<_> = guesses.collect();
            prop_assert!(guesses.windows(2).all(|two| two[0] == two[1]));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_looked_at_is_read_first() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Prefixed::new(server);
        client.write_all(b"PO").await.expect("there is room");
        let timed = tokio::time::timeout(Duration::from_secs(1), server.guess()).await;
        assert!(timed.is_err(), "two letters do not tell");
        client.write_all(b"ST / HTTP/1.1\r\nhost: a.test\r\n\r\n").await.expect("there is room");
        assert_eq!(server.guess().await.expect("it reads"), Guess::Http1);
        drop(client);
        let mut all = Vec::new();
        let mut small = [0; 3];
        loop {
            match server.read(&mut small).await.expect("it reads") {
                0 => break,
                count => all.extend_from_slice(&small[..count]),
            }
        }
        assert_eq!(all, b"POST / HTTP/1.1\r\nhost: a.test\r\n\r\n");
    }

    #[tokio::test]
    async fn a_peer_that_ends_early_speaks_neither() {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(b"GE").await.expect("there is room");
        drop(client);
        let mut server = Prefixed::new(server);
        assert_eq!(server.guess().await.expect("it reads"), Guess::Neither);
        let mut all = Vec::new();
        server.read_to_end(&mut all).await.expect("it reads");
        assert_eq!(all, b"GE");
    }
}
