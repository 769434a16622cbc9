//! Who asks a provider for a key, and with what.

use std::time::{Duration, SystemTime};

use http::header::{ACCEPT, COOKIE, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Method};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

use crate::exchange::{Body, Origin, Request, RequestParts, headers, query, signature};
use crate::idempotency::lookup::{Credentials, JSON};
use crate::idempotency::scope::{Caller, principal};
use crate::idempotency::terms::Shared;
use crate::idempotency::{CredentialField, Rules};

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
    /// The credentials of a live request, and what says in which version it speaks; none
    /// where they are a signature, which stands for that one request.
    pub(super) fn of(rules: &Rules, request: &Request) -> Option<Self> {
        let now = SystemTime::now();
        if signature::signature(&request.headers, request.query(), now).is_some() {
            return None;
        }
        let goes = |name: &HeaderName| {
            let named = |field: &CredentialField| matches!(field, CredentialField::Header(own) if own == name);
            headers::is_credential(name)
                || *name == COOKIE
                || *name == USER_AGENT
                || name.as_str().ends_with("-version")
                || rules.credentials.iter().any(named)
        };
        let kept = request.headers.iter().filter(|(name, _)| goes(name));
        let mut headers: HeaderMap = HeaderMap::new();
        for (name, value) in kept {
            headers.append(name.clone(), value.clone());
        }
        headers.insert(ACCEPT, JSON);
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
        let mut headers = HeaderMap::from_iter([(ACCEPT, JSON)]);
        headers.insert(own.header.clone(), own.value.clone());
        let rules = &shared.terms.rules;
        let caller = Caller { headers: &headers, query: None, proxy_user: None };
        let caller = principal(&shared.secret, rules.principal, &rules.credentials, caller).0;
        Self { origin, headers, extra: Vec::new(), caller }
    }

    /// A request for a page, within so long.
    pub(super) fn request(&self, path: PathAndQuery, within: Duration) -> Request {
        let mut request = RequestParts::new(Method::GET, self.origin.clone(), path, Body::empty());
        request.headers = self.headers.clone();
        request.caller = self.caller;
        let ends = request.arrived + within;
        (request.cut_at, request.wait_until) = (Some(ends), Some(ends));
        request
    }
}
