//! Ways to find a path in a line of a list: alone, or beside labels.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use encoding_rs::WINDOWS_1252;

use super::text::TextLine;
use crate::data::walk::is_image;

/// Most columns of a line that are looked at.
const MAX_COLUMNS: usize = 16;

/// Separators of columns.
const DELIMITERS: [u8; 4] = *b"\t,; ";

/// A way to read a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// The line is a path.
    Whole,
    /// A path, then a label.
    BeforeLast(u8),
    /// A label or number, then a path.
    AfterFirst(u8),
    /// One of the columns, which may be quoted, is a path with an image's ending.
    Column(u8, usize),
}

impl Reading {
    /// The ways to read a line, the plainest first, each with the path that the line then holds.
    pub(super) fn all(line: &str) -> Vec<(Self, Cow<'_, str>)> {
        let mut all = vec![Self::Whole];
        let mut in_columns = Vec::new();
        for delimiter in DELIMITERS {
            if line.as_bytes().contains(&delimiter) {
                all.extend([Self::BeforeLast(delimiter), Self::AfterFirst(delimiter)]);
                let paths = columns(line, delimiter).into_iter().map(|field| column_path(&field)).enumerate();
                in_columns.extend(paths.filter_map(|(at, path)| Some((Self::Column(delimiter, at), path?.into()))));
            }
        }
        let whole = all.into_iter().filter_map(|reading| Some((reading, reading.path(line)?)));
        whole.chain(in_columns).collect()
    }

    /// The path that a line holds, read in this way.
    pub(super) fn path(self, line: &str) -> Option<Cow<'_, str>> {
        match self {
            Self::Whole => Some(unquoted(line).into()),
            Self::BeforeLast(delimiter) => {
                line.rsplit_once(char::from(delimiter)).map(|(path, _)| unquoted(path).into())
            }
            Self::AfterFirst(delimiter) => {
                line.split_once(char::from(delimiter)).map(|(_, path)| unquoted(path).into())
            }
            Self::Column(delimiter, column) => {
                columns(line, delimiter).into_iter().nth(column).and_then(|field| column_path(&field)).map(Cow::from)
            }
        }
    }
}

/// The path in a column, which has an image's ending.
fn column_path(field: &str) -> Option<String> {
    let field = field.trim();
    is_image(Path::new(field)).then(|| field.to_owned())
}

/// The file of a `path` that `line` holds: below one of `folders`, spelt in one of the ways that the line may mean.
pub(super) fn named_file(path: &str, line: &TextLine, folders: &[PathBuf]) -> Option<PathBuf> {
    if path.is_empty() {
        return None;
    }
    let spellings = spellings(path, line.is_unicode);
    let files = spellings.iter().flat_map(|path| folders.iter().map(move |folder| folder.join(path)));
    files.into_iter().find(|file| file.is_file())
}

/// The names of files that a text may mean.
fn spellings(path: &str, is_unicode: bool) -> Vec<PathBuf> {
    let mut spellings = vec![PathBuf::from(path)];
    if !path.is_ascii() {
        let (bytes, _, unmappable) = WINDOWS_1252.encode(path);
        if !unmappable {
            let bytes = PathBuf::from(OsStr::from_bytes(&bytes));
            // A line that is not UTF-8 means its own bytes first.
            spellings.insert(usize::from(is_unicode), bytes);
        }
    }
    if path.contains('\\') {
        spellings.push(PathBuf::from(path.replace('\\', "/")));
    }
    spellings
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    let inner = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

/// The columns of a line; quotes keep a delimiter within a column.
fn columns(line: &str, delimiter: u8) -> Vec<String> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .buffer_capacity(line.len().clamp(1, 8 << 10))
        .from_reader(line.as_bytes());
    let record = reader.records().next().and_then(Result::ok).unwrap_or_default();
    record.iter().take(MAX_COLUMNS).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(line: &str) -> Vec<String> {
        Reading::all(line).into_iter().map(|(_, path)| path.into_owned()).collect()
    }

    #[test]
    fn a_path_is_found_beside_labels() {
        for line in [
            "a b.jpg",
            "\"a b.jpg\"",
            "a b.jpg 3",
            "a b.jpg\tcat",
            "a b.jpg,cat,12",
            "7,a b.jpg,cat",
            "7\t0\ta b.jpg",
            "\"a b.jpg\",\"a, cat\"",
            "3;'x';a b.jpg;",
            "12 a b.jpg",
        ] {
            assert!(paths(line).contains(&"a b.jpg".to_owned()), "{line}: {:?}", paths(line));
        }
        assert_eq!(paths("a.jpg"), ["a.jpg"]);
    }

    #[test]
    fn names_are_spelt_as_their_bytes_or_letters() {
        let bytes = PathBuf::from(OsStr::from_bytes(b"caf\xe9.jpg"));
        assert_eq!(spellings("café.jpg", false), [bytes.clone(), "café.jpg".into()]);
        assert_eq!(spellings("café.jpg", true), ["café.jpg".into(), bytes]);
        assert_eq!(spellings("a\\b.jpg", true), [PathBuf::from("a\\b.jpg"), "a/b.jpg".into()]);
        assert_eq!(spellings("日.jpg", true), [PathBuf::from("日.jpg")]);
    }
}
