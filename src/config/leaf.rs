//! What values are made of: durations, sizes, counts, words, and text with a meaning.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, json_schema};
use serde::Serialize;

use crate::config::reading::Leaf;
use crate::config::tree::Value;

/// A duration from `MIN` to `MAX` milliseconds: one number and one unit, or a bare 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Span<MIN, MAX> {
    /// A default of so many milliseconds.
    pub(super) const fn of(ms: u64) -> Self {
        debug_assert!(ms >= MIN && ms <= MAX, "a default is in its range");
        Self(ms)
    }

    /// As meant.
    pub(super) fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl<const MIN: u64, const MAX: u64> Leaf for Span<MIN, MAX> {
    fn leaf(value: &Value) -> Result<Self, String> {
        let ms = with_unit(value, &TIMES).ok_or("must be a duration such as 250ms, 10s or 24h")?;
        within(ms, MIN, MAX, |ms| in_units(ms, &TIMES)).map(Self)
    }
}

/// A size from `MIN` to `MAX` bytes: one number and one unit, or a bare 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Size<MIN, MAX> {
    /// A default of so many bytes.
    pub(super) const fn of(bytes: u64) -> Self {
        debug_assert!(bytes >= MIN && bytes <= MAX, "a default is in its range");
        Self(bytes)
    }

    /// As meant.
    pub(super) fn bytes(self) -> u64 {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> Leaf for Size<MIN, MAX> {
    fn leaf(value: &Value) -> Result<Self, String> {
        let bytes =
            with_unit(value, &SIZES).ok_or("must be a size such as 64KiB, 10MiB or 1GiB")?;
        within(bytes, MIN, MAX, |bytes| in_units(bytes, &SIZES)).map(Self)
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count<const MIN: u32, const MAX: u32>(pub(super) u32);

impl<const MIN: u32, const MAX: u32> Count<MIN, MAX> {
    /// As meant, where `MIN` is at least 1.
    pub(super) fn nonzero(self) -> NonZeroU32 {
        NonZeroU32::new(self.0).unwrap_or(NonZeroU32::MIN)
    }

    /// As meant, where things in memory are counted.
    pub(super) fn size(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl<const MIN: u32, const MAX: u32> Leaf for Count<MIN, MAX> {
    fn leaf(value: &Value) -> Result<Self, String> {
        let Value::Whole(number) = *value else {
            return Err("must be a whole number".to_owned());
        };
        within(number, MIN.into(), MAX.into(), |bound| bound.to_string())?;
        // In range by now.
        u32::try_from(number).map(Self).map_err(|error| error.to_string())
    }
}

/// A closed set of words, and what each means.
pub(super) trait Words: Copy + PartialEq + 'static {
    /// Each word once.
    const WORDS: &'static [(&'static str, Self)];
}

/// One word of a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word<T>(pub(super) T);

impl<T: Words> Leaf for Word<T> {
    fn leaf(value: &Value) -> Result<Self, String> {
        let found = match value {
            Value::Text(text) => T::WORDS.iter().find(|(word, _)| word == text),
            _ => None,
        };
        found.map(|(_, meant)| Self(*meant)).ok_or_else(|| match T::WORDS {
            [(word, _)] => format!("must be `{word}`"),
            words => {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                format!("must be one of {}", words.join(", "))
            }
        })
    }
}

/// A word of a closed set, or else a value of its own kind.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged, bound(serialize = "T: Serialize"))]
#[schemars(inline, bound = "T: JsonSchema")]
pub(super) enum WordOr<W, T>
where
    W: Words,
{
    Word(Word<W>),
    Other(T),
}

impl<W: Words, T: Leaf> Leaf for WordOr<W, T> {
    fn leaf(value: &Value) -> Result<Self, String> {
        if let Ok(word) = Word::leaf(value) {
            return Ok(Self::Word(word));
        }
        T::leaf(value).map(Self::Other).map_err(|wish| {
            W::WORDS.iter().fold(wish, |wish, (word, _)| format!("{wish} or `{word}`"))
        })
    }
}

/// What text can mean.
pub(super) trait Parse: Sized {
    /// Whether somebody may write a secret here by mistake: a fault does not repeat it then.
    const IS_PRIVATE: bool = false;

    /// Reads a text; else says what it must be.
    fn parse(text: &str) -> Result<Self, String>;
}

/// A text that has been read.
#[derive(Clone, Debug)]
pub(super) struct Parsed<T> {
    /// As written.
    pub(super) text: String,
    /// As meant.
    pub(super) meant: T,
}

impl<T: Parse> Leaf for Parsed<T> {
    const IS_PRIVATE: bool = T::IS_PRIVATE;

    fn leaf(value: &Value) -> Result<Self, String> {
        let Value::Text(text) = value else { return Err("must be text".to_owned()) };
        T::parse(text).map(|meant| Self { text: text.clone(), meant })
    }
}

/// What the parsers of several values mean.
pub(super) fn meant<T: Clone>(parsed: &[Parsed<T>]) -> Vec<T> {
    parsed.iter().map(|parsed| parsed.meant.clone()).collect()
}

impl Leaf for bool {
    fn leaf(value: &Value) -> Result<Self, String> {
        match value {
            Value::Bool(yes) => Ok(*yes),
            _ => Err("must be true or false".to_owned()),
        }
    }
}

impl Leaf for PathBuf {
    fn leaf(value: &Value) -> Result<Self, String> {
        match value {
            Value::Text(text) if !text.is_empty() && !text.contains('\0') => Ok(text.into()),
            _ => Err("must be the path of a file or directory".to_owned()),
        }
    }
}

/// A name that is a metrics label or a file's: 1 to 64 of `A-Za-z0-9_.-`.
pub(super) fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn within<N: PartialOrd>(
    number: N,
    min: N,
    max: N,
    shown: impl Fn(N) -> String,
) -> Result<N, String> {
    if number < min {
        Err(format!("must be at least {}", shown(min)))
    } else if number > max {
        Err(format!("must be at most {}", shown(max)))
    } else {
        Ok(number)
    }
}

fn with_unit(value: &Value, units: &[(&str, u64)]) -> Option<u64> {
    let text = match value {
        Value::Whole(0) => return Some(0),
        Value::Text(text) => text,
        _ => return None,
    };
    let digits = text.trim_end_matches(|sign: char| !sign.is_ascii_digit());
    let unit = text.strip_prefix(digits)?;
    let (_, each) = units.iter().find(|(name, _)| *name == unit)?;
    // `parse` takes a sign, which no duration has.
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>());
    number?.ok()?.checked_mul(*each)
}

/// In the largest unit that leaves no rest; units run from small to large.
fn in_units(number: u64, units: &[(&str, u64)]) -> String {
    let fits = units.iter().rev().find(|(_, each)| number.is_multiple_of(*each));
    match fits {
        Some((unit, each)) if number > 0 => format!("{}{unit}", number / each),
        _ => number.to_string(),
    }
}

/// Gives a leaf its form in the schema, and in the defaults that the schema tells.
macro_rules! form {
    ([$($generics:tt)*] $leaf:ty, $self:ident => $shown:expr, $schema:expr) => {
        impl<$($generics)*> serde::Serialize for $leaf {
            fn serialize<S: serde::Serializer>(&$self, serializer: S) -> Result<S::Ok, S::Error> {
                serde::Serialize::serialize(&$shown, serializer)
            }
        }

        impl<$($generics)*> schemars::JsonSchema for $leaf {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($leaf).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                $schema
            }
        }
    };
}
pub(super) use form;

form!([const MIN: u64, const MAX: u64] Span<MIN, MAX>, self => number(self.0, &TIMES),
    amount("^[0-9]+(ms|s|m|h|d)$", MIN));
form!([const MIN: u64, const MAX: u64] Size<MIN, MAX>, self => number(self.0, &SIZES),
    amount("^[0-9]+(B|KiB|MiB|GiB)$", MIN));
form!([const MIN: u32, const MAX: u32] Count<MIN, MAX>, self => self.0,
    json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX }));
form!([T: Words] Word<T>, self => T::WORDS.iter().find(|word| word.1 == self.0).map(|word| word.0),
    json_schema!({ "enum": T::WORDS.iter().map(|word| word.0).collect::<Vec<_>>() }));
form!([T] Parsed<T>, self => self.text, json_schema!({ "type": "string" }));

fn number(number: u64, units: &[(&str, u64)]) -> serde_json::Value {
    if number == 0 { 0.into() } else { in_units(number, units).into() }
}

fn amount(pattern: &str, min: u64) -> Schema {
    let text = json_schema!({ "type": "string", "pattern": pattern });
    if min > 0 { text } else { json_schema!({ "anyOf": [text, { "const": 0 }] }) }
}

const TIMES: [(&str, u64); 5] = [("ms", 1), ("s", SECOND), ("m", MINUTE), ("h", HOUR), ("d", DAY)];
const SIZES: [(&str, u64); 4] = [("B", 1), ("KiB", KIB), ("MiB", MIB), ("GiB", GIB)];

/// Milliseconds.
pub(super) const SECOND: u64 = 1000;
pub(super) const MINUTE: u64 = 60 * SECOND;
pub(super) const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;

/// Bytes.
pub(super) const KIB: u64 = 1024;
pub(super) const MIB: u64 = 1024 * KIB;
pub(super) const GIB: u64 = 1024 * MIB;
/// More than any machine has, and small enough to add up.
pub(super) const SIZE_MAX: u64 = 1024 * 1024 * GIB;
