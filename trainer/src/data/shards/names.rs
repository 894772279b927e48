//! Expansion of names such as `train-{0000..0146}.tar`.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::data::Tally;
use crate::data::passed_over::PassedOverReason;
use crate::data::walk::{WalkError, is_image, visible_entries};

/// Most shards of a range, so that a mistyped one is an error.
const MAX_SHARDS: u64 = 1_000_000;

/// A name that matches no shard.
#[derive(Debug, thiserror::Error)]
pub enum ShardNameError {
    /// A range is not `{first..last}` with numbers.
    #[error("`{0}`: a range is {{first..last}} with numbers in order, such as {{0000..0146}}")]
    Range(String),
    /// A shard does not exist.
    #[error("the tar shard {0} is missing")]
    Missing(PathBuf),
    /// A shard is compressed, so that its members cannot be reached one by one.
    #[error(
        "{path} is compressed with {compression}: its images cannot be read without unpacking all that lies before them. \
         Unpack it ({tool} {path}) and name the .tar file"
    )]
    Compressed {
        /// The shard.
        path: PathBuf,
        /// Name of the compression.
        compression: &'static str,
        /// The program that unpacks it.
        tool: &'static str,
    },
    /// The folder cannot be listed.
    #[error("cannot read the folder of shards {path}")]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The folder holds no shard.
    #[error("no .tar file in {0}")]
    Empty(PathBuf),
}

/// The shards of a name, and what lies beside them and is not read.
#[derive(Debug, Default)]
pub(super) struct ShardPaths {
    pub(super) paths: Vec<PathBuf>,
    pub(super) beside: Tally<PassedOverReason>,
}

/// A program that compresses files.
struct Compressor {
    name: &'static str,
    /// First bytes of its files.
    magic: &'static [u8],
    /// Endings of compressed tar archives.
    endings: [&'static str; 2],
    /// The command that unpacks a file beside itself.
    tool: &'static str,
}

#[rustfmt::skip]
const COMPRESSORS: [Compressor; 5] = [
    Compressor { name: "gzip", magic: b"\x1f\x8b", endings: [".tar.gz", ".tgz"], tool: "gunzip -k" },
    Compressor { name: "bzip2", magic: b"BZh", endings: [".tar.bz2", ".tbz2"], tool: "bunzip2 -k" },
    Compressor { name: "xz", magic: b"\xfd7zXZ\0", endings: [".tar.xz", ".txz"], tool: "unxz -k" },
    Compressor { name: "zstd", magic: b"\x28\xb5\x2f\xfd", endings: [".tar.zst", ".tzst"], tool: "unzstd -k" },
    Compressor { name: "lz4", magic: b"\x04\x22\x4d\x18", endings: [".tar.lz4", ".tlz4"], tool: "unlz4 -k" },
];

/// Returns `true` if `source` names shards: a `.tar` file, compressed or not, a name with a range, or a folder that holds
/// `.tar` files.
pub(in crate::data) fn is_shards(source: &str) -> bool {
    let path = Path::new(source);
    if path.is_dir() {
        return in_folder(path).is_ok_and(|shards| !shards.paths.is_empty());
    }
    is_tar(path) || compressor_of_name(path).is_some()
}

/// The shards in order: all `.tar` files of a folder, or the name with every number of its ranges.
pub(super) fn expand(name: &str) -> Result<ShardPaths, ShardNameError> {
    let path = Path::new(name);
    let shards = if path.is_dir() {
        in_folder(path).map_err(|WalkError { path, source }| ShardNameError::Unreadable { path, source })?
    } else {
        // A file may have braces in its name.
        let names = if path.is_file() { vec![name.to_owned()] } else { expand_ranges(name)? };
        let paths = names.into_iter().map(PathBuf::from).collect();
        ShardPaths { paths, beside: Tally::default() }
    };
    if shards.paths.is_empty() {
        return Err(ShardNameError::Empty(path.to_owned()));
    }
    shards.paths.iter().try_for_each(|shard| check(shard))?;
    Ok(shards)
}

/// Checks that a shard is there and not compressed, whatever its name says.
fn check(shard: &Path) -> Result<(), ShardNameError> {
    if !shard.is_file() {
        return Err(ShardNameError::Missing(shard.to_owned()));
    }
    let mut start = Vec::new();
    // A shard that cannot be read is counted when its turn comes.
    let _ = File::open(shard).and_then(|file| file.take(8).read_to_end(&mut start));
    match COMPRESSORS.iter().find(|known| start.starts_with(known.magic)).or_else(|| compressor_of_name(shard)) {
        Some(&Compressor { name: compression, tool, .. }) => {
            Err(ShardNameError::Compressed { path: shard.to_owned(), compression, tool })
        }
        None => Ok(()),
    }
}

fn in_folder(folder: &Path) -> Result<ShardPaths, WalkError> {
    let mut shards = ShardPaths::default();
    for path in visible_entries(folder)? {
        if is_tar(&path) && !path.is_dir() {
            shards.paths.push(path);
        } else if compressor_of_name(&path).is_some() {
            shards.beside.note(PassedOverReason::Archive, path.display());
        } else if is_image(&path) {
            shards.beside.note(PassedOverReason::BesideShards, path.display());
        }
    }
    Ok(shards)
}

fn is_tar(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tar"))
}

fn compressor_of_name(path: &Path) -> Option<&'static Compressor> {
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    COMPRESSORS.iter().find(|known| known.endings.iter().any(|ending| name.ends_with(ending)))
}

fn expand_ranges(name: &str) -> Result<Vec<String>, ShardNameError> {
    let Some((before, rest)) = name.split_once('{') else { return Ok(vec![name.to_owned()]) };
    let wrong = || ShardNameError::Range(name.to_owned());
    let (range, after) = rest.split_once('}').ok_or_else(wrong)?;
    let (first, last) = range.split_once("..").ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    let (from, to) = (number(first)?, number(last)?);
    if to < from || to - from >= MAX_SHARDS {
        return Err(wrong());
    }
    let endings = expand_ranges(after)?;
    // The limit is that of all ranges together.
    (to - from + 1).checked_mul(endings.len() as u64).filter(|&shards| shards <= MAX_SHARDS).ok_or_else(wrong)?;
    let digits = first.len();
    let numbers = (from..=to).map(|number| format!("{before}{number:0digits$}"));
    Ok(numbers.flat_map(|start| endings.iter().map(move |end| format!("{start}{end}"))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_keep_their_digits() {
        assert_eq!(expand_ranges("a-{08..11}.tar").unwrap(), ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]);
        assert_eq!(expand_ranges("{0..1}/{1..2}.tar").unwrap(), ["0/1.tar", "0/2.tar", "1/1.tar", "1/2.tar"]);
        for wrong in [
            "{1..}.tar",
            "{2..1}.tar",
            "{a..b}.tar",
            "{1-2}.tar",
            "{1..2.tar",
            "{0..99999999}.tar",
            "{0..9999}/{0..9999}.tar",
        ] {
            assert!(matches!(expand_ranges(wrong), Err(ShardNameError::Range(_))), "{wrong}");
        }
    }

    #[test]
    fn a_missing_shard_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("s-0.tar"), b"").unwrap();
        let name = folder.path().join("s-{0..1}.tar").display().to_string();
        assert!(is_shards(&name) && is_shards(&folder.path().display().to_string()));
        assert!(expand(&name).unwrap_err().to_string().contains("s-1.tar is missing"));
        assert_eq!(expand(&folder.path().display().to_string()).unwrap().paths.len(), 1);
    }

    #[test]
    fn a_folder_s_shards_are_its_visible_tar_files_and_what_lies_beside_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["s-0.tar", "._s-0.tar", "s-1.tar.gz", "1.jpg", "2.jpg", "notes.txt"] {
            std::fs::write(folder.path().join(name), b"").unwrap();
        }
        let ShardPaths { paths, beside } = expand(folder.path().to_str().unwrap()).unwrap();
        assert_eq!(paths, [folder.path().join("s-0.tar")]);
        let counts = [PassedOverReason::Archive, PassedOverReason::BesideShards].map(|reason| beside.count(reason));
        assert_eq!((counts, beside.total()), ([1, 2], 3));
    }

    #[test]
    fn compressed_shards_are_refused_by_their_name_or_content() {
        let folder = tempfile::tempdir().unwrap();
        for (name, content, compression) in [
            ("s.tar.gz", &b""[..], "gzip"),
            ("s.TGZ", b"", "gzip"),
            ("s.tar.bz2", b"", "bzip2"),
            ("s.txz", b"", "xz"),
            ("s.tar.zst", b"", "zstd"),
            ("s.tlz4", b"", "lz4"),
            ("a.tar", b"\x1f\x8b\x08\0\0\0\0\0", "gzip"),
            ("b.tar", b"\x28\xb5\x2f\xfd\0", "zstd"),
        ] {
            let path = folder.path().join(name).display().to_string();
            std::fs::write(&path, content).unwrap();
            assert!(is_shards(&path), "{name}");
            let message = expand(&path).unwrap_err().to_string();
            assert!(
                message.contains(&format!("compressed with {compression}")) && message.contains(&path),
                "{message}"
            );
        }
        let range = folder.path().join("s-{0..1}.tar.gz").display().to_string();
        assert!(is_shards(&range) && matches!(expand(&range), Err(ShardNameError::Missing(_))));
    }
}
