//! Propagation of labels from one image to another.
//!
//! The algorithm is that of Jabri, Owens and Efros, *Space-Time Correspondence as a Contrastive Random Walk*, `NeurIPS`
//! 2020, in the form in which Caron et al., *Emerging Properties in Self-Supervised Vision Transformers*, ICCV 2021, apply
//! it to DAVIS: a cell of the target takes the labels of the most similar cells of the source, weighted by a softmax of
//! their cosine similarities. It departs from them in three points: the one source replaces the earlier frames of a clip,
//! the search is not limited to a neighbourhood, and the number of neighbours and the temperature are other ones.
//!
//! Each cell keeps the scores of its best labels only. Scores of pixels are computed one pixel at a time.

use ndarray::s;
use rayon::prelude::*;

use super::correspondences::{ImagePair, MatchError};
use super::similarity::{block_rows, block_similarities, maximum};
use super::{Cancellation, Cancelled};
use crate::features::{AxisPosition, GridSize};
use crate::image::ImageSize;

/// Number of source cells whose labels a target cell takes. Jabri et al. use 10, Caron et al. 5.
const NEIGHBOURS: usize = 10;
/// Temperature of the softmax over cosine similarities. It is lower than in the papers (0.05 to 0.1), because the cosines
/// of the networks served here are close to 1. On held-out moving scenes the mean intersection over union of objects is
/// 0.56 with 0.015, 0.55 with the nearest cell alone, and 0.53 with 0.07; this order holds for every layer.
const TEMPERATURE: f32 = 0.015;
/// Largest number of labels of a cell; those with the lowest scores are dropped.
const LABELS_PER_CELL: usize = 8;

/// The label of every pixel of the target, `[H, W]` row by row, from `labels`, the label of every pixel of the source.
///
/// # Errors
/// [`MatchError`] if the maps have different numbers of channels, or if `cancellation` is cancelled.
///
/// # Panics
/// If the number of labels is not the number of pixels of the source.
pub fn propagate_labels(
    pair: ImagePair<'_>,
    labels: &[u8],
    cancellation: &Cancellation,
) -> Result<Vec<u8>, MatchError> {
    pair.check_channels()?;
    assert_eq!(labels.len() as u64, pair.source.image.pixels(), "a mask must have the size of its image");
    let source = cell_scores(labels, pair.source.image, pair.source.map.grid());
    let target = target_scores(pair, &source, cancellation)?;
    Ok(pixel_labels(&target, pair.target.map.grid(), pair.target.image, cancellation)?)
}

/// The labels with the highest scores, by falling score.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct LabelScores {
    labels: [u8; LABELS_PER_CELL],
    values: [f32; LABELS_PER_CELL],
    count: usize,
}

impl LabelScores {
    fn iter(&self) -> impl Iterator<Item = (u8, f32)> + '_ {
        self.labels.iter().copied().zip(self.values.iter().copied()).take(self.count)
    }

    /// The labels with the highest scores of an accumulator, the lower label first if scores are equal. Empties the
    /// accumulator.
    fn take_from(sums: &mut ScoreSums) -> Self {
        let ScoreSums { scores, seen } = sums;
        seen.sort_unstable_by(|a, b| {
            scores[usize::from(*b)].total_cmp(&scores[usize::from(*a)]).then_with(|| a.cmp(b))
        });
        let mut best = Self { count: seen.len().min(LABELS_PER_CELL), ..Self::default() };
        for (rank, &label) in seen.iter().take(LABELS_PER_CELL).enumerate() {
            (best.labels[rank], best.values[rank]) = (label, scores[usize::from(label)]);
        }
        for label in seen.drain(..) {
            scores[usize::from(label)] = 0.0;
        }
        best
    }
}

/// Sums of the scores of all possible labels.
#[derive(Clone, Debug)]
struct ScoreSums {
    scores: [f32; 256],
    /// The labels whose score is not 0.
    seen: Vec<u8>,
}

impl ScoreSums {
    fn new() -> Self {
        Self { scores: [0.0; 256], seen: Vec::new() }
    }

    /// Adds a positive score to a label's.
    fn add(&mut self, label: u8, score: f32) {
        let sum = &mut self.scores[usize::from(label)];
        if *sum == 0.0 {
            self.seen.push(label);
        }
        *sum += score;
    }
}

/// For every cell, the share of its area that each label has.
fn cell_scores(labels: &[u8], image: ImageSize, grid: GridSize) -> Vec<LabelScores> {
    let width = image.width as usize;
    let (columns, rows) = (pixel_shares(image.width, grid.width), pixel_shares(image.height, grid.height));
    let cells = (0..grid.cells()).into_par_iter().map_init(ScoreSums::new, |sums, cell| {
        let (column, row) = (&columns[cell % grid.width], &rows[cell / grid.width]);
        for &(y, height) in row {
            for &(x, share) in column {
                sums.add(labels[y * width + x], height * share);
            }
        }
        LabelScores::take_from(sums)
    });
    cells.collect()
}

/// For each of `cells` cells along an axis, the pixels that overlap it and the share of the cell that each covers.
fn pixel_shares(pixels: u32, cells: usize) -> Vec<Vec<(usize, f32)>> {
    let scale = f64::from(pixels) / cells as f64;
    let shares = |cell: usize| {
        let (from, to) = (cell as f64 * scale, (cell + 1) as f64 * scale);
        let touched = from.floor() as usize..(to.ceil() as usize).min(pixels as usize);
        let shares = touched.map(|pixel| {
            let overlap = to.min((pixel + 1) as f64) - from.max(pixel as f64);
            (pixel, (overlap / scale) as f32)
        });
        shares.filter(|&(_, share)| share > 0.0).collect()
    };
    (0..cells).map(shares).collect()
}

/// The scores of the target's cells, `[M]`, from those of the source's cells, `[N]`.
fn target_scores(
    pair: ImagePair<'_>,
    source: &[LabelScores],
    cancellation: &Cancellation,
) -> Result<Vec<LabelScores>, Cancelled> {
    let queries = pair.target.map.matrix().reversed_axes(); // [M, C]
    let cells = pair.source.map.matrix(); // [C, N]
    let mut target = vec![LabelScores::default(); queries.nrows()]; // [M]
    let rows = block_rows(queries.nrows(), cells.ncols());
    let blocks = target.par_chunks_mut(rows).enumerate();
    blocks.try_for_each_init(
        || (Vec::new(), ScoreSums::new()),
        |(buffer, sums), (block, target)| {
            cancellation.check()?;
            let first = block * rows;
            let queries = queries.slice(s![first..first + target.len(), ..]); // [rows, C]
            let similarities = block_similarities(&queries, &cells, buffer); // [rows, N]
            for (scores, row) in target.iter_mut().zip(similarities.chunks_exact(cells.ncols())) {
                let nearest = largest(row);
                let best = nearest.first().map_or(0.0, |&(_, similarity)| similarity);
                for (cell, similarity) in nearest {
                    let weight = ((similarity - best) / TEMPERATURE).exp();
                    source[cell].iter().for_each(|(label, share)| sums.add(label, weight * share));
                }
                *scores = LabelScores::take_from(sums);
            }
            Ok(())
        },
    )?;
    Ok(target)
}

/// The indices and values of the [`NEIGHBOURS`] largest values, by falling value, the first one first if they are equal.
fn largest(values: &[f32]) -> Vec<(usize, f32)> {
    const BLOCK: usize = 64;
    let mut best: Vec<(usize, f32)> = Vec::with_capacity(NEIGHBOURS + 1);
    let mut least = f32::NEG_INFINITY;
    for (block, values) in values.chunks(BLOCK).enumerate() {
        // Most blocks have no value that is large enough, which their maximum tells without a branch for each value.
        if best.len() == NEIGHBOURS && maximum(values) <= least {
            continue;
        }
        for (index, &value) in values.iter().enumerate().filter(|&(_, &value)| value > f32::NEG_INFINITY) {
            if value > least || best.len() < NEIGHBOURS {
                let rank = best.partition_point(|&(_, better)| better >= value);
                best.insert(rank, (block * BLOCK + index, value));
                best.truncate(NEIGHBOURS);
                if best.len() == NEIGHBOURS {
                    least = best[NEIGHBOURS - 1].1;
                }
            }
        }
    }
    best
}

/// The label with the highest score at every pixel, where scores are interpolated bilinearly between the cells' centres.
fn pixel_labels(
    scores: &[LabelScores],
    grid: GridSize,
    image: ImageSize,
    cancellation: &Cancellation,
) -> Result<Vec<u8>, Cancelled> {
    let columns: Vec<AxisPosition> =
        (0..image.width as usize).map(|x| AxisPosition::from_pixel(x, image.width, grid.width)).collect();
    let mut labels = vec![0; image.pixels() as usize]; // [H, W]
    labels.par_chunks_exact_mut(image.width as usize).enumerate().try_for_each_init(Vec::new, |ends, (y, line)| {
        cancellation.check()?;
        let row = AxisPosition::from_pixel(y, image.height, grid.height);
        let (above, below) = (&scores[row.before * grid.width..], &scores[row.after * grid.width..]);
        let mut x = 0;
        // Pixels between the same two columns of cells share the vertical interpolation of these columns.
        for same in columns.chunk_by(|one, next| one.before == next.before) {
            let (left, right) = (same[0].before, same[0].after);
            ends.clear();
            for (scores, weight) in [(above, 1.0 - row.fraction), (below, row.fraction)] {
                add_scores(ends, &scores[left], weight, |ends| &mut ends.left);
                add_scores(ends, &scores[right], weight, |ends| &mut ends.right);
            }
            ends.sort_unstable_by_key(|ends| ends.label);
            for (label, column) in line[x..].iter_mut().zip(same) {
                *label = best_label(ends, column.fraction);
            }
            x += same.len();
        }
        Ok(())
    })?;
    Ok(labels)
}

/// A label's scores at the left and the right end of a horizontal stretch of pixels.
struct ScoresAtEnds {
    label: u8,
    left: f32,
    right: f32,
}

/// Adds a cell's scores, as shares of their sum and times `weight`, to those at one end.
fn add_scores(
    ends: &mut Vec<ScoresAtEnds>,
    scores: &LabelScores,
    weight: f32,
    end: impl Fn(&mut ScoresAtEnds) -> &mut f32,
) {
    let total: f32 = scores.iter().map(|(_, score)| score).sum();
    for (label, score) in scores.iter() {
        let index = ends.iter().position(|ends| ends.label == label).unwrap_or_else(|| {
            ends.push(ScoresAtEnds { label, left: 0.0, right: 0.0 });
            ends.len() - 1
        });
        *end(&mut ends[index]) += weight * score / total;
    }
}

/// The label with the highest score at `fraction` of the way from left to right, the lowest label if scores are equal.
fn best_label(ends: &[ScoresAtEnds], fraction: f32) -> u8 {
    let mut best = (0, f32::NEG_INFINITY);
    for &ScoresAtEnds { label, left, right } in ends {
        let score = left + (right - left) * fraction;
        if score > best.1 {
            best = (label, score);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{FeatureMap, NormalizedMap};
    use crate::matching::MatchedImage;
    use proptest::prelude::*;

    /// A map with a different descriptor in every cell, shifted to the right by `shift` cells.
    fn map(grid: GridSize, shift: usize) -> NormalizedMap {
        let channels = 32;
        let mut data = vec![0.0; channels * grid.cells()];
        for channel in 0..channels {
            for cell in 0..grid.cells() {
                let (x, y) = (cell % grid.width + 100 - shift, cell / grid.width);
                let mixed = |state: u64| (state ^ (state >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                let state = mixed(mixed((x * 7919 + y * 104_729 + channel * 1_299_709) as u64));
                data[channel * grid.cells() + cell] = (state >> 40) as f32 / (1 << 24) as f32 - 0.5;
            }
        }
        FeatureMap::new(channels, grid.height, grid.width, data).unwrap().into_normalized()
    }

    const GRID: GridSize = GridSize { width: 12, height: 9 };
    const IMAGE: ImageSize = ImageSize { width: 96, height: 72 };

    fn propagate(labels: &[u8], source: &NormalizedMap, target: &NormalizedMap, target_image: ImageSize) -> Vec<u8> {
        let source = MatchedImage { map: source, image: IMAGE };
        let target = MatchedImage { map: target, image: target_image };
        propagate_labels(ImagePair { source, target }, labels, &Cancellation::default()).unwrap()
    }

    /// Label 200 in a rectangle of whole cells, 7 elsewhere.
    fn rectangle(left: u32) -> Vec<u8> {
        let inside = |x: u32, y: u32| (left..left + 40).contains(&x) && (16..48).contains(&y);
        (0..72).flat_map(|y| (0..96).map(move |x| if inside(x, y) { 200 } else { 7 })).collect()
    }

    fn agreement(one: &[u8], other: &[u8]) -> f64 {
        one.iter().zip(other).filter(|(a, b)| a == b).count() as f64 / one.len() as f64
    }

    #[test]
    fn an_image_keeps_its_own_labels() {
        let map = map(GRID, 0);
        let propagated = propagate(&rectangle(24), &map, &map, IMAGE);
        assert!(agreement(&propagated, &rectangle(24)) > 0.98);
    }

    #[test]
    fn labels_move_with_the_cells() {
        let propagated = propagate(&rectangle(24), &map(GRID, 0), &map(GRID, 2), IMAGE);
        assert!(agreement(&propagated, &rectangle(40)) > 0.97, "{}", agreement(&propagated, &rectangle(40)));
    }

    #[test]
    fn the_labels_have_the_targets_size() {
        let (source, target) = (map(GRID, 0), map(GridSize { width: 5, height: 4 }, 0));
        assert_eq!(propagate(&rectangle(0), &source, &target, ImageSize { width: 50, height: 33 }).len(), 50 * 33);
    }

    #[test]
    fn a_pixel_between_cells_is_shared_by_area() {
        // Three pixels over two cells: the middle pixel covers a third of each.
        let scores = cell_scores(&[1, 2, 3], ImageSize { width: 3, height: 1 }, GridSize { width: 2, height: 1 });
        assert_eq!(scores[0].iter().map(|(label, _)| label).collect::<Vec<_>>(), [1, 2]);
        assert!((scores[0].values[0] - 2.0 / 3.0).abs() < 1e-6 && (scores[1].values[1] - 1.0 / 3.0).abs() < 1e-6);
    }

    #[test]
    fn cancelled_propagation_ends() {
        let map = map(GRID, 0);
        let image = MatchedImage { map: &map, image: IMAGE };
        let cancellation = Cancellation::default();
        cancellation.cancel();
        let result = propagate_labels(ImagePair { source: image, target: image }, &rectangle(0), &cancellation);
        assert_eq!(result, Err(MatchError::Cancelled(Cancelled)));
    }

    proptest! {
        #[test]
        fn the_largest_are_the_largest(values in prop::collection::vec(-5_i8..5, 0..90)) {
            let values: Vec<f32> = values.into_iter().map(f32::from).collect();
            let mut expected: Vec<(usize, f32)> = values.iter().copied().enumerate().collect();
            expected.sort_by(|a, b| b.1.total_cmp(&a.1));
            expected.truncate(NEIGHBOURS);
            prop_assert_eq!(largest(&values), expected);
        }

        #[test]
        fn no_label_is_invented(
            labels in prop::collection::vec(prop::sample::select(vec![3_u8, 77, 255]), 96 * 72), shift in 0_usize..4,
        ) {
            let propagated = propagate(&labels, &map(GRID, 0), &map(GRID, shift), ImageSize { width: 31, height: 77 });
            prop_assert!(propagated.iter().all(|label| labels.contains(label)));
        }
    }
}
