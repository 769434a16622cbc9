//! What holds the application back until samekey is ready, where no startup probe does.

use std::process::Stdio;
use std::time::Duration;

use crate::support::program::{command, folder_with, samekey};

/// A config on ports that were free a moment ago.
fn config() -> String {
    let held = [0, 1].map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
    let [proxy, admin] = held.map(|listener| listener.local_addr().expect("bound"));
    format!(
        "listeners: [{{address: '{proxy}'}}]\nadmin: {{address: '{admin}'}}\nstate: {{dir: state}}\n"
    )
}

#[tokio::test]
async fn the_hook_ends_once_the_sidecar_is_ready() {
    let folder = folder_with(&config());
    let hook = ["health", "--ready", "--wait", "50s"];
    let mut hook = command(folder.path(), &hook).spawn().expect("it starts");
    let early = tokio::time::timeout(Duration::from_millis(300), hook.wait()).await;
    assert!(early.is_err(), "nobody is there yet");
    let mut sidecar = command(folder.path(), &["run"]);
    let sidecar = sidecar.stderr(Stdio::null()).spawn().expect("it starts");
    let ended = tokio::time::timeout(Duration::from_secs(50), hook.wait()).await.expect("in time");
    assert_eq!(ended.expect("it ends").code(), Some(0));
    drop(sidecar);
}

#[tokio::test]
async fn it_gives_up_when_its_time_is_over() {
    let folder = folder_with(&config());
    let began = std::time::SystemTime::now();
    let ran = samekey(folder.path(), &["health", "--wait", "1s"]).await;
    assert!(began.elapsed().expect("forward") >= Duration::from_secs(1));
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("/livez: "), "{}", ran.err);
    for wrong in ["0s", "3601s", "60", "1m", "-1s"] {
        let ran = samekey(folder.path(), &["health", &format!("--wait={wrong}")]).await;
        assert_eq!(ran.code, Some(2), "{wrong}");
        assert!(ran.err.contains("must be from 1s to 3600s"), "{wrong}: {}", ran.err);
    }
}
