//! The whole file as written, and the [`Config`] that it becomes.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use crate::config::admin::AdminBlock;
use crate::config::environment::{
    ADMIN, AUTH, Environment, LISTEN, LOG, LOG_FORMAT, Overridden, STATE_DIR,
};
use crate::config::inbox::inboxes_are_reached;
use crate::config::intercept::InterceptBlock;
use crate::config::leaf::{HOUR, Parse, Parsed, SECOND, Span, Word, Words};
use crate::config::listen::{ListenerBlock, no_two_alike, no_way_back};
use crate::config::preset::Providers;
use crate::config::reading::{Leaf, Reading, Written, block, join, nth};
use crate::config::route::{
    DefaultsBlock, RouteBlock, groups_agree, names_differ, shared_by_something,
};
use crate::config::state::StateBlock;
use crate::config::tree::{Node, Value};
use crate::config::upstream::{EgressBlock, UpstreamBlock};
use crate::config::{Config, Faults, Log, LogFormat, Source, traces};
use crate::listen;
use crate::route::Route;

block! {
    /// The config file of samekey.
    #[schemars(title = "samekey.yaml")]
    File {
        /// Where requests get in.
        listeners: Vec<ListenerBlock> = vec![ListenerBlock::default()],
        /// The admin listener: probes, metrics, API.
        admin: AdminBlock = AdminBlock::default(),
        /// What is kept, where, and how much of it.
        state: StateBlock = StateBlock::default(),
        /// Which hosts are opened, and with which CA.
        intercept: InterceptBlock = InterceptBlock::default(),
        /// How upstreams are reached.
        upstream: UpstreamBlock = UpstreamBlock::default(),
        /// Which addresses may be reached.
        egress: EgressBlock = EgressBlock::default(),
        /// How the process ends.
        shutdown: ShutdownBlock = ShutdownBlock::default(),
        /// Built-in presets: `all`, or a list of names.
        providers: Providers = Providers::All,
        /// Rules for requests; the first that matches wins.
        routes: Routes = Routes::default(),
        /// What every route starts from.
        defaults: DefaultsBlock = DefaultsBlock::default(),
        /// What is logged, and how.
        log: LogBlock = LogBlock::default(),
    }
}

block! {
    /// How the process ends.
    ShutdownBlock {
        /// How long it still takes requests, though not ready, once it was told to end.
        delay: Span<0, HOUR> = Span::of(0),
        /// How long running exchanges may take to end after that.
        grace: Span<0, HOUR> = Span::of(30 * SECOND),
    }
}

block! {
    /// What is logged, and how.
    LogBlock {
        /// A level, and levels by module: info, or warn,samekey=debug.
        level: Parsed<LevelFilter> = LevelFilter::info(),
        /// How a line looks; null: `text` on a terminal, else `json`.
        format: Option<Word<LogFormat>> = None,
    }
}

/// `routes` as written: read once `defaults` is known, wherever that stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Routes(Vec<Node>);

impl Leaf for Routes {
    fn leaf(value: &Value) -> Result<Self, String> {
        match value {
            Value::Null => Ok(Self::default()),
            Value::List(nodes) => Ok(Self(nodes.clone())),
            _ => Err("must be a list".to_owned()),
        }
    }
}

impl Routes {
    /// The routes, as they were written.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.0
    }
}

impl Serialize for Routes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Only the default is ever told, and it is empty.
        serializer.collect_seq([(); 0])
    }
}

impl JsonSchema for Routes {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Routes".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        <Vec<RouteBlock>>::json_schema(generator)
    }
}

impl File {
    /// Reads the file once; a [`Config`] needs no second look.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub(super) fn meant(
        mut self,
        source: Source,
        digest: blake3::Hash,
        env: &Environment,
        mut reading: Reading<'_>,
    ) -> Result<Config, Faults> {
        let overridden = self.lay_over(env, &mut reading);
        let listeners = self.listeners(env, &mut reading);
        let routes = self.routes(&listeners, &mut reading);
        let intercept = self.intercept.meant(&mut reading);
        let state = self.state.meant(&mut reading);
        let upstream = self.upstream.meant(&mut reading);
        reading.end()?;
        Ok(Config {
            source,
            digest,
            is_blank: false,
            overridden,
            listeners,
            admin: self.admin.meant(),
            state,
            intercept,
            upstream,
            egress: self.egress.meant(),
            shutdown_delay: self.shutdown.delay.duration(),
            shutdown_grace: self.shutdown.grace.duration(),
            routes,
            log: Log { level: self.log.level.text, format: self.log.format.map(|format| format.0) },
            traces: traces::read(&env.otel),
        })
    }

    /// Lays the environment over the file; returns what of the file's words that changes.
    fn lay_over(&mut self, env: &Environment, reading: &mut Reading<'_>) -> Vec<Overridden> {
        let before = self.under_variables();
        // The first listener is the one that HTTPS_PROXY points at.
        if let Some(first) = self.listeners.first_mut() {
            over(&mut first.address, LISTEN, env.listen.as_deref(), reading);
            if let Some(text) = &env.auth {
                first.auth.lay_over(text, AUTH, reading);
            }
        }
        over(&mut self.admin.address, ADMIN, env.admin.as_deref(), reading);
        over(&mut self.state.dir, STATE_DIR, env.state_dir.as_deref(), reading);
        over(&mut self.log.level, LOG, env.log.as_deref(), reading);
        over(&mut self.log.format, LOG_FORMAT, env.log_format.as_deref(), reading);
        let both = before.into_iter().zip(self.under_variables());
        let changed =
            both.filter(|((_, key, before), (_, _, after))| reading.wrote(key) && before != after);
        changed.map(|((variable, key, _), _)| Overridden { variable, key }).collect()
    }

    /// The variables that are laid over the file, each with its key and what that says.
    fn under_variables(&self) -> [(&'static str, &'static str, Option<serde_json::Value>); 6] {
        fn said(key: impl Serialize) -> Option<serde_json::Value> {
            serde_json::to_value(key).ok()
        }
        let first = self.listeners.first();
        // A slash at its end makes no other folder.
        let dir: PathBuf = self.state.dir.components().collect();
        [
            (LISTEN, "listeners[0].address", first.and_then(|first| said(&first.address))),
            (AUTH, "listeners[0].auth", first.and_then(|first| said(&first.auth))),
            (ADMIN, "admin.address", said(&self.admin.address)),
            (STATE_DIR, "state.dir", said(dir)),
            (LOG, "log.level", said(&self.log.level)),
            (LOG_FORMAT, "log.format", said(self.log.format)),
        ]
    }

    fn listeners(&self, env: &Environment, reading: &mut Reading<'_>) -> Vec<listen::Spec> {
        if self.listeners.is_empty() {
            reading.miss("listeners", "must hold at least one listener");
        }
        let mut bound = Vec::new();
        let mut specs = Vec::new();
        for (n, listener) in self.listeners.iter().enumerate() {
            let at = nth("listeners", n);
            // What the first one's keys go by, where a variable is laid over them.
            let named = |variable: &str, over: &Option<String>, key| match over {
                Some(_) if n == 0 => variable.to_owned(),
                _ => join(&at, key),
            };
            let address = named(LISTEN, &env.listen, "address");
            let auth = named(AUTH, &env.auth, "auth");
            specs.extend(listener.meant(&at, [&address, &auth], reading));
            bound.push((address, &listener.address));
        }
        let key = if env.admin.is_some() { ADMIN } else { "admin.address" };
        bound.push((key.to_owned(), &self.admin.address));
        no_two_alike(&bound, reading);
        if let Some((key, proxy)) = self.upstream.proxy_address() {
            no_way_back((key, &proxy), &bound, reading);
        }
        specs
    }

    fn routes(&self, listeners: &[listen::Spec], reading: &mut Reading<'_>) -> Vec<Route> {
        let blocks = self.route_blocks(reading);
        names_differ(&blocks, reading);
        groups_agree(&blocks, reading);
        if self.state.shared.is_none() {
            shared_by_something(&blocks, reading);
        }
        let meant = |(at, block): &(String, RouteBlock)| block.meant(at, reading);
        let routes: Vec<Route> = blocks.iter().filter_map(meant).collect();
        inboxes_are_reached(&blocks, &routes, listeners, reading);
        routes
    }
}

fn over<T: Written>(key: &mut T, variable: &str, text: Option<&str>, reading: &mut Reading<'_>) {
    if let Some(text) = text {
        let node = Node { line: 0, value: Value::Text(text.to_owned()) };
        key.read(&node, variable, reading);
    }
}

/// What `tracing-subscriber` takes as targets: levels, and `module=level`.
#[derive(Clone, Debug)]
pub(super) struct LevelFilter;

impl LevelFilter {
    fn info() -> Parsed<Self> {
        Parsed { text: "info".to_owned(), meant: Self }
    }
}

impl Parse for LevelFilter {
    fn parse(text: &str) -> Result<Self, String> {
        let level = |text: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text));
        let directive = |text: &str| match text.split_once('=') {
            Some((module, text)) => {
                !module.is_empty() && !module.contains(char::is_whitespace) && level(text)
            }
            None => level(text),
        };
        text.split(',').all(directive).then_some(Self).ok_or_else(|| {
            let levels = LEVELS.join(", ");
            format!("must be one of {levels}, or such by module as in warn,samekey=debug")
        })
    }
}

impl Words for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
