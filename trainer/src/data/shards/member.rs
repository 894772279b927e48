//! The images in a tar file, and their offsets.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use densecl_vision::image::is_picture_extension;

/// An image within a shard.
#[derive(Clone, Debug)]
pub(super) struct Member {
    shard: Arc<PathBuf>,
    name: String,
    pub(super) offset: u64,
    size: u64,
}

impl Member {
    /// Reads its bytes from the shard.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        let mut file = File::open(&*self.shard)?;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        let read = file.take(self.size).read_to_end(&mut bytes)?;
        if read as u64 == self.size { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.shard.display(), self.name)
    }
}

/// Lists the images of a shard in its order. The rest of a damaged shard is left out, with a warning.
pub(super) fn index(shard: &Path) -> Vec<Member> {
    let mut members = Vec::new();
    if let Err(error) = index_into(shard, &mut members) {
        tracing::warn!(shard = %shard.display(), %error, images = members.len(), "the rest of the shard is skipped");
    }
    members
}

fn index_into(shard: &Path, members: &mut Vec<Member>) -> io::Result<()> {
    let path = Arc::new(shard.to_owned());
    let mut seen = HashSet::new();
    let mut archive = tar::Archive::new(File::open(shard)?);
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let Some(key) = sample_key(&name) else { continue };
        if entry.header().entry_type().is_file() && seen.insert(key.to_owned()) {
            let (offset, size) = (entry.raw_file_position(), entry.size());
            members.push(Member { shard: Arc::clone(&path), name, offset, size });
        }
    }
    Ok(())
}

/// The sample to which an image belongs: the path up to the first dot of the file name; `None` if the
/// member is not an image.
pub(super) fn sample_key(name: &str) -> Option<&str> {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = file + name[file..].find('.')?;
    is_picture_extension(&name[dot + 1..]).then(|| &name[..dot])
}
