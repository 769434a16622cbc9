//! The state directory: whose it is, and what is in it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::idempotency::key::Secret;

/// A state directory that is locked for this process.
#[derive(Debug)]
pub struct Home {
    dir: PathBuf,
    /// Where the CA and the secret are: another process's directory, for `exec`.
    shared: PathBuf,
    _lock: File,
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateFault {
    /// It cannot be made, or not be written.
    #[error("{}: {error}; state.dir has to be a directory that this user may write", path.display())]
    Unusable {
        /// What was tried.
        path: PathBuf,
        /// Why it failed.
        error: io::Error,
    },
    /// Another process uses it.
    #[error("{}: another samekey uses it; give this one a state.dir of its own", .0.display())]
    Locked(PathBuf),
    /// The secret is too short to be one.
    #[error("{}: the secret has to hold at least 16 bytes", .0.display())]
    ShortSecret(PathBuf),
}

impl Home {
    /// Makes and locks `dir`.
    ///
    /// # Errors
    ///
    /// A [`StateFault`].
    pub fn open(dir: &Path) -> Result<Self, StateFault> {
        Self::open_beside(dir, dir)
    }

    /// Makes and locks `dir`, and takes CA and secret from `shared`, which is not locked.
    ///
    /// # Errors
    ///
    /// A [`StateFault`].
    pub fn open_beside(dir: &Path, shared: &Path) -> Result<Self, StateFault> {
        for (path, mode) in [(shared, 0o711), (dir, 0o711), (&dir.join("spill"), 0o700)] {
            folder(path, mode).map_err(|error| unusable(path, error))?;
        }
        let path = dir.join("lock");
        let lock = private().open(&path).map_err(|error| unusable(&path, error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_owned(), shared: shared.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StateFault::Locked(dir.to_owned())),
            Err(TryLockError::Error(error)) => Err(unusable(&path, error)),
        }
    }

    /// Where the CA is.
    pub fn ca_dir(&self) -> PathBuf {
        self.shared.join("ca")
    }

    /// Where bodies are held that are too large for memory.
    pub fn spill_dir(&self) -> PathBuf {
        self.dir.join("spill")
    }

    /// Writes down where the admin side listens: the config may leave it to the system.
    pub(super) fn tell_admin(&self, mut address: SocketAddr) -> Result<(), StateFault> {
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        let path = super::ledger::admin_file(&self.dir);
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
            writeln!(file, "{address}")?;
            file.as_file().set_permissions(Permissions::from_mode(0o644))?;
            file.persist(&path).map_err(|failed| failed.error)
        };
        write().map(drop).map_err(|error| unusable(&path, error))
    }

    /// Where a secret is kept that nobody gave.
    pub(super) fn secret_file(&self) -> PathBuf {
        self.shared.join("secret")
    }

    /// Whether the secret here was once the one that replicas share.
    pub(super) fn shared_secret_is_known(&self) -> bool {
        self.shared.join(SECRET_SHARED).exists()
    }

    /// Notes that the secret here is the one that replicas share.
    pub(super) fn note_shared_secret(&self) -> Result<(), StateFault> {
        let path = self.shared.join(SECRET_SHARED);
        private().open(&path).map(drop).map_err(|error| unusable(&path, error))
    }

    /// The secret that keys are derived with: the operator's, or one that is made once.
    ///
    /// # Errors
    ///
    /// A [`StateFault`].
    pub fn secret(&self, given: Option<&Path>) -> Result<Secret, StateFault> {
        let own = self.secret_file();
        let path = given.unwrap_or(&own);
        if given.is_none() && !path.exists() {
            make_secret(path).map_err(|error| unusable(path, error))?;
        }
        let text = fs::read(path).map_err(|error| unusable(path, error))?;
        let text = text.trim_ascii_end();
        if text.len() < SECRET_MIN {
            return Err(StateFault::ShortSecret(path.to_owned()));
        }
        Ok(Secret::new(blake3::derive_key("samekey 2026 key derivation secret", text)))
    }
}

/// Thirty-two bytes of the system's randomness.
///
/// # Errors
///
/// When the system has none to give.
pub(super) fn seed() -> Result<[u8; 32], StateFault> {
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).map_err(|_none| {
        unusable(Path::new("the system's randomness"), io::Error::other("none"))
    })?;
    Ok(seed)
}

/// Written whole under another name and then linked: of two processes that start
/// at once, one makes it and both read it.
fn make_secret(path: &Path) -> io::Result<()> {
    let seed = seed().map_err(io::Error::other)?;
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?; // mode 0600
    for byte in seed {
        write!(file, "{byte:02x}")?;
    }
    writeln!(file)?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(lost) if lost.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(failed) => Err(failed.error),
    }
}

/// A folder that is made gets this mode whatever the umask says: applications pass
/// through to `public`. One that is there keeps what its owner gave it.
fn folder(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(mode).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// A folder by a path that says the same to whoever reads it elsewhere.
pub(super) fn full(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_unclear| path.to_owned())
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

fn unusable(path: &Path, error: io::Error) -> StateFault {
    StateFault::Unusable { path: path.to_owned(), error }
}

impl StateFault {
    pub(super) fn unusable(path: &Path, error: io::Error) -> Self {
        unusable(path, error)
    }
}

const SECRET_MIN: usize = 16;
/// A mark beside the secret.
const SECRET_SHARED: &str = "secret.shared";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_kept_out_and_the_secret_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::open(dir.path()).expect("it is free");
        assert!(matches!(Home::open(dir.path()), Err(StateFault::Locked(_))));
        home.secret(None).expect("it is made");
        let written = fs::read(dir.path().join("secret")).expect("it is there");
        home.secret(None).expect("it is read");
        assert_eq!(fs::read(dir.path().join("secret")).expect("it is there"), written);
        let mode =
            fs::metadata(dir.path().join("secret")).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(home);
        Home::open(dir.path()).expect("it is free again");
    }

    #[test]
    fn a_secret_that_can_be_guessed_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::open(dir.path()).expect("it is free");
        let given = dir.path().join("given");
        fs::write(&given, "123456789012345\n").expect("written");
        assert!(matches!(home.secret(Some(&given)), Err(StateFault::ShortSecret(_))));
        fs::write(&given, "1234567890123456\n").expect("written");
        home.secret(Some(&given)).expect("long enough");
    }

    #[test]
    fn a_file_in_the_place_of_the_directory_is_named() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let fault = Home::open(file.path()).expect_err("no directory");
        assert!(fault.to_string().contains("state.dir"), "{fault}");
    }
}
