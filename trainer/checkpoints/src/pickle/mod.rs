//! A pickle interpreter that builds tensors and plain containers and nothing else.
//!
//! A pickle is a program: it names functions and calls them. Here the names are looked up in a
//! short list ([`globals`]), each of which stands for something that this crate rebuilds itself
//! ([`calls`]). Objects of other classes are set aside unread; well-known names by which Python
//! would run something are refused. Nothing that a pickle names is ever run.
//!
//! Values refer to one another by number ([`Graph`]), so neither cycles nor any depth of nesting
//! cost more than their opcodes did: nothing here, and no destructor, recurses. What a pickle may
//! cost is bounded by [`Limits`]; the data of tensors stay in the file until they are asked for.

mod calls;
mod globals;
mod graph;
mod machine;
mod strides;
mod text;

pub(crate) use graph::{Graph, Storage, StorageLocation, StringData, StringValue, Tensor, TensorId, Value};
pub(crate) use machine::{PersistentIds, run};
pub(crate) use strides::{element_count, row_major};

use crate::source::ReadError;

/// Limits of the work and the tensors of a pickle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Opcodes, and elements that are copied from one container to another.
    pub(crate) work: u64,
    /// Tensors.
    pub(crate) tensors: usize,
}

impl Limits {
    /// Sixteen times what three ResNet-101 with an optimiser's state need.
    pub(crate) const DEFAULT: Self = Self { work: 1_000_000, tensors: 100_000 };
}

/// Axes of a tensor.
pub(crate) const MAX_AXES: usize = 16;

/// A pickle that is not read, and where.
#[derive(Debug, thiserror::Error)]
#[error("the pickle is refused at byte {at}: {fault}")]
pub struct PickleError {
    /// First byte of the opcode in the file.
    pub at: u64,
    /// Reason why it is refused.
    pub fault: Fault,
}

/// Reason why a pickle is not read.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It names a function by which Python would run a command or code.
    #[error(
        "it asks for `{0}`, by which Python would run something that no weights need; nothing was run. Do not load this \
         file in Python unless you trust it; then save its weights alone: torch.save({{'state_dict': …}}, …)"
    )]
    Global(String),
    /// It names a type of tensor that is not read.
    #[error(
        "it holds a tensor made by `{0}`; sparse, quantised, complex and 8-bit floating-point tensors are not read. \
         Save the weights as float32"
    )]
    TensorType(String),
    /// It calls something that is known in a way that is not.
    #[error("it calls {what} with something other than {expected}")]
    Call {
        /// Name of the function.
        what: &'static str,
        /// The arguments that it takes.
        expected: &'static str,
    },
    /// It gives a state to something that has none.
    #[error("it sets the state of something that has none")]
    State,
    /// Numbers that are stored the other way round.
    #[error("its numbers are big-endian; only little-endian files are read. Save it anew on a little-endian machine")]
    BigEndian,
    /// A NumPy type other than plain numbers.
    #[error("it holds an array of NumPy type `{0}`; numbers of up to 8 bytes are read, objects are not")]
    ArrayType(String),
    /// A tensor's numbers contradict each other, or the storage that they point into.
    #[error("it holds a tensor that cannot be: {0}")]
    Tensor(String),
    /// An opcode works on something that is not there, or of another kind.
    #[error("{opcode} expects {expected} before it")]
    Stack {
        /// The opcode.
        opcode: &'static str,
        /// The value that the opcode needs.
        expected: &'static str,
    },
    /// An opcode that is not read.
    #[error("{0}")]
    Opcode(String),
    /// Text that is not what its opcode says.
    #[error("{0} is not valid")]
    Text(&'static str),
    /// It would cost more than any checkpoint does.
    #[error("it has more than {limit} {what}, which no checkpoint of a network needs")]
    Limit {
        /// Name of the limited quantity.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// It goes on behind the end of the file.
    #[error(transparent)]
    Read(#[from] ReadError),
}
