//! Search for the shared library of ONNX Runtime.
//!
//! The server and the trainer load it from the same places, each with its own binding. Nothing here opens the library;
//! [`load`] calls a function that does.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};

/// File name of the library.
pub const FILE_NAME: &str = "libonnxruntime.so";

/// Environment variable that names the library.
pub const VARIABLE: &str = "DENSECL_ONNXRUNTIME";

/// Why the library cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is in none of the usual places.
    #[error(
        "ONNX Runtime was not found: tried {tried}; run `make setup-server` to fetch it, or set {VARIABLE} to its path"
    )]
    NotFound {
        /// The places, separated by commas.
        tried: String,
        /// The error of the last one.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A library that was named, or found, does not load.
    #[error("cannot load ONNX Runtime from {path}; run `make setup-server` to fetch the right version")]
    Unloadable {
        /// The library.
        path: PathBuf,
        /// The error of the loader.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Calls `open` with the library that was named; else with the first of [`candidates`] that exists; else with the bare
/// file name, which the system's loader looks for.
///
/// # Errors
/// If `open` fails.
pub fn load<T, E: Error + Send + Sync + 'static>(
    named: Option<&Path>,
    open: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T, LoadError> {
    load_from(named, &candidates(), open)
}

/// Places where the library is looked for, best first: the file that `ORT_DYLIB_PATH` names, beside the executable, and
/// where `make setup` puts it in the current folder.
pub fn candidates() -> Vec<PathBuf> {
    let named = env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from);
    let beside = env::current_exe().ok().and_then(|executable| Some(executable.parent()?.join(FILE_NAME)));
    let fetched = env::current_dir().ok().map(|folder| folder.join(".runtime/onnxruntime").join(FILE_NAME));
    [named, beside, fetched].into_iter().flatten().collect()
}

fn load_from<T, E: Error + Send + Sync + 'static>(
    named: Option<&Path>,
    candidates: &[PathBuf],
    open: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T, LoadError> {
    let found = named.or_else(|| candidates.iter().map(PathBuf::as_path).find(|path| path.is_file()));
    if let Some(path) = found {
        return open(path).map_err(|source| LoadError::Unloadable { path: path.to_owned(), source: source.into() });
    }
    open(Path::new(FILE_NAME)).map_err(|source| {
        let mut tried: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        tried.push(format!("{FILE_NAME} on the system's library path"));
        LoadError::NotFound { tried: tried.join(", "), source: source.into() }
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn opened(named: Option<&Path>, candidates: &[PathBuf]) -> PathBuf {
        load_from(named, candidates, |path| Ok::<_, io::Error>(path.to_owned())).expect("it opens")
    }

    #[test]
    fn a_named_library_goes_before_one_that_exists_and_that_before_the_systems() {
        let folder = tempfile::tempdir().expect("a folder");
        let present = folder.path().join(FILE_NAME);
        std::fs::write(&present, b"").expect("a file");
        let candidates = [folder.path().join("absent"), present.clone()];
        assert_eq!(opened(Some(Path::new("/named.so")), &candidates), Path::new("/named.so"));
        assert_eq!(opened(None, &candidates), present);
        assert_eq!(opened(None, &candidates[..1]), Path::new(FILE_NAME));
    }

    #[test]
    fn an_error_says_where_it_was_looked_for_and_how_to_get_it() {
        let fail = |_: &Path| Err::<(), _>(io::Error::other("refused"));
        let missing = load_from(None, &[PathBuf::from("/first"), PathBuf::from("/second")], fail).expect_err("fails");
        let text = missing.to_string();
        for part in ["/first, /second, libonnxruntime.so", "make setup-server", VARIABLE] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert_eq!(missing.source().expect("the loader's error").to_string(), "refused");
        let broken = load_from(Some(Path::new("/broken.so")), &[], fail).expect_err("fails").to_string();
        assert!(broken.contains("/broken.so") && broken.contains("make setup-server"), "{broken}");
    }
}
