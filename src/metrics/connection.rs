//! Connections of clients, tunnels, and the leaves that were made for them.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::{IntCounter, IntGaugeVec, Registry};

use crate::metrics::family::{Counters, counter, counters, gauges};
use crate::metrics::{Metrics, Raised};

#[derive(Debug)]
pub(super) struct Families {
    open: IntGaugeVec,
    accepted: Counters,
    tunnels: IntCounter,
    tunnel_bytes: Counters,
    minted: IntCounter,
    minted_told: AtomicU64,
}

impl Families {
    pub(super) fn new(registry: &Registry) -> Self {
        let open = "Client connections that are open.";
        let accepted = "Client connections that were accepted.";
        let bytes = "Bytes through tunnels: up is to the upstream.";
        let minted = "Leaf certificates that were made.";
        let families = Self {
            open: gauges(registry, "connections", open, &["listener"]),
            accepted: counters(registry, "connections_total", accepted, &["listener"]),
            tunnels: counter(registry, "tunnels_total", "Tunnels that were opened."),
            tunnel_bytes: counters(registry, "tunnel_bytes_total", bytes, &["direction"]),
            minted: counter(registry, "certificates_minted_total", minted),
            minted_told: AtomicU64::new(0),
        };
        for direction in ["up", "down"] {
            families.tunnel_bytes.with_label_values(&[direction]);
        }
        families
    }
}

impl Metrics {
    /// Counts a client connection until the guard is dropped.
    pub fn connection(&self, listener: &str) -> Raised {
        self.inner.connections.accepted.with_label_values(&[listener]).inc();
        Raised::new(self.inner.connections.open.with_label_values(&[listener]))
    }

    /// Counts a tunnel that was opened.
    pub fn tunnel(&self) {
        self.inner.connections.tunnels.inc();
    }

    /// The counters of bytes through tunnels: up, then down.
    pub fn tunnel_bytes(&self) -> (IntCounter, IntCounter) {
        let of = |direction| self.inner.connections.tunnel_bytes.with_label_values(&[direction]);
        (of("up"), of("down"))
    }

    /// Counts leaf certificates up to `total`.
    pub fn minted(&self, total: u64) {
        // Of two that tell at once, each counts only what nobody told before.
        let Families { minted, minted_told, .. } = &self.inner.connections;
        let told = minted_told.fetch_max(total, Ordering::Relaxed);
        minted.inc_by(total.saturating_sub(told));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_falls_when_its_guard_goes() {
        let metrics = Metrics::new();
        let raised = metrics.connection("l");
        assert!(metrics.text().contains(r#"samekey_connections{listener="l"} 1"#));
        drop(raised);
        assert!(metrics.text().contains(r#"samekey_connections{listener="l"} 0"#));
    }
}
