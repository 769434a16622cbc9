//! The presets of providers that are built in: read as the operator's file is, and
//! laid over its `defaults`.
//!
//! A preset is one file of `config/providers`, named as its provider; no provider is
//! named here. Its keys stand in a reading at `providers.NAME`, where the operator's
//! file can have none.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use include_dir::{Dir, include_dir};
use schemars::json_schema;

use crate::config::file::Routes;
use crate::config::leaf::{Parse, Parsed, form};
use crate::config::reading::{Reading, Written, block, join, near, nth};
use crate::config::route::{DefaultsBlock, Name, RouteBlock};
use crate::config::tree::{self, Node, Value};
use crate::route::HostPattern;

block! {
    /// A preset: one provider, and the routes that its promises make safe.
    PresetBlock {
        /// The provider, as the file is named.
        name: Option<Parsed<Name>> = None,
        /// What it does, in a sentence.
        about: Option<Parsed<Sentence>> = None,
        /// Where it documents its promises.
        docs: Option<Parsed<Page>> = None,
        /// The hosts of all routes that name none.
        hosts: Vec<Parsed<HostPattern>> = Vec::new(),
        /// Its routes, as those of the operator's file.
        routes: Routes = Routes::default(),
    }
}

/// A file that is built in.
#[derive(Debug)]
pub(super) struct Preset {
    /// The provider's name, which its file has too.
    pub(super) name: &'static str,
    /// The file, from the package's root.
    file: PathBuf,
    root: Result<Node, (Option<u64>, String)>,
}

/// A route of a preset.
#[derive(Debug)]
pub(super) struct PresetRoute {
    /// Whose it is.
    pub(super) preset: &'static Preset,
    /// Its path in the reading.
    pub(super) at: String,
    node: Node,
    hosts: Option<Node>,
}

impl Preset {
    fn read(name: &'static str, text: &str) -> Self {
        let file = Path::new(PLACE).join(format!("{name}.yaml"));
        Self { name, file, root: tree::read(text) }
    }

    /// Its file.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Its routes, in the order of its file.
    pub(super) fn routes(&'static self, reading: &mut Reading<'_>) -> Vec<PresetRoute> {
        let at = join("providers", self.name);
        let root = match &self.root {
            Ok(root) => root,
            Err((_, wish)) => {
                reading.fault(&at, wish.clone());
                return Vec::new();
            }
        };
        reading.open(&self.file, root, &at);
        let Some(block) = PresetBlock::fresh(root, &at, reading) else { return Vec::new() };
        block.complete(self.name, &at, reading);
        let hosts = root.child("hosts");
        let routes = block.routes.nodes().iter().enumerate();
        routes
            .map(|(n, node)| PresetRoute {
                preset: self,
                at: nth(&join(&at, "routes"), n),
                node: node.clone(),
                hosts: hosts.cloned(),
            })
            .collect()
    }
}

impl PresetBlock {
    /// Blames what every preset has to say.
    fn complete(&self, name: &str, at: &str, reading: &mut Reading<'_>) {
        if self.name.as_ref().is_none_or(|given| given.text != name) {
            reading.miss(&join(at, "name"), format!("must be `{name}`, as the file is named"));
        }
        for (key, given) in [("about", self.about.is_some()), ("docs", self.docs.is_some())] {
            if !given {
                reading.miss(&join(at, key), "must be given");
            }
        }
    }
}

impl PresetRoute {
    /// The route, laid over the operator's defaults.
    pub(super) fn over(&self, defaults: &DefaultsBlock, reading: &mut Reading<'_>) -> RouteBlock {
        let mut block = RouteBlock::over(defaults);
        if let Some(hosts) = &self.hosts {
            let at = format!("providers.{}.hosts", self.preset.name);
            block.r#match.hosts.read(hosts, &at, reading);
        }
        block.read(&self.node, &self.at, reading);
        self.follows_its_file(&block, reading);
        block
    }

    /// Blames a name that does not tell whose route it is.
    fn follows_its_file(&self, block: &RouteBlock, reading: &mut Reading<'_>) {
        let name = block.name.as_ref().map_or("", |name| &name.text);
        if !self.preset.has(name) {
            let wish = format!("must be `{0}` or begin with `{0}-`", self.preset.name);
            reading.miss(&join(&self.at, "name"), wish);
        }
        if block.preset.is_some() {
            reading.fault(&join(&self.at, "preset"), "no route of a preset starts from another");
        }
    }

    /// The route as it is written.
    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    /// The hosts that its file gives to all of its routes.
    pub(super) fn shared_hosts(&self) -> Option<&Node> {
        self.hosts.as_ref()
    }
}

impl Preset {
    /// Whether a route's name says that it is one of this preset's.
    fn has(&self, route: &str) -> bool {
        let rest = route.strip_prefix(self.name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }

    /// The names of its routes.
    fn names(&self) -> impl Iterator<Item = &str> {
        let routes = self.root.as_ref().ok().and_then(|root| root.child("routes"));
        let nodes = match routes.map(|routes| &routes.value) {
            Some(Value::List(nodes)) => nodes.as_slice(),
            _ => &[],
        };
        nodes.iter().filter_map(|node| node.text("name"))
    }
}

/// All presets, in the order of their names.
pub(super) fn all() -> &'static [Preset] {
    static PRESETS: LazyLock<Vec<Preset>> = LazyLock::new(|| {
        let files = FOLDER.files().filter(|file| is_preset(file.path()));
        let named = files.filter_map(|file| {
            Some(Preset::read(file.path().file_stem()?.to_str()?, file.contents_utf8()?))
        });
        let mut presets: Vec<Preset> = named.collect();
        presets.sort_by_key(|preset| preset.name);
        presets
    });
    &PRESETS
}

/// The route of this name, of whatever preset.
pub(super) fn route(name: &str, reading: &mut Reading<'_>) -> Option<PresetRoute> {
    let preset = all().iter().find(|preset| preset.names().any(|own| own == name))?;
    let mut routes = preset.routes(reading).into_iter();
    routes.find(|route| route.node.text("name") == Some(name))
}

fn is_preset(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "yaml")
}

/// `providers` as written: which presets are in force.
#[derive(Clone, Debug)]
pub(super) enum Providers {
    All,
    Listed(Vec<Parsed<Known>>),
}

impl Providers {
    /// The presets in force, in the order of their names.
    pub(super) fn presets(&self) -> impl Iterator<Item = &'static Preset> {
        all().iter().filter(move |preset| match self {
            Self::All => true,
            Self::Listed(names) => names.iter().any(|name| name.text == preset.name),
        })
    }

    fn shown(&self) -> serde_json::Value {
        match self {
            Self::All => "all".into(),
            Self::Listed(names) => names.iter().map(|name| name.text.as_str()).collect(),
        }
    }
}

impl Written for Providers {
    fn fresh(node: &Node, at: &str, reading: &mut Reading<'_>) -> Option<Self> {
        match &node.value {
            Value::Text(text) if text == "all" => Some(Self::All),
            Value::List(_) => Written::fresh(node, at, reading).map(Self::Listed),
            other => {
                reading.fault(at, format!("must be `all` or a list (got {})", other.shown()));
                None
            }
        }
    }
}

/// The name of a preset.
#[derive(Clone, Debug)]
pub(super) struct Known;

impl Parse for Known {
    fn parse(name: &str) -> Result<Self, String> {
        let known: Vec<&str> = all().iter().map(|preset| preset.name).collect();
        one_of(name, &known, "preset").map(|()| Self)
    }
}

/// The name of a route of a preset.
#[derive(Clone, Debug)]
pub(super) struct KnownRoute;

impl Parse for KnownRoute {
    fn parse(name: &str) -> Result<Self, String> {
        let preset = all().iter().rfind(|preset| preset.has(name));
        // Where the provider is right, its own routes are the ones to choose from.
        let presets = preset.map_or_else(all, std::slice::from_ref);
        let known: Vec<&str> = presets.iter().flat_map(Preset::names).collect();
        one_of(name, &known, "route of a preset").map(|()| Self)
    }
}

fn one_of(name: &str, known: &[&str], what: &str) -> Result<(), String> {
    match near(name, known) {
        _ if known.contains(&name) => Ok(()),
        Some(near) => Err(format!("no such {what} is built in, did you mean `{near}`?")),
        None if known.len() > LISTED_MAX => {
            Err(format!("no such {what} is built in; config/providers/README.md lists them"))
        }
        None => Err(format!("no such {what} is built in, must be one of {}", known.join(", "))),
    }
}

/// Text in a line.
#[derive(Clone, Debug)]
pub(super) struct Sentence;

impl Parse for Sentence {
    fn parse(text: &str) -> Result<Self, String> {
        let good = !text.is_empty() && !text.contains(char::is_control);
        good.then_some(Self).ok_or_else(|| "must be a sentence, on one line".to_owned())
    }
}

/// A page on the web.
#[derive(Clone, Debug)]
pub(super) struct Page;

impl Parse for Page {
    fn parse(text: &str) -> Result<Self, String> {
        let good = text.starts_with("https://") && !text.contains(char::is_whitespace);
        good.then_some(Self).ok_or_else(|| "must be a URL that starts with https://".to_owned())
    }
}

form!([] Providers, self => self.shown(), json_schema!({
    "anyOf": [
        { "const": "all" },
        { "type": "array", "items": {
            "enum": all().iter().map(|preset| preset.name).collect::<Vec<_>>()
        }},
    ]
}));

/// As many names as an operator reads.
const LISTED_MAX: usize = 40;

const PLACE: &str = "config/providers";

static FOLDER: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/config/providers");
