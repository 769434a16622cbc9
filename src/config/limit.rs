//! The `limits` block of a route: what is held back.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::config::leaf::{Count, HOUR, Parse, Parsed, SECOND, Span, is_name};
use crate::config::reading::{Leaf as _, block};
use crate::config::tree::Value;
use crate::limit::{Limits, Rate};

block! {
    /// What is held back, per route and credential.
    LimitsBlock {
        /// Exchanges in flight at one time.
        concurrency: Option<Count<1, 1_000_000>> = None,
        /// Attempts in any stretch of time, such as 120/1m.
        rate: Option<Parsed<Rate>> = None,
        /// How long an attempt may wait for its turn.
        max_wait: Span<0, { 24 * HOUR }> = Span::of(30 * SECOND),
        /// How many attempts may wait at one time.
        max_queue: Count<0, 1_000_000> = Count(1000),
        /// Routes that name one group share their limits and pauses.
        group: Option<Parsed<Group>> = None,
        /// Whether replicas share the rate and the pauses, by way of `state.shared`.
        shared: bool = false,
    }
}

/// A group's name.
#[derive(Clone, Debug)]
pub(super) struct Group;

impl Parse for Group {
    fn parse(text: &str) -> Result<Self, String> {
        is_name(text).then_some(Self).ok_or_else(|| "must be 1 to 64 of A-Za-z0-9_.-".to_owned())
    }
}

impl Parse for Rate {
    fn parse(text: &str) -> Result<Self, String> {
        read_rate(text).ok_or_else(|| {
            "must be a count and a duration of at most 24h, such as 120/1m".to_owned()
        })
    }
}

fn read_rate(text: &str) -> Option<Rate> {
    let (count, per) = text.split_once('/')?;
    let digits = count.bytes().all(|byte| byte.is_ascii_digit());
    let count: NonZeroU32 = digits.then(|| count.parse().ok())??;
    let per: Duration =
        Span::<1, { 24 * HOUR }>::leaf(&Value::Text(per.to_owned())).ok()?.duration();
    (count.get() <= RATE_MAX).then_some(Rate { count, per })
}

impl LimitsBlock {
    /// As meant.
    pub(super) fn meant(&self) -> Limits {
        Limits {
            concurrency: self.concurrency.map(Count::nonzero),
            rate: self.rate.as_ref().map(|rate| rate.meant),
            max_wait: self.max_wait.duration(),
            max_queue: self.max_queue.0,
            group: self.group.as_ref().map(|group| group.text.clone()),
            shared: self.shared,
        }
    }
}

/// A stretch is remembered attempt by attempt, so its length must be bounded.
const RATE_MAX: u32 = 1_000_000;
