//! Recognises content that is not read here by its first bytes.
//!
//! This is for messages alone: a wrong name does no harm, and what is not recognised is no error.

use std::fmt;

/// Content that is not read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignContent {
    /// Name with its article, such as `a HEIC picture`.
    pub name: &'static str,
    /// The kind of content, which decides on the advice.
    pub kind: ForeignKind,
}

/// Kinds of content that are not read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignKind {
    /// A picture in another format.
    Picture,
    /// The raw data of a camera's sensor.
    CameraRaw,
    /// A drawing or a document, which has to be rendered.
    Document,
    /// A moving picture.
    Video,
    /// Sound.
    Sound,
    /// Several files in one, or a compressed one.
    Archive,
    /// A web page, which a server may have sent instead of the picture.
    WebPage,
    /// Text, such as a path, an address, JSON or base64.
    Text,
    /// Numbers, a program, or something else that is known and no picture.
    Other,
    /// Unknown bytes.
    Unknown,
}

impl fmt::Display for ForeignContent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

/// Bytes that a file begins with, or has at an offset.
struct Signature {
    offset: usize,
    bytes: &'static [u8],
    name: &'static str,
    kind: ForeignKind,
}

const fn signature(offset: usize, bytes: &'static [u8], name: &'static str, kind: ForeignKind) -> Signature {
    Signature { offset, bytes, name, kind }
}

/// Signatures, longer ones before those that they begin with.
const SIGNATURES: &[Signature] = {
    use ForeignKind::{Archive, CameraRaw, Document, Other, Picture, Sound, Video};
    &[
        signature(0, b"\xFF\x0A", "a JPEG XL picture", Picture),
        signature(0, b"\0\0\0\x0CJXL \r\n\x87\n", "a JPEG XL picture", Picture),
        signature(0, b"\0\0\0\x0CjP  \r\n\x87\n", "a JPEG 2000 picture", Picture),
        signature(0, b"\xFF\x4F\xFF\x51", "a JPEG 2000 picture", Picture),
        signature(0, b"\xFF\xD8\xFF\xF7", "a JPEG-LS picture", Picture),
        signature(0, b"II\xBC", "a JPEG XR picture", Picture),
        signature(0, b"8BPS", "a Photoshop document", Picture),
        signature(0, b"gimp xcf", "a GIMP document", Picture),
        signature(0, b"\0\0\x01\0", "an icon (ICO)", Picture),
        signature(0, b"\0\0\x02\0", "a cursor (CUR)", Picture),
        signature(0, b"icns", "an icon (ICNS)", Picture),
        signature(0, b"DDS ", "a DDS texture", Picture),
        signature(0, b"v/1\x01", "an OpenEXR picture", Picture),
        signature(0, b"#?RADIANCE", "a Radiance HDR picture", Picture),
        signature(0, b"#?RGBE", "a Radiance HDR picture", Picture),
        signature(0, b"qoif", "a QOI picture", Picture),
        signature(0, b"farbfeld", "a farbfeld picture", Picture),
        signature(0, b"FLIF", "a FLIF picture", Picture),
        signature(0, b"BPG\xFB", "a BPG picture", Picture),
        signature(0, b"\x8BJNG\r\n\x1A\n", "a JNG picture", Picture),
        signature(0, b"\x8AMNG\r\n\x1A\n", "a MNG animation", Picture),
        signature(0, b"SIMPLE  =", "a FITS file", Picture),
        signature(128, b"DICM", "a DICOM file", Picture),
        signature(0, b"\x59\xA6\x6A\x95", "a Sun raster picture", Picture),
        signature(0, b"\x01\xDA", "an SGI picture", Picture),
        signature(0, b"II*\0\x10\0\0\0CR", "a Canon raw file (CR2)", CameraRaw),
        signature(0, b"IIRO", "an Olympus raw file (ORF)", CameraRaw),
        signature(0, b"IIRS", "an Olympus raw file (ORF)", CameraRaw),
        signature(0, b"MMOR", "an Olympus raw file (ORF)", CameraRaw),
        signature(0, b"IIU\0", "a Panasonic raw file (RW2)", CameraRaw),
        signature(0, b"FUJIFILMCCD-RAW", "a Fujifilm raw file (RAF)", CameraRaw),
        signature(0, b"II\x1A\0\0\0HEAPCCDR", "a Canon raw file (CRW)", CameraRaw),
        signature(0, b"FOVb", "a Sigma raw file (X3F)", CameraRaw),
        signature(0, b"\0MRM", "a Minolta raw file (MRW)", CameraRaw),
        signature(0, b"%PDF-", "a PDF document", Document),
        signature(0, b"%!PS", "a PostScript document", Document),
        signature(0, b"\xC5\xD0\xD3\xC6", "an EPS document", Document),
        signature(0, b"{\\rtf", "an RTF document", Document),
        signature(0, b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1", "an old Office document", Document),
        signature(0, b"\xD7\xCD\xC6\x9A", "a Windows metafile", Document),
        signature(40, b" EMF", "a Windows metafile", Document),
        signature(0, b"\x1A\x45\xDF\xA3", "a video (Matroska or WebM)", Video),
        signature(8, b"AVI ", "a video (AVI)", Video),
        signature(0, b"FLV\x01", "a video (FLV)", Video),
        signature(0, b"\0\0\x01\xBA", "a video (MPEG)", Video),
        signature(0, b"\0\0\x01\xB3", "a video (MPEG)", Video),
        signature(0, b"\x30\x26\xB2\x75\x8E\x66\xCF\x11", "a video (WMV)", Video),
        signature(0, b"OggS", "an Ogg file (sound or video)", Video),
        signature(8, b"WAVE", "a sound file (WAV)", Sound),
        signature(0, b"fLaC", "a sound file (FLAC)", Sound),
        signature(0, b"ID3", "a sound file (MP3)", Sound),
        signature(0, b"PK\x03\x04", "a zip archive", Archive),
        signature(0, b"PK\x05\x06", "an empty zip archive", Archive),
        signature(0, b"\x1F\x8B", "gzip data", Archive),
        signature(0, b"BZh", "bzip2 data", Archive),
        signature(0, b"\xFD7zXZ\0", "xz data", Archive),
        signature(0, b"\x28\xB5\x2F\xFD", "Zstandard data", Archive),
        signature(0, b"7z\xBC\xAF\x27\x1C", "a 7z archive", Archive),
        signature(0, b"Rar!\x1A\x07", "a RAR archive", Archive),
        signature(257, b"ustar", "a tar archive", Archive),
        signature(0, b"\x93NUMPY", "a NumPy array", Other),
        signature(0, b"\x89HDF\r\n\x1A\n", "an HDF5 file", Other),
        signature(0, b"SQLite format 3\0", "an SQLite database", Other),
        signature(0, b"\x7FELF", "a program", Other),
        signature(0, b"MZ", "a program", Other),
    ]
};

/// Brands of ISO base media files, by the name behind `ftyp`.
const BRANDS: &[(&[u8], &str, ForeignKind)] = &[
    (b"heic", "a HEIC picture", ForeignKind::Picture),
    (b"heix", "a HEIC picture", ForeignKind::Picture),
    (b"heim", "a HEIC picture", ForeignKind::Picture),
    (b"heis", "a HEIC picture", ForeignKind::Picture),
    (b"hevc", "a HEIC sequence", ForeignKind::Picture),
    (b"hevx", "a HEIC sequence", ForeignKind::Picture),
    (b"avif", "an AVIF picture", ForeignKind::Picture),
    (b"avis", "an AVIF sequence", ForeignKind::Picture),
    (b"crx ", "a Canon raw file (CR3)", ForeignKind::CameraRaw),
    (b"jxl ", "a JPEG XL picture", ForeignKind::Picture),
    (b"jp2 ", "a JPEG 2000 picture", ForeignKind::Picture),
    (b"M4A ", "a sound file (M4A)", ForeignKind::Sound),
    (b"qt  ", "a video (QuickTime)", ForeignKind::Video),
];

/// Bytes that are looked at where a signature is not enough.
const START_BYTES: usize = 1024;

/// Says what `bytes` are, which are no picture that is read here.
pub(super) fn recognize(bytes: &[u8]) -> ForeignContent {
    let content = |name, kind| ForeignContent { name, kind };
    if let Some(known) = iso_base_media(bytes) {
        return known;
    }
    // Icons and cursors are at least one picture; the same bytes without any begin a picture of another kind.
    if let [0, 0, 2 | 10, 0, 0, 0, 0, 0, ..] = bytes {
        return content("a TGA picture", ForeignKind::Picture);
    }
    let begins = |known: &&Signature| bytes.get(known.offset..).is_some_and(|rest| rest.starts_with(known.bytes));
    if let Some(known) = SIGNATURES.iter().find(begins) {
        return content(known.name, known.kind);
    }
    if let [b'P', b'1'..=b'7' | b'F' | b'f', b' ' | b'\t' | b'\r' | b'\n', ..] = bytes {
        return content("a Netpbm picture (PBM, PGM, PPM or PFM)", ForeignKind::Picture);
    }
    if bytes[..bytes.len().min(START_BYTES)].iter().all(|&byte| byte == 0) {
        return content("nothing but zeros", ForeignKind::Unknown);
    }
    text(bytes).unwrap_or(content("unknown data", ForeignKind::Unknown))
}

/// A file whose first box names its brand.
fn iso_base_media(bytes: &[u8]) -> Option<ForeignContent> {
    /// Brands that are looked at: the major one, a version, and some of those that the file is compatible with.
    const BRANDS_BYTES: usize = 64;
    let box_bytes = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
    let brands = bytes.get(4..)?.strip_prefix(b"ftyp")?;
    let brands = &brands[..brands.len().min(box_bytes.saturating_sub(8)).min(BRANDS_BYTES)];
    let mut known = brands.chunks_exact(4).filter_map(|brand| BRANDS.iter().find(|(name, ..)| *name == brand));
    let is_heif = || brands.chunks_exact(4).any(|brand| brand == b"mif1" || brand == b"msf1");
    Some(match known.next() {
        Some(&(_, name, kind)) => ForeignContent { name, kind },
        None if is_heif() => ForeignContent { name: "a HEIF picture", kind: ForeignKind::Picture },
        None => ForeignContent { name: "a video (MP4)", kind: ForeignKind::Video },
    })
}

/// Text, by what it begins with.
fn text(bytes: &[u8]) -> Option<ForeignContent> {
    let content = |name, kind| Some(ForeignContent { name, kind });
    if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") {
        return content("text in UTF-16", ForeignKind::Text);
    }
    let start = &bytes[..bytes.len().min(START_BYTES)];
    let is_text = |&byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | 0x0C | 0x20..=0x7E | 0x80..);
    let valid = match std::str::from_utf8(start) {
        Ok(valid) => valid,
        // A character may be cut in two.
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&start[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    if !start.iter().all(is_text) {
        return None;
    }
    let (name, kind) = kind_of_text(valid);
    content(name, kind)
}

fn kind_of_text(text: &str) -> (&'static str, ForeignKind) {
    use ForeignKind::{Document, Text, WebPage};
    let lower = text.trim_start_matches('\u{FEFF}').trim_start().to_ascii_lowercase();
    let begins = |with: &[&str]| with.iter().any(|with| lower.starts_with(with));
    if begins(&["<svg"]) || (begins(&["<?xml", "<!doctype svg", "<!--"]) && lower.contains("<svg")) {
        ("an SVG drawing", Document)
    } else if begins(&["<!doctype html", "<html", "<head", "<body"]) || lower.contains("<html") {
        ("a web page (HTML)", WebPage)
    } else if begins(&["<?xml"]) {
        ("XML", Text)
    } else if begins(&["version https://git-lfs"]) {
        ("a pointer of Git LFS, not the file itself", Text)
    } else if begins(&["data:"]) {
        ("a data URL", Text)
    } else if begins(&["{", "["]) {
        ("JSON", Text)
    } else if is_base64(text) {
        ("base64 text", Text)
    } else {
        ("text", Text)
    }
}

/// Returns whether text is long, and of the characters of base64 alone.
fn is_base64(text: &str) -> bool {
    const SHORTEST: usize = 64;
    let of_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_=\r\n".contains(&byte);
    text.len() >= SHORTEST && text.bytes().all(of_alphabet)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(bytes: &[u8]) -> &'static str {
        recognize(bytes).name
    }

    #[test]
    fn files_are_named_by_their_first_bytes() {
        let files: [(&[u8], &str); 22] = [
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC picture"),
            (b"\0\0\0\x1Cftypmif1\0\0\0\0mif1avifmiaf", "an AVIF picture"),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1miaf", "a HEIF picture"),
            (b"\0\0\0\x18ftypisom\0\0\x02\0isommp41", "a video (MP4)"),
            (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "a Canon raw file (CR3)"),
            (b"\0\0\0\x0CJXL \r\n\x87\n", "a JPEG XL picture"),
            (b"\xFF\x0A\x00", "a JPEG XL picture"),
            (b"\0\0\0\x0CjP  \r\n\x87\n", "a JPEG 2000 picture"),
            (b"%PDF-1.7\n", "a PDF document"),
            (b"8BPS\0\x01", "a Photoshop document"),
            (b"\0\0\x01\0\x01\0", "an icon (ICO)"),
            (b"PK\x03\x04\x14\0", "a zip archive"),
            (b"\x1F\x8B\x08\0", "gzip data"),
            (b"P6\n4 4\n255\n", "a Netpbm picture (PBM, PGM, PPM or PFM)"),
            (b"\n <svg xmlns=\"\">", "an SVG drawing"),
            (b"<?xml version=\"1.0\"?>\n<!-- x --><svg>", "an SVG drawing"),
            (b"<!DOCTYPE html><html><body>404", "a web page (HTML)"),
            (b"\xEF\xBB\xBF{\"image\": 1}", "JSON"),
            (b"data:image/png;base64,iVBORw0KGgo=", "a data URL"),
            (b"/home/me/photo.jpg", "text"),
            (b"\xFF\xFEh\0i\0", "text in UTF-16"),
            (b"\x80\x81\x82\x03", "unknown data"),
        ];
        for (bytes, name) in files {
            assert_eq!(named(bytes), name, "{}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(named(&b"iVBORw0KGgoAAAANSUhEUgAA".repeat(4)), "base64 text");
        assert_eq!(named(&[0; 300]), "nothing but zeros");
    }

    #[test]
    fn no_bytes_at_all_and_every_start_of_a_file_have_a_name() {
        for bytes in [&b"\0\0\0\xFFftyp"[..], b"\0\0\0\0ftyp", b"\0\0\0\x08ftyp", b"P", b"<", "ä".as_bytes(), &[0xC3]]
        {
            for length in 0..=bytes.len() {
                assert!(!named(&bytes[..length]).is_empty());
            }
        }
    }
}
