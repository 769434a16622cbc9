//! `samekey health`.

use std::path::Path;
use std::process::ExitCode;

use crate::cli::ask::{ask, reachable};
use crate::cli::{Stop, load};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Ask whether it is ready, not only whether it lives
    #[arg(long)]
    ready: bool,
}

pub(super) fn health(path: Option<&Path>, arguments: &Arguments) -> Result<ExitCode, Stop> {
    let config = load(path)?;
    let probe = if arguments.ready { "/readyz" } else { "/livez" };
    let address = reachable(&config.admin.address);
    match ask(&address, ("GET", probe), "", ANSWER_MAX) {
        Ok(answer) if answer.status() == 200 => Ok(ExitCode::SUCCESS),
        Ok(answer) => {
            let status = answer.line;
            Err(Stop::Failed(format!("samekey: {address}{probe} answered {status}")))
        }
        Err(error) => Err(Stop::Failed(format!("samekey: {address}{probe}: {error}"))),
    }
}

/// A probe answers in a few words.
const ANSWER_MAX: u64 = 4096;
