//! Ranges of a network's activations, measured on images.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use densecl_models::int8::{CalibrationModel, ValueRange, ValueRanges};
use densecl_models::{CalibrationRecord, proto::GraphProto};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use crate::data::DataSource;

/// The images that an int8 model's ranges are measured on: like those that it will see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calibration {
    /// A folder of images, a list of them, shards, or `synthetic`; as for training.
    pub source: String,
    /// How many of them; all if there are fewer.
    pub images: usize,
    /// Seed of procedural images, or of the choice among files.
    pub seed: u64,
    /// What they are resized to, height and width, in pixels.
    pub side_px: u32,
}

impl Calibration {
    /// What the manifest says of it.
    pub(super) fn record(&self) -> CalibrationRecord {
        let path = Path::new(&self.source);
        CalibrationRecord {
            // The data's own name, not the path that they have on this machine.
            data: path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
            images: self.images as u32,
            side: self.side_px,
            seed: self.seed,
        }
    }

    /// The ranges of everything that an int8 form of the float32 `graph` rounds.
    ///
    /// # Errors
    /// If there is no image that can be read, or values are not finite.
    pub(super) fn ranges(&self, graph: &GraphProto) -> Result<ValueRanges> {
        let model = CalibrationModel::new(graph)?;
        let mut session = super::session(&model.bytes)?;
        let names: Vec<&str> = model.values.iter().map(String::as_str).collect();
        let mut ranges = ValueRanges::new();
        for image in self.read_images()? {
            for (name, value) in names.iter().zip(session.run(&image, &names)?) {
                let found = range_of(&value);
                ensure!(found.is_finite(), "the values of `{name}` are not finite");
                ranges.entry((*name).to_owned()).and_modify(|range| *range = range.with(found)).or_insert(found);
            }
        }
        Ok(ranges)
    }

    /// One uint8 `[1, S, S, 3]` an image.
    fn read_images(&self) -> Result<Vec<Tensor>> {
        ensure!(self.images > 0, "no images were asked for");
        let side = i64::from(self.side_px);
        let source = match DataSource::open(&self.source, self.seed, self.side_px)? {
            DataSource::Images(source) => source,
            shards @ DataSource::Shards(_) => {
                let batch = shards.samples(self.images, self.side_px)?;
                return Ok(batch.pixels.split(1, 0));
            }
        };
        let mut order: Vec<u64> = match source.image_count() {
            Some(count) => (0..count).collect(),
            None => (0..self.images as u64).collect(),
        };
        // Files lie sorted, often by what they show.
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(self.seed));
        let mut canvas = vec![0; (3 * side * side) as usize];
        let mut images = Vec::with_capacity(self.images);
        for index in order {
            match source.draw(index, self.side_px, &mut canvas) {
                Ok(_) => images.push(Tensor::from_slice(&canvas).view([1, side, side, 3])),
                Err(error) => tracing::warn!(error = format_args!("{:#}", anyhow::Error::from(error)), "passed over"),
            }
            if images.len() == self.images {
                break;
            }
        }
        if images.is_empty() {
            bail!("no image in {} can be read", self.source);
        }
        Ok(images)
    }
}

fn range_of(value: &Tensor) -> ValueRange {
    ValueRange { low: value.min().double_value(&[]) as f32, high: value.max().double_value(&[]) as f32 }
}
