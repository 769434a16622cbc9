//! What the facts come to, and the line that mends what is wrong: pure, and told by tables.

mod environment;
mod java;
mod lines;
mod program;
mod sidecar;
pub(super) mod url;

#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::cli::doctor::facts::Facts;

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    pub(super) what: String,
    /// Lines that mend it: to be typed, or put where the program or its config is written.
    pub(super) fix: Vec<String>,
}

/// What a finding means for the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Fine,
    /// Worth knowing; nothing is broken by it.
    Note,
    Wrong,
}

impl Finding {
    fn fine(what: impl Into<String>) -> Self {
        Self { level: Level::Fine, what: what.into(), fix: Vec::new() }
    }

    fn note(what: impl Into<String>, fix: Vec<String>) -> Self {
        Self { level: Level::Note, what: what.into(), fix }
    }

    fn wrong(what: impl Into<String>, fix: Vec<String>) -> Self {
        Self { level: Level::Wrong, what: what.into(), fix }
    }
}

/// All findings: of the sidecar, of this shell, of the program.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut found = sidecar::judge(facts);
    found.extend(environment::judge(facts));
    found.extend(program::judge(facts));
    found
}

/// A value as a POSIX shell reads it back.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// The line that sets a variable.
fn export(name: &str, value: &str) -> String {
    format!("export {name}={}", quoted(value))
}
