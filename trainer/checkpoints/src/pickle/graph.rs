//! Values that a pickle has built; they refer to one another by number.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::globals::Global;
use crate::dtype::DType;

/// Number of a string, sequence, dictionary, NumPy type or storage in its [`Graph`].
pub(crate) type Id = u32;
/// Number of a tensor in its [`Graph`].
pub(crate) type TensorId = u32;

/// Anything that a pickle can build here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Text or bytes.
    String(Id),
    Tuple(Id),
    /// A list or a set.
    List(Id),
    Dict(Id),
    NumpyType(Id),
    Storage(Id),
    /// A tensor or array; of an array that is under construction there is nothing yet.
    Tensor(TensorId),
    Global(Global),
    /// A class that is not known here, or an object of it: nothing of it is rebuilt.
    Foreign(Id),
    /// Something that is known to be harmless and that nothing here needs.
    Opaque,
}

/// Text or bytes, as far as they are kept.
#[derive(Clone, Debug)]
pub(crate) struct StringValue {
    /// Position of the bytes.
    pub(crate) data: StringData,
    /// The text, if it is one and no longer than [`StringValue::MAX_TEXT`].
    pub(crate) text: Option<Box<str>>,
}

impl StringValue {
    /// Bytes of the longest text that is kept: names and remarks are shorter, data are not text.
    pub(crate) const MAX_TEXT: u64 = 4096;
}

/// Bytes of a string.
#[derive(Clone, Debug)]
pub(crate) enum StringData {
    /// They stand in the file as they are.
    Raw(Range<u64>),
    /// They stand in the file as UTF-8 text whose characters they are (Python 3 writes bytes so
    /// in protocol 2).
    Latin1(Range<u64>),
    /// They stood in the file with escapes (protocol 0).
    Unescaped(Arc<[u8]>),
    /// Bytes of a string literal, as text whose characters are the bytes.
    UnescapedLatin1(Arc<[u8]>),
}

/// NumPy's description of a type, which is built in two steps.
#[derive(Clone, Debug)]
pub(crate) struct NumpyType {
    /// Kind and size, such as `f4`.
    pub(crate) code: Box<str>,
    pub(crate) big_endian: bool,
}

/// Elements in a row that tensors look at.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    pub(crate) dtype: DType,
    /// Number of elements.
    pub(crate) len: u64,
    pub(crate) location: StorageLocation,
}

/// Position of the elements of a storage.
#[derive(Clone, Debug)]
pub(crate) enum StorageLocation {
    /// Elsewhere in the file, under this key: a part, from element `first` on, of `total` elements.
    Keyed { key: Box<str>, first: u64, total: u64 },
    /// Within a string of the pickle, or anywhere in the file.
    Data(StringData),
}

/// A view of a storage.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    /// Length of each axis.
    pub(crate) shape: Vec<u64>,
    /// Elements of the storage from one index to the next, for each axis.
    pub(crate) strides: Vec<u64>,
    /// Element of the storage at index zero.
    pub(crate) offset: u64,
    pub(crate) storage: Id,
}

/// Names by number, and numbers by name.
#[derive(Debug, Default)]
struct IndexedNames {
    names: Vec<Box<str>>,
    ids: HashMap<Box<str>, Id>,
}

/// Everything that a pickle has built.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    strings: Vec<StringValue>,
    sequences: Vec<Vec<Value>>,
    dicts: Vec<Vec<(Value, Value)>>,
    types: Vec<NumpyType>,
    /// Names of the classes that are not known, each once.
    foreign: IndexedNames,
    pub(super) tensors: Vec<Option<Tensor>>,
    pub(crate) storages: Vec<Storage>,
}

impl Graph {
    pub(crate) fn add_string(&mut self, value: StringValue) -> Value {
        Value::String(push(&mut self.strings, value))
    }

    pub(crate) fn add_tuple(&mut self, items: Vec<Value>) -> Value {
        Value::Tuple(push(&mut self.sequences, items))
    }

    pub(crate) fn add_list(&mut self, items: Vec<Value>) -> Value {
        Value::List(push(&mut self.sequences, items))
    }

    pub(crate) fn add_dict(&mut self, entries: Vec<(Value, Value)>) -> Value {
        Value::Dict(push(&mut self.dicts, entries))
    }

    pub(crate) fn add_type(&mut self, value: NumpyType) -> Value {
        Value::NumpyType(push(&mut self.types, value))
    }

    /// A class that is not known.
    pub(super) fn add_foreign(&mut self, name: &str) -> Value {
        let next = self.foreign.names.len() as Id;
        let id = *self.foreign.ids.entry(name.into()).or_insert(next);
        if id == next {
            self.foreign.names.push(name.into());
        }
        Value::Foreign(id)
    }

    /// Name of a class that is not known.
    pub(crate) fn foreign(&self, id: Id) -> &str {
        &self.foreign.names[id as usize]
    }

    /// Names of all classes that are not known.
    pub(crate) fn foreign_names(&self) -> impl Iterator<Item = &str> {
        self.foreign.names.iter().map(AsRef::as_ref)
    }

    pub(crate) fn add_storage(&mut self, value: Storage) -> Id {
        push(&mut self.storages, value)
    }

    pub(crate) fn add_tensor(&mut self, tensor: Option<Tensor>) -> Value {
        Value::Tensor(push(&mut self.tensors, tensor))
    }

    pub(crate) fn string(&self, id: Id) -> &StringValue {
        &self.strings[id as usize]
    }

    /// The text that `value` is, if it is one that is kept.
    pub(crate) fn text(&self, value: Value) -> Option<&str> {
        match value {
            Value::String(id) => self.string(id).text.as_deref(),
            _ => None,
        }
    }

    /// Items of a tuple or list.
    pub(crate) fn items(&self, value: Value) -> Option<&[Value]> {
        match value {
            Value::Tuple(id) | Value::List(id) => Some(&self.sequences[id as usize]),
            _ => None,
        }
    }

    pub(super) fn items_mut(&mut self, id: Id) -> &mut Vec<Value> {
        &mut self.sequences[id as usize]
    }

    /// Entries of a dictionary, in the order in which they were set.
    pub(crate) fn entries(&self, value: Value) -> Option<&[(Value, Value)]> {
        match value {
            Value::Dict(id) => Some(&self.dicts[id as usize]),
            _ => None,
        }
    }

    pub(super) fn entries_mut(&mut self, id: Id) -> &mut Vec<(Value, Value)> {
        &mut self.dicts[id as usize]
    }

    pub(super) fn numpy_type(&self, id: Id) -> &NumpyType {
        &self.types[id as usize]
    }

    pub(super) fn numpy_type_mut(&mut self, id: Id) -> &mut NumpyType {
        &mut self.types[id as usize]
    }

    /// A tensor; `None` of an array whose construction was never finished.
    pub(crate) fn tensor(&self, id: TensorId) -> Option<&Tensor> {
        self.tensors[id as usize].as_ref()
    }

    pub(crate) fn storage(&self, id: Id) -> &Storage {
        &self.storages[id as usize]
    }
}

/// Adds to a list and returns the number of what was added.
fn push<T>(list: &mut Vec<T>, item: T) -> Id {
    let id = list.len() as Id; // The bound on a pickle's work is far below 2³².
    list.push(item);
    id
}
