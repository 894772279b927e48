//! A backbone with its projection heads: the query encoder, and the momentum encoder of the keys.

use std::convert::Infallible;

use densecl_models::graph::Weight;
use densecl_models::resnet::{Architecture, OutputStride, Weights};
use tch::{Device, Kind, Tensor};

use super::batch_norm::Statistics;
use super::heads::{DenseHead, GlobalHead};
use super::resnet::{FeatureMaps, ResNet, ResNetSpec};
use super::tensors::NamedTensors;

/// Length below which a vector is not normalised any further, as in PyTorch.
const NORMALIZE_EPSILON: f64 = 1e-12;

/// Names of the backbone's tensors begin with this.
const BACKBONE: &str = "backbone.";

/// Size and shape of an encoder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EncoderSpec {
    /// The backbone.
    pub architecture: Architecture,
    /// Channels of its stem; 64 is the standard network.
    pub stem_width: i64,
    /// Length D of the projections.
    pub dim: i64,
    /// `true` for a dense head (DenseCL) beside the global one (MoCo-v2).
    pub dense: bool,
}

/// Unit-length embeddings of a batch.
#[derive(Debug)]
pub struct Embedding {
    /// The global projection `[N, D]`.
    pub global: Tensor,
    /// Spatial mean of the backbone's last map `[N, C]`; without gradient.
    pub pooled_backbone: Tensor,
    /// The embeddings of the cells; `None` for MoCo-v2.
    pub dense: Option<DenseEmbedding>,
}

/// Unit-length embeddings of the L cells of each image.
#[derive(Debug)]
pub struct DenseEmbedding {
    /// Dense projections `[N, D, L]`.
    pub cells: Tensor,
    /// Backbone features `[N, C, L]`.
    pub backbone: Tensor,
    /// Spatial mean of the un-normalised dense projections, then normalised: `[N, D]`.
    pub pooled: Tensor,
}

impl Embedding {
    /// Concatenates batches in their order.
    pub(crate) fn cat(mut parts: Vec<Self>) -> Self {
        if parts.len() == 1 {
            return parts.remove(0);
        }
        let cat = |field: &dyn Fn(&Self) -> &Tensor| Tensor::cat(&parts.iter().map(field).collect::<Vec<_>>(), 0);
        let dense: Vec<_> = parts.iter().filter_map(|part| part.dense.as_ref()).collect();
        let cat_dense = |field: &dyn Fn(&DenseEmbedding) -> &Tensor| {
            Tensor::cat(&dense.iter().map(|part| field(part)).collect::<Vec<_>>(), 0)
        };
        Self {
            global: cat(&|part| &part.global),
            pooled_backbone: cat(&|part| &part.pooled_backbone),
            dense: (!dense.is_empty()).then(|| DenseEmbedding {
                cells: cat_dense(&|part| &part.cells),
                backbone: cat_dense(&|part| &part.backbone),
                pooled: cat_dense(&|part| &part.pooled),
            }),
        }
    }

    /// The `count` images from index `first` on.
    pub(crate) fn narrow(&self, first: i64, count: i64) -> Self {
        let narrowed: Result<_, Infallible> = self.try_map(|x| Ok(x.narrow(0, first, count)));
        let Ok(narrowed) = narrowed;
        narrowed
    }

    /// Applies `map` to each tensor `[N, …]`; the result has as many images.
    ///
    /// # Errors
    /// The first error that `map` returns.
    pub(crate) fn try_map<E>(&self, map: impl Fn(&Tensor) -> Result<Tensor, E>) -> Result<Self, E> {
        let dense = self.dense.as_ref().map(|dense| {
            Ok(DenseEmbedding {
                cells: map(&dense.cells)?,
                backbone: map(&dense.backbone)?,
                pooled: map(&dense.pooled)?,
            })
        });
        Ok(Self { global: map(&self.global)?, pooled_backbone: map(&self.pooled_backbone)?, dense: dense.transpose()? })
    }
}

/// A backbone and its heads.
#[derive(Debug)]
pub struct Encoder {
    spec: EncoderSpec,
    backbone: ResNet,
    global_head: GlobalHead,
    dense_head: Option<DenseHead>,
    tensors: NamedTensors,
}

impl Encoder {
    /// An encoder with random weights, drawn from libtorch's generator.
    pub fn new(spec: EncoderSpec, kind: Kind, device: Device) -> Self {
        let mut tensors = NamedTensors::new(kind, device);
        let EncoderSpec { architecture, stem_width, .. } = spec;
        let resnet = ResNetSpec { architecture, stem_width, output_stride: OutputStride::Stride32 };
        let backbone = ResNet::new(&mut tensors, BACKBONE, resnet);
        let global_head = GlobalHead::new(&mut tensors, backbone.channels, spec.dim);
        let dense_head = spec.dense.then(|| DenseHead::new(&mut tensors, backbone.channels, spec.dim));
        Self { spec, backbone, global_head, dense_head, tensors }
    }

    /// Size and shape.
    pub fn spec(&self) -> EncoderSpec {
        self.spec
    }

    /// Parameters and buffers by name.
    pub fn tensors(&self) -> &NamedTensors {
        &self.tensors
    }

    /// Enables gradients of all parameters.
    #[must_use]
    pub fn trainable(self) -> Self {
        for parameter in self.tensors.parameters() {
            // The flag belongs to the tensor, which the layers share.
            let _ = parameter.set_requires_grad(true);
        }
        self
    }

    /// Stores the convolutions' weights with their channels last, which tensor cores and bfloat16
    /// kernels are fastest with. Names, shapes and values stay.
    pub fn channels_last(&self) {
        tch::no_grad(|| {
            for parameter in self.tensors.parameters().filter(|parameter| parameter.dim() == 4) {
                // The layers hold the same tensor and see its new storage.
                parameter.shallow_clone().set_data(&channels_last(parameter));
            }
        });
    }

    /// Normalised images `[N, 3, H, W]` → unit-length embeddings in the weights' own type, whatever
    /// the type that products are computed in.
    pub fn embed(&self, images: &Tensor, statistics: Statistics) -> Embedding {
        let kind = self.tensors.kind();
        let [.., map] = self.backbone.forward(images, statistics).stages; // [N, C, H', W']
        let pooled = map.mean_dim([2, 3].as_slice(), false, map.kind()); // [N, C]
        let global = normalize(&self.global_head.forward(&pooled).to_kind(kind)); // [N, D]
        let dense = self.dense_head.as_ref().map(|head| {
            let projected = head.forward(&map).to_kind(kind).flatten(2, 3); // [N, D, L]
            DenseEmbedding {
                cells: normalize(&projected), // [N, D, L]
                // Only the matching reads these, and it has no gradient.
                backbone: normalize(&map.detach().to_kind(kind).flatten(2, 3)), // [N, C, L]
                pooled: normalize(&projected.detach().mean_dim([2].as_slice(), false, kind)), // [N, D]
            }
        });
        Embedding { global, pooled_backbone: pooled.detach().to_kind(kind), dense }
    }

    /// Normalised images `[N, 3, H, W]` → the maps that an exported model returns, with running
    /// statistics: stages, un-normalised `dense` `[N, D, H/32, W/32]` and `global` `[N, D]`.
    pub fn features(&self, images: &Tensor) -> (FeatureMaps, Option<Tensor>, Tensor) {
        tch::no_grad(|| {
            let maps = self.backbone.forward(images, Statistics::Running);
            let last = &maps.stages[3]; // [N, C, H/32, W/32]
            let dense = self.dense_head.as_ref().map(|head| head.forward(last)); // [N, D, H/32, W/32]
            let global = self.global_head.forward(&last.mean_dim([2, 3].as_slice(), false, last.kind())); // [N, D]
            (maps, dense, global)
        })
    }

    /// Copies of the weights under the names that [`densecl_models::resnet::build`] expects.
    pub fn weights(&self) -> Weights {
        let weight = |tensor: &Tensor| {
            let tensor = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
            let mut data = vec![0.0; tensor.numel()];
            tensor.copy_data(&mut data, tensor.numel());
            Weight { dims: tensor.size().iter().map(|&dim| dim as usize).collect(), data }
        };
        self.tensors.iter().map(|(name, _, t)| (name.trim_start_matches(BACKBONE).to_owned(), weight(t))).collect()
    }
}

/// Stores a tensor `[N, C, H, W]` in the order N, H, W, C.
pub(crate) fn channels_last(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// Unit length along axis 1.
pub(crate) fn normalize(x: &Tensor) -> Tensor {
    let norm = x.norm_scalaropt_dim(2, [1].as_slice(), true).clamp_min(NORMALIZE_EPSILON);
    x / norm
}
