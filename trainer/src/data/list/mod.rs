//! Lists of image files: a path a line, alone or beside labels, in any encoding and with any end of lines.
//!
//! Paths are relative to the list's folder or to the current one, or absolute. Every entry is looked for when the list is
//! opened; those that are not there are counted.

pub(crate) mod reading;
pub(crate) mod text;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rayon::prelude::*;

use super::Tally;
use super::passed_over::PassedOverReason;
use super::walk::FoundImages;
use reading::{Reading, named_file};
use text::{TextError, TextLine};

/// First lines of which one shows how the others are read.
const LINES_TRIED: usize = 1000;

/// A list that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It cannot be read.
    #[error("cannot read the list {path}")]
    Unreadable {
        /// The list.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// It is not a text file.
    #[error(
        "{path} is neither a folder, nor tar shards, nor a list of images: {reason}. A list is a text file with one path a \
         line"
    )]
    NoText {
        /// The file.
        path: PathBuf,
        /// Reason, as the end of a sentence.
        reason: String,
    },
    /// It names nothing.
    #[error("no image in the list {path}; looked for one path a line, relative to the list's folder")]
    Empty {
        /// The list.
        path: PathBuf,
    },
    /// None of the files that it names is there.
    #[error(
        "none of the {count} files that {path} lists is there. Line {line} is `{text}`: {tried}: {cause}. Paths are \
         relative to the list's folder or to the current one; a label may stand behind a tab, a comma or a space"
    )]
    NothingThere {
        /// The list.
        path: PathBuf,
        /// Number of its lines.
        count: usize,
        /// Number of the first one.
        line: usize,
        /// Its text.
        text: String,
        /// The file that it would name if it were a path.
        tried: PathBuf,
        /// Why that cannot be used.
        cause: String,
    },
}

/// Reads the list at `path`; images are in its order. Empty lines, those that begin with `#`, and a line of titles above
/// columns are ignored.
///
/// # Errors
/// If the list cannot be read, is no text, or none of its files is there.
pub(crate) fn read(path: &Path) -> Result<FoundImages, ListError> {
    let bytes = fs::read(path).map_err(|source| ListError::Unreadable { path: path.to_owned(), source })?;
    let no_text = |error: TextError| ListError::NoText { path: path.to_owned(), reason: error.to_string() };
    let mut lines = text::lines(&bytes).map_err(no_text)?;
    drop(bytes);
    lines.retain(|line| !line.text.starts_with('#'));
    let Some(first) = lines.first() else { return Err(ListError::Empty { path: path.to_owned() }) };
    let mut folders = vec![path.parent().unwrap_or(Path::new("")).to_owned(), PathBuf::new()];
    folders.dedup();
    let Some(usual) = lines.iter().take(LINES_TRIED).find_map(|line| find(line, None, &folders)) else {
        return Err(nothing_there(path, &lines, first, &folders[0]));
    };
    let files: Vec<_> = lines.par_iter().map(|line| find(line, Some(usual.0), &folders)).collect();
    let mut found = FoundImages { paths: Vec::new(), passed_over: Tally::default() };
    for (i, (line, file)) in lines.iter().zip(files).enumerate() {
        match file {
            Some((_, file)) => found.paths.push(file),
            None if i == 0 && are_titles(&line.text) => {}
            None => {
                let entry = format!("{} line {}: {}", path.display(), line.number, line.text);
                found.passed_over.note(PassedOverReason::NotThere, entry);
            }
        }
    }
    Ok(found)
}

/// The file that a line names, and how the line was read: in the `usual` way if that finds one.
fn find(line: &TextLine, usual: Option<Reading>, folders: &[PathBuf]) -> Option<(Reading, PathBuf)> {
    let find = |(reading, path): (Reading, Cow<'_, str>)| Some((reading, named_file(&path, line, folders)?));
    let usual = usual.and_then(|reading| Some((reading, reading.path(&line.text)?)));
    usual.and_then(find).or_else(|| Reading::all(&line.text).into_iter().find_map(find))
}

/// Returns whether a first line that names no file holds the columns' titles, or the title of the only column.
fn are_titles(text: &str) -> bool {
    const TITLES: [&str; 8] = ["path", "paths", "file", "files", "filename", "filepath", "image", "images"];
    let only = text.trim().trim_matches(['"', '\'']).to_ascii_lowercase().replace(['_', ' '], "");
    TITLES.contains(&&*only) || text.contains([',', ';', '\t']) && !text.contains(['.', '/', '\\'])
}

fn nothing_there(path: &Path, lines: &[TextLine], first: &TextLine, folder: &Path) -> ListError {
    let line = if are_titles(&first.text) { lines.get(1).unwrap_or(first) } else { first };
    let mut named = Reading::all(&line.text).into_iter().map(|(_, path)| path);
    let image = named.find(|path| super::walk::is_image(Path::new(&**path)));
    let tried = folder.join(&*image.unwrap_or_else(|| line.text.as_str().into()));
    let cause = match fs::metadata(&tried) {
        Ok(metadata) if metadata.is_dir() => "it is a folder".to_owned(),
        Ok(_) => "it is no file".to_owned(),
        Err(error) => error.to_string(),
    };
    let (text, count) = (line.text.clone(), lines.len());
    ListError::NothingThere { path: path.to_owned(), count, line: line.number, text, tried, cause }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    const NAMES: [&str; 4] = ["a.jpg", "sub/b.png", "with space.jpg", "n, 1.jpg"];

    fn folder() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("sub")).unwrap();
        for name in NAMES {
            fs::write(root.path().join(name), b"").unwrap();
        }
        root
    }

    fn read_text(root: &Path, text: impl AsRef<[u8]>) -> Result<FoundImages, ListError> {
        let list = root.join("list.txt");
        fs::write(&list, text).unwrap();
        read(&list)
    }

    fn paths(root: &Path) -> Vec<PathBuf> {
        NAMES.map(|name| root.join(name)).to_vec()
    }

    #[test]
    fn labels_beside_paths_are_dropped_whatever_stands_between() {
        let root = folder();
        let quoted = |name: &str| if name.contains(',') { format!("\"{name}\"") } else { name.to_owned() };
        let list = |line: &dyn Fn(&str) -> String| NAMES.map(line).join("\n");
        let absolute = |name: &str| root.path().join(name).display().to_string();
        let lists = [
            list(&str::to_owned),
            list(&|name| format!("{name} 3")),
            list(&|name| format!("{name}\tcat")),
            list(&|name| format!("{name}\t1\t2")),
            list(&|name| format!("{},cat", quoted(name))),
            list(&|name| format!("{};0.5;x", quoted(name))),
            list(&|name| format!("7,{},cat", quoted(name))),
            list(&|name| format!("3 {name}")),
            list(&|name| format!("12\t0\t{name}")),
            list(&|name| format!("\"{name}\"")),
            list(&|name| absolute(name)),
            list(&|name| format!("{} 1", absolute(name))),
            list(&|name| format!("./{name}")),
            list(&|name| name.replace('/', "\\")),
            format!("path,label\n{}", list(&|name| format!("{},0", quoted(name)))),
            format!("filename\n{}", list(&str::to_owned)),
        ];
        for text in lists {
            let found = read_text(root.path(), &text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(found.paths, paths(root.path()), "{text}");
            assert!(found.passed_over.is_empty(), "{text}: {}", found.passed_over);
        }
    }

    #[test]
    fn marks_and_encodings_lose_no_line() {
        let root = folder();
        let text = NAMES.join("\r\n");
        let marked = format!("\u{feff}{text}");
        let utf_16: Vec<u8> = marked.encode_utf16().flat_map(u16::to_le_bytes).collect();
        for bytes in [text.into_bytes(), marked.into_bytes(), utf_16] {
            assert_eq!(read_text(root.path(), bytes).unwrap().paths, paths(root.path()));
        }
    }

    #[test]
    fn names_that_are_not_ascii_are_found_by_their_bytes_or_letters() {
        let root = tempfile::tempdir().unwrap();
        for name in [&b"caf\xe9.jpg"[..], "ü.jpg".as_bytes()] {
            fs::write(root.path().join(OsStr::from_bytes(name)), b"").unwrap();
        }
        let expected = [root.path().join(OsStr::from_bytes(b"caf\xe9.jpg")), root.path().join("ü.jpg")];
        for text in [&b"caf\xe9.jpg\n\xfc.jpg\n"[..], "café.jpg\nü.jpg\n".as_bytes(), b"caf\xe9.jpg 1\n\xfc.jpg 2\n"]
        {
            assert_eq!(read_text(root.path(), text).unwrap().paths, expected);
        }
    }

    #[test]
    fn entries_that_are_not_there_are_counted_with_their_line() {
        let root = folder();
        let found = read_text(root.path(), b"# a remark\na.jpg\n\ncaf\xe9.jpg\nsub\nsub/b.png\n").unwrap();
        assert_eq!(found.paths, [root.path().join("a.jpg"), root.path().join("sub/b.png")]);
        assert_eq!(found.passed_over.count(PassedOverReason::NotThere), 2);
        assert!(found.passed_over.to_string().contains("line 4: café.jpg"), "{}", found.passed_over);
    }

    #[test]
    fn a_list_without_files_names_its_first_line_and_the_cause() {
        let root = folder();
        let error = |text: &str| read_text(root.path(), text).unwrap_err().to_string();
        let elsewhere = error("/home/somebody/1.jpg 0\n/home/somebody/2.jpg 1\n");
        for part in ["none of the 2 files", "Line 1 is `/home/somebody/1.jpg 0`", "/home/somebody/1.jpg: No such file"]
        {
            assert!(elsewhere.contains(part), "{elsewhere}");
        }
        let titled = error("path,label\nx/1.jpg,0\n");
        assert!(titled.contains("Line 2") && titled.contains("x/1.jpg: No such file"), "{titled}");
        assert!(error("sub\n").contains("it is a folder"));
        assert!(error("# nothing\n\n").contains("one path a line"));
        assert!(error("a\0b").contains("zero bytes"));
    }
}
