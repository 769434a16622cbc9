//! A stream of documents, cut so that each can be left as it was.

/// One document: its lines, from `---` on, up to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Document<'a> {
    /// The line of the stream with which it begins, from 1.
    pub(super) line: usize,
    /// All of its text.
    pub(super) text: &'a str,
}

/// Cuts a stream at its markers. Together the documents are the stream.
///
/// YAML 1.2.2, section 9.1.2: `---` at the start of a line is a marker wherever it stands, in a
/// quoted or a block scalar too, where it may not stand.
pub(super) fn documents(stream: &str) -> Vec<Document<'_>> {
    let mut found = Vec::new();
    let (mut begin, mut at, mut first_line) = (0, 0, 1);
    for (n, line) in stream.split_inclusive('\n').enumerate() {
        if is_marker(line) && at > begin {
            found.extend(stream.get(begin..at).map(|text| Document { line: first_line, text }));
            (begin, first_line) = (at, n + 1);
        }
        at += line.len();
    }
    found.extend(stream.get(begin..).map(|text| Document { line: first_line, text }));
    found
}

impl<'a> Document<'a> {
    /// What stands above its first value: the marker, comments and empty lines.
    pub(super) fn head(&self) -> &'a str {
        let is_head = |line: &&str| {
            let bare = line.trim_start_matches('\u{feff}').trim();
            let after = bare.strip_prefix("---").filter(|_| is_marker(line)).unwrap_or(bare).trim();
            after.is_empty() || after.starts_with('#')
        };
        let length = self.text.split_inclusive('\n').take_while(is_head).map(str::len).sum();
        self.text.get(..length).unwrap_or_default()
    }
}

fn is_marker(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_cut_at_its_markers_and_nothing_is_lost() {
        for (stream, lines) in [
            ("", vec![1]),
            ("a: b", vec![1]),
            ("---\na: b\n", vec![1]),
            ("# x\n---\na: b\n--- # y\nc: d", vec![1, 2, 4]),
            ("a: |\n  ---\n  b\n---\nc: d\n---", vec![1, 4, 6]),
            ("a: b\r\n---\r\nc: d\r\n", vec![1, 2]),
            ("---a: b\n----\n", vec![1]),
        ] {
            let cut = documents(stream);
            assert_eq!(
                cut.iter().map(|document| document.line).collect::<Vec<_>>(),
                lines,
                "{stream:?}"
            );
            assert_eq!(cut.iter().map(|document| document.text).collect::<String>(), stream);
        }
    }

    #[test]
    fn the_head_is_what_stands_above_the_first_value() {
        for (text, head) in [
            ("a: b\n", ""),
            ("---\n# licence\n\na: b # c\n# d\n", "---\n# licence\n\n"),
            ("--- # x\na: b", "--- # x\n"),
            ("--- {a: b}\n", ""),
            ("\u{feff}# x\na: b", "\u{feff}# x\n"),
        ] {
            assert_eq!(Document { line: 1, text }.head(), head, "{text:?}");
        }
    }
}
