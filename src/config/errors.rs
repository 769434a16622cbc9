//! The `errors` key of a route: how answers look that are made here.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::{JsonSchema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::json;

use crate::config::leaf::{Word, Words, form};
use crate::config::reading::{Reading, Written, block, join, nth};
use crate::config::tree::{Node, Value};
use crate::exchange::Shape;
use crate::exchange::shape::{CODES, Part, Template};

/// `errors` as written.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(super) enum ErrorsKey {
    /// `problem` or `provider`.
    Word(Word<Form>),
    /// The provider's own, in its own words.
    Own(ErrorsBlock),
}

/// A form that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Problem,
    Provider,
}

block! {
    /// The provider's own error JSON, and its words for what happens here.
    ErrorsBlock {
        /// The JSON: its texts may hold {type}, {code}, {title}, {detail} or {message}, {status}.
        template: TemplateKey = TemplateKey::default(),
        /// The provider's words for {type}, by our code.
        types: WordsKey = WordsKey::default(),
        /// The provider's words for {code}, by our code.
        codes: WordsKey = WordsKey::default(),
    }
}

impl ErrorsKey {
    /// As meant.
    pub(super) fn meant(&self) -> Shape {
        match self {
            Self::Word(Word(Form::Problem)) => Shape::Problem,
            Self::Word(Word(Form::Provider)) => ErrorsBlock::default().meant(),
            Self::Own(block) => block.meant(),
        }
    }
}

impl ErrorsBlock {
    fn meant(&self) -> Shape {
        Shape::Provider(Arc::new(Template {
            root: self.template.0.clone(),
            types: self.types.0.clone(),
            codes: self.codes.0.clone(),
        }))
    }
}

impl Default for ErrorsKey {
    fn default() -> Self {
        Self::Word(Word(Form::Problem))
    }
}

impl Written for ErrorsKey {
    fn fresh(node: &Node, at: &str, reading: &mut Reading<'_>) -> Option<Self> {
        match &node.value {
            Value::Map(_) => ErrorsBlock::fresh(node, at, reading).map(Self::Own),
            Value::Text(_) => Word::fresh(node, at, reading).map(Self::Word),
            other => {
                let wish = "must be problem, provider or {template, types, codes}";
                reading.fault(at, format!("{wish} (got {})", other.shown()));
                None
            }
        }
    }

    fn read(&mut self, node: &Node, at: &str, reading: &mut Reading<'_>) {
        match (self, &node.value) {
            // Over what `defaults` say, key by key.
            (Self::Own(block), Value::Map(_)) => block.read(node, at, reading),
            (key, _) => {
                if let Some(fresh) = Self::fresh(node, at, reading) {
                    *key = fresh;
                }
            }
        }
    }
}

impl JsonSchema for ErrorsKey {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Errors".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> schemars::Schema {
        let own = generator.subschema_for::<ErrorsBlock>();
        json_schema!({ "anyOf": [Word::<Form>::json_schema(generator), own] })
    }
}

/// `template` as meant.
#[derive(Clone, Debug)]
pub(super) struct TemplateKey(Part);

impl Default for TemplateKey {
    fn default() -> Self {
        Self(Template::usual())
    }
}

impl Written for TemplateKey {
    fn fresh(node: &Node, at: &str, reading: &mut Reading<'_>) -> Option<Self> {
        if !matches!(node.value, Value::Map(_)) {
            reading.fault(at, format!("must be a map of keys (got {})", node.value.shown()));
            return None;
        }
        part(node, at, reading).map(Self)
    }
}

fn part(node: &Node, at: &str, reading: &mut Reading<'_>) -> Option<Part> {
    Some(match &node.value {
        Value::Null => Part::Plain(serde_json::Value::Null),
        Value::Bool(yes) => Part::Plain(json!(yes)),
        Value::Whole(number) => {
            let number = i64::try_from(*number);
            let Ok(number) = number else {
                reading.fault(at, "must be a number that JSON readers can hold");
                return None;
            };
            Part::Plain(json!(number))
        }
        Value::Decimal(number) => Part::Plain(json!(number)),
        Value::Text(text) => match Part::text(text) {
            Ok(part) => part,
            Err(wish) => {
                reading.fault(at, format!("must be a text with placeholders: {wish}"));
                return None;
            }
        },
        Value::List(items) => {
            let items = items.iter().enumerate();
            let parts = items.filter_map(|(n, item)| part(item, &nth(at, n), reading));
            Part::List(parts.collect())
        }
        Value::Map(_) => {
            let pairs = reading.pairs(node, at).into_iter();
            let parts = pairs.filter_map(|(name, node)| {
                Some((name.to_owned(), part(node, &join(at, name), reading)?))
            });
            Part::Map(parts.collect())
        }
    })
}

/// Words by our codes.
#[derive(Clone, Debug, Default)]
pub(super) struct WordsKey(BTreeMap<String, String>);

impl Written for WordsKey {
    fn fresh(node: &Node, at: &str, reading: &mut Reading<'_>) -> Option<Self> {
        let mut words = BTreeMap::new();
        for (code, node) in reading.entries(node, at, &CODES) {
            match &node.value {
                Value::Text(word) => drop(words.insert(code.to_owned(), word.clone())),
                other => {
                    reading.fault(&join(at, code), format!("must be text (got {})", other.shown()));
                }
            }
        }
        Some(Self(words))
    }
}

impl Words for Form {
    const WORDS: &'static [(&'static str, Self)] =
        &[("problem", Self::Problem), ("provider", Self::Provider)];
}

form!([] TemplateKey, self => json!({
    "error": { "type": "{type}", "code": "{code}", "message": "{message}" }
}), json_schema!({ "type": "object" }));
form!([] WordsKey, self => self.0, json_schema!({
    "type": "object",
    "propertyNames": { "enum": CODES },
    "additionalProperties": { "type": "string" },
}));

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Environment, parse};
    use crate::exchange::shape::Saying;

    fn config(errors: &str, defaults: &str) -> Result<Config, String> {
        let text = format!(
            "defaults: {{{defaults}}}\nroutes:\n  - name: a\n    match: {{hosts: [a.test]}}\n    {errors}\n"
        );
        let parsed = parse(&text, Path::new("a.yaml"), &Environment::default());
        parsed.map_err(|faults| faults.to_string())
    }

    fn said(errors: &str, defaults: &str) -> Option<serde_json::Value> {
        let config = config(errors, defaults).expect("no fault");
        let saying = Saying { code: "key_reused", status: 409, title: "T", detail: "d" };
        match &config.routes[0].errors {
            Shape::Problem => None,
            Shape::Provider(template) => Some(template.render(&saying)),
        }
    }

    #[test]
    fn a_shape_is_a_word_or_a_template_and_overrides_that_of_the_defaults() {
        let usual = |kind: &str, code: &str| {
            Some(json!({"error": {"type": kind, "code": code, "message": "d"}}))
        };
        let words = "errors: {codes: {key_reused: idempotency_key_reuse}}";
        let types = "errors: {types: {key_reused: conflict}}";
        let own = "errors: {template: {success: false, error: ['{code}', '{status}'], n: 1.5}}";
        let request = "invalid_request_error";
        for (errors, defaults, wanted) in [
            ("", "", None),
            ("errors: problem", "", None),
            ("errors: provider", "", usual(request, "key_reused")),
            (words, "", usual(request, "idempotency_key_reuse")),
            (words, types, usual("conflict", "idempotency_key_reuse")),
            ("", types, usual("conflict", "key_reused")),
            ("errors: problem", types, None),
            ("errors: provider", types, usual(request, "key_reused")),
            (own, "", Some(json!({"success": false, "error": ["key_reused", 409], "n": 1.5}))),
        ] {
            assert_eq!(said(errors, defaults), wanted, "{errors} over {defaults}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_shape_is_told_where_it_stands() {
        for (errors, wanted) in [
            ("errors: rfc", "errors: must be one of problem, provider (got `rfc`)"),
            (
                "errors: [a]",
                "errors: must be problem, provider or {template, types, codes} (got a list)",
            ),
            ("errors: {shape: {}}", "errors.shape: unknown key `shape`"),
            ("errors: {template: a}", "errors.template: must be a map of keys (got `a`)"),
            (
                "errors: {template: {a: [{b: '{colour}'}]}}",
                "errors.template.a[0].b: must be a text with placeholders: `{colour}`",
            ),
            (
                "errors: {codes: {key-reused: a}}",
                "errors.codes.key-reused: unknown key `key-reused`, did you mean `key_reused`?",
            ),
            ("errors: {types: {loop: 1}}", "errors.types.loop: must be text (got 1)"),
        ] {
            let told = config(errors, "").expect_err(errors);
            assert!(told.contains(&format!("routes[0].{wanted}")), "{errors}: {told}");
        }
    }
}
