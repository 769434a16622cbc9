//! The provider as a process of its own, and the book that it keeps on file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::ledger::ask;
use crate::support::proxy::BINARY;

/// What the upstream makes of a key that it saw before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    /// One effect a key.
    Honoured,
    /// One effect a request.
    Ignored,
}

/// A running provider; dropping it kills it.
pub(crate) struct Upstream {
    pub(crate) keys: Keys,
    pub(crate) http: SocketAddr,
    pub(crate) control: SocketAddr,
    book: PathBuf,
    _folder: TempDir,
    _child: Child,
}

/// One effect, as the book has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Effect {
    pub(crate) job: String,
    pub(crate) key: String,
}

impl Upstream {
    /// Starts one that fails so often in a hundred, where no script speaks.
    pub(crate) async fn start(keys: Keys, seed: u64, percent: u8) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let book = folder.path().join("book");
        let mut command = Command::new(program());
        command.args(["--print-ports", "--faults", &format!("{seed}:{percent}"), "--book"]);
        command.arg(&book).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        if keys == Keys::Ignored {
            command.arg("--ignore-keys");
        }
        let mut child = command.spawn().expect("the example was built");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let line = lines.next_line().await.expect("it can be read").expect("it says its ports");
        let ports: Value = serde_json::from_str(&line).expect("a line of JSON");
        let at = |name: &str| {
            let port = ports[name].as_u64().and_then(|port| u16::try_from(port).ok());
            SocketAddr::from(([127, 0, 0, 1], port.expect("a port")))
        };
        let (http, control) = (at("http"), at("control"));
        Self { keys, http, control, book, _folder: folder, _child: child }
    }

    /// Gives a scenario its script.
    pub(crate) async fn script(&self, scenario: &str, steps: &str) {
        let wanted = json!({"name": scenario, "steps": steps});
        let done = ask(self.control, Method::POST, "/_sim/scenarios", Some(&wanted)).await;
        assert_eq!(done.expect("it answers").status, 200);
    }

    /// How many requests for an event it has seen.
    pub(crate) async fn seen(&self, event: &str) -> u64 {
        let path = format!("/_sim/report?scenario={event}");
        let report = ask(self.control, Method::GET, &path, None).await;
        report.expect("it answers").json()["requests"].as_u64().expect("a number")
    }

    /// Waits until it has seen a request for an event.
    pub(crate) async fn arrived(&self, event: &str) {
        let path = format!("/_sim/await?scenario={event}&requests=1");
        ask(self.control, Method::GET, &path, None).await.expect("it answers");
    }

    /// Lets go what it withholds.
    pub(crate) async fn release(&self) {
        ask(self.control, Method::POST, "/_sim/release", None).await.expect("it answers");
    }

    /// The effects so far, by business event.
    pub(crate) fn effects(&self) -> BTreeMap<String, Vec<Effect>> {
        let text = std::fs::read_to_string(&self.book).expect("the book can be read");
        let mut effects: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).expect("a line of JSON");
            let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            let effect = Effect { job: text("job"), key: text("key") };
            effects.entry(text("event")).or_default().push(effect);
        }
        effects
    }

    /// How often one business event had an effect.
    pub(crate) fn count(&self, event: &str) -> usize {
        self.effects().get(event).map_or(0, Vec::len)
    }
}

/// The example that cargo builds beside the binary under test.
fn program() -> PathBuf {
    let beside = Path::new(BINARY).parent().expect("a folder");
    let program = beside.join("examples/provider");
    assert!(program.exists(), "{}: cargo test builds it, or --example provider", program.display());
    program
}
