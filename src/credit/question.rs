//! Asks the upstream for a number, with the credential of the request at hand.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{COOKIE, HeaderName, VIA};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode};
use tokio::time::timeout;
use tower::Service;

use crate::credit::{Amount, Place};
use crate::exchange::glance::into_json;
use crate::exchange::json::Node;
use crate::exchange::{Body, Failure, Pointer, Request, RequestParts, Response, headers, query};

/// Which fields of a request say who asks, beyond the usual ones.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Header fields.
    pub headers: Vec<HeaderName>,
    /// Query parameters.
    pub queries: Vec<String>,
}

/// Where a request carries its key.
#[derive(Clone, Debug)]
pub enum KeyPlace {
    /// In a header field.
    Header(HeaderName),
    /// In a query parameter.
    Query(String),
    /// In its body.
    Body,
}

impl KeyPlace {
    /// A query without the key, where it carries one.
    pub(super) fn query_without<'a>(&self, query: Option<&'a str>) -> Option<Cow<'a, str>> {
        match self {
            Self::Query(name) => query.map(|query| query::without(query, name).into()),
            Self::Header(_) | Self::Body => query.map(Cow::Borrowed),
        }
    }
}

/// Why there is no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unread {
    /// It took too long.
    #[error("no answer came in time")]
    TooLate,
    /// It has no answer.
    #[error("no answer came")]
    Failed,
    /// It was answered otherwise.
    #[error("the upstream answered {0}")]
    Refused(StatusCode),
    /// The answer does not say it.
    #[error("the answer has no number where the route looks for it")]
    NoNumber,
}

/// What asks for the balance of whoever sends `request`: nothing of that goes with it
/// but what says who it is.
pub(super) fn balance(request: &RequestParts, place: &Place, credentials: &Credentials) -> Request {
    let told = |name: &HeaderName| {
        let usual = headers::is_credential(name) || *name == COOKIE || *name == VIA;
        usual || credentials.headers.contains(name)
    };
    let fields = request.headers.iter().filter(|(name, _)| told(name));
    let headers = fields.map(|(name, value)| (name.clone(), value.clone())).collect();
    let own = query::only(request.query().unwrap_or_default(), &credentials.queries);
    question(request, Method::GET, with_query(&place.path, &own), (headers, Body::empty()))
}

/// What asks for the cost of `request`: all of it goes along but its key.
pub(super) fn estimate(
    request: &RequestParts,
    path: PathAndQuery,
    body: Bytes,
    key: &KeyPlace,
) -> Request {
    let mut headers = request.headers.clone();
    // Under its key the upstream would take the effect for a repeat of this.
    if let KeyPlace::Header(name) = key {
        headers.remove(name);
    }
    headers.remove(USUAL_KEY);
    question(request, Method::POST, path, (headers, Body::full(body)))
}

/// Asks, and reads the number at `json`.
pub(super) async fn ask<S>(
    mut inner: S,
    question: Request,
    json: &Pointer,
) -> Result<Amount, Unread>
where
    S: Service<Request, Response = Response, Error = Failure>,
{
    let asked = async {
        let ready = std::future::poll_fn(|cx| inner.poll_ready(cx)).await;
        ready.map_err(|_failure| Unread::Failed)?;
        let answered = inner.call(question).await;
        let response = answered.map_err(|_failure| Unread::Failed)?;
        if !response.status.is_success() {
            return Err(Unread::Refused(response.status));
        }
        let (_read, number) = into_json(response, |root| {
            let text = root.at(json).and_then(Node::text);
            text.and_then(|text| Amount::parse(&text))
        })
        .await;
        number.flatten().ok_or(Unread::NoNumber)
    };
    timeout(ASKED_FOR, asked).await.unwrap_or(Err(Unread::TooLate))
}

/// A request of our own to the same upstream: it has a trail of its own, no key, and no
/// client that could leave it.
fn question(
    request: &RequestParts,
    method: Method,
    path: PathAndQuery,
    (headers, body): (HeaderMap, Body),
) -> Request {
    let mut question = RequestParts::new(method, request.origin.clone(), path, body);
    (question.headers, question.caller) = (headers, request.caller);
    question
}

/// A path with further parameters in its query.
fn with_query(path: &PathAndQuery, own: &str) -> PathAndQuery {
    if own.is_empty() {
        return path.clone();
    }
    let sign = if path.query().is_some() { '&' } else { '?' };
    // Both parts came out of a valid one.
    PathAndQuery::try_from(format!("{path}{sign}{own}")).unwrap_or_else(|_same| path.clone())
}

/// What carries a key where a route does not say otherwise.
const USUAL_KEY: &str = "idempotency-key";
/// An effect waits for no answer longer than this, retries of the question included.
const ASKED_FOR: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::exchange::tests::{Scripted, full, headers, request, response};

    const FIELDS: &[(&str, &str)] = &[
        ("authorization", "Bearer a"),
        ("x-api-key", "k"),
        ("cookie", "c=1"),
        ("x-tenant", "t"),
        ("x-key", "own"),
        ("idempotency-key", "usual"),
        ("content-type", "application/json"),
        ("via", "1.1 samekey"),
    ];

    fn effect() -> Request {
        let mut effect = request(Method::POST, full("{}"));
        effect.headers = headers(FIELDS);
        effect.path = PathAndQuery::from_static("/v1/jobs?a=1&token=s%2Fx&key=k");
        effect.wishes.identity = Some(HeaderValue::from_static("order-1"));
        effect
    }

    fn names(request: &RequestParts) -> Vec<&str> {
        let mut names: Vec<_> = request.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[tokio::test(start_paused = true)]
    async fn a_balance_is_asked_for_with_the_credential_and_nothing_else() {
        let credentials = Credentials {
            headers: vec![HeaderName::from_static("x-tenant")],
            queries: vec!["token".to_owned()],
        };
        for (path, wanted) in
            [("/account", "/account?token=s%2Fx"), ("/account?x=1", "/account?x=1&token=s%2Fx")]
        {
            let json = Pointer::parse("/credits").expect("a pointer");
            let place = Place { path: PathAndQuery::from_static(path), json };
            let effect = effect();
            let asked = balance(&effect, &place, &credentials);
            assert_eq!((asked.method.as_str(), asked.path.as_str()), ("GET", wanted));
            assert_eq!(names(&asked), ["authorization", "cookie", "via", "x-api-key", "x-tenant"]);
            assert!(asked.body.is_empty() && asked.wishes.identity.is_none());
            assert_eq!((&asked.origin, asked.caller), (&effect.origin, effect.caller));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cost_is_asked_for_without_any_key() {
        let path = PathAndQuery::from_static("/v1/estimate");
        let key = KeyPlace::Header(HeaderName::from_static("x-key"));
        let asked = estimate(&effect(), path, Bytes::from_static(b"{}"), &key);
        let wanted = ["authorization", "content-type", "cookie", "via", "x-api-key", "x-tenant"];
        assert_eq!(names(&asked), wanted);
        assert_eq!((asked.method.as_str(), asked.body.length()), ("POST", Some(2)));
        let key = KeyPlace::Query("key".to_owned());
        let query = key.query_without(effect().query()).map(Cow::into_owned);
        assert_eq!(query.as_deref(), Some("a=1&token=s%2Fx"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_number_is_read_or_it_is_said_why_not() {
        let json = Pointer::parse("/credits").expect("a pointer");
        let answered = |status, text| Ok(response(status, &[], full(text)));
        for (answer, wanted) in [
            (answered(200, r#"{"credits": 12.50}"#), Ok("12.50")),
            (answered(200, r#"{"credits": "7"}"#), Ok("7")),
            (answered(200, r#"{"credits": null}"#), Err(Unread::NoNumber)),
            (answered(200, r#"{"credits": true}"#), Err(Unread::NoNumber)),
            (answered(200, r#"{"credits": 1, "credits": 2}"#), Err(Unread::NoNumber)),
            (answered(200, "<html>"), Err(Unread::NoNumber)),
            (
                answered(500, r#"{"credits": 1}"#),
                Err(Unread::Refused(StatusCode::INTERNAL_SERVER_ERROR)),
            ),
            (Err(Failure::Refused), Err(Unread::Failed)),
        ] {
            let upstream = Scripted::default();
            upstream.answer(answer);
            let found = ask(upstream, effect(), &json).await;
            let wanted = wanted.map(str::to_owned);
            assert_eq!(found.map(|number| number.to_string()), wanted);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_for_a_number_than_this() {
        let json = Pointer::parse("/credits").expect("a pointer");
        let tick = Duration::from_millis(1);
        for (more, late) in [(Duration::ZERO, false), (tick, true)] {
            let after = ASKED_FOR + more;
            let upstream = Scripted::default();
            upstream.answer_after(after, Ok(response(200, &[], full(r#"{"credits": 1}"#))));
            let found = ask(upstream, effect(), &json).await;
            assert_eq!(found == Err(Unread::TooLate), late, "{after:?}: {found:?}");
        }
    }
}
