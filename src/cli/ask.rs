//! One question to the admin side of a sidecar, and its answer.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::time::Duration;

use samekey::app::ledger::admin_file;

/// What a sidecar answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its first line.
    pub(super) line: String,
    /// What came after its head.
    pub(super) body: String,
}

impl Answer {
    /// Its status; zero where it is no HTTP.
    pub(super) fn status(&self) -> u16 {
        let mut words = self.line.split(' ');
        let http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
        words.next().filter(|_| http).and_then(|status| status.parse().ok()).unwrap_or(0)
    }
}

/// Asks, and reads at most `most` bytes of the answer.
pub(super) fn ask(
    address: &str,
    (method, path): (&str, &str),
    body: &str,
    most: u64,
) -> io::Result<Answer> {
    let address = address.to_socket_addrs()?.next();
    let address = address.ok_or_else(|| io::Error::other("the name has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let length = body.len();
    // In one write: a server may answer, and close, before it has read a second one.
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).map_err(in_time)?;
    let mut answer = String::new();
    stream.take(most).read_to_string(&mut answer).map_err(in_time)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let line = head.lines().next().unwrap_or("nothing").to_owned();
    Ok(Answer { line, body: body.to_owned() })
}

/// Names a timeout, which each system calls by another error.
fn in_time(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {PATIENCE:?}"))
        }
        _ => error,
    }
}

/// Where the admin side may be: as the sidecar itself says in `dir`, then as its config says.
///
/// What it says comes first: the config may leave the port to the system, or have been changed
/// since the start.
pub(super) fn admin_sides(dir: &Path, by_config: Option<&str>) -> Vec<String> {
    let told = fs::read_to_string(admin_file(dir)).unwrap_or_default();
    let all = [Some(told.trim().to_owned()), by_config.map(reachable)].into_iter().flatten();
    // Nobody can be asked at port 0.
    let all = all.filter(|address| !address.is_empty() && !address.ends_with(":0"));
    let mut all: Vec<String> = all.collect();
    all.dedup();
    all
}

/// A wildcard address is asked on loopback.
pub(super) fn reachable(address: &str) -> String {
    match address.rsplit_once(':') {
        Some(("0.0.0.0" | "[::]", port)) => format!("127.0.0.1:{port}"),
        _ => address.to_owned(),
    }
}

const PATIENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_own_word_comes_before_the_configs_and_port_0_is_never_asked() {
        let dir = tempfile::tempdir().unwrap();
        let check = |by_config, wanted: &[&str]| {
            assert_eq!(admin_sides(dir.path(), by_config), wanted, "{by_config:?}");
        };
        check(None, &[]);
        check(Some("127.0.0.1:0"), &[]);
        check(Some("0.0.0.0:9090"), &["127.0.0.1:9090"]);
        fs::write(admin_file(dir.path()), "127.0.0.1:4000\n").unwrap();
        check(None, &["127.0.0.1:4000"]);
        check(Some("[::]:0"), &["127.0.0.1:4000"]);
        check(Some("localhost:9090"), &["127.0.0.1:4000", "localhost:9090"]);
        check(Some("0.0.0.0:4000"), &["127.0.0.1:4000"]);
        fs::write(admin_file(dir.path()), "").unwrap();
        check(Some("127.0.0.1:9090"), &["127.0.0.1:9090"]);
    }

    #[test]
    fn who_does_not_answer_is_said_to_be_late() {
        for (error, wanted) in [
            (io::Error::from_raw_os_error(11), "no answer within 3s"),
            (io::ErrorKind::TimedOut.into(), "no answer within 3s"),
            (io::Error::other("it broke"), "it broke"),
        ] {
            assert_eq!(in_time(error).to_string(), wanted);
        }
    }
}
