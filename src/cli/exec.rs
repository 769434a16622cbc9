//! `samekey exec`: a sidecar for the life of one program.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, WaitStatus, wait};
use samekey::app::{App, Home, StateFault};
use samekey::config::{self, Config, Environment, Faults, Journal};
use samekey::intercept::Environment as Variables;
use samekey::listen;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, Interval, interval_at};

use crate::cli::env::{borrowed, own};
use crate::cli::run::{exit_at_once, raise_file_limit};
use crate::cli::{Stop, failed, log, runtime};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The program and its arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true,
        value_name = "CMD"
    )]
    command: Vec<OsString>,
}

pub(super) fn exec(path: Option<PathBuf>, arguments: &Arguments) -> Result<ExitCode, Stop> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let public = folder.path().join("public");
    let (environment, for_programs) = (Environment::read(), public.clone());
    let read = move || {
        let mut config = config::load(path.as_deref(), &environment)?;
        for_one_program(&mut config, &environment, for_programs.clone());
        Ok::<_, Faults>(config)
    };
    let mut config = read()?;
    let set_level = log::start(&config);
    raise_file_limit();
    let home = home(&mut config, folder.path())?;
    let journal = config.state.journal;
    let load = move || {
        let mut config = read()?;
        config.state.journal = journal;
        Ok(config)
    };
    let runtime = runtime()?;
    let (status, drained) = runtime.block_on(async {
        let app = App::build(config, Arc::new(load), home, set_level).await.map_err(failed)?;
        let url = app.proxy_url();
        let own = own();
        let variables = Variables::new(&url, &public, borrowed(&own));
        let (ended, done) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::runtime::Handle::current().spawn(app.run(async { drop(done.await) }));
        let mut program = program(&arguments.command)?;
        let name = arguments.command.first().map(|name| name.display().to_string());
        program.envs(variables.variables());
        let (status, mut signals) = supervise(&mut program, &name.unwrap_or_default()).await?;
        drop(ended);
        let drained = tokio::select! {
            _ = serving => true,
            () = signals.end() => false,
        };
        Ok::<_, Stop>((status, drained))
    })?;
    if !drained {
        // What is under way is left as it is: the journal has it as begun.
        drop(folder);
        exit_at_once(code(status).into());
    }
    runtime.shutdown_background();
    Ok(ExitCode::from(code(status)))
}

/// The state directory, so that the next run of the program finds the keys of this one.
/// Where another sidecar has it, as in a second terminal, one of its own: CA and secret
/// are shared all the same, so that trust is given once and keys stay the same.
fn home(config: &mut Config, own: &Path) -> Result<Home, Stop> {
    match Home::open(&config.state.dir) {
        Err(StateFault::Locked(dir)) => {
            if config.state.journal == Journal::Disk {
                tracing::warn!(
                    dir = %dir.display(),
                    "another sidecar has the journal: the keys of this program end with it"
                );
            }
            config.state.journal = Journal::Memory;
            Home::open_beside(own, &config.state.dir).map_err(failed)
        }
        opened => opened.map_err(failed),
    }
}

/// Free ports, and nothing that another sidecar of this config may hold.
fn for_one_program(config: &mut Config, environment: &Environment, public: PathBuf) {
    // The terminal is the program's; what went wrong is still told.
    if environment.log.is_none() {
        "warn".clone_into(&mut config.log.level);
    }
    let proxies = |spec: &listen::Spec| spec.mode == listen::Mode::Forward;
    let spec = config.listeners.iter().find(|spec| proxies(spec)).cloned();
    let caps = spec.map_or_else(listen::Caps::default, |spec| spec.caps);
    // On loopback, on a port that nobody was told: it needs no password.
    config.listeners = vec![listen::Spec {
        address: "127.0.0.1:0".to_owned(),
        mode: listen::Mode::Forward,
        auth: listen::Auth::Open,
        caps,
    }];
    "127.0.0.1:0".clone_into(&mut config.admin.address);
    // Where the file and its variables would have it listen is no matter here.
    let of_sockets = ["listeners", "admin"];
    config.overridden.retain(|told| !of_sockets.iter().any(|block| told.key.starts_with(block)));
    // It ends after its program: nobody is left to send a request.
    config.shutdown_delay = Duration::ZERO;
    // Whoever typed the command waits; a collector that is away must not be felt.
    config.traces.at_end = Duration::from_secs(1);
    config.state.public = public;
}

/// A program and its arguments.
pub(super) fn program(command: &[OsString]) -> Result<Command, Stop> {
    let (program, arguments) =
        command.split_first().ok_or_else(|| Stop::Usage("samekey: no program".to_owned()))?;
    let mut run = Command::new(program);
    run.args(arguments);
    Ok(run)
}

/// Runs a program to its end, and buries whoever it leaves to us: as process 1 of a
/// container, all its orphans. Signals are its own until then; whoever goes on has to heed
/// those that are handed back, since they end nobody by themselves any more.
pub(super) async fn supervise(
    program: &mut Command,
    name: &str,
) -> Result<(WaitStatus, Signals), Stop> {
    // Taken before the program starts: a signal that comes in between is not lost.
    let mut signals = Signals::take()?;
    let child = program.spawn();
    let child = child
        .map_err(|error| Stop::NotStarted(format!("samekey: {name}: {error}"), error.kind()))?;
    let program = Pid::from_child(&child);
    loop {
        let signal = signals.next().await;
        if signal != rustix::process::Signal::CHILD {
            pass_on(program, signal);
        } else if let Some(status) = bury(program)? {
            return Ok((status, signals));
        }
    }
}

/// Takes leave of all children that ended, of whatever process group: `timeout` and `setsid`
/// leave ours. How the program did, where it is one of them.
fn bury(program: Pid) -> Result<Option<WaitStatus>, Stop> {
    let mut ended = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((child, status))) if child == program => ended = Some(status),
            Ok(Some(_orphan)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(ended),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Signals that are the program's, and the one that says that a child ended.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
    user1: tokio::signal::unix::Signal,
    user2: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    child: tokio::signal::unix::Signal,
    /// For who is started with SIGCHLD blocked, which outlives an exec (signal(7)).
    look: Interval,
}

impl Signals {
    fn take() -> Result<Self, Stop> {
        let take = |kind| signal(kind).map_err(failed);
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            hangup: take(SignalKind::hangup())?,
            quit: take(SignalKind::quit())?,
            user1: take(SignalKind::user_defined1())?,
            user2: take(SignalKind::user_defined2())?,
            interrupt: take(SignalKind::interrupt())?,
            child: take(SignalKind::child())?,
            look: interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY),
        })
    }

    /// Those of a program that ended come before the word of its end: none is left for the
    /// drain, which it was not meant for.
    async fn next(&mut self) -> rustix::process::Signal {
        use rustix::process::Signal;
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.hangup.recv() => Signal::HUP,
            _ = self.quit.recv() => Signal::QUIT,
            _ = self.user1.recv() => Signal::USR1,
            _ = self.user2.recv() => Signal::USR2,
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.child.recv() => Signal::CHILD,
            _ = self.look.tick() => Signal::CHILD,
        }
    }

    /// Returns when it is told to end, with the program gone. A hangup says no such thing:
    /// a terminal that closes sends it twice, by its shell and by itself.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}

/// A program that nobody told the end of is seen within this.
const LOOK_EVERY: Duration = Duration::from_secs(1);

fn pass_on(program: Pid, signal: rustix::process::Signal) {
    let theirs = rustix::process::getpgid(Some(program)).ok();
    if is_the_terminals(signal, foreground(), rustix::process::getpgrp(), theirs) {
        return;
    }
    if let Err(error) = rustix::process::kill_process(program, signal) {
        tracing::warn!(%error, "a signal did not reach the program");
    }
}

/// Whether the terminal has sent a signal to the program already: its keys do so to all of
/// its foreground group (termios(3), `VINTR` and `VQUIT`), which is ours and the program's.
/// A `kill` of this process alone looks the same there, and is the rarer one; a program that
/// has a group of its own, in the foreground or not, gets it passed on.
fn is_the_terminals(
    signal: rustix::process::Signal,
    foreground: Option<Pid>,
    own: Pid,
    theirs: Option<Pid>,
) -> bool {
    use rustix::process::Signal;
    let both = foreground == Some(own) && theirs == Some(own);
    [Signal::INT, Signal::QUIT].contains(&signal) && both
}

/// The foreground group of the terminal that this process belongs to, whatever its standard
/// input is; none where there is no terminal.
fn foreground() -> Option<Pid> {
    rustix::termios::tcgetpgrp(std::fs::File::open("/dev/tty").ok()?).ok()
}

/// The program's exit code; 128 and the signal where one ended it, as shells say it.
fn code(status: WaitStatus) -> u8 {
    let signal = status.terminating_signal().map(|signal| 128 + signal);
    let code = status.exit_status().or(signal);
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use rustix::process::Signal;

    use super::*;

    #[test]
    fn only_keys_of_our_terminal_are_left_to_it() {
        let [own, other] = [7, 8].map(|id| Pid::from_raw(id).unwrap());
        for signal in [Signal::INT, Signal::QUIT] {
            let terminals = |foreground, theirs| is_the_terminals(signal, foreground, own, theirs);
            assert!(terminals(Some(own), Some(own)), "{signal:?}");
            assert!(!terminals(Some(other), Some(own)), "{signal:?}: in the background");
            assert!(!terminals(Some(own), Some(other)), "{signal:?}: a group of its own");
            assert!(!terminals(Some(other), Some(other)), "{signal:?}: it took the foreground");
            assert!(!terminals(None, Some(own)), "{signal:?}: no terminal");
        }
        for signal in [Signal::TERM, Signal::HUP, Signal::USR1, Signal::USR2] {
            assert!(!is_the_terminals(signal, Some(own), own, Some(own)), "{signal:?}");
        }
    }
}
