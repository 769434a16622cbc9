//! The blocks `breaker`, `preflight` and `estimate` of a route: what money it may spend.

use std::sync::Arc;

use http::uri::PathAndQuery;
use schemars::json_schema;

use crate::config::leaf::{DAY, MINUTE, Parse, Parsed, SECOND, Span, Word, Words, form};
use crate::config::reading::{Leaf, Reading, block, join, nth};
use crate::config::retry::{ConditionBlock, ErrorStatus, condition};
use crate::config::route::RouteBlock;
use crate::config::tree::Value;
use crate::credit::{Amount, BreakerRule, Estimate, OnFailure, Place, Preflight, Rules, Target};
use crate::exchange::{Condition, Pointer, Statuses};
use crate::route::PathPattern;

block! {
    /// When a credential is out of credit, and is held back.
    BreakerBlock {
        /// What an error answer's JSON says, of which one is enough.
        when: Vec<ConditionBlock> = no_credit(),
        /// Statuses that say it alone.
        statuses: Vec<ErrorStatus> = vec![ErrorStatus(402)],
        /// How long its effects are refused; then one goes first.
        reset_after: Span<1, DAY> = Span::of(5 * MINUTE),
    }
}

block! {
    /// How the balance of a credential is asked for before anything is spent.
    PreflightBlock {
        /// `GET` and a path on the same upstream.
        request: Option<Parsed<Question>> = None,
        /// Where in the answer the balance stands: a JSON pointer.
        json: Option<Parsed<Pointer>> = None,
        /// What must be left; with less the breaker opens.
        at_least: Option<Decimal> = None,
        /// How long a reading is used.
        every: Span<1, DAY> = Span::of(60 * SECOND),
    }
}

block! {
    /// How the cost of an effect is asked for before it is sent.
    EstimateBlock {
        /// Where it is asked for, by POST with the same body; each `{name}` stands for the
        /// next `*` of the pattern in `match.paths`.
        path: Option<Parsed<Target>> = None,
        /// Where in the answer the cost stands: a JSON pointer.
        json: Option<Parsed<Pointer>> = None,
        /// What an effect may cost.
        at_most: Option<Decimal> = None,
        /// What becomes of an effect whose cost nobody says.
        on_failure: Word<OnFailure> = Word(OnFailure::Refuse),
    }
}

impl RouteBlock {
    /// Reads the three blocks once; [`Rules`] need no second look.
    pub(super) fn credit(&self, route: &str, reading: &mut Reading<'_>) -> Rules {
        let breaker = self.breaker.as_ref().map(|block| block.meant(route, reading));
        Rules {
            // A balance alone needs something to open as well.
            breaker: breaker.or_else(|| self.preflight.as_ref().map(|_asked| by_balance())),
            preflight: self.preflight.as_ref().and_then(|block| block.meant(route, reading)),
            estimate: self
                .estimate
                .as_ref()
                .and_then(|block| block.meant((route, &self.r#match.paths), reading)),
        }
    }
}

impl BreakerBlock {
    fn meant(&self, route: &str, reading: &mut Reading<'_>) -> BreakerRule {
        let at = reading.written_at(route, "breaker");
        if self.when.is_empty() && self.statuses.is_empty() {
            reading.miss(&at, "must have `when` or `statuses`: what says that there is no credit");
        }
        BreakerRule {
            when: self.when(&join(&at, "when"), reading),
            statuses: self.statuses.iter().fold(Statuses::NONE, |set, item| set.with(item.0)),
            reset_after: self.reset_after.duration(),
        }
    }

    fn when(&self, list: &str, reading: &mut Reading<'_>) -> Vec<Condition> {
        let items = self.when.iter().enumerate();
        let meant = items.filter_map(|(n, item)| {
            condition(item.json.as_ref(), &item.r#in, &nth(list, n), reading)
        });
        meant.collect()
    }
}

impl PreflightBlock {
    fn meant(&self, route: &str, reading: &mut Reading<'_>) -> Option<Preflight> {
        let at = reading.written_at(route, "preflight");
        given(self.request.as_ref(), &join(&at, "request"), WANTED_QUESTION, reading);
        given(self.json.as_ref(), &join(&at, "json"), WANTED_POINTER, reading);
        given(self.at_least.as_ref(), &join(&at, "at_least"), WANTED_DECIMAL, reading);
        let (path, json) = (self.request.clone()?.meant.0, self.json.clone()?.meant);
        Some(Preflight {
            place: Arc::new(Place { path, json }),
            at_least: self.at_least.clone()?.0,
            every: self.every.duration(),
        })
    }
}

impl EstimateBlock {
    fn meant(
        &self,
        (route, paths): (&str, &[Parsed<PathPattern>]),
        reading: &mut Reading<'_>,
    ) -> Option<Estimate> {
        let at = reading.written_at(route, "estimate");
        let path_at = join(&at, "path");
        given(self.path.as_ref(), &path_at, "must be given: a path such as /v1/estimate", reading);
        given(self.json.as_ref(), &join(&at, "json"), WANTED_POINTER, reading);
        given(self.at_most.as_ref(), &join(&at, "at_most"), WANTED_DECIMAL, reading);
        let target = self.path.clone()?.meant;
        // A route without patterns leaves nothing open at all.
        let open = paths.iter().map(|pattern| pattern.meant.open()).min().unwrap_or(0);
        if open < target.takes() {
            let wish = "needs a `*` in each pattern of match.paths for each of its {names}";
            reading.clash(&path_at, &join(route, "match.paths"), wish);
        }
        Some(Estimate {
            target,
            json: self.json.clone()?.meant,
            at_most: self.at_most.clone()?.0,
            on_failure: self.on_failure.0,
        })
    }
}

/// The code that most providers give it.
fn no_credit() -> Vec<ConditionBlock> {
    ConditionBlock::is("/error/code", "insufficient_credits").into_iter().collect()
}

/// A breaker that no answer opens, only a balance.
fn by_balance() -> BreakerRule {
    let reset_after = BreakerBlock::default().reset_after.duration();
    BreakerRule { when: Vec::new(), statuses: Statuses::NONE, reset_after }
}

fn given<T>(key: Option<&T>, at: &str, wish: &str, reading: &mut Reading<'_>) {
    if key.is_none() {
        reading.miss(at, wish);
    }
}

/// `GET /account`: what is asked for a balance.
#[derive(Clone, Debug)]
pub(super) struct Question(PathAndQuery);

impl Parse for Question {
    fn parse(text: &str) -> Result<Self, String> {
        let path = text.strip_prefix("GET ").filter(|path| path.starts_with('/'));
        // A fragment would be cut off without a word.
        let path = path.filter(|path| !path.contains('#')).and_then(|path| path.parse().ok());
        path.map(Self).ok_or_else(|| "must be GET and a path, such as GET /account".to_owned())
    }
}

impl Parse for Target {
    fn parse(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|wish| format!("must be {wish}"))
    }
}

/// A sum of money, exact.
#[derive(Clone, Debug)]
pub(super) struct Decimal(Amount);

impl Leaf for Decimal {
    fn leaf(value: &Value) -> Result<Self, String> {
        let text = match value {
            Value::Whole(number) => number.to_string(),
            // The shortest text that means it, which is what was written.
            Value::Decimal(number) => number.to_string(),
            Value::Text(text) => text.clone(),
            Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => String::new(),
        };
        let amount = Amount::parse(&text).filter(|amount| !amount.is_negative());
        amount.map(Self).ok_or_else(|| "must be a number from 0 on, such as 50 or 0.25".to_owned())
    }
}

impl Words for OnFailure {
    const WORDS: &'static [(&'static str, Self)] =
        &[("refuse", Self::Refuse), ("forward", Self::Forward)];
}

form!([] Decimal, self => self.0.to_string(), json_schema!({ "type": ["number", "string"] }));

const WANTED_POINTER: &str = "must be given: a JSON pointer such as /credits";
const WANTED_DECIMAL: &str = "must be given: a number such as 50";
const WANTED_QUESTION: &str = "must be given: GET and a path, such as GET /account";
