//! Finds a request's key: the client's own, derived from an identity, or random.

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::exchange::body::{Filled, Held};
use crate::exchange::{Body, Failure, Request, coding, headers, json, signature};
use crate::idempotency::key::{self, Key, Source};
use crate::idempotency::scope::Target;
use crate::idempotency::splice::{client_key, splice_json, splice_query};
use crate::idempotency::template::Identity;
use crate::idempotency::terms::Shared;
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

impl Bare {
    /// The JSON that was read to find the key.
    pub(super) fn text(&self) -> Option<&Bytes> {
        self.text.as_ref()
    }
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
    let text =
        if needs_body(rules, effect, &request) { read(shared, &mut request).await? } else { None };
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
    let signed =
        signature::signature(&request.headers, request.query(), std::time::SystemTime::now());
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
    if rules.wants_identity(&request.method) {
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
    wanted && (carried || named && !own_header) && headers::is_json(&request.headers)
}

/// Reads a JSON body, as far as the route holds bodies in memory; it stays in place.
async fn read(shared: &Shared, request: &mut Request) -> Result<Option<Bytes>, Failure> {
    let body = std::mem::take(&mut request.body);
    let held = Held::new(body, shared.terms.caps, &shared.room);
    let filled = held.fill().await;
    request.body = held.reader();
    match filled {
        Ok(Filled::Whole(bytes)) => Ok(plain(&request.headers, &bytes)),
        Ok(Filled::TooLarge) => Ok(None),
        Err(crate::exchange::body::BodyError::Malformed(why)) => Err(Failure::BadRequest(why)),
        Err(_left) => Err(Failure::ClientGone),
    }
}

/// A coded body is read, but nothing can be spliced into it.
fn plain(headers: &HeaderMap, bytes: &Bytes) -> Option<Bytes> {
    let encoding = headers::content_coding(headers);
    let decoded = coding::decode(encoding, bytes, DECODED_MAX)?;
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
            replace_body(request, spliced.into());
            true
        }
    }
}

/// Puts another body in the place of the one that came.
pub(super) fn replace_body(request: &mut Request, body: Bytes) {
    let length = HeaderValue::from(body.len());
    if request.headers.contains_key(http::header::CONTENT_LENGTH) {
        request.headers.insert(http::header::CONTENT_LENGTH, length);
    }
    request.body = Body::full(body);
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
        signs.next().map_or_else(String::new, |first| {
            first.to_ascii_uppercase().to_string() + signs.as_str()
        })
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

#[cfg(test)]
mod tests {
    use http::Method;

    use crate::exchange::Wishes;
    use crate::exchange::body::BodyError;
    use crate::exchange::tests::{data, full, headers, measured, request, rest, streamed};
    use crate::exchange::{Effects, Pointer};
    use crate::idempotency::Template;
    use crate::idempotency::tests::{rules, shared};

    use super::*;
    use crate::exchange::RequestParts;

    /// What was found: where the key comes from, and whether it is sent.
    type Found = Option<(Source, bool)>;

    const JSON: (&str, &str) = ("content-type", "application/json");
    const SIGNED: (&str, &str) = ("authorization", "AWS4-HMAC-SHA256 Credential=AK/d, Signature=s");

    fn post(fields: &[(&'static str, &str)], body: Body) -> Request {
        Box::new(RequestParts { headers: headers(fields), ..*request(Method::POST, body) })
    }

    fn asked(identity: &'static str, request: Request) -> Request {
        let identity = Some(HeaderValue::from_static(identity));
        Box::new(RequestParts { wishes: Wishes { identity, ..Wishes::default() }, ..*request })
    }

    fn carried_in(carrier: Carrier) -> Rules {
        Rules { carrier, ..rules() }
    }

    fn in_json() -> Rules {
        carried_in(Carrier::Json(Pointer::parse("/id").expect("a pointer")))
    }

    fn in_query() -> Rules {
        carried_in(Carrier::Query("rid".to_owned()))
    }

    fn by_order() -> Rules {
        let identity = Some(Template::parse("order-{json:/order}").expect("a template"));
        Rules { identity, ..rules() }
    }

    async fn look_at(rules: Rules, request: Request) -> Result<Looked, Failure> {
        look(&shared(rules), request).await
    }

    fn found(looked: &Looked) -> Found {
        looked.found.as_ref().map(|found| (found.source, found.sent))
    }

    fn key_of(looked: &Looked) -> &str {
        looked.found.as_ref().expect("it has a key").key.as_str()
    }

    #[tokio::test]
    async fn the_first_source_that_applies_gives_the_key() {
        use Source::{Client, Header, Identity, Invocation, Random};
        let own = ("idempotency-key", "mine");
        let sdk = ("amz-sdk-invocation-id", "call-1");
        let order = || full(r#"{"order":7}"#);
        for (rules, request, wanted) in [
            (by_order(), asked("o-1", post(&[own, sdk, JSON], order())), Some((Client, true))),
            (by_order(), asked("o-1", post(&[sdk, JSON], order())), Some((Header, true))),
            (by_order(), post(&[sdk, JSON], order()), Some((Identity, true))),
            (by_order(), post(&[sdk, JSON], full("{}")), Some((Invocation, true))),
            (by_order(), post(&[sdk], order()), Some((Invocation, true))), // not JSON
            (rules(), post(&[sdk], order()), Some((Invocation, true))),
            (rules(), post(&[], order()), Some((Random, true))),
            (rules(), request(Method::PATCH, order()), Some((Random, true))),
            // A read is given none, but its client may have one.
            (rules(), request(Method::PUT, order()), None),
            (rules(), request(Method::GET, Body::empty()), None),
            (rules(), asked("o-1", request(Method::PUT, order())), Some((Header, false))),
            (
                rules(),
                Box::new(RequestParts { method: Method::PUT, ..*post(&[own], order()) }),
                Some((Client, true)),
            ),
            (
                rules(),
                Box::new(RequestParts { method: Method::PUT, ..*post(&[sdk], order()) }),
                None,
            ),
            // A key that nobody sees and nobody can ask for is none.
            (Rules { inject: Some(false), ..rules() }, post(&[], order()), None),
            (
                Rules { inject: Some(false), ..by_order() },
                post(&[JSON], order()),
                Some((Identity, false)),
            ),
        ] {
            let mut looked = look_at(rules, request).await.expect("nothing is wrong with it");
            assert_eq!(found(&looked), wanted);
            let sent = looked.request.headers.get("idempotency-key");
            let is_sent = wanted.is_some_and(|(_, sent)| sent);
            let key = is_sent.then(|| key_of(&looked).to_owned());
            assert_eq!(sent.and_then(|sent| sent.to_str().ok()), key.as_deref(), "{wanted:?}");
            assert!(!rest(&mut looked.request.body).await.contains('!'));
        }
    }

    #[tokio::test]
    async fn a_derived_key_is_that_of_the_event_and_a_random_one_of_the_exchange() {
        let key = async |rules, request| {
            key_of(&look_at(rules, request).await.expect("it has a key")).to_owned()
        };
        let order = |text| post(&[JSON], full(text));
        let seven = key(by_order(), order(r#"{"order":7,"at":1}"#)).await;
        assert_eq!(seven, key(by_order(), order(r#"{"at":2,"order":7}"#)).await);
        assert_ne!(seven, key(by_order(), order(r#"{"order":8}"#)).await);
        let asked_for = key(rules(), asked("order-7", post(&[], Body::empty()))).await;
        assert_ne!(seven, asked_for, "a Samekey-Key is no rendering of a template");
        assert!(!asked_for.contains("order"), "no identity leaves the house");
        let elsewhere =
            Box::new(RequestParts { path: PathAndQuery::from_static("/v2"), ..*order("{}") });
        assert_ne!(asked_for, key(rules(), asked("order-7", elsewhere)).await);
        let shared = shared(rules());
        let one = look(&shared, post(&[], Body::empty())).await.expect("it has a key");
        let two = look(&shared, post(&[], Body::empty())).await.expect("it has a key");
        assert_ne!(key_of(&one), key_of(&two));
    }

    #[tokio::test]
    async fn a_key_that_is_none_is_refused_or_passed_on_unkeyed() {
        let long = "k".repeat(256);
        let twice = [("idempotency-key", "a"), ("idempotency-key", "a")];
        for fields in [&[("idempotency-key", "")][..], &[("idempotency-key", &long)], &twice] {
            let refused = look_at(rules(), post(fields, Body::empty())).await;
            assert!(matches!(refused, Err(Failure::KeyInvalid(_))));
            let lenient = Rules { pass_malformed_keys: true, ..rules() };
            let passed = look_at(lenient, post(fields, Body::empty())).await.expect("it passes");
            assert_eq!(found(&passed), None);
            assert_eq!(
                passed.request.headers.get_all("idempotency-key").iter().count(),
                fields.len()
            );
        }
        let refused = look_at(rules(), asked("not visible", post(&[], Body::empty()))).await;
        assert!(matches!(refused, Err(Failure::KeyInvalid(_))));
    }

    #[tokio::test]
    async fn a_route_can_want_an_identity_and_names_where_it_goes() {
        let wants = |rules| Rules { require: true, ..rules };
        for (rules, name) in [
            (rules(), "Idempotency-Key"),
            (in_query(), "the query parameter rid"),
            (by_order(), "Idempotency-Key"),
        ] {
            let missing = look_at(wants(rules), post(&[JSON], full("{}"))).await;
            assert!(matches!(missing, Err(Failure::KeyMissing(said)) if said == name));
        }
        // An SDK's invocation id is nothing that a person would ask by.
        let sdk = post(&[("amz-sdk-invocation-id", "call-1")], Body::empty());
        assert!(matches!(look_at(wants(rules()), sdk).await, Err(Failure::KeyMissing(_))));
        for request in [
            post(&[("idempotency-key", "mine")], Body::empty()),
            asked("o-1", post(&[], Body::empty())),
            request(Method::PUT, Body::empty()),
            request(Method::DELETE, Body::empty()),
        ] {
            assert!(look_at(wants(rules()), request).await.is_ok());
        }
    }

    #[tokio::test]
    async fn a_key_in_a_body_is_spliced_in_where_that_changes_nothing_else() {
        let coded = ("content-encoding", "gzip");
        let bound = ("content-digest", "sha-256=:x:");
        for (fields, text, wanted) in [
            (&[JSON, ("content-length", "7")][..], r#"{"a":1}"#, Some((Source::Random, true))),
            (&[JSON], r#"{"id":"mine"}"#, Some((Source::Client, true))),
            (&[JSON, bound], r#"{"id":"mine"}"#, Some((Source::Client, true))),
            (&[JSON, bound], r#"{"a":1}"#, None),
            (&[JSON, SIGNED], r#"{"a":1}"#, None),
            (&[JSON, coded], "{}", None),
            (&[JSON], "[1]", None),
            (&[JSON], "{", None),
            (&[], r#"{"a":1}"#, None),
        ] {
            for body in [full(text), measured(&[text]), streamed([data(text)])] {
                let mut looked = look_at(in_json(), post(fields, body)).await.expect("it passes");
                assert_eq!(found(&looked), wanted, "{fields:?} {text}");
                let spliced = wanted.filter(|(source, _)| *source == Source::Random);
                let spliced = spliced.map(|_| format!(r#"{{"id":"{}","a":1}}"#, key_of(&looked)));
                let read = rest(&mut looked.request.body).await;
                assert_eq!(read, spliced.as_deref().unwrap_or(text), "{fields:?}");
                let length = looked.request.headers.get("content-length");
                let length = length.map(|length| length.to_str().expect("digits").to_owned());
                assert!(length.is_none_or(|length| length == read.len().to_string()));
            }
        }
    }

    #[tokio::test]
    async fn a_body_that_memory_does_not_hold_is_passed_on_whole_and_without_a_key() {
        let long = r#"{"text":"a body that is longer than the memory that this route holds"}"#;
        let (head, tail) = long.split_at(40);
        for body in [measured(&[head, tail]), streamed([data(head), data(tail)])] {
            let mut looked = look_at(in_json(), post(&[JSON], body)).await.expect("it passes");
            assert_eq!(found(&looked), None);
            assert_eq!(rest(&mut looked.request.body).await, long);
        }
    }

    #[tokio::test]
    async fn a_key_in_a_query_is_the_last_parameter() {
        let own = Box::new(RequestParts {
            path: PathAndQuery::from_static("/v1?rid=mine&a=1"),
            ..*post(&[], full("x"))
        });
        let looked = look_at(in_query(), own).await.expect("it passes");
        assert_eq!((found(&looked), key_of(&looked)), (Some((Source::Client, true)), "mine"));
        assert_eq!(looked.request.path, "/v1?rid=mine&a=1");
        let none = Box::new(RequestParts {
            path: PathAndQuery::from_static("/v1?a=1"),
            ..*post(&[], full("x"))
        });
        let looked = look_at(in_query(), none).await.expect("it passes");
        assert_eq!(looked.request.path, format!("/v1?a=1&rid={}", key_of(&looked)).as_str());
    }

    #[tokio::test]
    async fn a_signed_request_is_given_no_key_but_may_have_one() {
        for (request, wanted) in [
            (post(&[SIGNED], full("x")), None),
            (post(&[SIGNED, ("idempotency-key", "mine")], full("x")), Some((Source::Client, true))),
            (asked("o-1", post(&[SIGNED], full("x"))), Some((Source::Header, false))),
        ] {
            let before = request.headers.clone();
            let looked = look_at(rules(), request).await.expect("it passes");
            assert_eq!(found(&looked), wanted);
            assert_eq!(looked.request.headers, before, "no field is added");
        }
    }

    #[tokio::test]
    async fn an_observed_request_is_sent_as_it_came() {
        for rules in [rules(), in_query(), in_json()] {
            let mut shared = shared(rules);
            shared.terms.observes = true;
            let request = post(&[JSON], full(r#"{"a":1}"#));
            let (before, path) = (request.headers.clone(), request.path.clone());
            let mut looked = look(&shared, request).await.expect("it passes");
            assert!(looked.found.is_none_or(|found| !found.sent));
            assert_eq!((looked.request.headers, looked.request.path), (before, path));
            assert_eq!(rest(&mut looked.request.body).await, r#"{"a":1}"#);
        }
    }

    #[tokio::test]
    async fn every_method_of_an_effect_route_is_keyed_and_none_of_a_read_route() {
        for (effects, method, wanted) in [
            (Effects::All, Method::PUT, true),
            (Effects::All, Method::GET, true),
            (Effects::Nothing, Method::POST, false),
        ] {
            let mut shared = shared(rules());
            shared.terms.effects = effects;
            let looked = look(&shared, request(method, Body::empty())).await.expect("it passes");
            assert_eq!(looked.found.is_some(), wanted, "{effects:?}");
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_while_it_is_read_is_the_clients_doing() {
        let left = post(&[JSON], streamed([data("{"), Err(BodyError::ClientLeft)]));
        assert!(matches!(look_at(in_json(), left).await, Err(Failure::ClientGone)));
        let broken = post(&[JSON], streamed([Err(BodyError::Malformed("a bad chunk"))]));
        assert!(matches!(
            look_at(in_json(), broken).await,
            Err(Failure::BadRequest("a bad chunk"))
        ));
    }

    #[tokio::test]
    async fn an_orphans_key_takes_the_place_of_the_one_made_for_its_twin() {
        let orphan = || Key::parse(b"orphan").expect("a key");
        for rules in [rules(), in_query(), in_json()] {
            let made = rules.clone();
            let twin = post(&[JSON], full(r#"{"a":1}"#));
            let Looked { mut request, found, bare } =
                look_at(rules, twin).await.expect("it passes");
            let found = found.expect("it was given a key");
            let taken = replace(&made, &mut request, &bare, &found, orphan());
            assert_eq!(
                (taken.key.as_str(), taken.source, taken.sent),
                ("orphan", Source::Random, true)
            );
            let header = request.headers.get("idempotency-key").map(HeaderValue::as_bytes);
            let said = format!(
                "{} {} {}",
                String::from_utf8_lossy(header.unwrap_or_default()),
                request.path,
                rest(&mut request.body).await
            );
            assert_eq!(said.matches("orphan").count(), 1, "{said}");
            assert!(!said.contains(found.key.as_str()), "{said}");
        }
    }
}
