//! Reasons why a file is not read.

use std::io;

use crate::archive::ArchiveError;
use crate::pickle::PickleError;
use crate::source::ReadError;

/// A file that is not read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system refused.
    #[error("cannot open the file")]
    Io(#[source] io::Error),
    /// It is none of the formats, but something else.
    #[error("this is {0}")]
    Unknown(String),
    /// It is an object of this class, and no container of weights.
    #[error(
        "the file holds an object of `{0}` that was saved as a whole, which only Python with its code can read; save its \
         weights instead: torch.save(model.state_dict(), …)"
    )]
    Whole(String),
    /// A zip archive that is no checkpoint, or damaged.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The archive holds something else.
    #[error("{0}")]
    Content(String),
    /// A pickle that is damaged, or asks for what is not given.
    #[error(transparent)]
    Pickle(#[from] PickleError),
    /// A storage that the tensors refer to is not there or has another length.
    #[error("the storage `{key}` {what}")]
    Storage {
        /// Its key.
        key: String,
        /// Description of the fault.
        what: String,
    },
    /// It is cut off.
    #[error(transparent)]
    Read(#[from] ReadError),
}
