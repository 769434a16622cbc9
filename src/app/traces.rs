//! Whether exchanges are traced: built once, from variables that do not change.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::idempotency::Commons;
use crate::intercept::{Authority, Roots};
use crate::trace::{Means, Settings, Tracer};

/// The tracer that the variables ask for. What is wrong with them stops nobody's start: it
/// is told, and nothing is exported.
pub(super) fn tracer(
    config: &Config,
    trust: (&Roots, &Authority),
    commons: &Commons,
    tasks: &TaskTracker,
) -> Option<Tracer> {
    for warning in &config.traces.warnings {
        tracing::warn!("{warning}");
    }
    let settings = config.traces.settings.as_ref()?;
    match built(settings, trust, commons, tasks) {
        Ok(tracer) => {
            // The URL may hold a token in its path.
            tracing::info!("spans are exported");
            Some(tracer)
        }
        Err(fault) => {
            tracing::warn!(%fault, "no spans are exported");
            None
        }
    }
}

fn built(
    settings: &Settings,
    (roots, authority): (&Roots, &Authority),
    commons: &Commons,
    tasks: &TaskTracker,
) -> Result<Tracer, String> {
    let roots = roots
        .store(settings.certificate.as_deref(), authority.cert_der())
        .map_err(|fault| format!("OTEL_EXPORTER_OTLP_CERTIFICATE: {fault}"))?;
    let (chance, metrics) = (commons.chance.clone(), commons.metrics.spans());
    let means = Means { roots, chance, tasks: tasks.clone(), metrics };
    Tracer::new(settings, means).map_err(|fault| fault.to_string())
}

/// Exports what waits, in what is left of the grace: a second at least, since whoever used
/// it up is what one wants to know of, and no longer than a collector that is there takes.
pub(super) async fn close(tracer: Option<&Tracer>, until: Instant, at_most: Duration) {
    let Some(tracer) = tracer else { return };
    let left = until.saturating_duration_since(Instant::now());
    tracer.close(left.max(AT_LEAST).min(at_most)).await;
}

pub(super) const AT_LEAST: Duration = Duration::from_secs(1);
