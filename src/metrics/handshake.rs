//! TLS handshakes, on either side, by how they ended.

use prometheus::Registry;

use crate::metrics::Metrics;
use crate::metrics::family::{Counters, counters};

/// How a TLS handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// Well.
    Ok,
    /// One side refused the other's certificate.
    Distrusted,
    /// The connection broke.
    Reset,
    /// In any other way.
    Other,
}

impl Metrics {
    /// Counts a handshake with a client.
    pub fn handshake_client(&self, result: Handshake) {
        self.handshake("client", result);
    }

    /// Counts a handshake with an upstream.
    pub fn handshake_upstream(&self, result: Handshake) {
        self.handshake("upstream", result);
    }

    fn handshake(&self, side: &str, result: Handshake) {
        let result = match result {
            Handshake::Ok => "ok",
            Handshake::Distrusted => "distrusted",
            Handshake::Reset => "reset",
            Handshake::Other => "other",
        };
        self.inner.handshakes.with_label_values(&[side, result]).inc();
    }
}

pub(super) fn family(registry: &Registry) -> Counters {
    let help = "TLS handshakes, by side and result.";
    let made = counters(registry, "tls_handshakes_total", help, &["side", "result"]);
    for (side, result) in SIDES.iter().flat_map(|side| RESULTS.map(|result| (side, result))) {
        made.with_label_values(&[*side, result]);
    }
    made
}

const SIDES: [&str; 2] = ["client", "upstream"];
const RESULTS: [&str; 4] = ["ok", "distrusted", "reset", "other"];
