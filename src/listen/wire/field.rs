//! The lines of a head that decide where a message goes and where it ends.

use http::Version;
use memchr::memchr;

use super::scan::{Complaint, malformed};
use super::watch::Kind;

/// What the head of a request has said so far.
#[derive(Debug)]
pub(super) struct Head {
    aim: Aim,
    version: Version,
    host: bool,
    upgrade: bool,
    body: Option<Framing>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    /// CONNECT.
    Tunnel,
    /// Any other method.
    Resource,
}

/// Where the body of a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// After so many bytes.
    Sized(u64),
    /// After its last chunk and its trailers.
    Chunked,
}

impl Head {
    /// Reads a request line: a method, a target and a version, one space apart.
    pub(super) fn of_request_line(line: &[u8], uri_size: usize) -> Result<Self, Complaint> {
        let mut words = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(malformed("a request line that is not three words"));
        };
        if target.len() > uri_size {
            return Err((Kind::TooLarge, "a request target that is too long"));
        }
        let version = match version {
            b"HTTP/1.1" => Version::HTTP_11,
            b"HTTP/1.0" => Version::HTTP_10,
            _ => return Err(malformed("a version that is neither 1.1 nor 1.0")),
        };
        check_target(target).map_err(malformed)?;
        let aim = if method == b"CONNECT" { Aim::Tunnel } else { Aim::Resource };
        Ok(Self { aim, version, host: false, upgrade: false, body: None })
    }

    /// Reads a field line.
    pub(super) fn field(&mut self, line: &[u8]) -> Result<(), &'static str> {
        let (name, value) = split(line)?;
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(value),
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade = true;
                Ok(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value),
            _ => Ok(()),
        }
    }

    /// Where the body ends, once all fields are read.
    pub(super) fn framing(&self) -> Result<Framing, &'static str> {
        match self.aim {
            Aim::Tunnel if self.body.is_some() => Err("a CONNECT with a body"),
            // A CONNECT names its host in the target, and may leave it at that.
            Aim::Resource if !self.host && self.version == Version::HTTP_11 => Err("no Host"),
            Aim::Tunnel | Aim::Resource => Ok(self.body.unwrap_or(Framing::Sized(0))),
        }
    }

    /// Whether the response decides if HTTP goes on.
    pub(super) fn asks_for_other(&self) -> bool {
        self.aim == Aim::Tunnel || (self.upgrade && self.version == Version::HTTP_11)
    }

    fn host(&mut self, value: &[u8]) -> Result<(), &'static str> {
        if self.host {
            return Err("two Host fields");
        }
        self.host = true;
        // What a host and a port may hold (RFC 3986, section 3.2.2), but for the
        // comma, which makes it a list.
        let sign = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%:[]".contains(byte);
        if value.iter().all(sign) { Ok(()) } else { Err("a Host that is no single host") }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), &'static str> {
        // Eighteen digits are an exabyte, and fit.
        let digits = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
        if !digits {
            return Err("a Content-Length that is no number");
        }
        let length = value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        self.frame(Framing::Sized(length))
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), &'static str> {
        if self.version == Version::HTTP_10 {
            return Err("Transfer-Encoding in HTTP/1.0");
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err("a Transfer-Encoding that is not one `chunked`");
        }
        self.frame(Framing::Chunked)
    }

    fn frame(&mut self, framing: Framing) -> Result<(), &'static str> {
        match (self.body.replace(framing), framing) {
            (None, _) => Ok(()),
            (Some(Framing::Sized(_)), Framing::Sized(_)) => Err("two Content-Length fields"),
            (Some(Framing::Chunked), Framing::Chunked) => Err("two Transfer-Encoding fields"),
            (Some(_), _) => Err("Content-Length with Transfer-Encoding"),
        }
    }
}

/// Checks a line after the last chunk: it may not change what was said before
/// the body (RFC 9110, section 6.5.1).
pub(super) fn trailer(line: &[u8]) -> Result<(), &'static str> {
    let (name, _value) = split(line)?;
    let starts = |start: &[u8]| {
        name.get(..start.len()).is_some_and(|first| first.eq_ignore_ascii_case(start))
    };
    let forbidden = FORBIDDEN_TRAILERS.iter().any(|other| name.eq_ignore_ascii_case(other))
        || starts(b"proxy-")
        || starts(b"if-");
    if forbidden { Err("a trailer that belongs into the head") } else { Ok(()) }
}

/// A field's name, and its value without the white space around it.
fn split(line: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    if let [b' ' | b'\t', ..] = line {
        return Err("a folded line");
    }
    let colon = memchr(b':', line).and_then(|colon| line.split_at_checked(colon));
    match colon {
        Some(([] | [.., b' ' | b'\t'], _)) => Err("a field name that does not end at its colon"),
        Some((name, value)) => Ok((name, trim(value.get(1..).unwrap_or_default()))),
        None => Err("a field without a colon"),
    }
}

/// Optional white space is spaces and tabs: no other sign is taken off a length.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// What hyper would drop or take without a word.
fn check_target(target: &[u8]) -> Result<(), &'static str> {
    if memchr(b'#', target).is_some() {
        return Err("a fragment in the request target");
    }
    if target.first() == Some(&b'/') {
        return Ok(());
    }
    // Absolute-form, or the authority-form of CONNECT.
    let scheme = target.windows(3).position(|three| three == b"://").map_or(0, |at| at + 3);
    let rest = target.get(scheme..).unwrap_or_default();
    let authority = rest.split(|byte| matches!(byte, b'/' | b'?')).next().unwrap_or_default();
    if authority.contains(&b'@') { Err("a user in the request target") } else { Ok(()) }
}

/// Fields of framing, routing, authentication, request modifiers and content.
const FORBIDDEN_TRAILERS: &[&[u8]] = &[
    b"age",
    b"authorization",
    b"cache-control",
    b"connection",
    b"content-encoding",
    b"content-length",
    b"content-location",
    b"content-range",
    b"content-type",
    b"cookie",
    b"date",
    b"expect",
    b"expires",
    b"host",
    b"idempotency-key",
    b"keep-alive",
    b"location",
    b"max-forwards",
    b"pragma",
    b"range",
    b"retry-after",
    b"set-cookie",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"vary",
    b"via",
    b"warning",
    b"www-authenticate",
];
