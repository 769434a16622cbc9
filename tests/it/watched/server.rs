//! A Prometheus of a test's own: on a free port of loopback, with a folder that goes with it.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use super::{all, config, program, text, word};
use crate::support::client;

/// A Prometheus that runs until it is dropped.
pub(super) struct Prometheus {
    address: SocketAddr,
    folder: TempDir,
    child: Child,
}

impl Prometheus {
    /// Starts one that takes up these scrape jobs and the rules as they are shipped, and
    /// looks every second.
    pub(super) async fn start(jobs: &Value) -> Self {
        let written = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [config("prometheus").join("rules.yml")],
            "scrape_configs": jobs,
        });
        // Another may take the port that was free a moment ago.
        for _ in 0..3 {
            if let Some(up) = Self::try_start(&written).await {
                return up;
            }
        }
        panic!("Prometheus does not start");
    }

    async fn try_start(written: &Value) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, written.to_string()).expect("written"); // JSON is YAML
        let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = free.local_addr().expect("an address");
        drop(free);
        let log = std::fs::File::create(folder.path().join("log")).expect("a file");
        let child = program("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it can be run");
        let mut started = Self { address, folder, child };
        let up = timeout(PATIENCE, started.is_up()).await;
        up.unwrap_or_default().then_some(started)
    }

    /// Whether it is ready, once it is or has ended.
    async fn is_up(&mut self) -> bool {
        loop {
            if self.child.try_wait().expect("it can be asked").is_some() {
                return false;
            }
            if TcpStream::connect(self.address).await.is_ok()
                && client::get(self.address, "/-/ready").await.status == 200
            {
                return true;
            }
            sleep(LOOK).await;
        }
    }

    /// What its API has at this path.
    pub(super) async fn api(&self, path: &str) -> Value {
        let answer = client::get(self.address, &format!("/api/v1/{path}")).await;
        let said = answer.json();
        assert_eq!(word(&said, "status"), "success", "{path}: {said}");
        said["data"].clone()
    }

    /// The series that an expression comes to at this moment.
    pub(super) async fn query(&self, expression: &str) -> Vec<Value> {
        let asked = utf8_percent_encode(expression, NON_ALPHANUMERIC);
        all(&self.api(&format!("query?query={asked}")).await, "result").to_vec()
    }

    /// Waits until an expression comes to anything.
    pub(super) async fn until(&self, expression: &str) -> Vec<Value> {
        self.within(expression, |found| !found.is_empty()).await
    }

    /// Waits until an expression comes to nothing.
    pub(super) async fn until_none(&self, expression: &str) {
        self.within(expression, <[Value]>::is_empty).await;
    }

    async fn within(&self, expression: &str, is_met: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let met = async {
            loop {
                let found = self.query(expression).await;
                if is_met(&found) {
                    return found;
                }
                sleep(LOOK).await;
            }
        };
        let met = timeout(PATIENCE, met).await;
        met.unwrap_or_else(|_late| {
            panic!("in vain: {expression}\n{}", text(&self.folder.path().join("log")))
        })
    }
}

/// On a machine with much else to do.
const PATIENCE: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(100);
