//! The state directory: full, read-only, or somebody else's.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::time::{Instant, sleep};

use super::{Scene, plain};
use crate::support::Samekey;
use crate::support::proxy::BINARY;
use crate::upstream::Keys;

/// A small file system on a directory, for as long as this lives.
struct Small(PathBuf);

impl Small {
    /// Mounts it; `None` where this user may not.
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).expect("a folder");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=4m,mode=0711", "tmpfs"]).arg(at);
        let done = command.output().ok()?.status.success();
        done.then(|| Self(at.to_owned()))
    }

    fn fill(&self) {
        let path = self.0.join("filler");
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a file");
        let mut size = 1 << 20;
        while size > 0 {
            match file.write(&vec![0; size]) {
                Ok(0) | Err(_) => size /= 2,
                Ok(_) => {}
            }
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.0.join("filler")).expect("it is there");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()), "{} stays mounted", self.0.display());
    }
}

/// What keeps a journal from growing, and lets it grow again.
enum Limit {
    Mounted(Small),
    /// Without the right to mount: no file may grow past a size.
    Resource,
}

impl Limit {
    async fn start(scene: &mut Scene) -> Self {
        let state = scene.sidecar.folder.path().join("state");
        if let Some(small) = Small::mount(&state) {
            scene.sidecar.start(None).await.expect("it starts");
            return Self::Mounted(small);
        }
        let told = "crash: no right to mount: a file size limit stands for the full disk";
        writeln!(io::stdout(), "{told}").expect("it can be written");
        // Past the limit a write shall fail, not kill.
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" run", BINARY]);
        scene.sidecar.start_as(command, false).await.expect("it starts");
        Self::Resource
    }

    fn exhaust(&self, scene: &mut Scene) {
        match self {
            Self::Mounted(small) => small.fill(),
            Self::Resource => limit_files(scene, Some(LIMIT)),
        }
    }

    fn make_room(&self, scene: &mut Scene) {
        match self {
            Self::Mounted(small) => small.make_room(),
            Self::Resource => limit_files(scene, None),
        }
    }
}

fn limit_files(scene: &mut Scene, bytes: Option<u64>) {
    let pid = Pid::from_raw(scene.sidecar.it().pid());
    let limit = Rlimit { current: bytes, maximum: None };
    prlimit(pid, Resource::Fsize, limit).expect("its own user may");
}

#[tokio::test]
async fn a_full_disk_sends_nothing_and_recovers_without_a_restart() {
    let mut scene = Scene::new(Keys::Ignored, "").await;
    let limit = Limit::start(&mut scene).await;
    assert_eq!(scene.said("before").await.0, 201);
    scene.upstream.script("running", "held").await;
    let running = scene.order("running");
    let proxy = scene.sidecar.proxy();
    let running = tokio::spawn(async move { running.ask(proxy).await });
    scene.upstream.arrived("running").await;
    limit.exhaust(&mut scene);

    let refused = until_refused(&mut scene).await;
    assert_eq!((scene.upstream.seen(&refused).await, scene.upstream.count(&refused)), (0, 0));
    scene.upstream.release().await;
    let running = running.await.expect("it was not cut").expect("an answer");
    assert!(running.status == 201 && running.whole, "what runs is delivered");
    scene.replays("before").await;
    let again = scene.ask("running").await.said();
    let known = [(201, ""), (409, "outcome-unknown"), (409, "response-not-retained")];
    assert!(known.contains(&(again.0, again.1.as_str())), "{again:?}");
    assert_eq!(scene.upstream.count("running"), 1);

    limit.make_room(&mut scene);
    until_taken(&mut scene, &refused).await;
    assert_eq!(scene.upstream.count(&refused), 1, "what was refused may be had once");
    scene.sidecar.kill().await.expect("it died of it");
    scene.sidecar.start(None).await.expect("it starts");
    scene.replays("before").await;
    scene.replays(&refused).await;
    assert_eq!(scene.upstream.count("running"), 1);
    scene.sidecar.kill().await.expect("it died of it");
}

/// Orders until the store takes no more, and says which order it refused. A file that has
/// room inside goes on for a while.
async fn until_refused(scene: &mut Scene) -> String {
    for nth in 0..ORDERS_MAX {
        let event = format!("o-{nth}");
        scene.upstream.script(&event, "ok pad=20000").await;
        let (status, slug) = scene.said(&event).await;
        if (status, slug.as_str()) == (503, "store-unavailable") {
            return event;
        }
        assert_eq!(status, 201, "{slug}");
    }
    panic!("{ORDERS_MAX} orders found room on a full disk");
}

/// Repeats an order until the store takes it.
async fn until_taken(scene: &mut Scene, event: &str) {
    let began = Instant::now();
    loop {
        let (status, slug) = scene.said(event).await;
        if status == 201 {
            return;
        }
        assert_eq!((status, slug.as_str()), (503, "store-unavailable"));
        assert!(began.elapsed() < RECOVERY_MAX, "there is room, and it takes nothing");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_read_only_directory_is_named_and_nothing_starts() {
    let mut scene = Scene::up(Keys::Ignored, "").await;
    assert_eq!(scene.said("a").await.0, 201);
    scene.sidecar.kill().await.expect("it died of it");
    chmod(&scene, "a-w");
    let started = Samekey::run_command(scene.sidecar.folder.clone(), bound_by_modes()).await;
    chmod(&scene, "u+w");
    let stopped = started.expect_err("it cannot keep anything");
    let told = plain(&stopped.log);
    assert_eq!(stopped.status.code(), Some(1), "{told}");
    assert!(told.contains("state"), "{told}");
    scene.sidecar.start(None).await.expect("it starts once it may write");
    scene.replays("a").await;
}

fn chmod(scene: &Scene, mode: &str) {
    let state = scene.sidecar.folder.path().join("state");
    let done = Command::new("chmod").args(["-R", mode]).arg(state).status();
    assert!(done.is_ok_and(|status| status.success()), "its owner may");
}

/// The binary, without root's right to write where nobody may.
fn bound_by_modes() -> Command {
    if !rustix::process::getuid().is_root() {
        let mut command = Command::new(BINARY);
        command.arg("run");
        return command;
    }
    let mut command = Command::new("setpriv");
    let rights = "-dac_override,-dac_read_search";
    command.arg(format!("--bounding-set={rights}")).arg(format!("--inh-caps={rights}"));
    command.args([BINARY, "run"]);
    command
}

#[tokio::test]
async fn a_second_process_on_a_state_directory_is_refused_and_the_first_goes_on() {
    let mut scene = Scene::up(Keys::Ignored, "").await;
    assert_eq!(scene.said("a").await.0, 201);
    let mut command = Command::new(BINARY);
    command.arg("run");
    let second = Samekey::run_command(scene.sidecar.folder.clone(), command).await;
    let stopped = second.expect_err("the directory is taken");
    let told = plain(&stopped.log);
    assert_eq!(stopped.status.code(), Some(1), "{told}");
    assert!(told.contains("state: ") || told.contains("/state"), "{told}");
    scene.replays("a").await;
    assert_eq!(scene.said("b").await.0, 201);
}

/// Less than a journal has after a few orders.
const LIMIT: u64 = 64 * 1024;
/// More than four mebibytes hold.
const ORDERS_MAX: usize = 1000;
/// How soon room on the disk is to be noticed.
const RECOVERY_MAX: Duration = Duration::from_secs(20);
