//! Header fields that end here, and those that begin here.

use http::header::{
    CONNECTION, EXPECT, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, header};

use crate::exchange::Wishes;

/// Takes out of a request's fields what is not for the upstream, and adds `Via`.
///
/// Hop-by-hop fields go (RFC 9110, section 7.6.1), those that `Connection` names
/// too; but a client cannot nominate away what `keep` names, nor its credentials:
/// a key that is dropped on the way is a second effect. `TE: trailers` stays,
/// since gRPC wants to see it. `Expect` goes, because it is answered here.
pub fn clean_request(headers: &mut HeaderMap, keep: &HeaderName) -> Wishes {
    let found = Found::in_fields(headers);
    let wishes = if found.ours { take_wishes(headers) } else { Wishes::default() };
    if found.hop_by_hop {
        let trailers = wants_trailers(headers);
        drop_nominated(headers, keep);
        drop_hop_by_hop(headers);
        headers.remove(EXPECT);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
    headers.append(VIA, HeaderValue::from_static("1.1 samekey"));
    wishes
}

/// Takes out of a response's fields what ends at this hop, and adds `Via`.
pub fn clean_response(headers: &mut HeaderMap) {
    let found = Found::in_fields(headers);
    if found.hop_by_hop {
        drop_nominated(headers, &header::DATE);
        drop_hop_by_hop(headers);
    }
    if found.ours {
        let forged: Vec<HeaderName> = ours(headers).collect();
        for name in forged {
            headers.remove(name);
        }
    }
    headers.append(VIA, HeaderValue::from_static("1.1 samekey"));
}

/// What one look over the fields finds: most messages hold neither.
#[derive(Default)]
struct Found {
    ours: bool,
    hop_by_hop: bool,
}

impl Found {
    fn in_fields(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for name in headers.keys() {
            found.ours |= name.as_str().starts_with("samekey-");
            found.hop_by_hop |= HOP_BY_HOP.contains(name) || *name == EXPECT;
        }
        found
    }
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Whether the client asked for another protocol on this connection.
///
/// `h2c` does not count: Java's client offers it with every request to a plain URL, an
/// upstream may ignore it (RFC 9113 dropped it), and none of those is to lose its retries.
pub fn asks_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && tokens(headers, &CONNECTION).any(|name| name == "upgrade")
        && tokens(headers, &UPGRADE).any(|protocol| protocol != "h2c")
}

/// How often this proxy's name stands in `Via`.
pub fn times_seen(headers: &HeaderMap) -> usize {
    let entries = headers.get_all(VIA).iter().filter_map(|value| value.to_str().ok());
    entries.flat_map(|value| value.split(',')).filter(|hop| hop.trim() == "1.1 samekey").count()
}

/// The names that a list-valued field holds, in lower case.
pub fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = String> + 'a {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|token| token.trim().to_ascii_lowercase())
}

/// Whether a field is one of those that usually say who asks, a cookie not counted.
pub fn is_credential(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "authorization" | "api-key" | "apikey") || name.ends_with("-api-key")
}

/// Whether the content is one JSON text, by its media type: `application/json`,
/// `text/json`, or anything `+json` (RFC 6839, section 3.1). Lines of JSON are not.
pub fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    let suffix = essence.len().checked_sub("+json".len()).and_then(|at| essence.get(at..));
    ["application/json", "text/json"].iter().any(|name| essence.eq_ignore_ascii_case(name))
        || suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case("+json"))
}

/// How the content is coded, where it says so.
pub fn content_coding(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok())
}

/// Whether a field may stand in a trailer section.
///
/// RFC 9110, section 6.5.1: not where it frames, routes, authenticates, or
/// changes how the content is read.
pub fn may_trail(name: &HeaderName) -> bool {
    let text = name.as_str();
    !(NOT_IN_TRAILERS.contains(&text) || text.starts_with("proxy-"))
}

fn take_wishes(headers: &mut HeaderMap) -> Wishes {
    let names: Vec<HeaderName> = ours(headers).collect();
    let mut wishes = Wishes::default();
    for name in names {
        let value = headers.remove(&name);
        match name.as_str() {
            "samekey-key" => wishes.identity = value,
            "samekey-retry" => {
                let off = value.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"off"));
                wishes.single_attempt = off;
            }
            _ => {}
        }
    }
    wishes
}

fn ours(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> + '_ {
    headers.keys().filter(|name| name.as_str().starts_with("samekey-")).cloned()
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    headers.contains_key(TE) && tokens(headers, &TE).any(|coding| coding == "trailers")
}

fn drop_nominated(headers: &mut HeaderMap, keep: &HeaderName) {
    if !headers.contains_key(CONNECTION) {
        return;
    }
    let nominated: Vec<String> = tokens(headers, &CONNECTION).collect();
    for name in nominated {
        let kept = name == keep.as_str() || NEVER_NOMINATED.contains(&name.as_str());
        if !kept {
            headers.remove(name.as_str());
        }
    }
}

const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("http2-settings"),
];

/// Fields whose loss would change who asks, what is asked, or how often.
const NEVER_NOMINATED: [&str; 8] = [
    "idempotency-key",
    "authorization",
    "cookie",
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "via",
];

const NOT_IN_TRAILERS: [&str; 27] = [
    "age",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "host",
    "idempotency-key",
    "keep-alive",
    "location",
    "max-forwards",
    "pragma",
    "range",
    "retry-after",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "www-authenticate",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    const KEY: HeaderName = HeaderName::from_static("idempotency-key");

    #[test]
    fn a_client_cannot_nominate_its_key_or_credentials_away() {
        let mut headers = map(&[
            ("connection", "close, Idempotency-Key, authorization, x-hop"),
            ("idempotency-key", "k"),
            ("authorization", "a"),
            ("x-hop", "1"),
            ("x-end", "2"),
            ("expect", "100-continue"),
            ("te", "trailers, gzip"),
        ]);
        clean_request(&mut headers, &KEY);
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "idempotency-key", "te", "via", "x-end"]);
        assert_eq!(headers.get(TE).expect("kept"), "trailers");
    }

    #[test]
    fn one_json_text_goes_by_these_media_types() {
        for (kind, wanted) in [
            ("application/json", true),
            (" Application/JSON ; charset=utf-8", true),
            ("text/json", true),
            ("application/problem+json", true),
            ("application/vnd.api+JSON;v=1", true),
            ("application/x-ndjson", false),
            ("application/json-seq", false),
            ("application/jsonlines", false),
            ("text/html; x=application/json", false),
            ("+json", true),
            ("json", false),
            ("", false),
        ] {
            assert_eq!(is_json(&map(&[("content-type", kind)])), wanted, "{kind}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }

    #[test]
    fn our_own_fields_end_here_both_ways() {
        let mut headers =
            map(&[("samekey-key", "order-1"), ("samekey-retry", "OFF"), ("samekey-x", "y")]);
        let wishes = clean_request(&mut headers, &KEY);
        assert!(wishes.single_attempt && wishes.identity.is_some());
        assert_eq!(headers.len(), 1, "only Via is left");
        let mut forged = map(&[("samekey-attempts", "9"), ("server", "x")]);
        clean_response(&mut forged);
        assert!(!forged.contains_key("samekey-attempts") && forged.contains_key("server"));
    }

    #[test]
    fn framing_and_credentials_may_not_trail() {
        for name in ["content-length", "host", "authorization", "proxy-x", "set-cookie"] {
            assert!(!may_trail(&HeaderName::from_static(name)), "{name}");
        }
        assert!(may_trail(&HeaderName::from_static("grpc-status")));
    }
}
