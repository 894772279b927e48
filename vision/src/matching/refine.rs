//! Sub-cell refinement: from the most similar cell to a point between cells.
//!
//! The soft-argmax (Chapelle and Wu, *Gradient descent optimization of smoothed information retrieval metrics*, 2010; for
//! coordinates Yi et al., *LIFT*, ECCV 2016) is the mean of points weighted by the exponential of their scores
//! over a temperature. Here it departs from the usual form in two ways.
//!
//! Its scores are not the similarities of whole cells, which pull the mean towards the neighbour that resembles the best
//! cell more: even an image matched with itself is then wrong by a third of a cell. The score of a *continuous* position
//! is the cosine of the query with the target's descriptor interpolated there, as a query between cells is interpolated
//! in the source. An image matched with itself has its maximum, 1, exactly at the query. Within a square of four cells
//! this function follows from the query's four similarities and the dot products among the four cells.
//!
//! The temperature is not fixed but a share of what the best similarity lacks to 1, see [`SoftArgmax`].

use std::fmt;

use super::similarity::{AROUND, Peak};
use crate::features::NeighbourProducts;

/// Parameters of the soft-argmax.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SoftArgmax {
    /// The window of positions, centred at the best cell.
    pub window: RefinementWindow,
    /// Temperature as a share of `1 − best similarity`: a perfect match takes its best position alone, and the worse the
    /// match, the more positions around it have weight.
    pub temperature_share: f32,
}

/// Side of a window in cells, 2 to 5, from centre to centre: 3 reaches a whole cell to either side, 2 half a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefinementWindow(usize);

impl RefinementWindow {
    /// A window of `cells` cells a side; `None` unless `cells` is 2 to 5.
    pub fn from_cells(cells: usize) -> Option<Self> {
        (2..=AROUND).contains(&cells).then_some(Self(cells))
    }

    /// Reach to either side, in lattice steps.
    fn reach_steps(self) -> usize {
        (self.0 - 1) * STEPS / 2
    }

    /// Reach to either side, in whole cells, rounded up.
    fn reach_cells(self) -> usize {
        self.0 / 2
    }
}

impl fmt::Display for RefinementWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Default for SoftArgmax {
    fn default() -> Self {
        Self { window: RefinementWindow(WINDOW), temperature_share: TEMPERATURE_SHARE }
    }
}

/// Lattice steps along one cell.
const STEPS: usize = 8;
/// Around its best point the lattice is refined by this factor, this many times: to 1/512 of a cell.
const ZOOM: usize = 4;
const ZOOMS: usize = 3;
/// Default window. On procedural images under homographies, 2, 3 and 5 cells are equally good (mean matching accuracy at
/// 5 px 74.2, 74.2 and 73.7 %, standard error 3.7), and better than no refinement (69.8 %): docs/evaluation.md.
const WINDOW: usize = 3;
/// Default temperature share. On photographs under homographies, shares from 0.02 to 0.2 differ little, and all are better
/// than the best position alone.
const TEMPERATURE_SHARE: f32 = 0.05;
const MIN_TEMPERATURE: f32 = 1e-6;
/// Exponents below this have a negligible weight.
const NEGLIGIBLE: f32 = -15.0;

/// A position relative to the centre of a cell, in cells, and the cosine similarity there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Refined {
    pub(super) dx: f32,
    pub(super) dy: f32,
    pub(super) score: f32,
}

/// The similarity of one query with the target as a function of the position around its best cell.
struct SimilaritySurface {
    /// The window, cut off at the centres of the outermost cells.
    bounds: Bounds,
    /// Row by row, `2 · reach` in each, around the best cell's centre.
    squares: Vec<Square>,
    /// In cells.
    reach: usize,
}

/// A rectangle of positions relative to the best cell's centre, in cells.
struct Bounds {
    left: f32,
    right: f32,
    top: f32,
    bottom: f32,
}

/// A square between the centres of four cells: top left, top right, bottom left, bottom right.
struct Square {
    /// Similarities of the query with the cells.
    similarities: [f32; 4],
    /// Dot products of the cells' descriptors with each other.
    products: [[f32; 4]; 4],
}

/// A horizontal line of positions across a square: the terms of its cosines that do not depend on the column.
#[derive(Default)]
struct SquareRow {
    left: f32,
    right: f32,
    left_left: f32,
    left_right: f32,
    right_right: f32,
}

impl SimilaritySurface {
    fn around(peak: &Peak, products: &NeighbourProducts<f32>, window: RefinementWindow) -> Self {
        let grid = products.grid();
        let (row, column) = (peak.cell / grid.width, peak.cell % grid.width);
        let farthest = window.reach_steps() as f32 / STEPS as f32;
        let before = |position: usize| -farthest.min(position as f32);
        let after = |position: usize, length: usize| farthest.min((length - 1 - position) as f32);
        let bounds = Bounds {
            left: before(column),
            right: after(column, grid.width),
            top: before(row),
            bottom: after(row, grid.height),
        };
        let reach = window.reach_cells();
        let sides = || -(reach as isize)..reach as isize;
        let squares = sides().flat_map(|down| sides().map(move |right| Square::beside(peak, products, down, right)));
        Self { bounds, squares: squares.collect(), reach }
    }

    /// Calls `visit` with every position of a lattice with spacing `step`, up to `reach` steps from `center` and within
    /// the bounds.
    fn for_lattice(&self, center: (f32, f32), step: f32, reach: usize, mut visit: impl FnMut(Refined)) {
        let lattice = |center: f32, low: f32, high: f32| {
            (0..=2 * reach)
                .map(move |index| center + (index as f32 - reach as f32) * step)
                .filter(move |position| (low..=high).contains(position))
        };
        let squares_across = 2 * self.reach;
        for dy in lattice(center.1, self.bounds.top, self.bounds.bottom) {
            let (down, fy) = self.square_along(dy);
            let across = &self.squares[down * squares_across..(down + 1) * squares_across];
            let mut row = (usize::MAX, SquareRow::default());
            for dx in lattice(center.0, self.bounds.left, self.bounds.right) {
                let (right, fx) = self.square_along(dx);
                if row.0 != right {
                    row = (right, across[right].row(fy));
                }
                visit(Refined { dx, dy, score: row.1.similarity(fx) });
            }
        }
    }

    /// The index, along one axis, of the square with `position`, and the position within it, from 0 to 1.
    fn square_along(&self, position: f32) -> (usize, f32) {
        let before = (position.floor() as isize).clamp(-(self.reach as isize), self.reach as isize - 1);
        ((before + self.reach as isize) as usize, position - before as f32)
    }

    fn score_at(&self, dx: f32, dy: f32) -> Option<f32> {
        let mut score = None;
        self.for_lattice((dx, dy), 1.0, 0, |position| score = Some(position.score));
        score
    }
}

impl Square {
    /// The square whose top left corner is the centre of the cell `down` rows below and `right` columns right of the best
    /// one. Beyond the end of the grid the outermost cells are used; the bounds do not reach there.
    fn beside(peak: &Peak, products: &NeighbourProducts<f32>, down: isize, right: isize) -> Self {
        let grid = products.grid();
        let (row, column) = (peak.cell / grid.width, peak.cell % grid.width);
        let pair = |position: usize, step: isize, length: usize| {
            [step, step + 1].map(|step| position.saturating_add_signed(step).min(length - 1))
        };
        let (rows, columns) = (pair(row, down, grid.height), pair(column, right, grid.width));
        let corners = [(rows[0], columns[0]), (rows[0], columns[1]), (rows[1], columns[0]), (rows[1], columns[1])];
        let around = |(y, x): (usize, usize)| peak.around[(y + AROUND / 2 - row) * AROUND + x + AROUND / 2 - column];
        Self {
            similarities: corners.map(around),
            products: corners.map(|one| corners.map(|other| products.product(one, other))),
        }
    }

    /// The line `fy` of the way down, from 0 to 1.
    fn row(&self, fy: f32) -> SquareRow {
        let (above, below) = (1.0 - fy, fy);
        let [a, b, c, d] = self.similarities;
        let p = &self.products;
        let mixed =
            |top: f32, across: f32, bottom: f32| above * above * top + above * below * across + below * below * bottom;
        SquareRow {
            left: above * a + below * c,
            right: above * b + below * d,
            left_left: mixed(p[0][0], 2.0 * p[0][2], p[2][2]),
            left_right: mixed(p[0][1], p[0][3] + p[1][2], p[2][3]),
            right_right: mixed(p[1][1], 2.0 * p[1][3], p[3][3]),
        }
    }
}

impl SquareRow {
    /// The cosine similarity `fx` of the way to the right, from 0 to 1.
    fn similarity(&self, fx: f32) -> f32 {
        let (left, right) = (1.0 - fx, fx);
        let dot = left * self.left + right * self.right;
        let squared_length =
            left * left * self.left_left + 2.0 * left * right * self.left_right + right * right * self.right_right;
        if squared_length > 1e-12 { dot / squared_length.sqrt() } else { 0.0 }
    }
}

/// The soft-argmax position around `peak`, and the similarity there.
pub(super) fn refine(peak: &Peak, products: &NeighbourProducts<f32>, parameters: SoftArgmax) -> Refined {
    let surface = SimilaritySurface::around(peak, products, parameters.window);
    let reach = parameters.window.reach_steps();
    let mut best = Refined { dx: 0.0, dy: 0.0, score: peak.score };
    let mut lattice = Vec::with_capacity((2 * reach + 1) * (2 * reach + 1));
    surface.for_lattice((0.0, 0.0), 1.0 / STEPS as f32, reach, |position| {
        lattice.push(position);
        best = best.or(position);
    });
    let mut step = 1.0 / STEPS as f32;
    for _ in 0..ZOOMS {
        step /= ZOOM as f32;
        surface.for_lattice((best.dx, best.dy), step, ZOOM, |position| best = best.or(position));
    }
    let (dx, dy) = soft_argmax(&lattice, best, parameters.temperature_share);
    Refined { dx, dy, score: surface.score_at(dx, dy).unwrap_or(best.score) }
}

impl Refined {
    /// The one of the two with the higher score, `self` if they are equal.
    fn or(self, other: Self) -> Self {
        if other.score > self.score { other } else { self }
    }
}

/// The mean of `best` and the positions of the lattice, weighted by `exp((score − best score) / temperature)`.
fn soft_argmax(lattice: &[Refined], best: Refined, temperature_share: f32) -> (f32, f32) {
    let temperature = (temperature_share * (1.0 - best.score)).max(MIN_TEMPERATURE);
    let (mut sum, mut x, mut y) = (1.0, best.dx, best.dy);
    for position in lattice {
        let exponent = (position.score - best.score) / temperature;
        if exponent > NEGLIGIBLE {
            let weight = exponent.exp();
            sum += weight;
            x += weight * position.dx;
            y += weight * position.dy;
        }
    }
    (x / sum, y / sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{FeatureMap, NormalizedMap};

    /// Two cells whose descriptors are 60 degrees apart.
    fn two_cells() -> NormalizedMap {
        let data = vec![1.0, 0.5, 0.0, 0.75_f32.sqrt()];
        FeatureMap::new(2, 1, 2, data).unwrap().into_normalized()
    }

    fn peak(cell: usize, query: [f32; 2], map: &NormalizedMap) -> Peak {
        let similarity = |cell: usize| query[0] * map.matrix()[[0, cell]] + query[1] * map.matrix()[[1, cell]];
        let mut around = [f32::NEG_INFINITY; AROUND * AROUND];
        around[12 - cell] = similarity(0);
        around[13 - cell] = similarity(1);
        Peak { cell, score: similarity(cell), around }
    }

    #[test]
    fn a_query_between_two_cells_is_found_there() {
        let map = two_cells();
        let products = NeighbourProducts::new(&map);
        // The query is halfway between the two directions, 30 degrees from each.
        let refined = refine(&peak(0, [0.75_f32.sqrt(), 0.5], &map), &products, SoftArgmax::default());
        assert!((refined.dx - 0.5).abs() < 0.01 && refined.dy == 0.0, "{refined:?}");
        assert!((refined.score - 1.0).abs() < 1e-5);
        let refined = refine(&peak(1, [0.75_f32.sqrt(), 0.5], &map), &products, SoftArgmax::default());
        assert!((refined.dx + 0.5).abs() < 0.01, "{refined:?}");
    }

    #[test]
    fn a_query_like_the_outermost_cell_stays_there() {
        let map = two_cells();
        let refined = refine(&peak(0, [1.0, 0.0], &map), &NeighbourProducts::new(&map), SoftArgmax::default());
        assert!(refined.dx.abs() < 0.01 && (refined.score - 1.0).abs() < 1e-4, "{refined:?}");
    }

    #[test]
    fn every_window_finds_a_position_within_its_reach() {
        let map = two_cells();
        let products = NeighbourProducts::new(&map);
        let position = |cells: usize| {
            let parameters =
                SoftArgmax { window: RefinementWindow::from_cells(cells).unwrap(), ..SoftArgmax::default() };
            refine(&peak(0, [0.5, 0.75_f32.sqrt()], &map), &products, parameters).dx
        };
        // The query is the second cell's descriptor, and half a cell is not far enough for it.
        assert!((position(2) - 0.5).abs() < 0.05, "{}", position(2));
        for cells in [3, 4, 5] {
            assert!((position(cells) - 1.0).abs() < 0.01, "{cells}: {}", position(cells));
        }
        assert_eq!((RefinementWindow::from_cells(1), RefinementWindow::from_cells(6)), (None, None));
    }

    #[test]
    fn a_wide_window_reaches_over_the_next_cell() {
        // Five cells in a row, each 20 degrees from the next.
        let angles: Vec<f32> = (0..5).map(|cell| (cell as f32 * 20.0).to_radians()).collect();
        let data = angles.iter().map(|angle| angle.cos()).chain(angles.iter().map(|angle| angle.sin())).collect();
        let map = FeatureMap::new(2, 1, 5, data).unwrap().into_normalized();
        let similarities: Vec<f32> = angles.iter().map(|angle| (angle - 70.0_f32.to_radians()).cos()).collect();
        let mut around = [f32::NEG_INFINITY; AROUND * AROUND];
        around[10..15].copy_from_slice(&similarities);
        // The peak is at the third cell; the true position is one and a half cells further.
        let peak = Peak { cell: 2, score: similarities[2], around };
        let products = NeighbourProducts::new(&map);
        let position = |cells: usize| {
            let parameters =
                SoftArgmax { window: RefinementWindow::from_cells(cells).unwrap(), ..SoftArgmax::default() };
            refine(&peak, &products, parameters).dx
        };
        assert!((position(5) - 1.5).abs() < 0.02, "{}", position(5));
        assert!(position(3) <= 1.0 && position(3) > 0.8, "{}", position(3));
    }
}
