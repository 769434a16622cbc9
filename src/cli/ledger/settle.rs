//! Settling an unknown outcome: in the journal while nobody runs, else by who does.

use samekey::admin::{Exchange, stands};
use samekey::app::ledger::{file, resolve_alone};
use samekey::app::{Home, StateFault};
use samekey::config::{self, Config};
use samekey::exchange::id::ExchangeId;
use samekey::journal::resolve::{Resolution, Verdict};

use crate::cli::ledger::Outcome;
use crate::cli::ledger::source::{Sidecar, is_there, missing};
use crate::cli::{Stop, failed, runtime};

/// Settles it, and returns the exchange as it is then.
pub(super) fn resolve(config: &Config, id: ExchangeId, outcome: Outcome) -> Result<Exchange, Stop> {
    let on_disk = config.state.journal == config::Journal::Disk;
    if !on_disk || !is_there(&file(&config.state.dir)) {
        return by_sidecar(config, id, outcome);
    }
    match Home::open(&config.state.dir) {
        Ok(home) => alone(config, &home, id, outcome),
        Err(StateFault::Locked(_)) => by_sidecar(config, id, outcome),
        Err(fault) => Err(failed(fault)),
    }
}

/// Nobody else uses the directory for as long as it is locked here.
fn alone(
    config: &Config,
    locked: &Home,
    id: ExchangeId,
    outcome: Outcome,
) -> Result<Exchange, Stop> {
    let verdict = match outcome {
        Outcome::Landed => Verdict::Landed,
        Outcome::Absent => Verdict::Absent,
    };
    let settled = runtime()?.block_on(resolve_alone(config, locked, id, verdict));
    match settled.map_err(failed)? {
        (Resolution::Stands(state), _) => {
            Err(Stop::Failed(format!("samekey: {}", stands(id, state))))
        }
        (Resolution::Settled(_), Some(entry)) => Ok(Exchange::from(&entry)),
        (Resolution::Settled(_) | Resolution::Missing, _) => {
            Err(missing(id, &file(&config.state.dir)))
        }
    }
}

fn by_sidecar(config: &Config, id: ExchangeId, outcome: Outcome) -> Result<Exchange, Stop> {
    let word = match outcome {
        Outcome::Landed => "landed",
        Outcome::Absent => "absent",
    };
    let sidecar = Sidecar::of(config);
    let body = serde_json::json!({"outcome": word}).to_string();
    let answer = sidecar.ask(("POST", &format!("/api/exchanges/{id}/resolve")), &body)?;
    sidecar.exchange(&answer, id)
}
