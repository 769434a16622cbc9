//! What makes two deliveries one, and the id that an application knows a delivery by.

use std::fmt;

use http::{HeaderMap, HeaderName};

use crate::exchange::{Pointer, coding, headers, json};
use crate::journal::bodies::Hash;

/// Where a delivery says which event it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// In a member of its JSON body.
    Json(Pointer),
    /// In a header field.
    Header(HeaderName),
}

/// What a delivery is found by: a digest of its route and of its identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId(pub Hash);

/// What a delivery is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// By the identity that it names.
    ByIdentity(DeliveryId),
    /// By its body, since it names none: it is not turned away for that.
    ByBody(DeliveryId),
}

impl Identity {
    /// What a delivery on `route` is known by; at most `limit` bytes are read out of a
    /// body that is coded.
    pub fn of(&self, route: &str, fields: &HeaderMap, body: &[u8], limit: usize) -> Known {
        let named = match self {
            Self::Header(name) => fields.get(name).map(|value| value.as_bytes().to_vec()),
            Self::Json(pointer) => member(pointer, fields, body, limit),
        };
        match named.filter(|named| !named.is_empty()) {
            Some(named) => Known::ByIdentity(DeliveryId::of(IDENTITY, route, &named)),
            None => Known::ByBody(DeliveryId::of(BODY, route, body)),
        }
    }
}

/// The scalar at a place of the body; none where there are two of its name.
fn member(pointer: &Pointer, fields: &HeaderMap, body: &[u8], limit: usize) -> Option<Vec<u8>> {
    let text = coding::decode(headers::content_coding(fields), body, limit)?;
    let root = json::parse(&text).ok()?;
    root.find(pointer).ok()??.text().map(|text| text.as_bytes().to_vec())
}

impl DeliveryId {
    /// Without the secret, so that replicas give one event one id.
    fn of(context: &str, route: &str, what: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(route.as_bytes()).update(&[0]).update(what);
        Self(*hasher.finalize().as_bytes())
    }
}

impl Known {
    /// The id.
    pub fn id(self) -> DeliveryId {
        match self {
            Self::ByIdentity(id) | Self::ByBody(id) => id,
        }
    }
}

impl fmt::Display for DeliveryId {
    /// Half of the digest, as the application sees it: enough to tell all events apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(SHOWN_BYTES).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const IDENTITY: &str = "samekey 2026 delivery identity";
const BODY: &str = "samekey 2026 delivery body";
const SHOWN_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::tests::headers;

    fn json(pointer: &str) -> Identity {
        Identity::Json(Pointer::parse(pointer).expect("a pointer"))
    }

    fn known(identity: &Identity, fields: &[(&'static str, &str)], body: &str) -> Known {
        identity.of("hooks", &headers(fields), body.as_bytes(), 1024)
    }

    #[test]
    fn two_deliveries_of_one_event_are_one_whatever_else_is_in_them() {
        let identity = json("/data/request_id");
        let first = known(&identity, &[], r#"{"data": {"request_id": "r-1"}, "attempt": 1}"#);
        assert!(matches!(first, Known::ByIdentity(_)));
        for (body, same) in [
            (r#"{"attempt": 2, "data": {"request_id": "r-1"}}"#, true),
            (r#"{"data": {"request_id": "r\u002d1"}}"#, true),
            (r#"{"data": {"request_id": "r-2"}}"#, false),
            (r#"{"data": {"request_id": "R-1"}}"#, false),
        ] {
            assert_eq!(known(&identity, &[], body) == first, same, "{body}");
        }
        let other = identity.of("other", &headers(&[]), br#"{"data": {"request_id": "r-1"}}"#, 99);
        assert_ne!(other, first, "another route has events of its own");
    }

    #[test]
    fn one_that_names_no_event_is_known_by_its_body() {
        let identity = json("/id");
        for body in
            ["{}", "", "no JSON", r#"{"id": null}"#, r#"{"id": ""}"#, r#"{"id": 1, "id": 2}"#]
        {
            let id = known(&identity, &[], body);
            assert!(matches!(id, Known::ByBody(_)), "{body}");
            assert_eq!(known(&identity, &[], body), id, "{body}");
        }
        assert_ne!(known(&identity, &[], "{}"), known(&identity, &[], "{ }"));
        // What an event is called never stands for the body of another.
        assert_ne!(
            known(&json("/id"), &[], r#"{"id": "{}"}"#).id(),
            known(&identity, &[], "{}").id()
        );
    }

    #[test]
    fn a_field_names_an_event_too() {
        let identity = Identity::Header(HeaderName::from_static("x-event-id"));
        let first = known(&identity, &[("x-event-id", "e-1")], "a");
        assert!(matches!(first, Known::ByIdentity(_)));
        assert_eq!(known(&identity, &[("x-event-id", "e-1")], "b"), first);
        assert!(matches!(known(&identity, &[], "a"), Known::ByBody(_)));
    }

    #[test]
    fn a_body_that_is_coded_is_read_up_to_a_limit() {
        use std::io::Write as _;
        let text = format!(r#"{{"id": "e-1", "pad": "{}"}}"#, "x".repeat(2000));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).expect("into memory");
        let coded = gzip.finish().expect("into memory");
        let fields = headers(&[("content-encoding", "gzip")]);
        let plain = json("/id").of("hooks", &headers(&[]), text.as_bytes(), 0);
        for (limit, same) in [(text.len(), true), (text.len() - 1, false)] {
            assert_eq!(json("/id").of("hooks", &fields, &coded, limit) == plain, same, "{limit}");
        }
    }

    #[test]
    fn the_id_is_the_same_in_every_version() {
        let id = known(&json("/id"), &[], r#"{"id": "e-1"}"#).id().to_string();
        assert_eq!(id, "08f7f84ec913a7096fde4866f408f385");
    }
}
