//! Runs of the binary that end by themselves, and what they said.

use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::Command;

use crate::provider::Provider;
use crate::support::proxy::BINARY;

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A folder with this `samekey.yaml`.
pub(crate) fn folder_with(config: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("samekey.yaml"), config).expect("written");
    folder
}

/// A folder whose config trusts `provider`, listens on free ports and ends with `rest`.
pub(crate) fn folder_beside(provider: &Provider, rest: &str) -> TempDir {
    let folder = folder_with(&format!(
        "listeners: [{{address: '127.0.0.1:0'}}]\nadmin: {{address: '127.0.0.1:0'}}\n\
         state: {{dir: state, journal: memory}}\nupstream: {{roots: provider-ca.pem}}\n{rest}"
    ));
    let ca = folder.path().join("provider-ca.pem");
    std::fs::write(ca, &provider.ports.ca_pem).expect("written");
    folder
}

/// The binary in `folder`, with nothing of this process's settings for it or for proxies.
pub(crate) fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    for name in ["CONFIG", "LISTEN", "AUTH", "ADMIN", "STATE_DIR", "LOG", "LOG_FORMAT"] {
        command.env_remove(format!("SAMEKEY_{name}"));
    }
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command
}

/// Runs the binary in `folder` to its end.
pub(crate) async fn samekey(folder: &Path, arguments: &[&str]) -> Ran {
    ran(&mut command(folder, arguments)).await
}

/// Runs a command to its end.
pub(crate) async fn ran(command: &mut Command) -> Ran {
    let ended = tokio::time::timeout(std::time::Duration::from_mins(1), command.output()).await;
    let output = ended.expect("it ends in time").expect("it can be run");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}
