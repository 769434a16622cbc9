//! The `idempotency` block of a route: which requests carry a key, where, how long.

use http::{HeaderName, StatusCode};
use schemars::{JsonSchema, SchemaGenerator, json_schema};
use serde::Serialize;

use crate::config::capture::CapturesKey;
use crate::config::leaf::{
    Count, DAY, HOUR, Parse, Parsed, SECOND, Span, Word, WordOr, Words, form, meant,
};
use crate::config::reading::{Leaf, Reading, Written, block};
use crate::config::tree::{Node, Value};
use crate::exchange::{Pointer, Statuses};
use crate::idempotency::{
    Carrier, CredentialField, Format, InProgress, Mismatch, Principal, Rules, Template,
};

block! {
    /// Which requests carry a key, where it travels, how long its answer is kept.
    IdempotencyBlock {
        /// Where the key travels: a header's name, {json: POINTER} or {query: NAME}.
        header: CarrierKey = CarrierKey::default(),
        /// Whether a request without a key is given one; null: effect requests are.
        inject: Option<bool> = None,
        /// The shape of keys that are made here.
        format: Word<Format> = Word(Format::Uuid),
        /// Whether the upstream promises that a repeated key has one effect; null: not known.
        upstream_dedupes: Option<bool> = None,
        /// How long it promises that.
        upstream_ttl: Span<1, { 3650 * DAY }> = Span::of(DAY),
        /// What makes two requests the same business event, such as order-{json:/order/id}.
        identity: Option<Parsed<Template>> = None,
        /// How long after an undelivered answer an equal request may take it over; 0 is off.
        adopt_orphans: Span<0, DAY> = Span::of(0),
        /// Whether an effect request without an identity is refused.
        require: bool = false,
        /// Further fields that tell callers apart: header names, query:NAME.
        credentials: Vec<Parsed<CredentialField>> = Vec::new(),
        /// How long a repeat waits for the exchange that holds the claim.
        join_wait: Span<0, DAY> = Span::of(30 * SECOND),
        /// How long an answer is kept.
        ttl: Span<1, { 3650 * DAY }> = Span::of(24 * HOUR),
        /// How long derived keys and captured ids outlive the answer.
        keep_key: Span<0, { 3650 * DAY }> = Span::of(90 * DAY),
        /// What tells callers apart.
        principal: Word<Principal> = Word(Principal::Credentials),
        /// Statuses worth keeping: 2xx, 3xx, or single ones of them.
        record: Vec<Kept> = vec![Kept::Class(2)],
        /// What a repeat does while the first is in flight.
        in_progress: Word<InProgress> = Word(InProgress::Join),
        /// What a key with another fingerprint is answered, or `forward`: the upstream decides.
        mismatch: WordOr<Forward, Count<400, 499>> = WordOr::Other(Count(422)),
        /// JSON pointers left out of the fingerprint.
        ignore: Vec<Parsed<Member>> = Vec::new(),
        /// Ids for the ledger, a name each: `/POINTER` or `header:NAME` of the answer, or
        /// `request:/POINTER`, `request:field:NAME` or `request:header:NAME`.
        capture: CapturesKey = CapturesKey::default(),
    }
}

impl IdempotencyBlock {
    /// Reads the block once; [`Rules`] need no second look.
    pub(super) fn meant(&self, route: &str, reading: &mut Reading<'_>) -> Rules {
        if self.adopt_orphans.duration() > self.ttl.duration() {
            let [adopt, ttl] = ["idempotency.adopt_orphans", "idempotency.ttl"]
                .map(|key| reading.written_at(route, key));
            let wish = "must not be longer than `ttl`: the answer would be gone";
            reading.clash(&adopt, &ttl, wish);
        }
        Rules {
            carrier: self.header.0.clone(),
            inject: self.inject,
            format: self.format.0,
            upstream_dedupes: self.upstream_dedupes,
            upstream_ttl: self.upstream_ttl.duration(),
            identity: self.identity.as_ref().map(|template| template.meant.clone()),
            adopt_orphans: self.adopt_orphans.duration(),
            require: self.require,
            credentials: meant(&self.credentials),
            principal: self.principal.0,
            join_wait: self.join_wait.duration(),
            ttl: self.ttl.duration(),
            keep_key: self.keep_key.duration(),
            record: self.record.iter().fold(Statuses::NONE, |set, kept| kept.onto(set)),
            in_progress: self.in_progress.0,
            mismatch: match self.mismatch {
                WordOr::Word(_) => Mismatch::Forward,
                WordOr::Other(status) => Mismatch::Answer(status_of(status)),
            },
            ignore: self.ignore.iter().map(|member| member.meant.0.clone()).collect(),
            capture: self.capture.meant(route, &meant(&self.credentials), reading),
            pass_malformed_keys: false,
        }
    }
}

fn status_of(Count(status): Count<400, 499>) -> StatusCode {
    let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    status.unwrap_or(StatusCode::UNPROCESSABLE_ENTITY)
}

/// `header` as written, and what it means.
#[derive(Clone, Debug)]
pub(super) struct CarrierKey(Carrier);

block! {
    /// A key that does not travel in a header: exactly one of these.
    WithinBlock {
        /// In a member of a JSON body: a JSON pointer.
        json: Option<Parsed<Member>> = None,
        /// In a query parameter, by name.
        query: Option<Parsed<Parameter>> = None,
    }
}

impl Default for CarrierKey {
    fn default() -> Self {
        Self(Carrier::Header(HeaderName::from_static("idempotency-key")))
    }
}

impl Written for CarrierKey {
    fn fresh(node: &Node, at: &str, reading: &mut Reading<'_>) -> Option<Self> {
        if !matches!(node.value, Value::Map(_)) {
            let name = Parsed::<CarrierName>::fresh(node, at, reading)?;
            return Some(Self(Carrier::Header(name.meant.0)));
        }
        let within = WithinBlock::fresh(node, at, reading)?;
        match (within.json, within.query) {
            (Some(json), None) => Some(Self(Carrier::Json(json.meant.0))),
            (None, Some(query)) => Some(Self(Carrier::Query(query.text))),
            _ => {
                let wish = "must be a header's name, {json: POINTER} or {query: NAME}";
                reading.miss(at, wish);
                None
            }
        }
    }
}

impl Serialize for CarrierKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Carrier::Header(name) => name.as_str().serialize(serializer),
            Carrier::Json(pointer) => serializer.collect_map([("json", pointer.to_string())]),
            Carrier::Query(name) => serializer.collect_map([("query", name)]),
        }
    }
}

impl JsonSchema for CarrierKey {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Carrier".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> schemars::Schema {
        let within = generator.subschema_for::<WithinBlock>();
        json_schema!({ "anyOf": [{ "type": "string" }, within] })
    }
}

/// A header field that may carry a key: none that means something else.
#[derive(Clone, Debug)]
pub(super) struct CarrierName(HeaderName);

impl Parse for CarrierName {
    fn parse(text: &str) -> Result<Self, String> {
        let name = header_name(text)?;
        let taken = name.as_str().starts_with("samekey-") || TAKEN.contains(&name.as_str());
        if taken {
            Err("must be a header that means nothing else".to_owned())
        } else {
            Ok(Self(name))
        }
    }
}

pub(super) fn header_name(text: &str) -> Result<HeaderName, String> {
    text.parse().map_err(|_invalid| "must be a header's name".to_owned())
}

/// A place below the root of a JSON text.
#[derive(Clone, Debug)]
pub(super) struct Member(pub(super) Pointer);

impl Parse for Member {
    fn parse(text: &str) -> Result<Self, String> {
        match Pointer::parse(text) {
            Ok(pointer) if !pointer.tokens().is_empty() => Ok(Self(pointer)),
            Ok(_) => Err("must be a JSON pointer below the root, such as /order/id".to_owned()),
            Err(wish) => Err(format!("must be {wish}")),
        }
    }
}

impl Parse for Pointer {
    fn parse(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|wish| format!("must be {wish}"))
    }
}

/// A query parameter's name, as it stands in a URL.
#[derive(Clone, Debug)]
pub(super) struct Parameter;

impl Parse for Parameter {
    fn parse(text: &str) -> Result<Self, String> {
        let plain = !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"&=#?+%;".contains(&byte));
        plain.then_some(Self).ok_or_else(|| "must be a query parameter's name".to_owned())
    }
}

impl Parse for CredentialField {
    fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix("query:") {
            Some(name) => {
                <Parameter as Parse>::parse(name).map(|_plain| Self::Query(name.to_owned()))
            }
            None => {
                header_name(text).map(Self::Header).map_err(|wish| format!("{wish} or query:NAME"))
            }
        }
    }
}

impl Parse for Template {
    fn parse(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|wish| format!("must be a template: {wish}"))
    }
}

/// One item of `record`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Class(u16),
    Status(u16),
}

impl Kept {
    fn onto(self, set: Statuses) -> Statuses {
        match self {
            Self::Class(class) => set.with_class(class),
            Self::Status(status) => set.with(status),
        }
    }

    fn shown(self) -> serde_json::Value {
        match self {
            Self::Class(class) => format!("{class}xx").into(),
            Self::Status(status) => status.into(),
        }
    }
}

impl Leaf for Kept {
    fn leaf(value: &Value) -> Result<Self, String> {
        match value {
            Value::Text(text) if text == "2xx" => Ok(Self::Class(2)),
            Value::Text(text) if text == "3xx" => Ok(Self::Class(3)),
            Value::Whole(number) if (200..400).contains(number) => {
                u16::try_from(*number).map(Self::Status).map_err(|error| error.to_string())
            }
            _ => Err("must be 2xx, 3xx or a status from 200 to 399".to_owned()),
        }
    }
}

/// The word `forward`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forward;

impl Words for Forward {
    const WORDS: &'static [(&'static str, Self)] = &[("forward", Self)];
}

impl Words for Format {
    const WORDS: &'static [(&'static str, Self)] =
        &[("uuid", Self::Uuid), ("hex32", Self::Hex32), ("token", Self::Token)];
}

impl Words for Principal {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("credentials", Self::Credentials),
        ("sigv4", Self::SigV4),
        ("jwt", Self::Jwt),
        ("static", Self::Static),
    ];
}

impl Words for InProgress {
    const WORDS: &'static [(&'static str, Self)] =
        &[("join", Self::Join), ("reject", Self::Reject)];
}

form!([] Kept, self => self.shown(), json_schema!({
    "anyOf": [{ "enum": ["2xx", "3xx"] }, { "type": "integer", "minimum": 200, "maximum": 399 }]
}));

/// Fields with a meaning of their own, which a key would destroy.
const TAKEN: &[&str] = &[
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
];
