//! `samekey health`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use samekey::config::Environment;

use crate::cli::ask::{admin_sides, ask};
use crate::cli::{Stop, load};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Ask whether it is ready, not only whether it lives
    #[arg(long)]
    ready: bool,
    /// Ask again for so long before it gives up: 60s
    #[arg(long, value_name = "SECONDS", value_parser = wait)]
    wait: Option<Duration>,
}

pub(super) fn health(path: Option<&Path>, arguments: &Arguments) -> Result<ExitCode, Stop> {
    let probe = if arguments.ready { "/readyz" } else { "/livez" };
    let (dir, by_config) = match load(path) {
        Ok(config) => (config.state.dir, Some(config.admin.address)),
        // A file that was broken after the start is not in force: the sidecar goes on by the
        // one before, and whoever asks for its health must not restart it into the broken one.
        Err(stop) => (told_in().ok_or(stop)?, None),
    };
    let began = SystemTime::now();
    loop {
        // Looked for each time: one that is waited for may not have said yet where it is.
        let addresses = admin_sides(&dir, by_config.as_deref());
        let Err(stop) = probed(&addresses, probe) else { return Ok(ExitCode::SUCCESS) };
        // A clock that was set back ends the wait as well.
        let waited = began.elapsed().unwrap_or(Duration::MAX);
        if arguments.wait.is_none_or(|wait| waited >= wait) {
            return Err(stop);
        }
        pause();
    }
}

/// Asks them in turn; the first that answers has the say.
fn probed(addresses: &[String], probe: &str) -> Result<(), Stop> {
    let mut tried = Vec::new();
    for address in addresses {
        match ask(address, ("GET", probe), "", ANSWER_MAX) {
            Ok(answer) if answer.status() == 200 => return Ok(()),
            Ok(answer) => {
                tried.push(format!("{address}{probe} answered {}", answer.line));
                break;
            }
            Err(error) => tried.push(format!("{address}{probe}: {error}")),
        }
    }
    if tried.is_empty() {
        tried.push("no address of a sidecar is known".to_owned());
    }
    Err(Stop::Failed(format!("samekey: {}", tried.join("; "))))
}

#[expect(clippy::disallowed_methods, reason = "this command has no runtime to block")]
fn pause() {
    std::thread::sleep(PAUSE);
}

/// Seconds, as in `60s`.
fn wait(written: &str) -> Result<Duration, String> {
    let number = written.strip_suffix('s').and_then(|number| number.parse().ok());
    let seconds = number.filter(|seconds| (1..=WAIT_MAX).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| format!("must be from 1s to {WAIT_MAX}s"))
}

/// Soon enough for whoever waits, seldom enough to cost nothing.
const PAUSE: Duration = Duration::from_millis(100);

/// Nothing that starts takes an hour.
const WAIT_MAX: u64 = 3600;

/// Where a sidecar says that it listens, if `SAMEKEY_STATE_DIR` tells.
fn told_in() -> Option<PathBuf> {
    let dir = PathBuf::from(Environment::read().state_dir?);
    (!admin_sides(&dir, None).is_empty()).then_some(dir)
}

/// A probe answers in a few words.
const ANSWER_MAX: u64 = 4096;
