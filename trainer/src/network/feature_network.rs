//! A network as an exported model computes it, in libtorch: what exports are compared with.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use densecl_models::resnet::{Architecture, OutputStride, Weights};
use tch::{Device, Kind, Tensor};

use super::backbone::{Backbone, load};
use super::batch_norm::Statistics;
use super::heads::{DenseHead, GlobalHead};
use super::tensors::NamedTensors;

/// A backbone with as many heads as there are weights for; float32 on the CPU.
#[derive(Debug)]
pub struct FeatureNetwork {
    backbone: Backbone,
    global_head: Option<GlobalHead>,
    dense_head: Option<DenseHead>,
}

impl FeatureNetwork {
    /// The network of these weights, which are named as for [`densecl_models::resnet::build`].
    ///
    /// # Errors
    /// Lists all weights that are missing or of another shape.
    pub fn from_weights(architecture: Architecture, weights: &Weights, output_stride: OutputStride) -> Result<Self> {
        let backbone = Backbone::from_weights(architecture, weights, output_stride, Device::Cpu)?;
        let mut tensors = NamedTensors::new(Kind::Float, Device::Cpu);
        // Length of the vectors that a head returns, if there is such a head.
        let length = |head: &str| Some(*weights.get(&format!("{head}.2.weight"))?.dims.first()? as i64);
        let channels = backbone.channels();
        let global_head = length("global_head").map(|dim| GlobalHead::new(&mut tensors, channels, dim));
        let dense_head = length("dense_head").map(|dim| DenseHead::new(&mut tensors, channels, dim));
        load(&tensors, weights).context("these heads do not fit their backbone")?;
        Ok(Self { backbone, global_head, dense_head })
    }

    /// Normalised images `[N, 3, H, W]` → the outputs that an exported model returns under the same
    /// names: `res2` … `res5` and, un-normalised, `dense` `[N, D, h, w]` and `global` `[N, D]`.
    pub fn outputs(&self, images: &Tensor) -> BTreeMap<String, Tensor> {
        tch::no_grad(|| {
            let stages = self.backbone.forward(images, Statistics::Running).stages;
            let last = &stages[3]; // [N, C, h, w]
            let dense = self.dense_head.as_ref().map(|head| ("dense".to_owned(), head.forward(last)));
            let pooled = last.mean_dim([2, 3].as_slice(), false, last.kind()); // [N, C]
            let global = self.global_head.as_ref().map(|head| ("global".to_owned(), head.forward(&pooled)));
            let stages = (2..).zip(&stages).map(|(i, stage)| (format!("res{i}"), stage.shallow_clone()));
            stages.chain(dense).chain(global).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Encoder, EncoderSpec};

    /// Compares with an encoder with both heads, and with one without the dense head.
    #[test]
    fn outputs_are_those_of_the_encoder() {
        for dense in [true, false] {
            tch::manual_seed(8);
            let spec = EncoderSpec { architecture: Architecture::ResNet50, stem_width: 4, dim: 8, dense };
            let encoder = Encoder::new(spec, Kind::Float, Device::Cpu);
            let network =
                FeatureNetwork::from_weights(spec.architecture, &encoder.weights(), OutputStride::Stride32).unwrap();
            let images = Tensor::randn([2, 3, 64, 96], (Kind::Float, Device::Cpu));
            let (maps, dense_map, global) = encoder.features(&images);
            let outputs = network.outputs(&images);
            for (stage, expected) in (2..).zip(&maps.stages) {
                assert_eq!(outputs[&format!("res{stage}")], *expected);
            }
            assert_eq!(outputs.get("dense"), dense_map.as_ref());
            assert_eq!(outputs["global"], global);
        }
    }

    #[test]
    fn a_backbone_without_heads_has_no_projections() {
        let spec = EncoderSpec { architecture: Architecture::ResNet18, stem_width: 4, dim: 8, dense: true };
        let mut weights = Encoder::new(spec, Kind::Float, Device::Cpu).weights();
        weights.retain(|name, _| !name.contains("head"));
        let network = FeatureNetwork::from_weights(spec.architecture, &weights, OutputStride::Stride8).unwrap();
        let outputs = network.outputs(&Tensor::zeros([1, 3, 32, 64], (Kind::Float, Device::Cpu)));
        assert_eq!(outputs.keys().collect::<Vec<_>>(), ["res2", "res3", "res4", "res5"]);
        assert_eq!(outputs["res5"].size(), [1, 32, 4, 8]);
    }
}
