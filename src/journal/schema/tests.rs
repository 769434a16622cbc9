//! What is made, what is refused, and that nothing that is refused is changed.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::file::network;
use super::*;
use crate::journal::tests::{START, copy, note, open as opened, options as options_of};
use crate::journal::{Journal, tests::Scene};

fn options(folder: &Path) -> Options {
    options_of(folder, 1 << 30, START)
}

/// A journal of some rows, as a `kill -9` leaves it: what it is in, its folder, its file.
async fn left() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let scene = Scene::new();
    for n in 1..=200 {
        scene.journal.note(note(n));
    }
    scene.written().await;
    let kept = tempfile::tempdir().expect("a folder");
    let folder = kept.path().join("journal");
    copy(&scene.folder, &folder);
    let file = folder.join(FILE);
    (kept, folder, file)
}

/// The same, closed well: everything is in the one file.
async fn closed() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let left = left().await;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let connection = Connection::open_with_flags(&left.2, flags).expect("it is opened");
    let count = "SELECT count(*) FROM exchanges";
    let rows: i64 = connection.query_row(count, [], |row| row.get(0)).expect("a number");
    assert_eq!(rows, 200);
    connection.close().expect("it is closed");
    assert!(!log_of(&left.2).exists());
    left
}

fn log_of(file: &Path) -> PathBuf {
    file.with_file_name(format!("{FILE}-wal"))
}

fn refused(folder: &Path) -> OpenFault {
    let before = (contents(&folder.join(FILE)), contents(&log_of(&folder.join(FILE))));
    let fault = Journal::open(options(folder)).expect_err("it is refused");
    let after = (contents(&folder.join(FILE)), contents(&log_of(&folder.join(FILE))));
    assert!(before == after, "what is refused is left as it is");
    fault
}

/// What is in a file; nothing where there is none.
fn contents(file: &Path) -> Vec<u8> {
    fs::read(file).unwrap_or_default()
}

/// Why the journal in `folder` is called damaged.
fn damage(folder: &Path) -> String {
    match refused(folder) {
        OpenFault::Damaged { why, .. } => why,
        other => panic!("it is damaged: {other}"),
    }
}

/// Overwrites a file from byte `at` on.
fn scribble(file: &Path, at: usize, with: &[u8]) {
    let mut bytes = fs::read(file).expect("it is there");
    bytes.splice(at..at + with.len(), with.iter().copied());
    fs::write(file, bytes).expect("it is written");
}

fn sql(file: &Path, statement: &str) {
    let connection = Connection::open(file).expect("it is opened");
    connection.execute_batch(statement).expect("it is done");
}

/// A format after the one that this version writes.
const LATER: i64 = 5;

#[tokio::test]
async fn a_file_of_a_later_version_is_refused_by_name() {
    let (_kept, folder, file) = closed().await;
    sql(&file, &format!("PRAGMA user_version = {LATER}"));
    let fault = refused(&folder);
    assert!(matches!(fault, OpenFault::Later { found: LATER, .. }), "{fault}");
    assert!(fault.to_string().starts_with(&*file.to_string_lossy()), "{fault}");
}

#[tokio::test]
async fn the_log_of_a_file_that_is_refused_is_not_written_back() {
    let scene = Scene::new();
    let later = scene.journal.submit(|file, _| file.pragma_update(None, "user_version", LATER));
    later.await.expect("it is written");
    let kept = tempfile::tempdir().expect("a folder");
    let folder = kept.path().join("journal");
    copy(&scene.folder, &folder);
    assert!(!contents(&log_of(&folder.join(FILE))).is_empty(), "a log, and all of it in there");
    assert!(matches!(refused(&folder), OpenFault::Later { found: LATER, .. }));
}

#[tokio::test]
async fn a_file_of_another_program_is_refused() {
    let (_kept, folder, file) = closed().await;
    sql(&file, "PRAGMA application_id = 7");
    assert_eq!(damage(&folder), "it belongs to another program");
    // One that numbers neither itself nor its format, and is in no WAL mode.
    fs::remove_file(&file).expect("it is there");
    sql(&file, "CREATE TABLE t (x)");
    assert_eq!(damage(&folder), "it belongs to another program");
}

#[tokio::test]
async fn a_damaged_file_is_named_and_left_as_it_is() {
    let page = 4096;
    let (_kept, folder, file) = closed().await;
    let whole = fs::read(&file).expect("it is there");
    assert!(whole.len() > 8 * page);
    let damaged = |change: &dyn Fn(&Path)| {
        fs::write(&file, &whole).expect("it is written");
        change(&file);
        damage(&folder)
    };
    assert_eq!(damaged(&|file| scribble(file, 0, b"garbage")), "it is no SQLite file");
    let cut = |length: usize| {
        move |file: &Path| {
            let open = fs::File::options().write(true).open(file).expect("it is opened");
            open.set_len(length as u64).expect("it is cut");
        }
    };
    for length in [1, 99, 100, page, whole.len() - page, whole.len() - 1] {
        assert_eq!(damaged(&cut(length)), "it is cut short", "{length}");
    }
    let zeroed = |nth: usize| move |file: &Path| scribble(file, nth * page, &vec![0; page]);
    for nth in 1..whole.len() / page {
        assert_ne!(damaged(&zeroed(nth)), "", "page {nth} is zeroed");
    }
    fs::write(&file, &whole).expect("it is written");
    drop(opened(&folder, 1 << 30, START));
}

#[tokio::test]
async fn a_log_whose_file_is_gone_is_damage() {
    let (_kept, folder, file) = left().await;
    assert!(fs::metadata(log_of(&file)).expect("a log").len() > 0);
    for gone in [true, false] {
        if gone {
            fs::remove_file(&file).expect("it is there");
        } else {
            fs::write(&file, b"").expect("it is emptied");
        }
        assert_eq!(damage(&folder), "its log is there and it is not");
    }
}

#[tokio::test]
async fn a_crash_in_the_middle_of_a_checkpoint_is_no_damage() {
    let (kept, folder, file) = left().await;
    let page = 4096;
    let short = fs::metadata(&file).expect("it is there").len();
    // What a checkpoint would come to, done on a copy.
    let done = kept.path().join("done");
    copy(&folder, &done);
    sql(&done.join(FILE), "PRAGMA wal_checkpoint(TRUNCATE)");
    let after = fs::read(done.join(FILE)).expect("it is there");
    assert!(after.len() as u64 > short, "it grew");
    // Killed after its first page, which counts them all; the log is there still.
    let cut = kept.path().join("cut");
    copy(&folder, &cut);
    scribble(&cut.join(FILE), 0, after.get(..page).expect("a page"));
    let journal = opened(&cut, 1 << 30, START);
    let last = journal.show(200, 7).await.expect("it is read");
    assert!(last.is_some(), "nothing of it is lost");
    // Without the log, or with a shorter one, it is.
    let cut = kept.path().join("without");
    copy(&folder, &cut);
    scribble(&cut.join(FILE), 0, after.get(..page).expect("a page"));
    let log = fs::read(log_of(&cut.join(FILE))).expect("a log");
    for left in [log.get(..log.len() / 4).expect("some of it"), &[]] {
        fs::write(log_of(&cut.join(FILE)), left).expect("it is written");
        assert_eq!(damage(&cut), "it is cut short");
    }
}

#[tokio::test]
async fn the_command_that_moves_a_damaged_journal_aside_does_so() {
    let parent = tempfile::tempdir().expect("a folder");
    let folder = parent.path().join("it's a $(touch x) \"journal\"; of `mine`");
    copy(&closed().await.1, &folder);
    fs::write(folder.join(FILE), b"garbage").expect("it is written");
    let fault = Journal::open(options(&folder)).expect_err("it is refused").to_string();
    let (_, command) = fault.split_once("move it aside: ").expect("a command");
    let moved = Command::new("sh").args(["-c", command]).current_dir(parent.path()).status();
    assert!(moved.expect("a shell").success(), "{command}");
    let aside = parent.path().join("it's a $(touch x) \"journal\"; of `mine`.damaged");
    assert_eq!(contents(&aside.join(FILE)), b"garbage");
    assert_eq!(fs::read_dir(parent.path()).expect("a folder").count(), 1, "and nothing else");
    drop(opened(&folder, 1 << 30, START));
}

#[tokio::test]
async fn nobody_else_may_read_it() {
    let mode = |path: &Path| {
        let found = fs::metadata(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        found.permissions().mode() & 0o777
    };
    let parent = tempfile::tempdir().expect("a folder");
    let folder = parent.path().join("made/by/us");
    let journal = opened(&folder, 1 << 30, START);
    journal.bodies().write(b"a body").expect("it is written");
    journal.note(note(1));
    journal.newest().await.expect("it works");
    for path in [&folder, &folder.join(BODIES)] {
        assert_eq!(mode(path), 0o700, "{path:?}");
    }
    for folder in [&folder, &folder.join(BODIES)] {
        for file in fs::read_dir(folder).expect("a folder").flatten() {
            let path = file.path();
            assert!(path.is_dir() || mode(&path) % 0o100 == 0, "{path:?}");
        }
    }
    assert_eq!(mode(&folder.join(FILE)), 0o600);
    // One that was made by somebody else is closed to others too.
    let folder = parent.path().join("open");
    fs::create_dir(&folder).expect("a folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("it is ours");
    drop(opened(&folder, 1 << 30, START));
    assert_eq!(mode(&folder), 0o700);
}

#[test]
fn nobody_else_may_read_it_whatever_the_umask() {
    let this = std::env::current_exe().expect("a program");
    for umask in ["000", "022", "077", "277"] {
        let run = format!("umask {umask}; exec \"$0\" --exact \"$1\"");
        let test = "journal::schema::tests::nobody_else_may_read_it";
        let ran = Command::new("sh").args(["-c", &run]).arg(&this).arg(test).output();
        let ran = ran.expect("a shell");
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && said.contains("1 passed"), "{umask}: {said}");
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let parent = tempfile::tempdir().expect("a folder");
    let taken = parent.path().join("taken");
    fs::write(&taken, b"").expect("a file");
    let fault = Journal::open(options(&taken.join("journal"))).expect_err("it is refused");
    assert!(matches!(fault, OpenFault::Unusable { .. }), "{fault}");
}

/// statfs(2) lists these numbers.
#[test]
fn network_file_systems_are_known_and_local_ones_are_not() {
    for (magic, kind) in
        [(0x6969, "NFS"), (0x517b, "SMB"), (0xff53_4d42, "CIFS"), (0xfe53_4d42, "SMB2")]
    {
        assert_eq!(network(magic), Some(kind));
    }
    for (magic, kind) in [
        (0xef53, "ext4"),
        (0x5846_5342, "XFS"),
        (0x9123_683e, "Btrfs"),
        (0x0102_1994, "tmpfs"),
        (0x794c_7630, "overlay"),
        (0x2fc1_2fc1, "ZFS"),
    ] {
        assert_eq!(network(magic), None, "{kind}");
    }
}

#[tokio::test]
async fn a_boot_has_one_number_however_often_the_process_starts() {
    let (_kept, folder, file) = closed().await;
    let system = || Options { clock: crate::journal::Clock::System, ..options(&folder) };
    let first = Journal::open(system()).expect("it is opened").now().boot;
    let again = Journal::open(system()).expect("it is opened");
    assert_eq!(again.now().boot, first);
    // Another boot has another name.
    let renamed = again.submit(|file, _| file.execute("UPDATE books SET boot_id = 'x'", []));
    renamed.await.expect("it is written");
    drop(again);
    assert_eq!(Journal::open(system()).expect("it is opened").now().boot, first + 1);
    assert!(file.exists());
}
