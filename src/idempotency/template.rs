//! What makes two requests the same business event: read off a request by a template.

use std::fmt;
use std::str;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::key::{Key, KeyFault, Source};
use crate::exchange::Pointer;
use crate::exchange::json::Node;
use crate::exchange::query;

/// A template such as `order-{json:/order/id}-{header:x-variant}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

/// What a business event is called; only ever used to derive a key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    source: Source,
    framed: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Json(Pointer),
    Header(HeaderName),
    Query(String),
}

impl Template {
    /// Reads a template: text, and placeholders `{json:POINTER}`, `{header:NAME}`,
    /// `{query:NAME}`. `{{` and `}}` stand for single braces.
    ///
    /// # Errors
    ///
    /// Says what is wanted when a brace is left alone, a placeholder is not one of
    /// the three, or there is none, which would make all requests one event.
    pub fn parse(written: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = written;
        while let Some(sign) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("{{") {
                text.push('{');
                rest = after;
            } else if let Some(after) = rest.strip_prefix("}}") {
                text.push('}');
                rest = after;
            } else if let Some(after) = rest.strip_prefix('{') {
                let (inside, after) = after.split_once('}').ok_or(UNCLOSED)?;
                parts.extend((!text.is_empty()).then(|| Part::Text(std::mem::take(&mut text))));
                parts.push(Part::placeholder(inside)?);
                rest = after;
            } else if sign == '}' {
                return Err(UNOPENED.to_owned());
            } else {
                text.push(sign);
                rest = rest.strip_prefix(sign).unwrap_or_default();
            }
        }
        if parts.is_empty() {
            return Err(NO_PLACEHOLDER.to_owned());
        }
        parts.extend((!text.is_empty()).then_some(Part::Text(text)));
        Ok(Self { parts })
    }

    /// Whether the body has to be there before the identity is known.
    pub fn needs_body(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Json(_)))
    }

    /// The identity of a request; none when a part is missing, empty, or there twice.
    pub fn render(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        body: Option<&Node<'_>>,
    ) -> Option<Identity> {
        let mut framed = String::new();
        for part in &self.parts {
            let value = part.value(headers, query, body).filter(|value| !value.is_empty())?;
            // With lengths, `a-b` and `c` cannot be read as `a` and `b-c`.
            framed.extend([part.letter(), &value.len().to_string(), ":", &value]);
        }
        Some(Identity { source: Source::Identity, framed })
    }
}

impl Identity {
    /// The identity that the client itself gave in `Samekey-Key`.
    ///
    /// # Errors
    ///
    /// A [`KeyFault`] when it would be no key either.
    pub fn asked(value: &HeaderValue) -> Result<Self, KeyFault> {
        let key = Key::parse(value.as_bytes())?;
        Ok(Self { source: Source::Header, framed: key.as_str().to_owned() })
    }

    /// The invocation id that AWS and Google Cloud SDKs give to all tries of one call.
    pub fn invocation(headers: &HeaderMap) -> Option<Self> {
        let aws = single(headers, &HeaderName::from_static("amz-sdk-invocation-id"));
        let google = || {
            let mut lines = headers.get_all("x-goog-api-client").iter();
            lines.find_map(|line| {
                let mut words = line.to_str().ok()?.split_ascii_whitespace();
                words.find_map(|word| word.strip_prefix("gccl-invocation-id/"))
            })
        };
        let id = aws.or_else(google).map(|id| Key::parse(id.as_bytes()))?.ok()?;
        Some(Self { source: Source::Invocation, framed: id.as_str().to_owned() })
    }

    /// Where it comes from, and so where the key that is derived from it does.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Keeps a `Samekey-Key` from being taken for a template's rendering that reads like it.
    pub(super) fn kind(&self) -> &'static str {
        match self.source {
            Source::Header => "header",
            Source::Identity => "identity",
            Source::Invocation => "invocation",
            Source::Client | Source::Random => "none",
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.framed.as_bytes()
    }
}

impl fmt::Debug for Identity {
    /// It may name a person: no log gets it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?}, ..)", self.source)
    }
}

impl Part {
    fn placeholder(inside: &str) -> Result<Self, String> {
        let (kind, name) = inside.split_once(':').unwrap_or((inside, ""));
        match kind {
            "json" => Pointer::parse(name)
                .map(Self::Json)
                .map_err(|wanted| format!("`{{{inside}}}`: after `json:` goes {wanted}")),
            "header" => {
                HeaderName::from_bytes(name.as_bytes()).map(Self::Header).map_err(|_name| {
                    format!("`{{{inside}}}`: after `header:` goes the name of a header field")
                })
            }
            "query" if !name.is_empty() => Ok(Self::Query(name.to_owned())),
            "query" => Err(format!("`{{{inside}}}`: after `query:` goes the name of a parameter")),
            _ => Err(format!(
                "`{{{inside}}}`: a placeholder is {{json:POINTER}}, {{header:NAME}} \
                 or {{query:NAME}}"
            )),
        }
    }

    fn value(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        body: Option<&Node<'_>>,
    ) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Json(pointer) => Some(body?.at(pointer)?.text()?.into_owned()),
            Self::Header(name) => single(headers, name).map(str::to_owned),
            Self::Query(name) => {
                let mut values = query::values(query, name);
                let value = values.next()?;
                let alone = values.next().is_none();
                String::from_utf8(value.into_owned()).ok().filter(|_| alone)
            }
        }
    }

    fn letter(&self) -> &'static str {
        match self {
            Self::Text(_) => "t",
            Self::Json(_) => "j",
            Self::Header(_) => "h",
            Self::Query(_) => "q",
        }
    }
}

/// The one value of a field that is text and not repeated.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    lines.next().is_none().then(|| str::from_utf8(line.as_bytes()).ok()).flatten()
}

const UNCLOSED: &str = "a `}` behind each `{`; `{{` stands for a `{` itself";
const UNOPENED: &str = "a `{` before each `}`; `}}` stands for a `}` itself";
const NO_PLACEHOLDER: &str = "at least one of {json:POINTER}, {header:NAME}, {query:NAME}: \
     a text without one would make all requests the same";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::exchange::json;

    fn render(template: &str, header: Option<&str>, query: &str, body: &str) -> Option<Identity> {
        let template = Template::parse(template).expect("a template");
        let mut headers = HeaderMap::new();
        for value in header.into_iter().flat_map(|value| value.split('|')) {
            headers.append("x-a", HeaderValue::from_str(value).expect("a field value"));
        }
        let body = json::parse(body.as_bytes()).ok();
        template.render(&headers, Some(query), body.as_ref())
    }

    #[test]
    fn a_template_is_read_or_refused() {
        for good in ["{json:/a}", "{{{header:X-A}}}", "a{query:b}c", "{json:}"] {
            assert!(Template::parse(good).is_ok(), "{good}");
        }
        for (bad, wanted) in [
            ("", "at least one"),
            ("text", "at least one"),
            ("{{json:/a}}", "at least one"),
            ("{json:/a", "`}` behind"),
            ("{json:/a}}", "`{` before"),
            ("}{json:/a}", "`{` before"),
            ("{json:a}", "starts with `/`"),
            ("{json:/~}", "`~0` or `~1`"),
            ("{header:a b}", "name of a header field"),
            ("{header}", "name of a header field"),
            ("{query:}", "name of a parameter"),
            ("{path:1}", "a placeholder is"),
            ("{}", "a placeholder is"),
        ] {
            let fault = Template::parse(bad).expect_err(bad);
            assert!(fault.contains(wanted), "{bad}: {fault}");
        }
    }

    #[test]
    fn only_a_json_placeholder_needs_the_body() {
        let needs = |text| Template::parse(text).expect("a template").needs_body();
        assert!(needs("{header:a}{json:/a}"));
        assert!(!needs("{header:a}{query:a}"));
    }

    #[test]
    fn an_identity_needs_every_part() {
        let all = "x{header:x-a}{query:q}{json:/a}";
        assert!(render(all, Some("h"), "q=1", r#"{"a":1}"#).is_some());
        for (header, query, body) in [
            (None, "q=1", r#"{"a":1}"#),
            (Some(""), "q=1", r#"{"a":1}"#),
            (Some("h|h"), "q=1", r#"{"a":1}"#),
            (Some("h"), "", r#"{"a":1}"#),
            (Some("h"), "q=", r#"{"a":1}"#),
            (Some("h"), "q=1&q=1", r#"{"a":1}"#),
            (Some("h"), "q=%ff", r#"{"a":1}"#),
            (Some("h"), "q=1", r#"{"a":""}"#),
            (Some("h"), "q=1", r#"{"a":null}"#),
            (Some("h"), "q=1", r#"{"a":[1]}"#),
            (Some("h"), "q=1", r#"{"a":1,"a":1}"#),
            (Some("h"), "q=1", "{}"),
            (Some("h"), "q=1", "no JSON"),
        ] {
            assert_eq!(render(all, header, query, body), None, "{header:?} {query} {body}");
        }
    }

    #[test]
    fn an_identity_shows_nothing_in_a_log() {
        let identity = render("{query:q}", None, "q=ann", "").expect("an identity");
        assert_eq!(format!("{identity:?}"), "Identity(Identity, ..)");
    }

    #[test]
    fn an_invocation_id_is_read_from_both_sdks() {
        let read = |name: &'static str, value: &'static str| {
            let headers = HeaderMap::from_iter([(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )]);
            Identity::invocation(&headers).map(|found| (found.source(), found.framed))
        };
        let id = || Some((Source::Invocation, "1-2".to_owned()));
        assert_eq!(read("amz-sdk-invocation-id", "1-2"), id());
        assert_eq!(read("x-goog-api-client", "gl-a/3 gccl-invocation-id/1-2 b/4"), id());
        assert_eq!(read("x-goog-api-client", "gl-a/3"), None);
        assert_eq!(read("x-goog-api-client", "gccl-invocation-id/"), None);
        assert_eq!(read("amz-sdk-invocation-id", ""), None);
        assert_eq!(read("other", "1"), None);
    }

    proptest! {
        #[test]
        fn two_requests_share_an_identity_only_when_every_part_is_equal(
            one in ("[-:0-9a]{1,4}", "[-:0-9a]{1,4}"),
            other in ("[-:0-9a]{1,4}", "[-:0-9a]{1,4}"),
        ) {
            let of = |(header, query): &(String, String)| {
                render("{header:x-a}-{query:q}", Some(header), &format!("q={query}"), "")
            };
            prop_assert!(of(&one).is_some());
            prop_assert_eq!(of(&one) == of(&other), one == other);
        }
    }
}
