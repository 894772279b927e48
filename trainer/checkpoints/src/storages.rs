//! Storages that lie outside the pickle that names them: their position in the file.

use std::ops::Range;

use crate::open_error::OpenError;
use crate::pickle::{Graph, StorageLocation, StringData};

/// Finds the data of every storage that has a key. `locate` gets the key and the size of an element.
pub(crate) fn locate_storages(
    graph: &mut Graph,
    mut locate: impl FnMut(&str, u64) -> Result<Range<u64>, OpenError>,
) -> Result<(), OpenError> {
    for storage in &mut graph.storages {
        let StorageLocation::Keyed { key, first, total } = &storage.location else { continue };
        let size = storage.dtype.size();
        let data = locate(key, size)?;
        let found = data.end - data.start;
        if total.checked_mul(size) != Some(found) {
            let what = format!("has {found} bytes, but {total} elements of {size} bytes are expected");
            return Err(OpenError::Storage { key: key.to_string(), what });
        }
        // The view lies within the whole: that was checked when it was made.
        let start = data.start + first * size;
        storage.location = StorageLocation::Data(StringData::Raw(start..start + storage.len * size));
    }
    Ok(())
}
