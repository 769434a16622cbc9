//! A wall clock that somebody sets, laid under the sidecar by libfaketime.
//!
//! The library sets the wall clock alone here: a clock that somebody sets moves neither
//! the monotonic clock nor the boot clock, and it could not fake one of these without the
//! other. It goes back by less than a day: an authority that is not in force yet stops a start.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tokio::time::sleep;

use super::Scene;
use crate::support::proxy::BINARY;
use crate::upstream::Keys;

/// A scene whose sidecar believes a clock of the test's.
struct Clock {
    scene: Scene,
    file: PathBuf,
}

impl Clock {
    async fn new(keys: Keys, idempotency: &str) -> Self {
        let scene = Scene::new(keys, idempotency).await;
        let file = scene.sidecar.folder.path().join("clock");
        let mut clock = Self { scene, file };
        clock.set("+0");
        clock.start().await;
        clock
    }

    /// Starts the sidecar on the clock as it is set.
    async fn start(&mut self) {
        let mut command = Command::new(BINARY);
        command
            .arg("run")
            .env("LD_PRELOAD", library())
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        self.scene.sidecar.start_as(command, false).await.expect("it starts");
    }

    /// Sets it, by so much from the true time: `-2h`, `+30m`.
    fn set(&self, offset: &str) {
        // Renamed into place: the library may read at any moment.
        let fresh = self.file.with_extension("new");
        fs::write(&fresh, format!("{offset}\n")).expect("written");
        fs::rename(fresh, &self.file).expect("renamed");
    }

    async fn restart(&mut self) {
        self.scene.sidecar.kill().await.expect("it died of it");
        self.start().await;
    }
}

fn library() -> String {
    let found = ["x86_64", "aarch64"]
        .map(|machine| format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketime.so.1"));
    let there = found.iter().find(|path| fs::exists(path).is_ok_and(|is| is));
    there.expect("libfaketime is installed: run .ci/install").clone()
}

#[tokio::test]
async fn a_clock_that_is_set_makes_no_record_expire_early() {
    let mut clock = Clock::new(Keys::Ignored, ", ttl: 1h").await;
    assert_eq!(clock.scene.said("a").await.0, 201);
    for offset in ["-2h", "+30m", "-20h", "+2h", "+0"] {
        clock.set(offset);
        clock.scene.replays("a").await;
    }
    for offset in ["-2h", "-20h", "+30m", "+0"] {
        clock.set(offset);
        clock.restart().await;
        clock.scene.replays("a").await;
    }
    // A record made while the clock was wrong lives as long as any.
    clock.set("-20h");
    assert_eq!(clock.scene.said("b").await.0, 201);
    clock.restart().await;
    clock.scene.replays("b").await;
    clock.set("+0");
    let late = clock.scene.said("b").await;
    assert!([(201, ""), (409, "response-not-retained")].contains(&(late.0, late.1.as_str())));
    // Past its end by the clock: kept or not, it is not done again.
    clock.set("+2h");
    clock.restart().await;
    let late = clock.scene.said("a").await;
    assert!([(201, ""), (409, "response-not-retained")].contains(&(late.0, late.1.as_str())));
    assert_eq!((clock.scene.upstream.count("a"), clock.scene.upstream.count("b")), (1, 1));
}

#[tokio::test]
async fn an_unknown_outcome_outlives_any_clock() {
    let mut clock = Clock::new(Keys::Ignored, ", ttl: 1h, keep_key: 1h").await;
    clock.scene.upstream.script("a", "500 effect").await;
    assert_eq!(clock.scene.said("a").await.0, 500);
    for offset in ["-2h", "+300d", "-20h", "+0"] {
        clock.set(offset);
        clock.restart().await;
        assert_eq!(clock.scene.said("a").await, (409, "outcome-unknown".to_owned()), "{offset}");
    }
    assert_eq!(clock.scene.upstream.count("a"), 1);
}

#[tokio::test]
async fn a_promise_to_de_duplicate_is_not_stretched_by_a_clock_set_back() {
    let mut clock = Clock::new(Keys::Honoured, ", upstream_ttl: 3s").await;
    clock.scene.upstream.script("a", "500 effect; ok").await;
    clock.scene.upstream.script("b", "500 effect; ok").await;
    assert_eq!(clock.scene.said("a").await.0, 500);
    assert_eq!(clock.scene.said("b").await.0, 500);
    clock.set("-1h");
    // The promise itself is waited out, on the upstream's clock.
    sleep(Duration::from_millis(3200)).await;
    assert_eq!(clock.scene.said("a").await, (409, "outcome-unknown".to_owned()), "it ran on");
    clock.restart().await;
    assert_eq!(clock.scene.said("b").await, (409, "outcome-unknown".to_owned()), "restarted");
    assert_eq!(
        (clock.scene.upstream.seen("a").await, clock.scene.upstream.seen("b").await),
        (1, 1)
    );
}

#[tokio::test]
async fn a_promise_is_over_once_the_clock_says_so() {
    let mut clock = Clock::new(Keys::Honoured, ", upstream_ttl: 1h").await;
    for event in ["a", "b"] {
        clock.scene.upstream.script(event, "500 effect; ok").await;
        assert_eq!(clock.scene.said(event).await.0, 500);
    }
    clock.set("+2h");
    clock.restart().await;
    assert_eq!(clock.scene.said("a").await, (409, "outcome-unknown".to_owned()));
    assert_eq!(clock.scene.upstream.seen("a").await, 1);
    clock.set("+0");
    clock.restart().await;
    assert_eq!(clock.scene.said("b").await.0, 201, "within it, it is kept to");
    assert_eq!((clock.scene.upstream.seen("b").await, clock.scene.upstream.count("b")), (2, 1));
}
