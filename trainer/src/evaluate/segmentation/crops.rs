//! Random crops of labelled images, prepared ahead of the training loop in a thread of their own.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use densecl_vision::image::{ImageSize, PixelRectangle};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use tch::Tensor;

use crate::data::Order;
use crate::evaluate::data::{DataError, DataSplit, LabelledPicture, SegmentationSet};
use crate::evaluate::metrics::VOID;

/// Images are drawn between half and twice their size.
const SCALES: (f64, f64) = (0.5, 2.0);

/// ImageNet's mean, which normalisation makes 0.
pub(super) const MEAN_COLOUR: [u8; 3] = [124, 116, 104];

/// Most batches that wait for the training loop.
const PREFETCH: usize = 2;

/// Crops of one training step.
#[derive(Debug)]
pub(super) struct CropBatch {
    /// uint8 `[N, S, S, 3]`.
    pub(super) images: Tensor,
    /// Classes or [`VOID`], int64 `[N, S, S]`.
    pub(super) labels: Tensor,
}

/// Options of the crops; the batches are a function of them and the set.
#[derive(Clone, Copy, Debug)]
pub(super) struct CropOptions {
    pub(super) side_px: u32,
    pub(super) batch: usize,
    pub(super) steps: u64,
    pub(super) seed: u64,
}

/// Makes the batches one after the other on a thread of its own, until the receiver is dropped.
pub(super) fn batches(set: Arc<SegmentationSet>, options: CropOptions) -> Receiver<Result<CropBatch, DataError>> {
    let (sender, receiver) = sync_channel(PREFETCH);
    thread::spawn(move || {
        let count = set.len(DataSplit::Train);
        let mut order = Order::new(options.seed, Some(count as u64));
        let steps_per_epoch = (count / options.batch).max(1) as u64;
        for step in 0..options.steps {
            let numbers = order.batch(step, steps_per_epoch, options.batch);
            let batch = batch(&set, &numbers, step, options);
            let is_last = batch.is_err();
            if sender.send(batch).is_err() || is_last {
                break;
            }
        }
    });
    receiver
}

fn batch(set: &SegmentationSet, numbers: &[u64], step: u64, options: CropOptions) -> Result<CropBatch, DataError> {
    let side = options.side_px;
    let crops: Vec<Crop> = numbers
        .par_iter()
        .enumerate()
        .map(|(place, &number)| {
            let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
            rng.set_stream(step * options.batch as u64 + place as u64);
            let labelled = set.read(DataSplit::Train, number as usize)?;
            Ok(Crop::new(&labelled, side, Placement::draw(&mut rng)))
        })
        .collect::<Result<_, DataError>>()?;
    let size = [crops.len() as i64, i64::from(side), i64::from(side)];
    let images: Vec<u8> = crops.iter().flat_map(|crop| &crop.pixels).copied().collect();
    let labels: Vec<i64> = crops.iter().flat_map(|crop| &crop.labels).map(|&label| i64::from(label)).collect();
    Ok(CropBatch {
        images: Tensor::from_slice(&images).view([size[0], size[1], size[2], 3]),
        labels: Tensor::from_slice(&labels).view(size),
    })
}

/// Position and scale of a crop in its image.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Placement {
    /// Pixels of the crop to a pixel of the image.
    scale: f64,
    /// Left and top border in the scaled image, as shares of the room there is.
    left: f64,
    top: f64,
    is_flipped: bool,
}

impl Placement {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        Self {
            scale: rng.random_range(SCALES.0..SCALES.1),
            left: rng.random(),
            top: rng.random(),
            is_flipped: rng.random(),
        }
    }
}

/// A square of an image and of its labels.
#[derive(Debug, PartialEq, Eq)]
struct Crop {
    /// `[side, side, 3]`.
    pixels: Vec<u8>,
    /// `[side, side]`.
    labels: Vec<u8>,
}

impl Crop {
    /// Cuts a crop out; beyond the image it has the mean colour and no label.
    fn new(labelled: &LabelledPicture, side_px: u32, placement: Placement) -> Self {
        let picture = &labelled.picture;
        let Placement { scale, is_flipped, .. } = placement;
        // Along each axis: the first source pixel, the source's extent, the extent in the crop.
        let axis = |length_px: u32, share: f64| {
            let scaled = f64::from(length_px) * scale;
            let covered = scaled.min(f64::from(side_px)).round().max(1.0);
            let extent = (covered / scale).min(f64::from(length_px));
            ((f64::from(length_px) - extent) * share, extent, covered as u32)
        };
        let source = picture.size();
        let (left, width, width_px) = axis(source.width, placement.left);
        let (top, height, height_px) = axis(source.height, placement.top);
        let rectangle = PixelRectangle { left_px: left, top_px: top, width_px: width, height_px: height };
        let inner = picture.resized(rectangle, ImageSize { width: width_px, height: height_px }); // [h, w, 3]
        let area = (side_px * side_px) as usize;
        let mut crop = Self { pixels: MEAN_COLOUR.repeat(area), labels: vec![VOID; area] };
        for y in 0..height_px {
            let source_y = nearest(y, height_px, top, height, source.height);
            for x in 0..width_px {
                let source_x = nearest(x, width_px, left, width, source.width);
                let from = (y * width_px + x) as usize;
                let to = (y * side_px + if is_flipped { side_px - 1 - x } else { x }) as usize;
                crop.pixels[to * 3..][..3].copy_from_slice(&inner[from * 3..][..3]);
                crop.labels[to] = labelled.labels[(source_y * source.width + source_x) as usize];
            }
        }
        crop
    }
}

/// The source pixel at the centre of pixel `i` of `count` that share the extent from `first` on.
fn nearest(i: u32, count: u32, first: f64, extent: f64, length_px: u32) -> u32 {
    let position = first + (f64::from(i) + 0.5) * extent / f64::from(count);
    (position as u32).min(length_px - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::data::Picture;

    /// Every 4×4 block has a grey of its own, and the label that belongs to it.
    fn blocks(width_px: u32, height_px: u32) -> LabelledPicture {
        let label = |x: u32, y: u32| (x / 4 + y / 4 * (width_px / 4)) as u8;
        let labels: Vec<u8> = (0..height_px).flat_map(|y| (0..width_px).map(move |x| label(x, y))).collect();
        let picture = image::RgbImage::from_fn(width_px, height_px, |x, y| image::Rgb([label(x, y) * 10; 3]));
        LabelledPicture { picture: Picture::from(picture), labels }
    }

    #[test]
    fn labels_stay_with_their_pixels() {
        let labelled = blocks(16, 12);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..200 {
            let placement = Placement::draw(&mut rng);
            let crop = Crop::new(&labelled, 20, placement);
            // Where a neighbourhood has one label, the filter has mixed nothing in.
            let at = |x: usize, y: usize| crop.labels[y * 20 + x];
            for (x, y) in (2..18).flat_map(|x| (2..18).map(move |y| (x, y))) {
                let around = (x - 2..=x + 2).flat_map(|x| (y - 2..=y + 2).map(move |y| (x, y)));
                if around.clone().all(|(u, v)| at(u, v) == at(x, y)) && at(x, y) != VOID {
                    assert_eq!(crop.pixels[(y * 20 + x) * 3], at(x, y) * 10, "{placement:?}");
                    seen.insert(at(x, y));
                }
            }
        }
        assert_eq!(seen.len(), 12, "the whole image is drawn from: {seen:?}");
    }

    #[test]
    fn pixels_beyond_the_image_have_no_label() {
        let placement = Placement { scale: 0.5, left: 0.3, top: 0.8, is_flipped: false };
        let crop = Crop::new(&blocks(16, 12), 10, placement);
        assert_eq!(crop.labels.iter().filter(|&&label| label != VOID).count(), 8 * 6);
        assert_eq!(crop.pixels[9 * 3..10 * 3], MEAN_COLOUR);
        let flipped = Crop::new(&blocks(16, 12), 10, Placement { is_flipped: true, ..placement });
        let mirrored: Vec<u8> = crop.labels.chunks(10).flat_map(|row| row.iter().rev().copied()).collect();
        assert_eq!(flipped.labels, mirrored);
    }
}
