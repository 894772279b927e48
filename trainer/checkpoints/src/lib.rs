//! Reads and writes the checkpoints of other tools.
//!
//! [`CheckpointFile`] opens a file of `torch.save` (zip and legacy), a pickle of NumPy arrays, or
//! a safetensors file; [`Network`] finds the ResNet in it, whatever the tool called its parts; and
//! [`write()`] writes it as other tools expect it.
//!
//! Files are not trusted. A pickle is never run: only tensors and plain containers are rebuilt, objects of other classes
//! are left aside, and well-known names that would run something are refused. Every declared size is held against the
//! file's length before memory is taken for it; nothing recurses as deep as a file says.
//!
//! This crate does not know libtorch, how networks are trained, or what an export looks like.

mod allow;
mod archive;
mod archive_writer;
mod dtype;
mod entries;
mod file;
mod layout;
mod legacy;
mod names;
mod network;
mod open_error;
mod other_content;
mod other_networks;
mod pickle;
mod pickle_writer;
mod problems;
mod safetensors_file;
mod source;
mod storages;
mod tensor_data;
mod transformers_config;
mod weight_sets;
mod write;

pub use allow::Allow;
pub use archive::ArchiveError;
pub use dtype::DType;
pub use file::{CheckpointFile, Format, TensorInfo};
pub use layout::{CheckpointLayout, LayoutError, Role};
pub use network::{Network, OtherNetwork, WeightsError};
pub use open_error::OpenError;
pub use pickle::{Fault, PickleError};
pub use problems::Problems;
pub use source::ReadError;
pub use tensor_data::TensorDataError;
pub use transformers_config::{ConfigError, check_transformers_config};
pub use write::{METHOD_KEY, Target, write};
