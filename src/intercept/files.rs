//! Files that are there whole or not at all.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::NamedTempFile;

/// Puts `contents` at `path`, in place of whatever was there.
///
/// Readers see the old file or the new one. The mode is set on the open file, so
/// that neither the umask nor a glimpse in between makes it another.
pub(super) fn replace(path: &Path, mode: u32, contents: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let mut file = NamedTempFile::new_in(folder)?;
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.write_all(contents)?;
    // Without this a power cut can leave the name with nothing behind it.
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Makes a folder with this mode, or gives it to the one that is there, if it is ours.
pub(super) fn folder(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let wanted = Permissions::from_mode(mode);
    let there = fs::metadata(path)?.permissions();
    if there.mode() & 0o7777 != mode
        && let Err(error) = fs::set_permissions(path, wanted)
    {
        // A mounted volume often belongs to root; what matters is that it can be used.
        let mode = format!("{:o}", there.mode() & 0o7777);
        tracing::warn!(folder = %path.display(), mode, %error, "the folder keeps its mode");
    }
    Ok(())
}
