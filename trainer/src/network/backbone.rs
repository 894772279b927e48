//! A backbone without heads, with the weights of a file.

use anyhow::{Context, Result};
use densecl_models::resnet::{Architecture, OutputStride, Weights};
use tch::{Device, Kind, Tensor};

use super::batch_norm::Statistics;
use super::resnet::{FeatureMaps, ResNet, ResNetSpec};
use super::tensors::NamedTensors;

/// A pre-trained ResNet without heads or classifier, of any width, dilated or not.
///
/// ```no_run
/// use densecl_models::resnet::OutputStride;
/// use densecl_trainer::network::{Backbone, Statistics};
/// use densecl_trainer::pretrained::Pretrained;
/// use tch::{Device, Tensor};
///
/// # fn example(images: &Tensor) -> anyhow::Result<()> {
/// let pretrained = Pretrained::read("runs/zoo".as_ref())?;
/// let (architecture, weights) = (pretrained.architecture, &pretrained.weights);
/// let backbone = Backbone::from_weights(architecture, weights, OutputStride::Stride8, Device::Cpu)?;
///
/// // Frozen, with BatchNorm's running statistics:
/// let [.., res5] = tch::no_grad(|| backbone.forward(images, Statistics::Running)).stages; // [N, C, H/8, W/8]
///
/// // To be fine-tuned:
/// let backbone = backbone.trainable();
/// for parameter in backbone.tensors().parameters() { /* goes to an optimiser */ }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Backbone {
    resnet: ResNet,
    tensors: NamedTensors,
}

impl Backbone {
    /// Builds a backbone of float32 tensors on `device`, without gradients, with torchvision's names
    /// (`layer1.0.conv1.weight`). Its width is that of `weights`, which may hold more than it needs.
    ///
    /// Building it draws from libtorch's generator: seed that afterwards.
    ///
    /// # Errors
    /// Lists all weights that are missing or of another shape.
    pub fn from_weights(
        architecture: Architecture,
        weights: &Weights,
        output_stride: OutputStride,
        device: Device,
    ) -> Result<Self> {
        let stem = weights.get("conv1.weight").context("the weights lack `conv1.weight`")?;
        let stem_width = stem.dims.first().copied().unwrap_or_default() as i64;
        let mut tensors = NamedTensors::new(Kind::Float, device);
        let resnet = ResNet::new(&mut tensors, "", ResNetSpec { architecture, stem_width, output_stride });
        load(&tensors, weights).with_context(|| format!("these are not the weights of a {architecture}"))?;
        Ok(Self { resnet, tensors })
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

    /// Parameters and buffers by name.
    pub fn tensors(&self) -> &NamedTensors {
        &self.tensors
    }

    /// Channels of `res5`.
    pub fn channels(&self) -> i64 {
        self.resnet.channels
    }

    /// Normalised images `[N, 3, H, W]` → the maps of the four stages.
    pub fn forward(&self, images: &Tensor, statistics: Statistics) -> FeatureMaps {
        self.resnet.forward(images, statistics)
    }
}

/// Overwrites `tensors` with the weights of the same names.
pub(super) fn load(tensors: &NamedTensors, weights: &Weights) -> Result<()> {
    let find = |name: &str| {
        let weight = weights.get(name)?;
        let dims: Vec<i64> = weight.dims.iter().map(|&dim| dim as i64).collect();
        Some(Tensor::from_slice(&weight.data).view(&dims[..]))
    };
    Ok(tensors.load(find)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Encoder, EncoderSpec};

    fn weights(architecture: Architecture) -> Weights {
        tch::manual_seed(5);
        let spec = EncoderSpec { architecture, stem_width: 4, dim: 8, dense: true };
        Encoder::new(spec, Kind::Float, Device::Cpu).weights()
    }

    fn images(height: i64, width: i64) -> Tensor {
        tch::manual_seed(6);
        Tensor::randn([2, 3, height, width], (Kind::Float, Device::Cpu))
    }

    /// The maps of all stages.
    fn stages(architecture: Architecture, weights: &Weights, stride: OutputStride, images: &Tensor) -> [Tensor; 4] {
        let backbone = Backbone::from_weights(architecture, weights, stride, Device::Cpu).unwrap();
        backbone.forward(images, Statistics::Running).stages
    }

    /// A dilated convolution sees, at every second cell, what the strided one has seen.
    #[test]
    fn a_dilated_map_holds_the_coarse_one() {
        for architecture in [Architecture::ResNet18, Architecture::ResNet50] {
            let weights = weights(architecture);
            // Sides that are no multiples of the stride, too.
            for images in [images(96, 64), images(75, 101)] {
                let coarse = stages(architecture, &weights, OutputStride::Stride32, &images);
                for (stride, steps) in [(OutputStride::Stride16, [1, 1, 1, 2]), (OutputStride::Stride8, [1, 1, 2, 4])] {
                    let fine = stages(architecture, &weights, stride, &images);
                    for ((fine, coarse), step) in fine.iter().zip(&coarse).zip(steps) {
                        let every = |x: &Tensor, dim| x.slice(dim, None::<i64>, None::<i64>, step);
                        let found = every(&every(fine, 2), 3);
                        let error = (&found - coarse).abs().max() / coarse.abs().max();
                        assert_eq!(found.size(), coarse.size());
                        assert!(error.double_value(&[]) < 1e-5, "{architecture} {stride}: {error}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_backbone_is_frozen_until_it_is_made_trainable() {
        let architecture = Architecture::ResNet18;
        let weights = weights(architecture);
        let backbone = Backbone::from_weights(architecture, &weights, OutputStride::Stride16, Device::Cpu).unwrap();
        assert_eq!(backbone.channels(), 32);
        let loss =
            |backbone: &Backbone| backbone.forward(&images(32, 32), Statistics::Running).stages[3].sum(Kind::Float);
        assert!(!loss(&backbone).requires_grad());
        let backbone = backbone.trainable();
        loss(&backbone).backward();
        assert!(backbone.tensors().parameters().all(|parameter| parameter.grad().defined()));
    }

    #[test]
    fn weights_of_another_network_are_listed() {
        let mut weights = weights(Architecture::ResNet18);
        weights.remove("layer4.1.conv2.weight");
        weights.get_mut("bn1.bias").unwrap().dims = vec![2, 2];
        let build = |architecture, weights: &Weights| {
            let built = Backbone::from_weights(architecture, weights, OutputStride::Stride32, Device::Cpu);
            format!("{:#}", built.unwrap_err())
        };
        let error = build(Architecture::ResNet18, &weights);
        assert!(error.contains("layer4.1.conv2.weight is missing") && error.contains("bn1.bias is [2, 2]"), "{error}");
        assert!(build(Architecture::ResNet50, &weights).contains("resnet50"));
        assert!(build(Architecture::ResNet18, &Weights::new()).contains("conv1.weight"));
    }
}
