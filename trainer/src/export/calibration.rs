//! Ranges of a network's activations, measured on images.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use densecl_models::int8::{CalibrationModel, ValueRange, ValueRanges};
use densecl_models::{CalibrationRecord, proto::GraphProto};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use crate::data::{DataSource, FirstError, Skipped};

/// The images on which the ranges of an int8 model are measured; they should be like those that the
/// model will be used on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calibration {
    /// A folder of images, a list of them, shards, or `synthetic`; as for training.
    pub source: String,
    /// Number of images; all if there are fewer.
    pub images: usize,
    /// Seed of procedural images, or of the choice among files.
    pub seed: u64,
    /// Height and width to which they are resized, in pixels.
    pub side_px: u32,
}

impl Calibration {
    /// Entry of the manifest.
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

    /// Measures the ranges of all values that the int8 variant of the float32 `graph` rounds.
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

    /// Reads the images, uint8 `[1, S, S, 3]` each.
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
        // Files are often sorted by their content.
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(self.seed));
        let mut canvas = vec![0; (3 * side * side) as usize];
        let mut images = Vec::with_capacity(self.images.min(order.len()));
        let (skipped, mut unreadable) = (Skipped::default(), FirstError::default());
        for index in order {
            let drawn = source.draw(index, self.side_px, &mut canvas);
            if let Err(error) = &drawn {
                skipped.note(&error.path.display(), &error.source);
            }
            if unreadable.keep(drawn).is_some() {
                images.push(Tensor::from_slice(&canvas).view([1, side, side, 3]));
            }
            if images.len() == self.images {
                break;
            }
        }
        if images.is_empty() {
            return Err(unreadable.into_error()).with_context(|| format!("no image in {} can be read", self.source));
        }
        let counts = skipped.counts();
        if images.len() < self.images {
            tracing::warn!(images = images.len(), wanted = self.images, skipped = %counts, "calibrated on fewer images than wanted");
        } else if counts.total() > 0 {
            tracing::warn!(images = images.len(), skipped = %counts, "calibrated on other images in place of those skipped");
        }
        Ok(images)
    }
}

fn range_of(value: &Tensor) -> ValueRange {
    ValueRange { low: value.min().double_value(&[]) as f32, high: value.max().double_value(&[]) as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calibration(source: &Path, images: usize) -> Calibration {
        Calibration { source: source.to_str().unwrap().to_owned(), images, seed: 3, side_px: 32 }
    }

    #[test]
    fn images_are_chosen_by_the_seed_and_broken_ones_skipped() {
        let root = tempfile::tempdir().unwrap();
        for level in 0..8_u8 {
            let picture = image::RgbImage::from_pixel(40, 20, image::Rgb([10 * level; 3]));
            picture.save(root.path().join(format!("{level}.png"))).unwrap();
        }
        for name in ["broken.jpg", "._0.png", "__MACOSX/._1.png", "@eaDir/2.png"] {
            std::fs::create_dir_all(root.path().join(name).parent().unwrap()).unwrap();
            std::fs::write(root.path().join(name), b"not an image").unwrap();
        }
        let levels = |calibration: Calibration| -> Vec<i64> {
            let images = calibration.read_images().unwrap();
            assert!(images.iter().all(|image| image.size() == [1, 32, 32, 3]));
            images.iter().map(|image| image.max().int64_value(&[])).collect()
        };
        let some = levels(calibration(root.path(), 4));
        assert_eq!(some.len(), 4);
        assert_eq!(some, levels(calibration(root.path(), 4)));
        assert_ne!(some, levels(Calibration { seed: 4, ..calibration(root.path(), 4) }));
        let mut all = levels(calibration(root.path(), 100));
        all.sort_unstable();
        assert_eq!(all, [0, 10, 20, 30, 40, 50, 60, 70]);
    }

    #[test]
    fn nothing_to_calibrate_on_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let error = |images| format!("{:#}", calibration(root.path(), images).read_images().unwrap_err());
        assert!(error(1).contains("no image in"));
        std::fs::write(root.path().join("broken.jpg"), b"not an image").unwrap();
        assert!(error(1).contains("can be read") && error(1).contains("broken.jpg: "), "{}", error(1));
        std::fs::write(root.path().join("._broken.jpg"), b"not an image").unwrap();
        assert!(error(1).contains("none of 1 images"), "{}", error(1));
        assert!(error(0).contains("no images were asked for"));
    }

    #[test]
    fn procedural_images_are_a_function_of_the_seed() {
        let images = |seed| Calibration { seed, ..calibration(Path::new("synthetic"), 2) }.read_images().unwrap();
        assert_eq!(images(1), images(1));
        assert_ne!(images(1), images(2));
    }
}
