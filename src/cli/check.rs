//! `samekey check`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use samekey::config::Overridden;

use crate::cli::{Stop, load, print};

pub(super) fn check(path: Option<&Path>) -> Result<ExitCode, Stop> {
    let config = load(path)?;
    for Overridden { variable, key } in &config.overridden {
        // Beside the verdict: no fault, and not what the file says.
        drop(writeln!(io::stderr(), "{}: {key}: {variable} overrides it", config.source));
    }
    let (own, built_in): (Vec<_>, Vec<_>) =
        config.routes.iter().partition(|route| route.provenance.built_in().is_none());
    let presets: BTreeSet<_> = built_in.iter().map(|route| route.provenance.built_in()).collect();
    let mut text = format!("{}: no faults, {}", config.source, counted(own.len(), "route"));
    if !built_in.is_empty() {
        let routes = counted(built_in.len(), "route");
        let presets = counted(presets.len(), "preset");
        write!(text, ", and {routes} of {presets}").expect("writing into a string never fails");
    }
    print(&format!("{text}\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
