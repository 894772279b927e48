//! Pictures of the matches between the cells of two views.
//!
//! Every cell of the query view has a disc whose colour encodes its position. A cell of the key view
//! has the mean colour of the query cells that are matched with it, so that correct matches give the
//! same part of the scene the same colour in both views. Lines join the best pairs.

use image::imageops::FilterType;
use image::{Rgb, RgbImage};
use tch::{Device, Kind, Tensor};

use super::canvas::{Point, Stroke};
use super::{GAP_PX, pixels, square, tile};
use crate::augment::Normalization;
use crate::network::normalize;

/// Colours of the corners of a view: top left, top right, bottom left, bottom right.
const CORNERS: [[f32; 3]; 4] = [[235.0, 60.0, 60.0], [255.0, 215.0, 50.0], [70.0, 110.0, 255.0], [50.0, 215.0, 140.0]];

/// Number of cells of a map along x and along y.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grid {
    width: usize,
    height: usize,
}

/// The matched key cell of every cell of the query views.
#[derive(Debug)]
pub struct CellMatches {
    grid: Grid,
    /// `[N][L]`, cells counted row by row.
    images: Vec<Vec<CellMatch>>,
}

/// The key cell with which a query cell is matched.
#[derive(Clone, Copy, Debug, PartialEq)]
struct CellMatch {
    key_cell: usize,
    similarity: f32,
    mutual: bool,
}

impl CellMatches {
    /// The matches of a training step, `[N, L]` int64, on square grids
    /// ([`DenseMeasures::matches`](crate::measures::DenseMeasures)).
    ///
    /// # Panics
    /// If the tensor has another number of dimensions.
    pub fn from_step(matches: &Tensor) -> Self {
        let (n, cells) = matches.size2().expect("matches are [N, L]");
        let side = (cells as f64).sqrt().round() as usize;
        let similarity = Tensor::zeros([n, cells], (Kind::Float, Device::Cpu));
        Self::new(Grid { width: side, height: side }, matches, &similarity, &similarity)
    }

    /// Matches feature maps `[N, C, h, w]` of the two views by cosine similarity, as a training
    /// step does, and finds which matches are mutual.
    ///
    /// # Panics
    /// If the tensors have other shapes than each other's.
    pub fn from_maps(query: &Tensor, key: &Tensor) -> Self {
        let (_, _, height, width) = query.size4().expect("maps are [N, C, h, w]");
        let cells = |map: &Tensor| normalize(&map.detach().to_kind(Kind::Float).flatten(2, 3)); // [N, C, L]
        let similarity = cells(query).transpose(1, 2).bmm(&cells(key)); // [N, L, L]
        let (best, matches) = similarity.max_dim(2, false); // [N, L]
        let back = similarity.argmax(1, false).gather(1, &matches, false); // [N, L]
        let mutual = back.eq_tensor(&Tensor::arange(height * width, (Kind::Int64, back.device()))); // [N, L]
        Self::new(Grid { width: width as usize, height: height as usize }, &matches, &best, &mutual)
    }

    fn new(grid: Grid, matches: &Tensor, similarity: &Tensor, mutual: &Tensor) -> Self {
        let cells = (grid.width * grid.height).max(1);
        let matches = numbers(matches);
        let found = matches.iter().zip(numbers(similarity)).zip(numbers(mutual)).map(|((&key, similarity), mutual)| {
            CellMatch { key_cell: (key as usize).min(cells - 1), similarity, mutual: mutual > 0.0 }
        });
        let images = found.collect::<Vec<_>>().chunks(cells).map(<[CellMatch]>::to_vec).collect();
        Self { grid, images }
    }
}

/// A tensor's elements.
fn numbers(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous().view([-1]);
    Vec::try_from(flat).expect("a flat tensor of float32")
}

/// Options of the picture.
#[derive(Clone, Copy, Debug)]
pub struct MatchedCellsOptions {
    /// Images of the batch, from its start.
    pub images: usize,
    /// Lines in each: mutual matches first, then the most similar ones.
    pub lines: usize,
    /// Side of a view in the picture, in pixels.
    pub side_px: u32,
}

impl Default for MatchedCellsOptions {
    fn default() -> Self {
        Self { images: 4, lines: 10, side_px: 224 }
    }
}

/// Draws matches between normalised views `[N, 3, s, s]`: a row an image, the query view on the
/// left, the key view on the right.
pub fn matched_cells(query: &Tensor, key: &Tensor, matches: &CellMatches, options: &MatchedCellsOptions) -> RgbImage {
    let side_px = options.side_px;
    let view = |views: &Tensor, index: usize| {
        square(&pixels(&views.get(index as i64), &Normalization::IMAGENET), side_px, FilterType::Triangle)
    };
    let count = options.images.min(matches.images.len());
    let rows: Vec<_> = (0..count).map(|index| vec![view(query, index), view(key, index)]).collect();
    let mut picture = tile(&rows, side_px);
    for (index, found) in matches.images.iter().take(count).enumerate() {
        let layout = ViewPairLayout { grid: matches.grid, side_px: side_px as f32, row: index };
        draw_lines(&mut picture, found, &layout, options.lines);
        draw_cells(&mut picture, found, &layout);
    }
    picture
}

/// Positions of cells in one row of the picture.
struct ViewPairLayout {
    grid: Grid,
    side_px: f32,
    row: usize,
}

impl ViewPairLayout {
    /// The centre of a cell of the query view, column 0, or of the key view, column 1.
    fn centre(&self, cell: usize, column: usize) -> Point {
        let Grid { width, height } = self.grid;
        let step = self.side_px + GAP_PX as f32;
        let along = |cell: usize, cells: usize, part: usize| {
            (cell as f32 + 0.5) * self.side_px / cells as f32 - 0.5 + part as f32 * step
        };
        Point { x: along(cell % width, width, column), y: along(cell / width, height, self.row) }
    }

    /// Radius of a disc.
    fn radius_px(&self) -> f32 {
        let cell_px = self.side_px / self.grid.width.max(self.grid.height) as f32;
        (cell_px / 6.0).clamp(1.5, 7.0)
    }

    /// Colour of a cell of the query view: interpolated between the colours of the corners.
    fn colour(&self, cell: usize) -> [f32; 3] {
        let share = |cell: usize, cells: usize| if cells > 1 { cell as f32 / (cells - 1) as f32 } else { 0.5 };
        let (x, y) = (share(cell % self.grid.width, self.grid.width), share(cell / self.grid.width, self.grid.height));
        let weights = [(1.0 - x) * (1.0 - y), x * (1.0 - y), (1.0 - x) * y, x * y];
        std::array::from_fn(|channel| {
            CORNERS.iter().zip(weights).map(|(corner, weight)| corner[channel] * weight).sum()
        })
    }
}

fn rgb(colour: [f32; 3]) -> Rgb<u8> {
    Rgb(colour.map(|value| value.round().clamp(0.0, 255.0) as u8))
}

fn draw_lines(picture: &mut RgbImage, found: &[CellMatch], layout: &ViewPairLayout, lines: usize) {
    for cell in best(found, lines) {
        let (from, to) = (layout.centre(cell, 0), layout.centre(found[cell].key_cell, 1));
        let line = Stroke { from, to, radius_px: 0.8, colour: rgb(layout.colour(cell)), opacity: 1.0 };
        line.rim(0.8).draw(picture);
        line.draw(picture);
    }
}

/// The query cells from which lines are drawn: mutual matches first, then the most similar ones; evenly
/// spread if all matches are equal in both.
fn best(found: &[CellMatch], lines: usize) -> Vec<usize> {
    let first = found.first().map(|first| (first.mutual, first.similarity));
    if found.iter().all(|cell| Some((cell.mutual, cell.similarity)) == first) {
        let lines = lines.min(found.len());
        return (0..lines).map(|line| (2 * line + 1) * found.len() / (2 * lines)).collect();
    }
    let mut order: Vec<usize> = (0..found.len()).collect();
    let rank = |cell: &usize| (found[*cell].mutual, found[*cell].similarity);
    order.sort_by(|a, b| rank(b).partial_cmp(&rank(a)).unwrap_or(std::cmp::Ordering::Equal));
    order.truncate(lines);
    order
}

fn draw_cells(picture: &mut RgbImage, found: &[CellMatch], layout: &ViewPairLayout) {
    let mut arrived = vec![([0.0_f32; 3], 0_u32); found.len()];
    for (cell, matched) in found.iter().enumerate() {
        let colour = layout.colour(cell);
        draw_disc(picture, layout, layout.centre(cell, 0), colour);
        let (sum, count) = &mut arrived[matched.key_cell];
        *sum = std::array::from_fn(|channel| sum[channel] + colour[channel]);
        *count += 1;
    }
    for (cell, (sum, count)) in arrived.into_iter().enumerate().filter(|(_, (_, count))| *count > 0) {
        draw_disc(picture, layout, layout.centre(cell, 1), sum.map(|value| value / count as f32));
    }
}

fn draw_disc(picture: &mut RgbImage, layout: &ViewPairLayout, centre: Point, colour: [f32; 3]) {
    let disc = Stroke::disc(centre, layout.radius_px(), rgb(colour));
    disc.rim(1.0).draw(picture);
    disc.draw(picture);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: u32 = 65;

    /// Views of one mid-grey image, and the picture of matches on a grid of 2 × 2.
    fn picture(matches: &[i64], lines: usize) -> RgbImage {
        let views = Tensor::zeros([1, 3, 64, 64], (Kind::Float, Device::Cpu));
        let matches = CellMatches::from_step(&Tensor::from_slice(matches).view([1, -1]));
        matched_cells(&views, &views, &matches, &MatchedCellsOptions { images: 1, lines, side_px: SIDE })
    }

    fn pixel(picture: &RgbImage, point: Point) -> Rgb<u8> {
        *picture.get_pixel(point.x.round() as u32, point.y.round() as u32)
    }

    #[test]
    fn a_match_is_drawn_between_the_centres_of_its_cells() {
        // All four query cells are matched with the bottom-right key cell.
        let (picture, plain) = (picture(&[3, 3, 3, 3], 4), picture(&[3, 3, 3, 3], 0));
        let layout = ViewPairLayout { grid: Grid { width: 2, height: 2 }, side_px: SIDE as f32, row: 0 };
        for cell in 0..4 {
            let (from, to) = (layout.centre(cell, 0), layout.centre(3, 1));
            assert_eq!(pixel(&picture, from), rgb(layout.colour(cell)));
            // The lines from the left and from the right of a row meet; this is before they do.
            let quarter = Point { x: 0.75 * from.x + 0.25 * to.x, y: 0.75 * from.y + 0.25 * to.y };
            assert_ne!(pixel(&picture, quarter), pixel(&plain, quarter), "no line from cell {cell}");
        }
        assert_ne!(
            pixel(&plain, layout.centre(3, 1)),
            pixel(&plain, layout.centre(0, 1)),
            "a disc where matches arrive"
        );
        assert_eq!(pixel(&plain, layout.centre(0, 1)), pixel(&plain, layout.centre(1, 1)), "and none elsewhere");
    }

    #[test]
    fn centres_follow_the_project_convention() {
        let layout = ViewPairLayout { grid: Grid { width: 4, height: 2 }, side_px: 64.0, row: 1 };
        let step = 64.0 + GAP_PX as f32;
        assert_eq!(layout.centre(0, 0), Point { x: 7.5, y: 15.5 + step });
        assert_eq!(layout.centre(6, 1), Point { x: 39.5 + step, y: 47.5 + step });
    }

    #[test]
    fn maps_match_where_they_are_shifted_to_and_mutual_matches_come_first() {
        tch::manual_seed(5);
        let map = Tensor::randn([1, 16, 3, 3], (Kind::Float, Device::Cpu));
        let key = map.roll([1], [3]);
        // Query cell 4 is no one's match: its feature is gone.
        key.narrow(3, 2, 1).narrow(2, 1, 1).copy_(&map.narrow(3, 0, 1).narrow(2, 0, 1));
        let matches = CellMatches::from_maps(&map, &key);
        let found = &matches.images[0];
        for (cell, expected) in [(0, 1), (1, 2), (2, 0), (3, 4), (5, 3), (6, 7)] {
            assert_eq!((found[cell].key_cell, found[cell].mutual), (expected, true), "cell {cell}");
        }
        assert!(!found[4].mutual);
        assert!(!best(found, 8).contains(&4));
    }

    #[test]
    fn without_similarities_lines_are_spread() {
        let even = CellMatches::from_step(&Tensor::zeros([1, 49], (Kind::Int64, Device::Cpu)));
        assert_eq!(best(&even.images[0], 7), [3, 10, 17, 24, 31, 38, 45]);
        assert_eq!(best(&even.images[0], 100).len(), 49);
    }
}
