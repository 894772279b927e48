//! Expansion of names such as `train-{0000..0146}.tar`.

use std::io;
use std::path::{Path, PathBuf};

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

/// Returns `true` if `source` names shards: a `.tar` file, a name with a range, or a folder that holds
/// `.tar` files.
pub(in crate::data) fn is_shards(source: &str) -> bool {
    is_tar(Path::new(source)) || in_folder(Path::new(source)).is_ok_and(|shards| !shards.is_empty())
}

/// The shards in order: all `.tar` files of a folder, or the name with every number of its ranges.
pub(super) fn expand(name: &str) -> Result<Vec<PathBuf>, ShardNameError> {
    let path = Path::new(name);
    let shards = if path.is_dir() {
        in_folder(path).map_err(|source| ShardNameError::Unreadable { path: path.to_owned(), source })?
    } else {
        expand_ranges(name)?.into_iter().map(PathBuf::from).collect()
    };
    match shards.iter().find(|shard| !shard.is_file()) {
        Some(missing) => Err(ShardNameError::Missing(missing.clone())),
        None if shards.is_empty() => Err(ShardNameError::Empty(path.to_owned())),
        None => Ok(shards),
    }
}

fn in_folder(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let mut shards = entries.collect::<io::Result<Vec<_>>>()?;
    shards.retain(|path| is_tar(path));
    shards.sort_unstable();
    Ok(shards)
}

fn is_tar(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tar"))
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
        for wrong in ["{1..}.tar", "{2..1}.tar", "{a..b}.tar", "{1-2}.tar", "{1..2.tar", "{0..99999999}.tar"] {
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
        assert_eq!(expand(&folder.path().display().to_string()).unwrap().len(), 1);
    }
}
