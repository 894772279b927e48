//! The networks: a ResNet with torchvision's names, and DenseCL's two projection heads.
//!
//! [`crate::densecl`] trains them.

mod backbone;
mod batch_norm;
mod encoder;
mod feature_network;
mod heads;
mod resnet;
mod tensors;

pub use backbone::Backbone;
pub use batch_norm::{BatchPart, Statistics};
pub use encoder::{DenseEmbedding, Embedding, Encoder, EncoderSpec};
pub(crate) use encoder::{channels_last, normalize};
pub use feature_network::FeatureNetwork;
pub use resnet::FeatureMaps;
pub use tensors::{LoadError, NamedTensors, TensorProblem, TensorRole};
