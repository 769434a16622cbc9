//! Whether two requests with one key ask the same thing.
//!
//! A fingerprint digests the query, the media type and the body in the form that
//! does not change when an application asks again: JSON by its members, a form by
//! its pairs, a multipart body by its parts, all else by its bytes. It is fed while
//! the body streams, in whatever pieces that comes.
//!
//! # Invariants
//!
//! - How a body is cut into pieces never shows.
//! - What cannot be read beyond doubt (malformed, ambiguous, too large) counts by
//!   its bytes: two different orders never look the same for our not knowing.
//! - The key itself is left out, wherever it travels.

pub(super) mod canonical;
pub(super) mod media;
pub(super) mod multipart;

use std::fmt;

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use super::Carrier;
use super::key::{frame, short};
use crate::exchange::{Pointer, coding, json, query};
use media::Media;
use multipart::{Digest, Parts};

/// A digest of what was asked inside a scope.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// Makes a [`Fingerprint`] of a request whose body is still arriving.
pub struct Fingerprinter {
    asked: blake3::Hasher,
    codings: Option<String>,
    ignore: Vec<Pointer>,
    limit: usize,
    body: Body,
}

/// What is kept of the body so far.
enum Body {
    /// All of it, up to the limit: it has to be read as a whole.
    Held(Media, Vec<u8>),
    /// Parts, read as they come; the bytes are digested too, in case they are none.
    Parts(Box<Parts<Digest>>, Box<blake3::Hasher>),
    /// Its bytes, digested.
    Raw(Box<blake3::Hasher>),
}

impl Fingerprinter {
    /// Begins a fingerprint with what stands in the head of a request.
    ///
    /// The members at `ignore` and the key that `carrier` carries are left out. Up
    /// to `limit` bytes of the body are held, coded and decoded; a longer one
    /// counts by its bytes, unless it is a multipart body without a coding.
    pub fn new(
        query: Option<&str>,
        headers: &HeaderMap,
        carrier: &Carrier,
        ignore: &[Pointer],
        limit: usize,
    ) -> Self {
        let (media, essence) = Media::read(&lines(headers, &CONTENT_TYPE));
        let codings = lines(headers, &CONTENT_ENCODING).to_ascii_lowercase();
        let codings = Some(codings).filter(|codings| !matches!(codings.trim(), "" | "identity"));
        let query = query.unwrap_or_default();
        let mut ignore = ignore.to_vec();
        let mut asked = blake3::Hasher::new();
        frame(&mut asked, LABEL.as_bytes());
        match carrier {
            Carrier::Query(name) => frame(&mut asked, query::without(query, name).as_bytes()),
            Carrier::Header(_) => frame(&mut asked, query.as_bytes()),
            Carrier::Json(pointer) => {
                ignore.push(pointer.clone());
                frame(&mut asked, query.as_bytes());
            }
        }
        frame(&mut asked, essence.as_bytes());
        let body = match (media, &codings) {
            (Media::Bytes, None) => Body::Raw(Box::default()),
            (Media::Multipart(boundary), None) => {
                Body::Parts(Box::new(Parts::new(&boundary, Digest::default())), Box::default())
            }
            (media, _) => Body::Held(media, Vec::new()),
        };
        Self { asked, codings, ignore, limit, body }
    }

    /// Takes the next piece of the body.
    pub fn feed(&mut self, piece: &[u8]) {
        match &mut self.body {
            Body::Held(_, held) if held.len() + piece.len() <= self.limit => {
                held.extend_from_slice(piece);
            }
            Body::Held(_, held) => {
                let mut raw = Box::<blake3::Hasher>::default();
                raw.update(held).update(piece);
                self.body = Body::Raw(raw);
            }
            Body::Parts(parts, raw) => {
                parts.feed(piece);
                raw.update(piece);
            }
            Body::Raw(raw) => {
                raw.update(piece);
            }
        }
    }

    /// The fingerprint, once the body is complete.
    pub fn finish(self) -> Fingerprint {
        let Self { asked, codings, ignore, limit, body } = self;
        let codings = codings.unwrap_or_default();
        let (form, digest) = match body {
            Body::Raw(raw) => (format!("bytes {codings}"), raw.finalize()),
            Body::Parts(parts, raw) => match parts.finish() {
                Some(digest) => ("parts".to_owned(), digest.finish()),
                None => ("bytes ".to_owned(), raw.finalize()),
            },
            Body::Held(media, held) => match coding::decode(Some(&codings), &held, limit) {
                Some(plain) => match canonical(&media, &plain, &ignore) {
                    Some((form, digest)) => (form.to_owned(), digest),
                    None => ("bytes ".to_owned(), blake3::hash(&plain)),
                },
                None => (format!("bytes {codings}"), blake3::hash(&held)),
            },
        };
        let mut asked = asked;
        frame(&mut asked, form.as_bytes());
        frame(&mut asked, digest.as_bytes());
        Fingerprint(*asked.finalize().as_bytes())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({})", short(&self.0))
    }
}

impl fmt::Debug for Fingerprinter {
    /// It holds a body, which no log gets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprinter(..)")
    }
}

/// The form in which a body is compared, and its digest in that form.
fn canonical(
    media: &Media,
    body: &[u8],
    ignore: &[Pointer],
) -> Option<(&'static str, blake3::Hash)> {
    match media {
        Media::Json => {
            let root = json::parse(body).ok().filter(|root| !root.has_duplicate_names())?;
            Some(("json", canonical::json(&root, ignore)))
        }
        Media::Form => Some(("form", canonical::form(body))),
        Media::Multipart(boundary) => {
            let mut parts = Parts::new(boundary, Digest::default());
            parts.feed(body);
            parts.finish().map(|digest| ("parts", digest.finish()))
        }
        Media::Bytes => None,
    }
}

/// All lines of a field as one, the way RFC 9110, section 5.3, joins them.
pub(super) fn lines(headers: &HeaderMap, name: &http::HeaderName) -> String {
    let lines = headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    lines.collect::<Vec<_>>().join(", ")
}

/// A change to what is digested changes this: records of before then never match.
const LABEL: &str = "samekey fingerprint v1";

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    const JSON: &str = "application/json";
    const UPLOAD: &str = "multipart/form-data; boundary=b";

    fn fingerprinter(
        media: &str,
        codings: &str,
        query: Option<&str>,
        carrier: &Carrier,
    ) -> Fingerprinter {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(media).expect("a field value"));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_str(codings).expect("a field value"));
        let ignore = [Pointer::parse("/at").expect("a pointer")];
        Fingerprinter::new(query, &headers, carrier, &ignore, 1000)
    }

    fn in_header() -> Carrier {
        Carrier::Header(HeaderName::from_static("idempotency-key"))
    }

    fn of(media: &str, body: impl AsRef<[u8]>) -> Fingerprint {
        coded(media, "", body.as_ref())
    }

    fn coded(media: &str, codings: &str, body: &[u8]) -> Fingerprint {
        let mut made = fingerprinter(media, codings, None, &in_header());
        made.feed(body);
        made.finish()
    }

    fn gzip(body: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
        encoder.write_all(body).expect("a vector takes all");
        encoder.finish().expect("a vector takes all")
    }

    #[test]
    fn the_same_order_written_otherwise_is_the_same() {
        let upload = |boundary: &str| {
            let part = "Content-Disposition: form-data; name=\"f\"; filename=\"f.png\"\r\n\
                Content-Type: image/png";
            format!("--{boundary}\r\n{part}\r\n\r\nbytes\r\n--{boundary}--\r\n")
        };
        for (one, other) in [
            (of(JSON, r#"{"a":1,"b":[2]}"#), of(JSON, r#" {"b": [2], "a": 1}"#)),
            (of(JSON, "{}"), of("Application/JSON;charset=utf-8", "{ }")),
            (of(JSON, r#"{"a":1,"at":5}"#), of(JSON, r#"{"at":6,"a":1}"#)),
            (
                of("multipart/form-data; boundary=b", upload("b")),
                of("multipart/form-data; boundary=\"x y\"", upload("x y")),
            ),
            (of(JSON, "[1]"), coded(JSON, "gzip", &gzip(b"[ 1 ]", 0))),
            (of("text/plain", "x"), coded("text/plain", "gzip", &gzip(b"x", 9))),
            (
                of("multipart/form-data; boundary=b", upload("b")),
                coded("multipart/form-data; boundary=c", "gzip", &gzip(upload("c").as_bytes(), 9)),
            ),
        ] {
            assert_eq!(one, other);
        }
    }

    #[test]
    fn another_order_is_another() {
        let part = |fields: &str, body: &str| {
            of(UPLOAD, format!("--b\r\n{fields}\r\n\r\n{body}\r\n--b--"))
        };
        let all = [
            of(JSON, ""),
            of(JSON, "{}"),
            of(JSON, r#"{"a":1}"#),
            of(JSON, r#"{"a":1,"a":1}"#),
            of(JSON, r#"{"a": 1,"a":1}"#),
            of(JSON, r#"{"a":1"#),
            of(JSON, r#"{"a": 1"#),
            of("application/x+json", "{}"),
            of("text/plain", "{}"),
            of("", "{}"),
            coded(JSON, "gzip", b"{}"),
            coded(JSON, "unknown", b"{}"),
            part("Content-Disposition: form-data; name=a", "x"),
            part("Content-Disposition: form-data; name=b", "x"),
            part("Content-Disposition: form-data; name=a", "y"),
            part("Content-Disposition: form-data; name=a; filename=x", "x"),
            part("Content-Disposition: form-data; name=a; filename=\"\"", "x"),
            part("Content-Type: a", "x"),
            of(UPLOAD, "--b\r\n\r\nx\r\n--b\r\n\r\ny\r\n--b--"),
            of(UPLOAD, "--b\r\n\r\ny\r\n--b\r\n\r\nx\r\n--b--"),
            of(UPLOAD, "--b\r\n\r\nxy\r\n--b--"),
            of(UPLOAD, "--b"),
            of(UPLOAD, "--c"),
        ];
        for (nth, one) in all.iter().enumerate() {
            assert_eq!(all.iter().position(|other| other == one), Some(nth));
        }
    }

    #[test]
    fn a_body_is_read_up_to_the_limit_and_counts_by_its_bytes_beyond() {
        for (length, is_read) in [(999, true), (1000, true), (1001, false)] {
            let (one, other) = (format!("{:length$}", "1"), format!("{:>length$}", "1"));
            assert_eq!(of(JSON, &one) == of(JSON, &other), is_read, "{length}");
            let (one, other) = (gzip(one.as_bytes(), 9), gzip(other.as_bytes(), 9));
            let are_equal = coded(JSON, "gzip", &one) == coded(JSON, "gzip", &other);
            assert_eq!(are_equal, is_read, "{length}, coded");
        }
    }

    #[test]
    fn the_key_itself_is_left_out_wherever_it_travels() {
        let in_json = Carrier::Json(Pointer::parse("/key").expect("a pointer"));
        let of = |body: &str| {
            let mut made = fingerprinter(JSON, "", None, &in_json);
            made.feed(body.as_bytes());
            made.finish()
        };
        assert_eq!(of(r#"{"key":"a","n":1}"#), of(r#"{"n":1,"key":"b"}"#));
        assert_eq!(of(r#"{"key":"a","n":1}"#), of(r#"{"n":1}"#));
        assert_ne!(of(r#"{"key":"a","n":1}"#), of(r#"{"key":"a","n":2}"#));

        let in_query = Carrier::Query("key".to_owned());
        let of = |query| fingerprinter(JSON, "", query, &in_query).finish();
        assert_eq!(of(Some("n=1&key=a")), of(Some("k%65y=b&n=1")));
        assert_eq!(of(Some("key=a")), of(None));
        assert_ne!(of(Some("n=1&key=a")), of(Some("n=2&key=a")));
    }

    #[test]
    fn a_query_counts_as_it_came() {
        let of = |query| fingerprinter(JSON, "", query, &in_header()).finish();
        assert_ne!(of(Some("a=1&b=2")), of(Some("b=2&a=1")));
        assert_ne!(of(Some("a=1")), of(None));
        assert_eq!(of(Some("")), of(None));
    }

    #[test]
    fn a_fingerprint_shows_eight_digits_of_itself() {
        assert_eq!(format!("{:?}", Fingerprint([0xab; 32])), "Fingerprint(abababab)");
    }

    proptest! {
        #[test]
        fn how_a_body_is_cut_does_not_show(
            kind in 0_usize..4,
            body in proptest::collection::vec(
                prop_oneof![Just("\r\n"), Just("--b"), Just("--"), Just("x"), Just("{"), Just("}"),
                            Just("a=1&"), Just("A: b"), Just("\r\n\r\n"), Just("\r\n--b\r\n")],
                0..40,
            ),
            cuts in proptest::collection::vec(1_usize..9, 1..20),
        ) {
            let media = [JSON, UPLOAD, "application/x-www-form-urlencoded", "text/plain"][kind];
            // Half of the multipart bodies should be whole.
            let body = format!("--b\r\n\r\n{}\r\n--b--", body.concat());
            let mut made = fingerprinter(media, "", None, &in_header());
            let mut rest = body.as_bytes();
            for cut in cuts.iter().cycle() {
                let (piece, behind) = rest.split_at((*cut).min(rest.len()));
                made.feed(piece);
                rest = behind;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(made.finish(), of(media, &body));
        }
    }
}
