//! Ids that a route takes from requests and answers, for the ledger to show.
//!
//! What cannot be read beyond doubt is left out: a value that is no scalar, that stands
//! there twice, that is empty or longer than an id is. Credentials are never among them;
//! the config refuses to name one ([`is_secret`]).

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};

use crate::exchange::{Pointer, Request, Trail, coding, headers, json};
use crate::idempotency::gather::Gatherer;
use crate::idempotency::tee::Tee;
use crate::idempotency::terms::Shared;

/// Named ids and where they stand; a clone shares them.
#[derive(Clone, Debug, Default)]
pub struct Captures(Arc<[(String, Place)]>);

/// Where an id stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the answer's JSON.
    Answer(Pointer),
    /// In a header field of the answer.
    AnswerField(HeaderName),
    /// In the request's JSON.
    Request(Pointer),
    /// In a field of the request's form, or a part of its multipart body; of a file,
    /// its name.
    RequestPart(String),
    /// In a header field of the request.
    RequestField(HeaderName),
}

/// Names and values.
pub(super) type Ids = Vec<(String, String)>;

impl Captures {
    /// Takes these, by names that differ.
    pub fn new(all: Vec<(String, Place)>) -> Self {
        Self(all.into())
    }

    /// The names, and where each stands.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Place)> {
        self.0.iter().map(|(name, place)| (name.as_str(), place))
    }

    /// Whether the body of an answer is wanted.
    pub(super) fn reads_answers(&self) -> bool {
        self.0.iter().any(|(_, place)| matches!(place, Place::Answer(_)))
    }

    /// Whether the body of a request is wanted.
    pub(super) fn reads_requests(&self) -> bool {
        let is_in_body = |place: &Place| matches!(place, Place::Request(_) | Place::RequestPart(_));
        self.0.iter().any(|(_, place)| is_in_body(place))
    }

    /// The ids that were noted of a request so far.
    pub(super) fn noted(&self, trail: &Trail) -> Ids {
        if self.is_empty() { Vec::new() } else { trail.with(|notes| notes.captured.clone()) }
    }

    /// Whether there is anything to be taken.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ids of an answer, of whose body so much came.
    pub(super) fn of_answer(&self, headers: &HeaderMap, body: Option<&Bytes>) -> Ids {
        if self.is_empty() {
            return Vec::new();
        }
        let encoding = headers::content_coding(headers);
        let text = body.filter(|_| self.reads_answers());
        let text = text.and_then(|body| coding::decode(encoding, body, READ_MAX));
        let root = text.as_deref().and_then(|text| json::parse(text).ok());
        self.taken(|place| match place {
            Place::Answer(pointer) => at(root.as_ref()?, pointer),
            Place::AnswerField(name) => field(headers, name),
            Place::Request(_) | Place::RequestPart(_) | Place::RequestField(_) => None,
        })
    }

    /// The ids in a request's head.
    pub(super) fn of_head(&self, headers: &HeaderMap) -> Ids {
        self.taken(|place| match place {
            Place::RequestField(name) => field(headers, name),
            _ => None,
        })
    }

    /// The ids in a request's JSON.
    pub(super) fn of_json(&self, text: &[u8]) -> Ids {
        let Ok(root) = json::parse(text) else { return Vec::new() };
        self.taken(|place| match place {
            Place::Request(pointer) => at(&root, pointer),
            _ => None,
        })
    }

    /// Those of `value`, by name, that are ids.
    pub(super) fn taken<'a>(&self, mut value: impl FnMut(&Place) -> Option<Cow<'a, str>>) -> Ids {
        let found = self.0.iter().filter_map(|(name, place)| {
            let value = value(place).filter(|value| (1..=ID_MAX).contains(&value.len()))?;
            Some((name.clone(), value.into_owned()))
        });
        found.collect()
    }
}

/// Notes the ids of a request: those in its head now, those in its body with its last
/// byte. `text` is its JSON, where that was read already.
pub(super) fn listen(shared: &Shared, request: &mut Request, text: Option<&Bytes>) {
    let wanted = &shared.terms.rules.capture;
    if wanted.is_empty() {
        return;
    }
    let mut known = wanted.of_head(&request.headers);
    if let Some(text) = text {
        known.extend(wanted.of_json(text));
    }
    if !known.is_empty() {
        request.trail.with(|notes| notes.captured = known);
    }
    let limit = usize::try_from(shared.terms.caps.memory).unwrap_or(usize::MAX);
    if text.is_none()
        && let Some(gatherer) = Gatherer::of(wanted, &request.headers, limit)
    {
        let (trail, body) = (request.trail.clone(), std::mem::take(&mut request.body));
        request.body = Tee::body(body, gatherer, move |ids: Ids| {
            trail.with(|notes| notes.captured.extend(ids));
        });
    }
}

/// Whether a name is one that credentials go by: in a header, a form, or JSON.
pub fn is_secret(name: &str) -> bool {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let plain = plain.to_ascii_lowercase();
    SECRETS.contains(&plain.as_str()) || SECRET_ENDS.iter().any(|end| plain.ends_with(end))
}

fn at<'a>(root: &'a json::Node<'_>, pointer: &Pointer) -> Option<Cow<'a, str>> {
    root.at(pointer)?.text()
}

/// The one value of a field, where it is text.
fn field<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, str>> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    lines.next().is_none().then(|| line.to_str().ok().map(Cow::Borrowed)).flatten()
}

/// What is read of an answer for its ids.
pub(super) const READ_MAX: usize = 1024 * 1024;
/// An id is short; what is not is no id.
pub(super) const ID_MAX: usize = 256;

/// Names of credentials, without what parts their words.
const SECRETS: [&str; 10] = [
    "authorization",
    "proxyauthorization",
    "cookie",
    "setcookie",
    "pin",
    "cvc",
    "cvv",
    "otp",
    "auth",
    "bearer",
];
/// What names of credentials end with; `max_tokens` is none.
const SECRET_ENDS: [&str; 14] = [
    "apikey",
    "accesskey",
    "privatekey",
    "secretkey",
    "token",
    "jwt",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "signature",
    "credential",
    "credentials",
    "xauth",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::tests::headers;

    pub(crate) fn captures(all: &[(&str, Place)]) -> Captures {
        Captures::new(all.iter().map(|(name, place)| ((*name).to_owned(), place.clone())).collect())
    }

    fn pointer(text: &str) -> Pointer {
        Pointer::parse(text).expect("a pointer")
    }

    fn shown(ids: &[(String, String)]) -> String {
        let shown: Vec<_> = ids.iter().map(|(name, value)| format!("{name}={value}")).collect();
        shown.join(" ")
    }

    #[test]
    fn the_ids_of_an_answer_are_scalars_and_single_fields() {
        let wanted = captures(&[
            ("job", Place::Answer(pointer("/id"))),
            ("cost", Place::Answer(pointer("/cost/0"))),
            ("trace", Place::AnswerField(HeaderName::from_static("x-request-id"))),
            ("asked", Place::Request(pointer("/id"))),
        ]);
        let one = [("x-request-id", "r-1")];
        let two = [("x-request-id", "r-1"), ("x-request-id", "r-2")];
        for (fields, body, ids) in [
            (&one[..], Some(r#"{"id":"j","cost":[0.10]}"#), "job=j cost=0.10 trace=r-1"),
            (&one, Some(r#"{"id":7,"cost":[true]}"#), "job=7 cost=true trace=r-1"),
            (&one, Some(r#"{"id":null,"cost":[[]]}"#), "trace=r-1"),
            (&one, Some(r#"{"id":"a","id":"b"}"#), "trace=r-1"),
            (&one, Some(r#"{"id":""}"#), "trace=r-1"),
            (&one, Some("{"), "trace=r-1"),
            (&one, None, "trace=r-1"),
            (&two, Some(r#"{"id":"j"}"#), "job=j"),
            (&[("content-encoding", "br")], Some(r#"{"id":"j"}"#), ""),
        ] {
            let body = body.map(|text| Bytes::from_static(text.as_bytes()));
            let found = wanted.of_answer(&headers(fields), body.as_ref());
            assert_eq!(shown(&found), ids, "{fields:?} {body:?}");
        }
    }

    #[test]
    fn an_id_has_at_most_256_bytes() {
        let wanted = captures(&[("id", Place::Request(pointer("/id")))]);
        for (length, is_kept) in [(0, false), (1, true), (255, true), (256, true), (257, false)] {
            let text = format!(r#"{{"id":"{}"}}"#, "x".repeat(length));
            assert_eq!(!wanted.of_json(text.as_bytes()).is_empty(), is_kept, "{length}");
        }
    }

    #[test]
    fn credentials_go_by_these_names() {
        for (name, wanted) in [
            ("Authorization", true),
            ("set-cookie", true),
            ("X-Api-Key", true),
            ("X-Auth", true),
            ("private_key", true),
            ("jwt", true),
            ("passwd", true),
            ("cvv", true),
            ("credentials", true),
            ("author", false),
            ("credential_id", false),
            ("api_key", true),
            ("accessToken", true),
            ("client_secret", true),
            ("X-Hub-Signature", true),
            ("max_tokens", false),
            ("model", false),
            ("idempotency-key", false),
            ("x-request-id", false),
            ("mapping", false),
        ] {
            assert_eq!(is_secret(name), wanted, "{name}");
        }
    }
}
