//! The form of answers made here: a problem, or the error JSON of the provider.
//!
//! A client that knows its provider's errors is to read ours in the same way. What they
//! look like is a [`Template`], data that comes from the config; status and header
//! fields are the same in every form.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

/// How a route's own answers look; a clone shares it.
#[derive(Clone, Debug, Default)]
pub enum Shape {
    /// RFC 9457 problems.
    #[default]
    Problem,
    /// The provider's own.
    Provider(Arc<Template>),
}

/// A provider's error JSON, and the words that it has for what happens here.
#[derive(Clone, Debug)]
pub struct Template {
    /// The JSON.
    pub root: Part,
    /// Words for `{type}`, by our code.
    pub types: BTreeMap<String, String>,
    /// Words for `{code}`, by our code.
    pub codes: BTreeMap<String, String>,
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// As it stands.
    Plain(Value),
    /// A text with placeholders.
    Text(Vec<Piece>),
    /// The status, as a number.
    Status,
    /// An array.
    List(Vec<Self>),
    /// An object.
    Map(Vec<(String, Self)>),
}

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it stands.
    Plain(String),
    /// What one of [`PLACEHOLDERS`] stands for.
    Of(Placeholder),
}

/// What can be put into a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// `{type}`.
    Type,
    /// `{code}`.
    Code,
    /// `{title}`.
    Title,
    /// `{detail}`, or `{message}`.
    Detail,
    /// `{status}`.
    Status,
}

/// What is to be said.
#[derive(Clone, Copy, Debug)]
pub struct Saying<'a> {
    /// Our code: one of [`CODES`].
    pub code: &'a str,
    /// The status.
    pub status: u16,
    /// What it is called.
    pub title: &'a str,
    /// What happened.
    pub detail: &'a str,
}

impl Template {
    /// `{"error": {"type", "code", "message"}}`, the shape that most providers share.
    pub fn usual() -> Part {
        let text = |placeholder| Part::Text(vec![Piece::Of(placeholder)]);
        let members = [
            ("type", text(Placeholder::Type)),
            ("code", text(Placeholder::Code)),
            ("message", text(Placeholder::Detail)),
        ];
        let members = members.map(|(name, part)| (name.to_owned(), part));
        Part::Map(vec![("error".to_owned(), Part::Map(members.into()))])
    }

    /// The JSON that says it.
    pub fn render(&self, saying: &Saying<'_>) -> Value {
        self.part(&self.root, saying)
    }

    fn part(&self, part: &Part, saying: &Saying<'_>) -> Value {
        match part {
            Part::Plain(value) => value.clone(),
            Part::Status => json!(saying.status),
            Part::Text(pieces) => {
                Value::String(pieces.iter().map(|piece| self.piece(piece, saying)).collect())
            }
            Part::List(items) => items.iter().map(|item| self.part(item, saying)).collect(),
            Part::Map(members) => {
                let members = members.iter();
                let said = members.map(|(name, part)| (name.clone(), self.part(part, saying)));
                Value::Object(said.collect::<Map<_, _>>())
            }
        }
    }

    fn piece(&self, piece: &Piece, saying: &Saying<'_>) -> String {
        let placeholder = match piece {
            Piece::Plain(text) => return text.clone(),
            Piece::Of(placeholder) => placeholder,
        };
        let word = |words: &BTreeMap<String, String>| words.get(saying.code).cloned();
        match placeholder {
            Placeholder::Type => word(&self.types).unwrap_or_else(|| usual_type(saying.status)),
            Placeholder::Code => word(&self.codes).unwrap_or_else(|| saying.code.to_owned()),
            Placeholder::Title => saying.title.to_owned(),
            Placeholder::Detail => saying.detail.to_owned(),
            Placeholder::Status => saying.status.to_string(),
        }
    }
}

impl Part {
    /// Reads a text: placeholders in braces, `{{` and `}}` for single ones.
    ///
    /// # Errors
    ///
    /// Says what is wanted when a brace is left alone, or a placeholder is unknown.
    pub fn text(written: &str) -> Result<Self, String> {
        if written == "{status}" {
            return Ok(Self::Status);
        }
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = written;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at_checked(at).unwrap_or((rest, ""));
            plain.push_str(before);
            if let Some(after) = ["{{", "}}"].iter().find_map(|twice| from.strip_prefix(twice)) {
                plain.extend(from.chars().next());
                rest = after;
                continue;
            }
            let inside = from.strip_prefix('{').and_then(|from| from.split_once('}'));
            let (name, after) = inside.ok_or(UNPAIRED)?;
            let found = PLACEHOLDERS.iter().find(|(own, _)| *own == name);
            let (_, placeholder) = found.ok_or_else(|| unknown(name))?;
            pieces.extend((!plain.is_empty()).then(|| Piece::Plain(std::mem::take(&mut plain))));
            pieces.push(Piece::Of(*placeholder));
            rest = after;
        }
        plain.push_str(rest);
        if pieces.is_empty() {
            return Ok(Self::Plain(plain.into()));
        }
        pieces.extend((!plain.is_empty()).then_some(Piece::Plain(plain)));
        Ok(Self::Text(pieces))
    }
}

fn unknown(name: &str) -> String {
    let names: Vec<String> = PLACEHOLDERS.iter().map(|(own, _)| format!("{{{own}}}")).collect();
    format!("`{{{name}}}` is no placeholder: there are {}", names.join(", "))
}

/// Words that the SDKs of several providers know.
fn usual_type(status: u16) -> String {
    if status < 500 { "invalid_request_error" } else { "api_error" }.to_owned()
}

/// Every placeholder.
pub const PLACEHOLDERS: [(&str, Placeholder); 6] = [
    ("type", Placeholder::Type),
    ("code", Placeholder::Code),
    ("title", Placeholder::Title),
    ("detail", Placeholder::Detail),
    ("message", Placeholder::Detail),
    ("status", Placeholder::Status),
];

/// The codes of our own answers: the slugs of `design.md`, section 4.4, with underscores.
pub const CODES: [&str; 21] = [
    "bad_request",
    "key_invalid",
    "key_missing",
    "forbidden_destination",
    "proxy_auth_required",
    "in_progress",
    "outcome_unknown",
    "response_not_retained",
    "misdirected",
    "key_reused",
    "insufficient_credits",
    "header_too_large",
    "upstream_unreachable",
    "upstream_tls",
    "upstream_protocol",
    "overloaded",
    "limit_wait",
    "store_unavailable",
    "upstream_timeout",
    "loop",
    "replay_suspended",
];

const UNPAIRED: &str = "a brace that is meant as one is written twice, `{{` or `}}`";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::answer;
    use crate::exchange::tests::failures;

    fn template(root: Part) -> Template {
        let word = |code: &str, word: &str| (code.to_owned(), word.to_owned());
        Template {
            root,
            types: [word("key_reused", "idempotency_error")].into(),
            codes: [word("key_reused", "idempotency_key_reuse")].into(),
        }
    }

    fn said(template: &Template, code: &str, status: u16) -> Value {
        template.render(&Saying { code, status, title: "A title", detail: "what happened" })
    }

    #[test]
    fn a_text_is_read_with_its_placeholders() {
        for (text, wanted) in [
            ("plain", json!("plain")),
            ("", json!("")),
            ("{code}", json!("key_reused")),
            ("{status}", json!(409)),
            ("E{status}: {title}, {detail}!", json!("E409: A title, what happened!")),
            ("{message}{type}", json!("what happenedinvalid_request_error")),
            ("{{code}} {{{code}}}", json!("{code} {key_reused}")),
        ] {
            let root = Part::text(text).expect(text);
            let bare = Template { root, types: BTreeMap::new(), codes: BTreeMap::new() };
            assert_eq!(said(&bare, "key_reused", 409), wanted, "{text}");
        }
        for (text, wish) in [
            ("{", UNPAIRED),
            ("a}", UNPAIRED),
            ("{code", UNPAIRED),
            ("{colour}", "`{colour}` is no placeholder: there are {type}, {code}"),
            ("{}", "`{}` is no placeholder"),
        ] {
            let told = Part::text(text).expect_err(text);
            assert!(told.starts_with(wish), "{text}: {told}");
        }
    }

    #[test]
    fn the_providers_words_stand_for_ours_where_it_has_any() {
        let usual = template(Template::usual());
        for (code, status, kind, own) in [
            ("key_reused", 409, "idempotency_error", "idempotency_key_reuse"),
            ("in_progress", 409, "invalid_request_error", "in_progress"),
            ("overloaded", 503, "api_error", "overloaded"),
        ] {
            let error = json!({"type": kind, "code": own, "message": "what happened"});
            assert_eq!(said(&usual, code, status), json!({ "error": error }));
        }
    }

    #[test]
    fn lists_maps_and_plain_values_stay_as_they_are() {
        let nested = Part::List(vec![
            Part::Map(vec![("code".to_owned(), Part::Status)]),
            Part::Plain(json!(false)),
            Part::text("{code}").expect("a text"),
        ]);
        let success = ("success".to_owned(), Part::Plain(json!(false)));
        let root = Part::Map(vec![success, ("errors".to_owned(), nested)]);
        let wanted = json!({"success": false, "errors": [{"code": 422}, false, "bad_request"]});
        assert_eq!(said(&template(root), "bad_request", 422), wanted);
    }

    #[test]
    fn every_failure_is_said_in_the_providers_shape_with_what_stays_as_it_is() {
        let shape = Shape::Provider(Arc::new(template(Template::usual())));
        for failure in failures() {
            let problem = answer::of(&failure, 2);
            let shaped = answer::shaped(&failure, 2, &shape);
            assert_eq!(shaped.headers["content-type"], "application/json", "{failure:?}");
            assert_eq!(shaped.status, problem.status, "{failure:?}");
            for (name, value) in problem.headers.iter().filter(|(name, _)| *name != "content-type")
            {
                assert_eq!(shaped.headers.get(name), Some(value), "{failure:?}");
            }
            let text = |response: &crate::exchange::Response| -> Value {
                let body = response.body.as_full().expect("it is there");
                serde_json::from_slice(&body).expect("JSON")
            };
            let (problem, error) = (text(&problem), text(&shaped)["error"].take());
            assert_eq!(error["message"], problem["detail"], "{failure:?}");
            let code = problem["code"].as_str().expect("a code");
            assert!(CODES.contains(&code), "{code}");
            let own = if code == "key_reused" { "idempotency_key_reuse" } else { code };
            assert_eq!(error["code"], own);
            assert!(error["type"].is_string() && error.as_object().map(Map::len) == Some(3));
        }
    }
}
