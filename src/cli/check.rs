//! `samekey check`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::{Stop, load, print};

pub(super) fn check(path: Option<PathBuf>) -> Result<ExitCode, Stop> {
    let (config, _) = load(path)?;
    let routes = config.routes.len();
    print(&format!("{}: no faults, {routes} route{}\n", config.source, if routes == 1 { "" } else { "s" }))?;
    Ok(ExitCode::SUCCESS)
}
