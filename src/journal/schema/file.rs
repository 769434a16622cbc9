//! The file and its folder, before the library sees them: whose they are, and whether
//! anything was cut off.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use crate::journal::schema::{OpenFault, unusable};

/// The header says how many pages there are: a file that is shorter was cut, unless its
/// log has what it lacks. A checkpoint writes the header first.
pub(super) fn whole(file: &Path, log: &Path) -> Result<(), OpenFault> {
    let says = |why: &str| OpenFault::Damaged { file: file.to_owned(), why: why.to_owned() };
    let (head, length) = head(file).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => says("it is cut short"),
        _ => unusable(file, error),
    })?;
    if !head.starts_with(b"SQLite format 3\0") {
        return Err(says("it is no SQLite file"));
    }
    let page = match number(&head, 16) >> 16 {
        1 => 65_536,
        size => size,
    };
    // Bytes 24 and 92 agree where the page count at 28 is to be believed.
    let (pages, there) = (number(&head, 28), length / u64::from(page.max(512)));
    if number(&head, 24) != number(&head, 92) || u64::from(pages) <= there {
        return Ok(());
    }
    let first = u32::try_from(there).unwrap_or(u32::MAX).saturating_add(1);
    let wanted: BTreeSet<u32> = (first..=pages).collect();
    match lacks(log, page, wanted) {
        Ok(lacking) if lacking.is_empty() => Ok(()),
        Ok(_) => Err(says("it is cut short")),
        Err(error) => Err(unusable(log, error)),
    }
}

fn head(file: &Path) -> io::Result<([u8; 100], u64)> {
    let mut head = [0; 100];
    let mut open = File::open(file)?;
    open.read_exact(&mut head)?;
    Ok((head, open.metadata()?.len()))
}

/// The pages of `wanted` that a log does not have (sqlite.org/fileformat2.html, "WAL
/// File Format").
fn lacks(log: &Path, page: u32, mut wanted: BTreeSet<u32>) -> io::Result<BTreeSet<u32>> {
    let Ok(mut open) = File::open(log) else { return Ok(wanted) };
    let length = open.metadata()?.len();
    let mut at = LOG_HEAD;
    while at + FRAME_HEAD + u64::from(page) <= length && !wanted.is_empty() {
        open.seek(SeekFrom::Start(at))?;
        let mut nth = [0; 4];
        open.read_exact(&mut nth)?;
        wanted.remove(&u32::from_be_bytes(nth));
        at += FRAME_HEAD + u64::from(page);
    }
    Ok(wanted)
}

fn number(head: &[u8; 100], at: usize) -> u32 {
    let four = head.get(at..at + 4).and_then(|four| four.first_chunk::<4>());
    four.map_or(0, |four| u32::from_be_bytes(*four))
}

/// Refuses a folder whose file system cannot hold a journal.
pub(super) fn refuse_network(folder: &Path) -> Result<(), OpenFault> {
    match magic(folder).and_then(network) {
        Some(kind) => Err(OpenFault::Network { folder: folder.to_owned(), kind }),
        None => Ok(()),
    }
}

/// What a folder is on, where that does not last as long as a disk does: memory, or the
/// layer of a container that goes with it.
pub fn passing(folder: &Path) -> Option<&'static str> {
    let magic = magic(folder)?;
    PASSING.iter().find(|(number, _)| *number == magic).map(|(_, kind)| *kind)
}

/// The number of the file system that a folder is on; `None` where it cannot be told.
fn magic(folder: &Path) -> Option<u32> {
    let found = rustix::fs::statfs(folder).ok()?;
    #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "32 bits are told")]
    Some(found.f_type as u32)
}

/// The network file system that has this number.
pub(super) fn network(magic: u32) -> Option<&'static str> {
    NETWORK.iter().find(|(number, _)| *number == magic).map(|(_, kind)| *kind)
}

/// Makes the folder, where there is none, for this user alone.
pub(super) fn make_private(folder: &Path) -> io::Result<()> {
    if !folder.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    fs::set_permissions(folder, Permissions::from_mode(0o700))
}

/// The log and the index beside it take the file's mode over.
pub(super) fn make_file(file: &Path) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(file)?;
    fs::set_permissions(file, Permissions::from_mode(0o600))?; // whatever the umask took away
    // A power cut must not take the name of a file whose rows it leaves.
    let folders = file.ancestors().skip(1).take(2);
    for folder in folders.filter_map(|folder| File::open(folder).ok()) {
        folder.sync_all()?;
    }
    Ok(())
}

pub(super) fn is_missing_or_empty(file: &Path) -> bool {
    fs::metadata(file).map_or(true, |found| found.len() == 0)
}

/// Before its frames, a log says what it is.
const LOG_HEAD: u64 = 32;
/// Before its page, a frame says which page it is.
const FRAME_HEAD: u64 = 24;
/// statfs(2), linux/magic.h: locks and shared memory maps do not reach other machines,
/// and cached pages may be lost (sqlite.org/wal.html, "all processes on one host").
const NETWORK: [(u32, &str); 9] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x0102_1997, "9P"),
];
/// The same tables: what goes with the machine's power, or with a container.
const PASSING: [(u32, &str); 3] = [
    (0x0102_1994, "tmpfs"),
    (0x8584_58f6, "ramfs"),
    (0x794c_7630, "overlayfs, which goes with its container"),
];
