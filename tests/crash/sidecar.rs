//! A sidecar that dies and comes back in one folder.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::order::Whereabouts;
use crate::support::Samekey;
use crate::support::proxy::BINARY;

/// One folder, one state directory, and the process that is on it now.
pub(crate) struct Sidecar {
    pub(crate) folder: Arc<TempDir>,
    running: Option<Samekey>,
    at: watch::Sender<Option<SocketAddr>>,
}

/// How a start went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Started {
    Up,
    /// It met the place that it was to die at before it was up.
    Died,
}

impl Sidecar {
    /// A folder with this config; nothing runs in it yet.
    pub(crate) fn new(config: &str) -> Self {
        let folder = Arc::new(crate::support::program::folder_with(config));
        Self { folder, running: None, at: watch::Sender::new(None) }
    }

    /// Where it is, for clients.
    pub(crate) fn whereabouts(&self) -> Whereabouts {
        self.at.subscribe()
    }

    /// Starts it, to die at a place or to live; the error says why a start is none.
    pub(crate) async fn start(&mut self, failpoint: Option<&str>) -> Result<Started, String> {
        let mut command = Command::new(BINARY);
        command.arg("run");
        if let Some(place) = failpoint {
            command.env("SAMEKEY_FAILPOINT", place);
        }
        self.start_as(command, failpoint.is_some()).await
    }

    /// Starts it by a command of the caller's.
    pub(crate) async fn start_as(
        &mut self,
        command: Command,
        may_die: bool,
    ) -> Result<Started, String> {
        let began = Instant::now();
        match Samekey::run_command(self.folder.clone(), command).await {
            Ok(samekey) => {
                let took = began.elapsed();
                self.at.send_replace(Some(samekey.proxy));
                self.running = Some(samekey);
                if took > START_MAX {
                    return Err(format!("a start took {took:?}"));
                }
                Ok(Started::Up)
            }
            Err(stopped) if may_die && is_killed(stopped.status) => Ok(Started::Died),
            Err(stopped) => Err(format!("it did not start: {stopped:#?}")),
        }
    }

    /// Waits until it died of SIGKILL; the error says how else it ended.
    pub(crate) async fn died(&mut self) -> Result<(), String> {
        let status = self.it().ended().await;
        let log = self.it().log();
        self.gone();
        if is_killed(status) {
            return Ok(());
        }
        let last = log.len().saturating_sub(20);
        Err(format!("it ended by itself: {status}: {:#?}", &log[last..]))
    }

    /// Kills it, if it lives.
    pub(crate) async fn kill(&mut self) -> Result<(), String> {
        if self.running.is_none() {
            return Ok(());
        }
        self.it().signal(Signal::KILL);
        self.died().await
    }

    /// The running process.
    ///
    /// # Panics
    ///
    /// When none runs: the test is wrong then.
    pub(crate) fn it(&mut self) -> &mut Samekey {
        self.running.as_mut().expect("it runs")
    }

    /// Where its admin side is.
    pub(crate) fn admin(&mut self) -> SocketAddr {
        self.it().admin
    }

    /// Where its proxy is.
    pub(crate) fn proxy(&mut self) -> SocketAddr {
        self.it().proxy
    }

    fn gone(&mut self) {
        self.at.send_replace(None);
        self.running = None;
    }
}

fn is_killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::KILL.as_raw())
}

/// What issue 3 allows a start, whatever was left behind.
const START_MAX: Duration = Duration::from_secs(5);
