//! A response at rest: what a repeat is answered with.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::exchange::{Body, Response, coding, headers};

/// A response at rest; cheap to clone.
#[derive(Clone, Debug)]
pub struct Record(Arc<Kept>);

#[derive(Debug)]
struct Kept {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Record {
    /// Keeps a response: its status, the fields of the allow-list, its body.
    pub fn new(status: StatusCode, headers: &HeaderMap, body: Bytes) -> Self {
        let kept = headers.iter().filter(|(name, _)| is_kept(name));
        let headers = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        Self(Arc::new(Kept { status, headers, body }))
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The fields that are kept.
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        &self.0.body
    }

    /// Bytes that it takes.
    pub fn size(&self) -> u64 {
        let fields =
            self.0.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64);
        (self.0.body.len() + fields.sum::<usize>() + 128) as u64
    }

    /// Status and fields as bytes, without the body: what [`unpack`](Self::unpack) reads.
    pub fn pack(&self) -> Vec<u8> {
        let mut packed = vec![PACKED_V1];
        packed.extend_from_slice(&self.0.status.as_u16().to_be_bytes());
        for (name, value) in &self.0.headers {
            for part in [name.as_str().as_bytes(), value.as_bytes()] {
                // No listener takes a field of 4 GiB, nor does an upstream's connection.
                let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
                packed.extend_from_slice(&length.to_be_bytes());
                packed.extend_from_slice(part);
            }
        }
        packed
    }

    /// The record of which `packed` is status and fields; `None` where it is no such thing.
    pub fn unpack(packed: &[u8], body: Bytes) -> Option<Self> {
        let packed = packed.strip_prefix(&[PACKED_V1])?;
        let (status, mut rest) = packed.split_first_chunk::<2>()?;
        let status = StatusCode::from_u16(u16::from_be_bytes(*status)).ok()?;
        let mut headers = HeaderMap::new();
        while !rest.is_empty() {
            let name = HeaderName::from_bytes(part(&mut rest)?).ok()?;
            headers.append(name, HeaderValue::from_bytes(part(&mut rest)?).ok()?);
        }
        Some(Self(Arc::new(Kept { status, headers, body })))
    }

    /// The response again, in a coding that whoever asks now can read.
    pub fn replay(&self, asked: &HeaderMap) -> Response {
        let mut headers = self.0.headers.clone();
        let mut body = self.0.body.clone();
        let encoding = headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok());
        if let Some(encoding) = encoding
            && !accepts(asked, encoding)
            && let Some(plain) = coding::decode(Some(encoding), &body, DECODED_MAX)
        {
            body = Bytes::from(plain.into_owned());
            headers.remove(CONTENT_ENCODING);
        }
        Response { status: self.0.status, headers, body: Body::full(body), upgrade: None }
    }
}

/// Takes one framed part off what is packed.
fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (part, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(part)
}

/// The allow-list: what the body is, where the thing is, what it is called. Never
/// a cookie, a credential, or what was true only when it was sent.
fn is_kept(name: &HeaderName) -> bool {
    let text = name.as_str();
    let about_body = text.starts_with("content-") && *name != CONTENT_LENGTH;
    let about_thing = matches!(text, "location" | "etag" | "link" | "last-modified");
    let request_id = ["request-id", "requestid", "correlation-id", "trace-id"]
        .iter()
        .any(|id| text.ends_with(id));
    let secret =
        ["token", "secret", "api-key", "password", "cookie"].iter().any(|s| text.contains(s));
    (about_body || about_thing || request_id) && !secret
}

/// RFC 9110, section 12.5.3: no field at all means that anything will do.
fn accepts(asked: &HeaderMap, encoding: &str) -> bool {
    if !asked.contains_key(ACCEPT_ENCODING) {
        return true;
    }
    let accepted = headers::tokens(asked, &ACCEPT_ENCODING);
    accepted.into_iter().any(|offer| {
        let (name, weight) = offer.split_once(';').unwrap_or((&offer, ""));
        let refused = weight.trim().trim_start_matches("q=").parse() == Ok(0.0_f32);
        !refused && (name.trim() == "*" || name.trim().eq_ignore_ascii_case(encoding))
    })
}

/// A change to how a record is packed takes another number.
const PACKED_V1: u8 = 1;
/// A small record that decodes into more than this stays coded.
const DECODED_MAX: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked_and_nothing_else_is() {
        let mut headers = HeaderMap::new();
        headers.append("link", HeaderValue::from_static("<a>"));
        headers.append("link", HeaderValue::from_static("<b>"));
        headers.append("etag", HeaderValue::from_bytes(b"\"\xfc\"").expect("a value"));
        let record = Record::new(StatusCode::CREATED, &headers, Bytes::from_static(b"body"));
        let packed = record.pack();
        let again = Record::unpack(&packed, record.body().clone()).expect("a record");
        assert_eq!((again.status(), &again.0.headers), (record.status(), &record.0.headers));
        assert_eq!(again.body(), record.body());
        let cut = (0..packed.len()).filter(|at| {
            packed.get(..*at).is_some_and(|cut| Record::unpack(cut, Bytes::new()).is_some())
        });
        // Cut between two fields it is a record of fewer of them; a row is written whole.
        assert_eq!(cut.count(), 3);
        assert!(Record::unpack(b"\x02\x00\xc9", Bytes::new()).is_none(), "another version");
    }

    #[test]
    fn only_what_stays_true_is_kept() {
        let mut headers = HeaderMap::new();
        for name in [
            "content-type",
            "content-length",
            "location",
            "etag",
            "x-request-id",
            "set-cookie",
            "date",
            "retry-after",
            "x-token-request-id",
            "authorization",
            "server",
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("v"));
        }
        let record = Record::new(StatusCode::CREATED, &headers, Bytes::new());
        let mut kept: Vec<&str> = record.0.headers.keys().map(HeaderName::as_str).collect();
        kept.sort_unstable();
        assert_eq!(kept, ["content-type", "etag", "location", "x-request-id"]);
    }

    #[test]
    fn a_coding_that_the_asker_cannot_read_is_undone() {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"{\"id\":1}").expect("memory takes it");
        let body = encoder.finish().expect("memory takes it");
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let record = Record::new(StatusCode::OK, &headers, Bytes::from(body.clone()));
        let mut asked = HeaderMap::new();
        assert_eq!(record.replay(&asked).body.as_full().expect("full"), body);
        asked.insert(ACCEPT_ENCODING, HeaderValue::from_static("br, gzip;q=0"));
        let plain = record.replay(&asked);
        assert_eq!(plain.body.as_full().expect("full"), "{\"id\":1}");
        assert!(!plain.headers.contains_key(CONTENT_ENCODING));
    }
}
