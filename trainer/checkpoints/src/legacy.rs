//! Files of `torch.save` before PyTorch 1.6: pickles one after the other, then the storages.
//!
//! A magic number, the version, the machine's properties, the object, the list of storage keys
//! (five pickles); then for each key, in the list's order, the length in elements (eight bytes)
//! and the data.

use std::collections::HashMap;
use std::ops::Range;

use crate::open_error::OpenError;
use crate::pickle::{Fault, Graph, Limits, PersistentIds, PickleError, StorageLocation, Value, run};
use crate::source::{Cursor, Source};
use crate::storages::locate_storages;

/// `LONG1` with the ten bytes of the magic number, behind the protocol and perhaps a frame.
const MAGIC: [u8; 12] = *b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// Version of the layout, as the second pickle has it.
const VERSION: i64 = 1001;

/// Returns whether a file begins with the magic number of this format.
pub(crate) fn is_legacy(start: &[u8]) -> bool {
    start.get(..32.min(start.len())).is_some_and(|start| start.windows(MAGIC.len()).any(|window| window == MAGIC))
}

/// Reads the pickles and finds the storages' data.
pub(crate) fn read(source: &Source) -> Result<(Graph, Value), OpenError> {
    let mut cursor = Cursor::new(source, 0..source.len());
    let plain = |cursor: &mut Cursor<'_>| run(cursor, PersistentIds::Refused, Limits::DEFAULT);
    plain(&mut cursor)?;
    if plain(&mut cursor)?.1 != Value::Int(VERSION) {
        return Err(OpenError::Unknown("a file of torch.save of an unknown version; save it anew".to_owned()));
    }
    let at = cursor.position();
    let (machine, properties) = plain(&mut cursor)?;
    let little_endian = machine.entries(properties).and_then(|entries| {
        entries.iter().find(|(key, _)| machine.text(*key) == Some("little_endian")).map(|&(_, value)| value)
    });
    if little_endian == Some(Value::Bool(false)) {
        return Err(PickleError { at, fault: Fault::BigEndian }.into());
    }
    let (mut graph, root) = run(&mut cursor, PersistentIds::Storages, Limits::DEFAULT)?;
    let (names, keys) = plain(&mut cursor)?;
    let data = data_of_keys(&mut cursor, &graph, &names, keys)?;
    locate_storages(&mut graph, |key, _| {
        let missing = || OpenError::Storage { key: key.to_owned(), what: "is not in the file's list".to_owned() };
        data.get(key).cloned().ok_or_else(missing)
    })?;
    Ok((graph, root))
}

/// Position of the data of each listed key.
fn data_of_keys(
    cursor: &mut Cursor<'_>,
    graph: &Graph,
    names: &Graph,
    keys: Value,
) -> Result<HashMap<String, Range<u64>>, OpenError> {
    let sizes = element_sizes(graph)?;
    let mut data = HashMap::new();
    for &key in names.items(keys).unwrap_or_default() {
        let Some(key) = names.text(key) else {
            return Err(OpenError::Content("the list of storages holds something other than keys".to_owned()));
        };
        let wrong = |what: &str| OpenError::Storage { key: key.to_owned(), what: what.to_owned() };
        // Without a tensor that looks at it nobody knows how long its elements are.
        let size = *sizes.get(key).ok_or_else(|| wrong("belongs to no tensor, so where it ends is unknown"))?;
        let len = u64::from_le_bytes(cursor.array()?);
        let range = cursor.skip(len.checked_mul(size).ok_or_else(|| wrong("says that it is longer than any file"))?)?;
        if data.insert(key.to_owned(), range).is_some() {
            return Err(wrong("is there twice"));
        }
    }
    Ok(data)
}

/// Bytes of an element of each storage.
fn element_sizes(graph: &Graph) -> Result<HashMap<String, u64>, OpenError> {
    let mut sizes = HashMap::new();
    for storage in &graph.storages {
        let StorageLocation::Keyed { key, .. } = &storage.location else { continue };
        let size = storage.dtype.size();
        if *sizes.entry(key.to_string()).or_insert(size) != size {
            let what = "has elements of two different lengths".to_owned();
            return Err(OpenError::Storage { key: key.to_string(), what });
        }
    }
    Ok(sizes)
}
