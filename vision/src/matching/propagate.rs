//! Labels of one picture carried over to another.
//!
//! Jabri, Owens and Efros, *Space-Time Correspondence as a Contrastive Random Walk* (2020), as Caron et al., *Emerging
//! Properties in Self-Supervised Vision Transformers* (2021) do it for DAVIS: a cell of the target takes the labels of
//! the most similar cells of the source, weighted by a softmax of their similarities. There is one source here instead
//! of a clip's earlier frames, so that the search is not limited to a neighbourhood.
//!
//! Scores of labels are kept per cell, the few that matter; scores of pixels exist for one label of one pixel at a time.

use rayon::prelude::*;

use super::correspond::{ImagePair, MatchError};
use super::similarity::{block_rows, block_similarities, maximum};
use super::{Cancellation, Cancelled};
use crate::features::{GridSize, neighbours};
use crate::image::ImageSize;

/// How many cells of the source have a say, as in the papers.
const NEIGHBOURS: usize = 10;
/// Of the softmax over their cosine similarities. Lower than in the papers: the cosines of the networks served here crowd
/// near 1. On held-out moving scenes the mean overlap (intersection over union) of objects is 0.56 with 0.015, 0.55 with
/// the nearest cell alone, and 0.53 with 0.07; the order is the same for every layer.
const TEMPERATURE: f32 = 0.015;
/// Labels that a cell may be made of; the rarest of more are left out.
const LABELS_PER_CELL: usize = 8;

/// The label of every pixel of the target, row by row, from `labels`, those of every pixel of the source.
///
/// # Errors
/// [`MatchError`] if the maps have different numbers of channels, or nobody waits for the result any more.
///
/// # Panics
/// If there is not one label for each pixel of the source.
pub fn propagate_labels(
    pair: ImagePair<'_>,
    labels: &[u8],
    cancellation: &Cancellation,
) -> Result<Vec<u8>, MatchError> {
    pair.check_channels()?;
    assert_eq!(labels.len() as u64, pair.source.image.pixels(), "a mask has the size of its picture");
    let source = cell_scores(labels, pair.source.image, pair.source.map.grid());
    let target = carried_over(pair, &source, cancellation)?;
    Ok(pixel_labels(&target, pair.target.map.grid(), pair.target.image, cancellation)?)
}

/// The most likely labels of a place, by falling score.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Scores {
    labels: [u8; LABELS_PER_CELL],
    values: [f32; LABELS_PER_CELL],
    count: usize,
}

impl Scores {
    fn iter(&self) -> impl Iterator<Item = (u8, f32)> + '_ {
        self.labels.iter().copied().zip(self.values.iter().copied()).take(self.count)
    }

    /// The best of a tally, which is empty afterwards.
    fn take_from(tally: &mut Tally) -> Self {
        let Tally { scores, seen } = tally;
        // Of equals the lower label.
        seen.sort_unstable_by(|a, b| {
            scores[usize::from(*b)].total_cmp(&scores[usize::from(*a)]).then_with(|| a.cmp(b))
        });
        let mut best = Self { count: seen.len().min(LABELS_PER_CELL), ..Self::default() };
        for (place, &label) in seen.iter().take(LABELS_PER_CELL).enumerate() {
            (best.labels[place], best.values[place]) = (label, scores[usize::from(label)]);
        }
        for label in seen.drain(..) {
            scores[usize::from(label)] = 0.0;
        }
        best
    }
}

/// A score for every label there can be, and which have one.
#[derive(Clone, Debug)]
struct Tally {
    scores: [f32; 256],
    seen: Vec<u8>,
}

impl Tally {
    fn new() -> Self {
        Self { scores: [0.0; 256], seen: Vec::new() }
    }

    /// Adds a score above 0.
    fn add(&mut self, label: u8, score: f32) {
        let place = &mut self.scores[usize::from(label)];
        if *place == 0.0 {
            self.seen.push(label);
        }
        *place += score;
    }
}

/// For every cell, the shares of its area that the labels have.
fn cell_scores(labels: &[u8], image: ImageSize, grid: GridSize) -> Vec<Scores> {
    let width = image.width as usize;
    let (columns, rows) = (covers(image.width, grid.width), covers(image.height, grid.height));
    let cells = (0..grid.cells()).into_par_iter().map_init(Tally::new, |tally, cell| {
        let (column, row) = (&columns[cell % grid.width], &rows[cell / grid.width]);
        for &(y, height) in row {
            for &(x, share) in column {
                tally.add(labels[y * width + x], height * share);
            }
        }
        Scores::take_from(tally)
    });
    cells.collect()
}

/// For each of `cells` cells side by side, the pixels it touches, and which shares of the cell they are.
fn covers(pixels: u32, cells: usize) -> Vec<Vec<(usize, f32)>> {
    let scale = f64::from(pixels) / cells as f64;
    let cover = |cell: usize| {
        let (from, to) = (cell as f64 * scale, (cell + 1) as f64 * scale);
        let touched = from.floor() as usize..(to.ceil() as usize).min(pixels as usize);
        let shares = touched.map(|pixel| {
            let overlap = to.min((pixel + 1) as f64) - from.max(pixel as f64);
            (pixel, (overlap / scale) as f32)
        });
        shares.filter(|&(_, share)| share > 0.0).collect()
    };
    (0..cells).map(cover).collect()
}

/// The scores of the target's cells.
fn carried_over(pair: ImagePair<'_>, source: &[Scores], cancellation: &Cancellation) -> Result<Vec<Scores>, Cancelled> {
    let queries = pair.target.map.matrix().reversed_axes(); // [M, C]
    let cells = pair.source.map.matrix(); // [C, N]
    let mut target = vec![Scores::default(); queries.nrows()];
    let rows = block_rows(queries.nrows(), cells.ncols());
    let blocks = target.par_chunks_mut(rows).enumerate();
    blocks.try_for_each_init(
        || (Vec::new(), Tally::new()),
        |(buffer, tally), (block, target)| {
            cancellation.check()?;
            let first = block * rows;
            let similarities = block_similarities(&queries, &cells, first, target.len(), buffer);
            for (scores, row) in target.iter_mut().zip(similarities.chunks_exact(cells.ncols())) {
                let nearest = largest(row);
                let best = nearest.first().map_or(0.0, |&(_, similarity)| similarity);
                for (cell, similarity) in nearest {
                    let weight = ((similarity - best) / TEMPERATURE).exp();
                    source[cell].iter().for_each(|(label, share)| tally.add(label, weight * share));
                }
                *scores = Scores::take_from(tally);
            }
            Ok(())
        },
    )?;
    Ok(target)
}

/// The [`NEIGHBOURS`] largest values and where they are, by falling value; of equals the first.
fn largest(values: &[f32]) -> Vec<(usize, f32)> {
    const BLOCK: usize = 64;
    let mut best: Vec<(usize, f32)> = Vec::with_capacity(NEIGHBOURS + 1);
    let mut least = f32::NEG_INFINITY;
    for (block, values) in values.chunks(BLOCK).enumerate() {
        // Nearly always nothing in a block is good enough, and that is seen without a branch a value.
        if best.len() == NEIGHBOURS && maximum(values) <= least {
            continue;
        }
        for (place, &value) in values.iter().enumerate().filter(|&(_, &value)| value > f32::NEG_INFINITY) {
            if value > least || best.len() < NEIGHBOURS {
                let rank = best.partition_point(|&(_, better)| better >= value);
                best.insert(rank, (block * BLOCK + place, value));
                best.truncate(NEIGHBOURS);
                if best.len() == NEIGHBOURS {
                    least = best[NEIGHBOURS - 1].1;
                }
            }
        }
    }
    best
}

/// The label with the highest score at every pixel, the scores interpolated between the cells' centres.
fn pixel_labels(
    scores: &[Scores],
    grid: GridSize,
    image: ImageSize,
    cancellation: &Cancellation,
) -> Result<Vec<u8>, Cancelled> {
    let between = |pixel: usize, pixels: u32, cells: usize| {
        neighbours((pixel as f64 + 0.5) * cells as f64 / f64::from(pixels) - 0.5, cells)
    };
    let columns: Vec<_> = (0..image.width as usize).map(|x| between(x, image.width, grid.width)).collect();
    let mut labels = vec![0; image.pixels() as usize];
    labels.par_chunks_exact_mut(image.width as usize).enumerate().try_for_each_init(Vec::new, |mixed, (y, line)| {
        cancellation.check()?;
        let (above, below, down) = between(y, image.height, grid.height);
        let (above, below) = (&scores[above * grid.width..], &scores[below * grid.width..]);
        let mut x = 0;
        // Pixels between the same two columns of cells share what is mixed from above and below.
        for same in columns.chunk_by(|one, next| one.0 == next.0) {
            let (left, right, _) = same[0];
            mixed.clear();
            add_column(mixed, &above[left], &below[left], down, Side::Left);
            add_column(mixed, &above[right], &below[right], down, Side::Right);
            mixed.sort_unstable_by_key(|mixed| mixed.label);
            for (label, &(_, _, across)) in line[x..].iter_mut().zip(same) {
                *label = best_label(mixed, across);
            }
            x += same.len();
        }
        Ok(())
    })?;
    Ok(labels)
}

/// A label's scores at the ends of a horizontal stretch.
struct Mixed {
    label: u8,
    left: f32,
    right: f32,
}

#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
}

fn add_column(mixed: &mut Vec<Mixed>, above: &Scores, below: &Scores, down: f32, side: Side) {
    for (scores, weight) in [(above, 1.0 - down), (below, down)] {
        // Scores of different cells are compared as shares.
        let total: f32 = scores.iter().map(|(_, score)| score).sum();
        for (label, score) in scores.iter() {
            let index = mixed.iter().position(|mixed| mixed.label == label).unwrap_or_else(|| {
                mixed.push(Mixed { label, left: 0.0, right: 0.0 });
                mixed.len() - 1
            });
            let end = match side {
                Side::Left => &mut mixed[index].left,
                Side::Right => &mut mixed[index].right,
            };
            *end += weight * score / total;
        }
    }
}

/// The label whose score is highest `across` of the way from left to right; of equals the lowest.
fn best_label(mixed: &[Mixed], across: f32) -> u8 {
    let mut best = (0, f32::NEG_INFINITY);
    for &Mixed { label, left, right } in mixed {
        let score = left + (right - left) * across;
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
    use crate::matching::MatchSide;
    use proptest::prelude::*;

    /// A map whose every cell has a descriptor of its own, shifted to the right by `shift` cells.
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

    fn carry(labels: &[u8], source: &NormalizedMap, target: &NormalizedMap, target_image: ImageSize) -> Vec<u8> {
        let source = MatchSide { map: source, image: IMAGE };
        let target = MatchSide { map: target, image: target_image };
        propagate_labels(ImagePair { source, target }, labels, &Cancellation::default()).unwrap()
    }

    /// 200 in a rectangle of whole cells, 7 elsewhere.
    fn rectangle(left: u32) -> Vec<u8> {
        let inside = |x: u32, y: u32| (left..left + 40).contains(&x) && (16..48).contains(&y);
        (0..72).flat_map(|y| (0..96).map(move |x| if inside(x, y) { 200 } else { 7 })).collect()
    }

    fn agreement(one: &[u8], other: &[u8]) -> f64 {
        one.iter().zip(other).filter(|(a, b)| a == b).count() as f64 / one.len() as f64
    }

    #[test]
    fn a_picture_keeps_its_own_labels() {
        let map = map(GRID, 0);
        let carried = carry(&rectangle(24), &map, &map, IMAGE);
        assert!(agreement(&carried, &rectangle(24)) > 0.98);
    }

    #[test]
    fn labels_move_with_the_cells() {
        let carried = carry(&rectangle(24), &map(GRID, 0), &map(GRID, 2), IMAGE);
        assert!(agreement(&carried, &rectangle(40)) > 0.97, "{}", agreement(&carried, &rectangle(40)));
    }

    #[test]
    fn the_reply_has_the_targets_size() {
        let (source, target) = (map(GRID, 0), map(GridSize { width: 5, height: 4 }, 0));
        assert_eq!(carry(&rectangle(0), &source, &target, ImageSize { width: 50, height: 33 }).len(), 50 * 33);
    }

    #[test]
    fn a_pixel_between_cells_is_shared_by_area() {
        // Three pixels over two cells: the middle one is a third of each.
        let scores = cell_scores(&[1, 2, 3], ImageSize { width: 3, height: 1 }, GridSize { width: 2, height: 1 });
        assert_eq!(scores[0].iter().map(|(label, _)| label).collect::<Vec<_>>(), [1, 2]);
        assert!((scores[0].values[0] - 2.0 / 3.0).abs() < 1e-6 && (scores[1].values[1] - 1.0 / 3.0).abs() < 1e-6);
    }

    #[test]
    fn nobody_waiting_ends_it() {
        let map = map(GRID, 0);
        let side = MatchSide { map: &map, image: IMAGE };
        let cancellation = Cancellation::default();
        cancellation.cancel();
        let result = propagate_labels(ImagePair { source: side, target: side }, &rectangle(0), &cancellation);
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
            labels in prop::collection::vec(prop::sample::select(vec![0_u8, 3, 77, 255]), 96 * 72), shift in 0_usize..4,
        ) {
            let carried = carry(&labels, &map(GRID, 0), &map(GRID, shift), ImageSize { width: 31, height: 77 });
            prop_assert!(carried.iter().all(|label| labels.contains(label)));
        }
    }
}
