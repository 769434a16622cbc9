//! The head of a delivery: which fields are kept, and how they stand in the store.

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::exchange::{Body, Origin, Request, RequestParts};
use crate::inbox::identity::DeliveryId;

/// Method, target and fields of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// The method.
    pub method: Method,
    /// Where it goes.
    pub origin: Origin,
    /// Path and query, byte for byte as they came.
    pub path: PathAndQuery,
    /// The fields that are kept.
    pub headers: HeaderMap,
}

impl Parcel {
    /// The head of a request, with the fields that are kept.
    pub fn of(request: &Request, also: &[HeaderName]) -> Self {
        Self {
            method: request.method.clone(),
            origin: request.origin.clone(),
            path: request.path.clone(),
            headers: kept(&request.headers, also),
        }
    }

    /// As it stands in the store: a line each, which none of them can hold a break of.
    pub fn written(&self) -> Vec<u8> {
        let mut text = format!("{} {}\n{}\n", self.method, self.origin, self.path).into_bytes();
        for (name, value) in &self.headers {
            text.extend_from_slice(name.as_str().as_bytes());
            text.push(b':');
            text.extend_from_slice(value.as_bytes());
            text.push(b'\n');
        }
        text
    }

    /// Reads what was written; `None` where it is something else.
    pub fn read(text: &[u8]) -> Option<Self> {
        let mut lines = text.split(|byte| *byte == b'\n');
        let (method, origin) = std::str::from_utf8(lines.next()?).ok()?.split_once(' ')?;
        let path = PathAndQuery::try_from(lines.next()?).ok()?;
        let mut headers = HeaderMap::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let mut halves = line.splitn(2, |byte| *byte == b':');
            let name = HeaderName::from_bytes(halves.next()?).ok()?;
            headers.append(name, HeaderValue::from_bytes(halves.next()?).ok()?);
        }
        let method = Method::from_bytes(method.as_bytes()).ok()?;
        Some(Self { method, origin: Origin::parse(origin).ok()?, path, headers })
    }

    /// The request that brings it to the application.
    pub fn request(self, id: DeliveryId, body: Bytes) -> Request {
        let mut request = RequestParts::new(self.method, self.origin, self.path, Body::full(body));
        request.headers = self.headers;
        if let Ok(id) = HeaderValue::try_from(id.to_string()) {
            request.headers.insert(DELIVERY, id);
        }
        request
    }
}

/// The fields that are kept: those that say what the body is and which event it is
/// about, and `also`. Never one that is a credential.
fn kept(headers: &HeaderMap, also: &[HeaderName]) -> HeaderMap {
    let wanted = headers.iter().filter(|(name, _)| also.contains(name) || is_kept(name.as_str()));
    wanted.map(|(name, value)| (name.clone(), value.clone())).collect::<Fields>().0
}

/// `HeaderMap` takes no repeated names from an iterator; this appends.
struct Fields(HeaderMap);

impl FromIterator<(HeaderName, HeaderValue)> for Fields {
    fn from_iter<I: IntoIterator<Item = (HeaderName, HeaderValue)>>(pairs: I) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        Self(headers)
    }
}

fn is_kept(name: &str) -> bool {
    KEPT.contains(&name)
        || KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            && !CREDENTIALS.iter().any(|word| name.contains(word))
            && !name.ends_with("-auth")
}

/// What each attempt of a delivery carries.
pub const DELIVERY: HeaderName = HeaderName::from_static("samekey-delivery");

/// What says how the body is to be read, and who sent it.
const KEPT: [&str; 10] = [
    "content-type",
    "content-encoding",
    "content-language",
    "content-digest",
    "date",
    "idempotency-key",
    "traceparent",
    "tracestate",
    "user-agent",
    "via",
];
/// What providers put an event's name, time and signature in; events of the cloud have `ce-`.
const KEPT_PREFIXES: [&str; 3] = ["x-", "webhook-", "ce-"];
/// Parts of the names of fields that hold a secret.
const CREDENTIALS: [&str; 8] =
    ["api-key", "apikey", "auth-", "cookie", "password", "secret", "session", "token"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::tests::{full, headers, request};

    #[test]
    fn what_is_written_is_read_to_the_byte() {
        let mut asked = request(Method::POST, full("body"));
        asked.path = PathAndQuery::from_static("/hooks?a=%20b&c");
        asked.headers = headers(&[("x-event", "a:b"), ("x-event", "second"), ("x-empty", "")]);
        let odd = HeaderValue::from_bytes(b"\xff\tq").expect("a value");
        asked.headers.append("x-odd", odd);
        let parcel = Parcel::of(&asked, &[]);
        assert_eq!(parcel.headers.len(), 4);
        assert_eq!(Parcel::read(&parcel.written()), Some(parcel));
        for text in [&b""[..], b"POST", b"POST https://a.test", b"POST nowhere\n/\n"] {
            assert_eq!(Parcel::read(text), None, "{text:?}");
        }
        assert_eq!(Parcel::read(b"POST https://a.test\n/\nno field\n"), None);
    }

    #[test]
    fn what_says_whose_it_is_is_kept_and_what_proves_it_to_others_is_not() {
        let fields = headers(&[
            ("content-type", "application/json"),
            ("user-agent", "hooks/1"),
            ("x-signature", "sha256=00"),
            ("webhook-id", "w"),
            ("ce-type", "t"),
            ("authorization", "Bearer x"),
            ("cookie", "a=b"),
            ("x-api-key", "k"),
            ("x-auth-token", "k"),
            ("x-hook-secret", "k"),
            ("accept", "*/*"),
            ("provider-signature", "t=1"),
        ]);
        let names = |also: &[HeaderName]| {
            let mut names: Vec<_> = kept(&fields, also).keys().map(ToString::to_string).collect();
            names.sort_unstable();
            names.join(" ")
        };
        let usual = "ce-type content-type user-agent webhook-id x-signature";
        assert_eq!(names(&[]), usual);
        let also = [HeaderName::from_static("provider-signature")];
        assert_eq!(
            names(&also),
            "ce-type content-type provider-signature user-agent webhook-id x-signature"
        );
    }

    #[test]
    fn each_attempt_says_which_delivery_it_is() {
        let parcel = Parcel::of(&request(Method::POST, full("")), &[]);
        let request = parcel.request(DeliveryId([0xab; 32]), Bytes::from_static(b"body"));
        assert_eq!(request.headers.get(DELIVERY).expect("an id"), &"ab".repeat(16));
        assert_eq!(request.body.length(), Some(4));
    }
}
