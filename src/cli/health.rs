//! `samekey health`.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

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
    match ask(&address, probe) {
        Ok(answer) if answer.starts_with("HTTP/1.1 200") => Ok(ExitCode::SUCCESS),
        Ok(answer) => {
            let status = answer.lines().next().unwrap_or("nothing").to_owned();
            Err(Stop::Failed(format!("samekey: {address}{probe} answered {status}")))
        }
        Err(error) => Err(Stop::Failed(format!("samekey: {address}{probe}: {error}"))),
    }
}

/// A wildcard address is asked on loopback.
fn reachable(address: &str) -> String {
    match address.rsplit_once(':') {
        Some(("0.0.0.0" | "[::]", port)) => format!("127.0.0.1:{port}"),
        _ => address.to_owned(),
    }
}

fn ask(address: &str, probe: &str) -> io::Result<String> {
    let address = address.to_socket_addrs()?.next();
    let address = address.ok_or_else(|| io::Error::other("the name has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {probe} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(answer)
}

const PATIENCE: Duration = Duration::from_secs(3);
