//! The file as a tree in which every key still knows its line.
//!
//! Reading YAML straight into structs stops at the first thing that does not
//! fit. A tree fits everything, so that all faults can be told at once.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Options, Spanned};

/// A value and its line.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Where its key stands, or where it stands itself in a list.
    pub(super) line: u64,
    /// What it is.
    pub(super) value: Value,
}

impl Node {
    /// The value of a key, where this is a map that has it.
    pub(super) fn child(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(own, _)| own == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The value of a key, where that is text.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match &self.child(key)?.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// What can stand in the file.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Whole(i128),
    Decimal(f64),
    Text(String),
    List(Vec<Node>),
    /// Keys in the order of the file; a key may come twice.
    Map(Vec<(String, Node)>),
}

/// Reads a text; an empty one is `null`.
///
/// # Errors
///
/// The line, where there is one, and why the text is not YAML.
pub(super) fn read(text: &str) -> Result<Node, (Option<u64>, String)> {
    let root = serde_saphyr::from_str_with_options::<Value>(text, options());
    root.map(|value| Node { line: 1, value }).map_err(|error| {
        let line = error.location().map(|place| place.line());
        (line.filter(|line| *line > 0), plain(&error.without_snippet().to_string()))
    })
}

fn options() -> Options {
    serde_saphyr::options! {
        // Far above any real file, far below what aliases could blow up to.
        budget: serde_saphyr::budget! { max_depth: 32, max_nodes: 100_000 },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 100_000 },
        // Passed on, so that a key that comes twice is told with all other faults.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // `on:` is a key and `010` is not eight.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
    }
}

/// The first line of a message, without the place, which is told apart from it.
fn plain(message: &str) -> String {
    let first = message.lines().find(|line| !line.trim().is_empty()).unwrap_or(message).trim();
    // Behind `; use` stands advice to programmers.
    let bare =
        [" at line ", "; use "].iter().fold(first.trim_start_matches("error: "), |text, end| {
            text.split_once(end).map_or(text, |(head, _)| head)
        });
    format!("not YAML that can be read: {bare}")
}

impl Value {
    /// How a fault quotes the value.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(yes) => yes.to_string(),
            Self::Whole(number) => number.to_string(),
            Self::Decimal(number) => number.to_string(),
            // Text with a URL in it may hold a password.
            Self::Text(text) if text.contains("://") && text.contains('@') => "a URL".to_owned(),
            Self::Text(text) => {
                let head: String = text.chars().take(QUOTED_MAX).collect();
                let rest = if head.len() < text.len() { "…" } else { "" };
                format!("`{}{rest}`", head.replace(char::is_control, "\u{fffd}"))
            }
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a map".to_owned(),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, yes: bool) -> Result<Value, E> {
        Ok(Value::Bool(yes))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Whole(number.into()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Whole(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Decimal(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Value>>()? {
            list.push(Node { line: item.referenced.line(), value: item.value });
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            let node = Node { line: key.referenced.line(), value: entries.next_value()? };
            map.push((key.value, node));
        }
        Ok(Value::Map(map))
    }
}

/// Signs of a wrong value that a fault repeats: enough to find it by.
const QUOTED_MAX: usize = 60;
