//! What a game came to.

use std::collections::BTreeMap;
use std::fmt;

/// The sums of one lane, or of several.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Deaths, by what killed.
    pub(crate) kills: BTreeMap<&'static str, u64>,
    /// Places that were armed and not passed in their round.
    pub(crate) missed: BTreeMap<&'static str, u64>,
    /// Business events.
    pub(crate) orders: usize,
    /// What the book says of them.
    pub(crate) effects: usize,
    /// Orders that ended as `outcome-unknown`.
    pub(crate) unknowns: usize,
    /// Orders that ended as `response-not-retained`.
    pub(crate) landed: usize,
    /// Repeats that were answered from a record.
    pub(crate) replays: usize,
    /// Unknown outcomes that were settled.
    pub(crate) resolved: usize,
    /// What must not be.
    pub(crate) violations: Vec<String>,
}

impl Tally {
    pub(crate) fn killed(&mut self, word: &'static str) {
        *self.kills.entry(word).or_default() += 1;
    }

    pub(crate) fn missed(&mut self, word: &'static str) {
        *self.missed.entry(word).or_default() += 1;
    }

    /// Deaths amid orders.
    pub(crate) fn survived(&self) -> u64 {
        self.kills.iter().filter(|(word, _)| **word != AT_REST).map(|(_, count)| count).sum()
    }

    /// With another lane's sums.
    pub(crate) fn and(mut self, other: Self) -> Self {
        for (word, count) in other.kills {
            *self.kills.entry(word).or_default() += count;
        }
        for (word, count) in other.missed {
            *self.missed.entry(word).or_default() += count;
        }
        self.orders += other.orders;
        self.effects += other.effects;
        self.unknowns += other.unknowns;
        self.landed += other.landed;
        self.replays += other.replays;
        self.resolved += other.resolved;
        self.violations.extend(other.violations);
        self
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { orders, effects, unknowns, landed, replays, resolved, .. } = self;
        let listed = |words: &BTreeMap<&'static str, u64>| {
            words
                .iter()
                .map(|(word, count)| format!("{word} {count}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        writeln!(f, "crash: kills by place: {}", listed(&self.kills))?;
        if !self.missed.is_empty() {
            writeln!(f, "crash: armed and not met: {}", listed(&self.missed))?;
        }
        write!(
            f,
            "crash: {} kills survived and {} at rest, {orders} orders, {effects} effects, {unknowns} unknowns, \
             {landed} landed without their answer, {replays} replays, {resolved} resolved, \
             {} violations",
            self.survived(),
            self.kills.get(AT_REST).unwrap_or(&0),
            self.violations.len(),
        )
    }
}

/// The death of a sidecar that has nothing to do.
pub(crate) const AT_REST: &str = "at-rest";
