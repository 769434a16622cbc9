//! Finds the client's key where the route says it travels, and puts ours in there.
//!
//! A body or a query is never written anew: what goes in is spliced between bytes
//! that stay as they came, so that nothing the client meant is lost on the way.

use http::HeaderMap;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Carrier;
use super::key::{Key, KeyFault};
use crate::exchange::Pointer;
use crate::exchange::json::{self, Node, Value};
use crate::exchange::query;

/// The key that the client put into its request, if it did.
///
/// A JSON `null` is no key; a number is one, by its text. The value is passed on
/// as it came; a query's is only decoded to be looked up by.
///
/// # Errors
///
/// A [`KeyFault`] when what is there is no key, or there is more than one.
pub fn client_key(
    carrier: &Carrier,
    headers: &HeaderMap,
    query: Option<&str>,
    body: Option<&Node<'_>>,
) -> Result<Option<Key>, KeyFault> {
    match carrier {
        Carrier::Header(name) => {
            only(headers.get_all(name).iter().map(|line| Key::parse(line.as_bytes())))
        }
        Carrier::Query(name) => only(query::values(query, name).map(|value| Key::parse(&value))),
        Carrier::Json(pointer) => {
            let found = body.map_or(Ok(None), |body| body.find(pointer));
            found.map_err(|json::Ambiguous| KeyFault::Several)?.map_or(Ok(None), member_key)
        }
    }
}

/// The body with `key` at `pointer`, and every other byte as it was.
///
/// The member goes first in the deepest object that is there, parents that are not
/// there around it; where it is `null` or an empty string, its value is replaced.
/// None where the body is not an object that can take it: not JSON, a parent that
/// is no object or occurs twice, or a member that already has a value.
pub fn splice_json(body: &[u8], pointer: &Pointer, key: &Key) -> Option<Vec<u8>> {
    let root = json::parse(body).ok()?;
    let mut node = &root;
    let mut tokens = pointer.tokens().iter();
    root.members()?;
    while let Some(token) = tokens.next() {
        let Some(child) = node.child(token).ok()? else {
            let members = node.members()?;
            let behind_brace = node.span.start + 1;
            let comma = if members.is_empty() { "" } else { "," };
            let member = format!("{}{comma}", nested(token, tokens.as_slice(), key));
            return replaced(body, behind_brace, behind_brace, &member);
        };
        node = child;
    }
    // Reached only when every token was found: with no token at all, that is the root.
    let vacant = match &node.value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => false,
    };
    vacant.then(|| replaced(body, node.span.start, node.span.end, &quoted(key.as_str())))?
}

/// The target with `name=key` as its last parameter.
pub fn splice_query(path_and_query: &str, name: &str, key: &Key) -> String {
    let joint = match path_and_query.split_once('?') {
        None => "?",
        Some((_, query)) if query.is_empty() || query.ends_with('&') => "",
        Some(_) => "&",
    };
    let name = utf8_percent_encode(name, RESERVED);
    let key = utf8_percent_encode(key.as_str(), RESERVED);
    format!("{path_and_query}{joint}{name}={key}")
}

fn only(mut keys: impl Iterator<Item = Result<Key, KeyFault>>) -> Result<Option<Key>, KeyFault> {
    match (keys.next(), keys.next()) {
        (Some(_), Some(_)) => Err(KeyFault::Several),
        (key, _) => key.transpose(),
    }
}

fn member_key(node: &Node<'_>) -> Result<Option<Key>, KeyFault> {
    match &node.value {
        Value::Null => Ok(None),
        Value::String(text) => Key::parse(text.as_bytes()).map(Some),
        Value::Number(text) => Key::parse(text.as_bytes()).map(Some),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => Err(KeyFault::NotText),
    }
}

/// `"token":"key"`, or the key inside the parents that are still missing.
fn nested(token: &str, below: &[String], key: &Key) -> String {
    let name = quoted(token);
    match below.split_first() {
        None => format!("{name}:{}", quoted(key.as_str())),
        Some((next, below)) => format!("{name}:{{{}}}", nested(next, below, key)),
    }
}

/// A JSON string (RFC 8259, section 7).
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for sign in text.chars() {
        match sign {
            '"' | '\\' => quoted.extend(['\\', sign]),
            '\0'..='\u{1f}' => quoted.extend([format!("\\u{:04x}", u32::from(sign))]),
            _ => quoted.push(sign),
        }
    }
    quoted.push('"');
    quoted
}

fn replaced(body: &[u8], from: usize, to: usize, with: &str) -> Option<Vec<u8>> {
    Some([body.get(..from)?, with.as_bytes(), body.get(to..)?].concat())
}

/// All but the unreserved characters of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn key(text: &str) -> Key {
        Key::parse(text.as_bytes()).expect("a key")
    }

    fn pointer(text: &str) -> Pointer {
        Pointer::parse(text).expect("a pointer")
    }

    #[test]
    fn a_key_is_found_in_its_field() {
        let carrier = Carrier::Header(HeaderName::from_static("idempotency-key"));
        let find = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                let value = HeaderValue::from_str(line).expect("a field value");
                headers.append("idempotency-key", value);
            }
            client_key(&carrier, &headers, None, None)
        };
        assert_eq!(find(&[]), Ok(None));
        assert_eq!(find(&["\"a\""]), Ok(Some(key("\"a\""))));
        assert_eq!(find(&["a", "a"]), Err(KeyFault::Several));
        assert_eq!(find(&[""]), Err(KeyFault::Empty));
        assert_eq!(find(&["a b"]), Err(KeyFault::NotVisible));
    }

    #[test]
    fn a_key_is_found_in_its_parameter() {
        let find =
            |query| client_key(&Carrier::Query("id".to_owned()), &HeaderMap::new(), query, None);
        assert_eq!(find(None), Ok(None));
        assert_eq!(find(Some("a=1&ids=2")), Ok(None));
        assert_eq!(find(Some("a=1&id=%41+/")), Ok(Some(key("A+/"))));
        assert_eq!(find(Some("id=1&id=1")), Err(KeyFault::Several));
        assert_eq!(find(Some("id")), Err(KeyFault::Empty));
        assert_eq!(find(Some("id=a%20b")), Err(KeyFault::NotVisible));
    }

    #[test]
    fn a_key_is_found_in_its_member() {
        let find = |body: &str| {
            let root = json::parse(body.as_bytes()).expect("a JSON text");
            client_key(&Carrier::Json(pointer("/m/id")), &HeaderMap::new(), None, Some(&root))
        };
        assert_eq!(find("{}"), Ok(None));
        assert_eq!(find("[]"), Ok(None));
        assert_eq!(find(r#"{"m":{"id":null}}"#), Ok(None));
        assert_eq!(find(r#"{"m":{"id":"\u0041/1"}}"#), Ok(Some(key("A/1"))));
        assert_eq!(find(r#"{"m":{"id":10}}"#), Ok(Some(key("10"))));
        assert_eq!(find(r#"{"m":{"id":""}}"#), Err(KeyFault::Empty));
        assert_eq!(find(r#"{"m":{"id":true}}"#), Err(KeyFault::NotText));
        assert_eq!(find(r#"{"m":{"id":"a","id":"b"}}"#), Err(KeyFault::Several));
        let none = client_key(&Carrier::Json(pointer("/id")), &HeaderMap::new(), None, None);
        assert_eq!(none, Ok(None));
    }

    #[test]
    fn a_key_is_spliced_into_a_body() {
        for (body, at, wanted) in [
            ("{}", "/id", Some(r#"{"id":"k\"\\"}"#)),
            (" { } ", "/id", Some(r#" {"id":"k\"\\" } "#)),
            (r#"{"a":1}"#, "/id", Some(r#"{"id":"k\"\\","a":1}"#)),
            (r#"{"id": null, "a":1}"#, "/id", Some(r#"{"id": "k\"\\", "a":1}"#)),
            (r#"{"id":""}"#, "/id", Some(r#"{"id":"k\"\\"}"#)),
            (r#"{"m":{"a":1}}"#, "/m/id", Some(r#"{"m":{"id":"k\"\\","a":1}}"#)),
            (r#"{"a":1}"#, "/m/n/id", Some(r#"{"m":{"n":{"id":"k\"\\"}},"a":1}"#)),
            (r#"[{"a":1}]"#, "/0/id", None),
            (r#"{"m":[{}]}"#, "/m/0/id", Some(r#"{"m":[{"id":"k\"\\"}]}"#)),
            (r#"{"m":[]}"#, "/m/0/id", None),
            (r#"{"m":null}"#, "/m/id", None),
            (r#"{"m":1}"#, "/m/id", None),
            (r#"{"id":"x"}"#, "/id", None),
            (r#"{"id":0}"#, "/id", None),
            (r#"{"id":{}}"#, "/id", None),
            (r#"{"m":{},"m":{}}"#, "/m/id", None),
            (r#"{"id":null,"id":null}"#, "/id", None),
            ("{}", "", None),
            ("1", "/id", None),
            ("{", "/id", None),
        ] {
            let spliced = splice_json(body.as_bytes(), &pointer(at), &key("k\"\\"));
            let spliced = spliced.map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
            assert_eq!(spliced.as_deref(), wanted, "{body} {at}");
        }
    }

    #[test]
    fn a_key_is_spliced_into_a_query() {
        for (target, wanted) in [
            ("/a", "/a?i%20d=k%2B%2F-"),
            ("/a?", "/a?i%20d=k%2B%2F-"),
            ("/a?b=%20+", "/a?b=%20+&i%20d=k%2B%2F-"),
            ("/a?b&", "/a?b&i%20d=k%2B%2F-"),
        ] {
            let spliced = splice_query(target, "i d", &key("k+/-"));
            assert_eq!(spliced, wanted);
            let query = spliced.split_once('?').map(|(_, query)| query);
            let found =
                client_key(&Carrier::Query("i d".to_owned()), &HeaderMap::new(), query, None);
            assert_eq!(found, Ok(Some(key("k+/-"))));
        }
    }

    proptest! {
        #[test]
        fn a_splice_keeps_every_other_byte_and_is_found_again(
            names in proptest::collection::btree_set("[a-c/~ \"\\\\\u{1}é]{1,4}", 1..4),
            depth in 1_usize..4,
            written in "[!-~]{1,20}",
            blank in "[ \n\t]{0,2}",
        ) {
            let names: Vec<_> = names.into_iter().collect();
            let name = serde_json::to_string(&names[0]).expect("a string");
            let body = format!(
                "{blank}{{{blank}{name}:{blank}{{{blank}}}{blank},\"z\":[1, 2]}}{blank}"
            );
            let path: String = (0..depth)
                .map(|nth| names[nth % names.len()].replace('~', "~0").replace('/', "~1"))
                .fold(String::new(), |path, token| format!("{path}/{token}"));
            let spliced = splice_json(body.as_bytes(), &pointer(&path), &key(&written));
            // The first name is there, as an object: with no more than it, no value may go in.
            prop_assert_eq!(spliced.is_some(), depth > 1);
            if let Some(spliced) = spliced {
                let root = json::parse(&spliced).expect("a JSON text");
                let carrier = Carrier::Json(pointer(&path));
                let found = client_key(&carrier, &HeaderMap::new(), None, Some(&root));
                prop_assert_eq!(found, Ok(Some(key(&written))));
                let added = spliced.len() - body.len();
                let at = spliced.iter().zip(body.as_bytes()).take_while(|(a, b)| a == b).count();
                let mut kept = spliced.clone();
                let restored = (0..=at).any(|from| {
                    kept.clone_from(&spliced);
                    kept.drain(from..from + added);
                    kept == body.as_bytes()
                });
                prop_assert!(restored);
            }
        }
    }
}
