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
/// quoted or a block scalar too, where it may not stand. The one behind directives is theirs,
/// and they stand at the top, or behind the `...` that ends what is above them.
pub(super) fn documents(stream: &str) -> Vec<Document<'_>> {
    let mut found = Vec::new();
    let (mut begin, mut at, mut first_line) = (0, 0, 1);
    // Behind a `...` with comments alone since, and the line there.
    let mut ended = None;
    for (n, line) in stream.split_inclusive('\n').enumerate() {
        let cut = match ended {
            _ if is_marker(line) => {
                let is_theirs = stream.get(begin..at).is_some_and(are_directives);
                Some((at, n + 1)).filter(|_| at > begin && !is_theirs)
            }
            ended => ended.filter(|_| line.starts_with('%')),
        };
        if let Some((end, next)) = cut {
            found.extend(stream.get(begin..end).map(|text| Document { line: first_line, text }));
            (begin, first_line) = (end, next);
        }
        at += line.len();
        ended = match line.trim() {
            _ if is_end(line) => Some((at, n + 2)),
            bare if bare.is_empty() || bare.starts_with('#') => ended,
            _ => None,
        };
    }
    found.extend(stream.get(begin..).map(|text| Document { line: first_line, text }));
    found
}

impl<'a> Document<'a> {
    /// What stands above its first value: directives, the marker, comments and empty lines.
    pub(super) fn head(&self) -> &'a str {
        let is_head = |line: &&str| {
            let bare = line.trim_start_matches('\u{feff}').trim();
            let after = bare.strip_prefix("---").filter(|_| is_marker(line)).unwrap_or(bare).trim();
            after.is_empty() || after.starts_with('#')
        };
        let above = directives(self.text).unwrap_or_default();
        let rest = self.text.get(above..).unwrap_or_default();
        let length: usize = rest.split_inclusive('\n').take_while(is_head).map(str::len).sum();
        self.text.get(..above + length).unwrap_or_default()
    }

    /// The `...` with which it ends, if it does.
    pub(super) fn tail(&self) -> &'a str {
        let last = self.text.split_inclusive('\n').next_back();
        last.filter(|line| is_end(line)).unwrap_or_default()
    }
}

/// Whether there are directives, and nothing else but comments, which wait for their marker.
fn are_directives(text: &str) -> bool {
    directives(text) == Some(text.len())
}

/// Up to where a text has directives (YAML 1.2.2, section 6.8) and comments alone; `None`: it
/// begins with none.
pub(super) fn directives(text: &str) -> Option<usize> {
    let is_one = |line: &str| line.trim_start_matches('\u{feff}').starts_with('%');
    let is_above = |line: &&str| {
        let bare = line.trim_start_matches('\u{feff}').trim();
        is_one(line) || bare.is_empty() || bare.starts_with('#')
    };
    let above = || text.split_inclusive('\n').take_while(is_above);
    above().any(is_one).then(|| above().map(str::len).sum())
}

fn is_marker(line: &str) -> bool {
    stands_alone(line, "---")
}

fn is_end(line: &str) -> bool {
    stands_alone(line, "...")
}

fn stands_alone(line: &str, sign: &str) -> bool {
    line.strip_prefix(sign)
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
            ("# x\n%YAML 1.1\n---\na: b\n---\nc: d\n", vec![1, 5]),
            ("a: b\n%x\n---\nc: d\n", vec![1, 3]),
            ("a: b\n... # x\n\n# y\n%YAML 1.1\n---\nc: d\n---\n", vec![1, 3, 8]),
            ("a: b\n...\n# y\n---\nc: d\n", vec![1, 4]),
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
            ("# x\n%YAML 1.1\n--- # y\n\na: b\n", "# x\n%YAML 1.1\n--- # y\n\n"),
            ("\u{feff}# x\na: b", "\u{feff}# x\n"),
        ] {
            assert_eq!(Document { line: 1, text }.head(), head, "{text:?}");
        }
    }
}
