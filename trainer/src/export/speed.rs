//! Speed of the variants of a model on this machine: output strides and weight formats, compared in
//! one run.
//!
//! All models take turns, image by image, so that a machine whose speed drifts slows all of them
//! alike. Medians are compared.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use densecl_models::resnet::{Architecture, OutputStride, Weights};
use densecl_models::{Manifest, OnnxModel, Precision};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::{Calibration, ExportVariant, WeightFormat, build_graph};
use crate::bench::median;
use crate::onnx_session::OnnxSession;

/// Images of the calibration; the measured ranges do not influence the speed.
const CALIBRATION_IMAGES: usize = 2;

/// A comparison of the variants of a model.
#[derive(Clone, Debug)]
pub struct SpeedTest {
    /// The backbone.
    pub architecture: Architecture,
    /// Its weights.
    pub weights: Weights,
    /// The output that is computed, and what it needs.
    pub layer: String,
    /// Height and width of the images, in pixels.
    pub side_px: u32,
    /// Threads of ONNX Runtime.
    pub threads: usize,
    /// Timed runs of each model, one image each.
    pub rounds: usize,
}

/// Speed of one variant.
#[derive(Clone, Debug, Serialize)]
pub struct Speed {
    /// Input pixels per cell of `res5`.
    pub output_stride: u32,
    /// Weight format.
    pub weights: String,
    /// Side of the images, in pixels.
    pub side_px: u32,
    /// Median time of a run on one image.
    pub median_seconds: f64,
    /// Images per second, one after the other.
    pub images_per_second: f64,
    /// Images per second over those of float32 at the same output stride.
    pub over_float32: f64,
    /// Images per second over those of float32 at output stride 32.
    pub over_stride_32: f64,
}

struct TimedModel {
    output_stride: OutputStride,
    weights: WeightFormat,
    session: OnnxSession,
    seconds: Vec<f64>,
}

impl SpeedTest {
    /// Times float32, float16 and int8 weights at the output strides 32, 16 and 8; float32 at 32 is
    /// the first.
    ///
    /// # Errors
    /// If a model cannot be built or run.
    pub fn run(&self) -> Result<Vec<Speed>> {
        ensure!(self.rounds > 0, "no rounds to time");
        let calibration =
            Calibration { source: "synthetic".to_owned(), images: CALIBRATION_IMAGES, seed: 0, side_px: self.side_px };
        let formats = [WeightFormat::Float32, WeightFormat::Float16, WeightFormat::Int8(calibration)];
        let mut models = Vec::new();
        for output_stride in OutputStride::ALL {
            for weights in &formats {
                models.push(self.timed_model(output_stride, weights)?);
            }
        }
        let side = i64::from(self.side_px);
        let images = Tensor::randint(256, [1, side, side, 3], (Kind::Uint8, Device::Cpu)); // [1, S, S, 3]
        // The first round fills caches.
        for round in 0..=self.rounds {
            for model in &mut models {
                let started = Instant::now();
                model.session.run(&images, &[&self.layer])?;
                if round > 0 {
                    model.seconds.push(started.elapsed().as_secs_f64());
                }
            }
        }
        let medians: Vec<f64> = models.iter().map(|model| median(&model.seconds)).collect();
        let speed = |(i, model): (usize, &TimedModel)| Speed {
            output_stride: model.output_stride.pixels(),
            weights: model.weights.to_string(),
            side_px: self.side_px,
            median_seconds: medians[i],
            images_per_second: 1.0 / medians[i],
            over_float32: medians[i - i % formats.len()] / medians[i],
            over_stride_32: medians[0] / medians[i],
        };
        Ok(models.iter().enumerate().map(speed).collect())
    }

    fn timed_model(&self, output_stride: OutputStride, weights: &WeightFormat) -> Result<TimedModel> {
        let layers = Some(vec![self.layer.clone()]);
        let built = build_graph(
            self.architecture,
            &self.weights,
            &ExportVariant { weights: weights.clone(), output_stride, layers },
        )?;
        let manifest = Manifest {
            name: "speed".to_owned(),
            version: 1,
            method: "none".to_owned(),
            architecture: self.architecture.to_string(),
            default_layer: self.layer.clone(),
            layers: built.layers,
            global: built.global,
            default_side: self.side_px,
            mean: [0.0; 3],
            std: [1.0; 3],
            training: None,
            fidelity: None,
            licence: "none".to_owned(),
        };
        let model = OnnxModel::new(built.graph, manifest)?.cut(&[&self.layer], Precision::Float32)?;
        let session = OnnxSession::from_bytes(&model, self.threads)
            .with_context(|| format!("{weights} at output stride {output_stride}"))?;
        Ok(TimedModel { output_stride, weights: weights.clone(), session, seconds: Vec::with_capacity(self.rounds) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Encoder, EncoderSpec};

    #[test]
    fn every_form_is_timed_and_compared_with_the_first() {
        let spec = EncoderSpec { architecture: Architecture::ResNet18, stem_width: 4, dim: 8, dense: true };
        let test = SpeedTest {
            architecture: spec.architecture,
            weights: Encoder::new(spec, Kind::Float, Device::Cpu).weights(),
            layer: "res5".to_owned(),
            side_px: 64,
            threads: 1,
            rounds: 3,
        };
        let speeds = test.run().unwrap();
        let forms: Vec<_> = speeds.iter().map(|speed| (speed.output_stride, speed.weights.as_str())).collect();
        assert_eq!(forms[..4], [(32, "float32"), (32, "float16"), (32, "int8"), (16, "float32")]);
        assert_eq!(forms.len(), 9);
        assert!((speeds[0].over_stride_32 - 1.0).abs() < 1e-12 && (speeds[6].over_float32 - 1.0).abs() < 1e-12);
        for speed in &speeds {
            assert!((speed.images_per_second * speed.median_seconds - 1.0).abs() < 1e-9);
            assert!((speed.over_stride_32 - speeds[0].median_seconds / speed.median_seconds).abs() < 1e-9);
        }
        let unknown = SpeedTest { layer: "res9".to_owned(), ..test };
        assert!(unknown.run().unwrap_err().to_string().contains("res9"));
    }
}
