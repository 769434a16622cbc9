//! A client's HTTP/1 connection, read along with the server that reads it.
//!
//! The server (hyper) takes some requests that two readers can take for different
//! ones, and shows the service nothing of it: several lengths, a length beside
//! chunks, a fragment in the target, fields in the trailers that belong into the
//! head. [`Wire`] looks at the bytes as they pass, unchanged, and [`Watch`] tells
//! the service of the request what is wrong with it. On the way back it replaces
//! the bare answer that the server gives to a head that it cannot read.
//!
//! # Invariants
//!
//! - A fault is flagged before the server sees the byte that it is in.
//! - Where nothing is flagged, wire and server agree on where each body ends.
//! - Bytes after a CONNECT or an upgrade are not passed on before it is decided
//!   whether they are HTTP.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use scan::{Scanner, State};
use watch::Next;
pub use watch::{Exchange, Fault, Kind, Part, Phase, Watch};

mod field;
mod scan;
mod watch;

/// What a head may measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one line of a head; the server bears the limit of all together.
    pub header_size: usize,
    /// Bytes of a request target.
    pub uri_size: usize,
}

/// The stream of a client, between its socket and the server.
pub struct Wire<IO> {
    io: IO,
    watch: Watch,
    scanner: Scanner,
    /// What came before it was decided what it is.
    held: Vec<u8>,
    /// The response to a head that the server could not read, given its status.
    refusal: fn(u16) -> Vec<u8>,
    /// What of such a response is still to be written.
    unsent: Vec<u8>,
    /// How many exchanges there were when all responses had been written, if
    /// nothing was since.
    flushed: Option<u64>,
}

impl<IO> Wire<IO> {
    /// Wraps a stream; `refusal` makes whole responses of 400, 414 and 431, each
    /// with `Connection: close`.
    pub fn new(io: IO, limits: Limits, refusal: fn(u16) -> Vec<u8>) -> (Self, Watch) {
        let watch = Watch::default();
        let wire = Self {
            io,
            watch: watch.clone(),
            scanner: Scanner::new(limits),
            held: Vec::new(),
            refusal,
            unsent: Vec::new(),
            flushed: Some(0),
        };
        (wire, watch)
    }

    /// Whether the server speaks of its own accord: all responses are out, and no
    /// request is in service. `100 Continue` comes within an exchange.
    fn unasked(&self) -> bool {
        self.flushed.is_some() && self.flushed == self.watch.settled()
    }
}

impl<IO: AsyncRead + Unpin> Wire<IO> {
    /// Waits for the decision about what follows the `nth` request.
    ///
    /// Until then the stream is read only as far as it takes to see it end, since
    /// a client that hangs up ends its exchange.
    fn poll_next(&mut self, cx: &mut Context<'_>, nth: u64) -> Poll<io::Result<Held>> {
        match self.watch.next(nth, cx.waker()) {
            Some(Next::Request) => self.scanner.resume(State::Request),
            Some(Next::Anything) => self.scanner.resume(State::Through),
            None if self.held.is_empty() => {
                let mut space = [0; 64];
                let mut probe = ReadBuf::new(&mut space);
                ready!(Pin::new(&mut self.io).poll_read(cx, &mut probe))?;
                if probe.filled().is_empty() {
                    self.watch.end();
                    return Poll::Ready(Ok(Held::Ended));
                }
                self.held.extend_from_slice(probe.filled());
                return Poll::Pending;
            }
            None => return Poll::Pending,
        }
        Poll::Ready(Ok(Held::Decided))
    }

    fn poll_fresh(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let fresh = buf.filled().get(before..).unwrap_or_default();
        if fresh.is_empty() && buf.remaining() > 0 {
            self.watch.end();
        }
        let passed = scan(&mut self.scanner, &self.watch, fresh);
        if passed < fresh.len() {
            self.held.extend_from_slice(fresh.get(passed..).unwrap_or_default());
            buf.set_filled(before + passed);
        }
        Poll::Ready(Ok(()))
    }

    fn read_held(&mut self, buf: &mut ReadBuf<'_>) {
        let fits = self.held.get(..buf.remaining()).unwrap_or(&self.held);
        let passed = scan(&mut self.scanner, &self.watch, fits);
        buf.put_slice(fits.get(..passed).unwrap_or_default());
        self.held.drain(..passed);
        if self.held.is_empty() {
            self.held = Vec::new();
        }
    }
}

impl<IO: AsyncWrite + Unpin> Wire<IO> {
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => {
                    self.watch.count_written(count);
                    self.unsent.drain(..count);
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Puts a response of ours in the place of the server's bare one. The server
    /// is told that all of its was written: what is left of ours goes out when it
    /// flushes.
    fn poll_refusal(
        &mut self,
        cx: &mut Context<'_>,
        status: u16,
        took: usize,
    ) -> Poll<io::Result<usize>> {
        self.unsent = (self.refusal)(status);
        match self.poll_unsent(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(took)),
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Wire<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let State::Held(nth) = this.scanner.state() {
            match ready!(this.poll_next(cx, nth))? {
                Held::Ended => return Poll::Ready(Ok(())),
                Held::Decided => (),
            }
        }
        if this.held.is_empty() {
            return this.poll_fresh(cx, buf);
        }
        this.read_held(buf);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Wire<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_unsent(cx))?;
        if this.unasked()
            && let Some(status) = bare_refusal(bytes)
        {
            return this.poll_refusal(cx, status, bytes.len());
        }
        this.flushed = None;
        let count = ready!(Pin::new(&mut this.io).poll_write(cx, bytes))?;
        this.watch.count_written(count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_unsent(cx))?;
        ready!(Pin::new(&mut this.io).poll_flush(cx))?;
        // The server flushes its stream when it has nothing left to write.
        this.flushed = this.watch.settled();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unsent(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_unsent(cx))?;
        if this.unasked() {
            let mut full = slices.iter().filter(|slice| !slice.is_empty());
            if let (Some(only), None) = (full.next(), full.next())
                && let Some(status) = bare_refusal(only)
            {
                return this.poll_refusal(cx, status, only.len());
            }
        }
        this.flushed = None;
        let count = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, slices))?;
        this.watch.count_written(count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl<IO> fmt::Debug for Wire<IO> {
    /// Shows no byte that a client sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("watch", &self.watch).finish_non_exhaustive()
    }
}

/// What became of a stream that was held.
enum Held {
    /// It is known what follows.
    Decided,
    /// The client hung up first.
    Ended,
}

fn scan(scanner: &mut Scanner, watch: &Watch, bytes: &[u8]) -> usize {
    let passed = scanner.scan(bytes).unwrap_or_else(|fault| {
        watch.flag(scanner.nth(), fault);
        bytes.len()
    });
    watch.mid_head(scanner.is_mid_head());
    passed
}

/// The status of a response that is a head and nothing else: 4xx, and all that
/// is written. It is the server's own, if nobody asked for one.
fn bare_refusal(bytes: &[u8]) -> Option<u16> {
    let status = bytes.strip_prefix(b"HTTP/1.1 ").or_else(|| bytes.strip_prefix(b"HTTP/1.0 "))?;
    let head_end = memchr::memmem::find(bytes, b"\r\n\r\n")?;
    let status = std::str::from_utf8(status.get(..3)?).ok()?.parse().ok()?;
    (head_end + 4 == bytes.len() && (400..500).contains(&status)).then_some(status)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;
    use http::{Method, Request, Response};
    use http_body::{Body, Frame, SizeHint};
    use http_body_util::{BodyExt as _, Full};
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper::upgrade::OnUpgrade;
    use hyper_util::rt::TokioIo;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::scan::tests::read;
    use super::*;

    const LIMITS: Limits = Limits { header_size: 64 * 1024, uri_size: 100_000 };

    fn refusal(status: u16) -> Vec<u8> {
        format!("HTTP/1.1 {status} Refused\r\nconnection: close\r\n\r\n{status}").into_bytes()
    }

    /// A body that keeps its exchange to its end.
    struct Guarded(Full<Bytes>, #[expect(dead_code, reason = "held")] Exchange);

    impl Body for Guarded {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Pin::new(&mut self.0).poll_frame(cx)
        }

        fn size_hint(&self) -> SizeHint {
            self.0.size_hint()
        }
    }

    /// What the service saw of one request.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Seen {
        target: String,
        /// Bytes of the body; `None` where it broke off.
        body: Option<u64>,
        fault: Option<Fault>,
    }

    #[derive(Clone, Default)]
    struct Service {
        seen: Arc<Mutex<Vec<Seen>>>,
        upgrade: Arc<Mutex<Option<OnUpgrade>>>,
    }

    impl Service {
        /// Answers 200 with the target; `/400` with an empty 400, faults with a
        /// 499; grants CONNECT
        /// to `yes:1` alone.
        async fn call(self, watch: Watch, mut request: Request<Incoming>) -> Response<Guarded> {
            let exchange = watch.begin();
            let mut body = Some(0);
            let upgrade = hyper::upgrade::on(&mut request);
            let (head, mut incoming) = request.into_parts();
            while exchange.fault().is_none()
                && let Some(frame) = incoming.frame().await
            {
                match frame {
                    Ok(frame) => {
                        let more = frame.data_ref().map_or(0, Bytes::len);
                        body = body.map(|sum| sum + u64::try_from(more).expect("it is small"));
                    }
                    Err(_) => body = None,
                }
            }
            let fault = exchange.fault();
            let target = head.uri.to_string();
            self.seen.lock().unwrap().push(Seen { target: target.clone(), body, fault });
            let mut response = Response::builder().header("x-own", "1");
            let (status, text) = match fault {
                Some(_) => {
                    response = response.header("connection", "close");
                    (499, String::new())
                }
                None if target == "/400" => (400, String::new()),
                None if head.method == Method::CONNECT && target == "yes:1" => {
                    exchange.upgraded();
                    *self.upgrade.lock().unwrap() = Some(upgrade);
                    (200, String::new())
                }
                None if head.method == Method::CONNECT => (403, target),
                None => (200, target),
            };
            response.status(status).body(Guarded(Full::from(text), exchange)).expect("it is whole")
        }
    }

    /// Serves `raw`, sent in pieces of these sizes, and returns what the service
    /// saw and what the client got.
    async fn serve(raw: &[u8], sizes: &[usize]) -> (Vec<Seen>, String) {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let service = Service::default();
        let (wire, watch) = Wire::new(server, LIMITS, refusal);
        let called = service.clone();
        let serving = http1::Builder::new().half_close(true).max_headers(20).serve_connection(
            TokioIo::new(wire),
            service_fn(move |request| {
                let answered = called.clone().call(watch.clone(), request);
                async move { Ok::<_, Infallible>(answered.await) }
            }),
        );
        let exchange = async {
            let (mut rest, mut sizes) = (raw, sizes.iter().copied().cycle());
            while !rest.is_empty() {
                let size = sizes.next().unwrap_or(usize::MAX).clamp(1, rest.len());
                if client.write_all(&rest[..size]).await.is_err() {
                    break;
                }
                rest = &rest[size..];
                tokio::task::yield_now().await;
            }
            let mut got = Vec::new();
            // The server may have hung up first.
            if client.shutdown().await.is_ok() {
                client.read_to_end(&mut got).await.expect("it reads");
            }
            String::from_utf8(got).expect("the answers are text")
        };
        let (_served, got) = tokio::join!(serving.with_upgrades(), exchange);
        let seen = service.seen.lock().unwrap().clone();
        (seen, got)
    }

    #[tokio::test]
    async fn the_service_learns_of_faults_in_head_and_body() {
        let good = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        let head =
            "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc";
        let trailer = "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
            3\r\nabc\r\n0\r\nHost: b\r\n\r\n";
        for (bad, part) in [(head, Part::Head), (trailer, Part::Body)] {
            for sizes in [&[1][..], &[usize::MAX]] {
                let raw = format!("{good}{good}{bad}{good}");
                let (seen, got) = serve(raw.as_bytes(), sizes).await;
                let parts: Vec<_> =
                    seen.iter().map(|seen| seen.fault.map(|fault| fault.part)).collect();
                assert_eq!(parts, [None, None, Some(part)], "{raw}");
                assert!(got.contains("499"), "{got}");
            }
        }
    }

    #[tokio::test]
    async fn a_bare_answer_of_the_server_is_replaced() {
        let good = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
        let many = "x: y\r\n".repeat(21);
        let many = format!("GET / HTTP/1.1\r\n{many}\r\n");
        let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(70_000));
        for (bad, status) in [
            ("G@T / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\na b\r\n\r\n", 400),
            (&many, 431),
            (&long, 414),
        ] {
            let ours = String::from_utf8(refusal(status)).expect("it is text");
            let (seen, got) = serve(bad.as_bytes(), &[usize::MAX]).await;
            assert_eq!((seen.len(), &got), (0, &ours));
            let (seen, got) = serve(format!("{good}{bad}").as_bytes(), &[usize::MAX]).await;
            assert_eq!(seen.len(), 1);
            assert!(
                got.starts_with("HTTP/1.1 200") && got.ends_with(&format!("/a{ours}")),
                "{got}"
            );
        }
    }

    #[tokio::test]
    async fn an_answer_of_the_service_is_never_replaced() {
        let raw = "GET /400 HTTP/1.1\r\nHost: a\r\n\r\n";
        for sizes in [&[usize::MAX][..], &[40]] {
            let (seen, got) = serve(raw.repeat(3).as_bytes(), sizes).await;
            assert_eq!(seen.len(), 3);
            assert_eq!(got.matches("x-own").count(), 3, "{got}");
            assert!(!got.contains("Refused"), "{got}");
        }
        let raw =
            "POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx";
        let (_seen, got) = serve(raw.as_bytes(), &[raw.len() - 1, 1]).await;
        assert!(got.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK"), "{got}");
    }

    #[tokio::test]
    async fn after_a_refused_tunnel_the_next_request_is_read() {
        let raw = "CONNECT no:1 HTTP/1.1\r\nHost: no:1\r\n\r\n\
            GET /a HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n\
            POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx";
        for sizes in [&[1][..], &[7], &[usize::MAX]] {
            let (seen, _got) = serve(raw.as_bytes(), sizes).await;
            let faults: Vec<_> = seen.iter().map(|seen| seen.fault.is_some()).collect();
            assert_eq!(faults, [false, false, true]);
        }
    }

    #[tokio::test]
    async fn a_granted_tunnel_passes_all_bytes() {
        let (mut client, server) = tokio::io::duplex(1024);
        let service = Service::default();
        let (wire, watch) = Wire::new(server, LIMITS, refusal);
        let called = service.clone();
        let serving = http1::Builder::new().serve_connection(
            TokioIo::new(wire),
            service_fn(move |request| {
                let answered = called.clone().call(watch.clone(), request);
                async move { Ok::<_, Infallible>(answered.await) }
            }),
        );
        let tunnelled = "GET /\nContent-Length: x\n\nHTTP/1.1 400 Bad\r\n\r\n";
        let raw = format!("CONNECT yes:1 HTTP/1.1\r\nHost: yes:1\r\n\r\n{tunnelled}");
        client.write_all(raw.as_bytes()).await.expect("there is room");
        serving.with_upgrades().await.expect("it ends with the upgrade");
        let upgrade = service.upgrade.lock().unwrap().take().expect("it was granted");
        let mut tunnel = TokioIo::new(upgrade.await.expect("it is upgraded"));
        let mut bytes = vec![0; tunnelled.len()];
        tunnel.read_exact(&mut bytes).await.expect("it reads");
        assert_eq!(bytes, tunnelled.as_bytes());
        tunnel.write_all(b"HTTP/1.1 400 Bad\r\n\r\n").await.expect("there is room");
        drop(tunnel);
        let mut got = String::new();
        client.read_to_string(&mut got).await.expect("it reads");
        assert!(got.starts_with("HTTP/1.1 200 OK"), "{got}");
        assert!(got.ends_with("HTTP/1.1 400 Bad\r\n\r\n"), "{got}");
    }

    #[tokio::test]
    async fn a_hang_up_is_seen_while_a_tunnel_is_decided() {
        let (mut client, server) = tokio::io::duplex(1024);
        let (mut wire, watch) = Wire::new(server, LIMITS, refusal);
        let head = b"CONNECT a:1 HTTP/1.1\r\n\r\n";
        client.write_all(head).await.expect("there is room");
        let mut buf = [0; 100];
        assert_eq!(wire.read(&mut buf).await.expect("it reads"), head.len());
        let _exchange = watch.begin();
        drop(client);
        assert_eq!(wire.read(&mut buf).await.expect("it reads"), 0);
    }

    #[tokio::test]
    async fn what_the_socket_took_is_counted() {
        let (client, server) = tokio::io::duplex(4);
        let (mut wire, watch): (Wire<DuplexStream>, _) = Wire::new(server, LIMITS, refusal);
        assert_eq!(wire.write(b"abcdef").await.expect("there is room"), 4);
        assert_eq!(watch.written(), 4);
        assert!(!wire.is_write_vectored() || client.is_write_vectored());
    }

    /// Pieces of requests, good and bad, to be strung together.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let framing = prop::sample::select(vec![
            "Content-Length: 3",
            "Content-Length: 0",
            "Content-Length: 5",
            "content-length:3 ",
            "Transfer-Encoding: chunked",
            "Transfer-Encoding: Chunked",
        ]);
        let odd = prop::sample::select(vec![
            "Host: b",
            "Content-Length: 03",
            "Content-Length: 3, 3",
            "Content-Length: +3",
            "Content-Length: 99999999999999999999",
            "Content-Length: 3\nX: y",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding : chunked",
            "Expect: 100-continue",
            "Upgrade: x",
            "Connection: keep-alive",
            "Connection: close",
            " x",
            "X: \ty",
            "X\0: y",
            "X: \ry",
        ]);
        let lines = prop_oneof![3 => framing, 1 => odd];
        let end = prop_oneof![14 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r")];
        let fields = prop::collection::vec((lines, end.clone()), 0..4).prop_map(|lines| {
            lines.iter().fold(String::new(), |text, (line, end)| text + line + end)
        });
        let request = prop::sample::select(vec![
            "POST /a HTTP/1.1\r\nHost: a\r\n",
            "POST /a HTTP/1.1\r\nHost: a\r\n",
            "GET /a HTTP/1.1\r\n",
            "POST http://a/#b HTTP/1.1\r\nHost: a\r\n",
            "POST /a HTTP/1.0\r\n",
            "CONNECT a:1 HTTP/1.1\r\n",
            "\r\nPOST /a HTTP/1.1\r\nHost: a\r\n",
            "POST http://u@a/ HTTP/1.1\r\nHost: a\r\n",
        ]);
        let body = prop::sample::select(vec![
            "",
            "",
            "abc",
            "abc",
            "abcd",
            "4\r\nabcd\r\n0\r\n\r\n",
            "4;x=y\r\nabcd\r\n0\r\n\r\n",
            "0\r\n\r\n",
            "4\r\nabcd\r\n00\r\nX: y\r\n\r\n",
            "3\nabc\r\n0\r\n\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "2\r\nabc\r\n0\r\n\r\n",
            "4 \r\nabcd\r\n0\r\n\r\n",
            "4\r\nabcd\r\n0\r\nX: y\nHost: b\r\n\r\n",
            "3;\n\r\nabc\r\n0\r\n\r\n",
            "4\r\nabcd\r\n0\r\nHost: b\r\n\r\n",
            "10000000000000004\r\nabcd\r\n0\r\n\r\n",
        ]);
        let one = (request, fields, end, body).prop_map(|(line, fields, end, body)| {
            format!("{line}{fields}{end}{body}").into_bytes()
        });
        prop::collection::vec(one, 1..4).prop_map(|all| all.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn where_nothing_is_flagged_bodies_end_where_the_server_says(
            raw in pieces(), sizes in prop::collection::vec(1_usize..60, 1..5),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let (seen, _got) = runtime.block_on(serve(&raw, &sizes));
            let told = read(&raw, LIMITS);
            let text = raw.escape_ascii().to_string();
            for (nth, seen) in seen.iter().enumerate() {
                let at = u64::try_from(nth).expect("few requests");
                let faulty = told.fault.is_some_and(|(faulty, _)| faulty <= at);
                prop_assert!(faulty || seen.fault.is_none(), "{nth} {text}");
                // A fault that the server trips over first may not be flagged in
                // time: then its body is broken off anyway.
                if let (false, Some(length)) = (faulty, seen.body) {
                    prop_assert!(told.finished > at, "{nth} {text}");
                    prop_assert_eq!(told.bodies[nth], length, "{} {}", nth, text);
                }
                prop_assert!(!faulty || seen.fault.is_some() || seen.body.is_none(), "{nth} {text}");
            }
        }
    }
}
