//! `samekey health`.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use samekey::app::ledger::admin_file;
use samekey::config::Environment;

use crate::cli::ask::{ask, reachable};
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
    let address = match load(path) {
        Ok(config) => reachable(&config.admin.address),
        // A file that was broken after the start is not in force: the sidecar goes on by the
        // one before, and whoever asks for its health must not restart it into the broken one.
        Err(stop) => told().ok_or(stop)?,
    };
    let began = SystemTime::now();
    loop {
        let Err(stop) = probed(&address, probe) else { return Ok(ExitCode::SUCCESS) };
        // A clock that was set back ends the wait as well.
        let waited = began.elapsed().unwrap_or(Duration::MAX);
        if arguments.wait.is_none_or(|wait| waited >= wait) {
            return Err(stop);
        }
        pause();
    }
}

fn probed(address: &str, probe: &str) -> Result<(), Stop> {
    match ask(address, ("GET", probe), "", ANSWER_MAX) {
        Ok(answer) if answer.status() == 200 => Ok(()),
        Ok(answer) => {
            let status = answer.line;
            Err(Stop::Failed(format!("samekey: {address}{probe} answered {status}")))
        }
        Err(error) => Err(Stop::Failed(format!("samekey: {address}{probe}: {error}"))),
    }
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

/// Where the sidecar says that it listens, if `SAMEKEY_STATE_DIR` tells where it says so.
fn told() -> Option<String> {
    let dir = Environment::read().state_dir?;
    let told = fs::read_to_string(admin_file(Path::new(&dir))).ok()?;
    Some(told.trim().to_owned()).filter(|address| !address.is_empty())
}

/// A probe answers in a few words.
const ANSWER_MAX: u64 = 4096;
