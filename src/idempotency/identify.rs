//! Finds a request's key: the client's own, derived from an identity, or random.

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::exchange::body::{Filled, Held};
use crate::exchange::{Body, Failure, Request, coding, json, signature};
use crate::idempotency::key::{self, Key, Source};
use crate::idempotency::layer::Shared;
use crate::idempotency::scope::Target;
use crate::idempotency::splice::{client_key, splice_json, splice_query};
use crate::idempotency::template::Identity;
use crate::idempotency::{Carrier, Rules};

/// A request's key, and whether it goes upstream.
#[derive(Debug)]
pub(super) struct Identified {
    pub(super) key: Key,
    pub(super) source: Source,
    /// Whether the upstream sees it: put there by the client or by us.
    pub(super) sent: bool,
}

/// The request, and what is known of its key.
pub(super) struct Looked {
    pub(super) request: Request,
    pub(super) found: Option<Identified>,
    /// What the key went into.
    pub(super) bare: Bare,
}

/// What of a request a key is spliced into, as it came.
pub(super) struct Bare {
    path: PathAndQuery,
    /// A JSON body, where the key travels in one, or its identity stands in one.
    text: Option<Bytes>,
}

/// Finds the key of `request`, and puts it in where it is not there yet.
///
/// # Errors
///
/// [`Failure::KeyInvalid`] and [`Failure::KeyMissing`], unless the route only
/// observes; or the client left while its body was read.
pub(super) async fn look(shared: &Shared, mut request: Request) -> Result<Looked, Failure> {
    let rules = &shared.terms.rules;
    let effect = shared.is_effect(&request.method);
    let text = if needs_body(rules, effect, &request) { read(shared, &mut request).await? } else { None };
    let bare = Bare { path: request.path.clone(), text };
    let found = match find(shared, &mut request, &bare, effect) {
        Ok(found) => found,
        Err(_fault) if shared.terms.observes => None,
        Err(fault) => return Err(fault),
    };
    Ok(Looked { request, found, bare })
}

/// Puts the key of an orphan in the place of the one that was made for its twin.
pub(super) fn replace(
    rules: &Rules,
    request: &mut Request,
    bare: &Bare,
    found: &Identified,
    key: Key,
) -> Identified {
    let sent = found.sent && put(rules, request, bare, &key);
    Identified { key, source: found.source, sent }
}

fn find(
    shared: &Shared,
    request: &mut Request,
    bare: &Bare,
    effect: bool,
) -> Result<Option<Identified>, Failure> {
    let rules = &shared.terms.rules;
    let root = bare.text.as_deref().and_then(|text| json::parse(text).ok());
    let own = match client_key(&rules.carrier, &request.headers, bare.path.query(), root.as_ref()) {
        Ok(own) => own,
        Err(_fault) if rules.pass_malformed_keys => return Ok(None),
        Err(fault) => return Err(Failure::KeyInvalid(fault_text(fault))),
    };
    if let Some(key) = own {
        return Ok(Some(Identified { key, source: Source::Client, sent: true }));
    }
    let identity = identity(rules, request, root.as_ref(), effect)?;
    let Some((key, source)) = make(shared, request, identity, effect) else { return Ok(None) };
    let signed = signature::signature(&request.headers, request.query(), std::time::SystemTime::now());
    let injects = rules.inject.unwrap_or(effect) && signed.is_none();
    let sent = injects && !shared.terms.observes && put(rules, request, bare, &key);
    // A key that nobody sees and nobody can ask for is no key.
    let counts = sent || source != Source::Random || injects && shared.terms.observes;
    Ok(counts.then_some(Identified { key, source, sent }))
}

/// The identity of the business event, where the request has one.
fn identity(
    rules: &Rules,
    request: &Request,
    root: Option<&json::Node<'_>>,
    effect: bool,
) -> Result<Option<Identity>, Failure> {
    if let Some(asked) = &request.wishes.identity {
        let identity = Identity::asked(asked);
        return identity.map(Some).map_err(|fault| Failure::KeyInvalid(fault_text(fault)));
    }
    let template = rules.identity.as_ref();
    let query = request.path.query();
    let rendered = template.and_then(|template| template.render(&request.headers, query, root));
    if rendered.is_some() {
        return Ok(rendered);
    }
    let creates = matches!(request.method, Method::POST | Method::PATCH);
    if rules.require && creates {
        return Err(Failure::KeyMissing(carrier_name(&rules.carrier)));
    }
    Ok(if effect { Identity::invocation(&request.headers) } else { None })
}

fn make(
    shared: &Shared,
    request: &Request,
    identity: Option<Identity>,
    effect: bool,
) -> Option<(Key, Source)> {
    let format = shared.terms.rules.format;
    match identity {
        Some(identity) => {
            let target = Target {
                origin: &request.origin,
                method: &request.method,
                path: request.path.path(),
            };
            let key = key::derived(&shared.secret, &target, &identity, format);
            Some((key, identity.source()))
        }
        None if effect => Some((key::random(format, shared.chance.bytes()), Source::Random)),
        None => None,
    }
}

/// Whether the key cannot be found, or put in, without the body.
fn needs_body(rules: &Rules, effect: bool, request: &Request) -> bool {
    let carried = matches!(rules.carrier, Carrier::Json(_));
    let named = request.wishes.identity.is_none()
        && rules.identity.as_ref().is_some_and(super::Template::needs_body);
    let own_header = match &rules.carrier {
        Carrier::Header(name) => request.headers.contains_key(name),
        Carrier::Json(_) | Carrier::Query(_) => false,
    };
    let wanted = effect || request.wishes.identity.is_some() || named;
    wanted && (carried || named && !own_header) && is_json(&request.headers)
}

/// Reads a JSON body, as far as the route holds bodies in memory; it stays in place.
async fn read(shared: &Shared, request: &mut Request) -> Result<Option<Bytes>, Failure> {
    let body = std::mem::take(&mut request.body);
    let held = Held::new(body, shared.terms.caps, &shared.room);
    let filled = held.fill().await;
    request.body = held.reader();
    match filled {
        Ok(Filled::Whole(bytes)) => Ok(plain(&request.headers, bytes)),
        Ok(Filled::TooLarge) => Ok(None),
        Err(crate::exchange::body::BodyError::Malformed(why)) => Err(Failure::BadRequest(why)),
        Err(_left) => Err(Failure::ClientGone),
    }
}

/// A coded body is read, but nothing can be spliced into it.
fn plain(headers: &HeaderMap, bytes: Bytes) -> Option<Bytes> {
    let encoding = headers.get(http::header::CONTENT_ENCODING).and_then(|value| value.to_str().ok());
    let decoded = coding::decode(encoding, &bytes, DECODED_MAX)?;
    Some(match decoded {
        std::borrow::Cow::Borrowed(_) => bytes.clone(),
        std::borrow::Cow::Owned(plain) => plain.into(),
    })
}

/// Puts the key where the upstream wants it, in the place of any that was put
/// there before; false where it has no place there.
fn put(rules: &Rules, request: &mut Request, bare: &Bare, key: &Key) -> bool {
    match &rules.carrier {
        Carrier::Header(name) => {
            request.headers.insert(name.clone(), key.header_value());
            true
        }
        Carrier::Query(name) => {
            let spliced = splice_query(bare.path.as_str(), name, key);
            let Ok(path) = spliced.parse() else { return false };
            request.path = path;
            true
        }
        Carrier::Json(pointer) => {
            let coded = request.headers.contains_key(http::header::CONTENT_ENCODING);
            let guarded = signature::body_is_bound(&request.headers);
            let spliced = bare
                .text
                .as_deref()
                .filter(|_| !coded && !guarded)
                .and_then(|text| splice_json(text, pointer, key));
            let Some(spliced) = spliced else { return false };
            let length = HeaderValue::from(spliced.len());
            if request.headers.contains_key(http::header::CONTENT_LENGTH) {
                request.headers.insert(http::header::CONTENT_LENGTH, length);
            }
            request.body = Body::full(spliced.into());
            true
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.to_ascii_lowercase().contains("json"))
}

fn carrier_name(carrier: &Carrier) -> String {
    match carrier {
        Carrier::Header(name) => title(name),
        Carrier::Json(pointer) => format!("the member {pointer} of the JSON body"),
        Carrier::Query(name) => format!("the query parameter {name}"),
    }
}

/// `idempotency-key` as people write it: `Idempotency-Key`.
fn title(name: &HeaderName) -> String {
    let words = name.as_str().split('-').map(|word| {
        let mut signs = word.chars();
        signs.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + signs.as_str())
    });
    words.collect::<Vec<_>>().join("-")
}

fn fault_text(fault: key::KeyFault) -> &'static str {
    match fault {
        key::KeyFault::Empty => "the key is empty",
        key::KeyFault::TooLong => "the key is longer than 255 characters",
        key::KeyFault::NotVisible => "the key holds something other than visible ASCII",
        key::KeyFault::Several => "there is more than one key",
        key::KeyFault::NotText => "the key is neither a string nor a number",
    }
}

const DECODED_MAX: usize = 16 * 1024 * 1024;
