//! Segmentation heads: from the backbone's map to a score for each class.

use tch::nn::{self, BatchNormConfig, ConvConfig, Init, ModuleT};
use tch::{Device, Tensor};

/// Channels between the FCN's convolutions.
const FCN_WIDTH: i64 = 256;

/// Dilation of the FCN's 3×3 convolutions.
const FCN_DILATION: i64 = 6;

/// Deviation of the classifier's first weights.
const CLASSIFIER_DEVIATION: f64 = 0.01;

/// A head and its parameters.
#[derive(Debug)]
pub(super) struct Head {
    store: nn::VarStore,
    layers: nn::SequentialT,
}

impl Head {
    /// A 1×1 convolution after a BatchNorm without parameters, which scales the features of all networks
    /// alike, so that one learning rate suits them.
    pub(super) fn linear(channels: i64, classes: i64, device: Device) -> Self {
        let store = nn::VarStore::new(device);
        let root = store.root();
        let standardize = BatchNormConfig { affine: false, ..BatchNormConfig::default() };
        let layers = nn::seq_t().add(nn::batch_norm2d(&root / "standardize", channels, standardize)).add(classifier(
            &(&root / "classifier"),
            channels,
            classes,
        ));
        Self { store, layers }
    }

    /// Two 3×3 convolutions of 256 channels, dilated by 6, with BatchNorm and ReLU, and a 1×1
    /// convolution (He et al., arXiv 1911.05722, appendix A.4).
    pub(super) fn fcn(channels: i64, classes: i64, device: Device) -> Self {
        let store = nn::VarStore::new(device);
        let root = store.root();
        let mut layers = nn::seq_t();
        for (i, input) in [channels, FCN_WIDTH].into_iter().enumerate() {
            let path = &root / format!("conv{i}");
            let config = ConvConfig {
                padding: FCN_DILATION,
                dilation: FCN_DILATION,
                bias: false,
                ws_init: nn::init::DEFAULT_KAIMING_NORMAL,
                ..ConvConfig::default()
            };
            let norm = BatchNormConfig { ws_init: Init::Const(1.0), ..BatchNormConfig::default() };
            layers = layers
                .add(nn::conv2d(&path / "conv", input, FCN_WIDTH, 3, config))
                .add(nn::batch_norm2d(&path / "norm", FCN_WIDTH, norm))
                .add_fn(Tensor::relu);
        }
        let layers = layers.add(classifier(&(&root / "classifier"), FCN_WIDTH, classes));
        Self { store, layers }
    }

    pub(super) fn parameters(&self) -> Vec<Tensor> {
        self.store.trainable_variables()
    }

    /// Features `[N, C, h, w]` → scores `[N, K, h, w]`; in training with the statistics of the batch.
    pub(super) fn forward(&self, features: &Tensor, mode: Mode) -> Tensor {
        self.layers.forward_t(features, mode == Mode::Training)
    }
}

/// Purpose of a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Training,
    Prediction,
}

fn classifier(path: &nn::Path<'_>, channels: i64, classes: i64) -> nn::Conv2D {
    let ws_init = Init::Randn { mean: 0.0, stdev: CLASSIFIER_DEVIATION };
    nn::conv2d(path, channels, classes, 1, ConvConfig { ws_init, ..ConvConfig::default() })
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn an_fcn_sees_six_cells_far_in_each_of_two_layers() {
        tch::manual_seed(1);
        let head = Head::fcn(3, 2, Device::Cpu);
        let input = Tensor::randn([1, 3, 40, 40], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let scores = head.forward(&input, Mode::Prediction); // [1, 2, 40, 40]
        assert_eq!(scores.size(), [1, 2, 40, 40]);
        scores.select(2, 20).select(2, 20).sum(Kind::Float).backward();
        let touched = input.grad().abs().sum_dim_intlist([0, 1].as_slice(), false, Kind::Float).gt(0.0); // [40, 40]
        let columns: Vec<i64> = Vec::try_from(touched.any_dim(0, false).nonzero().flatten(0, 1)).unwrap();
        assert_eq!((columns[0], *columns.last().unwrap(), columns.len()), (8, 32, 5));
        assert_eq!(head.parameters().len(), 2 * 3 + 2);
    }

    #[test]
    fn a_linear_head_does_not_mind_the_scale_of_its_features() {
        let features = Tensor::randn([4, 5, 6, 6], (Kind::Float, Device::Cpu));
        let head = Head::linear(5, 3, Device::Cpu);
        let scores = |features: &Tensor| head.forward(features, Mode::Training); // [4, 3, 6, 6]
        let difference = scores(&features) - scores(&(&features * 1000.0 + 7.0));
        assert!(difference.abs().max().double_value(&[]) < 1e-4);
        assert_eq!(head.parameters().len(), 2);
    }
}
