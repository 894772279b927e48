//! The lines of a text file, in whatever encoding it was saved.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

/// A line with something in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TextLine {
    /// Its number, from 1 on.
    pub(crate) number: usize,
    /// Its text without the white space around it. Bytes that are not UTF-8 are read as Windows-1252, in which every byte
    /// is a character.
    pub(crate) text: String,
    /// `false` if its bytes are not UTF-8: as a file's name they may be meant as they are.
    pub(crate) is_unicode: bool,
}

/// Bytes that are no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TextError {
    /// There are zero bytes, which neither UTF-8 nor UTF-16 without its mark explain.
    #[error("it is no text: it holds zero bytes")]
    Binary,
    /// UTF-32, or UTF-16 with errors.
    #[error("it is in UTF-32 or damaged UTF-16; save it as UTF-8")]
    Encoding,
}

/// The lines that are not empty. Lines end in LF, CR LF or CR. UTF-8 and UTF-16 are told by their mark, UTF-16 also by the
/// zero bytes that it has between ordinary letters.
///
/// # Errors
/// If the bytes are no text.
pub(crate) fn lines(bytes: &[u8]) -> Result<Vec<TextLine>, TextError> {
    const UTF_32: [[u8; 4]; 2] = [[0xff, 0xfe, 0, 0], [0, 0, 0xfe, 0xff]];
    if UTF_32.iter().any(|mark| bytes.starts_with(mark)) {
        return Err(TextError::Encoding);
    }
    let (encoding, bytes) = match Encoding::for_bom(bytes) {
        Some((encoding, mark)) => (encoding, &bytes[mark..]),
        None => (without_mark(bytes)?, bytes),
    };
    if encoding != UTF_8 {
        let (text, damaged) = encoding.decode_without_bom_handling(bytes);
        return if damaged { Err(TextError::Encoding) } else { Ok(split(text.as_bytes())) };
    }
    Ok(split(bytes))
}

/// The encoding of bytes that do not begin with a mark.
fn without_mark(bytes: &[u8]) -> Result<&'static Encoding, TextError> {
    if !bytes.contains(&0) {
        return Ok(UTF_8);
    }
    let (pairs, rest) = bytes.as_chunks::<2>();
    let zeros = |half: usize| pairs.iter().filter(|pair| pair[half] == 0).count();
    let (high_first, low_first) = (zeros(0), zeros(1));
    // Names and paths are mostly of ASCII letters, whose other byte is zero.
    match (rest.is_empty(), pairs.len()) {
        (true, pairs) if low_first * 2 > pairs && high_first == 0 => Ok(UTF_16LE),
        (true, pairs) if high_first * 2 > pairs && low_first == 0 => Ok(UTF_16BE),
        _ => Err(TextError::Binary),
    }
}

fn split(bytes: &[u8]) -> Vec<TextLine> {
    let mut lines = Vec::new();
    let mut number = 0;
    for line in bytes.split(|&byte| byte == b'\n') {
        // Of `\r\n` the last piece is empty; a lone `\r` ends a line as well.
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        for line in line.split(|&byte| byte == b'\r') {
            number += 1;
            let (text, is_unicode) = decoded(line);
            // Lists that were joined have marks in the middle.
            let text = text.trim().trim_start_matches('\u{feff}').trim_start();
            if !text.is_empty() {
                lines.push(TextLine { number, text: text.to_owned(), is_unicode });
            }
        }
    }
    lines
}

fn decoded(line: &[u8]) -> (Cow<'_, str>, bool) {
    match std::str::from_utf8(line) {
        Ok(text) => (Cow::Borrowed(text), true),
        Err(_) => (WINDOWS_1252.decode_without_bom_handling(line).0, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(bytes: &[u8]) -> Vec<(usize, String)> {
        lines(bytes).unwrap().into_iter().map(|line| (line.number, line.text)).collect()
    }

    fn utf_16(text: &str, big: bool) -> Vec<u8> {
        let bytes = |unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() };
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn encodings_and_ends_of_lines_make_no_difference() {
        let text = "a.jpg\n\n  b/ü.jpg\t1 \nc.jpg";
        let expected = [(1, "a.jpg".to_owned()), (3, "b/ü.jpg\t1".to_owned()), (4, "c.jpg".to_owned())];
        for ending in ["\n", "\r\n", "\r"] {
            let text = text.replace('\n', ending);
            let marked = format!("\u{feff}{text}");
            let latin: Vec<u8> = text.chars().map(|letter| letter as u8).collect();
            for bytes in [
                text.clone().into_bytes(),
                marked.clone().into_bytes(),
                utf_16(&marked, false),
                utf_16(&marked, true),
                utf_16(&text, false),
                utf_16(&text, true),
                latin,
            ] {
                assert_eq!(texts(&bytes), expected, "{ending:?} {bytes:?}");
            }
        }
    }

    #[test]
    fn only_lines_that_are_not_utf_8_are_marked() {
        let read = lines(b"a.jpg\ncaf\xe9.jpg\ncaf\xc3\xa9.jpg\n\xef\xbb\xbfd.jpg").unwrap();
        let found: Vec<_> = read.iter().map(|line| (line.text.as_str(), line.is_unicode)).collect();
        assert_eq!(found, [("a.jpg", true), ("café.jpg", false), ("café.jpg", true), ("d.jpg", true)]);
    }

    #[test]
    fn what_is_no_text_is_refused() {
        assert_eq!(lines(b"\x89PNG\r\n\x1a\n\0\0\0\x0d"), Err(TextError::Binary));
        assert_eq!(lines(b"a\0b"), Err(TextError::Binary));
        assert_eq!(lines(b"\xff\xfe\0\0a\0\0\0"), Err(TextError::Encoding));
        assert_eq!(lines(b"\xff\xfe\x00\xd8a\0"), Err(TextError::Encoding));
        assert_eq!(lines(b"").unwrap(), []);
    }
}
