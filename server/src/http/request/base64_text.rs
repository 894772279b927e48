//! Base64 as clients write it: in lines, of either alphabet, with or without padding, or as a data URL.

use std::fmt::Write as _;

use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{DecodeError, Engine as _};
use densecl_vision::image::is_picture;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);
/// Symbols that are decoded at a time where the text is more than base64 alone.
const BLOCK: usize = 4096;

/// Text that is not base64. Offsets count characters of the text from 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Base64Error {
    #[error("the character {symbol:?} at offset {offset} is not of base64")]
    Symbol { symbol: char, offset: usize },
    #[error("text follows the padding, at offset {offset}")]
    AfterPadding { offset: usize },
    #[error("it is cut off: {symbols} characters of base64 are no whole number of bytes")]
    Length { symbols: usize },
    #[error("its padding is wrong")]
    Padding,
    #[error("it is a data URL without `;base64,`")]
    DataUrl,
}

/// Decodes base64. White space is ignored, the alphabet is the standard or the URL-safe one, and padding may be left
/// away. Of a data URL, what follows the comma is decoded.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, Base64Error> {
    let (data, is_url) = match data_of_url(text)? {
        Some(data) => (data, true),
        None => (text, false),
    };
    if let Ok(bytes) = BASE64.decode(data) {
        return Ok(bytes);
    }
    decode_symbols(data, is_url).map_err(|error| error.moved(text[..text.len() - data.len()].chars().count()))
}

/// Hint at the likely mistake in a text that is not base64, to follow the error's message.
pub(super) fn advice(text: &str) -> &'static str {
    let start = text.trim_start();
    if start.starts_with("b'") || start.starts_with("b\"") {
        ": it is the repr of Python's bytes; send base64.b64encode(...).decode()"
    } else if start.starts_with("http://") || start.starts_with("https://") {
        ": images are not fetched; send the bytes"
    } else if is_file_name(text) {
        ": it is the name of a file; send the bytes in it"
    } else {
        ""
    }
}

/// True if the text is, by its ending, the name or the address of an image file.
pub(super) fn is_file_name(text: &str) -> bool {
    const MAX_BYTES: usize = 4096;
    let name = text.trim().trim_end_matches(['"', '\'']);
    let ending = name.rsplit_once('.').map(|(_, ending)| ending);
    name.len() <= MAX_BYTES
        && !name.contains('\n')
        && (name.starts_with("file:") || name.starts_with("http") || ending.is_some_and(is_image_ending))
}

/// True if the text is a data URL, or base64 of an image's first bytes.
pub(super) fn is_encoded_image(text: &[u8]) -> bool {
    const FIRST_BYTES: usize = 256;
    let first = String::from_utf8_lossy(&text[..text.len().min(FIRST_BYTES)]);
    match data_of_url(&first) {
        Ok(None) => {
            let symbols: String = first.chars().filter(|symbol| !symbol.is_whitespace()).collect();
            let whole = symbols.len() / 4 * 4;
            symbols.get(..whole).and_then(|symbols| decode(symbols).ok()).is_some_and(|bytes| is_picture(&bytes))
        }
        Ok(Some(_)) | Err(_) => true,
    }
}

fn is_image_ending(ending: &str) -> bool {
    const ENDINGS: [&str; 12] =
        ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "heic", "avif", "jxl", "svg"];
    ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known))
}

/// The data of a data URL (RFC 2397), whose type and parameters may be anything; `None` if the text is no data URL.
fn data_of_url(text: &str) -> Result<Option<&str>, Base64Error> {
    let start = text.trim_start();
    let Some((scheme, rest)) = start.split_at_checked("data:".len()) else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case("data:") {
        return Ok(None);
    }
    let (head, data) = rest.split_once(',').ok_or(Base64Error::DataUrl)?;
    let is_base64 = head.rsplit(';').next().is_some_and(|last| last.trim().eq_ignore_ascii_case("base64"));
    if is_base64 { Ok(Some(data)) } else { Err(Base64Error::DataUrl) }
}

/// Decodes block by block, so that no second copy of the text is made.
fn decode_symbols(data: &str, is_url: bool) -> Result<Vec<u8>, Base64Error> {
    let mut bytes = Vec::with_capacity(data.len() / 4 * 3 + 3);
    let mut symbols = Symbols { text: data.as_bytes(), at: 0, is_url };
    let (mut block, mut begun) = ([0; BLOCK], 0);
    loop {
        let mut length = 0;
        while length < BLOCK
            && let Some((_, symbol)) = symbols.next()
        {
            block[length] = symbol;
            length += 1;
        }
        let place = |index: usize| {
            let mut all = Symbols { text: data.as_bytes(), at: 0, is_url };
            (all.nth(index), all.find(|(_, symbol)| *symbol != b'='))
        };
        BASE64.decode_vec(&block[..length], &mut bytes).map_err(|error| {
            // The decoder looks at the end first.
            let strange = block[..length].iter().position(|byte| !is_symbol(*byte));
            match (error, strange) {
                (_, Some(index))
                | (DecodeError::InvalidByte(index, _) | DecodeError::InvalidLastSymbol { offset: index, .. }, None) => {
                    described(data, place(begun + index))
                }
                (DecodeError::InvalidLength(_), None) => Base64Error::Length { symbols: begun + length },
                (DecodeError::InvalidPadding, None) => Base64Error::Padding,
            }
        })?;
        if length < BLOCK {
            return Ok(bytes);
        }
        begun += length;
        if block.contains(&b'=')
            && let Some((offset, _)) = symbols.next()
        {
            return Err(Base64Error::AfterPadding { offset: characters(data, offset) });
        }
    }
}

fn is_symbol(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

/// A symbol and its byte offset.
type Place = Option<(usize, u8)>;

/// The error of a symbol, which another one follows that is no padding.
fn described(data: &str, (wrong, next): (Place, Place)) -> Base64Error {
    match (wrong, next) {
        (None | Some((_, b'=')), None) => Base64Error::Padding,
        (None | Some((_, b'=')), Some((at, _))) => Base64Error::AfterPadding { offset: characters(data, at) },
        (Some((at, _)), _) => Base64Error::Symbol {
            symbol: data.get(at..).and_then(|rest| rest.chars().next()).unwrap_or(char::REPLACEMENT_CHARACTER),
            offset: characters(data, at),
        },
    }
}

fn characters(text: &str, bytes: usize) -> usize {
    text.get(..bytes).map_or(bytes, |before| before.chars().count())
}

impl Base64Error {
    /// The error in a text that begins `by` characters earlier.
    fn moved(self, by: usize) -> Self {
        match self {
            Self::Symbol { symbol, offset } => Self::Symbol { symbol, offset: offset + by },
            Self::AfterPadding { offset } => Self::AfterPadding { offset: offset + by },
            Self::Length { .. } | Self::Padding | Self::DataUrl => self,
        }
    }
}

/// The symbols of base64 in a text with their byte offsets, in the standard alphabet and without white space; in a URL
/// `%XX` is a symbol.
struct Symbols<'a> {
    text: &'a [u8],
    at: usize,
    is_url: bool,
}

impl Iterator for Symbols<'_> {
    type Item = (usize, u8);

    fn next(&mut self) -> Option<(usize, u8)> {
        loop {
            let at = self.at;
            let mut byte = *self.text.get(at)?;
            self.at += 1;
            if byte == b'%' && self.is_url {
                let escaped = self.text.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
                if let Some(escaped) = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                    (byte, self.at) = (escaped, at + 3);
                }
            }
            match byte {
                b'-' => return Some((at, b'+')),
                b'_' => return Some((at, b'/')),
                _ if byte.is_ascii_whitespace() => {}
                _ => return Some((at, byte)),
            }
        }
    }
}

/// The message about a text that is not base64.
pub(super) fn message(error: &Base64Error, text: &str) -> String {
    let mut message = format!("it is not base64: {error}");
    // Writing to a string does not fail.
    let _ = message.write_str(advice(text));
    message
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn errors_point_at_the_character() {
        let long = "QUJD".repeat(5000);
        let error = |text: &str| decode(text).unwrap_err().to_string();
        for (text, expected) in [
            ("aG*k".to_owned(), "'*' at offset 2"),
            ("a G\n* k".to_owned(), "'*' at offset 4"),
            (" data:image/png;base64,aG*k".to_owned(), "'*' at offset 25"),
            ("aGék".to_owned(), "'é' at offset 2"),
            ("é".to_owned(), "'é' at offset 0"),
            ("QUJDQ\nUJé".to_owned(), "'é' at offset 8"),
            (format!("{long}\n*"), "'*' at offset 20001"),
            (format!("é{long}"), "'é' at offset 0"),
            (format!("{long}é*"), "'é' at offset 20000"),
            ("aG=k".to_owned(), "follows the padding, at offset 3"),
            ("aGk==".to_owned(), "padding is wrong"),
            ("aGk=aGk=".to_owned(), "follows the padding, at offset 4"),
            (format!("{}aGk=aGk", "QUJD".repeat(BLOCK / 4 - 1)), "follows the padding, at offset 4096"),
            ("aGkaG".to_owned(), "cut off: 5 characters"),
            ("data:image/png,abc".to_owned(), "without `;base64,`"),
            ("data:image/png;base64".to_owned(), "without `;base64,`"),
        ] {
            assert!(error(&text).contains(expected), "{}: {}", &text[..text.len().min(40)], error(&text));
        }
    }

    #[test]
    fn advice_fits_the_mistake() {
        for (text, expected) in [
            ("b'aGk='", "decode()"),
            ("https://example.org/a.jpg", "not fetched"),
            ("photos/a.JPG", "name of a file"),
            ("aGk*", ""),
        ] {
            assert!(message(&decode(text).unwrap_err(), text).contains(expected), "{text}");
        }
        let png = general_purpose::STANDARD.encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR");
        assert!(is_encoded_image(png.as_bytes()) && is_encoded_image(b"data:image/png;base64,AA=="));
        assert!(!is_encoded_image(b"hello") && !is_encoded_image(b"\x89PNG\r\n\x1a\n") && !is_encoded_image(b""));
    }

    proptest! {
        #[test]
        fn whatever_form_it_has_the_bytes_are_the_same(
            bytes in proptest::collection::vec(any::<u8>(), 0..9000),
            url_safe: bool,
            padded: bool,
            line in 0_usize..100,
            url in 0_usize..4,
        ) {
            let engine = match (url_safe, padded) {
                (false, true) => general_purpose::STANDARD,
                (false, false) => general_purpose::STANDARD_NO_PAD,
                (true, true) => general_purpose::URL_SAFE,
                (true, false) => general_purpose::URL_SAFE_NO_PAD,
            };
            let mut text = engine.encode(&bytes);
            if line > 0 {
                let lines = text.as_bytes().chunks(line).map(String::from_utf8_lossy);
                text = lines.collect::<Vec<_>>().join("\r\n\t ");
            }
            if url > 0 {
                let heads = ["data:image/jpeg;base64,", "DATA:Image/PNG;charset=utf-8;BASE64,", " data:;base64,"];
                text = format!("{}{}", heads[url - 1], if line == 0 { text.replace('+', "%2B").replace('=', "%3d") } else { text });
            }
            prop_assert_eq!(decode(&text), Ok(bytes));
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let (_, _) = (decode(&text).map_err(|error| message(&error, &text)), is_encoded_image(text.as_bytes()));
        }
    }
}
