//! Where log lines go, in which shape, and how much of them.

use std::io::{self, IsTerminal as _};
use std::str::FromStr as _;
use std::sync::Arc;

use samekey::app::SetLevel;
use samekey::config::{Config, LogFormat};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt, reload};

/// Starts logging to standard error; the handle puts another level in force.
pub(super) fn start(config: &Config) -> SetLevel {
    let text = match config.log.format {
        Some(LogFormat::Text) => true,
        Some(LogFormat::Json) => false,
        None => io::stderr().is_terminal(),
    };
    let (filter, handle) = reload::Layer::new(targets(&config.log.level));
    let plain = fmt::layer().with_writer(io::stderr);
    let lines = if text {
        plain.with_ansi(io::stderr().is_terminal()).with_target(false).boxed()
    } else {
        plain.json().flatten_event(true).with_target(false).boxed()
    };
    // A second start in one process keeps the first one's logging.
    drop(tracing_subscriber::registry().with(lines.with_filter(filter)).try_init());
    Arc::new(move |level| {
        if handle.reload(targets(level)).is_err() {
            tracing::warn!("the log level stays as it was");
        }
    })
}

/// The line that says what listens where is told at every level.
fn targets(level: &str) -> Targets {
    let given = Targets::from_str(level)
        .unwrap_or_else(|_checked| Targets::new().with_default(LevelFilter::INFO));
    given.with_target("samekey::start", LevelFilter::INFO)
}
