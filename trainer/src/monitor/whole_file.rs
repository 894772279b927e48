//! Files that appear whole or not at all.

use std::io::{self, Write as _};
use std::path::Path;

/// Writes `bytes` aside, in the same folder, and renames them to `path`.
///
/// # Errors
/// If the folder cannot be written; what was at `path` is then as it was.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        // What a plain file would get; the umask applies. The default would shut out other users.
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut aside = builder.prefix(".writing-").tempfile_in(folder)?;
    aside.write_all(bytes)?;
    aside.as_file().sync_all()?;
    aside.persist(path)?;
    Ok(())
}
