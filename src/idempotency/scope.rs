//! Whose key it is: no answer ever crosses a scope.
//!
//! # Invariants
//!
//! - Credentials go in as they came and come out as a digest under the secret, so
//!   what is at rest helps nobody to guess them.
//! - Every field is framed by its name and length, so no two sets of credentials
//!   make the same bytes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderName, Method};

use super::key::{Key, Secret, frame, short};
use super::{CredentialField, Principal};
use crate::exchange::json::{self, Node, Value};
use crate::exchange::{Origin, headers, query};

/// What a request is aimed at; the same key elsewhere is another key.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Scheme and authority.
    pub origin: &'a Origin,
    /// The method.
    pub method: &'a Method,
    /// The path, as it came, without its query.
    pub path: &'a str,
}

/// Where a request's credentials stand.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// The query.
    pub query: Option<&'a str>,
    /// The verified user of `Proxy-Authorization`.
    pub proxy_user: Option<&'a str>,
}

/// A digest of the credentials that a request carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Credential(pub [u8; 32]);

/// A digest of target and credential: the room in which keys are compared.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scope(pub [u8; 32]);

/// A digest of scope and key: what claims and records are found by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId(pub [u8; 32]);

/// Tells who asks, as far as `principal` and the `extra` fields tell callers apart.
///
/// An AWS signature is another with every request, so it counts as its access key
/// id, whatever `principal` says. A `Cookie` counts only where neither a usual nor
/// an extra field is there; a proxy user does not replace it, because one
/// application may hold the cookies of many.
pub fn principal(
    secret: &Secret,
    principal: Principal,
    extra: &[CredentialField],
    caller: Caller<'_>,
) -> Credential {
    let mut hasher = secret.hasher("samekey credential v1");
    if principal == Principal::Static {
        return Credential(*hasher.finalize().as_bytes());
    }
    if let Some(user) = caller.proxy_user {
        field(&mut hasher, "proxy-user", user.as_bytes());
    }
    let mut found = false;
    for (name, value) in header_values(caller.headers, extra) {
        found = true;
        if *name == AUTHORIZATION {
            authorization(&mut hasher, principal, value);
        } else {
            field(&mut hasher, name.as_str(), value);
        }
    }
    for name in extra.iter().filter_map(CredentialField::as_query) {
        for value in query::values(caller.query, name) {
            found = true;
            field(&mut hasher, &format!("query:{name}"), &value);
        }
    }
    for value in query::values(caller.query, "X-Amz-Credential") {
        found = true;
        field(&mut hasher, ACCESS_KEY_ID, access_key_id(&value));
    }
    if !found {
        for value in caller.headers.get_all(COOKIE) {
            field(&mut hasher, COOKIE.as_str(), value.as_bytes());
        }
    }
    Credential(*hasher.finalize().as_bytes())
}

/// The scope of a request.
pub fn scope(secret: &Secret, target: &Target<'_>, credential: &Credential) -> Scope {
    let mut hasher = secret.hasher("samekey scope v1");
    frame(&mut hasher, target.origin.scheme.as_str().as_bytes());
    frame(&mut hasher, target.origin.host.as_bytes());
    frame(&mut hasher, &target.origin.port.to_be_bytes());
    frame(&mut hasher, target.method.as_str().as_bytes());
    frame(&mut hasher, target.path.as_bytes());
    frame(&mut hasher, &credential.0);
    Scope(*hasher.finalize().as_bytes())
}

/// Where the claim and the record of `key` are kept.
pub fn record_id(scope: &Scope, key: &Key) -> RecordId {
    let mut hasher = blake3::Hasher::new_keyed(&scope.0);
    frame(&mut hasher, b"samekey record v1");
    frame(&mut hasher, key.as_str().as_bytes());
    RecordId(*hasher.finalize().as_bytes())
}

impl CredentialField {
    fn as_query(&self) -> Option<&str> {
        match self {
            Self::Query(name) => Some(name),
            Self::Header(_) => None,
        }
    }

    fn is_header(&self, name: &HeaderName) -> bool {
        match self {
            Self::Header(own) => own == name,
            Self::Query(_) => false,
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", short(&self.0))
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({})", short(&self.0))
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordId({})", short(&self.0))
    }
}

fn field(hasher: &mut blake3::Hasher, name: &str, value: &[u8]) {
    frame(hasher, name.as_bytes());
    frame(hasher, value);
}

/// All lines of the credential fields, sorted by name: a map has no order to rely on.
fn header_values<'a>(
    headers: &'a HeaderMap,
    extra: &[CredentialField],
) -> Vec<(&'a HeaderName, &'a [u8])> {
    let mut names: Vec<_> = headers
        .keys()
        .filter(|name| {
            headers::is_credential(name) || extra.iter().any(|field| field.is_header(name))
        })
        .collect();
    names.sort_unstable_by_key(|name| name.as_str());
    let lines = |name| headers.get_all(name).iter().map(move |line| (name, line.as_bytes()));
    names.into_iter().flat_map(lines).collect()
}

/// Whom an `Authorization` stands for: its exact bytes, unless they change by design.
fn authorization(hasher: &mut blake3::Hasher, principal: Principal, value: &[u8]) {
    if let Some(credential) = signed_credential(value) {
        return field(hasher, ACCESS_KEY_ID, access_key_id(credential));
    }
    let jwt = (principal == Principal::Jwt).then(|| bearer(value)).flatten();
    let Some((issuer, subject)) = jwt else {
        return field(hasher, AUTHORIZATION.as_str(), value);
    };
    field(hasher, "iss", issuer.as_bytes());
    field(hasher, "sub", subject.as_bytes());
}

/// `AWS4-… Credential=AKID/date/region/service/aws4_request, …`.
fn signed_credential(value: &[u8]) -> Option<&[u8]> {
    let signed = value.strip_prefix(b"AWS4-")?;
    let mut words = signed.split(|byte| matches!(byte, b' ' | b','));
    words.find_map(|word| word.strip_prefix(b"Credential=")).filter(|found| !found.is_empty())
}

fn access_key_id(credential: &[u8]) -> &[u8] {
    credential.split(|byte| *byte == b'/').next().unwrap_or(credential)
}

/// Issuer and subject of a bearer JWT, which the upstream verifies and we do not.
fn bearer(value: &[u8]) -> Option<(String, String)> {
    let (scheme, token) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    let mut parts = token.trim().split('.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if !scheme.eq_ignore_ascii_case("bearer") || parts.next().is_some() {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims = json::parse(&payload).ok()?;
    Some((claim(&claims, "iss")?, claim(&claims, "sub")?))
}

fn claim(claims: &Node<'_>, name: &str) -> Option<String> {
    let Value::String(text) = &claims.child(name).ok()??.value else { return None };
    Some(text.clone().into_owned())
}

/// One name for both places of a signature: a presigned URL is the same caller's.
const ACCESS_KEY_ID: &str = "access-key-id";

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::exchange::Scheme;

    /// The credential of a request with these header lines and this query.
    fn of(
        principal_: Principal,
        lines: &[(&'static str, &str)],
        query: Option<&str>,
    ) -> Credential {
        let extra = [
            CredentialField::Header(HeaderName::from_static("x-tenant")),
            CredentialField::Query("key".to_owned()),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).expect("a field value"));
        }
        let caller = Caller { headers: &headers, query, proxy_user: None };
        principal(&Secret::new([7; 32]), principal_, &extra, caller)
    }

    fn jwt(claims: &str, signature: &str) -> String {
        format!("Bearer e30.{}.{signature}", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn whatever_is_a_credential_tells_callers_apart() {
        let by = |lines: &[_], query| of(Principal::Credentials, lines, query);
        let nobody = by(&[], None);
        assert_eq!(by(&[("user-agent", "x"), ("idempotency-key", "k")], Some("a=1")), nobody);
        let all = [
            by(&[("authorization", "a")], None),
            by(&[("authorization", "b")], None),
            by(&[("authorization", "a"), ("authorization", "b")], None),
            by(&[("authorization", "a, b")], None),
            by(&[("api-key", "a")], None),
            by(&[("apikey", "a")], None),
            by(&[("x-api-key", "a")], None),
            by(&[("x-goog-api-key", "a")], None),
            by(&[("x-tenant", "a")], None),
            by(&[("cookie", "a")], None),
            by(&[("cookie", "b")], None),
            by(&[], Some("key=a")),
            by(&[], Some("key=b")),
            by(&[], Some("X-Amz-Credential=AKID%2Fx")),
            nobody,
        ];
        for (nth, one) in all.iter().enumerate() {
            assert_eq!(all.iter().position(|other| other == one), Some(nth));
        }
    }

    #[test]
    fn the_order_of_fields_tells_nothing() {
        let one = of(Principal::Credentials, &[("api-key", "a"), ("x-api-key", "b")], None);
        let other = of(Principal::Credentials, &[("x-api-key", "b"), ("api-key", "a")], None);
        assert_eq!(one, other);
    }

    #[test]
    fn a_cookie_counts_only_where_nothing_else_does() {
        let by = |lines: &[_]| of(Principal::Credentials, lines, None);
        assert_eq!(
            by(&[("authorization", "a"), ("cookie", "1")]),
            by(&[("authorization", "a"), ("cookie", "2")])
        );
        assert_ne!(by(&[("cookie", "1")]), by(&[("cookie", "2")]));
    }

    #[test]
    fn a_cookie_counts_beside_a_proxy_user() {
        let by = |user, cookie: &'static str| {
            let headers = HeaderMap::from_iter([(COOKIE, HeaderValue::from_static(cookie))]);
            let caller = Caller { headers: &headers, query: None, proxy_user: Some(user) };
            principal(&Secret::new([7; 32]), Principal::Credentials, &[], caller)
        };
        assert_ne!(by("u", "1"), by("u", "2"));
        assert_ne!(by("u", "1"), by("v", "1"));
    }

    #[test]
    fn an_aws_signature_counts_as_its_access_key_id() {
        let sign = |id: &str, signature: &str| {
            let value = format!(
                "AWS4-HMAC-SHA256 Credential={id}/20260102/us-east-1/s3/aws4_request, \
                 SignedHeaders=host, Signature={signature}"
            );
            of(Principal::Credentials, &[("authorization", &value)], None)
        };
        assert_eq!(sign("AKID", "1"), sign("AKID", "2"));
        assert_ne!(sign("AKID", "1"), sign("AKIX", "1"));
        let url = Some("X-Amz-Credential=AKID%2F20260103%2Feu&X-Amz-Signature=3");
        assert_eq!(of(Principal::Credentials, &[], url), sign("AKID", "1"));
        assert_ne!(
            of(Principal::Credentials, &[("authorization", "AKID")], None),
            sign("AKID", "1")
        );
    }

    #[test]
    fn a_jwt_counts_as_its_issuer_and_subject() {
        let by = |claims: &str, signature| {
            of(Principal::Jwt, &[("authorization", &jwt(claims, signature))], None)
        };
        let ann = by(r#"{"iss":"i","sub":"ann","exp":1}"#, "x");
        assert_eq!(ann, by(r#"{"exp":2,"sub":"ann","iss":"i"}"#, "y"));
        assert_ne!(ann, by(r#"{"iss":"i","sub":"bob"}"#, "x"));
        assert_ne!(ann, by(r#"{"iss":"ia","sub":"nn"}"#, "x"));
        // What cannot be read stands for itself, byte for byte.
        for claims in [r#"{"sub":"ann"}"#, r#"{"iss":"i","sub":"a","sub":"b"}"#, "no"] {
            assert_ne!(by(claims, "x"), by(claims, "y"), "{claims}");
            assert_eq!(by(claims, "x"), by(claims, "x"), "{claims}");
        }
    }

    #[test]
    fn a_static_principal_is_one_for_all() {
        let one = of(Principal::Static, &[("authorization", "a")], None);
        assert_eq!(one, of(Principal::Static, &[("cookie", "b")], Some("key=c")));
    }

    #[test]
    fn whatever_a_request_is_aimed_at_changes_its_scope() {
        let secret = Secret::new([7; 32]);
        let credential = Credential([1; 32]);
        let origin = |port| Origin::new(Scheme::Https, "a.test", port).expect("an origin");
        let of = |port, method: &Method, path, credential: &Credential| {
            scope(&secret, &Target { origin: &origin(port), method, path }, credential)
        };
        let first = of(443, &Method::POST, "/v1", &credential);
        assert_eq!(first, of(443, &Method::POST, "/v1", &credential));
        assert_ne!(first, of(444, &Method::POST, "/v1", &credential));
        assert_ne!(first, of(443, &Method::PUT, "/v1", &credential));
        assert_ne!(first, of(443, &Method::POST, "/v1/", &credential));
        assert_ne!(first, of(443, &Method::POST, "/v1", &Credential([2; 32])));

        let key = |text: &str| Key::parse(text.as_bytes()).expect("a key");
        assert_eq!(record_id(&first, &key("k")), record_id(&first, &key("k")));
        assert_ne!(record_id(&first, &key("k")), record_id(&first, &key("l")));
    }
}
