//! What a found item becomes: the answer that the lost one would have been.

use crate::exchange::Pointer;
use crate::exchange::json::Node;
use crate::idempotency::splice::quoted;

/// A JSON value with places for what stands in the item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// This JSON text.
    Literal(String),
    /// The value in the item, as it stands there.
    Value(Pointer),
    /// A string.
    Text(Vec<Piece>),
    /// An array.
    List(Vec<Self>),
    /// An object.
    Object(Vec<(String, Self)>),
}

/// A piece of a string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// This text.
    Text(String),
    /// The text of the value in the item.
    Json(Pointer),
}

impl Shape {
    /// Reads a string: `{json:POINTER}` stands for what is in the item. Where it is all
    /// of the string, the value is taken as it is, a number or an object too.
    ///
    /// # Errors
    ///
    /// Says what is wanted where a brace is not closed, or what is in it is not that.
    pub fn parse(written: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = written;
        while let Some((text, after)) = rest.split_once('{') {
            let (inside, after) = after.split_once('}').ok_or(WANTED)?;
            let pointer = inside.strip_prefix("json:").ok_or(WANTED)?;
            let pointer = Pointer::parse(pointer).map_err(|wish| format!("must be {wish}"))?;
            pieces.extend((!text.is_empty()).then(|| Piece::Text(text.to_owned())));
            pieces.push(Piece::Json(pointer));
            rest = after;
        }
        pieces.extend((!rest.is_empty()).then(|| Piece::Text(rest.to_owned())));
        Ok(match pieces.as_slice() {
            [Piece::Json(pointer)] => Self::Value(pointer.clone()),
            _ => Self::Text(pieces),
        })
    }

    /// The JSON text for `item`, which stands in `text`; none where something is not in it:
    /// an answer that lacks what it was to say is none.
    pub(super) fn render(&self, item: &Node<'_>, text: &[u8]) -> Option<String> {
        match self {
            Self::Literal(literal) => Some(literal.clone()),
            Self::Value(pointer) => {
                let found = item.at(pointer)?;
                Some(std::str::from_utf8(text.get(found.span.clone())?).ok()?.to_owned())
            }
            Self::Text(pieces) => {
                let pieces = pieces.iter().map(|piece| match piece {
                    Piece::Text(text) => Some(text.clone()),
                    Piece::Json(pointer) => Some(item.at(pointer)?.text()?.into_owned()),
                });
                Some(quoted(&pieces.collect::<Option<String>>()?))
            }
            Self::List(items) => {
                let items = items.iter().map(|shape| shape.render(item, text));
                Some(format!("[{}]", items.collect::<Option<Vec<_>>>()?.join(",")))
            }
            Self::Object(members) => {
                let members = members.iter().map(|(name, shape)| {
                    Some(format!("{}:{}", quoted(name), shape.render(item, text)?))
                });
                Some(format!("{{{}}}", members.collect::<Option<Vec<_>>>()?.join(",")))
            }
        }
    }
}

const WANTED: &str = "must hold no braces but {json:POINTER}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::json;

    const ITEM: &str = r#"{"id": 12345678901234567890, "name": "a\"b", "size": {"w": 1.50}}"#;

    fn rendered(shape: &Shape) -> Option<String> {
        shape.render(&json::parse(ITEM.as_bytes()).expect("JSON"), ITEM.as_bytes())
    }

    #[test]
    fn an_answer_is_made_of_what_stands_in_the_item() {
        let text = |written| Shape::parse(written).expect("a template");
        for (shape, wanted) in [
            (text("{json:/id}"), Some("12345678901234567890")),
            (text("{json:/size}"), Some(r#"{"w": 1.50}"#)),
            (text("job-{json:/id}: {json:/name}"), Some(r#""job-12345678901234567890: a\"b""#)),
            (text("plain"), Some("\"plain\"")),
            (text(""), Some("\"\"")),
            (text("{json:/none}"), None),
            (text("is {json:/none}"), None),
            (text("is {json:/size}"), None),
            (
                Shape::List(vec![Shape::Literal("1".to_owned()), text("{json:/name}")]),
                Some(r#"[1,"a\"b"]"#),
            ),
            (
                Shape::Object(vec![
                    ("a\"".to_owned(), Shape::Literal("true".to_owned())),
                    ("b".to_owned(), text("{json:/size/w}")),
                ]),
                Some(r#"{"a\"":true,"b":1.50}"#),
            ),
            (Shape::Object(vec![("a".to_owned(), text("{json:/none}"))]), None),
        ] {
            assert_eq!(rendered(&shape).as_deref(), wanted, "{shape:?}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for written in ["{", "{json:/a", "{id}", "{json:a}"] {
            assert!(Shape::parse(written).is_err(), "{written}");
        }
    }
}
