//! A journal that is damaged: named, never touched, and out of the way by the command that is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Scene, plain};
use crate::support::Samekey;
use crate::support::proxy::BINARY;
use crate::upstream::Keys;

/// What is done to the bytes of the file.
type Wound = fn(&mut Vec<u8>);

const WOUNDS: [(&str, Wound); 5] = [
    ("its header overwritten", |bytes| bytes[..100].fill(0x5a)),
    ("its header zeroed", |bytes| bytes[..100].fill(0)),
    ("a page in the middle zeroed", |bytes| middle(bytes).fill(0)),
    ("a page in the middle garbled", |bytes| {
        for (nth, byte) in middle(bytes).iter_mut().enumerate() {
            *byte = u8::try_from(nth * 167 % 251).unwrap_or_default() ^ 0xa5;
        }
    }),
    ("cut in the middle of a page", |bytes| bytes.truncate(bytes.len() / 2 / PAGE * PAGE + 777)),
];

#[tokio::test]
async fn a_damaged_journal_is_named_and_left_alone_until_it_is_moved_aside() {
    let mut scene = Scene::up(Keys::Ignored, "").await;
    // Small rows: a page in the middle is one of a tree, and not the tail of some answer.
    for nth in 0..300 {
        assert_eq!(scene.said(&format!("o-{nth}")).await.0, 201);
    }
    scene.sidecar.kill().await.expect("it died of it");
    let folder = scene.sidecar.folder.path().to_owned();
    fold(&folder.join(FILE));
    let whole = fs::read(folder.join(FILE)).expect("the journal is there");
    assert!(whole.len() > 20 * PAGE, "{} bytes are too few to wound", whole.len());
    for (name, wound) in WOUNDS {
        let mut bytes = whole.clone();
        wound(&mut bytes);
        let other = Scene::new(Keys::Ignored, "").await;
        let at = other.sidecar.folder.path().to_owned();
        copy(&folder.join("state"), &at.join("state"));
        fs::write(at.join(FILE), &bytes).expect("written");
        check(name, other, &bytes).await;
    }
}

/// Brings what the log holds into the file itself, where it can be wounded.
fn fold(file: &Path) {
    let connection = rusqlite::Connection::open(file).expect("it is one of SQLite's");
    let fold = "PRAGMA wal_checkpoint(TRUNCATE)";
    let busy = connection.query_row(fold, [], |row| row.get::<_, i64>(0)).expect("it can be");
    assert_eq!(busy, 0);
}

#[tokio::test]
async fn a_journal_whose_file_is_gone_is_not_begun_anew_over_its_log() {
    let mut scene = Scene::up(Keys::Ignored, "").await;
    assert_eq!(scene.said("a").await.0, 201);
    scene.sidecar.kill().await.expect("it died of it");
    let folder = scene.sidecar.folder.path().join("state/journal");
    fs::remove_file(folder.join("journal.sqlite")).expect("it is there");
    let log = fs::read(folder.join("journal.sqlite-wal")).expect("what was not folded is here");
    let told = refused("the file gone", &scene).await;
    assert!(advice(&told).is_some(), "{told}");
    assert_eq!(fs::read(folder.join("journal.sqlite-wal")).expect("it is there"), log);
}

async fn check(name: &str, mut scene: Scene, bytes: &[u8]) {
    let folder = scene.sidecar.folder.clone();
    let told = refused(name, &scene).await;
    assert!(told.contains("journal.sqlite"), "{name}: {told}");
    assert_eq!(
        fs::read(folder.path().join(FILE)).expect("it is there"),
        bytes,
        "{name}: untouched"
    );
    let again = refused(name, &scene).await;
    assert!(again.contains("journal.sqlite"), "{name}: as often as it is tried: {again}");
    let command = advice(&told).unwrap_or_else(|| panic!("{name}: no command in {told}"));
    let mut shell = Command::new("sh");
    let moved = shell.args(["-c", &command]).current_dir(folder.path()).output().expect("a shell");
    assert!(moved.status.success(), "{name}: {command}: {moved:?}");
    assert!(kept_somewhere(folder.path(), bytes), "{name}: {command} lost the journal");
    scene.sidecar.start(None).await.unwrap_or_else(|why| panic!("{name}: {command}: {why}"));
    assert_eq!(scene.said("fresh").await.0, 201, "{name}");
}

/// What a start that is refused says.
async fn refused(name: &str, scene: &Scene) -> String {
    let mut command = Command::new(BINARY);
    command.arg("run");
    let started = Samekey::run_command(scene.sidecar.folder.clone(), command).await;
    let Err(stopped) = started else { panic!("{name}: it starts") };
    let told = plain(&stopped.log);
    assert_eq!(stopped.status.code(), Some(1), "{name}: {told}");
    told
}

/// The command that a message tells: from `mv` to the end of its line or quotation.
fn advice(told: &str) -> Option<String> {
    let at = told.find("`mv ").map(|at| at + 1).or_else(|| told.find("mv "))?;
    let rest = told.get(at..)?;
    let end = rest.find(['`', '\n']).unwrap_or(rest.len());
    rest.get(..end).map(|command| command.trim_end().to_owned())
}

fn kept_somewhere(folder: &Path, bytes: &[u8]) -> bool {
    files(folder).iter().any(|path| fs::read(path).is_ok_and(|found| found == bytes))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(done.is_ok_and(|status| status.success()), "{} cannot be copied", from.display());
}

fn middle(bytes: &mut [u8]) -> &mut [u8] {
    let at = bytes.len() / PAGE / 2 * PAGE;
    &mut bytes[at..at + PAGE]
}

#[tokio::test]
async fn an_answer_whose_file_is_damaged_or_gone_is_never_replayed() {
    let mut scene = Scene::up(Keys::Ignored, "").await;
    for (event, steps) in [("a", "ok pad=300000; ok"), ("b", "ok pad=400000; ok")] {
        scene.upstream.script(event, steps).await;
        assert_eq!(scene.said(event).await.0, 201);
    }
    scene.sidecar.kill().await.expect("it died of it");
    let mut large: Vec<_> = files(&scene.sidecar.folder.path().join("state"))
        .into_iter()
        .filter_map(|path| Some((fs::read(&path).ok()?, path)))
        .filter(|(bytes, _)| bytes.len() > 300_000 && bytes.starts_with(b"{"))
        .collect();
    large.sort_by_key(|(bytes, _)| bytes.len());
    let [(bytes, first), (_, second)] = &mut large[..] else { panic!("{} files", large.len()) };
    bytes[1000] ^= 1;
    fs::write(first, bytes).expect("written");
    fs::remove_file(second).expect("removed");
    scene.sidecar.start(None).await.expect("it starts");
    for event in ["a", "b"] {
        assert_eq!(scene.said(event).await, (409, "response-not-retained".to_owned()), "{event}");
        assert_eq!(scene.upstream.seen(event).await, 1, "{event}");
    }
}

/// Where the journal is, from the folder that the sidecar runs in.
const FILE: &str = "state/journal/journal.sqlite";
/// The usual size of a page, and what the file is wounded by.
const PAGE: usize = 4096;

#[test]
fn a_command_is_read_out_of_a_message() {
    let wanted = Some("mv 'a b' c.damaged".to_owned());
    for told in
        ["x: mv 'a b' c.damaged\nmore", "run `mv 'a b' c.damaged` first", "mv 'a b' c.damaged"]
    {
        assert_eq!(advice(told), wanted, "{told}");
    }
    assert_eq!(advice("nothing to do"), None);
}
