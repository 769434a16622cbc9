//! A samekey process of a test's own: free ports, a folder that goes with it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;

use crate::provider::Provider;

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_samekey");

/// A running sidecar; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Samekey {
    /// Where its proxy listens.
    pub(crate) proxy: SocketAddr,
    /// Where each of its listeners listens, in the order of the config.
    pub(crate) listeners: Vec<SocketAddr>,
    /// Where its admin side listens.
    pub(crate) admin: SocketAddr,
    /// Its folder: `samekey.yaml`, and `state/` with `public/ca.pem` in it.
    pub(crate) folder: Arc<TempDir>,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

/// A run that ended before it was up.
#[derive(Debug)]
pub(crate) struct Stopped {
    pub(crate) status: ExitStatus,
    pub(crate) log: Vec<String>,
}

impl Samekey {
    /// Starts on a config that trusts `provider`; `rest` holds everything from `routes:` on,
    /// and may hold any key but `listeners`, `admin`, `state` and `upstream`.
    pub(crate) async fn beside(provider: &Provider, rest: &str) -> Self {
        let ca = provider.ports.ca_pem.clone();
        Self::start_with(&format!("upstream: {{roots: provider-ca.pem}}\n{rest}"), Some(&ca)).await
    }

    /// Starts on a config of which only the ports and the state directory are given.
    pub(crate) async fn start(rest: &str) -> Self {
        Self::start_with(rest, None).await
    }

    async fn start_with(rest: &str, ca: Option<&str>) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        if let Some(ca) = ca {
            std::fs::write(folder.path().join("provider-ca.pem"), ca).expect("written");
        }
        let listeners = if rest.contains("listeners:") {
            ""
        } else {
            "listeners: [{address: '127.0.0.1:0', mode: forward}]\n"
        };
        let text =
            format!("{listeners}admin: {{address: '127.0.0.1:0'}}\nstate: {{dir: state}}\n{rest}");
        std::fs::write(folder.path().join("samekey.yaml"), text).expect("written");
        Self::run_in(folder).await
    }

    /// Starts in a folder that holds a `samekey.yaml`.
    pub(crate) async fn run_in(folder: Arc<TempDir>) -> Self {
        Self::run_with(folder, &[]).await
    }

    /// Starts in a folder, with these variables laid over its config.
    pub(crate) async fn run_with(folder: Arc<TempDir>, variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(BINARY);
        command.arg("run").envs(variables.iter().copied());
        let started = Self::run_command(folder, command).await;
        started.unwrap_or_else(|Stopped { status, log }| panic!("not up: {status}: {log:#?}"))
    }

    /// Starts in a folder by a command that runs the binary, as this one or under another.
    pub(crate) async fn run_command(
        folder: Arc<TempDir>,
        mut command: Command,
    ) -> Result<Self, Stopped> {
        command
            .current_dir(folder.path())
            .env_remove("SAMEKEY_CONFIG")
            .env("SAMEKEY_LOG_FORMAT", "json")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .expect("the binary was built");
        let stderr = child.stderr.take().expect("it is piped");
        let mut lines = BufReader::new(stderr).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let up = loop {
            let next = tokio::time::timeout(Duration::from_secs(20), lines.next_line()).await;
            let line = next.expect("it starts in time").expect("its log can be read");
            let Some(line) = line else {
                let status = child.wait().await.expect("it can be waited for");
                let log = log.lock().expect("a lock").clone();
                return Err(Stopped { status, log });
            };
            log.lock().expect("a lock").push(line.clone());
            let value: Value = serde_json::from_str(&line).unwrap_or_default();
            if value["message"] == "samekey is up" {
                break value;
            }
        };
        let kept = log.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                kept.lock().expect("a lock").push(line);
            }
        });
        let listeners: Vec<SocketAddr> = up["listeners"]
            .as_str()
            .expect("it says where it listens")
            .split(", ")
            .filter_map(|text| text.split(' ').find_map(|word| word.parse().ok()))
            .collect();
        let admin = up["admin"].as_str().and_then(|text| text.parse().ok());
        let proxy = listeners.first().copied().expect("one listener at least");
        let admin = admin.expect("an admin side");
        Ok(Self { proxy, listeners, admin, folder, child, log })
    }

    /// The proxy's URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.proxy)
    }

    /// Its CA certificate, PEM.
    pub(crate) fn ca_pem(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("state/public/ca.pem")).expect("published")
    }

    /// Where its config file is.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("samekey.yaml")
    }

    /// Its folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Waits for a line of the log that holds all of these words, for at most ten seconds.
    pub(crate) async fn logged(&self, words: &[&str]) -> String {
        let found = async {
            loop {
                let mut lines = self.log().into_iter();
                if let Some(line) = lines.find(|line| words.iter().all(|word| line.contains(word)))
                {
                    break line;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(10), found).await;
        found.unwrap_or_else(|_late| panic!("no line with {words:?}: {:#?}", self.log()))
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().expect("a lock").clone()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        self.child.id().and_then(|id| i32::try_from(id).ok()).expect("it runs")
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid()).expect("a process id");
        rustix::process::kill_process(pid, signal).expect("it runs");
    }

    /// Waits for it to end by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let ended = tokio::time::timeout(Duration::from_mins(1), self.child.wait()).await;
        ended.expect("it ends in time").expect("it can be waited for")
    }

    /// Tells it to end, and waits until it has.
    pub(crate) async fn stopped(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.ended().await
    }

    /// What `/metrics` shows.
    pub(crate) async fn metrics(&self) -> String {
        crate::support::client::get(self.admin, "/metrics").await.text()
    }

    /// The value of one series, such as `samekey_attempts_total{outcome="done",route="r"}`;
    /// zero where it is not there.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let text = self.metrics().await;
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
    }

    /// Waits until a series has a value, for at most ten seconds.
    pub(crate) async fn until(&self, series: &str, wanted: f64) {
        let reached = async {
            while (self.metric(series).await - wanted).abs() > 1e-9 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(10), reached).await;
        assert!(reached.is_ok(), "{series} did not become {wanted}:\n{}", self.metrics().await);
    }
}
