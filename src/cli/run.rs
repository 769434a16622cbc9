//! `samekey run`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use samekey::app::{App, Home, Reloader};
use samekey::config::{self, Environment};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::{Stop, failed, log, runtime};

pub(super) fn run(path: Option<PathBuf>) -> Result<ExitCode, Stop> {
    let environment = Environment::read();
    let load = move || config::load(path.as_deref(), &environment);
    let config = load()?;
    arm_failpoint()?;
    let set_level = log::start(&config);
    raise_file_limit();
    let home = Home::open(&config.state.dir).map_err(failed)?;
    let runtime = runtime()?;
    runtime.block_on(async {
        // Taken first: to process 1 of a container a signal that nobody takes is none.
        let mut signals = Signals::take()?;
        let app = tokio::select! {
            app = App::build(config, Arc::new(load), home, set_level) => app.map_err(failed)?,
            () = signals.end() => return Ok(()),
        };
        let told = watch(signals, app.reloader());
        app.run(told).await;
        Ok::<_, Stop>(())
    })?;
    // What is still under way after the grace is cut.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

/// In a debug build, a test can have the process die at a place of its choice.
fn arm_failpoint() -> Result<(), Stop> {
    match std::env::var_os("SAMEKEY_FAILPOINT").filter(|_| cfg!(debug_assertions)) {
        None => Ok(()),
        Some(named) if named.to_str().is_some_and(samekey::failpoint::arm) => Ok(()),
        Some(_) => Err(Stop::Usage("SAMEKEY_FAILPOINT: names no place to die at".to_owned())),
    }
}

/// The signals that a sidecar is told by.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn take() -> Result<Self, Stop> {
        let take = |kind| signal(kind).map_err(failed);
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
            hangup: take(SignalKind::hangup())?,
        })
    }

    /// Returns when it is told to end.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Resolves at the first SIGTERM or SIGINT; the second one ends the process at once.
fn watch(mut signals: Signals, reloader: Reloader) -> impl Future<Output = ()> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let watching = async move {
        let mut tell = Some(tell);
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => {}
                _ = signals.interrupt.recv() => {}
                Some(()) = signals.hangup.recv() => {
                    // It logs what is wrong; the config before stays in force.
                    drop(reloader.reload());
                    continue;
                }
            }
            match tell.take() {
                Some(tell) => drop(tell.send(())),
                None => exit_at_once(1),
            }
        }
    };
    tokio::runtime::Handle::current().spawn(watching);
    async move { drop(told.await) }
}

#[expect(clippy::exit, reason = "the second signal asks for just that")]
pub(super) fn exit_at_once(code: i32) {
    std::process::exit(code);
}

/// A proxy needs two descriptors a connection; the usual soft limit is 1024.
pub(super) fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if setrlimit(Resource::Nofile, limit).is_err() {
        tracing::debug!("the limit of open files stays as it is");
    }
}
