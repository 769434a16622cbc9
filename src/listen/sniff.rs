//! What a connection or tunnel speaks, told from its first bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use crate::intercept::{Hearing, Hello};

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
    let Some(end) = head.iter().position(|byte| !is_token(*byte)) else {
        return if head.len() < LONGEST { Guess::More } else { Guess::Neither };
    };
    let (method, rest) = head.split_at(end);
    match rest.split_first() {
        Some((b' ', start)) if !method.is_empty() => match target(method, start) {
            Guess::More if head.len() == LONGEST => Guess::Neither,
            guess => guess,
        },
        Some(_) | None => Guess::Neither,
    }
}

/// Whether a target begins like this: a path, `*`, a URL, or what CONNECT names (RFC 9112,
/// section 3.2). Other protocols begin with a word and a space too.
fn target(method: &[u8], start: &[u8]) -> Guess {
    let begins = |scheme: &[u8]| {
        let length = scheme.len().min(start.len());
        start
            .get(..length)
            .zip(scheme.get(..length))
            .is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
    };
    let schemes: [&[u8]; 2] = [b"http:", b"https:"];
    match start.first() {
        None => Guess::More,
        Some(b'/' | b'*') => Guess::Http1,
        Some(byte) if method == b"CONNECT" && (*byte == b'[' || is_token(*byte)) => Guess::Http1,
        Some(_) if schemes.iter().any(|scheme| begins(scheme) && start.len() >= scheme.len()) => {
            Guess::Http1
        }
        Some(_) if schemes.iter().any(|scheme| begins(scheme)) => Guess::More,
        Some(_) => Guess::Neither,
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
    seen: Vec<u8>,
    /// How much of those was read.
    read: usize,
}

impl<IO> Prefixed<IO> {
    /// Wraps a stream of which nothing was read.
    pub fn new(io: IO) -> Self {
        Self { io, seen: Vec::new(), read: 0 }
    }

    /// What was looked at so far.
    pub fn seen(&self) -> &[u8] {
        &self.seen
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
            let rest = LONGEST.saturating_sub(self.seen.len());
            if self.look(rest).await?.is_empty() {
                return Ok(Guess::Neither);
            }
        }
    }

    /// Waits until the TLS hello is whole; it is never [`Hello::More`].
    ///
    /// # Errors
    ///
    /// When the stream cannot be read.
    ///
    /// # Cancel safety
    ///
    /// No byte is lost, as above.
    pub async fn hello(&mut self) -> io::Result<Hello> {
        let mut hearing = Hearing::default();
        let mut hello = hearing.hear(self.seen());
        while hello == Hello::More {
            let piece = self.look(PIECE).await?;
            let ended = piece.is_empty();
            hello = hearing.hear(piece);
            if hello == Hello::More && (ended || self.seen.len() > HELLO_MAX) {
                return Ok(Hello::Unreadable);
            }
        }
        Ok(hello)
    }

    /// Looks at the next bytes, at most so many; none at the end.
    async fn look(&mut self, most: usize) -> io::Result<&[u8]> {
        let before = self.seen.len();
        self.seen.reserve(most);
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        (&mut self.io).take(most).read_buf(&mut self.seen).await?;
        Ok(self.seen.get(before..).unwrap_or_default())
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Prefixed<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let unread = this.seen.get(this.read..).unwrap_or_default();
        if unread.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let now = unread.get(..buf.remaining()).unwrap_or(unread);
        buf.put_slice(now);
        this.read += now.len();
        if this.read == this.seen.len() {
            this.seen = Vec::new();
            this.read = 0;
        }
        Poll::Ready(Ok(()))
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

/// A hello of today is one segment of TCP, or two with a post-quantum key.
const PIECE: usize = 2048;
/// A message has at most 64 KiB; records of a few bytes each make more of it.
const HELLO_MAX: usize = 128 * 1024;

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
            (b"GET ", Guess::More),
            (b"GET", Guess::More),
            (b"P", Guess::More),
            (b"PO", Guess::More),
            (b"POST /", Guess::Http1),
            (b"OPTIONS *", Guess::Http1),
            (b"GET http:", Guess::Http1),
            (b"GET HTTPS:", Guess::Http1),
            (b"GET htt", Guess::More),
            (b"GET https", Guess::More),
            (b"CONNECT a", Guess::Http1),
            (b"CONNECT [", Guess::Http1),
            (b"CONNECT ", Guess::More),
            (b"NICK bob\r\n", Guess::Neither),
            (b"get k\r\n", Guess::Neither),
            (b"get http\r\n", Guess::Neither),
            (b"GET  /", Guess::Neither),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00", Guess::Http2),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", Guess::More),
            (b"PRI * HTTP/1.1\r\n", Guess::Http1),
            (b"PRINT /", Guess::Http1),
            (b"SSH-2.0-OpenSSH_9.6\r\n", Guess::Neither),
            (b" GET /", Guess::Neither),
            (b"\r\nGET /", Guess::Neither),
            (b"GET\r\n", Guess::Neither),
            (b"\x00\x00", Guess::Neither),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCD /", Guess::Http1),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCD ", Guess::More),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDE ", Guess::Neither),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABC ht", Guess::Neither),
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

    #[tokio::test]
    async fn a_hello_is_read_again_byte_for_byte() {
        for (sent, wanted) in [
            (&b"\x16\x03\x01\x00\x05hello and more"[..], Hello::Unreadable),
            (b"\x16\x03\x01", Hello::Unreadable), // the client ended amid it
        ] {
            let (mut near, far) = tokio::io::duplex(1024);
            near.write_all(sent).await.expect("there is room");
            near.shutdown().await.expect("it ends");
            let mut looked = Prefixed::new(far);
            assert_eq!(looked.guess().await.expect("it reads"), Guess::Tls);
            assert_eq!(looked.hello().await.expect("it reads"), wanted);
            let mut read = Vec::new();
            let mut piece = [0; 3];
            while let count @ 1.. = looked.read(&mut piece).await.expect("it reads") {
                read.extend_from_slice(&piece[..count]);
            }
            assert_eq!(read, sent);
        }
    }
}
