//! What `samekey explain` says of a request's key, as far as it shows without a body.

use std::time::SystemTime;

use samekey::exchange::signature;
use samekey::idempotency::Carrier;
use samekey::idempotency::splice::client_key;
use samekey::idempotency::template::Identity;
use samekey::route::{Mode, Route};

use crate::cli::explain::Request;

/// What is known of the key that a request would have.
pub(super) struct Keyed {
    pub(super) words: String,
    /// Whether the upstream sees it.
    pub(super) sent: bool,
    /// What the request is answered here for its key, or for want of one.
    pub(super) refused: Option<String>,
}

impl Keyed {
    fn new(words: impl Into<String>, sent: bool) -> Self {
        Self { words: words.into(), sent, refused: None }
    }

    fn refused(words: impl Into<String>, why: String) -> Self {
        Self { words: words.into(), sent: false, refused: Some(why) }
    }
}

/// Which key a request would have, where an effect route gives one to who has none.
pub(super) fn of(route: &Route, request: &Request, effect: bool) -> Keyed {
    let rules = &route.rules;
    let (headers, query) = (&request.headers, request.path.query());
    let carrier = match &rules.carrier {
        Carrier::Header(name) => format!("header {name}"),
        Carrier::Json(pointer) => format!("JSON member {pointer}"),
        Carrier::Query(name) => format!("query parameter {name}"),
    };
    let passes = route.mode == Mode::Observe;
    let asked = headers.get_all("samekey-key").iter().next_back();
    let fault = match client_key(&rules.carrier, headers, query, None) {
        Ok(Some(_)) => return Keyed::new(format!("the client's own, in {carrier}"), true),
        Err(fault) if rules.pass_malformed_keys => Some((fault, true)),
        Err(fault) => Some((fault, passes)),
        Ok(None) => asked.and_then(|value| Identity::asked(value).err()).map(|no| (no, passes)),
    };
    match fault {
        Some((fault, true)) => {
            return Keyed::new(format!("none: {fault}, and it is let pass"), false);
        }
        Some((fault, false)) => {
            return Keyed::refused(format!("none: {fault}"), format!("400 key-invalid: {fault}"));
        }
        None => {}
    }
    let signed = signature::signature(headers, query, SystemTime::now()).is_some();
    let injects = rules.inject.unwrap_or(effect) && !signed;
    if asked.is_some() {
        return Keyed::new(format!("derived from Samekey-Key, in {carrier}"), injects);
    }
    let rendered = rules.identity.as_ref().and_then(|of| of.render(headers, query, None));
    let wanting = rendered.is_none() && !passes && rules.wants_identity(&request.method);
    let in_body = matches!(rules.carrier, Carrier::Json(_))
        || rules.identity.as_ref().is_some_and(samekey::idempotency::Template::needs_body);
    if wanting && !in_body {
        let why = "400 key-missing: idempotency.require wants a key or an identity";
        return Keyed::refused("none", why.to_owned());
    }
    let missing = if wanting { "; 400 key-missing where its body has neither" } else { "" };
    if rules.identity.is_some() {
        let whence = "derived from the route's identity where the request has it";
        return Keyed::new(format!("{whence}, in {carrier}{missing}"), injects);
    }
    match (injects, signed) {
        _ if wanting => Keyed::new(format!("the client's own, in {carrier}{missing}"), true),
        (true, _) => Keyed::new(format!("a random one, in {carrier}"), true),
        (false, true) => {
            Keyed::new("none: the request is signed, and nothing is added to it", false)
        }
        (false, false) => Keyed::new("none: this is not an effect route", false),
    }
}
