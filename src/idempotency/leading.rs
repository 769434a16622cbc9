//! What those that join an exchange in flight want to know of it: the trace that their spans link
//! to, and whether they are that exchange itself, come round.

use std::sync::Arc;

use dashmap::DashMap;

use crate::exchange::Traced;
use crate::exchange::id::ExchangeId;
use crate::exchange::traceparent::TraceContext;

/// The exchanges of this process that hold a claim, as far as there is more to say of them than
/// of most; a clone shares them.
#[derive(Clone, Debug, Default)]
pub struct Leading(Arc<DashMap<ExchangeId, Led>>);

#[derive(Clone, Copy, Debug)]
struct Led {
    context: Option<TraceContext>,
    times_seen: usize,
}

/// One of them; dropped, it is over.
#[derive(Debug)]
pub(super) struct Leads {
    leading: Leading,
    exchange: ExchangeId,
}

impl Leading {
    /// Notes one as it begins, where it is traced or has passed a samekey before this one;
    /// `times_seen` says how many it has passed, this one included.
    pub(super) fn begin(
        &self,
        exchange: ExchangeId,
        traced: Option<&Traced>,
        times_seen: usize,
    ) -> Option<Leads> {
        let context = traced.map(Traced::context);
        if context.is_none() && times_seen <= ONCE {
            return None;
        }
        self.0.insert(exchange, Led { context, times_seen });
        Some(Leads { leading: self.clone(), exchange })
    }

    /// The span of one of them.
    pub(super) fn of(&self, exchange: ExchangeId) -> Option<TraceContext> {
        self.0.get(&exchange)?.context
    }

    /// Whether a request that has passed so many is one of them, come back: it asks the same
    /// under the same key, and has passed more. A client that repeats itself has passed as many.
    pub(super) fn came_back(&self, exchange: ExchangeId, times_seen: usize) -> bool {
        times_seen > self.0.get(&exchange).map_or(ONCE, |led| led.times_seen)
    }
}

impl Drop for Leads {
    fn drop(&mut self) {
        self.leading.0.remove(&self.exchange);
    }
}

/// Past this samekey alone.
const ONCE: usize = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Chance;
    use crate::exchange::traced::{Carry, Terms};

    #[test]
    fn an_exchange_is_known_while_it_leads() {
        let leading = Leading::default();
        let exchange = ExchangeId::from_parts(1, 1);
        assert!(leading.begin(exchange, None, 1).is_none() && leading.of(exchange).is_none());
        let text = b"00-12345678901234567890123456789012-1234567890123456-01";
        let context = TraceContext::parse(text).expect("valid");
        let terms = Terms { carry: Carry::AsItCame, chance: Chance::new([1; 32]), spans: None };
        let leads = leading.begin(exchange, Some(&Traced::new(context, terms)), 1);
        assert_eq!(leading.of(exchange), Some(context));
        drop(leads);
        assert_eq!(leading.of(exchange), None);
    }

    #[test]
    fn who_has_passed_more_often_came_back() {
        let leading = Leading::default();
        let exchange = ExchangeId::from_parts(1, 1);
        for (leader, joiner, wanted) in
            [(1, 1, false), (1, 2, true), (2, 1, false), (2, 2, false), (2, 3, true)]
        {
            let leads = leading.begin(exchange, None, leader);
            assert_eq!(leads.is_some(), leader > 1);
            assert_eq!(leading.came_back(exchange, joiner), wanted, "{leader} {joiner}");
            assert_eq!(leading.of(exchange), None);
        }
    }
}
