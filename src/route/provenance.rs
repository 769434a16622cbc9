//! Where the keys of a route were written: for people, nothing decides by it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The blocks that a route is made of, each laid over the next.
#[derive(Clone, Debug, Default)]
pub struct Provenance {
    layers: Vec<Arc<Layer>>,
    /// Of the route whose limits stand for those of its group.
    group: Option<Arc<Self>>,
}

impl Provenance {
    /// A route that is made of these, the outermost first.
    pub fn of(layers: Vec<Arc<Layer>>) -> Self {
        Self { layers, group: None }
    }

    /// The same, with limits that another route of its group decides.
    #[must_use]
    pub fn limited_by(self, other: Self) -> Self {
        Self { group: Some(Arc::new(other)), ..self }
    }

    /// The preset whose route this is; none where it is one of the operator's.
    pub fn built_in(&self) -> Option<&str> {
        self.layers.first().and_then(|layer| layer.preset())
    }

    /// The preset that an operator's route starts from.
    pub fn started_from(&self) -> Option<&str> {
        self.layers.iter().skip(1).find_map(|layer| layer.preset())
    }

    /// The preset that is in it, either way.
    pub fn preset(&self) -> Option<&str> {
        self.built_in().or_else(|| self.started_from())
    }

    /// Where the route begins.
    pub fn begins(&self) -> Option<Place<'_>> {
        self.layers.first().map(|layer| Place { layer, line: layer.line })
    }

    /// Where a key such as `retry.attempts` was written; none where it is at its default.
    pub fn place(&self, key: &str) -> Option<Place<'_>> {
        if let Some(group) = self.group.as_ref().filter(|_| key.starts_with("limits.")) {
            return group.place(key);
        }
        let mut layers = self.layers.iter();
        layers.find_map(|layer| Some(Place { layer, line: *layer.lines.get(key)? }))
    }
}

/// One block of a file that routes are made of.
#[derive(Debug)]
pub struct Layer {
    /// The file.
    pub file: String,
    /// What the block is.
    pub part: Part,
    /// Where it begins.
    pub line: u64,
    /// The line of every key in it, by its path.
    pub lines: BTreeMap<String, u64>,
}

/// What a block is to the routes that are made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The route as the operator wrote it.
    Route,
    /// A route of a preset, by the preset's name.
    Preset(String),
    /// What every route starts from.
    Defaults,
}

impl Layer {
    fn preset(&self) -> Option<&str> {
        match &self.part {
            Part::Preset(name) => Some(name),
            Part::Route | Part::Defaults => None,
        }
    }
}

/// A line of a block.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    layer: &'a Layer,
    line: u64,
}

impl PartialEq for Place<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.line == other.line && self.layer.file == other.layer.file
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = if self.layer.part == Part::Defaults { "defaults, " } else { "" };
        write!(f, "{part}{}:{}", self.layer.file, self.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(part: Part, file: &str, keys: &[(&str, u64)]) -> Arc<Layer> {
        let lines = keys.iter().map(|(key, line)| ((*key).to_owned(), *line)).collect();
        Arc::new(Layer { file: file.to_owned(), part, line: 1, lines })
    }

    #[test]
    fn a_key_was_written_where_the_outermost_block_has_it() {
        let own = layer(Part::Route, "a.yaml", &[("retry.on", 4)]);
        let preset = layer(
            Part::Preset("p".to_owned()),
            "p.yaml",
            &[("retry.on", 7), ("kind", 8), ("limits.rate", 9)],
        );
        let shared = layer(Part::Defaults, "a.yaml", &[("kind", 2), ("mode", 3)]);
        let other = layer(Part::Route, "a.yaml", &[("limits.rate", 6), ("kind", 5)]);
        let route = Provenance::of(vec![own, preset.clone(), shared.clone()]);
        let place = |route: &Provenance, key| route.place(key).map(|place| place.to_string());
        for (key, wanted) in [
            ("retry.on", Some("a.yaml:4")),
            ("kind", Some("p.yaml:8")),
            ("mode", Some("defaults, a.yaml:3")),
            ("limits.rate", Some("p.yaml:9")),
            ("body", None),
        ] {
            assert_eq!(place(&route, key).as_deref(), wanted, "{key}");
        }
        assert_eq!((route.built_in(), route.started_from()), (None, Some("p")));
        let built_in = Provenance::of(vec![preset, shared]).limited_by(Provenance::of(vec![other]));
        assert_eq!((built_in.built_in(), built_in.started_from()), (Some("p"), None));
        assert_eq!(place(&built_in, "limits.rate").as_deref(), Some("a.yaml:6"));
        assert_eq!(place(&built_in, "kind").as_deref(), Some("p.yaml:8"));
    }
}
