//! A YAML value that keeps its order, and what was written where that could mean two things.

/// A value of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Node {
    /// Text, by YAML 1.1 and 1.2 alike.
    Text(String),
    /// A plain scalar that may be something else, as it was written: `8080`, `null`, `yes`,
    /// `0123`. What it is stays the reader's to say.
    Plain(String),
    /// A list.
    List(Vec<Self>),
    /// A map, in the order in which it was written.
    Map(Vec<(Self, Self)>),
}

impl Node {
    /// A text.
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// A map.
    pub(super) fn map<const N: usize>(entries: [(&str, Self); N]) -> Self {
        Self::Map(entries.into_iter().map(|(key, node)| (Self::text(key), node)).collect())
    }

    /// What a plain scalar is: text, unless some YAML reader could see anything else in it.
    pub(super) fn plain(written: &str) -> Self {
        match written {
            "" => Self::Plain("null".to_owned()),
            written if is_surely_text(written) => Self::text(written),
            written => Self::Plain(written.to_owned()),
        }
    }

    /// Whether it is nothing: `null`, or left out.
    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Plain(written) if ["null", "Null", "NULL", "~"].contains(&&**written))
    }

    /// Its text; nothing where it is no text.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Plain(_) | Self::List(_) | Self::Map(_) => None,
        }
    }

    /// Its items; none where it is no list.
    pub(super) fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            Self::Text(_) | Self::Plain(_) | Self::Map(_) => &[],
        }
    }

    /// The value of a key, unless that is null.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        let found = entries.iter().find(|(own, _)| own.as_text() == Some(key));
        found.map(|(_, node)| node).filter(|node| !node.is_null())
    }

    /// The same behind several keys.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The text of a key.
    pub(super) fn text_of(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Self::as_text)
    }

    /// The value of a key of a map, to be changed.
    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        let Self::Map(entries) = self else { return None };
        let found = entries.iter_mut().find(|(own, _)| own.as_text() == Some(key));
        found.map(|(_, node)| node)
    }

    /// Gives a key of a map this value, in its place or at the end.
    pub(super) fn set(&mut self, key: &str, node: Self) {
        if let Some(there) = self.get_mut(key) {
            *there = node;
        } else if let Self::Map(entries) = self {
            entries.push((Self::text(key), node));
        }
    }

    /// Takes a key out of a map.
    pub(super) fn remove(&mut self, key: &str) {
        if let Self::Map(entries) = self {
            entries.retain(|(own, _)| own.as_text() != Some(key));
        }
    }
}

/// A letter or a slash first, then nothing that YAML gives a meaning, and none of the words
/// that are a null, a truth or a number to some reader.
fn is_surely_text(written: &str) -> bool {
    let begins = |sign: char| sign.is_ascii_alphabetic() || sign == '/';
    let goes_on = |sign: char| !sign.is_control() && sign != '\u{feff}';
    written.starts_with(begins)
        && written.chars().all(goes_on)
        && !written.ends_with([' ', ':'])
        && ![": ", " #"].iter().any(|sign| written.contains(sign))
        && !WORDS.iter().any(|word| word.eq_ignore_ascii_case(written))
}

/// Null, truths and numbers of YAML 1.1 (yaml.org/type) and 1.2, whatever their case.
const WORDS: &[&str] = &["null", "true", "false", "yes", "no", "on", "off", "y", "n", "inf", "nan"];
