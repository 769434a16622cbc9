//! HTTP/1.1 by hand, because a server that keeps the rules cannot break them.

use std::io;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::answer::Answer;
use super::api::{Act, Sim};
use super::gather::Gather;
use super::request::{Head, Received};
use super::script::{Cut, Kind, Shape, Then};
use super::socket::Socket;
use super::{Engine, Role};

/// One connection of HTTP/1.
pub(crate) struct Wire<'a> {
    engine: &'a Engine,
    socket: Socket,
    /// Read from the socket and not yet used.
    rest: BytesMut,
    connection: u64,
}

/// Whether the connection can take another request.
#[derive(PartialEq, Eq)]
enum Next {
    Request,
    Nothing,
}

impl<'a> Wire<'a> {
    pub(crate) fn new(engine: &'a Engine, socket: Socket, connection: u64) -> Self {
        Self { engine, socket, rest: BytesMut::new(), connection }
    }

    /// Serves requests until either side ends it.
    pub(crate) async fn serve(mut self, role: Role) -> io::Result<()> {
        while let Some(mut head) = self.head().await? {
            head.api = role.api();
            let last = match role {
                Role::Control => self.control(head).await?,
                Role::Api(_) if head.field("upgrade").is_some() => return self.upgrade().await,
                Role::Api(_) => match self.exchange(head).await? {
                    Ok(next) => next,
                    Err(end) => return self.end(end).await,
                },
            };
            if last == Next::Nothing {
                return self.socket.close().await;
            }
        }
        self.socket.close().await
    }

    async fn control(&mut self, head: Head) -> io::Result<Next> {
        let body = self.body(&head).await?;
        let answer = super::control::answer(self.engine, &head, &body.kept).await;
        self.write(&head, &answer).await?;
        Ok(head.next())
    }

    /// One request and its answer, or how the connection has to end.
    async fn exchange(&mut self, head: Head) -> io::Result<Result<Next, Cut>> {
        let sim = &self.engine.sim;
        let turn = sim.begin(head);
        let act = if let Some(act) = Sim::before(&turn) {
            act
        } else {
            let asked = turn.head.field("expect").is_some();
            if asked || turn.step.kind == Kind::Hundred {
                self.socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            }
            let received = self.body(&turn.head).await?;
            sim.after(&turn, &received).await
        };
        match act {
            Act::Cut(cut) => Ok(Err(cut)),
            Act::Garbage => {
                self.socket.write_all(b"HTTTP/one 2oo k\r\n\x00\x01garbage\r\n\r\n").await?;
                Ok(Err(Cut::Eof))
            }
            Act::Answer(answer) => {
                self.write(&turn.head, &answer).await?;
                Ok(match answer.end() {
                    Some(cut) => Err(cut),
                    None => Ok(turn.head.next()),
                })
            }
        }
    }

    async fn end(mut self, cut: Cut) -> io::Result<()> {
        match cut {
            Cut::Reset | Cut::RefusedStream | Cut::FailedStream => {
                // What was written goes out first; a reset drops what is still queued here.
                self.socket.flush().await?;
                tokio::time::sleep(SETTLE).await;
                self.socket.reset()
            }
            Cut::Eof | Cut::GoawayBelow | Cut::GoawayAbove => self.socket.close().await,
            Cut::Hang => self.socket.drain().await,
        }
    }

    /// Switches to a protocol that says everything back.
    async fn upgrade(mut self) -> io::Result<()> {
        let head =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
        self.socket.write_all(head.as_bytes()).await?;
        loop {
            self.socket.write_all(&self.rest.split()).await?;
            self.socket.flush().await?;
            if self.socket.read_buf(&mut self.rest).await? == 0 {
                return self.socket.close().await;
            }
        }
    }

    // Reading.

    async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = find(&self.rest, b"\r\n\r\n") {
                let bytes = self.rest.split_to(end + 4);
                return self.parse(&String::from_utf8_lossy(&bytes)).map(Some);
            }
            if self.rest.len() > HEAD_MAX {
                return Err(bad("a head larger than this provider reads"));
            }
            if self.socket.read_buf(&mut self.rest).await? == 0 {
                let whole = self.rest.is_empty();
                return if whole { Ok(None) } else { Err(bad("end of stream in a head")) };
            }
        }
    }

    fn parse(&self, text: &str) -> io::Result<Head> {
        let mut lines = text.split("\r\n").take_while(|line| !line.is_empty());
        let mut words = lines.next().unwrap_or_default().splitn(3, ' ');
        let mut word = || words.next().map(str::to_owned).ok_or_else(|| bad("no request line"));
        let (method, target, version) = (word()?, word()?, word()?);
        let fields = lines.map(|line| {
            let (name, value) =
                line.split_once(':').ok_or_else(|| bad("a field without a colon"))?;
            Ok((name.to_owned(), value.trim().to_owned()))
        });
        let headers = fields.collect::<io::Result<_>>()?;
        Ok(Head { connection: self.connection, api: None, version, method, target, headers })
    }

    async fn body(&mut self, head: &Head) -> io::Result<Received> {
        let mut gather = Gather::new(head);
        let mut trailers = Vec::new();
        if head.field("transfer-encoding").is_some() {
            loop {
                let line = self.line().await?;
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16).ok().ok_or_else(|| bad("chunk size"))?;
                if size == 0 {
                    break;
                }
                self.take(size, &mut gather).await?;
                self.line().await?;
            }
            loop {
                let line = self.line().await?;
                let Some((name, value)) = line.split_once(':') else { break };
                trailers.push((name.to_owned(), value.trim().to_owned()));
            }
        } else if let Some(length) = head.field("content-length") {
            let length = length.parse().ok().ok_or_else(|| bad("content-length"))?;
            self.take(length, &mut gather).await?;
        }
        Ok(gather.done(trailers))
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.rest, b"\r\n") {
                let line = self.rest.split_to(end);
                self.rest.advance(2);
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if self.rest.len() > HEAD_MAX {
                return Err(bad("a line larger than this provider reads"));
            }
            self.fill().await?;
        }
    }

    async fn take(&mut self, mut left: u64, gather: &mut Gather) -> io::Result<()> {
        while left > 0 {
            if self.rest.is_empty() {
                self.fill().await?;
            }
            let here = usize::try_from(left).unwrap_or(usize::MAX).min(self.rest.len());
            gather.add(&self.rest.split_to(here))?;
            left -= here as u64;
        }
        Ok(())
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.rest.reserve(64 * 1024);
        let count = self.socket.read_buf(&mut self.rest).await?;
        if count == 0 { Err(bad("end of stream in a body")) } else { Ok(()) }
    }

    // Writing.

    async fn write(&mut self, head: &Head, answer: &Answer) -> io::Result<()> {
        let bodiless = head.method == "HEAD" || matches!(answer.status, 204 | 304);
        let mut fields = answer.all_headers();
        fields.extend(framing(answer));
        let fields: Vec<_> = fields.iter().map(|(name, v)| format!("{name}: {v}\r\n")).collect();
        let (status, reason) = (answer.status, reason(answer.status));
        let text = format!("HTTP/1.1 {status} {reason}\r\n{}\r\n", fields.concat());
        self.socket.write_all(text.as_bytes()).await?;
        if !bodiless {
            self.write_body(answer).await?;
        }
        self.socket.flush().await
    }

    async fn write_body(&mut self, answer: &Answer) -> io::Result<()> {
        for piece in answer.pieces() {
            match answer.shape {
                Shape::Chunked => {
                    let size = format!("{:x}\r\n", piece.len());
                    self.socket.write_all(size.as_bytes()).await?;
                    self.socket.write_all(&piece).await?;
                    self.socket.write_all(b"\r\n").await?;
                }
                Shape::BadChunk => {
                    self.socket.write_all(b"4\r\n{\"a\"\r\nzz\r\n").await?;
                    return self.socket.write_all(&piece).await;
                }
                Shape::Drip(pause) => {
                    self.socket.write_all(&piece).await?;
                    self.socket.flush().await?;
                    tokio::time::sleep(pause).await;
                }
                Shape::Whole | Shape::UntilClose | Shape::Truncated | Shape::TruncatedReset => {
                    self.socket.write_all(&piece).await?;
                }
            }
        }
        if answer.shape == Shape::Chunked && answer.cut.is_none() {
            self.socket.write_all(b"0\r\nX-Sim-Trailer: 1\r\n\r\n").await?;
        }
        Ok(())
    }
}

impl Head {
    fn next(&self) -> Next {
        let close =
            self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if close || self.version != "HTTP/1.1" { Next::Nothing } else { Next::Request }
    }
}

/// The field that says where the body ends, and the one that says what comes after.
fn framing(answer: &Answer) -> Vec<(String, String)> {
    let field = |name: &str, value: String| (name.to_owned(), value);
    let length = match answer.shape {
        _ if answer.status == 204 => None,
        Shape::UntilClose => None,
        Shape::Chunked | Shape::BadChunk => Some(field("Transfer-Encoding", "chunked".to_owned())),
        Shape::Whole | Shape::Drip(_) => Some(field("Content-Length", answer.len().to_string())),
        Shape::Truncated | Shape::TruncatedReset => {
            Some(field("Content-Length", (answer.len() + LIE).to_string()))
        }
    };
    let close = (answer.then == Then::Close).then(|| field("Connection", "close".to_owned()));
    length.into_iter().chain(close).collect()
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

fn reason(status: u16) -> &'static str {
    let status = http::StatusCode::from_u16(status).ok();
    status.and_then(|status| status.canonical_reason()).unwrap_or("Scripted")
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What a client may send before its body; larger than any test sends.
const HEAD_MAX: usize = 256 * 1024;

/// By how much the length of a truncated answer is too large.
pub(crate) const LIE: u64 = 1000;

/// Time for bytes on loopback to be read before a reset follows them.
const SETTLE: Duration = Duration::from_millis(10);
