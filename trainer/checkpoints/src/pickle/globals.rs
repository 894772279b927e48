//! The names that a pickle may use.
//!
//! Those of [`Global`] are the whole of what a file can make happen. Any other class stands for objects that are set aside
//! unread, as training runs leave them beside their weights: settings, callbacks, records. Well-known names by which
//! Python would run a command or code are refused: a file that has them should not be passed on. That a file is read does
//! not mean that Python can load it safely: the list is not complete, and cannot be.

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

/// Modules of Python whose functions run commands or code, reach other programs, or reach into the interpreter; and those of
/// PyTorch that load files or code.
const REFUSED: [&str; 59] = [
    "os",
    "posix",
    "nt",
    "sys",
    "builtins",
    "__builtin__",
    "subprocess",
    "popen2",
    "commands",
    "pty",
    "shutil",
    "socket",
    "asyncio",
    "multiprocessing",
    "importlib",
    "imp",
    "runpy",
    "pkgutil",
    "code",
    "codeop",
    "pickle",
    "_pickle",
    "cPickle",
    "marshal",
    "ctypes",
    "_ctypes",
    "gc",
    "inspect",
    "operator",
    "_operator",
    "timeit",
    "pdb",
    "bdb",
    "profile",
    "cProfile",
    "webbrowser",
    "pip",
    "_posixsubprocess",
    "_io",
    "io",
    "tempfile",
    "pydoc",
    "urllib",
    "http",
    "ftplib",
    "smtplib",
    "xmlrpc",
    "cloudpickle",
    "dill",
    "numpy.testing",
    "torch.utils.cpp_extension",
    "functools",
    "types",
    "torch.storage",
    "torch.serialization",
    "torch.hub",
    "torch.jit",
    "torch.package",
    "torch.ops",
];

/// Records in these modules.
const RECORDS: [&str; 2] = ["functools.partial", "types.SimpleNamespace"];

/// Types of elements and plain types of Python: as names, never called.
const NAMES: [&str; 27] = [
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
    "builtins.tuple",
    "builtins.object",
    "builtins.complex",
    "builtins.range",
    "builtins.slice",
    "__builtin__.dict",
    "__builtin__.list",
    "__builtin__.int",
    "__builtin__.float",
    "__builtin__.str",
    "__builtin__.bool",
];

/// Elements of tensors that are not read, by which the names of their storages begin.
const OTHER_ELEMENTS: [&str; 3] = ["Complex", "QInt", "QUInt"];

impl Global {
    /// Looks a name up; `None` of a class that is not known, whose objects are set aside.
    ///
    /// # Errors
    /// If it is refused.
    pub(crate) fn find(module: &str, name: &str) -> Result<Option<Self>, Fault> {
        let full = format!("{module}.{name}");
        if let Some(known) = known(&full) {
            return Ok(Some(known));
        }
        let is_other_storage = name.ends_with("Storage") && OTHER_ELEMENTS.iter().any(|kind| name.starts_with(kind));
        if module == "torch" && is_other_storage || module == "torch._utils" && name.starts_with("_rebuild_") {
            return Err(Fault::TensorType(full));
        }
        let is_in = |module: &str| full.strip_prefix(module).is_some_and(|rest| rest.starts_with('.'));
        // A method of something that is known is a function, and no class.
        let is_method = full.match_indices('.').any(|(dot, _)| known(&full[..dot]).is_some());
        let is_record = RECORDS.contains(&full.as_str());
        let is_refused = REFUSED.iter().any(|module| is_in(module)) && !is_record || full == "torch.load";
        if is_method || is_refused { Err(Fault::Global(full)) } else { Ok(None) }
    }
}

fn known(full: &str) -> Option<Global> {
    Some(match full {
        "collections.OrderedDict" => Global::OrderedDict,
        "collections.defaultdict" => Global::DefaultDict,
        "collections.Counter" => Global::Counter,
        "builtins.set" | "builtins.frozenset" | "__builtin__.set" | "__builtin__.frozenset" => Global::Set,
        "_codecs.encode" => Global::Encode,
        "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2" => Global::RebuildTensor,
        "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" => Global::RebuildParameter,
        "torch._tensor._rebuild_from_type_v2" => Global::RebuildFromType,
        "torch.Tensor" | "torch.nn.parameter.Parameter" => Global::TensorClass,
        "torch.Size" => Global::Size,
        "numpy.core.multiarray._reconstruct" | "numpy._core.multiarray._reconstruct" => Global::NumpyReconstruct,
        "numpy.core.numeric._frombuffer" | "numpy._core.numeric._frombuffer" => Global::NumpyFromBuffer,
        "numpy.core.multiarray.scalar" | "numpy._core.multiarray.scalar" => Global::NumpyScalar,
        "numpy.ndarray" => Global::NumpyArray,
        "numpy.dtype" => Global::NumpyType,
        name if NAMES.contains(&name) => Global::Name,
        name => return storage(name),
    })
}

fn storage(full: &str) -> Option<Global> {
    let class = full.strip_prefix("torch.")?;
    DType::STORAGES.iter().find(|(_, name)| *name == class).map(|&(dtype, _)| Global::Storage(dtype))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_set_aside_or_refused() {
        assert_eq!(Global::find("collections", "OrderedDict").unwrap(), Some(Global::OrderedDict));
        for (module, name) in [
            ("argparse", "Namespace"),
            ("omegaconf.dictconfig", "DictConfig"),
            ("pathlib", "PosixPath"),
            ("functools", "partial"),
            ("types", "SimpleNamespace"),
            ("torch", "device"),
            ("torch", "float8_e5m2"),
            ("torch.optim.sgd", "SGD"),
            ("torch.nn.modules.linear", "Linear"),
            ("torch.nn.modules.sparse", "Embedding"),
            ("torch.optim.sparse_adam", "SparseAdam"),
            ("__main__", "Config"),
            ("osgeo", "x"),
        ] {
            assert_eq!(Global::find(module, name).unwrap(), None, "{module}.{name}");
        }
        for (module, name) in [
            ("os", "system"),
            ("os.path", "join"),
            ("builtins", "eval"),
            ("functools", "reduce"),
            ("types", "FunctionType"),
            ("torch", "load"),
            ("torch.storage", "_load_from_bytes"),
            ("collections", "OrderedDict.fromkeys"),
            ("torch", "FloatStorage.from_file"),
            ("numpy.testing._private.utils", "runstring"),
            ("torch.utils.cpp_extension", "load"),
            ("_posixsubprocess", "fork_exec"),
        ] {
            assert!(matches!(Global::find(module, name), Err(Fault::Global(_))), "{module}.{name}");
        }
    }
}
