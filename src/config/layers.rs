//! Lays each route over what it starts from, and keeps account of who wrote what.
//!
//! An operator's route is laid over the preset's route that it names, if it names one,
//! and that over `defaults`. The presets' own routes stand behind those of the operator.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use crate::config::file::File;
use crate::config::kind;
use crate::config::preset::{self, PresetRoute};
use crate::config::reading::{Reading, Written as _, each_line, nth};
use crate::config::route::RouteBlock;
use crate::config::tree::Node;
use crate::route::Provenance;
use crate::route::provenance::{Layer, Part};

/// A block that a route is made of.
#[derive(Clone, Debug)]
pub(super) struct Base {
    /// Its path in the reading.
    pub(super) at: String,
    /// What it says where; none where no file is in force.
    layer: Option<Arc<Layer>>,
}

impl File {
    /// Every route, laid over what it starts from, and its path.
    pub(super) fn route_blocks(&self, reading: &mut Reading<'_>) -> Vec<(String, RouteBlock)> {
        let own = self.own_routes(reading);
        let named = |(_, block): &(String, RouteBlock)| Some(block.name.as_ref()?.text.clone());
        let taken: HashSet<String> = own.iter().filter_map(named).collect();
        let mut built_in = self.preset_routes(reading);
        // Who copies a route to change it means the copy.
        built_in.retain(|route| named(route).is_none_or(|name| !taken.contains(&name)));
        for (at, block) in &mut built_in {
            join_group(at, block, &own, reading);
        }
        own.into_iter().chain(built_in).collect()
    }

    fn own_routes(&self, reading: &mut Reading<'_>) -> Vec<(String, RouteBlock)> {
        let nodes = self.routes.nodes().iter().enumerate();
        nodes
            .map(|(n, node)| {
                let at = nth("routes", n);
                let layer = reading.layer(node, Part::Route);
                let mut bases = vec![Base { at: at.clone(), layer }];
                let from = node.text("preset").and_then(|name| preset::route(name, reading));
                let mut block = match &from {
                    Some(from) => from.over(&self.defaults, reading),
                    None => RouteBlock::over(&self.defaults),
                };
                bases.extend(from.iter().map(PresetRoute::base));
                reading.made_of(&at, bases);
                block.read(node, &at, reading);
                kind::fill(&mut block, &at, reading);
                (at, block)
            })
            .collect()
    }

    fn preset_routes(&self, reading: &mut Reading<'_>) -> Vec<(String, RouteBlock)> {
        let presets = self.providers.presets();
        let routes: Vec<PresetRoute> = presets.flat_map(|preset| preset.routes(reading)).collect();
        let mut blocks = Vec::new();
        for route in routes {
            reading.made_of(&route.at, vec![route.base()]);
            let mut block = route.over(&self.defaults, reading);
            kind::fill(&mut block, &route.at, reading);
            blocks.push((route.at, block));
        }
        blocks
    }
}

/// Gives a preset's route the limits of the operator's route in its group: a group has
/// one of each, and the operator knows the account.
fn join_group(
    at: &str,
    block: &mut RouteBlock,
    own: &[(String, RouteBlock)],
    reading: &mut Reading<'_>,
) {
    let group = |block: &RouteBlock| block.limits.group.as_ref().map(|group| group.text.clone());
    let Some(name) = group(block) else { return };
    if let Some((first, chosen)) =
        own.iter().find(|(_, block)| group(block).as_ref() == Some(&name))
    {
        block.limits = chosen.limits.clone();
        reading.limits_of.insert(at.to_owned(), first.clone());
    }
}

impl Reading<'_> {
    /// What a block of the operator's file says where; none where no file is in force.
    pub(super) fn layer(&self, node: &Node, part: Part) -> Option<Arc<Layer>> {
        (!self.file.as_os_str().is_empty()).then(|| Arc::new(layer(part, self.file, node)))
    }

    /// Notes what the route at `at` is made of, its own block first.
    fn made_of(&mut self, at: &str, mut bases: Vec<Base>) {
        bases.push(Base { at: "defaults".to_owned(), layer: self.defaults.clone() });
        self.made_of.insert(at.to_owned(), bases);
    }

    /// Where the keys of the route at `at` were written.
    pub(super) fn provenance(&self, at: &str) -> Provenance {
        let bases = self.made_of.get(at).into_iter().flatten();
        let own = Provenance::of(bases.filter_map(|base| base.layer.clone()).collect());
        match self.limits_of.get(at) {
            Some(other) => own.limited_by(self.provenance(other)),
            None => own,
        }
    }
}

impl PresetRoute {
    /// Its block.
    fn base(&self) -> Base {
        let part = Part::Preset(self.preset.name.to_owned());
        let mut layer = layer(part, self.preset.file(), self.node());
        if let Some(hosts) = self.shared_hosts() {
            layer.lines.entry("match.hosts".to_owned()).or_insert(hosts.line);
        }
        Base { at: self.at.clone(), layer: Some(Arc::new(layer)) }
    }
}

fn layer(part: Part, file: &Path, node: &Node) -> Layer {
    let mut lines = BTreeMap::new();
    each_line(node, String::new(), &mut |key, line| {
        lines.insert(key, line);
    });
    Layer { file: file.display().to_string(), part, line: node.line, lines }
}
