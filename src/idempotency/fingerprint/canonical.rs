//! Digests of JSON and of forms that do not change with how they are written.

use percent_encoding::percent_decode;

use crate::exchange::Pointer;
use crate::exchange::json::{Node, Value};
use crate::idempotency::key::{frame, length};

/// Digests a text whose names are unique: members sorted, all else in order.
///
/// Numbers keep their text: read as doubles, as RFC 8785 does, ids beyond 2^53
/// would collide. A pointer to the whole text leaves nothing out.
pub(super) fn json(root: &Node<'_>, left_out: &[Pointer]) -> blake3::Hash {
    let paths: Vec<&[String]> =
        left_out.iter().map(Pointer::tokens).filter(|path| !path.is_empty()).collect();
    // Written out first: hashing once is several times cheaper than piece by piece.
    let mut text = Vec::with_capacity(root.span.len());
    write(&mut text, root, &paths);
    blake3::hash(&text)
}

/// Digests the decoded pairs, sorted by name; those of one name keep their order.
pub(super) fn form(body: &[u8]) -> blake3::Hash {
    let mut pairs: Vec<_> = pairs(body).collect();
    pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut hasher = blake3::Hasher::new();
    for (name, value) in &pairs {
        frame(&mut hasher, name);
        frame(&mut hasher, value);
    }
    hasher.finalize()
}

/// The decoded pairs of a form, in order.
pub(in crate::idempotency) fn pairs(body: &[u8]) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let written = body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    written.map(|pair| {
        let mut halves = pair.splitn(2, |byte| *byte == b'=').map(decoded);
        (halves.next().unwrap_or_default(), halves.next().unwrap_or_default())
    })
}

/// Each value opens with a letter of its kind, so that no two trees make the same bytes.
fn write(text: &mut Vec<u8>, node: &Node<'_>, left_out: &[&[String]]) {
    match &node.value {
        Value::Null => text.push(b'n'),
        Value::Bool(is) => text.push(if *is { b't' } else { b'f' }),
        Value::Number(number) => framed(text, b'#', number),
        Value::String(string) => framed(text, b's', string),
        Value::Array(items) => {
            text.push(b'[');
            for (nth, item) in items.iter().enumerate() {
                match below(left_out, || nth.to_string()) {
                    Below::Gone => {}
                    Below::Kept(left_out) => write(text, item, &left_out),
                }
            }
            text.push(b']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            text.push(b'{');
            for (name, member) in members {
                if let Below::Kept(left_out) = below(left_out, || name.clone()) {
                    framed(text, b'm', name);
                    write(text, member, &left_out);
                }
            }
            text.push(b'}');
        }
    }
}

fn framed(text: &mut Vec<u8>, kind: u8, part: &str) {
    text.push(kind);
    text.extend_from_slice(&length(part.as_bytes()));
    text.extend_from_slice(part.as_bytes());
}

enum Below<'a> {
    Gone,
    Kept(Vec<&'a [String]>),
}

/// What the paths leave out of the child called `token`.
fn below<'a, T: AsRef<str>>(left_out: &[&'a [String]], token: impl Fn() -> T) -> Below<'a> {
    if left_out.is_empty() {
        return Below::Kept(Vec::new());
    }
    let token = token();
    let paths = left_out.iter().filter_map(|path| path.split_first());
    let tails: Vec<_> =
        paths.filter(|(first, _)| *first == token.as_ref()).map(|(_, tail)| tail).collect();
    if tails.iter().any(|tail| tail.is_empty()) { Below::Gone } else { Below::Kept(tails) }
}

fn decoded(written: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> =
        written.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&spaced).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::exchange::json::parse;

    fn digest(text: &str, left_out: &[&str]) -> blake3::Hash {
        let pointers: Vec<_> =
            left_out.iter().map(|text| Pointer::parse(text).expect("a pointer")).collect();
        json(&parse(text.as_bytes()).expect("a JSON text"), &pointers)
    }

    #[test]
    fn texts_that_say_something_else_differ() {
        let all = [
            "null",
            "true",
            "false",
            "1",
            "1.0",
            "\"1\"",
            "9007199254740993",
            "9007199254740992",
            "[]",
            "{}",
            "[[]]",
            "[1,2]",
            "[2,1]",
            "[12]",
            "[[1],2]",
            "[[1,2]]",
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"b":1}"#,
            r#"{"a":null}"#,
            r#"{"a":{"b":1}}"#,
            r#"{"a":{},"b":1}"#,
            r#"["a",1]"#,
        ];
        for (nth, one) in all.iter().enumerate() {
            let first = all.iter().position(|other| digest(other, &[]) == digest(one, &[]));
            assert_eq!(first, Some(nth), "{one}");
        }
    }

    #[test]
    fn what_is_left_out_does_not_count() {
        for (one, other, left_out, are_equal) in [
            (r#"{"a":1,"t":2}"#, r#"{"a":1}"#, &["/t"][..], true),
            (r#"{"a":1,"t":2}"#, r#"{"a":2}"#, &["/t"], false),
            (r#"{"m":{"t":1}}"#, r#"{"m":{"t":2}}"#, &["/m/t"], true),
            (r#"{"m":{"t":1}}"#, r#"{"m":{"t":2}}"#, &["/t"], false),
            (r#"{"t":1,"m":{"t":1}}"#, r#"{"t":2,"m":{"t":1}}"#, &["/t"], true),
            (r#"[{"t":1},{"t":1}]"#, r#"[{"t":2},{"t":1}]"#, &["/0/t"], true),
            (r#"[{"t":1},{"t":1}]"#, r#"[{"t":1},{"t":2}]"#, &["/0/t"], false),
            (r#"{"a~b/c":1}"#, "{}", &["/a~0b~1c"], true),
            (r#"{"a":1,"b":1,"c":1}"#, r#"{"c":1}"#, &["/a", "/b"], true),
            (r#"{"a":1}"#, r#"{"a":2}"#, &[""], false),
        ] {
            assert_eq!(
                digest(one, left_out) == digest(other, left_out),
                are_equal,
                "{one} {other}"
            );
        }
    }

    #[test]
    fn a_form_counts_by_its_decoded_pairs() {
        for (one, other, are_equal) in [
            ("a=1&b=2", "b=2&a=1", true),
            ("a=%31+x", "a=1%20x", true),
            ("a=&b", "b=&a", true),
            ("a=1&", "a=1", true),
            ("a=1&a=2", "a=2&a=1", false),
            ("a=1%26b=2", "a=1&b=2", false),
            ("a=1=2", "a%3D1=2", false),
            ("ab=c", "a=bc", false),
        ] {
            assert_eq!(form(one.as_bytes()) == form(other.as_bytes()), are_equal, "{one} {other}");
        }
    }

    /// A tree, to be written in more than one way.
    #[derive(Clone, Debug)]
    enum Tree {
        Leaf(String),
        Array(Vec<Self>),
        Object(Vec<(String, Self)>),
    }

    fn trees() -> impl Strategy<Value = Tree> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            any::<i64>().prop_map(|number| number.to_string()),
            ".{0,6}".prop_map(|text| serde_json::to_string(&text).expect("a string")),
        ];
        leaf.prop_map(Tree::Leaf).prop_recursive(4, 32, 5, |inner| {
            let members = proptest::collection::btree_map(".{0,4}", inner.clone(), 0..5);
            prop_oneof![
                proptest::collection::vec(inner, 0..5).prop_map(Tree::Array),
                members.prop_map(|members| Tree::Object(members.into_iter().collect())),
            ]
        })
    }

    /// Writes a tree with its members turned by `turn`, and blanks by it too.
    fn written(tree: &Tree, turn: usize) -> String {
        let blank = [" ", "\n\t", "", "\r "][turn % 4];
        let joined = |parts: Vec<String>| parts.join(&format!("{blank},"));
        match tree {
            Tree::Leaf(text) => format!("{blank}{text}{blank}"),
            Tree::Array(items) => {
                let items = items.iter().map(|item| written(item, turn + 1)).collect();
                format!("[{blank}{}]", joined(items))
            }
            Tree::Object(members) => {
                let name = |name| serde_json::to_string(name).expect("a string");
                let mut members: Vec<_> = members
                    .iter()
                    .map(|(own, member)| {
                        format!("{}{blank}:{}", name(own), written(member, turn + 1))
                    })
                    .collect();
                let middle = turn % members.len().max(1);
                members.rotate_left(middle);
                format!("{{{blank}{}{blank}}}", joined(members))
            }
        }
    }

    proptest! {
        #[test]
        fn neither_member_order_nor_white_space_shows(tree in trees(), turn in 0_usize..100) {
            prop_assert_eq!(digest(&written(&tree, 2), &[]), digest(&written(&tree, turn), &[]));
        }
    }
}
