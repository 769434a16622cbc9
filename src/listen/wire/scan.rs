//! Reads along with the server and finds what it takes though it should not.
//!
//! This is no second parser: it knows lines, the few fields that frame a message,
//! and where the next message begins. Where the server is lenient it is strict,
//! so the two can differ in what they refuse, never in where a body ends.

use memchr::memchr3;

use super::Limits;
use super::field::{self, Framing, Head};
use super::watch::{Fault, Kind, Part};

/// Follows the requests of one connection, byte for byte.
#[derive(Debug)]
pub(super) struct Scanner {
    limits: Limits,
    state: State,
    /// The beginning of a line whose end was not in the last piece.
    line: Vec<u8>,
    /// What the head in hand said so far; there is one from its first line on.
    head: Option<Head>,
    /// The request that the next byte belongs to.
    nth: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    /// Before or in a request line.
    Request,
    /// In the fields of a head.
    Fields,
    /// In a body with so many bytes left.
    Sized(u64),
    /// In a chunked body.
    Chunked(Chunk),
    /// In the fields after a chunked body.
    Trailers,
    /// After this request: what follows is decided by its response.
    Held(u64),
    /// Nothing is read along any more.
    Through,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Chunk {
    /// In the digits of a size: the size, and how many digits it had.
    Size(u64, u8),
    /// In the white space before an extension.
    Pad(u64),
    /// In an extension.
    Extension(u64),
    /// Before the LF of a size line.
    SizeLf(u64),
    /// In a chunk with so many bytes left.
    Bytes(u64),
    /// Before the CR after a chunk.
    Cr,
    /// Before the LF after a chunk.
    Lf,
}

impl Scanner {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, state: State::Request, line: Vec::new(), head: None, nth: 0 }
    }

    /// Whether part of a head has come, and part is still to come.
    pub(super) fn is_mid_head(&self) -> bool {
        match self.state {
            State::Request => !self.line.is_empty(),
            State::Fields => true,
            State::Sized(_)
            | State::Chunked(_)
            | State::Trailers
            | State::Held(_)
            | State::Through => false,
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// The request that the next byte belongs to; after a fault, the one it is in.
    pub(super) fn nth(&self) -> u64 {
        self.nth
    }

    /// Goes on after [`State::Held`]: in what follows, `state` is to be found.
    pub(super) fn resume(&mut self, state: State) {
        self.state = state;
    }

    /// Reads `bytes`, and says how many of them may be passed on: all, unless
    /// what the rest means is still to be decided.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let read = match self.state {
                State::Request | State::Fields | State::Trailers => self.line(rest),
                State::Sized(left) => Ok(self.sized(left, rest)),
                State::Chunked(chunk) => self.chunked(chunk, rest),
                State::Held(_) => break,
                State::Through => return Ok(bytes.len()),
            };
            rest = read.map_err(|(kind, detail)| self.fault(kind, detail))?;
        }
        Ok(bytes.len() - rest.len())
    }

    fn fault(&mut self, kind: Kind, detail: &'static str) -> Fault {
        let head = matches!(self.state, State::Request | State::Fields);
        self.state = State::Through;
        self.line = Vec::new();
        Fault { part: if head { Part::Head } else { Part::Body }, kind, detail }
    }

    /// Takes a line off `bytes`, or keeps the beginning of one.
    ///
    /// One search finds the end of a line and the bytes that may not be in it.
    fn line<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Complaint> {
        let end = if self.line.last() == Some(&b'\r') {
            self.line.pop();
            if bytes.first() != Some(&b'\n') {
                return Err(malformed("a CR that ends no line"));
            }
            return self.line_end(&[], bytes.get(1..).unwrap_or_default());
        } else {
            memchr3(b'\r', b'\n', 0, bytes)
        };
        let Some((line, rest)) = end.and_then(|end| bytes.split_at_checked(end)) else {
            return self.keep(bytes);
        };
        match rest {
            [b'\r', b'\n', rest @ ..] => self.line_end(line, rest),
            [b'\r'] => self.keep(bytes),
            [b'\r', ..] => Err(malformed("a CR that ends no line")),
            [b'\n', ..] => Err(malformed("a line that ends in a bare LF")),
            _ => Err(malformed("a NUL in a line")),
        }
    }

    fn keep<'a>(&mut self, bytes: &[u8]) -> Result<&'a [u8], Complaint> {
        if self.line.len().saturating_add(bytes.len()) > self.limits.header_size {
            return Err((Kind::TooLarge, "a line longer than a head may be"));
        }
        self.line.extend_from_slice(bytes);
        Ok(&[])
    }

    fn line_end<'a>(&mut self, line: &[u8], rest: &'a [u8]) -> Result<&'a [u8], Complaint> {
        if self.line.is_empty() {
            self.read_line(line)?;
        } else {
            let mut whole = std::mem::take(&mut self.line);
            whole.extend_from_slice(line);
            self.read_line(&whole)?;
        }
        Ok(rest)
    }

    fn read_line(&mut self, line: &[u8]) -> Result<(), Complaint> {
        match (self.state, &mut self.head) {
            (State::Trailers, _) if line.is_empty() => self.message_end(),
            (State::Trailers, _) => field::trailer(line).map_err(malformed)?,
            (State::Fields, Some(head)) if line.is_empty() => {
                match head.framing().map_err(malformed)? {
                    Framing::Sized(0) => self.message_end(),
                    Framing::Sized(length) => self.state = State::Sized(length),
                    Framing::Chunked => self.state = State::Chunked(Chunk::Size(0, 0)),
                }
            }
            (State::Fields, Some(head)) => head.field(line).map_err(malformed)?,
            // Empty lines before a request line are skipped (RFC 9112, section 2.2).
            _ if line.is_empty() => (),
            _ => {
                self.head = Some(Head::of_request_line(line, self.limits.uri_size)?);
                self.state = State::Fields;
            }
        }
        Ok(())
    }

    fn message_end(&mut self) {
        let held = self.head.take().is_some_and(|head| head.asks_for_other());
        self.state = if held { State::Held(self.nth) } else { State::Request };
        self.nth += 1;
    }

    fn sized<'a>(&mut self, left: u64, bytes: &'a [u8]) -> &'a [u8] {
        let (left, rest) = skip(left, bytes);
        self.state = State::Sized(left);
        if left == 0 {
            self.message_end();
        }
        rest
    }

    fn chunked<'a>(&mut self, chunk: Chunk, bytes: &'a [u8]) -> Result<&'a [u8], Complaint> {
        if let Chunk::Bytes(left) = chunk {
            let (left, rest) = skip(left, bytes);
            self.state = State::Chunked(if left == 0 { Chunk::Cr } else { Chunk::Bytes(left) });
            return Ok(rest);
        }
        let Some((byte, rest)) = bytes.split_first() else { return Ok(bytes) };
        self.state = match chunk.after(*byte).map_err(malformed)? {
            Some(next) => State::Chunked(next),
            None => State::Trailers,
        };
        Ok(rest)
    }
}

impl Chunk {
    /// What follows `byte`; `None` for the trailers.
    fn after(self, byte: u8) -> Result<Option<Self>, &'static str> {
        let next = match (self, byte) {
            (Self::Size(size, digits), _) if byte.is_ascii_hexdigit() => {
                // Sixteen digits fill 64 bits.
                if digits == 16 {
                    return Err("a chunk size that is too long");
                }
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                Self::Size(size << 4 | u64::from(digit), digits + 1)
            }
            (Self::Size(_, 0), _) => return Err("a chunk without a size"),
            (Self::Size(size, _) | Self::Pad(size), b' ' | b'\t') => Self::Pad(size),
            (Self::Size(size, _) | Self::Extension(size), b'\r') => Self::SizeLf(size),
            (Self::Extension(_), b'\n' | 0) => return Err("a chunk extension with an LF or a NUL"),
            (Self::Size(size, _) | Self::Pad(size), b';') | (Self::Extension(size), _) => {
                Self::Extension(size)
            }
            (Self::SizeLf(0), b'\n') => return Ok(None),
            (Self::SizeLf(size), b'\n') => Self::Bytes(size),
            (Self::Cr, b'\r') => Self::Lf,
            (Self::Lf, b'\n') => Self::Size(0, 0),
            (Self::Size(..) | Self::Pad(_) | Self::SizeLf(_), _) => {
                return Err("an odd chunk size");
            }
            (Self::Bytes(_) | Self::Cr | Self::Lf, _) => {
                return Err("a chunk that does not end in CRLF");
            }
        };
        Ok(Some(next))
    }
}

/// What is wrong, before it is known where.
pub(super) type Complaint = (Kind, &'static str);

pub(super) fn malformed(detail: &'static str) -> Complaint {
    (Kind::Malformed, detail)
}

fn skip(left: u64, bytes: &[u8]) -> (u64, &[u8]) {
    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    let passed = u64::try_from(here).unwrap_or(left);
    (left.saturating_sub(passed), bytes.get(here..).unwrap_or_default())
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { header_size: 300, uri_size: 100 };

    /// What reading along came to: how many bytes of body each request had, those
    /// of an unfinished one included, and the fault that ended it.
    #[derive(Debug, Default, PartialEq, Eq)]
    pub(in super::super) struct Read {
        pub(in super::super) bodies: Vec<u64>,
        pub(in super::super) finished: u64,
        pub(in super::super) fault: Option<(u64, Fault)>,
    }

    /// Reads `raw` byte by byte; all tunnels are refused.
    pub(in super::super) fn read(raw: &[u8], limits: Limits) -> Read {
        let mut scanner = Scanner::new(limits);
        let mut result = Read::default();
        for byte in raw {
            let nth = usize::try_from(scanner.nth()).expect("few requests");
            match scanner.state() {
                State::Held(_) => scanner.resume(State::Request),
                State::Sized(_) | State::Chunked(Chunk::Bytes(_)) => result.bodies[nth] += 1,
                State::Fields if result.bodies.len() == nth => result.bodies.push(0),
                _ => (),
            }
            if let Err(fault) = scanner.scan(&[*byte]) {
                result.fault = Some((scanner.nth(), fault));
                break;
            }
        }
        result.finished = scanner.nth();
        result
    }

    fn faults(raw: &[u8], sizes: &[usize]) -> (u64, Option<(u64, Part, &'static str)>) {
        let mut scanner = Scanner::new(LIMITS);
        let (mut rest, mut sizes) = (raw, sizes.iter().copied().cycle());
        while !rest.is_empty() {
            if let State::Held(_) = scanner.state() {
                scanner.resume(State::Request);
            }
            let size = sizes.next().unwrap_or(usize::MAX).clamp(1, rest.len());
            match scanner.scan(&rest[..size]) {
                Ok(passed) => rest = &rest[passed..],
                Err(fault) => {
                    let told = (scanner.nth(), fault.part, fault.detail);
                    return (scanner.nth(), Some(told));
                }
            }
        }
        (scanner.nth(), None)
    }

    /// Requests without a fault, and how many of them are whole.
    const GOOD: &[(&str, u64)] = &[
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1),
        ("GET / HTTP/1.1\r\nHost: a\r\n", 0),
        ("GET / HTTP/1.0\r\n\r\n", 1),
        ("\r\n\r\nGET / HTTP/1.1\r\nhost:\ta:80 \t\r\n\r\n", 1),
        ("GET http://a/?u@b HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 1),
        ("GET /u@b HTTP/1.1\r\nHost:\r\n\r\n", 1),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\nX: a, b\tc\r\nY:\r\n\r\n", 1),
        ("CONNECT a:443 HTTP/1.1\r\n\r\n", 1),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 2),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab\r\n\r", 1),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcd", 0),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            2,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            2,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", 1),
        (
            "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding:chunked\r\n\r\n5\r\nab\r\nc\r\nA;x=\"y\"\r\n0123456789\r\n3 ;x\r\nabc\r\n000\r\nX: y\r\nETag: 1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            2,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\nxGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            2,
        ),
        ("X-Content-Length: a HTTP/1.1", 0),
    ];

    /// Fields after a request line and a Host, and the fault of the head.
    const BAD_FIELDS: &[(&str, &str)] = &[
        ("Content-Length: 5\r\nContent-Length: 5", "two Content-Length fields"),
        ("content-length: 5\r\nX: y\r\nCONTENT-LENGTH: 6", "two Content-Length fields"),
        ("Content-Length: 5, 5", "a Content-Length that is no number"),
        ("Content-Length: +5", "a Content-Length that is no number"),
        ("Content-Length: -5", "a Content-Length that is no number"),
        ("Content-Length:  5x", "a Content-Length that is no number"),
        ("Content-Length: 0x5", "a Content-Length that is no number"),
        ("Content-Length: 5 5", "a Content-Length that is no number"),
        ("Content-Length: \x0c5", "a Content-Length that is no number"),
        ("Content-Length:", "a Content-Length that is no number"),
        ("Content-Length: 18446744073709551621", "a Content-Length that is no number"),
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Content-Length with Transfer-Encoding",
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Content-Length with Transfer-Encoding",
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "two Transfer-Encoding fields",
        ),
        ("Transfer-Encoding: gzip, chunked", "a Transfer-Encoding that is not one `chunked`"),
        ("Transfer-Encoding: chunked, chunked", "a Transfer-Encoding that is not one `chunked`"),
        ("Transfer-Encoding: chunked;x", "a Transfer-Encoding that is not one `chunked`"),
        ("Transfer-Encoding: xchunked", "a Transfer-Encoding that is not one `chunked`"),
        ("Transfer-Encoding: \x0bchunked", "a Transfer-Encoding that is not one `chunked`"),
        ("Transfer-Encoding: identity", "a Transfer-Encoding that is not one `chunked`"),
        ("Transfer-Encoding:", "a Transfer-Encoding that is not one `chunked`"),
        ("Content-Length : 5", "a field name that does not end at its colon"),
        ("X\t: 5", "a field name that does not end at its colon"),
        (": 5", "a field name that does not end at its colon"),
        ("X: 1\r\n folded", "a folded line"),
        ("X: 1\r\n\tContent-Length: 5", "a folded line"),
        ("X", "a field without a colon"),
        ("X: a\rb", "a CR that ends no line"),
        ("X: a\r\r\nY: b", "a CR that ends no line"),
        ("X: a\nContent-Length: 5", "a line that ends in a bare LF"),
        ("X: a\0b", "a NUL in a line"),
        ("Host: a", "two Host fields"),
    ];

    /// Whole requests with a fault in the head.
    const BAD_HEADS: &[(&str, &str)] = &[
        ("GET / HTTP/1.1\r\n\r\n", "no Host"),
        ("GET http://a/ HTTP/1.1\r\n\r\n", "no Host"),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", "a Host that is no single host"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "a Host that is no single host"),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "a Host that is no single host"),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "a Host that is no single host"),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", "two Host fields"),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding in HTTP/1.0"),
        ("GET /#x HTTP/1.1\r\n", "a fragment in the request target"),
        ("GET http://a/#x HTTP/1.1\r\n", "a fragment in the request target"),
        ("GET http://u@a/ HTTP/1.1\r\n", "a user in the request target"),
        ("GET http://u:p@a?x HTTP/1.1\r\n", "a user in the request target"),
        ("CONNECT u@a:443 HTTP/1.1\r\n", "a user in the request target"),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "a CONNECT with a body"),
        ("CONNECT a:443 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "a CONNECT with a body"),
        ("GET  / HTTP/1.1\r\n", "a request line that is not three words"),
        ("GET /\r\n", "a request line that is not three words"),
        ("GET / HTTP/1.1 \r\n", "a request line that is not three words"),
        ("GET / HTTP/2.0\r\n", "a version that is neither 1.1 nor 1.0"),
        ("GET / HTTP/1.1\nHost: a\n\n", "a line that ends in a bare LF"),
        ("\nGET / HTTP/1.1\r\n", "a line that ends in a bare LF"),
        ("\rGET / HTTP/1.1\r\n", "a CR that ends no line"),
    ];

    /// What follows the head of a chunked request, and its fault.
    const BAD_CHUNKS: &[(&str, &str)] = &[
        ("\r\n", "a chunk without a size"),
        (";x\r\n", "a chunk without a size"),
        ("g\r\n", "a chunk without a size"),
        ("-1\r\n", "a chunk without a size"),
        ("5\n", "an odd chunk size"),
        ("5\rx", "an odd chunk size"),
        ("0\rx\r\n", "an odd chunk size"),
        ("5 \r\n", "an odd chunk size"),
        ("5 5\r\n", "an odd chunk size"),
        ("0x5\r\n", "an odd chunk size"),
        ("00000000000000005\r\n", "a chunk size that is too long"),
        ("5;x\n", "a chunk extension with an LF or a NUL"),
        ("5;x\rx", "an odd chunk size"),
        ("1\r\nab\r\n", "a chunk that does not end in CRLF"),
        ("1\r\na\n", "a chunk that does not end in CRLF"),
        ("1\r\na\r0", "a chunk that does not end in CRLF"),
        ("0\r\n\n", "a line that ends in a bare LF"),
        ("0\r\nX: a\nContent-Length: 5\r\n\r\n", "a line that ends in a bare LF"),
        ("0\r\nX\r\n\r\n", "a field without a colon"),
        ("0\r\nX: a\r\n b\r\n\r\n", "a folded line"),
        ("0\r\ncontent-length: 5\r\n\r\n", "a trailer that belongs into the head"),
        ("0\r\nX: y\r\nHOST: 5\r\n\r\n", "a trailer that belongs into the head"),
        ("0\r\nProxy-Authorization: x\r\n", "a trailer that belongs into the head"),
        ("0\r\nIf-Match: x\r\n", "a trailer that belongs into the head"),
    ];

    fn bad() -> impl Iterator<Item = (String, Part, &'static str)> {
        let fields = BAD_FIELDS.iter().map(|(fields, detail)| {
            (format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n"), Part::Head, *detail)
        });
        let heads = BAD_HEADS.iter().map(|(raw, detail)| ((*raw).to_owned(), Part::Head, *detail));
        let chunks = BAD_CHUNKS.iter().map(|(chunks, detail)| {
            let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
            (format!("{head}{chunks}"), Part::Body, *detail)
        });
        fields.chain(heads).chain(chunks)
    }

    fn check_all(sizes: &[usize]) {
        for (raw, whole) in GOOD {
            assert_eq!(faults(raw.as_bytes(), sizes), (*whole, None), "{raw:?}");
        }
        let first = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        for (raw, part, detail) in bad() {
            let wanted = |nth| (nth, Some((nth, part, detail)));
            assert_eq!(faults(raw.as_bytes(), sizes), wanted(0), "{raw:?}");
            let second = format!("{first}{raw}");
            assert_eq!(faults(second.as_bytes(), sizes), wanted(1), "{second:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_found_in_one_piece_and_byte_by_byte() {
        check_all(&[usize::MAX]);
        check_all(&[1]);
    }

    #[test]
    fn limits_hold_at_under_and_over() {
        let target =
            |len: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(len - 1));
        assert_eq!(faults(target(100).as_bytes(), &[7]), (1, None));
        let fault = read(target(101).as_bytes(), LIMITS).fault.expect("it is too long");
        assert_eq!(fault.1.kind, Kind::TooLarge);
        // A line that comes whole costs nothing to keep, so only pieces count.
        let field = |len: usize| format!("GET / HTTP/1.0\r\nX:{}\r\n\r\n", "x".repeat(len - 2));
        assert_eq!(faults(field(299).as_bytes(), &[1]), (1, None));
        let fault = read(field(301).as_bytes(), LIMITS).fault.expect("it is too long");
        assert_eq!(fault.1.kind, Kind::TooLarge);
    }

    proptest! {
        #[test]
        fn what_is_wrong_is_found_at_any_cuts(sizes in prop::collection::vec(1_usize..40, 1..8)) {
            check_all(&sizes);
        }

        #[test]
        fn nothing_breaks_it(
            raw in prop::collection::vec(any::<u8>(), 0..200), sizes in prop::collection::vec(1_usize..40, 1..8),
        ) {
            let told = faults(&raw, &sizes);
            prop_assert_eq!(told, faults(&raw, &[usize::MAX]));
        }
    }
}
