//! The command line: what is asked, and what is printed.

mod ask;
mod bounds;
mod ca;
mod capture;
mod check;
mod credit;
mod destination;
mod doctor;
mod env;
mod exec;
mod explain;
mod health;
mod inbox;
mod inject;
mod keyed;
mod ledger;
mod log;
mod outlook;
mod polls;
mod run;
mod written;

use std::error::Error;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use samekey::config::{self, Config, Environment, Faults};

/// A forward HTTP proxy that makes calls to outside APIs safe to retry.
#[derive(Debug, Parser)]
#[command(name = "samekey", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    #[arg(long, global = true, value_name = "FILE", help = CONFIG_HELP)]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the sidecar; what a bare `samekey` does
    Run,
    /// Start on free ports, run a program pointed at it, and end with its exit code
    Exec(exec::Arguments),
    /// Read the config and print every fault; exit 2 on any
    Check,
    /// Show which route a request gets, and what would happen after each outcome
    Explain(explain::Arguments),
    /// Print the variables that point a program at the running sidecar
    Env(env::Arguments),
    /// Tell whether the sidecar is up, and a program proxied and trusting it; what mends it
    Doctor(doctor::Arguments),
    /// Print or write the CA certificate, or system roots + CA as one PEM
    Ca(ca::Arguments),
    /// Print, apply or remove the rules that lead connections to a transparent listener
    Capture(capture::Arguments),
    /// Exit 0 when live (or ready): for images without a shell
    Health(health::Arguments),
    /// Read what was tried, and settle what nobody knows the outcome of
    Ledger(ledger::Arguments),
    /// Add the sidecar to Kubernetes manifests; asks no cluster
    Inject(inject::Arguments),
    /// Print the JSON Schema of the config file
    Schema,
}

/// Why a command ended without having done what was asked.
#[derive(Debug)]
enum Stop {
    /// It failed: exit 1.
    Failed(String),
    /// It was asked for wrongly, or the config is wrong: exit 2.
    Usage(String),
    /// A program could not be started: exit 127 where it is not there, else 126, as shells do.
    NotStarted(String, io::ErrorKind),
}

/// Reads the arguments, does what they ask, and says how it went.
pub(crate) fn run() -> ExitCode {
    let arguments = Arguments::parse(); // exits 2 on bad usage, 0 on --help
    let path = arguments.config;
    let done = match arguments.command.unwrap_or(Command::Run) {
        Command::Run => run::run(path),
        Command::Exec(arguments) => exec::exec(path, &arguments),
        Command::Check => check::check(path.as_deref()),
        Command::Explain(arguments) => explain::explain(path.as_deref(), &arguments),
        Command::Env(arguments) => env::env(path.as_deref(), &arguments),
        Command::Doctor(arguments) => doctor::doctor(path.as_deref(), &arguments),
        Command::Ca(arguments) => ca::ca(path.as_deref(), &arguments),
        Command::Capture(arguments) => capture::capture(path.as_deref(), &arguments),
        Command::Health(arguments) => health::health(path.as_deref(), &arguments),
        Command::Ledger(arguments) => ledger::ledger(path.as_deref(), &arguments),
        Command::Inject(arguments) => inject::inject(&arguments),
        Command::Schema => print(&format!("{:#}\n", config::schema())).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|stop| {
        let (text, code) = match stop {
            Stop::Failed(text) => (text, 1),
            Stop::Usage(text) => (text, 2),
            Stop::NotStarted(text, io::ErrorKind::NotFound) => (text, 127),
            Stop::NotStarted(text, _) => (text, 126),
        };
        // Nobody is left to tell when this fails.
        drop(writeln!(io::stderr(), "{text}"));
        ExitCode::from(code)
    })
}

/// The config, by the arguments and the environment.
fn load(path: Option<&Path>) -> Result<Config, Stop> {
    config::load(path, &Environment::read()).map_err(Stop::from)
}

impl From<Faults> for Stop {
    fn from(faults: Faults) -> Self {
        Self::Usage(faults.to_string())
    }
}

/// One line: the error, and what is behind it.
fn failed(error: impl Error) -> Stop {
    let mut text = format!("samekey: {error}");
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    Stop::Failed(text)
}

/// Writes to standard output.
fn print(text: &str) -> Result<(), Stop> {
    print_bytes(text.as_bytes())
}

fn print_bytes(bytes: &[u8]) -> Result<(), Stop> {
    let mut out = io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    match written {
        // A reader that has seen enough, as `head` has.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Stop::Failed(format!("standard output: {error}"))),
    }
}

/// The runtime that everything runs on: one thread a CPU that this process may use.
fn runtime() -> Result<tokio::runtime::Runtime, Stop> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(threads).enable_all().build();
    runtime.map_err(|error| Stop::Failed(format!("no runtime: {error}")))
}

const CONFIG_HELP: &str = "The config file [default: $SAMEKEY_CONFIG, ./samekey.yaml, \
                           /etc/samekey/samekey.yaml, built in]";
