//! Calls of the known names, and the states of the objects that they make.

use super::globals::Global;
use super::graph::{NumpyType, StringData, StringValue};
use super::machine::{Machine, PersistentIds};
use super::strides::{column_major, element_count, row_major};
use super::{Fault, MAX_AXES, Storage, StorageLocation, Tensor, Value};
use crate::dtype::DType;

/// Functions of Python 3 and 2 that make an object of the class that they are given.
const RECONSTRUCTORS: [&str; 2] = ["copyreg._reconstructor", "copy_reg._reconstructor"];

impl Machine<'_, '_> {
    /// `callee(*arguments)` for the names that are known.
    pub(super) fn call_value(&mut self, callee: Value, arguments: Value) -> Result<Value, Fault> {
        let global = match callee {
            Value::Global(global) => global,
            Value::Foreign(id) => return Ok(self.foreign_object(id, arguments)),
            _ => return Err(Fault::Stack { opcode: "REDUCE", expected: "a function" }),
        };
        let Some(items) = self.graph.items(arguments).filter(|_| matches!(arguments, Value::Tuple(_))) else {
            return Err(Fault::Stack { opcode: "REDUCE", expected: "a tuple of arguments" });
        };
        // No function here has more; a long tuple is not copied again and again.
        let arguments: Vec<Value> = items.iter().take(8).copied().collect();
        match global {
            Global::OrderedDict => self.mapping("collections.OrderedDict", arguments.first().copied()),
            Global::Counter => self.mapping("collections.Counter", arguments.first().copied()),
            Global::DefaultDict => self.mapping("collections.defaultdict", arguments.get(1).copied()),
            Global::Set => self.copied_list(&arguments),
            Global::Size => match arguments[..] {
                [shape @ Value::Tuple(_)] => Ok(shape),
                _ => Err(call("torch.Size", "a tuple")),
            },
            Global::Encode => self.encode(&arguments),
            Global::RebuildTensor => self.rebuild_tensor(&arguments),
            Global::RebuildParameter => match arguments[..] {
                [tensor @ Value::Tensor(_), ..] => Ok(tensor),
                _ => Err(call("torch._utils._rebuild_parameter", "a tensor")),
            },
            Global::RebuildFromType => match arguments[..] {
                [
                    rebuild @ Value::Global(Global::RebuildTensor | Global::RebuildParameter),
                    Value::Global(Global::TensorClass),
                    inner,
                    _,
                ] => self.call_value(rebuild, inner),
                _ => Err(call("torch._tensor._rebuild_from_type_v2", "the function and arguments of a plain tensor")),
            },
            Global::NumpyReconstruct | Global::NumpyFromBuffer | Global::NumpyType => {
                self.call_numpy(global, &arguments)
            }
            Global::NumpyScalar => Ok(Value::Opaque),
            Global::TensorClass | Global::Storage(_) | Global::NumpyArray | Global::Name => {
                Err(Fault::Opcode(format!("it calls a name that only stands for itself ({global:?})")))
            }
        }
    }

    /// An object of a class that is not known.
    fn foreign_object(&self, id: u32, arguments: Value) -> Value {
        let first = self.graph.items(arguments).and_then(<[Value]>::first);
        match first {
            Some(&class @ Value::Foreign(_)) if RECONSTRUCTORS.contains(&self.graph.foreign(id)) => class,
            _ => Value::Foreign(id),
        }
    }

    fn call_numpy(&mut self, global: Global, arguments: &[Value]) -> Result<Value, Fault> {
        match global {
            Global::NumpyReconstruct => match *arguments {
                [Value::Global(Global::NumpyArray), ..] => self.add_tensor(None),
                _ => Err(call("numpy.core.multiarray._reconstruct", "numpy.ndarray")),
            },
            Global::NumpyFromBuffer => match *arguments {
                [Value::String(data), Value::NumpyType(kind), shape, order] => {
                    let fortran = self.graph.text(order) == Some("F");
                    let array = self.numpy_array(shape, kind, data, fortran)?;
                    self.add_tensor(Some(array))
                }
                _ => Err(call("numpy.core.numeric._frombuffer", "bytes, a type, a shape and an order")),
            },
            _ => self.numpy_type(arguments),
        }
    }

    /// A dictionary from nothing, from another one, or from pairs (as Python 2 writes them).
    fn mapping(&mut self, what: &'static str, from: Option<Value>) -> Result<Value, Fault> {
        let Some(from) = from else { return Ok(self.graph.add_dict(Vec::new())) };
        let pair = |&item: &Value| match self.graph.items(item) {
            Some(&[key, value]) => Some((key, value)),
            _ => None,
        };
        let entries = match (self.graph.entries(from), self.graph.items(from)) {
            (Some(entries), _) if self.can_spend(entries.len()) => Some(entries.to_vec()),
            (_, Some(items)) if self.can_spend(items.len()) => items.iter().map(pair).collect(),
            (None, None) => None,
            _ => return Err(self.too_much_work()),
        };
        let entries = entries.ok_or_else(|| call(what, "a dictionary or pairs"))?;
        self.spend(entries.len() as u64)?;
        Ok(self.graph.add_dict(entries))
    }

    fn copied_list(&mut self, arguments: &[Value]) -> Result<Value, Fault> {
        let Some(&from) = arguments.first() else { return Ok(self.graph.add_list(Vec::new())) };
        let items = self.graph.items(from).ok_or_else(|| call("set", "a list"))?;
        if !self.can_spend(items.len()) {
            return Err(self.too_much_work());
        }
        let items = items.to_vec();
        self.spend(items.len() as u64)?;
        Ok(self.graph.add_list(items))
    }

    /// `_codecs.encode(text, 'latin1')`: the text's characters are bytes.
    fn encode(&mut self, arguments: &[Value]) -> Result<Value, Fault> {
        let [Value::String(text), encoding] = *arguments else { return Err(call("_codecs.encode", "a text")) };
        if !matches!(self.graph.text(encoding), Some("latin1" | "latin-1")) {
            return Err(call("_codecs.encode", "the encoding latin1"));
        }
        let data = self.graph.string(text).data.clone();
        match data {
            StringData::Latin1(_) | StringData::UnescapedLatin1(_) => {
                Ok(self.graph.add_string(StringValue { data, text: None }))
            }
            StringData::Raw(_) | StringData::Unescaped(_) => Err(call("_codecs.encode", "a text")),
        }
    }

    /// `_rebuild_tensor_v2(storage, offset, size, stride, …)`
    fn rebuild_tensor(&mut self, arguments: &[Value]) -> Result<Value, Fault> {
        let [Value::Storage(storage), Value::Int(offset), size, stride, ..] = *arguments else {
            return Err(call("torch._utils._rebuild_tensor_v2", "a storage, an offset, a size and strides"));
        };
        let offset = u64::try_from(offset).map_err(|_| Fault::Tensor(format!("its offset is {offset}")))?;
        let (shape, strides) = (self.axes(size, "size")?, self.axes(stride, "stride")?);
        let tensor = Tensor { shape, strides, offset, storage };
        tensor.check(self.graph.storage(storage)).map_err(Fault::Tensor)?;
        self.add_tensor(Some(tensor))
    }

    pub(super) fn add_tensor(&mut self, tensor: Option<Tensor>) -> Result<Value, Fault> {
        let limit = self.limits.tensors;
        if self.graph.tensors.len() >= limit {
            return Err(Fault::Limit { what: "tensors", limit: limit as u64 });
        }
        Ok(self.graph.add_tensor(tensor))
    }

    /// A tuple of lengths or strides.
    fn axes(&self, value: Value, what: &str) -> Result<Vec<u64>, Fault> {
        let wrong = |found: String| Fault::Tensor(format!("its {what} is {found}"));
        let items = self.graph.items(value).ok_or_else(|| wrong("not a tuple".to_owned()))?;
        if items.len() > MAX_AXES {
            return Err(wrong(format!("{} numbers; {MAX_AXES} axes are read", items.len())));
        }
        let number = |item: &Value| match *item {
            Value::Int(number) => u64::try_from(number).map_err(|_| wrong(format!("{number}"))),
            _ => Err(wrong("not made of integers".to_owned())),
        };
        items.iter().map(number).collect()
    }

    /// `numpy.dtype('f4', …)`; the byte order comes with its state.
    fn numpy_type(&mut self, arguments: &[Value]) -> Result<Value, Fault> {
        let code = arguments.first().and_then(|&code| self.graph.text(code));
        let code = code.ok_or_else(|| call("numpy.dtype", "a code of a type"))?;
        let big_endian = code.starts_with('>');
        let code = code.trim_start_matches(['<', '=', '|', '>']).into();
        Ok(self.graph.add_type(NumpyType { code, big_endian }))
    }

    fn numpy_array(&mut self, shape: Value, kind: u32, data: u32, fortran: bool) -> Result<Tensor, Fault> {
        let kind = self.graph.numpy_type(kind);
        let dtype = DType::from_numpy(&kind.code).ok_or_else(|| Fault::ArrayType(kind.code.to_string()))?;
        if kind.big_endian && dtype.size() > 1 {
            return Err(Fault::BigEndian);
        }
        let shape = self.axes(shape, "shape")?;
        let too_large = || Fault::Tensor(format!("its shape is {shape:?}"));
        let len = element_count(&shape).ok_or_else(too_large)?;
        let bytes = len.checked_mul(dtype.size()).ok_or_else(too_large)?;
        let data = self.graph.string(data).data.clone();
        if !data.may_have(bytes) {
            return Err(Fault::Tensor(format!("its shape is {shape:?}, but it has other data than {bytes} bytes")));
        }
        let strides = if fortran { column_major(&shape) } else { row_major(&shape) };
        let storage = self.graph.add_storage(Storage { dtype, len, location: StorageLocation::Data(data) });
        Ok(Tensor { shape, strides, offset: 0, storage })
    }

    /// Runs `BUILD`: ignores attributes of containers, completes arrays and types.
    pub(super) fn set_state(&mut self, object: Value, state: Value) -> Result<(), Fault> {
        match object {
            Value::Opaque | Value::Foreign(_) => Ok(()),
            // Attributes of an OrderedDict, such as the versions of the modules in `_metadata`.
            Value::Dict(_) if matches!(state, Value::Dict(_)) => Ok(()),
            Value::NumpyType(id) => {
                let order = self.graph.items(state).and_then(|items| items.get(1)).copied();
                let order = order.and_then(|order| self.graph.text(order)).ok_or(Fault::State)?;
                let big_endian = order == ">";
                self.graph.numpy_type_mut(id).big_endian |= big_endian;
                Ok(())
            }
            Value::Tensor(id) if self.graph.tensor(id).is_none() => {
                let wrong = call("numpy.ndarray.__setstate__", "a shape, a type and data");
                let array = match self.graph.items(state) {
                    Some(&[_, shape, Value::NumpyType(kind), Value::Bool(fortran), Value::String(data)]) => {
                        self.numpy_array(shape, kind, data, fortran)?
                    }
                    // An array of objects has them in a list.
                    Some(&[_, _, Value::NumpyType(kind), _, Value::List(_)]) => {
                        return Err(Fault::ArrayType(self.graph.numpy_type(kind).code.to_string()));
                    }
                    _ => return Err(wrong),
                };
                self.graph.tensors[id as usize] = Some(array);
                Ok(())
            }
            _ => Err(Fault::State),
        }
    }

    /// `('storage', type, key, location, length)`, in legacy files with a sixth item: a view.
    pub(super) fn persistent(&mut self, id: Value) -> Result<Value, Fault> {
        if self.persistent_ids == PersistentIds::Refused {
            return Err(Fault::Opcode("it refers to something outside the file (BINPERSID)".to_owned()));
        }
        let wrong = || call("persistent_load", "('storage', type, key, location, length)");
        let items = self.graph.items(id).ok_or_else(wrong)?;
        // Before its zip archives, PyTorch wrote the source of a module's class beside the class.
        if let &[kind, class @ Value::Foreign(_), _, _] = items
            && self.graph.text(kind) == Some("module")
        {
            return Ok(class);
        }
        let &[kind, Value::Global(Global::Storage(dtype)), key, _, Value::Int(len), ref view @ ..] = items else {
            return Err(wrong());
        };
        let (Some("storage"), Some(key)) = (self.graph.text(kind), self.graph.text(key)) else { return Err(wrong()) };
        let count = |number: i64| u64::try_from(number).map_err(|_| wrong());
        let total = count(len)?;
        let (mut first, mut len) = (0, total);
        if let &[view] = view
            && view != Value::None
        {
            let Some(&[_, Value::Int(offset), Value::Int(size)]) = self.graph.items(view) else { return Err(wrong()) };
            let (offset, size) = (count(offset)?, count(size)?);
            if offset.checked_add(size).is_none_or(|end| end > len) {
                return Err(Fault::Tensor(format!(
                    "it looks at {size} elements from {offset} on of a storage of {len}"
                )));
            }
            (first, len) = (offset, size);
        }
        let location = StorageLocation::Keyed { key: key.into(), first, total };
        Ok(Value::Storage(self.graph.add_storage(Storage { dtype, len, location })))
    }
}

impl StringData {
    /// Returns whether a string can have this many bytes; the bytes of text are counted.
    fn may_have(&self, bytes: u64) -> bool {
        match self {
            Self::Raw(range) => range.end - range.start == bytes,
            Self::Latin1(range) => bytes <= range.end - range.start,
            Self::Unescaped(data) => data.len() as u64 == bytes,
            Self::UnescapedLatin1(data) => bytes <= data.len() as u64,
        }
    }
}

fn call(what: &'static str, expected: &'static str) -> Fault {
    Fault::Call { what, expected }
}
