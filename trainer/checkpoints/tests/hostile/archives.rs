//! Archives that lie about what is in them, and files that are none of the formats.

use super::Case;
use super::forge::{Entry, archive, archive_of, cat, pickle, safetensors};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = entries();
    cases.extend(directories());
    cases.extend(headers());
    cases
}

fn data_pkl() -> Entry {
    Entry::new("archive/data.pkl", &pickle(&[b"}"]))
}

/// An archive with one entry more than the pickle.
fn with(name: &str, change: impl FnOnce(&mut Entry)) -> Vec<u8> {
    let mut entry = Entry::new(name, b"content");
    change(&mut entry);
    archive(&[data_pkl(), entry])
}

fn entries() -> Vec<Case> {
    let wide = |value: u64| cat(&[&[1, 0, 8, 0], &value.to_le_bytes()]);
    vec![
        Case::new("a path upwards", with("archive/../../etc/cron.d/x", |_| {}), "leads out"),
        Case::new("an absolute path", with("/etc/passwd", |_| {}), "leads out"),
        Case::new("a path of another system", with(r"archive\..\x", |_| {}), "leads out"),
        Case::new("a drive", with("C:x", |_| {}), "leads out"),
        Case::new("a name with a zero", with("archive/a\0b", |_| {}), "leads out"),
        Case::new("a name that is no text", with("x", |e| e.name = vec![0xff]), "leads out"),
        Case::new("a name given twice", archive(&[data_pkl(), data_pkl()]), "is there twice"),
        Case::new(
            "another name in its place",
            with("archive/a", |e| e.local_name = b"archive/b".to_vec()),
            "is not where",
        ),
        Case::new("a folder with content", with("archive/a/", |_| {}), "folder with content"),
        Case::new("a zip bomb", with("archive/data/0", |e| (e.method, e.len) = (8, u32::MAX - 1)), "compressed"),
        Case::new("a length that lies", with("archive/data/0", |e| e.len = 1 << 30), "two different lengths"),
        Case::new(
            "two lengths that lie",
            with("archive/data/0", |e| (e.len, e.stored_len) = (1 << 30, 1 << 30)),
            "cut off",
        ),
        Case::new(
            "content up to the directory's end",
            with("archive/data/0", |e| (e.len, e.stored_len) = (9, 9)),
            "reaches into",
        ),
        Case::new(
            "a length in zip64 that lies",
            with("archive/data/0", |e| (e.len, e.extra) = (u32::MAX, wide(u64::MAX))),
            "two different lengths",
        ),
        Case::new("a length in zip64 that is missing", with("archive/data/0", |e| e.len = u32::MAX), "not whole"),
        Case::new(
            "an extra field that lies",
            with("archive/data/0", |e| e.extra = vec![1, 0, 0xff, 0xff]),
            "not whole",
        ),
        Case::new("an encrypted entry", with("archive/data/0", |e| e.flags = 1), "encrypted"),
        Case::new("an entry behind the end", with("archive/data/0", |e| e.local_at = Some(u32::MAX - 1)), "cut off"),
    ]
}

fn directories() -> Vec<Case> {
    // The second entry lies within the first one's content.
    let inner = archive(&[Entry::new("archive/b", b"inner")]);
    let inner = &inner[..30 + 9 + 5];
    let outer = Entry::new("archive/a", inner);
    let mut nested = Entry::new("archive/b", b"inner");
    nested.local_at = Some(30 + 9);
    let overlap = archive(&[outer, nested, data_pkl()]);
    let whole = archive(&[data_pkl()]);
    let mut moved = whole.clone();
    let at = moved.len() - 6;
    moved[at] ^= 1;
    vec![
        Case::new("entries that overlap", overlap, "overlap"),
        Case::new("more entries than there are", archive_of(&[data_pkl()], 2), "more entries than fit"),
        Case::new("fewer entries than there are", archive_of(&[data_pkl(), Entry::new("a", b"")], 1), "more entries"),
        Case::new("65,535 entries", archive_of(&[data_pkl()], u16::MAX), "more entries than fit"),
        Case::new("a directory elsewhere", moved, "not where"),
        Case::new("no directory", whole[..whole.len() - 22].to_vec(), "no directory"),
        Case::new("something appended", cat(&[&whole, b"x"]), "no directory"),
        Case::new("no pickle", archive(&[Entry::new("a/b", b"")]), "no data.pkl"),
        Case::new("a program", archive(&[data_pkl(), Entry::new("archive/constants.pkl", b"")]), "TorchScript"),
        Case::new("another byte order", archive(&[data_pkl(), Entry::new("archive/byteorder", b"big")]), "big-endian"),
    ]
}

fn headers() -> Vec<Case> {
    let tensor = |shape: &str, start: u64, end: u64| {
        format!(r#""x{start}":{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    };
    let overlapping = format!("{{{},{}}}", tensor("[2]", 0, 8), tensor("[2]", 4, 12));
    let overflowing = format!("{{{}}}", tensor("[4294967296,4294967296,4294967296]", 0, 8));
    let nested = format!(r#"{{"x":{}"#, "[".repeat(1 << 20));
    vec![
        Case::new("a header longer than the file", cat(&[&(1_u64 << 62).to_le_bytes(), b"{}"]), "are read"),
        Case::new("a header cut off", cat(&[&100_u64.to_le_bytes(), b"{}"]), "cut off"),
        Case::new("a header nested deeply", safetensors(&nested, b""), "not valid"),
        Case::new("a header that is no JSON", safetensors("{]", b""), "not valid"),
        Case::new("tensors that overlap", safetensors(&overlapping, &[0; 12]), "not valid"),
        Case::new("a shape that overflows", safetensors(&overflowing, &[0; 8]), "not valid"),
        Case::new("data that are missing", safetensors(&format!("{{{}}}", tensor("[2]", 0, 8)), &[0; 4]), "not 8"),
        Case::new("data that are too many", safetensors(&format!("{{{}}}", tensor("[2]", 0, 8)), &[0; 12]), "not 8"),
        Case::new("an empty file", Vec::new(), "an empty file"),
        Case::new("a text", b"<html>404</html>".to_vec(), "a web page"),
        Case::new("a tar archive", cat(&[&[b'a'; 257], b"ustar\0", &[0; 300]]), "tar archive"),
    ]
}
