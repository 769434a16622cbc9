//! Refuses a request whose JSON does not fit the route's schema, before it costs anything.
//!
//! A [`Schema`] is compiled once, when the config is loaded, and asks nobody for anything:
//! what it refers to has to be in its own file. `layer` reads the body, as far as the
//! route holds bodies in memory, and asks it.
//!
//! # Invariants
//!
//! - What cannot be judged is passed on: too large, in a coding that is not known, or JSON
//!   that readers do not agree on.
//! - A misfit is told by its place and the keyword that it breaks, never by its value.
//! - No pattern backtracks, so a body costs time in proportion to its size.

mod layer;

use std::fmt;
use std::sync::Arc;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde::de::IgnoredAny;
use serde_json::Value;

pub use layer::{Checked, SchemaLayer, Terms};

/// A JSON Schema, compiled; a clone shares it.
#[derive(Clone)]
pub struct Schema(Arc<Validator>);

/// How a body departs from its schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit(String);

impl Schema {
    /// Reads and compiles a schema, of draft 2020-12 unless it says another.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it: it is no JSON, no schema, refers to something outside
    /// of itself, or has a pattern that would backtrack.
    pub fn compile(text: &[u8]) -> Result<Self, String> {
        let schema: Value =
            serde_json::from_slice(text).map_err(|error| format!("is not JSON: {error}"))?;
        let options = jsonschema::options().offline().with_pattern_options(PatternOptions::regex());
        let compiled = options.build(&schema).map_err(|error| told(&error))?;
        Ok(Self(Arc::new(compiled)))
    }

    /// Asks whether a body fits; false where it is JSON that cannot be judged, since it is
    /// nested too deeply, or has a number or a string that is read in two ways.
    ///
    /// # Errors
    ///
    /// The first [`Misfit`].
    pub fn check(&self, body: &[u8]) -> Result<bool, Misfit> {
        // Other readers of ours skip a byte order mark too: RFC 8259, section 8.1.
        let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
        let body: Value = match serde_json::from_slice(body) {
            Ok(body) => body,
            Err(_unread) if is_json(body) => return Ok(false),
            Err(error) => {
                let (line, column) = (error.line(), error.column());
                let told = "the request's body is not JSON, from";
                return Err(Misfit(format!("{told} line {line}, column {column}")));
            }
        };
        self.0.validate(&body).map(|()| true).map_err(|error| Misfit::of(&error))
    }
}

/// A fault of the schema: it is the operator's own text, so that it may be quoted.
fn told(error: &ValidationError<'_>) -> String {
    let at = error.instance_path().as_str();
    let place = if at.is_empty() { String::new() } else { format!(" (at {})", shortened(at)) };
    format!("is not a JSON Schema that can be used: {}{place}", shortened(&error.to_string()))
}

impl Misfit {
    fn of(error: &ValidationError<'_>) -> Self {
        let at = match error.instance_path().as_str() {
            "" => "its root".to_owned(),
            at => shortened(at),
        };
        // The name stands in the schema, and not in the body.
        let missing = match error.kind() {
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                format!(": `{}` is missing", shortened(name))
            }
            _ => String::new(),
        };
        let keyword = error.kind().keyword();
        Self(format!(
            "the request's body breaks `{keyword}` of this route's schema at {at}{missing}"
        ))
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schema")
    }
}

/// Whether a text keeps to the grammar, however deep it goes and whatever its values are.
fn is_json(text: &[u8]) -> bool {
    let text = std::str::from_utf8(text).ok();
    text.is_some_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

fn shortened(text: &str) -> String {
    let head: String = text.chars().take(SHOWN_MAX).collect();
    if head.len() < text.len() { head + "\u{2026}" } else { head }
}

/// Signs of a place that are told: a name in it may be the client's, and of any length.
const SHOWN_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &str = r##"{
        "type": "object", "required": ["model", "input"], "additionalProperties": false,
        "properties": {
            "model": {"enum": ["fast", "good"]},
            "input": {"type": "object", "required": ["url"], "properties": {
                "url": {"type": "string", "pattern": "^https://", "maxLength": 20},
                "a/b": {"type": "integer", "minimum": 1}
            }},
            "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": true},
            "tree": {"$ref": "#/$defs/tree"}
        },
        "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}
    }"##;

    fn check(body: &str) -> String {
        let schema = Schema::compile(ORDER.as_bytes()).expect("a schema");
        schema.check(body.as_bytes()).map_or_else(
            |misfit| misfit.to_string(),
            |judged| if judged { String::new() } else { "unjudged".to_owned() },
        )
    }

    #[test]
    fn a_misfit_is_told_by_its_place_and_its_keyword() {
        let good = r#"{"model": "fast", "input": {"url": "https://a.test"}}"#;
        assert_eq!(check(good), "");
        assert_eq!(check(&format!("\u{feff}{good}")), "");
        let input = |input: &str| good.replace(r#""url": "https://a.test""#, input);
        for (body, keyword, place) in [
            ("[]".to_owned(), "type", "its root"),
            ("{}".to_owned(), "required", "its root: `model` is missing"),
            (good.replace("fast", "secret"), "enum", "/model"),
            (input(""), "required", "/input: `url` is missing"),
            (input(r#""url": 7"#), "type", "/input/url"),
            (input(r#""url": "ftp://secret""#), "pattern", "/input/url"),
            (input(r#""url": "https://secret/longer""#), "maxLength", "/input/url"),
            (input(r#""url": "https://a", "a/b": 0"#), "minimum", "/input/a~1b"),
            (good.replacen('{', r#"{"tags": ["a", 1],"#, 1), "type", "/tags/1"),
            (good.replacen('{', r#"{"tags": ["a", "a"],"#, 1), "uniqueItems", "/tags"),
            (good.replacen('{', r#"{"secret": 1,"#, 1), "additionalProperties", "its root"),
        ] {
            let wanted =
                format!("the request's body breaks `{keyword}` of this route's schema at {place}");
            let told = check(&body);
            assert_eq!(told, wanted, "{body}");
            assert!(!told.contains("secret"), "{told}");
        }
        for body in ["", "{", "{}x", "\u{0}"] {
            assert!(
                check(body).starts_with("the request's body is not JSON, from line 1"),
                "{body}"
            );
        }
    }

    #[test]
    fn a_place_is_told_up_to_a_length() {
        let text = r#"{"additionalProperties": {"type": "string"}}"#;
        let schema = Schema::compile(text.as_bytes()).expect("a schema");
        for (length, is_whole) in [(SHOWN_MAX - 2, true), (SHOWN_MAX - 1, true), (SHOWN_MAX, false)]
        {
            let name = "x".repeat(length);
            let misfit =
                schema.check(format!(r#"{{"{name}": 1}}"#).as_bytes()).expect_err("no text");
            assert_eq!(misfit.to_string().ends_with(&name), is_whole, "{length}");
            assert!(misfit.to_string().chars().count() < SHOWN_MAX + 100);
        }
    }

    #[test]
    fn what_is_nested_as_deeply_as_it_is_read_does_no_harm() {
        let nested = |depth: usize| {
            let (open, close) = ("[".repeat(depth), "]".repeat(depth));
            format!(
                r#"{{"model": "fast", "input": {{"url": "https://a"}}, "tree": {open}{close}}}"#
            )
        };
        for depth in [1, 126] {
            assert_eq!(check(&nested(depth)), "", "{depth}");
        }
        for depth in [127, 100_000] {
            assert_eq!(check(&nested(depth)), "unjudged", "{depth}");
            assert!(check(&"[".repeat(depth)).contains("is not JSON"), "{depth}");
        }
    }

    #[test]
    fn json_that_cannot_be_read_for_certain_is_not_judged() {
        for (body, wanted) in [
            ("[1e400]", "unjudged"),
            (r#"["\ud800"]"#, "unjudged"),
            ("[1e400", "the request's body is not JSON, from line 1, column 6"),
        ] {
            assert!(check(body).starts_with(wanted), "{body}: {}", check(body));
        }
        let schema = Schema::compile(b"{}").expect("a schema");
        assert!(schema.check(b"[\"\xff\"]").is_err(), "it is no text");
    }

    #[test]
    fn a_schema_stands_alone_and_is_one() {
        for (text, words) in [
            ("{", "is not JSON: "),
            ("7", "is not a JSON Schema that can be used: "),
            (r#"{"type": "strin"}"#, "is not a JSON Schema that can be used: "),
            (r#"{"$ref": "https://a.test/s.json"}"#, "https://a.test/s.json"),
            (r#"{"$ref": "other.json"}"#, "other.json"),
            (r#"{"$ref": "file:///etc/passwd"}"#, "file:///etc/passwd"),
            (r##"{"$ref": "#/$defs/none"}"##, "none"),
            (r#"{"$schema": "https://a.test/draft"}"#, "https://a.test/draft"),
            (r#"{"pattern": "("}"#, "("),
            (r#"{"pattern": "^(?=a)"}"#, "(?=a)"),
        ] {
            let told = Schema::compile(text.as_bytes()).expect_err(text);
            assert!(told.starts_with("is not ") && told.contains(words), "{text}: {told}");
        }
        for text in [
            "true",
            "{}",
            r##"{"$ref": "#"}"##,
            r#"{"$schema": "http://json-schema.org/draft-07/schema#"}"#,
        ] {
            let schema = Schema::compile(text.as_bytes()).expect(text);
            assert_eq!(schema.check(b"{}"), Ok(true), "{text}");
        }
    }
}
