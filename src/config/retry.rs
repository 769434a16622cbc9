//! The `retry` block of a route: how often, on what, how long, at what price.

use schemars::json_schema;

use crate::config::leaf::{
    Count, DAY, HOUR, MINUTE, Parsed, SECOND, Span, Word, WordOr, Words, form,
};
use crate::config::reading::{Leaf, Reading, block, join, nth};
use crate::config::tree::Value;
use crate::exchange::trail::Says;
use crate::exchange::{Condition, Pointer, Scalar, Statuses};
use crate::retry::backoff::{Backoff, Growth, Jitter};
use crate::retry::budget::Terms;
use crate::retry::policy::{Attempts, Deadline, FailedWhen, Policy, Triggers};

block! {
    /// When a request is sent again.
    RetryBlock {
        /// Attempts in all, the first included; `unlimited` needs a deadline. Where it is not
        /// written: `unlimited` on a route of kind `poll`, 3 on one of kind `fetch`, where a
        /// resume that brought bytes begins the count anew.
        attempts: WordOr<Unlimited, Count<1, 1000>> = WordOr::Other(Count(4)),
        /// What makes an attempt worth another: statuses, `5xx`, `connect`, `reset`, `timeout`.
        on: Vec<Trigger> = vec![
            Trigger::Status(429),
            Trigger::ServerErrors,
            Trigger::Connect,
            Trigger::Reset,
            Trigger::Timeout,
        ],
        /// Answers that look transient and are not.
        never_when: Vec<ConditionBlock> = Vec::new(),
        /// Answers that say that the first request under this key is still under way: it is
        /// waited for, and asked for again under the same key.
        in_progress_when: Vec<ConditionBlock> = Vec::new(),
        /// Good statuses whose body says that the request failed.
        failed_when: Vec<FailedWhenBlock> = Vec::new(),
        /// Statuses that prove that nothing was done.
        refused_by: Vec<ErrorStatus> = vec![ErrorStatus(429)],
        /// How long to wait where the upstream does not say.
        backoff: BackoffBlock = BackoffBlock::default(),
        /// The longest hint that is obeyed; a longer one ends the exchange.
        retry_after_max: Span<0, DAY> = Span::of(2 * MINUTE),
        /// How long one attempt may take to its response headers.
        attempt_timeout: Option<Span<1, DAY>> = None,
        /// No further attempt starts after it. Written in the route or in `defaults`, it
        /// also cuts a running attempt.
        deadline: Span<1, { 30 * DAY }> = Span::of(5 * MINUTE),
        /// The longest silence between two pieces of a response body.
        body_idle_timeout: Option<Span<1, DAY>> = None,
        /// What the route may add to its traffic by retrying.
        budget: BudgetBlock = BudgetBlock::default(),
        /// Repeat a non-idempotent request after an ambiguous outcome: accepts duplicates.
        r#unsafe: bool = false,
    }
}

block! {
    /// How long to wait where the upstream does not say.
    BackoffBlock {
        /// How the wait grows; `linear` on a route of kind `fetch` where it is not written.
        kind: Word<Growth> = Word(Growth::Exponential),
        /// The first wait; 500ms on a route of kind `fetch` where it is not written.
        initial: Span<1, HOUR> = Span::of(200),
        /// The longest wait; 5s on a route of kind `fetch` where it is not written.
        max: Span<1, DAY> = Span::of(20 * SECOND),
        /// How much of a wait is random.
        jitter: Word<Jitter> = Word(Jitter::Full),
    }
}

block! {
    /// What the route may add to its traffic by retrying.
    BudgetBlock {
        /// Retries earned by each first attempt that succeeds: 0.2 is one in five.
        ratio: Ratio = Ratio(200),
        /// Retries earned by each second.
        min_per_second: Count<0, 100_000> = Count(1),
        /// Retries saved up at most; a retry after an ambiguous outcome costs 2. With 0
        /// nothing is saved, and only retries that cost nothing are made.
        burst: Count<0, 1_000_000> = Count(100),
    }
}

block! {
    /// What the body of an answer says.
    ConditionBlock {
        /// Where to look: a JSON pointer.
        json: Option<Parsed<Pointer>> = None,
        /// The values looked for, of which one must stand there.
        r#in: Vec<Sought> = Vec::new(),
    }
}

block! {
    /// A good status whose body says that the request failed.
    FailedWhenBlock {
        /// Where to look: a JSON pointer.
        json: Option<Parsed<Pointer>> = None,
        /// The values looked for, of which one must stand there.
        r#in: Vec<Sought> = Vec::new(),
        /// What that means for the key: nothing was done, or nobody knows.
        means: Word<Says> = Word(Says::Unknown),
    }
}

impl RetryBlock {
    /// Reads the block once; a [`Policy`] needs no second look.
    pub(super) fn meant(&self, route: &str, reading: &mut Reading<'_>) -> Policy {
        let deadline_at = reading.written_at(route, "retry.deadline");
        let own_deadline = reading.wrote(&deadline_at);
        let attempts = match self.attempts {
            WordOr::Other(count) => Attempts::AtMost(count.nonzero()),
            WordOr::Word(_) => Attempts::Unlimited,
        };
        let at = reading.written_at(route, "retry.attempts");
        // A kind that is unlimited of itself makes do with the deadline that is built in.
        if attempts == Attempts::Unlimited && !own_deadline && reading.wrote(&at) {
            let wish = "`unlimited` needs a `deadline`, written in the route or in `defaults`";
            reading.clash(&at, &deadline_at, wish);
        }
        Policy {
            attempts,
            on: triggers(&self.on),
            never_when: conditions(&self.never_when, route, "retry.never_when", reading),
            in_progress_when: conditions(
                &self.in_progress_when,
                route,
                "retry.in_progress_when",
                reading,
            ),
            failed_when: self.failed_when(route, reading),
            refused_by: self.refused_by.iter().fold(Statuses::NONE, |set, item| set.with(item.0)),
            backoff: self.backoff.meant(route, reading),
            retry_after_max: self.retry_after_max.duration(),
            attempt_timeout: self.attempt_timeout.map(Span::duration),
            deadline: Deadline { after: self.deadline.duration(), cuts_attempts: own_deadline },
            body_idle_timeout: self.body_idle_timeout.map(Span::duration),
            budget: self.budget.meant(),
            repeat_unsafe: self.r#unsafe,
        }
    }

    fn failed_when(&self, route: &str, reading: &mut Reading<'_>) -> Vec<FailedWhen> {
        let list = reading.written_at(route, "retry.failed_when");
        let items = self.failed_when.iter().enumerate();
        items
            .filter_map(|(n, item)| {
                let condition = condition(item.json.as_ref(), &item.r#in, &nth(&list, n), reading)?;
                Some(FailedWhen { condition, means: item.means.0 })
            })
            .collect()
    }
}

fn conditions(
    written: &[ConditionBlock],
    route: &str,
    key: &str,
    reading: &mut Reading<'_>,
) -> Vec<Condition> {
    let list = reading.written_at(route, key);
    let items = written.iter().enumerate();
    items
        .filter_map(|(n, item)| condition(item.json.as_ref(), &item.r#in, &nth(&list, n), reading))
        .collect()
}

/// What stands at a pointer, as several blocks ask for it.
pub(super) fn condition(
    json: Option<&Parsed<Pointer>>,
    values: &[Sought],
    at: &str,
    reading: &mut Reading<'_>,
) -> Option<Condition> {
    let [json_at, in_at] = [join(at, "json"), join(at, "in")];
    if json.is_none() {
        reading.miss(&json_at, "must be given: a JSON pointer such as /error/code");
    }
    if values.is_empty() {
        reading.miss(&in_at, "must hold at least one value");
    }
    let pointer = json?.meant.clone();
    (!values.is_empty()).then(|| Condition {
        pointer,
        values: values.iter().map(|value| value.0.clone()).collect(),
    })
}

impl BackoffBlock {
    fn meant(&self, route: &str, reading: &mut Reading<'_>) -> Backoff {
        let [initial, max] = [self.initial.duration(), self.max.duration()];
        if initial > max {
            let [small, large] = ["retry.backoff.initial", "retry.backoff.max"]
                .map(|key| reading.written_at(route, key));
            // The one that the operator wrote is the one to blame.
            let (at, other) =
                if reading.wrote(&small) { (&small, &large) } else { (&large, &small) };
            reading.clash(
                at,
                other,
                format!("`initial` ({initial:?}) must not be above `max` ({max:?})"),
            );
        }
        Backoff { growth: self.kind.0, initial, max, jitter: self.jitter.0 }
    }
}

impl BudgetBlock {
    /// As meant.
    fn meant(&self) -> Terms {
        Terms { ratio_milli: self.ratio.0, per_second: self.min_per_second.0, burst: self.burst.0 }
    }
}

/// One item of `on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trigger {
    Status(u16),
    ServerErrors,
    Connect,
    Reset,
    Timeout,
}

impl Trigger {
    const WORDS: [(&'static str, Self); 4] = [
        ("5xx", Self::ServerErrors),
        ("connect", Self::Connect),
        ("reset", Self::Reset),
        ("timeout", Self::Timeout),
    ];

    fn shown(self) -> serde_json::Value {
        let word = Self::WORDS.iter().find(|(_, trigger)| *trigger == self);
        match (self, word) {
            (Self::Status(status), _) => status.into(),
            (_, word) => word.map(|(word, _)| *word).into(),
        }
    }
}

impl Leaf for Trigger {
    fn leaf(value: &Value) -> Result<Self, String> {
        if let Ok(ErrorStatus(status)) = ErrorStatus::leaf(value) {
            return Ok(Self::Status(status));
        }
        let word = match value {
            Value::Text(text) => Self::WORDS.iter().find(|(word, _)| word == text),
            _ => None,
        };
        word.map(|(_, trigger)| *trigger).ok_or_else(|| {
            "must be a status from 400 to 599, 5xx, connect, reset or timeout".to_owned()
        })
    }
}

fn triggers(on: &[Trigger]) -> Triggers {
    let mut statuses = Statuses::NONE;
    if on.contains(&Trigger::ServerErrors) {
        // No second try changes what a 501 or a 505 says.
        statuses = statuses.with_class(5).without(501).without(505);
    }
    // After the class, so that a 501 that is written is in.
    for trigger in on {
        if let Trigger::Status(status) = trigger {
            statuses = statuses.with(*status);
        }
    }
    Triggers {
        statuses,
        connect: on.contains(&Trigger::Connect),
        reset: on.contains(&Trigger::Reset),
        timeout: on.contains(&Trigger::Timeout),
    }
}

/// A status that says that a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ErrorStatus(pub(super) u16);

impl Leaf for ErrorStatus {
    fn leaf(value: &Value) -> Result<Self, String> {
        let status = match value {
            Value::Whole(number) => u16::try_from(*number).ok(),
            _ => None,
        };
        let status = status.filter(|status| (400..600).contains(status));
        status.map(Self).ok_or_else(|| "must be a status from 400 to 599".to_owned())
    }
}

/// From 0 to 1, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ratio(u32);

impl Leaf for Ratio {
    fn leaf(value: &Value) -> Result<Self, String> {
        let ratio = match *value {
            Value::Whole(0) => Some(0.0),
            Value::Whole(1) => Some(1.0),
            Value::Decimal(ratio) => Some(ratio),
            _ => None,
        };
        // Compared as whole thousandths, so that no float needs a cast.
        let milli = ratio
            .and_then(|ratio| (0..=1000).find(|n| (f64::from(*n) - ratio * 1000.0).abs() < 1e-6));
        milli.map(Self).ok_or_else(|| "must be from 0 to 1, in steps of 0.001".to_owned())
    }
}

/// One item of `in`.
#[derive(Clone, Debug)]
pub(super) struct Sought(Scalar);

impl Leaf for Sought {
    fn leaf(value: &Value) -> Result<Self, String> {
        let scalar = match value {
            Value::Null => Scalar::Null,
            Value::Bool(yes) => Scalar::Bool(*yes),
            Value::Whole(number) => Scalar::Number(number.to_string()),
            Value::Decimal(number) => Scalar::Number(number.to_string()),
            Value::Text(text) => Scalar::String(text.clone()),
            Value::List(_) | Value::Map(_) => {
                return Err("must be text, a number, true, false or null".to_owned());
            }
        };
        Ok(Self(scalar))
    }
}

impl ConditionBlock {
    /// That one text stands at one place; `None` where that is no pointer.
    pub(super) fn is(pointer: &str, value: &str) -> Option<Self> {
        let meant = Pointer::parse(pointer).ok()?;
        let json = Some(Parsed { text: pointer.to_owned(), meant });
        Some(Self { json, r#in: vec![Sought(Scalar::String(value.to_owned()))] })
    }
}

impl Sought {
    fn shown(&self) -> serde_json::Value {
        match &self.0 {
            Scalar::Null => serde_json::Value::Null,
            Scalar::Bool(yes) => (*yes).into(),
            Scalar::Number(text) | Scalar::String(text) => text.as_str().into(),
        }
    }
}

/// The word `unlimited`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unlimited;

impl Words for Unlimited {
    const WORDS: &'static [(&'static str, Self)] = &[("unlimited", Self)];
}

impl Words for Growth {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("exponential", Self::Exponential),
        ("linear", Self::Linear),
        ("constant", Self::Constant),
    ];
}

impl Words for Jitter {
    const WORDS: &'static [(&'static str, Self)] =
        &[("full", Self::Full), ("equal", Self::Equal), ("none", Self::None)];
}

impl Words for Says {
    const WORDS: &'static [(&'static str, Self)] =
        &[("refused", Self::Refused), ("unknown", Self::Unknown)];
}

form!([] Trigger, self => self.shown(), json_schema!({
    "anyOf": [
        { "enum": Self::WORDS.map(|word| word.0) },
        { "type": "integer", "minimum": 400, "maximum": 599 },
    ]
}));
form!([] ErrorStatus, self => self.0,
    json_schema!({ "type": "integer", "minimum": 400, "maximum": 599 }));
form!([] Ratio, self => f64::from(self.0) / 1000.0,
    json_schema!({ "type": "number", "minimum": 0, "maximum": 1 }));
form!([] Sought, self => self.shown(),
    json_schema!({ "type": ["string", "number", "boolean", "null"] }));
