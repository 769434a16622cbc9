//! Reads a JSON text strictly, and keeps where each value stands (RFC 8259).
//!
//! Nothing is rounded, merged or re-ordered: numbers stay text, members stay in
//! order, duplicates stay visible. What two parsers could read in two ways (lone
//! surrogates, control characters, trailing commas) is refused, and a member
//! whose name occurs twice is not found, so that no decision hangs on it.

use std::borrow::Cow;
use std::ops::Range;

use crate::exchange::{Condition, Pointer, Scalar};

/// A value, and where it stands in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node<'a> {
    /// The value.
    pub value: Value<'a>,
    /// Its bytes, from the first of it (an object's `{`) to behind its last.
    pub span: Range<usize>,
}

/// A JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as its text.
    Number(&'a str),
    /// A string, unescaped.
    String(Cow<'a, str>),
    /// An array.
    Array(Vec<Node<'a>>),
    /// An object: its members in order, names unescaped.
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

/// The text is not JSON, or is nested deeper than is read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON text, from byte {at}")]
pub struct Malformed {
    /// How far it could be read.
    pub at: usize,
}

/// A member on the way to the place asked for occurs twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a member name occurs twice")]
pub struct Ambiguous;

/// Reads a whole JSON text.
///
/// A byte order mark is skipped (RFC 8259, section 8.1, lets a reader do so). The
/// tree may take 50 times the room of its text, so give it texts with a limit.
///
/// # Errors
///
/// [`Malformed`] where the text departs from the grammar, is not UTF-8, escapes a
/// lone surrogate, or nests deeper than 128.
pub fn parse(text: &[u8]) -> Result<Node<'_>, Malformed> {
    let text = std::str::from_utf8(text).map_err(|error| Malformed { at: error.valid_up_to() })?;
    let at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let mut reader = Reader { text, at };
    let root = reader.value(0)?;
    reader.skip_blank();
    if reader.at == text.len() { Ok(root) } else { Err(reader.stuck()) }
}

impl<'a> Node<'a> {
    /// The value at `pointer`; none where it is absent or ambiguous.
    pub fn at(&self, pointer: &Pointer) -> Option<&Self> {
        self.find(pointer).ok().flatten()
    }

    /// The value at `pointer`, if there is one.
    ///
    /// # Errors
    ///
    /// [`Ambiguous`] where a name on the way occurs twice: the upstream may read
    /// the other one (RFC 8259, section 4).
    pub fn find(&self, pointer: &Pointer) -> Result<Option<&Self>, Ambiguous> {
        let mut node = self;
        for token in pointer.tokens() {
            match node.child(token)? {
                Some(child) => node = child,
                None => return Ok(None),
            }
        }
        Ok(Some(node))
    }

    /// The member or element that one reference token names.
    ///
    /// # Errors
    ///
    /// [`Ambiguous`] where the name occurs twice.
    pub fn child(&self, token: &str) -> Result<Option<&Self>, Ambiguous> {
        match &self.value {
            Value::Object(members) => {
                let mut named = members.iter().filter(|(name, _)| name == token);
                match (named.next(), named.next()) {
                    (Some(_), Some(_)) => Err(Ambiguous),
                    (found, _) => Ok(found.map(|(_, node)| node)),
                }
            }
            Value::Array(items) => Ok(index(token).and_then(|nth| items.get(nth))),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(None),
        }
    }

    /// The value, unless it is an object or an array.
    pub fn scalar(&self) -> Option<Scalar> {
        match &self.value {
            Value::Null => Some(Scalar::Null),
            Value::Bool(is) => Some(Scalar::Bool(*is)),
            Value::Number(text) => Some(Scalar::Number((*text).to_owned())),
            Value::String(text) => Some(Scalar::String(text.clone().into_owned())),
            Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// The text that stands for the value in a template; `null` has none.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        match &self.value {
            Value::Bool(is) => Some(Cow::Borrowed(if *is { "true" } else { "false" })),
            Value::Number(text) => Some(Cow::Borrowed(text)),
            Value::String(text) => Some(Cow::Borrowed(text)),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// The members, if it is an object.
    pub fn members(&self) -> Option<&[(Cow<'a, str>, Self)]> {
        let Value::Object(members) = &self.value else { return None };
        Some(members)
    }

    /// Whether an object, this one or one inside, has two members of one name.
    pub fn has_duplicate_names(&self) -> bool {
        match &self.value {
            Value::Object(members) => {
                let mut names: Vec<&str> = members.iter().map(|(name, _)| &**name).collect();
                names.sort_unstable();
                names.windows(2).any(|pair| pair.first() == pair.last())
                    || members.iter().any(|(_, node)| node.has_duplicate_names())
            }
            Value::Array(items) => items.iter().any(Self::has_duplicate_names),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
    }
}

impl Condition {
    /// Whether the scalar at the pointer is one of those looked for.
    ///
    /// Numbers are compared as text: `1` is not `1.0`.
    pub fn holds(&self, root: &Node<'_>) -> bool {
        let found = root.at(&self.pointer).and_then(Node::scalar);
        found.is_some_and(|scalar| self.values.contains(&scalar))
    }
}

/// An array index as RFC 6901, section 4, writes it: no sign, no leading zero.
fn index(token: &str) -> Option<usize> {
    let canonical = token == "0" || !token.starts_with(['0', '+']);
    canonical.then(|| token.parse().ok()).flatten()
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Result<Node<'a>, Malformed> {
        self.skip_blank();
        let start = self.at;
        let value = match self.peek() {
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => Value::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => Value::Number(self.number()?),
            Some(b't') => self.word("true", Value::Bool(true))?,
            Some(b'f') => self.word("false", Value::Bool(false))?,
            Some(b'n') => self.word("null", Value::Null)?,
            _ => return Err(self.stuck()),
        };
        Ok(Node { value, span: start..self.at })
    }

    fn object(&mut self, depth: usize) -> Result<Value<'a>, Malformed> {
        self.descend(depth)?;
        let mut members = Vec::new();
        if self.takes(b'}') {
            return Ok(Value::Object(members));
        }
        loop {
            self.skip_blank();
            let name = self.string()?;
            self.wants(b':')?;
            members.push((name, self.value(depth + 1)?));
            if self.takes(b'}') {
                return Ok(Value::Object(members));
            }
            self.wants(b',')?;
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value<'a>, Malformed> {
        self.descend(depth)?;
        let mut items = Vec::new();
        if self.takes(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.takes(b']') {
                return Ok(Value::Array(items));
            }
            self.wants(b',')?;
        }
    }

    /// Steps over an opening bracket.
    fn descend(&mut self, depth: usize) -> Result<(), Malformed> {
        if depth >= DEPTH_MAX {
            return Err(self.stuck());
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Malformed> {
        if self.peek() != Some(b'"') {
            return Err(self.stuck());
        }
        self.at += 1;
        let plain = self.plain()?;
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        let mut text = plain.to_owned();
        while self.peek() != Some(b'"') {
            text.push(self.escape()?);
            text.push_str(self.plain()?);
        }
        self.at += 1;
        Ok(Cow::Owned(text))
    }

    /// The text up to the next quote or backslash.
    fn plain(&mut self) -> Result<&'a str, Malformed> {
        let start = self.at;
        let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
        self.at += self.rest().iter().position(special).unwrap_or_else(|| self.rest().len());
        match self.peek() {
            // Both are ASCII, so the slice ends between two characters.
            Some(b'"' | b'\\') => self.text.get(start..self.at).ok_or_else(|| self.stuck()),
            _ => Err(self.stuck()),
        }
    }

    /// One character behind a backslash (RFC 8259, section 7).
    fn escape(&mut self) -> Result<char, Malformed> {
        let sign = self.rest().get(1).copied();
        let meant = match sign {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return Err(self.stuck()),
        };
        self.at += 2;
        Ok(meant)
    }

    /// `\uXXXX`, or two of them that are a surrogate pair.
    fn unicode(&mut self) -> Result<char, Malformed> {
        let first = self.code_unit()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first).ok_or_else(|| self.stuck());
        }
        let second = self.code_unit()?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(self.stuck());
        }
        let point = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        char::from_u32(point).ok_or_else(|| self.stuck())
    }

    fn code_unit(&mut self) -> Result<u32, Malformed> {
        let digits = self.text.get(self.at..self.at + 6).and_then(|text| text.strip_prefix("\\u"));
        let digits = digits.filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let unit = digits.and_then(|text| u32::from_str_radix(text, 16).ok());
        let unit = unit.ok_or_else(|| self.stuck())?;
        self.at += 6;
        Ok(unit)
    }

    /// `-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?` (RFC 8259, section 6).
    fn number(&mut self) -> Result<&'a str, Malformed> {
        let start = self.at;
        self.skip_one(b"-");
        if !self.skip_one(b"0") {
            self.digits()?;
        }
        if self.skip_one(b".") {
            self.digits()?;
        }
        if self.skip_one(b"eE") {
            self.skip_one(b"+-");
            self.digits()?;
        }
        self.text.get(start..self.at).ok_or_else(|| self.stuck())
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let digits = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += digits;
        if digits == 0 { Err(self.stuck()) } else { Ok(()) }
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, Malformed> {
        if !self.rest().starts_with(word.as_bytes()) {
            return Err(self.stuck());
        }
        self.at += word.len();
        Ok(value)
    }

    fn wants(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.takes(byte) { Ok(()) } else { Err(self.stuck()) }
    }

    /// Steps over white space, and over `byte` if that is next.
    fn takes(&mut self, byte: u8) -> bool {
        self.skip_blank();
        self.skip_one(&[byte])
    }

    fn skip_one(&mut self, any: &[u8]) -> bool {
        let found = self.peek().is_some_and(|next| any.contains(&next));
        self.at += usize::from(found);
        found
    }

    fn skip_blank(&mut self) {
        let blank = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        self.at += self.rest().iter().take_while(blank).count();
    }

    fn peek(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn stuck(&self) -> Malformed {
        Malformed { at: self.at }
    }
}

/// Reading recurses: 128 levels fit any stack, and no API nests as deep.
const DEPTH_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pointer(text: &str) -> Pointer {
        Pointer::parse(text).expect("a pointer")
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for good in [
            "null",
            " true ",
            "-0",
            "0",
            "1.5e+10",
            "1E-2",
            "\"\"",
            "[]",
            "[1,[2]]",
            "{}",
            "{\"a\":{}}",
            "\u{feff}{}",
            "\"\u{7f}\u{10ffff}\"",
            "\t\r\n 1",
        ] {
            assert!(parse(good.as_bytes()).is_ok(), "{good:?}");
        }
        for bad in [
            "",
            " ",
            "nul",
            "nulll",
            "True",
            "01",
            "-",
            "+1",
            ".5",
            "1.",
            "1e",
            "1e+",
            "0x1",
            "NaN",
            "'a'",
            "\"a",
            "\"\n\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\u+123\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\udc00\"",
            "\"\\",
            "\"\\u00e",
            "[1,]",
            "[1 2]",
            "[",
            "]",
            "[,1]",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "{\"a\":1,}",
            "{\"a\":1",
            "{} {}",
            "1,",
            "\u{a0}1",
            "\u{feff}\u{feff}1",
            "// x\n1",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert_eq!(parse(b"\"\xff\""), Err(Malformed { at: 1 }));
        assert_eq!(parse(b"[1,x]"), Err(Malformed { at: 3 }));
    }

    #[test]
    fn a_text_nests_up_to_its_limit() {
        for (depth, is_read) in [(127, true), (128, true), (129, false)] {
            let arrays = "[".repeat(depth) + &"]".repeat(depth);
            assert_eq!(parse(arrays.as_bytes()).is_ok(), is_read, "{depth} arrays");
            let objects = "{\"a\":".repeat(depth) + "1" + &"}".repeat(depth);
            assert_eq!(parse(objects.as_bytes()).is_ok(), is_read, "{depth} objects");
        }
        // Far beyond it, the stack must not be what ends the reading.
        assert!(parse("[".repeat(1 << 20).as_bytes()).is_err());
    }

    #[test]
    fn strings_are_unescaped() {
        let root = parse(br#"["a\"\\\/\b\f\n\r\t\u00e9\uD83D\uDE00", "plain"]"#).expect("JSON");
        let text = |at| root.child(at).ok().flatten().and_then(Node::text);
        assert_eq!(text("0").as_deref(), Some("a\"\\/\u{8}\u{c}\n\r\té😀"));
        assert!(matches!(text("1"), Some(Cow::Borrowed("plain"))));
    }

    #[test]
    fn a_value_is_found_by_its_pointer() {
        let text = br#"{"a":{"b":[10,{"":"x"},null]},"t":true,"d":1,"d":2,"m~/":1.0}"#;
        let root = parse(text).expect("JSON");
        for (at, wanted) in [
            ("/a/b/0", Some(Scalar::Number("10".to_owned()))),
            ("/a/b/1/", Some(Scalar::String("x".to_owned()))),
            ("/a/b/2", Some(Scalar::Null)),
            ("/t", Some(Scalar::Bool(true))),
            ("/m~0~1", Some(Scalar::Number("1.0".to_owned()))),
            ("/a", None),
            ("/a/b/3", None),
            ("/a/b/00", None),
            ("/a/b/+0", None),
            ("/a/b/-", None),
            ("/t/x", None),
            ("/d", None),
            ("", None),
        ] {
            assert_eq!(root.at(&pointer(at)).and_then(Node::scalar), wanted, "{at}");
        }
        assert_eq!(root.find(&pointer("/d")), Err(Ambiguous));
        assert_eq!(root.find(&pointer("/none")), Ok(None));
    }

    #[test]
    fn a_duplicate_name_shows_wherever_it_is() {
        for (text, has) in [
            (r#"{"a":1,"b":{"a":1},"c":[{"a":1}]}"#, false),
            (r#"{"a":1,"a":1}"#, true),
            (r#"{"a":1,"\u0061":1}"#, true),
            (r#"[{"x":{"a":1,"b":2,"a":3}}]"#, true),
        ] {
            let root = parse(text.as_bytes()).expect("JSON");
            assert_eq!(root.has_duplicate_names(), has, "{text}");
        }
    }

    #[test]
    fn a_span_covers_its_value() {
        let text = " {\"a\" : [ 1 , {\"b\":\"\\u0041\"} ] } ";
        let root = parse(text.as_bytes()).expect("JSON");
        for (at, wanted) in [
            ("", text.trim()),
            ("/a", "[ 1 , {\"b\":\"\\u0041\"} ]"),
            ("/a/1", "{\"b\":\"\\u0041\"}"),
            ("/a/1/b", "\"\\u0041\""),
        ] {
            let node = root.at(&pointer(at)).expect("a value");
            assert_eq!(text.get(node.span.clone()), Some(wanted), "{at}");
        }
    }

    #[test]
    fn a_condition_holds_for_the_values_it_lists() {
        let root = parse(br#"{"code":"quota","n":1,"ok":false,"x":null}"#).expect("JSON");
        let holds =
            |at: &str, value| Condition { pointer: pointer(at), values: vec![value] }.holds(&root);
        assert!(holds("/code", Scalar::String("quota".to_owned())));
        assert!(holds("/n", Scalar::Number("1".to_owned())));
        assert!(holds("/ok", Scalar::Bool(false)));
        assert!(holds("/x", Scalar::Null));
        assert!(!holds("/y", Scalar::Null));
        assert!(!holds("/n", Scalar::String("1".to_owned())));
        assert!(!holds("/n", Scalar::Number("1.0".to_owned())));
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_another_reader_reads(
            text in "[\\[\\]{}:,\"\\\\ a0-9.eE+\\-ntu]{0,24}",
        ) {
            let ours = parse(text.as_bytes());
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            // It refuses numbers that no double holds; to us they are text.
            let fault = theirs.as_ref().err().map(ToString::to_string).unwrap_or_default();
            let agree = fault.contains("out of range") || ours.is_ok() == theirs.is_ok();
            prop_assert!(agree, "{text}: {ours:?} {theirs:?}");
        }

        #[test]
        fn a_string_reads_back(text in ".{0,20}") {
            let written = serde_json::to_string(&text).expect("a string");
            let root = parse(written.as_bytes()).expect("JSON");
            prop_assert_eq!(root.text(), Some(Cow::Borrowed(text.as_str())));
        }
    }
}
