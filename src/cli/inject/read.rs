//! From YAML to a [`Node`].

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Parser, ScalarStyle, Tag};

use crate::cli::inject::node::Node;

/// What a text turned out to be.
#[derive(Debug)]
pub(super) struct Read {
    /// Its first document; `None` where there is nothing but comments.
    pub(super) node: Option<Node>,
    /// Why it must not be written anew, where that would lose something.
    pub(super) lossy: Option<Fault>,
}

/// A line of the text, from 1, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Where.
    pub(super) line: usize,
    /// What.
    pub(super) what: String,
}

/// Reads a text of one document.
///
/// # Errors
///
/// What makes it no YAML, or none that Kubernetes takes.
pub(super) fn read(text: &str) -> Result<Read, Fault> {
    let options = granit_parser::options! { emit_comments: false };
    let parser = Parser::new_from_str_with_options(text, options);
    let mut reader =
        Reader { parser, anchors: HashMap::new(), size: 0, kept: 0, line: 1, lossy: None };
    let mut first = None;
    while let Some(event) = reader.next()? {
        match event {
            Event::DocumentStart(..) if first.is_some() => reader.loses("a second document"),
            event if event.is_node() => {
                let node = reader.node(event)?;
                first = first.or(Some(node));
            }
            _ => {}
        }
    }
    Ok(Read { node: first, lossy: reader.lossy })
}

struct Reader<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    /// What anchors stand for, and how large that is.
    anchors: HashMap<usize, (Node, usize)>,
    /// Of all that was read: the bytes of its scalars, and [`NODE_SIZE`] a node.
    size: usize,
    /// Of what anchors stand for, which is kept beside that.
    kept: usize,
    line: usize,
    lossy: Option<Fault>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<Event<'a>>, Fault> {
        match self.parser.next() {
            None => Ok(None),
            Some(Ok((event, span))) => {
                self.line = span.start.line();
                Ok(Some(event))
            }
            Some(Err(error)) => {
                let what = format!("not YAML that can be read: {}", error.info());
                Err(Fault { line: error.marker().line(), what })
            }
        }
    }

    fn fault<T>(&self, what: &str) -> Result<T, Fault> {
        Err(Fault { line: self.line, what: what.to_owned() })
    }

    fn loses(&mut self, what: &str) {
        let fault = || Fault { line: self.line, what: format!("{what} cannot be written anew") };
        self.lossy.get_or_insert_with(fault);
    }

    /// The node that this event begins.
    fn node(&mut self, event: Event<'a>) -> Result<Node, Fault> {
        let before = self.size;
        self.grows(NODE_SIZE)?;
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.grows(text.len())?;
                (self.scalar(&text, style, tag.as_deref()), anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.check(tag.as_deref());
                (self.list()?, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check(tag.as_deref());
                (self.map()?, anchor)
            }
            Event::Alias(anchor) => return self.alias(anchor),
            _ => return self.fault("not YAML that can be read"),
        };
        if anchor > 0 {
            let size = self.size - before;
            self.kept = self.kept.saturating_add(size);
            self.fits()?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(node)
    }

    /// Counted in full, so that aliases cannot grow without end.
    fn alias(&mut self, anchor: usize) -> Result<Node, Fault> {
        let Some((node, size)) = self.anchors.get(&anchor) else {
            return self.fault("an alias of what it stands in");
        };
        self.size = self.size.saturating_add(*size);
        self.fits()?;
        Ok(node.clone())
    }

    fn grows(&mut self, size: usize) -> Result<(), Fault> {
        self.size = self.size.saturating_add(size);
        self.fits()
    }

    fn fits(&self) -> Result<(), Fault> {
        if self.size.saturating_add(self.kept) <= SIZE_MAX {
            return Ok(());
        }
        let most = SIZE_MAX >> 20;
        self.fault(&format!("more than {most} MiB, with its aliases written out"))
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Node {
        let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
        if tag.is_some() && !is_text {
            self.loses("a tag");
        }
        // A plain scalar over several lines is text too: none of the others has lines.
        match style {
            ScalarStyle::Plain if !is_text && !text.contains('\n') => Node::plain(text),
            _ => Node::text(text),
        }
    }

    fn check(&mut self, tag: Option<&Tag>) {
        if tag.is_some() {
            self.loses("a tag");
        }
    }

    fn list(&mut self) -> Result<Node, Fault> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                None => return self.fault("a list without an end"),
                Some(Event::SequenceEnd) => return Ok(Node::List(items)),
                Some(event) => items.push(self.node(event)?),
            }
        }
    }

    fn map(&mut self) -> Result<Node, Fault> {
        let (mut entries, mut merged) = (Vec::<(Node, Node)>::new(), Vec::new());
        let mut keys = HashSet::new();
        loop {
            let key = match self.next()? {
                None => return self.fault("a map without an end"),
                Some(Event::MappingEnd) => break,
                Some(event) => self.node(event)?,
            };
            if !matches!(key, Node::Text(_) | Node::Plain(_)) {
                return self.fault("a key that is no scalar");
            }
            // YAML 1.1, merge key type: Kubernetes' own tools read it. It may stand there twice.
            let is_merge = matches!(&key, Node::Plain(sign) if sign == "<<");
            if !is_merge && !keys.insert(key.clone()) {
                return self.fault("a key that is given twice");
            }
            let Some(event) = self.next()? else { return self.fault("a key without a value") };
            let value = self.node(event)?;
            if is_merge {
                merged.push(value);
            } else {
                entries.push((key, value));
            }
        }
        for value in merged {
            self.merge(&mut entries, &mut keys, value)?;
        }
        Ok(Node::Map(entries))
    }

    /// Lays merged maps under what is written; the first of several wins.
    fn merge(
        &self,
        entries: &mut Vec<(Node, Node)>,
        keys: &mut HashSet<Node>,
        value: Node,
    ) -> Result<(), Fault> {
        match value {
            Node::Map(more) => {
                entries.extend(more.into_iter().filter(|(key, _)| keys.insert(key.clone())));
                Ok(())
            }
            Node::List(maps) => maps.into_iter().try_for_each(|map| self.merge(entries, keys, map)),
            Node::Text(_) | Node::Plain(_) => self.fault("`<<` merges maps alone"),
        }
    }
}

/// What a document may come to: etcd holds objects of up to 1.5 MiB.
const SIZE_MAX: usize = 128 << 20;

/// What a node takes in memory beside its text, and then some.
const NODE_SIZE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> Node {
        read(text).unwrap().node.unwrap()
    }

    #[test]
    fn what_could_be_two_things_is_kept_as_it_was_written() {
        for plain in
            ["yes", "0123", "0o17", "1e3", "18446744073709551616", "~", "2026-01-01", "No", ".inf"]
        {
            assert_eq!(node(plain), Node::Plain(plain.to_owned()), "{plain}");
            assert_eq!(node(&format!("'{plain}'")), Node::text(plain), "{plain}");
        }
        for text in ["nginx:1.27", "yes sir", "/var/lib", "a,b"] {
            assert_eq!(node(text), Node::text(text), "{text}");
        }
        assert_eq!(node("!!str 8080"), Node::text("8080"));
        assert_eq!(node("a\n\nb"), Node::text("a\nb"));
        assert!(node("a:").get("a").is_none());
        assert_eq!(read("# a\n").unwrap().node, None);
    }

    #[test]
    fn aliases_and_merges_are_spelled_out() {
        let read =
            node("base: &b {x: one, z: two}\nown: {<<: *b, z: three}\nmore: {<<: [{x: four}, *b]}");
        assert_eq!(read.at(&["own", "x"]), Some(&Node::text("one")));
        assert_eq!(read.at(&["own", "z"]), Some(&Node::text("three")));
        assert_eq!(read.at(&["more", "x"]), Some(&Node::text("four")));
        assert_eq!(read.at(&["more", "z"]), Some(&Node::text("two")));
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        for (text, line, what) in [
            ("a: b\nc: [", 2, "not YAML"),
            ("a: 1\na: 2", 2, "given twice"),
            ("a: 1\n? [x]\n: y", 2, "no scalar"),
            ("a:\n  <<: b", 2, "merges maps"),
            ("a: &x [*x]", 1, "an alias"),
            ("a: {{ .Values.image }}", 1, "no scalar"),
        ] {
            let fault = read(text).unwrap_err();
            assert!(fault.what.contains(what), "{text}: {fault:?}");
            assert_eq!(fault.line, line, "{text}: {fault:?}");
        }
    }

    #[test]
    fn aliases_of_aliases_end() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..10 {
            let before = format!("*a{},", n - 1).repeat(10);
            text.extend([format!("a{n}: &a{n} [{before}]\n")]);
        }
        assert!(read(&text).unwrap_err().what.contains("more than 128 MiB"));
    }

    #[test]
    fn a_document_may_come_to_so_much_and_no_more() {
        // A map, three keys, a list, two scalars, and the one that is anchored once more.
        let fixed = 8 * NODE_SIZE + "abc".len();
        let text = |length: usize, aliases: usize| {
            format!("a: &x {}\nb: [{}]\n", "x".repeat(length), "*x,".repeat(aliases))
        };
        let (length, aliases) = (1 << 20, 120);
        let one = length + 2 * NODE_SIZE;
        let rest = SIZE_MAX - fixed - 2 * length - aliases * one;
        for (more, fits) in [(0, true), (1, false)] {
            let filled = format!("{}c: {}", text(length, aliases), "y".repeat(rest + more));
            assert_eq!(read(&filled).is_ok(), fits, "{more}");
        }
        let fault = read(&text(length, 20_000)).unwrap_err();
        assert!(fault.what.contains("more than 128 MiB, with its aliases"), "{fault:?}");
    }

    #[test]
    fn as_many_keys_as_a_file_holds_are_told_apart() {
        let lines = |indent: &str| {
            let mut all = String::new();
            for n in 0..60_000 {
                all.extend([indent, "k", &n.to_string(), ": 1\n"]);
            }
            all
        };
        let started = tokio::time::Instant::now();
        let twice = format!("{}k59999: 2\n", lines(""));
        assert!(read(&twice).unwrap_err().what.contains("given twice"));
        let merged = node(&format!("base: &b\n{}own: {{<<: *b}}", lines("  ")));
        let Some(Node::Map(entries)) = merged.get("own") else { panic!("no map") };
        assert_eq!(entries.len(), 60_000);
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    }

    #[test]
    fn what_would_be_lost_is_known() {
        for (text, what) in
            [("a: !!binary aGk=", "a tag"), ("a: b\n...\nc: d", "a second document")]
        {
            assert!(read(text).unwrap().lossy.unwrap().what.contains(what), "{text}");
        }
        assert_eq!(read("a: b\n").unwrap().lossy, None);
    }
}
