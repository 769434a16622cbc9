//! Which trace an exchange in flight is part of: the spans of those that join it link there.

use std::sync::Arc;

use dashmap::DashMap;

use crate::exchange::Traced;
use crate::exchange::id::ExchangeId;
use crate::exchange::traceparent::TraceContext;

/// The exchanges of this process that hold a claim and are traced; a clone shares them.
#[derive(Clone, Debug, Default)]
pub struct Leading(Arc<DashMap<ExchangeId, TraceContext>>);

/// One of them; dropped, it is over.
#[derive(Debug)]
pub(super) struct Leads {
    leading: Leading,
    exchange: ExchangeId,
}

impl Leading {
    /// Notes one as it begins, where it is traced.
    pub(super) fn begin(&self, exchange: ExchangeId, traced: Option<&Traced>) -> Option<Leads> {
        self.0.insert(exchange, traced?.context());
        Some(Leads { leading: self.clone(), exchange })
    }

    /// The span of one of them.
    pub(super) fn of(&self, exchange: ExchangeId) -> Option<TraceContext> {
        self.0.get(&exchange).map(|context| *context.value())
    }
}

impl Drop for Leads {
    fn drop(&mut self) {
        self.leading.0.remove(&self.exchange);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Chance;
    use crate::exchange::traced::{Carry, Terms};

    #[test]
    fn an_exchange_is_known_while_it_leads() {
        let leading = Leading::default();
        let exchange = ExchangeId::from_parts(1, 1);
        assert!(leading.begin(exchange, None).is_none() && leading.of(exchange).is_none());
        let text = b"00-12345678901234567890123456789012-1234567890123456-01";
        let context = TraceContext::parse(text).expect("valid");
        let terms = Terms { carry: Carry::AsItCame, chance: Chance::new([1; 32]), spans: None };
        let leads = leading.begin(exchange, Some(&Traced::new(context, terms)));
        assert_eq!(leading.of(exchange), Some(context));
        drop(leads);
        assert_eq!(leading.of(exchange), None);
    }
}
