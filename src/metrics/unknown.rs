//! How many outcomes are unknown: what the ledger's `unknown` rows come to, by route.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use prometheus::{IntGaugeVec, Registry};

use crate::metrics::Metrics;
use crate::metrics::family::gauges;

/// The family, and the routes that it shows.
#[derive(Debug)]
pub(super) struct Families {
    open: IntGaugeVec,
    shown: Mutex<BTreeSet<String>>,
}

/// Whether the key of an exchange whose outcome is unknown is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A repeat is not sent until somebody settles it.
    Closed,
    /// It was a random one that nobody can ask for again; it goes with the ledger.
    Loose,
}

impl Key {
    fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Loose => "loose",
        }
    }
}

impl Families {
    pub(super) fn new(registry: &Registry) -> Self {
        let help = "Exchanges whose outcome is unknown, by whether their key is closed until \
                    somebody settles them, or was a random one that nobody repeats.";
        let open = gauges(registry, "unknown_outcomes", help, &["route", "key"]);
        Self { open, shown: Mutex::default() }
    }

    /// Shows a route, at zero where nothing has been counted yet.
    pub(super) fn show(&self, route: &str) {
        for key in KEYS {
            self.open.with_label_values(&[route, key.as_str()]);
        }
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).insert(route.to_owned());
    }
}

impl Metrics {
    /// Shows how many outcomes are unknown; of routes that are not named there are none.
    pub fn unknowns(&self, counted: &BTreeMap<(String, Key), u64>) {
        let families = &self.inner.unknowns;
        for (route, _) in counted.keys() {
            families.show(route);
        }
        for route in &*families.shown.lock().unwrap_or_else(PoisonError::into_inner) {
            for key in KEYS {
                let count = counted.get(&(route.clone(), key)).copied().unwrap_or_default();
                let gauge = families.open.with_label_values(&[route.as_str(), key.as_str()]);
                gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
    }
}

const KEYS: [Key; 2] = [Key::Closed, Key::Loose];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_settled_falls_to_zero_and_stays_shown() {
        let metrics = Metrics::new();
        metrics.route("r");
        let check = |lines: &[(&str, &str, u64)]| {
            let text = metrics.text();
            for (route, key, count) in lines {
                let line = format!(
                    "samekey_unknown_outcomes{{key=\"{key}\",route=\"{route}\"}} {count}\n"
                );
                assert!(text.contains(&line), "{line} is not in\n{text}");
            }
        };
        check(&[("r", "closed", 0), ("r", "loose", 0)]);
        let of = |route: &str, key, count| ((route.to_owned(), key), count);
        let gone = "gone from the config";
        metrics.unknowns(&BTreeMap::from([
            of("r", Key::Closed, 2),
            of("r", Key::Loose, 1),
            of(gone, Key::Closed, 1),
        ]));
        check(&[("r", "closed", 2), ("r", "loose", 1), (gone, "closed", 1)]);
        metrics.unknowns(&BTreeMap::from([of("r", Key::Loose, 1)]));
        check(&[("r", "closed", 0), ("r", "loose", 1), (gone, "closed", 0)]);
    }
}
