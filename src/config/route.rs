//! The file's `routes`, and the `defaults` that they start from.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use http::Method;

use crate::config::credit::{BreakerBlock, EstimateBlock, PreflightBlock};
use crate::config::errors::ErrorsKey;
use crate::config::idempotency::IdempotencyBlock;
use crate::config::inbox::InboxBlock;
use crate::config::leaf::{
    DAY, MIB, Parse, Parsed, SIZE_MAX, Size, Span, Word, Words, is_name, meant,
};
use crate::config::limit::LimitsBlock;
use crate::config::lookup::LookupBlock;
use crate::config::poll::{self, TerminalBlock};
use crate::config::preset::KnownRoute;
use crate::config::reading::{Reading, block, join};
use crate::config::retry::RetryBlock;
use crate::config::schema;
use crate::exchange::body::Caps;
use crate::limit;
use crate::route::{HostPattern, Kind, Matcher, Mode, PathPattern, Route};

block! {
    /// A named rule: which requests it matches, and the policy they get.
    RouteBlock {
        /// A built-in preset's route to start from instead of `defaults`: its name, matches
        /// and policy, of which the keys here override each its own.
        preset: Option<Parsed<KnownRoute>> = None,
        /// A metrics label, and whose budget it is across reloads.
        name: Option<Parsed<Name>> = None,
        /// Which requests it matches.
        r#match: MatchBlock = MatchBlock::default(),
        /// What a request does; null: POST and PATCH have effects, the others read. A GET on a
        /// `fetch` route is resumed where its body broke off, under a strong `ETag`.
        kind: Option<Word<Kind>> = None,
        /// Whether decisions are carried out, or only counted.
        mode: Word<Mode> = Word(Mode::Enforce),
        /// On a route of kind `poll`, how much time lies at least between two polls of one job
        /// that go upstream; one that comes sooner gets the last answer. Null: each is sent.
        interval: Option<Span<1, DAY>> = None,
        /// On a route of kind `poll`, what an answer says when its job is over: it is
        /// remembered, and later polls get it without asking.
        terminal: Option<TerminalBlock> = None,
        /// When a request is sent again.
        retry: RetryBlock = RetryBlock::default(),
        /// Which requests carry a key, where it travels, how long its answer is kept.
        idempotency: IdempotencyBlock = IdempotencyBlock::default(),
        /// How the provider is asked what became of a key whose outcome is unknown.
        lookup: Option<LookupBlock> = None,
        /// What is held back, per route and credential.
        limits: LimitsBlock = LimitsBlock::default(),
        /// When a credential is out of credit, and is held back; null: never.
        breaker: Option<BreakerBlock> = None,
        /// How its balance is asked for before anything is spent; null: it is not.
        preflight: Option<PreflightBlock> = None,
        /// How the cost of an effect is asked for before it is sent; null: it is not.
        estimate: Option<EstimateBlock> = None,
        /// How much of a body is kept for sending it again.
        body: BodyBlock = BodyBlock::default(),
        /// How answers look that are made here: `problem`, `provider`, or {template, types, codes}.
        errors: ErrorsKey = ErrorsKey::default(),
        /// A JSON Schema that JSON bodies of requests are to fit: a file, beside this one or by its full path.
        schema: Option<PathBuf> = None,
        /// Takes deliveries in for the application behind a reverse listener.
        inbox: Option<InboxBlock> = None,
    }
}

block! {
    /// What a route starts from: it overrides field by field.
    DefaultsBlock {
        /// What a request does; null: POST and PATCH have effects, the others read. A GET on a
        /// `fetch` route is resumed where its body broke off, under a strong `ETag`.
        kind: Option<Word<Kind>> = None,
        /// Whether decisions are carried out, or only counted.
        mode: Word<Mode> = Word(Mode::Enforce),
        /// When a request is sent again.
        retry: RetryBlock = RetryBlock::default(),
        /// Which requests carry a key, where it travels, how long its answer is kept.
        idempotency: IdempotencyBlock = IdempotencyBlock::default(),
        /// What is held back, per route and credential.
        limits: LimitsBlock = LimitsBlock::default(),
        /// When a credential is out of credit, and is held back; null: never.
        breaker: Option<BreakerBlock> = None,
        /// How its balance is asked for before anything is spent; null: it is not.
        preflight: Option<PreflightBlock> = None,
        /// How the cost of an effect is asked for before it is sent; null: it is not.
        estimate: Option<EstimateBlock> = None,
        /// How much of a body is kept for sending it again.
        body: BodyBlock = BodyBlock::default(),
        /// How answers look that are made here: `problem`, `provider`, or {template, types, codes}.
        errors: ErrorsKey = ErrorsKey::default(),
    }
}

block! {
    /// Which requests a route matches; all methods and paths where none is given.
    MatchBlock {
        /// `api.example.com`, `*.example.net`, `*`, each with or without `:port`.
        hosts: Vec<Parsed<HostPattern>> = Vec::new(),
        /// Methods, in capitals.
        methods: Vec<Parsed<Method>> = Vec::new(),
        /// `/v1/jobs`, `/v1/*` (one segment), `/v2/**` (the rest).
        paths: Vec<Parsed<PathPattern>> = Vec::new(),
    }
}

block! {
    /// How much of a body is kept for sending it again.
    BodyBlock {
        /// Bytes in memory.
        memory: Size<0, SIZE_MAX> = Size::of(MIB),
        /// Bytes in a file, past those in memory; past both the exchange goes on, without retries.
        disk: Size<0, SIZE_MAX> = Size::of(256 * MIB),
    }
}

impl RouteBlock {
    /// A route that is written over the defaults.
    pub(super) fn over(defaults: &DefaultsBlock) -> Self {
        let DefaultsBlock { kind, mode, retry, idempotency, limits, body, .. } = defaults.clone();
        let DefaultsBlock { breaker, preflight, estimate, errors, .. } = defaults.clone();
        let route = Self { kind, mode, retry, idempotency, limits, body, ..Self::default() };
        Self { breaker, preflight, estimate, errors, ..route }
    }

    /// Reads the block once; a [`Route`] needs no second look.
    pub(super) fn meant(&self, at: &str, reading: &mut Reading<'_>) -> Option<Route> {
        let [name, hosts] = [join(at, "name"), join(at, "match.hosts")];
        // A preset that was refused would have brought both.
        let bare = !reading.refused(&join(at, "preset"));
        if bare && self.name.is_none() {
            reading.miss(&name, WANTED_NAME);
        }
        if bare && self.r#match.hosts.is_empty() {
            reading.miss(&hosts, "must name at least one host; \"*\" is every host");
        }
        let retry = self.retry.meant(at, reading);
        let rules = self.idempotency.meant(at, reading);
        let polls = poll::meant(self, at, reading);
        let inbox = match &self.inbox {
            None => None,
            Some(inbox) => Some(inbox.meant(at, &retry, reading)?),
        };
        let kind = self.kind.map(|kind| kind.0);
        let lookup =
            self.lookup.as_ref().and_then(|block| block.meant(at, (kind, &rules, &retry), reading));
        let credit = self.credit(at, reading);
        Some(Route {
            name: self.name.clone()?.text,
            matcher: self.r#match.meant(),
            kind,
            mode: self.mode.0,
            retry,
            rules,
            polls,
            lookup: lookup.map(Arc::new),
            limits: self.limits.meant(),
            credit,
            body: Caps { memory: self.body.memory.bytes(), disk: self.body.disk.bytes() },
            errors: self.errors.meant(),
            schema: self.schema.as_deref().and_then(|file| schema::meant(file, at, reading)),
            inbox,
            provenance: reading.provenance(at),
        })
    }
}

impl MatchBlock {
    fn meant(&self) -> Matcher {
        Matcher {
            hosts: meant(&self.hosts),
            methods: meant(&self.methods),
            paths: meant(&self.paths),
        }
    }
}

/// Blames each name that an earlier route has.
pub(super) fn names_differ(routes: &[(String, RouteBlock)], reading: &mut Reading<'_>) {
    let mut first: HashMap<&str, &str> = HashMap::new();
    for (at, route) in routes {
        let Some(name) = &route.name else { continue };
        if let Some(owner) = first.get(name.text.as_str()) {
            let wish = format!("must be a name of its own, `{}` is {owner}", name.text);
            reading.fault(&join(at, "name"), wish);
        } else {
            first.insert(&name.text, at);
        }
    }
}

/// Blames routes of one group whose limits differ: whose would they share?
pub(super) fn groups_agree(routes: &[(String, RouteBlock)], reading: &mut Reading<'_>) {
    let limits: Vec<_> = routes.iter().map(|(at, block)| (at, block.limits.meant())).collect();
    for (n, (at, own)) in limits.iter().enumerate() {
        let mut earlier = limits.iter().take(n);
        let first = earlier.find(|(_, first)| first.group.is_some() && first.group == own.group);
        let Some((first_at, first)) = first else { continue };
        let same = |limits: &limit::Limits| {
            (limits.concurrency, limits.rate, limits.max_queue, limits.shared)
        };
        if same(own) != same(first) {
            let wish =
                "must have the concurrency, rate, max_queue and shared of the group's first route";
            let [key, other] = [reading.written_at(at, "limits.group"), join(first_at, "limits")];
            reading.clash(&key, &other, format!("{wish}, {first_at}"));
        }
    }
}

/// Blames limits that are to be shared where there is nothing to share them by.
pub(super) fn shared_by_something(routes: &[(String, RouteBlock)], reading: &mut Reading<'_>) {
    for (at, _) in routes.iter().filter(|(_, block)| block.limits.shared) {
        let key = reading.written_at(at, "limits.shared");
        reading.clash(&key, "state.shared", "needs state.shared, which replicas share it by");
    }
}

/// A route's name.
#[derive(Clone, Debug)]
pub(super) struct Name;

impl Parse for Name {
    fn parse(text: &str) -> Result<Self, String> {
        let good = is_name(text) && text != "none";
        good.then_some(Self).ok_or_else(|| WANTED_NAME.to_owned())
    }
}

impl Parse for HostPattern {
    fn parse(text: &str) -> Result<Self, String> {
        if !text.is_ascii() {
            return Err("must be in ASCII, as in xn--bcher-kva.example".to_owned());
        }
        let name = text.trim_end_matches('.');
        if name.starts_with('.')
            || name.contains("..")
            || text.contains(|c: char| c.is_ascii_control())
        {
            return Err(
                "must be a host name, such as api.example.com, *.example.net or *".to_owned()
            );
        }
        Self::parse(text).map_err(|wish| format!("must be {wish}"))
    }
}

impl Parse for PathPattern {
    fn parse(text: &str) -> Result<Self, String> {
        // Compared with what is on the wire, where nothing else occurs.
        if !text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            return Err("must be percent-encoded, as it is on the wire".to_owned());
        }
        Self::parse(text).map_err(|wish| format!("must be {wish}"))
    }
}

impl Parse for Method {
    fn parse(text: &str) -> Result<Self, String> {
        let method = Self::from_bytes(text.as_bytes()).ok();
        let method = method.filter(|method| *method != Self::CONNECT);
        // Methods differ by case (RFC 9110, section 9.1), and none in use has small letters.
        let method = method.filter(|_| !text.bytes().any(|byte| byte.is_ascii_lowercase()));
        method
            .ok_or_else(|| "must be a method in capitals, such as POST, and not CONNECT".to_owned())
    }
}

impl Words for Kind {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("effect", Self::Effect),
        ("read", Self::Read),
        ("poll", Self::Poll),
        ("fetch", Self::Fetch),
    ];
}

impl Words for Mode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("enforce", Self::Enforce), ("observe", Self::Observe)];
}

const WANTED_NAME: &str = "must be 1 to 64 of A-Za-z0-9_.- and not `none`";
