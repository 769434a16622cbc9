//! From a [`Node`] to YAML, in the style of Kubernetes' own tools.

use crate::cli::inject::node::Node;

/// The document, without `---`.
pub(super) fn written(node: &Node) -> String {
    let mut out = String::new();
    match node {
        Node::Map(entries) if !entries.is_empty() => map(&mut out, entries, 0, false),
        Node::List(items) if !items.is_empty() => list(&mut out, items, 0, false),
        // On one line, since a block that is not indented could hold a marker.
        node => {
            flow(&mut out, node);
            out.push('\n');
        }
    }
    out
}

/// Each entry on its line. `continued`: the first follows a `- ` on the line that is begun.
fn map(out: &mut String, entries: &[(Node, Node)], indent: usize, continued: bool) {
    for (n, (key, node)) in entries.iter().enumerate() {
        if n > 0 || !continued {
            spaces(out, indent);
        }
        line(out, key);
        out.push(':');
        match node {
            Node::Map(inner) if !inner.is_empty() => {
                out.push('\n');
                map(out, inner, indent + 2, false);
            }
            // Under its key, not behind it, as kubectl writes lists.
            Node::List(inner) if !inner.is_empty() => {
                out.push('\n');
                list(out, inner, indent, false);
            }
            node => {
                out.push(' ');
                scalar(out, node, indent + 2);
                out.push('\n');
            }
        }
    }
}

fn list(out: &mut String, items: &[Node], indent: usize, continued: bool) {
    for (n, item) in items.iter().enumerate() {
        if n > 0 || !continued {
            spaces(out, indent);
        }
        out.push_str("- ");
        match item {
            Node::Map(inner) if !inner.is_empty() => map(out, inner, indent + 2, true),
            Node::List(inner) if !inner.is_empty() => list(out, inner, indent + 2, true),
            item => {
                scalar(out, item, indent + 2);
                out.push('\n');
            }
        }
    }
}

/// A scalar; an empty list or map is one too.
fn scalar(out: &mut String, node: &Node, indent: usize) {
    match node {
        Node::Text(text) if is_block(text) => block(out, text, indent),
        node => flow(out, node),
    }
}

/// The same on one line.
fn flow(out: &mut String, node: &Node) {
    match node {
        Node::List(_) => out.push_str("[]"),
        Node::Map(_) => out.push_str("{}"),
        node => line(out, node),
    }
}

/// A key, or a scalar that is no block.
fn line(out: &mut String, node: &Node) {
    match node {
        Node::Plain(written) => out.push_str(written),
        Node::Text(text) if Node::plain(text) == *node => out.push_str(text),
        Node::Text(text) => quoted(out, text),
        Node::List(_) | Node::Map(_) => {}
    }
}

/// YAML 1.2.2, section 5.7: escape sequences.
fn quoted(out: &mut String, text: &str) {
    out.push('"');
    for sign in text.chars() {
        match sign {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            sign if is_shown(sign) => out.push(sign),
            sign => out.extend([format!("\\U{:08x}", u32::from(sign))]),
        }
    }
    out.push('"');
}

/// Scripts stay readable: what has lines, and nothing that a literal block would lose.
fn is_block(text: &str) -> bool {
    let begins_plainly = !text.starts_with([' ', '\n', '\t']);
    text.contains('\n')
        && begins_plainly
        && text.chars().all(|sign| is_shown(sign) || sign == '\n' || sign == '\t')
        // Behind the last line only line ends: a line of spaces there would be taken for one.
        && !text.ends_with([' ', '\t'])
        && !text.lines().any(|line| line.trim().is_empty() && !line.is_empty())
}

/// YAML 1.2.2, section 8.1.1.2: `-` strips the last line end, `+` keeps all, without a sign it
/// is one.
fn block(out: &mut String, text: &str, indent: usize) {
    let body = text.trim_end_matches('\n');
    let chomping = match text.len() - body.len() {
        0 => "|-",
        1 => "|",
        _ => "|+",
    };
    out.push_str(chomping);
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        out.push('\n');
        if !line.is_empty() {
            spaces(out, indent);
            out.push_str(line);
        }
    }
}

fn spaces(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// What can stand in a document as it is, and is no line end to any reader.
fn is_shown(sign: char) -> bool {
    !sign.is_control()
        && !['\u{2028}', '\u{2029}', '\u{feff}', '\u{fffe}', '\u{ffff}'].contains(&sign)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cli::inject::read::read;

    fn back(node: &Node) -> Node {
        let text = written(node);
        read(&text).unwrap_or_else(|fault| panic!("{fault:?} in\n{text}")).node.unwrap()
    }

    #[test]
    fn it_is_written_as_kubectl_writes_it() {
        let text = "a:\n- b: 1\n  c:\n  - x\n  - - y\n    - {}\nd:\n  e: |\n    one\n\n      two\nf: \"yes\"\ng: yes\n";
        assert_eq!(written(&read(text).unwrap().node.unwrap()), text);
    }

    /// Texts that have tripped YAML writers.
    const TRICKY: &[&str] = &[
        "",
        " ",
        "\n",
        "a\n",
        "a\n\n",
        "\na",
        " a\nb",
        "a\n b\n",
        "a\n \nb",
        "a\n ",
        "a: b",
        "a #b",
        "#a",
        "- a",
        "-",
        "?",
        ":",
        "a:",
        "&a",
        "*a",
        "!a",
        "|",
        ">",
        "%a",
        "@a",
        "`a",
        "'a'",
        "\"a\"",
        "[a",
        "{a",
        "}",
        "yes",
        "0123",
        "0x1",
        "1_000",
        "1:30",
        "null",
        "~",
        "<<",
        "=",
        ".inf",
        "---",
        "...",
        "a\tb",
        "\ta",
        "\u{85}a",
        "a\u{2028}b",
        "\u{feff}",
        "a\r\nb",
        "\u{1f600}",
        "---\na",
        "a\n---\nb\n",
        "a\n...\n",
        "# a\nb",
        "a\n\n\n#b\n",
    ];

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            prop::sample::select(TRICKY).prop_map(str::to_owned),
            "[a-z0-9 :#\\-\n\t'\"\\\\{}\\[\\],&*!|>%@`~.]{0,12}",
            any::<String>(),
        ]
    }

    fn scalar() -> impl Strategy<Value = Node> {
        let plain = ["1", "-0.5", "0123", "true", "No", "null", "~", "2026-01-01", "0o7", "1e3"];
        prop_oneof![
            text().prop_map(Node::Text),
            prop::sample::select(plain.to_vec()).prop_map(|plain| Node::Plain(plain.to_owned())),
        ]
    }

    fn tree() -> impl Strategy<Value = Node> {
        scalar().prop_recursive(4, 40, 6, |inner| {
            let entries = prop::collection::btree_map(text(), inner.clone(), 0..6);
            prop_oneof![
                prop::collection::vec(inner, 0..6).prop_map(Node::List),
                entries.prop_map(|entries| {
                    Node::Map(
                        entries.into_iter().map(|(key, node)| (Node::Text(key), node)).collect(),
                    )
                }),
            ]
        })
    }

    #[test]
    fn tricky_texts_come_back() {
        for text in TRICKY {
            for node in [
                Node::text(text),
                Node::List(vec![Node::text(text), Node::text("z")]),
                Node::map([(text, Node::text(text)), ("z z", Node::List(vec![Node::text(text)]))]),
            ] {
                assert_eq!(back(&node), node, "{text:?}:\n{}", written(&node));
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(node in tree()) {
            prop_assert_eq!(&back(&node), &node, "{}", written(&node));
        }

        /// By the reader that the config goes through, which knows nothing of ours.
        #[test]
        fn another_reader_sees_the_same(texts in prop::collection::vec(text(), 1..6)) {
            let node = Node::List(texts.iter().cloned().map(Node::Text).collect());
            let read: Vec<String> = serde_saphyr::from_str(&written(&node)).unwrap();
            prop_assert_eq!(read, texts, "{}", written(&node));
        }
    }
}
