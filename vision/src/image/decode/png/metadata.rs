//! EXIF and XMP data of a PNG file: in chunks of their own or as text, plain or compressed, before or behind the pixels.
//!
//! Of several the last one counts. Compressed text is inflated piece by piece, up to a limit, and only if it is needed.

use std::borrow::Cow;

use ::image::metadata::Orientation;
use flate2::{Decompress, FlushDecompress, Status};

use super::chunks::{Chunk, chunks};
use crate::image::decode::orientation::{self, MAX_METADATA_BYTES, XMP_MATCH_BYTES, in_xmp};

/// Keyword of EXIF data as hexadecimal text.
const PROFILE: &[u8] = b"Raw profile type exif";
/// Keyword of an XMP packet.
const XMP: &[u8] = b"XML:com.adobe.xmp";
/// Bytes that are inflated at a time.
const PIECE_BYTES: usize = 8 << 10;

/// The data of a file.
#[derive(Default)]
struct Metadata<'a> {
    exif: Option<&'a [u8]>,
    profile: Option<Text<'a>>,
    xmp: Option<Text<'a>>,
}

/// The text of a chunk.
#[derive(Clone, Copy)]
enum Text<'a> {
    Plain(&'a [u8]),
    Compressed(&'a [u8]),
}

/// The orientation that a file states.
pub(super) fn orientation(bytes: &[u8]) -> Orientation {
    let found = find(bytes);
    let profile = || found.profile.map(|text| Cow::Owned(bytes_of_profile(text)));
    let exif = found.exif.map(Cow::Borrowed).or_else(profile);
    orientation::stated(exif, || orientation_in_text(found.xmp?))
}

fn find(bytes: &[u8]) -> Metadata<'_> {
    let mut found = Metadata::default();
    let (mut is_animated, mut has_pixels) = (false, false);
    for chunk in chunks(bytes) {
        match &chunk.kind {
            b"IEND" => break,
            // Data behind the next frame belong to the animation.
            b"fcTL" if is_animated && has_pixels => break,
            b"acTL" => is_animated = true,
            b"IDAT" => has_pixels = true,
            b"eXIf" => found.exif = chunk.values.or(found.exif),
            _ => {
                if let Some((keyword, text)) = keyword_and_text(&chunk) {
                    match keyword {
                        PROFILE => found.profile = Some(text),
                        XMP => found.xmp = Some(text),
                        _ => {}
                    }
                }
            }
        }
    }
    found
}

/// Longest keyword that the format allows.
const MAX_KEYWORD_BYTES: usize = 79;

/// Keyword and text of a chunk, if it is one of the three kinds of text.
fn keyword_and_text<'a>(chunk: &Chunk<'a>) -> Option<(&'a [u8], Text<'a>)> {
    let (keyword, rest) = keyword_and_rest(chunk.values?)?;
    let text = match &chunk.kind {
        b"tEXt" => Text::Plain(rest),
        // The method of compression is 0.
        b"zTXt" => Text::Compressed(rest.strip_prefix(&[0])?),
        b"iTXt" => {
            let (&[flag, method], rest) = rest.split_first_chunk()?;
            let (_language, rest) = split_at_zero(rest)?;
            let (_translated_keyword, text) = split_at_zero(rest)?;
            match (flag, method) {
                (0, _) => Text::Plain(text),
                (_, 0) => Text::Compressed(text),
                _ => return None,
            }
        }
        _ => return None,
    };
    Some((keyword, text))
}

fn keyword_and_rest(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(0, &bytes[..bytes.len().min(MAX_KEYWORD_BYTES + 1)])?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

fn split_at_zero(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(0, bytes)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

impl Text<'_> {
    /// Hands the text over in pieces, up to the limit, until one of them gives a result.
    fn find_map<T>(self, mut look: impl FnMut(&[u8]) -> Option<T>) -> Option<T> {
        let compressed = match self {
            Text::Plain(text) => return look(&text[..text.len().min(MAX_METADATA_BYTES)]),
            Text::Compressed(compressed) => compressed,
        };
        let mut inflater = Decompress::new(true);
        let mut piece = vec![0; PIECE_BYTES];
        while inflater.total_out() < MAX_METADATA_BYTES as u64 {
            let (read, written) = (inflater.total_in(), inflater.total_out());
            let rest = compressed.get(read as usize..)?;
            let status = inflater.decompress(rest, &mut piece, FlushDecompress::None).ok()?;
            let length = (inflater.total_out() - written) as usize;
            if let Some(result) = look(&piece[..length]) {
                return Some(result);
            }
            let is_stuck = length == 0 && inflater.total_in() == read;
            if is_stuck || matches!(status, Status::StreamEnd) {
                break;
            }
        }
        None
    }
}

/// The first orientation in the text of an XMP packet.
fn orientation_in_text(text: Text<'_>) -> Option<Orientation> {
    let mut window = Vec::new();
    text.find_map(|piece| {
        window.extend_from_slice(piece);
        let found = in_xmp(&window);
        // What the next piece may complete.
        window.drain(..window.len().saturating_sub(XMP_MATCH_BYTES - 1));
        found
    })
}

/// The bytes of a profile: an empty line, its name, its length, and then hexadecimal digits among white space.
fn bytes_of_profile(text: Text<'_>) -> Vec<u8> {
    let (mut lines, mut high, mut bytes) = (0, None, Vec::new());
    text.find_map(|piece| {
        for &character in piece {
            match (lines, char::from(character).to_digit(16)) {
                (0..3, _) => lines += u8::from(character == b'\n'),
                (_, Some(digit)) => match high.take() {
                    None => high = Some(digit as u8),
                    Some(high) => bytes.push(high << 4 | digit as u8),
                },
                (_, None) if character.is_ascii_whitespace() => {}
                // Something else than digits.
                (_, None) => return Some(()),
            }
        }
        None
    });
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    fn compressed(text: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn an_orientation_is_found_across_pieces_and_within_the_limit() {
        let attribute = b"tiff:Orientation=\"6\"";
        for before in [0, PIECE_BYTES - 10, PIECE_BYTES, 5 * PIECE_BYTES - 1, MAX_METADATA_BYTES - 2 * PIECE_BYTES] {
            let text = [vec![b' '; before], attribute.to_vec(), vec![b' '; 1000]].concat();
            assert_eq!(orientation_in_text(Text::Plain(&text)), Some(Orientation::Rotate90), "{before}");
            let packed = compressed(&text);
            assert_eq!(orientation_in_text(Text::Compressed(&packed)), Some(Orientation::Rotate90), "{before}");
            // What is cut off is read as far as it goes.
            let cut = &packed[..packed.len() - 4];
            assert_eq!(orientation_in_text(Text::Compressed(cut)), Some(Orientation::Rotate90), "{before}");
        }
        let far = [vec![b' '; MAX_METADATA_BYTES + PIECE_BYTES], attribute.to_vec()].concat();
        assert_eq!(orientation_in_text(Text::Plain(&far)), None);
        assert_eq!(orientation_in_text(Text::Compressed(&compressed(&far))), None);
        assert_eq!(orientation_in_text(Text::Compressed(b"rubbish")), None);
    }

    #[test]
    fn a_profile_is_its_digits() {
        let text = b"\nexif\n       4\n4d 4D\n002a\n";
        assert_eq!(bytes_of_profile(Text::Plain(text)), b"MM\0*");
        assert_eq!(bytes_of_profile(Text::Compressed(&compressed(text))), b"MM\0*");
        assert_eq!(bytes_of_profile(Text::Plain(b"\nexif\n4\n4dx4d")), b"M");
        assert_eq!(bytes_of_profile(Text::Plain(b"\nexif\n4")), b"");
    }
}
