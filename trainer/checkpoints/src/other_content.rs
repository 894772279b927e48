//! Recognises files that are no checkpoints by their first bytes, for messages with a cure.

use crate::archive::MAGIC as ZIP;
use crate::source::{ReadError, Source};

/// Bytes from the start that are looked at.
pub(crate) const START: u64 = 512;

/// A kind of file that begins with the same bytes.
struct Known {
    at: usize,
    bytes: &'static [u8],
    description: &'static str,
}

const fn known(at: usize, bytes: &'static [u8], description: &'static str) -> Known {
    Known { at, bytes, description }
}

const COMPRESSED: &str = "a compressed file; unpack it first";
const PICTURE: &str = "a picture, not the weights of a network";

#[rustfmt::skip]
const KNOWN: [Known; 29] = [
    known(0, b"\x1f\x8b", "a gzip-compressed file; unpack it first (gunzip; a .tar.gz with tar xzf)"),
    known(0, b"BZh", "a bzip2-compressed file; unpack it first (bunzip2)"),
    known(0, b"\xfd7zXZ\0", "an xz-compressed file; unpack it first (unxz)"),
    known(0, b"\x28\xb5\x2f\xfd", "a zstd-compressed file; unpack it first (unzstd)"),
    known(0, b"\x04\x22\x4d\x18", "a lz4-compressed file; unpack it first (unlz4)"),
    known(0, b"7z\xbc\xaf\x27\x1c", COMPRESSED),
    known(0, b"Rar!\x1a\x07", COMPRESSED),
    known(0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as TensorFlow and Keras write (.h5); its weights have other names, and are not read. Convert it to PyTorch first"),
    known(0, b"\x93NUMPY", "a single NumPy array (.npy); a network is a file of named arrays"),
    known(4, b"TFL3", "a TensorFlow Lite model; convert the network to PyTorch first"),
    known(0, b"GGUF", "a GGUF file, which holds no ResNet"),
    known(0, b"\x12\x01\0\0\0\0\0\0", "a file of MXNet; convert the network to PyTorch first"),
    known(0, b"PAR1", "a Parquet table, not the weights of a network"),
    known(0, b"SQLite format 3\0", "a SQLite database, not the weights of a network"),
    known(0, b"%PDF", "a PDF document, not the weights of a network"),
    known(0, b"\x7fELF", "a program or library, not the weights of a network"),
    known(0, b"MATLAB 5.0", "a MATLAB file; convert the network to PyTorch first"),
    known(0, b"\xff\xd8\xff", PICTURE),
    known(0, b"\x89PNG\r\n\x1a\n", PICTURE),
    known(0, b"GIF8", PICTURE),
    known(8, b"WEBP", PICTURE),
    known(0, b"II*\0", PICTURE),
    known(0, b"MM\0*", PICTURE),
    known(4, b"ftyp", PICTURE),
    // Field 1 of ONNX's ModelProto is the version, 3 or more; of TensorFlow's SavedModel it is 1.
    known(0, b"\x08\x01\x12", "a SavedModel of TensorFlow; convert the network to PyTorch first"),
    known(0, b"\xce\xfa\xed\xfe", "a program or library, not the weights of a network"),
    known(0, b"\xcf\xfa\xed\xfe", "a program or library, not the weights of a network"),
    known(0, b"OggS", "sound or video, not the weights of a network"),
    known(0, b"BM", PICTURE),
];

/// Describes a file that none of the formats fits, as the end of a sentence that begins with "this is".
pub(crate) fn describe(source: &Source, start: &[u8]) -> Result<String, ReadError> {
    if source.len() == 0 {
        return Ok("an empty file: its download or copy has failed. Fetch it again".to_owned());
    }
    if start.iter().all(|&byte| byte == 0) {
        return Ok("a file that begins with zeros: its download or copy was not finished. Fetch it again".to_owned());
    }
    if let Some(text) = text_of(start) {
        return Ok(describe_text(text, source.len()));
    }
    if let Some(known) =
        KNOWN.iter().find(|known| start.get(known.at..).is_some_and(|rest| rest.starts_with(known.bytes)))
    {
        return Ok(known.description.to_owned());
    }
    if is_onnx(start) {
        return Ok("an ONNX model, whose weights have lost their names; export the checkpoint that it was made from"
            .to_owned());
    }
    if start.get(257..262) == Some(b"ustar") {
        return Ok(describe_tar(start));
    }
    if is_msgpack(start) {
        return Ok("a MessagePack file, as Flax writes (.msgpack); convert the network to PyTorch first".to_owned());
    }
    if source.len() >= 48 && source.array::<8>(source.len() - 8)? == *b"\x57\xfb\x80\x8b\x24\x75\x47\xdb" {
        return Ok("the index of a TensorFlow checkpoint; convert the network to PyTorch first".to_owned());
    }
    let shown: Vec<_> = start.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Ok(format!(
        "neither a file of torch.save, nor a pickle of arrays, nor a safetensors file; it begins with the bytes {}",
        shown.join(" ")
    ))
}

/// Describes a zip archive that `torch.save` did not write, by the names in it.
pub(crate) fn describe_zip<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let ends = |ending: &str| names.iter().find(|name| name.to_ascii_lowercase().ends_with(ending)).copied();
    let weights = [".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".pth.tar", ".pkl"].into_iter().find_map(ends);
    if let Some(name) = weights.filter(|name| !name.ends_with("data.pkl")) {
        return format!("this is a zip archive that holds {name}; unpack it first (unzip)");
    }
    let what = if !names.is_empty() && names.iter().all(|name| name.to_ascii_lowercase().ends_with(".npy")) {
        "a NumPy archive (.npz); save its arrays as a pickle or as safetensors"
    } else if ends("model.weights.h5").is_some() {
        "a Keras model; convert the network to PyTorch first"
    } else if ends("saved_model.pb").is_some() {
        "an archive with TensorFlow's SavedModel; convert the network to PyTorch first"
    } else if ends("[content_types].xml").is_some() {
        "a document of an office program"
    } else if ends("model.json").is_some() {
        "a program that torch.export wrote; save its state_dict() instead"
    } else {
        "a zip archive that torch.save did not write (it holds no data.pkl)"
    };
    format!("this is {what}")
}

/// The start of a file as text, if it is text: in UTF-8, perhaps cut within a character.
fn text_of(start: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&start[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let is_plain = |letter: char| !letter.is_control() || letter.is_ascii_whitespace();
    let text = text.trim_start_matches('\u{feff}');
    (text.chars().all(is_plain) && !text.is_empty()).then_some(text)
}

fn describe_text(text: &str, len: u64) -> String {
    let trimmed = text.trim_start();
    let lower = trimmed.to_ascii_lowercase();
    if trimmed.starts_with("version https://git-lfs") {
        let size = trimmed.lines().find_map(|line| line.strip_prefix("size ")).unwrap_or("unknown");
        return format!(
            "a pointer of Git LFS to the file, which has {size} bytes, and not the file itself. Run `git lfs pull` in its \
             repository, or download it by its own address"
        );
    }
    if trimmed.contains("/annex/objects/") {
        return "a pointer of git-annex, and not the file itself. Run `git annex get` in its repository".to_owned();
    }
    let is_page = ["<!doctype html", "<html", "<head", "<body"].iter().any(|tag| lower.starts_with(tag))
        || lower.starts_with("<!--") && lower.contains("<html")
        || lower.starts_with("<?xml") && lower.contains("<html");
    if is_page {
        return "a web page (HTML), and not the file: the address asks for a login, a confirmation or a click. Download it in \
                a browser, or by the address of the file itself"
            .to_owned();
    }
    if lower.starts_with("<?xml") || lower.starts_with('<') {
        return format!("an XML document, and not the file: {}", shown(trimmed));
    }
    if trimmed.starts_with(['{', '[']) {
        if trimmed.contains("\"weight_map\"") || trimmed.contains("\"total_size\"") {
            return "the index of weights that are stored in several files; save them as one file".to_owned();
        }
        return format!("a JSON text, and not the weights: {}", shown(trimmed));
    }
    if trimmed.starts_with("model_checkpoint_path:") {
        return "the list of a TensorFlow run's checkpoints; convert the network to PyTorch first".to_owned();
    }
    format!("a text of {len} bytes that begins with: {}", shown(trimmed))
}

/// The beginning of a text, on one line.
fn shown(text: &str) -> String {
    const SHOWN: usize = 60;
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= SHOWN { line } else { line.chars().take(SHOWN).chain(['…']).collect() }
}

/// PyTorch before 0.1.10 wrote tar archives; since then `.pth.tar` is only a name.
fn describe_tar(start: &[u8]) -> String {
    let name = start.get(..100).unwrap_or_default();
    let name = String::from_utf8_lossy(name.split(|&byte| byte == 0).next().unwrap_or_default());
    match name.trim_start_matches("./") {
        "sys_info" | "pickle" | "storages" | "tensors" => {
            "a tar archive, as PyTorch wrote before 0.1.10; save it anew with a newer PyTorch".to_owned()
        }
        first => format!("a tar archive whose first member is {first}; unpack it first (tar xf)"),
    }
}

/// `ModelProto`: the version of the format, then one of the fields 2 (producer), 7 (graph) or 8 (operator sets).
fn is_onnx(start: &[u8]) -> bool {
    matches!(start, [0x08, 2..=64, 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42 | 0x72, ..])
}

/// A map of few entries whose first key is a short text.
fn is_msgpack(start: &[u8]) -> bool {
    let ([0x81..=0x8f, key @ ..] | [0xde, _, _, key @ ..]) = start else { return false };
    let text = match key {
        [length @ 0xa1..=0xbf, rest @ ..] => rest.get(..usize::from(length - 0xa0)),
        [0xd9, length, rest @ ..] => rest.get(..usize::from(*length)),
        _ => None,
    };
    text.is_some_and(|text| text.iter().all(u8::is_ascii_graphic))
}

/// Returns whether a file may be one of `safetensors`: the length of its header comes first, then the header in JSON.
pub(crate) fn may_be_safetensors(start: &[u8]) -> bool {
    // A text in JSON can have a brace there, too.
    let is_text = start.iter().take(8).all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    start.get(8) == Some(&b'{') && !is_text
}

/// Returns whether a file begins with a line of several words, as no pickle in letters does.
pub(crate) fn is_prose(start: &[u8]) -> bool {
    text_of(start).and_then(|text| text.lines().next()).is_some_and(|line| line.trim().contains(' '))
}

/// Returns whether a file begins like a zip archive, of whatever kind.
pub(crate) fn is_zip(start: &[u8]) -> bool {
    start.starts_with(&ZIP) || start.starts_with(b"PK\x05\x06")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(bytes: &[u8]) -> String {
        let start = &bytes[..bytes.len().min(START as usize)];
        describe(&Source::from_bytes(bytes.to_vec()), start).unwrap()
    }

    #[test]
    fn files_that_are_no_checkpoint_are_named() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 46830571\n";
        let mut tar = vec![0; 600];
        tar[..9].copy_from_slice(b"model.pth");
        tar[257..262].copy_from_slice(b"ustar");
        let mut index = vec![b'\xee'; 80];
        index.extend(b"\x57\xfb\x80\x8b\x24\x75\x47\xdb");
        for (bytes, part) in [
            (&b""[..], "an empty file"),
            (&[0; 600], "begins with zeros"),
            (pointer, "46830571 bytes, and not the file itself. Run `git lfs pull`"),
            (b"../.git/annex/objects/xx/yy/SHA256E-s1--0.pth\n", "git annex get"),
            (b"<!DOCTYPE html><html><title>Sign in</title></html>", "a web page"),
            (b"\xef\xbb\xbf\r\n<HTML lang=en>", "a web page"),
            (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "AccessDenied"),
            (b"{\"error\": \"Invalid username or password.\"}", "JSON text"),
            (b"{\"meta\":{\"a\": 1}}", "JSON text"),
            (b"{\"metadata\": {\"total_size\": 1}, \"weight_map\": {}}", "several files"),
            (b"Not Found", "a text of 9 bytes that begins with: Not Found"),
            ("Zugriff verweigert – bitte anmelden".as_bytes(), "Zugriff"),
            (b"model_checkpoint_path: \"model.ckpt-1\"", "TensorFlow"),
            (b"\x1f\x8b\x08\0\0\0\0\0", "gzip"),
            (b"BZh91AY&SY\x80", "bzip2"),
            (b"\xfd7zXZ\0\0\x04", "xz"),
            (b"\x28\xb5\x2f\xfd\x04", "zstd"),
            (b"7z\xbc\xaf\x27\x1c\0\x04", "compressed"),
            (b"\x89HDF\r\n\x1a\n\0", "HDF5"),
            (b"\x08\x07\x12\x07pytorch\x1a\x03", "ONNX"),
            (b"\x08\x08\x3a\xff\x01", "ONNX"),
            (b"\x08\x01\x12\x80\x01\x0a", "SavedModel"),
            (b"\x1c\0\0\0TFL3\x14\0", "TensorFlow Lite"),
            (b"\x81\xa6params\x81\xa5conv1", "MessagePack"),
            (b"\xde\0\x20\xa5conv1\xc7", "MessagePack"),
            (&tar, "a tar archive whose first member is model.pth"),
            (&index, "TensorFlow checkpoint"),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", "picture"),
            (b"\x89PNG\r\n\x1a\n\0\0", "picture"),
            (b"\x93NUMPY\x01\0", "(.npy)"),
            (b"%PDF-1.7\n%\x80", "PDF"),
            (b"\x01\x02\x03\xff", "begins with the bytes 01 02 03 ff"),
        ] {
            let found = described(bytes);
            assert!(found.contains(part), "{}: {found}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn zip_archives_are_told_by_what_is_in_them() {
        for (names, part) in [
            (&["model.pth"][..], "holds model.pth; unpack it"),
            (&["weights/", "weights/last.ckpt"], "holds weights/last.ckpt"),
            (&["a.npy", "b.npy"], ".npz"),
            (&["config.json", "model.weights.h5"], "Keras"),
            (&["[Content_Types].xml", "word/document.xml"], "office"),
            (&["x/y"], "no data.pkl"),
            (&[], "no data.pkl"),
        ] {
            let found = describe_zip(names.iter().copied());
            assert!(found.contains(part), "{found}");
        }
    }

    #[test]
    fn a_text_in_json_is_no_safetensors_file() {
        assert!(!may_be_safetensors(b"{\"meta\":{}}"));
        assert!(may_be_safetensors(b"\x50\0\0\0\0\0\0\0{\"a\":"));
        assert!(is_prose(b"conv1.weight 64 3\n") && !is_prose(b"(dp0\nVmodel\n") && !is_prose(b"cposix\nsystem\n"));
    }
}
