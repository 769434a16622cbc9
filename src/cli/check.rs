//! `samekey check`.

use std::path::Path;
use std::process::ExitCode;

use crate::cli::{Stop, load, print};

pub(super) fn check(path: Option<&Path>) -> Result<ExitCode, Stop> {
    let config = load(path)?;
    let routes = config.routes.len();
    print(&format!(
        "{}: no faults, {routes} route{}\n",
        config.source,
        if routes == 1 { "" } else { "s" }
    ))?;
    Ok(ExitCode::SUCCESS)
}
