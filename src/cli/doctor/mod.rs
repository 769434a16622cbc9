//! `samekey doctor`: is the sidecar up, is this program proxied, does it trust the CA?
//!
//! [`gather`] asks the sidecar and reads this shell, [`watch`] runs the program beside a
//! [`relay`] that notes what it asks for; what they found are [`facts`], and [`judge`] alone
//! says what they come to.

mod facts;
mod gather;
mod hello;
mod judge;
mod probe;
mod program;
mod relay;
mod watch;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use crate::cli::{Stop, load, print};
use judge::{Finding, Level};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
    /// A program and its arguments, run once with the variables of this shell
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) fn doctor(path: Option<&Path>, arguments: &Arguments) -> Result<ExitCode, Stop> {
    let config = load(path)?;
    let mut facts = gather::facts(&config);
    if !arguments.command.is_empty() && !facts.is_up() {
        // What it does would be done past any sidecar.
        facts.withheld = true;
    } else if !arguments.command.is_empty() {
        facts.program = Some(watch::watch(&config, &facts, &arguments.command)?);
    }
    let found = judge::judge(&facts);
    let well = found.iter().all(|finding| finding.level != Level::Wrong);
    let text = if arguments.json {
        format!("{:#}\n", json!({"well": well, "findings": found}))
    } else {
        told(&found, well)
    };
    print(&text)?;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A line a finding, and its lines below it.
fn told(found: &[Finding], well: bool) -> String {
    let mut text = String::new();
    for finding in found {
        let word = match finding.level {
            Level::Fine => "ok   ",
            Level::Note => "note ",
            Level::Wrong => "WRONG",
        };
        let told = writeln!(text, "{word}  {}", finding.what);
        told.expect("writing into a string never fails");
        for line in &finding.fix {
            writeln!(text, "           {line}").expect("writing into a string never fails");
        }
    }
    if !well {
        text.push_str("Something is wrong: each WRONG has below it what mends it.\n");
    }
    text
}
