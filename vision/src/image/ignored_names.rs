//! Names of files and folders that belong to operating systems and file servers, and not to a set of pictures.

use std::ffi::OsStr;

/// Names beside the hidden ones, in small letters: macOS, Windows, and the servers of Synology, QNAP and `NetApp`.
const SYSTEM_NAMES: [&str; 18] = [
    "__macosx",
    "@eadir",
    "@tmp",
    "@recycle",
    "@recently-snapshot",
    "#recycle",
    "#snapshot",
    "~snapshot",
    "$recycle.bin",
    "recycler",
    "system volume information",
    "lost+found",
    "thumbs.db",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "icon\r",
    "__pycache__",
];

/// Returns whether a file or folder of this name is passed over in a folder of pictures: it is hidden (its name begins with
/// a dot, as macOS's `._photo.jpg` does), or one that a system makes by itself, such as `__MACOSX`, `@eaDir`, `Thumbs.db`
/// or `lost+found`. Capitals do not matter.
pub fn is_ignored_name(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    bytes.starts_with(b".") || SYSTEM_NAMES.iter().any(|known| bytes.eq_ignore_ascii_case(known.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_names_and_those_of_systems_are_ignored() {
        for name in [".DS_Store", "._a.jpg", ".cache", "__MACOSX", "@eaDir", "Thumbs.db", "THUMBS.DB", "lost+found"] {
            assert!(is_ignored_name(name.as_ref()), "{name}");
        }
        for name in ["a.jpg", "_a.jpg", "MACOSX", "eaDir", "thumbs", "n01440764", "@a.jpg", "#1.png", ""] {
            assert!(!is_ignored_name(name.as_ref()), "{name}");
        }
    }
}
