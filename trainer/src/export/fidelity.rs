//! Compares a model in ONNX Runtime with its network in libtorch.
//!
//! The images are held-out procedural ones: square, wide and tall, two at once, of sides that are no
//! multiples of the stride, and of the default side. Two measures: the cosine between the descriptors
//! of a cell, which matching depends on, and the largest difference over the largest value, which
//! detects a wrong graph.

use std::path::Path;

use anyhow::{Result, ensure};
use densecl_models::{Fidelity, OutputFidelity};
use tch::{Kind, Tensor};

use super::WeightFormat;
use crate::augment::Normalization;
use crate::network::FeatureNetwork;
use crate::onnx_session::OnnxSession;
use densecl_procedural::{Frame, ProceduralImages, Split};

/// Largest relative error of a float32 model, which sums in another order.
const MAX_FLOAT32_ERROR: f64 = 1e-4;
/// Least cosine of any cell of a float16 model, whose weights have 11 significant bits.
const MIN_FLOAT16_COSINE: f64 = 0.999;
/// Least mean cosine of an output of an int8 model.
const MIN_INT8_MEAN_COSINE: f64 = 0.99;

/// Batches that are compared, `[N, H, W]`, besides one of the default side.
const SHAPES: [[u32; 3]; 4] = [[1, 150, 250], [2, 224, 224], [1, 192, 320], [1, 320, 192]];

/// Largest side of a compared image, even if the default side is larger.
const MAX_SIDE_PX: u32 = 512;

/// Descriptors shorter than this count as zero.
const ZERO_LENGTH: f64 = 1e-12;

/// Compares all outputs of the model behind `session` with the network; the longest side is
/// `side_px`, or what is compared at most.
///
/// # Errors
/// If an output has another shape or is not as close as its weights allow, or a run fails.
pub(super) fn measure(
    session: &mut OnnxSession,
    network: &FeatureNetwork,
    weights: &WeightFormat,
    side_px: u32,
) -> Result<Fidelity> {
    let side = side_px.min(MAX_SIDE_PX);
    let shapes: Vec<[u32; 3]> = SHAPES.into_iter().chain([[1, side, side]]).collect();
    let outputs = compare(session, network, &shapes)?;
    weights.ensure_close(&outputs)?;
    let calibration = match weights {
        WeightFormat::Int8(calibration) => Some(calibration.record()),
        WeightFormat::Float32 | WeightFormat::Float16 => None,
    };
    Ok(Fidelity { weights: weights.to_string(), calibration, data: "synthetic".to_owned(), shapes, outputs })
}

/// Loads the file that was written and compares once more, on one shape.
///
/// # Errors
/// The errors of [`measure`].
pub(super) fn check_file(file: &Path, network: &FeatureNetwork, weights: &WeightFormat) -> Result<()> {
    let mut session = OnnxSession::open(file, super::threads())?;
    weights.ensure_close(&compare(&mut session, network, &SHAPES[..1])?)
}

impl WeightFormat {
    fn ensure_close(&self, outputs: &[OutputFidelity]) -> Result<()> {
        for OutputFidelity { name, mean_cosine, minimum_cosine, relative_error } in outputs {
            match self {
                Self::Float32 => ensure!(
                    *relative_error < MAX_FLOAT32_ERROR,
                    "`{name}` of the model differs from libtorch's by {relative_error:.1e} of its largest value, \
                     more than {MAX_FLOAT32_ERROR:e}; nothing was written"
                ),
                Self::Float16 => ensure!(
                    *minimum_cosine > MIN_FLOAT16_COSINE,
                    "`{name}` of the model has descriptors at a cosine of {minimum_cosine:.5} to libtorch's, less than \
                     {MIN_FLOAT16_COSINE}: these weights need float32; nothing was written"
                ),
                Self::Int8(_) => ensure!(
                    *mean_cosine > MIN_INT8_MEAN_COSINE,
                    "`{name}` of the model has descriptors at a mean cosine of {mean_cosine:.4} to libtorch's, less \
                     than {MIN_INT8_MEAN_COSINE}: calibrate on more or larger images, and on such as it will see, or \
                     choose float16; nothing was written"
                ),
            }
        }
        Ok(())
    }
}

fn compare(session: &mut OnnxSession, network: &FeatureNetwork, shapes: &[[u32; 3]]) -> Result<Vec<OutputFidelity>> {
    let names: Vec<String> = session.outputs().map(str::to_owned).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut comparisons: Vec<Comparison> = names.iter().map(|_| Comparison::default()).collect();
    for (index, &shape) in (0..).zip(shapes) {
        let images = pictures(index, shape); // [N, H, W, 3]
        let found = session.run(&images, &names)?;
        let images = images.permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0; // [N, 3, H, W]
        let expected = network.outputs(&Normalization::IMAGENET.apply(&images));
        for ((name, found), comparison) in names.iter().zip(&found).zip(&mut comparisons) {
            let expected = &expected[*name];
            ensure!(
                found.size() == expected.size(),
                "`{name}` of the model is {:?} for images of {shape:?}; libtorch's is {:?}",
                found.size(),
                expected.size()
            );
            comparison.add(found, expected);
        }
    }
    Ok(names.iter().zip(comparisons).map(|(name, comparison)| comparison.finish(name)).collect())
}

/// Held-out procedural pictures, uint8 `[N, H, W, 3]`.
fn pictures(batch: u64, [count, height, width]: [u32; 3]) -> Tensor {
    let source = ProceduralImages::new(0, height.max(width)).with_split(Split::HeldOut);
    let (height_px, width_px) = (height as usize, width as usize);
    let frame = Frame { width_px, height_px, unit_px: height.max(width) as f32 };
    let first = batch * u64::from(count);
    let picture = |i: u32| source.render_frame(first + u64::from(i), frame).pixels;
    let pixels: Vec<u8> = (0..count).flat_map(picture).collect();
    Tensor::from_slice(&pixels).view([count, height, width, 3].map(i64::from))
}

/// Differences of one output over several batches.
struct Comparison {
    cosines: f64,
    cells: f64,
    minimum_cosine: f64,
    relative_error: f64,
}

impl Default for Comparison {
    fn default() -> Self {
        Self { cosines: 0.0, cells: 0.0, minimum_cosine: 1.0, relative_error: 0.0 }
    }
}

impl Comparison {
    /// Two tensors `[N, C, …]`.
    fn add(&mut self, found: &Tensor, expected: &Tensor) {
        let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
        let cosines = cosines(&found, &expected); // [N, …]
        self.cosines += cosines.sum(Kind::Double).double_value(&[]);
        self.cells += cosines.numel() as f64;
        let largest = |x: &Tensor| x.abs().max().double_value(&[]);
        let error = largest(&(&found - &expected)) / largest(&expected).max(ZERO_LENGTH);
        // `f64::min` and `f64::max` would ignore NaN.
        let least = cosines.min().double_value(&[]);
        self.minimum_cosine = if least >= self.minimum_cosine { self.minimum_cosine } else { least };
        self.relative_error = if error <= self.relative_error { self.relative_error } else { error };
    }

    fn finish(self, name: &str) -> OutputFidelity {
        OutputFidelity {
            name: name.to_owned(),
            mean_cosine: self.cosines / self.cells,
            minimum_cosine: self.minimum_cosine,
            relative_error: self.relative_error,
        }
    }
}

/// Cosines along axis 1: `[N, C, …]` → `[N, …]`; 1 if both are zero, 0 if one is.
fn cosines(a: &Tensor, b: &Tensor) -> Tensor {
    let length = |x: &Tensor| x.norm_scalaropt_dim(2, [1].as_slice(), false);
    let (product, lengths) = ((a * b).sum_dim_intlist([1].as_slice(), false, Kind::Double), length(a) * length(b));
    let both_nothing = (length(a) + length(b)).lt(ZERO_LENGTH);
    let cosines = product / lengths.clamp_min(ZERO_LENGTH * ZERO_LENGTH);
    cosines.where_self(&both_nothing.logical_not(), &Tensor::from(1.0_f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(found: &[f64], expected: &[f64]) -> OutputFidelity {
        let tensor = |values: &[f64]| Tensor::from_slice(values).view([1, 2, -1]);
        let mut comparison = Comparison::default();
        comparison.add(&tensor(found), &tensor(expected));
        comparison.finish("res4")
    }

    /// Descriptors of four cells, first all first channels, then all second ones.
    #[test]
    fn measures_are_those_of_the_cells() {
        let expected = [1.0, 0.0, 0.0, 1.0, 0.0, 4.0, 0.0, 0.0];
        let same = comparison(&expected, &expected);
        assert!((same.mean_cosine - 1.0).abs() < 1e-12 && same.relative_error.abs() < 1e-12, "{same:?}");
        // The first cell turns by a right angle, the third is no longer nothing.
        let found = comparison(&[0.0, 0.0, 0.5, 1.0, 1.0, 4.0, 0.0, 0.0], &expected);
        assert!((found.mean_cosine - 0.5).abs() < 1e-12, "{found:?}");
        assert!(found.minimum_cosine.abs() < 1e-12);
        assert!((found.relative_error - 0.25).abs() < 1e-12);
    }

    #[test]
    fn a_large_difference_is_an_error_that_names_the_output() {
        let output = |cosine: f64, error: f64| {
            let name = "res4".to_owned();
            [OutputFidelity { name, mean_cosine: cosine, minimum_cosine: cosine, relative_error: error }]
        };
        let int8 = WeightFormat::Int8(super::super::Calibration {
            source: "synthetic".to_owned(),
            images: 1,
            seed: 0,
            side_px: 64,
        });
        for (format, near, far) in [
            (WeightFormat::Float32, output(1.0, 9e-5), output(1.0, 2e-4)),
            (WeightFormat::Float16, output(0.9995, 1e-3), output(0.998, 1e-3)),
            (int8, output(0.995, 0.1), output(0.98, 0.1)),
        ] {
            format.ensure_close(&near).unwrap();
            let error = format.ensure_close(&far).unwrap_err().to_string();
            assert!(error.contains("`res4`") && error.contains("nothing was written"), "{error}");
            assert!(format.ensure_close(&output(f64::NAN, f64::NAN)).is_err(), "{format}");
        }
    }

    #[test]
    fn a_result_that_is_not_a_number_is_not_close() {
        let fidelity = comparison(&[f64::NAN, 1.0], &[1.0, 1.0]);
        assert!(fidelity.mean_cosine.is_nan() && fidelity.minimum_cosine.is_nan(), "{fidelity:?}");
        assert!(fidelity.relative_error.is_nan());
    }
}
