//! The flaky provider as a program of its own, for the demo and for trying by hand.

#[path = "engine.rs"]
mod engine;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use serde_json::json;

use engine::apis::Name;
use engine::faults::Faults;
use engine::{Options, Provider};

/// An API on loopback that fails by script.
#[derive(Parser)]
#[command(name = "provider")]
struct Args {
    /// Writes the CA that its certificate comes from here, as PEM.
    #[arg(long, value_name = "FILE")]
    ca_out: Option<PathBuf>,
    /// Prints one JSON line that says what listens where.
    #[arg(long)]
    print_ports: bool,
    #[arg(long, default_value = "127.0.0.1:0")]
    http: SocketAddr,
    #[arg(long, default_value = "127.0.0.1:0")]
    https: SocketAddr,
    #[arg(long, default_value = "127.0.0.1:0")]
    control: SocketAddr,
    /// What TLS offers, in this order.
    #[arg(long, value_delimiter = ',', default_value = "h2,http/1.1")]
    alpn: Vec<String>,
    /// Lets each POST have an effect, whatever its key.
    #[arg(long)]
    ignore_keys: bool,
    /// Appends each effect to this file, before its answer goes out.
    #[arg(long, value_name = "FILE")]
    book: Option<PathBuf>,
    /// Mixes faults in, where no script speaks: by this seed, for so many requests in a hundred.
    #[arg(long, value_name = "SEED:PERCENT")]
    faults: Option<Faults>,
    /// Serves these whole APIs too, each on a free port of its own.
    #[arg(long, value_name = "NAME", value_delimiter = ',', num_args = 1..)]
    apis: Vec<Name>,
    /// A scenario and its steps: `NAME=429 retry_after=1; 503`.
    #[arg(long = "script", value_name = "NAME=STEPS")]
    scripts: Vec<String>,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let args = Args::parse();
    let options = Options {
        http: args.http,
        https: args.https,
        control: args.control,
        honours_keys: !args.ignore_keys,
        alpn: args.alpn,
        ca_out: args.ca_out,
        book: args.book,
        faults: args.faults,
        apis: args.apis,
        ..Options::default()
    };
    let provider = Provider::start(options).await?;
    for script in &args.scripts {
        let (name, steps) = script.split_once('=').unwrap_or((script, ""));
        provider.script(name, steps);
    }
    if args.print_ports {
        let ports = &provider.ports;
        let apis = ports.apis.iter().map(|(name, at)| (name.as_str(), at.port()));
        let line = json!({
            "http": ports.http_addr.port(),
            "https": ports.https_addr.port(),
            "control": ports.control_addr.port(),
            "apis": apis.collect::<BTreeMap<_, _>>(),
        });
        writeln!(io::stdout(), "{line}")?;
    }
    tokio::signal::ctrl_c().await
}
