//! The linear probe: multinomial logistic regression on frozen features.
//!
//! Features are standardised by the training images' mean and deviation (a BatchNorm without
//! parameters). The loss is the mean cross entropy plus `weight_decay / 2` times the sum of squares
//! of the weights, minimised by L-BFGS over all training images at once, so that neither a learning
//! rate nor a schedule has to be chosen. The weight decay is: by the accuracy on a share of the
//! *training* images that is held out by the seed. The test images choose nothing.
//!
//! Source: the protocol of Kornblith et al., arXiv 1805.08974, appendix A.4, and of Radford et al.,
//! arXiv 2103.00020, appendix A.3.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use super::features::LabelledFeatures;
use super::lbfgs::{StopWhen, minimize};
use super::metrics::ConfusionMatrix;

/// Weight decays that are tried, strongest first: each goes on from the one before.
const WEIGHT_DECAYS: [f64; 8] = [1e1, 1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6];

/// Share of the training images that choose the weight decay.
const HELD_OUT: f64 = 0.2;

/// Features with a smaller deviation count as constants and are not scaled.
const MIN_DEVIATION: f64 = 1e-6;

/// A probe's outcome.
#[derive(Clone, Debug)]
pub struct Probe {
    /// On the test images.
    pub matrix: ConfusionMatrix,
    /// The weight decay that was chosen.
    pub weight_decay: f64,
}

/// Trains on `train` and classifies `test`; `seed` draws the held-out share.
///
/// With too few training images to hold one out of any class, the weakest of the decays is taken
/// that predicts the training images themselves best.
pub fn probe(train: &LabelledFeatures, test: &LabelledFeatures, seed: u64) -> Probe {
    let (fitted, held_out) = hold_out(train, seed);
    let weight_decay = choose(&fitted, &held_out);
    let scale = Scale::from_features(&train.features); // [1, C]
    let start = zeros(train); // [C + 1, K]
    let weights = fit(&scale.apply(&train.features), &train.labels, &start, weight_decay);
    Probe { matrix: classify(&scale.apply(&test.features), &test.labels, &weights), weight_decay }
}

/// The decay whose weights, fitted to `fitted`, predict `held_out` best; the strongest of equals.
fn choose(fitted: &LabelledFeatures, held_out: &LabelledFeatures) -> f64 {
    let scale = Scale::from_features(&fitted.features);
    let (features, unseen) = (scale.apply(&fitted.features), scale.apply(&held_out.features));
    let mut weights = zeros(fitted);
    let (mut best, mut best_accuracy) = (WEIGHT_DECAYS[0], -1.0);
    for decay in WEIGHT_DECAYS {
        weights = fit(&features, &fitted.labels, &weights, decay);
        let accuracy = classify(&unseen, &held_out.labels, &weights).accuracy();
        tracing::debug!(weight_decay = decay, accuracy, "linear probe on held-out training images");
        if accuracy > best_accuracy {
            (best, best_accuracy) = (decay, accuracy);
        }
    }
    best
}

/// Splits by class, so that a rare one is on both sides if it has two images.
fn hold_out(all: &LabelledFeatures, seed: u64) -> (LabelledFeatures, LabelledFeatures) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let labels: Vec<i64> = Vec::try_from(&all.labels).expect("labels are a vector of int64");
    let (mut kept, mut held_out) = (Vec::new(), Vec::new());
    for class in 0..all.classes as i64 {
        let mut members: Vec<i64> = (0..).zip(&labels).filter(|(_, label)| **label == class).map(|(i, _)| i).collect();
        members.shuffle(&mut rng);
        let count = (members.len() as f64 * HELD_OUT).ceil() as usize;
        let count = count.min(members.len().saturating_sub(1));
        held_out.extend_from_slice(&members[..count]);
        kept.extend_from_slice(&members[count..]);
    }
    if held_out.is_empty() {
        held_out.clone_from(&kept);
    }
    (all.select(&kept), all.select(&held_out))
}

/// Weights and biases `[C + 1, K]` of zero, as float64.
fn zeros(of: &LabelledFeatures) -> Tensor {
    Tensor::zeros([of.features.size()[1] + 1, of.classes as i64], (Kind::Double, of.features.device()))
}

/// Minimises the loss from `start`; features `[N, C + 1]`, labels `[N]` → weights `[C + 1, K]`.
fn fit(features: &Tensor, labels: &Tensor, start: &Tensor, weight_decay: f64) -> Tensor {
    let size = start.size();
    let stop = StopWhen { iterations: 1000, gradient_below: 1e-6 };
    let evaluate = |flat: &Tensor| {
        let weights = flat.view(size.as_slice()); // [C + 1, K]
        let decayed = weights.narrow(0, 0, size[0] - 1); // [C, K]: all but the biases
        let log_probabilities = features.matmul(&weights).log_softmax(1, Kind::Double); // [N, K]
        let loss = log_probabilities.nll_loss(labels); // []
        let penalty = decayed.square().sum(Kind::Double) * (weight_decay / 2.0); // []
        let errors = log_probabilities.exp() - labels.one_hot(size[1]).to_kind(Kind::Double); // [N, K]
        let gradient = features.tr().matmul(&errors) / features.size()[0]; // [C + 1, K]
        let _ = gradient.narrow(0, 0, size[0] - 1).g_add_(&(decayed * weight_decay));
        ((loss + penalty).double_value(&[]), gradient.flatten(0, 1))
    };
    tch::no_grad(|| minimize(start.flatten(0, 1), stop, evaluate).view(size.as_slice()))
}

fn classify(features: &Tensor, labels: &Tensor, weights: &Tensor) -> ConfusionMatrix {
    let mut matrix = ConfusionMatrix::new(weights.size()[1] as usize);
    matrix.add(labels, &features.matmul(weights).argmax(1, false));
    matrix
}

/// Mean and deviation by which features are standardised.
struct Scale {
    mean: Tensor,
    deviation: Tensor,
}

impl Scale {
    fn from_features(features: &Tensor) -> Self {
        let features = features.to_kind(Kind::Double);
        let deviation = features.std_dim(Some([0].as_slice()), false, true); // [1, C]
        let constant = deviation.lt(MIN_DEVIATION); // [1, C]
        Self {
            mean: features.mean_dim([0].as_slice(), true, Kind::Double), // [1, C]
            deviation: deviation.masked_fill(&constant, 1.0),
        }
    }

    /// `[N, C]` → float64 `[N, C + 1]`, the last column 1, for the biases.
    fn apply(&self, features: &Tensor) -> Tensor {
        let scaled = (features.to_kind(Kind::Double) - &self.mean) / &self.deviation; // [N, C]
        let one = Tensor::ones([scaled.size()[0], 1], (Kind::Double, scaled.device()));
        Tensor::cat(&[scaled, one], 1) // [N, C + 1]
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn random(size: &[i64]) -> Tensor {
        Tensor::randn(size, (Kind::Float, Device::Cpu))
    }

    /// `count` images of 3 classes, whose centres lie `distance` apart in 8 dimensions.
    fn clusters(count: i64, distance: f64) -> LabelledFeatures {
        let labels = Tensor::arange(count, (Kind::Int64, Device::Cpu)).remainder(3);
        let centres = Tensor::eye(3, (Kind::Float, Device::Cpu)).pad([0, 5], "constant", None) * distance;
        LabelledFeatures { features: centres.index_select(0, &labels) + random(&[count, 8]), labels, classes: 3 }
    }

    #[test]
    fn separable_classes_are_separated_whatever_the_scale_of_their_features() {
        tch::manual_seed(1);
        let (train, test) = (clusters(90, 20.0), clusters(60, 20.0));
        assert!((probe(&train, &test, 0).matrix.accuracy() - 1.0).abs() < 1e-12);
        let scaled = |of: &LabelledFeatures| LabelledFeatures {
            features: &of.features * 1e-4 + 3.0,
            labels: of.labels.shallow_clone(),
            classes: 3,
        };
        assert!((probe(&scaled(&train), &scaled(&test), 0).matrix.accuracy() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn labels_that_mean_nothing_are_predicted_by_chance() {
        tch::manual_seed(2);
        let (train, test) = (clusters(300, 0.0), clusters(600, 0.0));
        let accuracy = probe(&train, &test, 0).matrix.accuracy();
        assert!((accuracy - 1.0 / 3.0).abs() < 0.1, "{accuracy}");
    }

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        tch::manual_seed(3);
        let of = clusters(30, 1.0);
        let features = Scale::from_features(&of.features).apply(&of.features);
        let weights = fit(&features, &of.labels, &zeros(&of), 0.1).set_requires_grad(true);
        // At the lowest point the gradient that libtorch derives of the same loss vanishes.
        let decayed = weights.narrow(0, 0, 8);
        let loss = features.matmul(&weights).log_softmax(1, Kind::Double).nll_loss(&of.labels)
            + decayed.square().sum(Kind::Double) * 0.05;
        loss.backward();
        assert!(weights.grad().abs().max().double_value(&[]) < 2e-6);
    }

    #[test]
    fn the_held_out_share_has_each_class_and_no_trained_image() {
        let mut all = clusters(31, 1.0);
        all.features = Tensor::arange(31, (Kind::Float, Device::Cpu)).view([31, 1]);
        let (kept, held_out) = hold_out(&all, 5);
        assert_eq!((kept.labels.size()[0], held_out.labels.size()[0]), (24, 7));
        let together = Tensor::cat(&[&kept.features, &held_out.features], 0).flatten(0, 1).sort(0, false).0;
        assert_eq!(together, all.features.flatten(0, 1));
        assert_ne!(hold_out(&all, 6).1.features, held_out.features);
    }
}
