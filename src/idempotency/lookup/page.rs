//! One page of a provider's list, and what it says of a key.

use crate::exchange::json::{self, Node, Value};
use crate::idempotency::lookup::{Next, Recipe};

/// What one page says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    /// The items that name the key, as they stand there.
    pub(super) found: Vec<String>,
    /// How many items there are.
    pub(super) items: usize,
    /// Whether any of them names a key at all.
    pub(super) names_keys: bool,
    /// Where the next page begins, where that is told.
    pub(super) cursor: Option<String>,
}

impl Page {
    /// Reads the text of a page; none where it is not what the recipe says it is.
    pub(super) fn read(recipe: &Recipe, key: &str, text: &[u8]) -> Option<Self> {
        let root = json::parse(text).ok()?;
        if recipe.failures.iter().any(|failure| failure.holds(&root)) {
            return None;
        }
        let mut page = Self::default();
        if let More::From(cursor) = more(&recipe.next, &root)? {
            page.cursor = Some(cursor);
        }
        let one = std::slice::from_ref(&root);
        let items = match &recipe.items {
            None => one,
            Some(pointer) => match &root.find(pointer).ok()??.value {
                Value::Array(items) => items,
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Object(_) => return None,
            },
        };
        page.items = items.len();
        for item in items {
            let Some(named) = item.find(&recipe.wanted).ok()?.and_then(Node::text) else {
                continue;
            };
            page.names_keys |= !named.is_empty();
            if named == key {
                let item = text.get(item.span.clone())?;
                page.found.push(std::str::from_utf8(item).ok()?.to_owned());
            }
        }
        Some(page)
    }
}

/// What a page says of the next.
enum More {
    /// Nothing, or that there is none.
    Untold,
    /// It begins here.
    From(String),
}

/// None where it cannot be read.
fn more(next: &Next, root: &Node<'_>) -> Option<More> {
    let Next::Cursor(pointer) = next else { return Some(More::Untold) };
    let Some(found) = root.find(pointer).ok()? else { return Some(More::Untold) };
    match &found.value {
        Value::Null | Value::Bool(false) => Some(More::Untold),
        Value::String(text) if text.is_empty() => Some(More::Untold),
        Value::String(text) => Some(More::From(text.clone().into_owned())),
        Value::Number(text) => Some(More::From((*text).to_owned())),
        Value::Bool(true) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{Condition, Pointer, Scalar};
    use crate::idempotency::lookup::tests::recipe;

    fn pointer(text: &str) -> Pointer {
        Pointer::parse(text).expect("a pointer")
    }

    fn read(text: &str) -> Option<(usize, usize, bool)> {
        let page = Page::read(&recipe(), "k", text.as_bytes())?;
        Some((page.found.len(), page.items, page.names_keys))
    }

    #[test]
    fn a_list_is_read_for_the_key() {
        for (text, wanted) in [
            (r#"{"jobs":[]}"#, Some((0, 0, false))),
            (r#"{"jobs":[{"tag":"k"}]}"#, Some((1, 1, true))),
            (r#"{"jobs":[{"tag":"x"},{"tag":"k","n":1}]}"#, Some((1, 2, true))),
            (r#"{"jobs":[{"tag":"k"},{"tag":"k"}]}"#, Some((2, 2, true))),
            (r#"{"jobs":[{"tag":"K"},{"tag":" k"}]}"#, Some((0, 2, true))),
            (r#"{"jobs":[{"id":1},{"tag":null},7]}"#, Some((0, 3, false))),
            (r#"{"jobs":[{"tag":""}]}"#, Some((0, 1, false))),
            (r#"{"jobs":[{"tag":{"k":1}}]}"#, Some((0, 1, false))),
            // What is no list, or can be read in two ways, is no clean reading.
            (r#"{"jobs":null}"#, None),
            (r#"{"jobs":{}}"#, None),
            (r#"{"items":[]}"#, None),
            ("[]", None),
            (r#"{"jobs":[{"tag":"x"}"#, None),
            (r#"{"jobs":[],"jobs":[]}"#, None),
            (r#"{"jobs":[{"tag":"x","tag":"k"}]}"#, None),
            ("", None),
        ] {
            assert_eq!(read(text), wanted, "{text}");
        }
    }

    #[test]
    fn a_list_in_an_answer_that_is_a_failure_is_none() {
        let failed = Condition { pointer: pointer("/success"), values: vec![Scalar::Bool(false)] };
        let recipe = Recipe { failures: vec![failed], ..recipe() };
        for (text, is_list) in [
            (r#"{"success":false,"jobs":[]}"#, false),
            (r#"{"success":true,"jobs":[]}"#, true),
            (r#"{"jobs":[]}"#, true),
        ] {
            assert_eq!(Page::read(&recipe, "k", text.as_bytes()).is_some(), is_list, "{text}");
        }
    }

    #[test]
    fn an_item_is_found_as_it_stands_there() {
        let text = br#"{"jobs": [ {"n": 1.50,  "tag": "k"} ]}"#;
        let page = Page::read(&recipe(), "k", text).expect("it is clean");
        assert_eq!(page.found, [r#"{"n": 1.50,  "tag": "k"}"#]);
    }

    #[test]
    fn an_answer_can_be_the_one_item() {
        let recipe = Recipe { items: None, ..recipe() };
        let page = Page::read(&recipe, "k", br#"{"tag":"k"}"#).expect("it is clean");
        assert_eq!((page.found.len(), page.items), (1, 1));
        let page = Page::read(&recipe, "k", br#"{"tag":"other"}"#).expect("it is clean");
        assert_eq!((page.found.len(), page.names_keys), (0, true));
    }

    #[test]
    fn a_cursor_goes_on_until_there_is_none() {
        let recipe = Recipe { next: Next::Cursor(pointer("/next")), ..recipe() };
        for (next, wanted) in [
            ("", Some(None)),
            (r#","next":null"#, Some(None)),
            (r#","next":"""#, Some(None)),
            (r#","next":false"#, Some(None)),
            (r#","next":"c2""#, Some(Some("c2"))),
            (r#","next":40"#, Some(Some("40"))),
            (r#","next":true"#, None),
            (r#","next":{}"#, None),
            (r#","next":"a","next":"b""#, None),
        ] {
            let text = format!(r#"{{"jobs":[]{next}}}"#);
            let page = Page::read(&recipe, "k", text.as_bytes());
            let cursor = page.as_ref().map(|page| page.cursor.as_deref());
            assert_eq!(cursor, wanted, "{next}");
        }
    }
}
