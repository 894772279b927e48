//! Pickles and archives made by hand, so that they can be wrong.

/// Bytes in a row.
pub(crate) fn cat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// A pickle of protocol 2.
pub(crate) fn pickle(parts: &[&[u8]]) -> Vec<u8> {
    cat(&[b"\x80\x02", &parts.concat(), b"."])
}

/// The opcode `BINUNICODE`.
pub(crate) fn text(text: &str) -> Vec<u8> {
    cat(&[b"X", &(text.len() as u32).to_le_bytes(), text.as_bytes()])
}

/// The opcode `BININT`.
pub(crate) fn int(number: i32) -> Vec<u8> {
    cat(&[b"J", &number.to_le_bytes()])
}

/// `LONG1` of eight bytes.
pub(crate) fn long(number: i64) -> Vec<u8> {
    cat(&[b"\x8a\x08", &number.to_le_bytes()])
}

pub(crate) fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    cat(&[b"(", &items.concat(), b"t"])
}

/// `('storage', torch.FloatStorage, key, 'cpu', len)` as a persistent id.
pub(crate) fn storage(key: &str, len: Vec<u8>) -> Vec<u8> {
    let class = b"ctorch\nFloatStorage\n".to_vec();
    cat(&[&tuple(&[text("storage"), class, text(key), text("cpu"), len]), b"Q"])
}

/// `_rebuild_tensor_v2(storage, offset, size, stride, False, OrderedDict())`
pub(crate) fn tensor(storage: Vec<u8>, offset: Vec<u8>, size: Vec<u8>, stride: Vec<u8>) -> Vec<u8> {
    let hooks = b"\x89ccollections\nOrderedDict\n)R".to_vec();
    cat(&[b"ctorch._utils\n_rebuild_tensor_v2\n", &tuple(&[storage, offset, size, stride, hooks]), b"R"])
}

/// A dictionary with one entry.
pub(crate) fn dict(key: &str, value: &[u8]) -> Vec<u8> {
    cat(&[b"}", &text(key), value, b"s"])
}

/// An entry of an archive, as it says that it is.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) local_name: Vec<u8>,
    pub(crate) content: Vec<u8>,
    pub(crate) flags: u16,
    pub(crate) method: u16,
    pub(crate) len: u32,
    pub(crate) stored_len: u32,
    /// Instead of where it is.
    pub(crate) local_at: Option<u32>,
    pub(crate) extra: Vec<u8>,
}

impl Entry {
    pub(crate) fn new(name: &str, content: &[u8]) -> Self {
        Self {
            name: name.into(),
            local_name: name.into(),
            content: content.to_vec(),
            flags: 0,
            method: 0,
            len: content.len() as u32,
            stored_len: content.len() as u32,
            local_at: None,
            extra: Vec::new(),
        }
    }
}

/// An archive without checksums; its directory says that it has `count` entries.
pub(crate) fn archive_of(entries: &[Entry], count: u16) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let at = entry.local_at.unwrap_or(bytes.len() as u32);
        let mut fields = Vec::new();
        for field in [20, entry.flags, entry.method, 0, 0] {
            fields.extend(field.to_le_bytes());
        }
        fields.extend([0; 4]);
        fields.extend(entry.stored_len.to_le_bytes());
        fields.extend(entry.len.to_le_bytes());
        bytes.extend(cat(&[b"PK\x03\x04", &fields, &(entry.local_name.len() as u16).to_le_bytes(), &[0; 2]]));
        bytes.extend(cat(&[&entry.local_name, &entry.content]));
        directory.extend(cat(&[b"PK\x01\x02\x14\x00", &fields, &(entry.name.len() as u16).to_le_bytes()]));
        directory.extend(cat(&[&(entry.extra.len() as u16).to_le_bytes(), &[0; 10], &at.to_le_bytes()]));
        directory.extend(cat(&[&entry.name, &entry.extra]));
    }
    let at = bytes.len() as u32;
    let end = cat(&[b"PK\x05\x06\0\0\0\0", &count.to_le_bytes().repeat(2), &(directory.len() as u32).to_le_bytes()]);
    cat(&[&bytes, &directory, &end, &at.to_le_bytes(), &[0; 2]])
}

pub(crate) fn archive(entries: &[Entry]) -> Vec<u8> {
    archive_of(entries, entries.len() as u16)
}

/// A file of `torch.save` whose pickle is `pickle`, with one storage of four floats, `0`.
pub(crate) fn torch_zip(pickle: &[u8]) -> Vec<u8> {
    archive(&[
        Entry::new("archive/data.pkl", pickle),
        Entry::new("archive/byteorder", b"little"),
        Entry::new("archive/data/0", &[0; 16]),
        Entry::new("archive/version", b"3\n"),
    ])
}

/// A legacy file whose object is `object`; `rest` is what follows it.
pub(crate) fn torch_legacy(object: &[u8], rest: &[u8]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let properties = pickle(&[&dict("little_endian", b"\x88")]);
    cat(&[magic, &pickle(&[&int(1001)]), &properties, object, rest])
}

/// A safetensors file with this header and data.
pub(crate) fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    cat(&[&(header.len() as u64).to_le_bytes(), header.as_bytes(), data])
}
