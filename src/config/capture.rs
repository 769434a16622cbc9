//! The `capture` key of a route: ids that the ledger takes from requests and answers.

use std::collections::BTreeMap;

use schemars::json_schema;

use crate::config::idempotency::header_name;
use crate::config::leaf::{Parse, Parsed, form, is_name};
use crate::config::reading::{Reading, Written, join};
use crate::config::tree::Node;
use crate::exchange::Pointer;
use crate::idempotency::capture::{Place, is_secret};
use crate::idempotency::{Captures, CredentialField};

/// `capture` as written: names of the operator's, in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct CapturesKey(Vec<(String, Parsed<Place>)>);

impl CapturesKey {
    fn shown(&self) -> BTreeMap<&str, &str> {
        self.0.iter().map(|(name, id)| (name.as_str(), id.text.as_str())).collect()
    }

    /// As meant, on a route where these are credentials too.
    pub(super) fn meant(
        &self,
        route: &str,
        credentials: &[CredentialField],
        reading: &mut Reading<'_>,
    ) -> Captures {
        let key = reading.written_at(route, "idempotency.capture");
        let other = reading.written_at(route, "idempotency.credentials");
        for (name, id) in &self.0 {
            if credentials.iter().any(|field| is_at(field, &id.meant)) {
                let wish = "must not be one of `credentials`: what is captured is shown";
                reading.clash(&join(&key, name), &other, wish);
            }
        }
        let all = self.0.iter().map(|(name, id)| (name.clone(), id.meant.clone()));
        Captures::new(all.collect())
    }
}

/// Whether a credential stands there, by whatever it is carried.
fn is_at(field: &CredentialField, place: &Place) -> bool {
    let credential = match field {
        CredentialField::Header(name) => name.as_str(),
        CredentialField::Query(name) => name,
    };
    last_name(place).is_some_and(|name| name.eq_ignore_ascii_case(credential))
}

/// What the value is called where it stands.
fn last_name(place: &Place) -> Option<&str> {
    match place {
        Place::Answer(pointer) | Place::Request(pointer) => {
            pointer.tokens().last().map(String::as_str)
        }
        Place::AnswerField(name) | Place::RequestField(name) => Some(name.as_str()),
        Place::RequestPart(name) => Some(name),
    }
}

impl Written for CapturesKey {
    fn fresh(node: &Node, at: &str, reading: &mut Reading<'_>) -> Option<Self> {
        let mut captures = Vec::new();
        for (name, node) in reading.pairs(node, at) {
            let at = join(at, name);
            if !is_name(name) {
                reading.fault(&at, "must be named with 1 to 64 of A-Za-z0-9_.-");
            }
            let place = Parsed::fresh(node, &at, reading);
            captures.extend(place.map(|place| (name.to_owned(), place)));
        }
        if captures.len() > CAPTURES_MAX {
            reading.fault(at, format!("must hold at most {CAPTURES_MAX} ids"));
        }
        Some(Self(captures))
    }
}

impl Parse for Place {
    fn parse(text: &str) -> Result<Self, String> {
        let place = read(text)?;
        let name = last_name(&place).unwrap_or_default();
        if is_secret(name) {
            return Err("must not be a credential: what is captured is shown".to_owned());
        }
        if name.starts_with("samekey-") {
            return Err("must be a header that goes upstream".to_owned());
        }
        Ok(place)
    }
}

fn read(text: &str) -> Result<Place, String> {
    let pointer = |text| Pointer::parse(text).map_err(|wish| format!("must be {wish}"));
    let header = |name: &str| {
        header_name(name).map_err(|_wish| "must have a header's name behind `header:`".to_owned())
    };
    let Some(rest) = text.strip_prefix("request:") else {
        return match text.strip_prefix("header:") {
            Some(name) => header(name).map(Place::AnswerField),
            None if text.is_empty() || text.starts_with('/') => pointer(text).map(Place::Answer),
            None => Err(WANTED.to_owned()),
        };
    };
    match (rest.strip_prefix("header:"), rest.strip_prefix("field:")) {
        (Some(name), _) => header(name).map(Place::RequestField),
        (_, Some("")) => Err("must have a field's name behind `field:`".to_owned()),
        (_, Some(name)) => Ok(Place::RequestPart(name.to_owned())),
        _ if rest.is_empty() || rest.starts_with('/') => pointer(rest).map(Place::Request),
        _ => Err(WANTED.to_owned()),
    }
}

form!([] CapturesKey, self => self.shown(),
    json_schema!({ "type": "object", "additionalProperties": { "type": "string" } }));

const WANTED: &str = "must be /POINTER or header:NAME of the answer, or request:/POINTER, \
                      request:field:NAME or request:header:NAME";
/// A row is read by people.
const CAPTURES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_written_in_one_of_five_ways() {
        let pointer = |text: &str| Pointer::parse(text).expect("a pointer");
        let field = |text: &str| text.parse().expect("a name");
        for (text, place) in [
            ("/a/b", Place::Answer(pointer("/a/b"))),
            ("", Place::Answer(pointer(""))),
            ("header:X-Id", Place::AnswerField(field("x-id"))),
            ("request:/a", Place::Request(pointer("/a"))),
            ("request:", Place::Request(pointer(""))),
            ("request:field:a b", Place::RequestPart("a b".to_owned())),
            ("request:header:x-user", Place::RequestField(field("x-user"))),
        ] {
            assert_eq!(<Place as Parse>::parse(text), Ok(place), "{text}");
        }
        for (text, wish) in [
            ("id", WANTED),
            ("query:id", WANTED),
            ("request:id", WANTED),
            ("request:query:id", WANTED),
            ("/a~", "must be a JSON pointer whose"),
            ("request:/a~", "must be a JSON pointer whose"),
            ("header:", "must have a header's name"),
            ("header:a b", "must have a header's name"),
            ("request:header:a b", "must have a header's name"),
            ("request:field:", "must have a field's name"),
            ("header:set-cookie", "must not be a credential"),
            ("request:header:Authorization", "must not be a credential"),
            ("request:header:x-api-key", "must not be a credential"),
            ("request:field:password", "must not be a credential"),
            ("request:/auth/api_key", "must not be a credential"),
            ("/access_token", "must not be a credential"),
            ("request:header:Samekey-Key", "must be a header that goes upstream"),
        ] {
            let told = <Place as Parse>::parse(text).expect_err(text);
            assert!(told.starts_with(wish), "{text}: {told}");
        }
    }
}
