//! What runs here: which version, by which config and which CA, since when.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{IntGauge, Registry};

use crate::metrics::Metrics;
use crate::metrics::family::{Counters, counters, gauge, gauges};

#[derive(Debug)]
pub(super) struct Families {
    reloads: Counters,
    reloaded: IntGauge,
    loaded: IntGauge,
    ca_ends: IntGauge,
}

impl Families {
    pub(super) fn new(registry: &Registry) -> Self {
        let build = gauges(registry, "build_info", "The version that runs.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let reloads = "Reloads of the config, by result.";
        let reloaded = "Whether the config was good when it was last read: if not, the one before \
                        it is in force.";
        let loaded = "When the config in force was loaded.";
        let ca_ends = "When the CA ends that signs for intercepted hosts, and every leaf with it.";
        let families = Self {
            reloads: counters(registry, "config_reloads_total", reloads, &["result"]),
            reloaded: gauge(registry, "config_last_reload_successful", reloaded),
            loaded: gauge(registry, "config_loaded_timestamp_seconds", loaded),
            ca_ends: gauge(registry, "ca_not_after_timestamp_seconds", ca_ends),
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
        self.inner.process.loaded.set(seconds(now));
        self.inner.process.reloaded.set(1);
    }

    /// Shows when the CA ends.
    pub fn ca_ends(&self, at: SystemTime) {
        self.inner.process.ca_ends.set(seconds(at));
    }

    /// Counts a reload.
    pub fn config_reloaded<T, E>(&self, loaded: &Result<T, E>) {
        let result = if loaded.is_ok() { "ok" } else { "failed" };
        self.inner.process.reloads.with_label_values(&[result]).inc();
        self.inner.process.reloaded.set(i64::from(loaded.is_ok()));
    }
}

/// Since 1970.
fn seconds(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(since).unwrap_or(i64::MAX)
}
