//! Who asks a provider for a key, and with what.

use std::time::{Duration, SystemTime};

use http::header::{ACCEPT, CACHE_CONTROL};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

use crate::exchange::{Body, Origin, Request, RequestParts, query, signature};
use crate::idempotency::key::Secret;
use crate::idempotency::lookup::{Credentials, JSON};
use crate::idempotency::scope::{Caller, Credential, Scope, Target, principal, scope};
use crate::idempotency::store::About;
use crate::idempotency::terms::Shared;
use crate::idempotency::{Carrier, CredentialField, Rules};

/// Where a lookup goes, and with what it is asked.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) origin: Origin,
    /// The fields that every page is asked with.
    pub(super) headers: HeaderMap,
    /// Parameters that go with every request.
    pub(super) extra: Vec<String>,
    /// A digest of the credentials.
    pub(super) caller: [u8; 32],
}

impl Access {
    /// The fields of a live request, its credentials among them; none where those are a
    /// signature, which stands for that one request.
    ///
    /// Any field may say whose list is meant, a workspace or a region: in the list of
    /// another the key is missing, and would be thought free. So all of them go but those
    /// that are about the one request.
    pub(super) fn of(rules: &Rules, request: &Request) -> Option<Self> {
        let now = SystemTime::now();
        if signature::signature(&request.headers, request.query(), now).is_some() {
            return None;
        }
        let carries_key =
            |name: &HeaderName| matches!(&rules.carrier, Carrier::Header(own) if own == name);
        let goes = |name: &HeaderName| !is_of_one_request(name.as_str()) && !carries_key(name);
        let kept = request.headers.iter().filter(|(name, _)| goes(name));
        let mut headers: HeaderMap = HeaderMap::new();
        for (name, value) in kept {
            headers.append(name.clone(), value.clone());
        }
        headers.insert(ACCEPT, JSON);
        headers.insert(CACHE_CONTROL, NOW);
        let extra = rules.credentials.iter().filter_map(|field| match field {
            CredentialField::Query(name) => Some(name),
            CredentialField::Header(_) => None,
        });
        let extra = extra.flat_map(|name| {
            let values = query::values(request.query(), name);
            values.map(move |value| format!("{name}={}", percent_encode(&value, NON_ALPHANUMERIC)))
        });
        let extra = extra.collect();
        Some(Self { origin: request.origin.clone(), headers, extra, caller: request.caller })
    }

    /// The credentials of a recipe.
    pub(super) fn own(shared: &Shared, origin: Origin, own: &Credentials) -> Self {
        let mut headers = HeaderMap::from_iter([(ACCEPT, JSON), (CACHE_CONTROL, NOW)]);
        headers.insert(own.header.clone(), own.value.clone());
        let rules = &shared.terms.rules;
        let caller = Caller { headers: &headers, query: None, proxy_user: None };
        let caller = principal(&shared.secret, rules.principal, &rules.credentials, caller).0;
        Self { origin, headers, extra: Vec::new(), caller }
    }

    /// Whose keys they would ask for, where a request like this was made with them.
    pub(super) fn scope(&self, secret: &Secret, about: &About) -> Scope {
        let url = about.url.split('?').next().unwrap_or_default();
        let path = url.splitn(4, '/').nth(3).unwrap_or_default();
        let path = format!("/{path}");
        let target = Target { origin: &self.origin, method: &about.method, path: &path };
        scope(secret, &target, &Credential(self.caller))
    }

    /// Whether they are those of `caller`.
    pub(super) fn is_of(&self, caller: [u8; 32]) -> bool {
        self.caller == caller
    }

    /// A request for a page, within so long.
    pub(super) fn request(&self, path: PathAndQuery, within: Duration) -> Request {
        let mut request = RequestParts::new(Method::GET, self.origin.clone(), path, Body::empty());
        request.headers = self.headers.clone();
        request.caller = self.caller;
        request.standing.is_question = true;
        let ends = request.arrived + within;
        (request.cut_at, request.wait_until) = (Some(ends), Some(ends));
        request
    }
}

/// Whether a field is about one request: its key, its body, the form of its answer, or
/// what it is conditional on.
fn is_of_one_request(name: &str) -> bool {
    name.starts_with("content-") || name.starts_with("if-") || OF_ONE_REQUEST.contains(&name)
}

/// What a cache keeps is no word on what there is.
const NOW: HeaderValue = HeaderValue::from_static("no-cache");
/// Those of no common prefix; a method that is overridden is that of the creating request.
const OF_ONE_REQUEST: [&str; 13] = [
    "accept",
    "accept-encoding",
    "digest",
    "expect",
    "idempotency-key",
    "prefer",
    "range",
    "repr-digest",
    "te",
    "trailer",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
];
