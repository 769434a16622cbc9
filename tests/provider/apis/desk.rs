//! The shared part: an account with its credits, its windows, and what was done.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::Serialize;

use super::courier::Delivery;
use super::{Call, Terms};

/// One provider's account and its books.
pub(super) struct Desk {
    terms: Terms,
    left: u64,
    broke: u64,
    limited: u64,
    effects: Vec<Effect>,
    windows: HashMap<String, Window>,
    outbox: Vec<Delivery>,
    deliveries: Vec<u16>,
}

/// One thing done that cannot be undone.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Effect {
    /// What it made.
    pub(crate) id: String,
    /// The key it was asked for under, if any.
    pub(crate) key: Option<String>,
    /// The business event that it was asked for, as far as the request names one.
    pub(crate) event: String,
    /// What it cost.
    pub(crate) cost: u64,
}

/// What a test asserts on: money.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Books {
    pub(crate) effects: usize,
    /// Credits spent.
    pub(crate) spent: u64,
    /// Credits left.
    pub(crate) left: u64,
    /// Requests refused for want of credits.
    pub(crate) broke: u64,
    /// Requests refused because they were too many.
    pub(crate) limited: u64,
    /// Effects by the event that they were asked for.
    pub(crate) events: BTreeMap<String, usize>,
    /// What receivers of webhooks answered, try by try; 0 for nothing.
    pub(crate) deliveries: Vec<u16>,
}

/// Where a request stands in its window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// Whether it is one too many.
    pub(super) over: bool,
    /// Requests left in the window.
    pub(super) remaining: u32,
    /// Whole seconds to its end.
    pub(super) reset: u64,
}

#[derive(Clone, Copy, Default)]
struct Window {
    began: Duration,
    used: u32,
}

impl Desk {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            left: terms.credits,
            terms,
            broke: 0,
            limited: 0,
            effects: Vec::new(),
            windows: HashMap::new(),
            outbox: Vec::new(),
            deliveries: Vec::new(),
        }
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    pub(super) fn set(&mut self, terms: Terms) {
        self.left = terms.credits;
        self.terms = terms;
    }

    /// Counts a request in its credential's window, and those beside it.
    pub(super) fn admit(&mut self, call: &Call<'_>) -> Standing {
        let (now, limit) = (call.around.now, self.terms.per_minute);
        let who = call.credential().unwrap_or_default().to_owned();
        let window = self.windows.entry(who).or_default();
        if now.saturating_sub(window.began) >= MINUTE {
            *window = Window { began: now, used: 0 };
        }
        let crowded = call.around.at_once > self.terms.at_once;
        let over = window.used >= limit || crowded;
        // What is turned away does not count against who comes later.
        window.used += u32::from(!over);
        self.limited += u64::from(over);
        let left = (window.began + MINUTE).saturating_sub(now);
        let reset = if crowded { 1 } else { left.as_millis().div_ceil(1000) };
        Standing {
            over,
            remaining: limit - window.used.min(limit),
            reset: u64::try_from(reset).unwrap_or(u64::MAX),
        }
    }

    /// Does it and charges for it; nothing is done where the credits do not reach.
    pub(super) fn charge(&mut self, effect: Effect) -> bool {
        let Some(left) = self.left.checked_sub(effect.cost) else {
            self.broke += 1;
            return false;
        };
        self.left = left;
        self.effects.push(effect);
        true
    }

    pub(super) fn left(&self) -> u64 {
        self.left
    }

    pub(super) fn effects(&self) -> &[Effect] {
        &self.effects
    }

    /// Sends a webhook, once its job is done.
    pub(super) fn post(&mut self, delivery: Delivery) {
        self.outbox.push(delivery);
    }

    pub(super) fn due(&mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.outbox)
    }

    pub(super) fn delivered(&mut self, status: u16) {
        self.deliveries.push(status);
    }

    pub(super) fn books(&self) -> Books {
        let mut events = BTreeMap::new();
        for effect in &self.effects {
            *events.entry(effect.event.clone()).or_default() += 1;
        }
        Books {
            effects: self.effects.len(),
            spent: self.effects.iter().map(|effect| effect.cost).sum(),
            left: self.left,
            broke: self.broke,
            limited: self.limited,
            events,
            deliveries: self.deliveries.clone(),
        }
    }
}

const MINUTE: Duration = Duration::from_mins(1);
