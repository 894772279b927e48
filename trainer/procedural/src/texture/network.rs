//! Small random networks from place to value (compositional pattern-producing networks).
//!
//! K. O. Stanley, "Compositional pattern producing networks", 2007: smooth, lobed and repeated forms
//! that no other family draws.

use super::Sample;
use crate::elementary::{exp2, sin_turns};
use crate::lattice::Lattice;
use crate::random::Stream;

const INPUTS: usize = 5;
const HIDDEN: usize = 8;
/// Points evaluated together, so that the compiler can use vector instructions.
const LANES: usize = 8;

type Lanes = [f32; LANES];

#[derive(Debug, Clone, Copy)]
enum Activation {
    Sine,
    Bell,
    Fold,
    Squash,
}

impl Activation {
    fn sample(stream: &mut Stream) -> Self {
        match stream.weighted(&[0.4, 0.2, 0.15, 0.25]) {
            0 => Self::Sine,
            1 => Self::Bell,
            2 => Self::Fold,
            _ => Self::Squash,
        }
    }

    #[inline]
    fn apply(self, lanes: &mut Lanes) {
        match self {
            Self::Sine => lanes.iter_mut().for_each(|x| *x = sin_turns(0.3 * *x)),
            Self::Bell => lanes.iter_mut().for_each(|x| *x = 2.0 * exp2(-(*x * *x).min(20.0)) - 1.0),
            Self::Fold => lanes.iter_mut().for_each(|x| *x = x.abs().min(2.0) - 0.7),
            Self::Squash => lanes.iter_mut().for_each(|x| *x /= 1.0 + x.abs()),
        }
    }
}

/// Two hidden layers of mixed activations; inputs are place, radius and two noises.
#[derive(Debug, Clone)]
pub(super) struct Network {
    lattice: Lattice,
    offset: f32,
    first: [[f32; INPUTS + 1]; HIDDEN],
    second: [[f32; HIDDEN + 1]; HIDDEN],
    last: [[f32; HIDDEN]; 3],
    activations: [[Activation; HIDDEN]; 2],
}

impl Network {
    pub(super) fn sample(stream: &mut Stream) -> Self {
        let spread = stream.range(1.6, 4.0);
        let mut weight = |scale: f32| scale * stream.normal();
        let mut network = Self {
            lattice: Lattice::new(),
            offset: 60.0 * weight(1.0).abs(),
            first: std::array::from_fn(|_| std::array::from_fn(|_| weight(spread))),
            second: std::array::from_fn(|_| std::array::from_fn(|_| weight(1.1))),
            last: std::array::from_fn(|_| std::array::from_fn(|_| weight(0.35))),
            activations: [[Activation::Sine; HIDDEN]; 2],
        };
        for activation in network.activations.iter_mut().flatten() {
            *activation = Activation::sample(stream);
        }
        network
    }

    pub(super) fn fill(&self, points: &[[f32; 2]], samples: &mut [Sample]) {
        for (points, samples) in points.chunks(LANES).zip(samples.chunks_mut(LANES)) {
            let outputs = self.evaluate(points);
            for (lane, sample) in samples.iter_mut().enumerate() {
                sample.value = 0.5 + 0.5 * outputs[0][lane];
                sample.chroma = [outputs[1][lane], outputs[2][lane]];
            }
        }
    }

    fn evaluate(&self, points: &[[f32; 2]]) -> [Lanes; 3] {
        let mut inputs = [[0.0; LANES]; INPUTS];
        for (lane, &[u, v]) in points.iter().enumerate() {
            // The network's own plane repeats by reflection every four units, far from its centre
            // it would be all but linear.
            let (x, y) = (0.5 * reflect(u), 0.5 * reflect(v));
            inputs[0][lane] = x;
            inputs[1][lane] = y;
            inputs[2][lane] = 1.4 * (x * x + y * y).sqrt() - 0.7;
            inputs[3][lane] = 0.8 * self.lattice.noise(0.6 * u + self.offset, 0.6 * v);
            inputs[4][lane] = 0.35 * self.lattice.noise(2.9 * u, 2.9 * v + self.offset);
        }
        let mut hidden = [[0.0; LANES]; HIDDEN];
        for (unit, lanes) in hidden.iter_mut().enumerate() {
            *lanes = weigh(&self.first[unit], &inputs);
            self.activations[0][unit].apply(lanes);
        }
        let mut deeper = [[0.0; LANES]; HIDDEN];
        for (unit, lanes) in deeper.iter_mut().enumerate() {
            *lanes = weigh(&self.second[unit], &hidden);
            self.activations[1][unit].apply(lanes);
        }
        self.last.each_ref().map(|weights| weigh(weights, &deeper))
    }
}

/// Weighted sum of `values`, plus the weight after the last as a bias where there is one.
#[inline]
fn weigh(weights: &[f32], values: &[Lanes]) -> Lanes {
    let mut sum = [weights.get(values.len()).copied().unwrap_or(0.0); LANES];
    for (&weight, lanes) in weights.iter().zip(values) {
        for (total, &value) in sum.iter_mut().zip(lanes) {
            *total += weight * value;
        }
    }
    sum
}

/// Triangle wave of period 8 through the origin: the identity on `[-2, 2]`.
#[inline]
fn reflect(x: f32) -> f32 {
    let part = super::super::elementary::fraction(0.125 * x + 0.25) * 8.0 - 4.0;
    2.0 - part.abs()
}
