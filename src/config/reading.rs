//! Lays a file over the defaults, key by key, and collects every fault on the way.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::fault::{Fault, Faults};
use crate::config::layers::Base;
use crate::config::tree::{Node, Value};
use crate::route::provenance::{Layer, Part};

/// One reading of one file and the presets that it brings: what they say where, and
/// what is wrong with it.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    pub(super) file: &'a Path,
    /// The file and line of every key, by its full path.
    lines: HashMap<String, (&'a Path, u64)>,
    /// What `defaults` says.
    pub(super) defaults: Option<Arc<Layer>>,
    /// What each route is made of, by its path.
    pub(super) made_of: HashMap<String, Vec<Base>>,
    /// Which other route decides a route's limits, by their paths.
    pub(super) limits_of: HashMap<String, String>,
    faults: Vec<Fault>,
    /// The keys blamed so far, and all that they stand in.
    blamed: HashSet<String>,
}

impl<'a> Reading<'a> {
    /// Starts on a tree.
    pub(super) fn of(file: &'a Path, root: &Node) -> Self {
        let mut reading = Self {
            file,
            lines: HashMap::new(),
            defaults: None,
            made_of: HashMap::new(),
            limits_of: HashMap::new(),
            faults: Vec::new(),
            blamed: HashSet::new(),
        };
        reading.open(file, root, "");
        reading.defaults =
            root.child("defaults").and_then(|node| reading.layer(node, Part::Defaults));
        reading
    }

    /// Learns what another file says; its keys stand at `at`, where ours has none.
    pub(super) fn open(&mut self, file: &'a Path, root: &Node, at: &str) {
        each_line(root, at.to_owned(), &mut |key, line| {
            self.lines.insert(key, (file, line));
        });
    }

    /// Blames a key, on its own line or on that of the nearest block around it;
    /// or the environment variable that was laid over it.
    pub(super) fn fault(&mut self, at: &str, wish: impl Into<String>) {
        self.blamed.extend(around(at).map(str::to_owned));
        if at.starts_with(VARIABLE) {
            self.faults.push(Fault::in_variable(at, wish.into()));
            return;
        }
        let (file, line) = self.place(at);
        self.faults.push(Fault::in_file(file, line, at, wish.into()));
    }

    /// The file of a key, and its line or that of the nearest block around it.
    fn place(&self, at: &str) -> (&'a Path, Option<u64>) {
        let found = around(at).find_map(|key| self.lines.get(key));
        found.map_or((self.file, None), |(file, line)| (*file, Some(*line)))
    }

    /// Blames a key that must be given, unless its block was refused as a whole.
    pub(super) fn miss(&mut self, at: &str, wish: impl Into<String>) {
        if !self.refused(at) {
            self.fault(at, wish);
        }
    }

    /// Blames a key that does not go with another, unless one of them was refused:
    /// what stands for it then is not what the operator wrote.
    pub(super) fn clash(&mut self, at: &str, other: &str, wish: impl Into<String>) {
        if self.refused(at) || self.refused(other) {
            return;
        }
        let (file, line) = self.place(at);
        if file == self.file || self.place(other).0 != self.file {
            return self.fault(at, wish);
        }
        // The operator cannot change what is built in.
        let (file, line) = (file.display(), line.unwrap_or_default());
        let key = at.rsplit('.').next().unwrap_or(at);
        self.fault(other, format!("goes against {file}:{line}: `{key}` {}", wish.into()));
    }

    /// Whether a key, something in it, or a block around it was blamed.
    pub(super) fn refused(&self, at: &str) -> bool {
        let mut blocks = around(at).skip(1);
        self.blamed.contains(at)
            || blocks.any(|block| self.faults.iter().any(|fault| fault.key() == block))
    }

    /// A file that is named in this one: beside it, unless its full path is given.
    pub(super) fn beside(&self, file: &Path) -> PathBuf {
        self.file.parent().unwrap_or_else(|| Path::new("")).join(file)
    }

    /// Whether the file holds this key.
    pub(super) fn wrote(&self, at: &str) -> bool {
        self.lines.contains_key(at)
    }

    /// Where a route's key was written: in the route, else in what it is laid over, a
    /// preset's route and `defaults`, else nowhere, which the route answers for.
    pub(super) fn written_at(&self, route: &str, key: &str) -> String {
        let bases = self.made_of.get(route).into_iter().flatten();
        let mut written = bases.map(|base| join(&base.at, key)).filter(|at| self.wrote(at));
        written.next().unwrap_or_else(|| join(route, key))
    }

    /// The entries of a map whose keys are known; blames the others, and repeated ones.
    pub(super) fn entries<'n>(
        &mut self,
        node: &'n Node,
        at: &str,
        known: &[&str],
    ) -> Vec<(&'n str, &'n Node)> {
        let mut entries = self.pairs(node, at);
        entries.retain(|(key, node)| {
            let found = known.contains(key);
            if !found {
                self.faults.push(self.unknown(key, node.line, at, known));
            }
            found
        });
        entries
    }

    /// The entries of a map with keys of the operator's; blames repeated ones.
    pub(super) fn pairs<'n>(&mut self, node: &'n Node, at: &str) -> Vec<(&'n str, &'n Node)> {
        let map = match &node.value {
            Value::Map(map) => map,
            // A block all of whose keys are commented out.
            Value::Null => return Vec::new(),
            other => {
                self.fault(at, format!("must be a map of keys (got {})", other.shown()));
                return Vec::new();
            }
        };
        let mut seen: HashMap<&str, u64> = HashMap::new();
        for (key, node) in map {
            if let Some(first) = seen.insert(key, node.line) {
                let wish = format!("key given twice, on line {first} too");
                let (file, _) = self.place(at);
                self.faults.push(Fault::in_file(file, Some(node.line), &join(at, key), wish));
            }
        }
        map.iter().map(|(key, node)| (key.as_str(), node)).collect()
    }

    fn unknown(&self, key: &str, line: u64, at: &str, known: &[&str]) -> Fault {
        let wish = match near(key, known) {
            Some(name) => format!("unknown key `{key}`, did you mean `{name}`?"),
            None => format!("unknown key `{key}`, must be one of {}", known.join(", ")),
        };
        Fault::in_file(self.place(at).0, Some(line), &join(at, key), wish)
    }

    /// Ends the reading.
    ///
    /// # Errors
    ///
    /// All faults, where there is any.
    pub(super) fn end(self) -> Result<(), Faults> {
        Faults::of(self.faults).map_or(Ok(()), Err)
    }
}

/// A part of the file that reads itself.
pub(super) trait Written: Sized {
    /// Reads a part from nothing; `None`: it was refused.
    fn fresh(node: &Node, at: &str, reading: &mut Reading<'_>) -> Option<Self>;

    /// Lays what is written over what there is; what is refused changes nothing.
    fn read(&mut self, node: &Node, at: &str, reading: &mut Reading<'_>) {
        if let Some(fresh) = Self::fresh(node, at, reading) {
            *self = fresh;
        }
    }
}

/// A value that has no keys of its own to blame.
pub(super) trait Leaf: Sized {
    /// Whether somebody may write a secret here by mistake: a fault does not repeat it then.
    const IS_PRIVATE: bool = false;

    /// Reads a value; else says what it must be.
    fn leaf(value: &Value) -> Result<Self, String>;
}

impl<T: Leaf> Written for T {
    fn fresh(node: &Node, at: &str, reading: &mut Reading<'_>) -> Option<Self> {
        match T::leaf(&node.value) {
            Ok(leaf) => Some(leaf),
            Err(wish) => {
                let got = || format!("{wish} (got {})", node.value.shown());
                reading.fault(at, if T::IS_PRIVATE { wish } else { got() });
                None
            }
        }
    }
}

impl<T: Written> Written for Option<T> {
    fn fresh(node: &Node, at: &str, reading: &mut Reading<'_>) -> Option<Self> {
        match node.value {
            Value::Null => Some(None),
            _ => T::fresh(node, at, reading).map(Some),
        }
    }

    /// A block that is there already is laid over key by key.
    fn read(&mut self, node: &Node, at: &str, reading: &mut Reading<'_>) {
        match (self.as_mut(), &node.value) {
            (Some(there), Value::Map(_)) => there.read(node, at, reading),
            _ => {
                if let Some(fresh) = Self::fresh(node, at, reading) {
                    *self = fresh;
                }
            }
        }
    }
}

impl<T: Written> Written for Vec<T> {
    fn fresh(node: &Node, at: &str, reading: &mut Reading<'_>) -> Option<Self> {
        let Value::List(items) = &node.value else {
            reading
                .fault(at, format!("must be a list, `[]` for none (got {})", node.value.shown()));
            return None;
        };
        let items = items.iter().enumerate();
        Some(items.filter_map(|(n, item)| T::fresh(item, &nth(at, n), reading)).collect())
    }
}

/// The path of a key in a block.
pub(super) fn join(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}

/// The path of an item of a list.
pub(super) fn nth(at: &str, n: usize) -> String {
    format!("{at}[{n}]")
}

/// The known word that a wrong one was meant to be.
pub(super) fn near<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let near = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(word, name), *name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min_by_key(|(distance, _)| *distance);
    near.map(|(_, name)| name)
}

/// A path, and those of all blocks around it, from the inside out.
fn around(at: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(at), |at| at.rfind(['.', '[']).and_then(|end| at.get(..end)))
}

/// Tells the line of every key in a tree that stands at `at`.
pub(super) fn each_line(node: &Node, at: String, tell: &mut impl FnMut(String, u64)) {
    match &node.value {
        Value::List(items) => {
            for (n, item) in items.iter().enumerate() {
                each_line(item, nth(&at, n), tell);
            }
        }
        Value::Map(entries) => {
            for (key, node) in entries {
                each_line(node, join(&at, key), tell);
            }
        }
        _ => {}
    }
    if !at.is_empty() {
        tell(at, node.line);
    }
}

/// Declares a block of the file: each key with its doc, its type and its default.
macro_rules! block {
    ($(#[$about:meta])* $name:ident {
        $($(#[$doc:meta])* $key:ident: $type:ty = $default:expr,)*
    }) => {
        #[derive(Clone, Debug, serde::Serialize, schemars::JsonSchema)]
        $(#[$about])*
        #[serde(deny_unknown_fields, default)]
        pub(in crate::config) struct $name {
            $($(#[$doc])* pub(in crate::config) $key: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }

        impl $crate::config::reading::Written for $name {
            fn fresh(
                node: &$crate::config::tree::Node,
                at: &str,
                reading: &mut $crate::config::reading::Reading<'_>,
            ) -> Option<Self> {
                let mut block = Self::default();
                block.read(node, at, reading);
                Some(block)
            }

            fn read(
                &mut self,
                node: &$crate::config::tree::Node,
                at: &str,
                reading: &mut $crate::config::reading::Reading<'_>,
            ) {
                let known = [$(stringify!($key).trim_start_matches("r#")),*];
                for (key, node) in reading.entries(node, at, &known) {
                    use $crate::config::reading::{Written, join};
                    match key {
                        $(_ if key == stringify!($key).trim_start_matches("r#") => {
                            Written::read(&mut self.$key, node, &join(at, key), reading);
                        })*
                        _ => {}
                    }
                }
            }
        }
    };
}
pub(super) use block;

/// What our environment variables start with, and no key of the file does.
const VARIABLE: &str = "SAMEKEY_";
