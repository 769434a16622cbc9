//! A proxy in a process of its own, and what the kernel says about it.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::sleep;

use crate::yard::Fault;
use crate::yard::cores::Cores;
use crate::yard::pki::Files;

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The floor.
    Bare,
    /// Ours, its keys and answers in memory.
    Samekey,
    /// Ours, with a journal that survives the process.
    Disk,
    /// Ours, with one that survives a power cut.
    Power,
}

/// A running proxy; it ends when this is dropped.
pub(crate) struct Proxy {
    child: Child,
    /// Which it is.
    pub(crate) kind: Kind,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Where its admin side does.
    admin: Option<String>,
    /// Its state; gone with it.
    home: TempDir,
}

impl Proxy {
    /// Starts one, on its core.
    pub(crate) async fn start(kind: Kind, files: &Files, cores: &Cores) -> Result<Self, Fault> {
        let home = tempfile::tempdir()?;
        match kind {
            Kind::Bare => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("bare").args([&files.roots, &files.ca, &files.ca_key]);
                command.stdin(Stdio::piped()).stdout(Stdio::piped());
                let mut child = cores.for_proxy(|| Ok(command.spawn()?))?;
                let stdout = child.stdout.take().ok_or("its output is piped")?;
                let mut line = String::new();
                BufReader::new(stdout).read_line(&mut line)?;
                Ok(Self { child, kind, address: line.trim().parse()?, admin: None, home })
            }
            Kind::Samekey | Kind::Disk | Kind::Power => {
                let config = home.path().join("samekey.yaml");
                fs::write(&config, written(kind, files, home.path()))?;
                let mut command = Command::new(env!("CARGO_BIN_EXE_samekey"));
                // What is exported to this shell is meant for another sidecar.
                command.env_clear().arg("run").arg("--config").arg(&config);
                let log = home.path().join("log");
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
                let child = cores.for_proxy(|| Ok(command.spawn()?))?;
                let file = home.path().join("state/public/env.sh");
                let address = ([0; 4], 0).into();
                let mut proxy = Self { child, kind, address, admin: None, home };
                let address = address_in(&file).await;
                proxy.address =
                    address.ok_or_else(|| fs::read_to_string(log).unwrap_or_default())?;
                let admin = fs::read_to_string(proxy.home.path().join("state/admin"));
                proxy.admin = admin.ok().map(|line| line.trim().to_owned());
                Ok(proxy)
            }
        }
    }

    /// The CPU time that it has used, in user and kernel mode.
    pub(crate) fn cpu(&self) -> Result<Duration, Fault> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The second field, the name, may hold spaces; it ends with the last bracket.
        let (_, fields) = stat.rsplit_once(')').ok_or("no name in stat")?;
        let times = fields.split_whitespace().skip(UTIME).take(2);
        let ticks = times.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(ticks * TICK_MS))
    }

    /// Commits of its journal so far.
    pub(crate) fn commits(&self) -> Result<u64, Fault> {
        let address = self.admin.as_deref().ok_or("it has no admin side")?;
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET /api/status HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("no body")?;
        let status: serde_json::Value = serde_json::from_str(body)?;
        Ok(status.pointer("/store/commits").and_then(serde_json::Value::as_u64).ok_or("none")?)
    }

    /// The memory that is its own, and its share of what it shares, in KiB.
    pub(crate) fn pss_kib(&self) -> Result<u64, Fault> {
        let file = format!("/proc/{}/smaps_rollup", self.child.id());
        let rollup = fs::read_to_string(file)?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let value = line.and_then(|line| line.split_whitespace().next());
        Ok(value.ok_or("no Pss in smaps_rollup")?.parse()?)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // One that has ended already is what is wanted.
        drop((self.child.kill(), self.child.wait()));
    }
}

/// Everything at its default but where things are, and one route that keeps no body on disk.
fn written(kind: Kind, files: &Files, home: &Path) -> String {
    let journal = match kind {
        Kind::Bare | Kind::Samekey => "journal: memory",
        Kind::Disk => "journal: disk",
        Kind::Power => "journal: disk, durability: power",
    };
    let (roots, ca, key) = (files.roots.display(), files.ca.display(), files.ca_key.display());
    let state = home.join("state");
    let state = state.display();
    format!(
        "
listeners: [{{address: '127.0.0.1:0', mode: forward}}]
admin: {{address: '127.0.0.1:0'}}
state: {{dir: '{state}', {journal}}}
intercept: {{ca: {{cert: '{ca}', key: '{key}'}}}}
upstream: {{roots: '{roots}'}}
providers: []
routes:
  - {{name: not-on-disk, match: {{hosts: ['*'], paths: ['/memory/**']}}, body: {{memory: 1MiB, disk: 0}}}}
  - {{name: everything, match: {{hosts: ['*']}}}}
log: {{level: warn}}
"
    )
}

/// Waits until samekey has written where it listens.
async fn address_in(file: &Path) -> Option<SocketAddr> {
    for _ in 0..LOOKS_MAX {
        let text = fs::read_to_string(file).unwrap_or_default();
        let url = text.split(['=', '\'', '"', '\n']).find_map(|part| part.strip_prefix("http://"));
        if let Some(url) = url {
            return url.trim_end_matches('/').parse().ok();
        }
        sleep(LOOK_EVERY).await;
    }
    None
}

/// Fields between the name and `utime`: proc(5).
const UTIME: usize = 11;
/// `USER_HZ` is 100 wherever Linux runs.
const TICK_MS: u64 = 10;
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Ten seconds in all.
const LOOKS_MAX: u32 = 2000;
