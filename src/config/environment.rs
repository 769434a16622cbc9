//! The `SAMEKEY_*` variables, which are laid over the file, and those of OpenTelemetry.

use crate::config::traces;

/// What the environment says; a variable that is empty is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `SAMEKEY_CONFIG`: the file to read.
    pub config: Option<String>,
    /// `SAMEKEY_LISTEN`: the address of the first listener.
    pub listen: Option<String>,
    /// `SAMEKEY_AUTH`: who may use the first listener, `open` or `NAME:PASSWORD_FILE`.
    pub auth: Option<String>,
    /// `SAMEKEY_ADMIN`: the address of the admin listener.
    pub admin: Option<String>,
    /// `SAMEKEY_STATE_DIR`: what the sidecar keeps for itself.
    pub state_dir: Option<String>,
    /// `SAMEKEY_LOG`: the level filter.
    pub log: Option<String>,
    /// `SAMEKEY_LOG_FORMAT`: `text` or `json`.
    pub log_format: Option<String>,
    /// The standard `OTEL_*` variables that are set.
    pub otel: std::collections::BTreeMap<&'static str, String>,
}

impl Environment {
    /// Reads the process's environment.
    pub fn read() -> Self {
        Self {
            config: variable(CONFIG),
            listen: variable(LISTEN),
            auth: variable(AUTH),
            admin: variable(ADMIN),
            state_dir: variable(STATE_DIR),
            log: variable(LOG),
            log_format: variable(LOG_FORMAT),
            otel: traces::NAMES
                .into_iter()
                .filter_map(|name| Some((name, variable(name)?)))
                .collect(),
        }
    }
}

/// A key of the file that a variable is laid over, which says something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overridden {
    /// The variable, which is in force.
    pub variable: &'static str,
    /// The key's full path.
    pub key: &'static str,
}

#[expect(clippy::disallowed_methods, reason = "the one place where the environment is read")]
fn variable(name: &str) -> Option<String> {
    let text = match std::env::var(name) {
        Ok(text) => text,
        // Told as wrong by whoever reads it, with the sign that stands for what is not text.
        Err(std::env::VarError::NotUnicode(bytes)) => bytes.to_string_lossy().into_owned(),
        Err(std::env::VarError::NotPresent) => return None,
    };
    Some(text).filter(|text| !text.is_empty())
}

pub(super) const CONFIG: &str = "SAMEKEY_CONFIG";
pub(super) const LISTEN: &str = "SAMEKEY_LISTEN";
pub(super) const AUTH: &str = "SAMEKEY_AUTH";
pub(super) const ADMIN: &str = "SAMEKEY_ADMIN";
pub(super) const STATE_DIR: &str = "SAMEKEY_STATE_DIR";
pub(super) const LOG: &str = "SAMEKEY_LOG";
pub(super) const LOG_FORMAT: &str = "SAMEKEY_LOG_FORMAT";
