//! Archives that are right; those that are wrong are in `tests/hostile/`.

use super::*;
use crate::archive_writer::ArchiveWriter;

fn write(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ArchiveWriter::new(Vec::new());
    for (name, content) in entries {
        writer.add(name, content).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn what_is_written_is_read_and_aligned() {
    let bytes = write(&[("a/data.pkl", b"N."), ("a/data/0", &[7; 1000]), ("a/empty", b"")]);
    let source = Source::from_bytes(bytes);
    let archive = Archive::read(&source).unwrap();
    assert_eq!(archive.names().collect::<Vec<_>>(), ["a/data.pkl", "a/data/0", "a/empty"]);
    let data = archive.get("a/data/0").unwrap().data.clone();
    assert_eq!(data.start % 64, 0);
    assert_eq!(source.read(data.start, data.end - data.start).unwrap(), [7; 1000]);
    assert!(archive.names().all(|name| archive.verify(name, &source).is_ok()));
    assert!(matches!(archive.get("b"), Err(ArchiveError::Missing(_))));
}

/// Archives of more than 4 GiB have their lengths and offsets elsewhere; so can smaller ones.
#[test]
fn zip64_is_read() {
    let content = b"content";
    let plain = write(&[("a/data.pkl", content)]);
    let end = plain.len() - END_LEN as usize;
    let directory_at = field::<4>(&plain, end + 16).unwrap() as usize;
    let mut bytes = plain[..directory_at].to_vec();

    let mut header = plain[directory_at..end].to_vec();
    header[20..28].fill(0xff); // both lengths
    header[42..46].fill(0xff); // the offset
    header[30..32].copy_from_slice(&28_u16.to_le_bytes());
    header.extend([1, 0, 24, 0]);
    for value in [content.len() as u64, content.len() as u64, 0] {
        header.extend(value.to_le_bytes());
    }
    bytes.extend(&header);

    let end_64 = bytes.len() as u64;
    bytes.extend(END_64);
    bytes.extend(44_u64.to_le_bytes());
    bytes.extend([0; 12]);
    for value in [1, 1, header.len() as u64, directory_at as u64] {
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend(LOCATOR_64);
    bytes.extend([0; 4]);
    bytes.extend(end_64.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(END);
    bytes.extend([0, 0, 0, 0, 1, 0, 1, 0]);
    bytes.extend([0xff; 8]);
    bytes.extend([0, 0]);

    let source = Source::from_bytes(bytes);
    let archive = Archive::read(&source).unwrap();
    archive.verify("a/data.pkl", &source).unwrap();
    let data = archive.get("a/data.pkl").unwrap().data.clone();
    assert_eq!(source.read(data.start, data.end - data.start).unwrap(), content);
}
