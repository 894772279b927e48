//! The names that a pickle may use. This list is the whole of what a file can make happen.

use super::Fault;
use crate::dtype::DType;

/// A function or class of Python that has a meaning here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Global {
    /// `collections.OrderedDict`
    OrderedDict,
    /// `collections.defaultdict`
    DefaultDict,
    /// `collections.Counter`
    Counter,
    /// `set` and `frozenset`, in Python 2 and 3.
    Set,
    /// `_codecs.encode`: how Python 3 writes bytes in protocol 2 and below.
    Encode,
    /// `torch._utils._rebuild_tensor`, `_rebuild_tensor_v2`
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`, `_rebuild_parameter_with_state`
    RebuildParameter,
    /// `torch._tensor._rebuild_from_type_v2`: a tensor with attributes, which are left aside.
    RebuildFromType,
    /// `torch.Tensor` and `torch.nn.parameter.Parameter`, where `RebuildFromType` names them.
    TensorClass,
    /// `torch.FloatStorage` and its like.
    Storage(DType),
    /// `torch.Size`
    Size,
    /// `torch.device`, and records without methods that matter (see [`RECORDS`]).
    Record,
    /// `numpy.core.multiarray._reconstruct`
    NumpyReconstruct,
    /// `numpy.core.numeric._frombuffer`
    NumpyFromBuffer,
    /// `numpy.ndarray`
    NumpyArray,
    /// `numpy.dtype`
    NumpyType,
    /// `numpy.core.multiarray.scalar`
    NumpyScalar,
    /// A name that only ever stands for itself: `torch.float32`, `dict`, `int`.
    Name,
}

/// Classes that hold settings or statistics in checkpoints of training runs. Nothing of them is
/// rebuilt: an object of theirs is [`super::Value::Opaque`], whatever its pickle says of it.
const RECORDS: [&str; 3] = ["torch.device", "argparse.Namespace", "mmengine.logging.history_buffer.HistoryBuffer"];

/// Types of elements and plain types of Python: as names, never called.
const NAMES: [&str; 22] = [
    "torch.float32",
    "torch.float64",
    "torch.float16",
    "torch.bfloat16",
    "torch.int64",
    "torch.int32",
    "torch.int16",
    "torch.int8",
    "torch.uint8",
    "torch.bool",
    "builtins.dict",
    "builtins.list",
    "builtins.int",
    "builtins.float",
    "builtins.str",
    "builtins.bool",
    "__builtin__.dict",
    "__builtin__.list",
    "__builtin__.int",
    "__builtin__.float",
    "__builtin__.str",
    "__builtin__.bool",
];

/// Parts of the names by which PyTorch rebuilds tensors that are not read.
const OTHER_TENSORS: [&str; 7] =
    ["Complex", "QInt", "QUInt", "sparse", "qtensor", "_rebuild_tensor_v3", "_rebuild_wrapper_subclass"];

impl Global {
    /// Looks a name up.
    ///
    /// # Errors
    /// If it is not on the list.
    pub(crate) fn find(module: &str, name: &str) -> Result<Self, Fault> {
        let full = format!("{module}.{name}");
        if let Some(storage) = storage(&full) {
            return Ok(storage);
        }
        Ok(match full.as_str() {
            "collections.OrderedDict" => Self::OrderedDict,
            "collections.defaultdict" => Self::DefaultDict,
            "collections.Counter" => Self::Counter,
            "builtins.set" | "builtins.frozenset" | "__builtin__.set" | "__builtin__.frozenset" => Self::Set,
            "_codecs.encode" => Self::Encode,
            "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2" => Self::RebuildTensor,
            "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" => Self::RebuildParameter,
            "torch._tensor._rebuild_from_type_v2" => Self::RebuildFromType,
            "torch.Tensor" | "torch.nn.parameter.Parameter" => Self::TensorClass,
            "torch.Size" => Self::Size,
            "numpy.core.multiarray._reconstruct" | "numpy._core.multiarray._reconstruct" => Self::NumpyReconstruct,
            "numpy.core.numeric._frombuffer" | "numpy._core.numeric._frombuffer" => Self::NumpyFromBuffer,
            "numpy.core.multiarray.scalar" | "numpy._core.multiarray.scalar" => Self::NumpyScalar,
            "numpy.ndarray" => Self::NumpyArray,
            "numpy.dtype" => Self::NumpyType,
            name if RECORDS.contains(&name) => Self::Record,
            name if NAMES.contains(&name) => Self::Name,
            name if name.starts_with("torch.") && OTHER_TENSORS.iter().any(|part| name.contains(part)) => {
                return Err(Fault::TensorType(full));
            }
            _ => return Err(Fault::Global(full)),
        })
    }
}

fn storage(full: &str) -> Option<Global> {
    let class = full.strip_prefix("torch.")?;
    DType::STORAGES.iter().find(|(_, name)| *name == class).map(|&(dtype, _)| Global::Storage(dtype))
}
