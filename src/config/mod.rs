//! Loads the configuration, or tells every fault in it at once.
//!
//! A file goes three steps. [`tree`] makes it a tree that knows its lines.
//! [`reading`] lays the tree over blocks *as written*: one struct a block, each key
//! with its doc, type and default, of which the JSON Schema is made too. Then each
//! block becomes what a feature takes *as meant*, a type that needs no second look;
//! what depends on several keys is refused there.
//!
//! # Invariants
//!
//! - A [`Config`] is whole or is not made: no fault leaves half of one.
//! - Every fault names its line, its full key and what is wanted.
//! - Nothing but this module reads the environment.

mod admin;
mod capture;
mod credit;
mod environment;
mod errors;
mod fault;
mod file;
mod idempotency;
mod inbox;
mod intercept;
mod kind;
mod layers;
mod leaf;
mod limit;
mod listen;
mod lookup;
mod poll;
mod preset;
mod reading;
mod retry;
mod route;
mod schema;
mod state;
mod traces;
mod tree;
mod upstream;

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use environment::{Environment, Overridden};
pub use fault::{Fault, Faults};
pub use state::{Journal, Shared, State};
pub use traces::Traces;

use crate::config::reading::{Reading, Written as _};

/// Everything that an operator decides, as meant.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which config is in force.
    pub source: Source,
    /// Of the text that it was read from.
    pub digest: blake3::Hash,
    /// Whether that says nothing: it is empty, or holds comments alone.
    pub is_blank: bool,
    /// The file's own words that a variable puts out of force.
    pub overridden: Vec<Overridden>,
    /// Where requests get in; at least one.
    pub listeners: Vec<crate::listen::Spec>,
    /// The admin listener.
    pub admin: crate::admin::Spec,
    /// What is kept, where, and how much of it.
    pub state: State,
    /// Which hosts are opened.
    pub intercept: crate::intercept::Rules,
    /// How upstreams are reached.
    pub upstream: crate::upstream::Options,
    /// Which addresses may be reached.
    pub egress: crate::upstream::Egress,
    /// How long it goes on as before once it was told to end.
    pub shutdown_delay: Duration,
    /// How long running exchanges may take to end after that.
    pub shutdown_grace: Duration,
    /// Rules for requests; the first that matches wins.
    pub routes: Vec<crate::route::Route>,
    /// What is logged, and how.
    pub log: Log,
    /// Whether spans are exported: by the standard variables alone.
    pub traces: Traces,
}

/// Which config is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// This file.
    File(PathBuf),
    /// None was found: one route for every host.
    BuiltIn,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::BuiltIn => f.write_str("built in"),
        }
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Levels, as `tracing-subscriber` reads targets: `info`, `warn,samekey=debug`.
    pub level: String,
    /// How a line looks; `None`: text on a terminal, else JSON.
    pub format: Option<LogFormat>,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For eyes.
    Text,
    /// For machines.
    Json,
}

/// Loads `path`, else `$SAMEKEY_CONFIG`, else the first of [`PLACES`], else what is built in.
///
/// # Errors
///
/// Everything that is wrong: a named file that is not there, a file that cannot be
/// read or is not YAML, each key that is unknown, twice there, of the wrong type or
/// out of range, keys that do not go together, and variables that are wrong.
pub fn load(path: Option<&Path>, env: &Environment) -> Result<Config, Faults> {
    if let Some(path) = path {
        let text =
            contents(path).map_err(|error| Fault::in_file(path, None, "", unread(&error)))?;
        return parse(&text, path, env);
    }
    if let Some(path) = env.config.as_deref().map(Path::new) {
        let text = contents(path).map_err(|error| {
            let wish = format!("{}: {}", path.display(), unread(&error));
            Fault::in_variable(environment::CONFIG, wish)
        })?;
        return parse(&text, path, env);
    }
    search(&PLACES.map(Path::new), env)
}

/// Loads the first of these files that is there, else the built-in default.
fn search(places: &[&Path], env: &Environment) -> Result<Config, Faults> {
    for path in places {
        match contents(path) {
            Ok(text) => return parse(&text, path, env),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Fault::in_file(path, None, "", unread(&error)).into()),
        }
    }
    let mut config = read(BUILT_IN, Path::new(""), Source::BuiltIn, env)?;
    // What is known of a provider comes before what is meant for all hosts.
    config.routes.sort_by_key(|route| route.provenance.built_in().is_none());
    for route in &mut config.routes {
        route.rules.pass_malformed_keys = true;
    }
    Ok(config)
}

/// Reads the text of `file`.
///
/// # Errors
///
/// As [`load`].
pub fn parse(text: &str, file: &Path, env: &Environment) -> Result<Config, Faults> {
    read(text, file, Source::File(file.to_owned()), env)
}

fn read(text: &str, file: &Path, source: Source, env: &Environment) -> Result<Config, Faults> {
    let digest = blake3::hash(text.as_bytes());
    let root = tree::read(text).map_err(|(line, wish)| Fault::in_file(file, line, "", wish))?;
    let mut reading = Reading::of(file, &root);
    let mut written = file::File::default();
    written.read(&root, "", &mut reading);
    let is_blank = matches!(root.value, tree::Value::Null);
    Ok(Config { is_blank, ..written.meant(source, digest, env, reading)? })
}

impl Config {
    /// This config, in place of the one in force.
    ///
    /// # Errors
    ///
    /// Where there is no file any more, or it says nothing: it is being written, or the disk was
    /// full. The defaults, without its routes, would send each order without its key.
    pub fn in_place_of(self, before: &Self) -> Result<Self, Faults> {
        let (path, wish) = match (&before.source, &self.source) {
            (Source::File(path), Source::BuiltIn) => (path, "must be there, as it was"),
            (Source::File(_), Source::File(path)) if self.is_blank && !before.is_blank => {
                (path, "must not be empty, as it was not: `{}` stands for the defaults")
            }
            _ => return Ok(self),
        };
        Err(Fault::in_file(path, None, "", wish.to_owned()).into())
    }
}

/// The JSON Schema of the file (draft 2020-12).
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(file::File).to_value();
    for (block, keys) in REQUIRED {
        let block = schema.pointer_mut(&format!("/$defs/{block}"));
        let Some(block) = block.and_then(|block| block.as_object_mut()) else { continue };
        block.insert("required".to_owned(), serde_json::json!(keys));
        let mut properties = block.get_mut("properties").and_then(|keys| keys.as_object_mut());
        for key in keys {
            let property = properties.as_mut().and_then(|properties| properties.get_mut(*key));
            let Some(property) = property.and_then(|key| key.as_object_mut()) else { continue };
            // Null stands for a key that is not given, which this one must be.
            property.remove("default");
            property.entry("type").and_modify(|kinds| {
                if kinds.is_array() {
                    *kinds = "string".into();
                }
            });
        }
    }
    if let Some(route) = schema.pointer_mut("/$defs/RouteBlock").and_then(|it| it.as_object_mut()) {
        route.insert("anyOf".to_owned(), named_or_from_preset());
    }
    schema
}

/// What a route has to have: what it cannot take from the preset that it starts from.
fn named_or_from_preset() -> serde_json::Value {
    let hosts = serde_json::json!({"required": ["hosts"]});
    let name = serde_json::json!({"type": "string"});
    serde_json::json!([
        {"required": ["preset"], "properties": {"preset": {"type": "string"}}},
        {"required": ["name", "match"], "properties": {"name": name, "match": hosts}},
    ])
}

fn contents(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let size = File::open(path)?.take(FILE_MAX + 1).read_to_string(&mut text)?;
    if u64::try_from(size).is_ok_and(|size| size > FILE_MAX) {
        let max = FILE_MAX / leaf::MIB;
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("larger than {max}MiB")));
    }
    Ok(text)
}

fn unread(error: &io::Error) -> String {
    format!("cannot be read: {error}")
}

/// Where a config is looked for when none is named.
pub const PLACES: [&str; 2] = ["samekey.yaml", "/etc/samekey/samekey.yaml"];

/// In force where there is no file: every call is covered, and none is refused that
/// would have come through without us.
const BUILT_IN: &str = "
intercept: {on_distrust: tunnel}
defaults: {idempotency: {mismatch: forward}}
routes:
  - {name: default, match: {hosts: ['*']}}
";

/// Keys without a default.
const REQUIRED: [(&str, &[&str]); 13] = [
    ("ProxyBlock", &["url"]),
    ("UserBlock", &["user", "password_file"]),
    ("CaBlock", &["cert", "key"]),
    ("SharedBlock", &["url"]),
    ("InboxBlock", &["identity"]),
    ("InboxSignatureBlock", &["header", "secret_file"]),
    ("LookupBlock", &["request", "match"]),
    ("LookupCredentialsBlock", &["header", "file"]),
    ("ConditionBlock", &["json", "in"]),
    ("FailedWhenBlock", &["json", "in"]),
    ("TerminalBlock", &["json", "in"]),
    ("PreflightBlock", &["request", "json", "at_least"]),
    ("EstimateBlock", &["path", "json", "at_most"]),
];

/// A thousand routes are a tenth of it.
const FILE_MAX: u64 = 4 * leaf::MIB;

#[cfg(test)]
mod tests;
