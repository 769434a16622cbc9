//! Names its key in a creating request, so that the provider lists it under that.

use std::time::SystemTime;

use bytes::Bytes;
use http::header::CONTENT_ENCODING;

use crate::exchange::body::{BodyError, Filled, Held};
use crate::exchange::json::{self, Node};
use crate::exchange::{Failure, Pointer, Request, headers, signature};
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::identify::{Identified, replace_body};
use crate::idempotency::key::Key;
use crate::idempotency::lookup::Recipe;
use crate::idempotency::splice::splice_json;
use crate::idempotency::terms::Shared;

/// What is known of a request whose key its provider can be asked for.
#[derive(Debug, Default)]
pub(in crate::idempotency) struct Tagged {
    /// Where its key stands; none where it does not.
    pub(in crate::idempotency) place: Option<String>,
    /// What the client asked, taken before anything was put in.
    pub(in crate::idempotency) fingerprint: Option<Fingerprint>,
}

/// Puts the key where the route's recipe looks for it, if it has one.
///
/// A value of the client's own stays: whether it is the only one of its kind, nobody knows,
/// so nothing is proved by it. Nor is anything put into a body that is signed, coded, no
/// JSON, or larger than the route holds in memory.
pub(in crate::idempotency) async fn put(
    shared: &Shared,
    request: &mut Request,
    found: &Identified,
) -> Result<Tagged, Failure> {
    let recipe = shared.terms.lookup.as_ref().filter(|_| shared.is_effect(&request.method));
    let Some(recipe) = recipe else { return Ok(Tagged::default()) };
    let text = whole(shared, request).await?;
    let fingerprint = text.as_ref().map(|text| {
        let mut fingerprinter = shared.fingerprinter(request);
        fingerprinter.feed(text);
        fingerprinter.finish()
    });
    let stands = match &recipe.tag {
        None => found.sent,
        Some(pointer) => text.is_some_and(|text| named(request, &text, pointer, &found.key)),
    };
    let place = stands.then(|| Recipe::place(recipe, &shared.terms.rules.carrier));
    Ok(Tagged { place, fingerprint })
}

/// Reads the body, as far as the route holds bodies in memory; it stays in place.
async fn whole(shared: &Shared, request: &mut Request) -> Result<Option<Bytes>, Failure> {
    let body = std::mem::take(&mut request.body);
    let held = Held::new(body, shared.terms.caps, &shared.room);
    let filled = held.fill().await;
    request.body = held.reader();
    match filled {
        Ok(Filled::Whole(bytes)) => {
            request.replayable = held.is_replayable();
            Ok(Some(bytes))
        }
        Ok(Filled::TooLarge) => Ok(None),
        Err(BodyError::Malformed(why)) => Err(Failure::BadRequest(why)),
        Err(_left) => Err(Failure::ClientGone),
    }
}

/// Whether the key stands at `pointer` by now: put there, or there already.
fn named(request: &mut Request, text: &Bytes, pointer: &Pointer, key: &Key) -> bool {
    let fields = &request.headers;
    let signed = signature::signature(fields, request.query(), SystemTime::now()).is_some();
    let bound = signature::body_is_bound(fields) || fields.contains_key(CONTENT_ENCODING);
    if signed || bound || !headers::is_json(fields) {
        return false;
    }
    if let Some(spliced) = splice_json(text, pointer, key) {
        replace_body(request, spliced.into());
        return true;
    }
    let root = json::parse(text).ok();
    let there = root.as_ref().and_then(|root| root.at(pointer)).and_then(Node::text);
    there.as_deref() == Some(key.as_str())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::exchange::tests::{data, full, headers as fields, request, rest, streamed};
    use crate::exchange::{Body, RequestParts};
    use crate::idempotency::key::Source;
    use crate::idempotency::lookup::tests::recipe;
    use crate::idempotency::tests::{rules, shared};
    use http::Method;

    const JSON: (&str, &str) = ("content-type", "application/json");

    fn with(recipe: Option<Recipe>) -> Shared {
        let mut shared = shared(rules());
        shared.terms.lookup = recipe.map(Arc::new);
        shared
    }

    fn found(sent: bool) -> Identified {
        let key = Key::parse(b"k-1").expect("a key");
        Identified { key, source: Source::Identity, sent }
    }

    fn post(more: &[(&'static str, &str)], body: Body) -> Request {
        Box::new(RequestParts { headers: fields(more), ..*request(Method::POST, body) })
    }

    async fn sent(shared: &Shared, mut request: Request) -> (bool, String, Tagged) {
        let tagged = put(shared, &mut request, &found(true)).await.expect("it is whole");
        let text = rest(&mut request.body).await;
        if let Some(length) = request.headers.get("content-length") {
            assert_eq!(length.to_str().expect("a number"), text.len().to_string());
        }
        (tagged.place.is_some(), text, tagged)
    }

    #[tokio::test]
    async fn a_key_is_put_where_its_provider_will_list_it() {
        let shared = with(Some(recipe()));
        for (more, body, named, wanted) in [
            (&[JSON, ("content-length", "2")][..], "{}", true, r#"{"tag":"k-1"}"#),
            (&[JSON], r#"{"a":1}"#, true, r#"{"tag":"k-1","a":1}"#),
            (&[JSON], r#"{"tag":null}"#, true, r#"{"tag":"k-1"}"#),
            (&[JSON], r#"{"tag":"k-1"}"#, true, r#"{"tag":"k-1"}"#),
            // The client's own word stays, and proves nothing.
            (&[JSON], r#"{"tag":"mine"}"#, false, r#"{"tag":"mine"}"#),
            (&[JSON], "[]", false, "[]"),
            (&[JSON], "{", false, "{"),
            (&[("content-type", "text/plain")], "{}", false, "{}"),
            (&[JSON, ("content-encoding", "gzip")], "{}", false, "{}"),
            (&[JSON, ("content-digest", "sha-256=:x:")], "{}", false, "{}"),
            (&[JSON, ("authorization", "AWS4-HMAC-SHA256 Credential=A/d")], "{}", false, "{}"),
        ] {
            let (stands, text, _) = sent(&shared, post(more, full(body))).await;
            assert_eq!((stands, text.as_str()), (named, wanted), "{more:?}");
        }
    }

    #[tokio::test]
    async fn a_body_is_tagged_up_to_what_is_held_in_memory() {
        let shared = with(Some(recipe()));
        for (length, named) in [(63, true), (64, true), (65, false)] {
            let body = format!("{{\"a\":\"{}\"}}", "x".repeat(length - 8));
            let body: &'static str = body.leak();
            let (stands, text, tagged) = sent(&shared, post(&[JSON], streamed([data(body)]))).await;
            assert_eq!((stands, tagged.fingerprint.is_some()), (named, named), "{length}");
            assert_eq!(text.len() > length, named, "{length}");
        }
    }

    #[tokio::test]
    async fn what_was_asked_is_the_same_with_and_without_the_tag() {
        let shared = with(Some(recipe()));
        let (_, text, first) = sent(&shared, post(&[JSON], full(r#"{"a":1}"#))).await;
        let (_, _, again) = sent(&shared, post(&[JSON], full(r#"{"a": 1}"#))).await;
        let plain = shared.fingerprinter(&post(&[JSON], Body::empty()));
        let plain = {
            let mut plain = plain;
            plain.feed(br#"{"a":1}"#);
            plain.finish()
        };
        assert!(text.contains("k-1"));
        assert_eq!((first.fingerprint, again.fingerprint), (Some(plain), Some(plain)));
    }

    #[tokio::test]
    async fn a_request_that_carries_its_key_needs_no_tag() {
        let shared = with(Some(Recipe { tag: None, ..recipe() }));
        for carried in [true, false] {
            let mut request = post(&[JSON], full("{}"));
            let tagged = put(&shared, &mut request, &found(carried)).await.expect("it is whole");
            assert_eq!(tagged.place.is_some(), carried);
            assert_eq!(rest(&mut request.body).await, "{}");
        }
    }

    #[tokio::test]
    async fn a_route_without_a_recipe_reads_nothing() {
        let (stands, text, tagged) = sent(&with(None), post(&[JSON], full("{}"))).await;
        assert_eq!((stands, text.as_str(), tagged.fingerprint), (false, "{}", None));
    }
}
