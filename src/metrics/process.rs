//! What runs here: which version, by which config, since when.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{IntGauge, Registry};

use crate::metrics::Metrics;
use crate::metrics::family::{Counters, counters, gauge, gauges};

#[derive(Debug)]
pub(super) struct Families {
    reloads: Counters,
    loaded: IntGauge,
}

impl Families {
    pub(super) fn new(registry: &Registry) -> Self {
        let build = gauges(registry, "build_info", "The version that runs.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let reloads = "Reloads of the config, by result.";
        let loaded = "When the config in force was loaded.";
        let families = Self {
            reloads: counters(registry, "config_reloads_total", reloads, &["result"]),
            loaded: gauge(registry, "config_loaded_timestamp_seconds", loaded),
        };
        // Series that alerts watch stand at zero from the start.
        for result in ["ok", "failed"] {
            families.reloads.with_label_values(&[result]);
        }
        families
    }
}

impl Metrics {
    /// Notes a config that is in force from `now` on.
    pub fn config_loaded(&self, now: SystemTime) {
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
        self.inner.process.loaded.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// Counts a reload.
    pub fn config_reloaded<T, E>(&self, loaded: &Result<T, E>) {
        let result = if loaded.is_ok() { "ok" } else { "failed" };
        self.inner.process.reloads.with_label_values(&[result]).inc();
    }
}
