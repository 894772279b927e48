//! Tests on maps with a different descriptor in every cell, so that all matches are known.

use super::*;
use crate::dataset::Picture;
use densecl_vision::features::FeatureMap;
use densecl_vision::image::RgbImage;

const GRID: GridSize = GridSize { width: 4, height: 3 };
const SIZE: ImageSize = ImageSize { width: 32, height: 24 };

/// A frame whose cell `i` has the one-hot descriptor number `places[i]`.
fn frame(places: [usize; 12]) -> Arc<DescribedPicture> {
    let mut data = vec![0.0; 16 * 12];
    for (cell, place) in places.into_iter().enumerate() {
        data[place * 12 + cell] = 1.0;
    }
    let map = FeatureMap::new(16, GRID.height, GRID.width, data).unwrap().into_normalized();
    let image = RgbImage::new(SIZE.width, SIZE.height);
    Arc::new(DescribedPicture { picture: Picture { path: "frame".into(), image }, map })
}

fn still() -> [usize; 12] {
    std::array::from_fn(|cell| cell)
}

/// Label 7 in the cell at row 1, column 1, which has pixels 8 to 15 of both axes.
fn mask() -> Vec<u8> {
    let inside = |x: usize, y: usize| (8..16).contains(&x) && (8..16).contains(&y);
    (0..32 * 24).map(|index| if inside(index % 32, index / 32) { 7 } else { 0 }).collect()
}

#[test]
fn cells_have_the_shares_of_their_pixels() {
    let shares = cell_shares(&mask(), &[0, 7], SIZE, GRID);
    assert_eq!(shares.row(5).to_vec(), [0.0, 1.0]);
    assert_eq!(shares.row(6).to_vec(), [1.0, 0.0]);
    let quarter =
        cell_shares(&[7, 0, 0, 0], &[0, 7], ImageSize { width: 2, height: 2 }, GridSize { width: 1, height: 1 });
    assert_eq!(quarter.row(0).to_vec(), [0.75, 0.25]);
}

#[test]
fn an_object_moves_with_its_cell() {
    let mut propagator = MaskPropagator::new(&frame(still()), &mask());
    let mut places = still();
    places.swap(5, 6);
    let propagated = propagator.propagate_to(&frame(places));
    // One cell with cosine 1 and four with 0: the object's share is 1 / (1 + 4 e^-10).
    assert!((propagator.before[0].shares[[6, 1]] - 1.0 / (1.0 + 4.0 * (-10.0_f32).exp())).abs() < 1e-6);
    let at = |x: usize, y: usize| propagated[y * 32 + x];
    assert_eq!((at(19, 11), at(11, 11), at(0, 0)), (7, 0, 0));
}

#[test]
fn earlier_frames_are_used() {
    // The first frame does not have the cell's new descriptor, the second does.
    let mut propagator = MaskPropagator::new(&frame(still()), &mask());
    propagator.before.push_back(LabelledFrame {
        frame: frame(std::array::from_fn(|cell| if cell == 5 { 15 } else { cell })),
        shares: cell_shares(&mask(), &[0, 7], SIZE, GRID),
    });
    let propagated = propagator.propagate_to(&frame(std::array::from_fn(|cell| if cell == 9 { 15 } else { cell })));
    assert_eq!(propagated[20 * 32 + 11], 7);
    for _ in 0..20 {
        propagator.propagate_to(&frame(still()));
    }
    assert_eq!(propagator.before.len(), FRAMES_BEFORE);
}

#[test]
fn the_nearest_cells_are_in_order_and_limited() {
    let mut nearest = NearestCells::default();
    for (cell, similarity) in [0.1, 0.9, 0.5, 0.8, 0.2, 0.7, 0.9].into_iter().enumerate() {
        nearest.insert(similarity, 0, cell);
    }
    assert_eq!(nearest.0.iter().map(|(_, _, cell)| *cell).collect::<Vec<_>>(), [1, 6, 3, 5, 2]);
    let weights = nearest.weights();
    assert!((weights.iter().map(|(weight, ..)| weight).sum::<f32>() - 1.0).abs() < 1e-6);
    assert!((weights[2].0 / weights[0].0 - (-1.0_f32).exp()).abs() < 1e-6);
}

#[test]
fn cells_beyond_the_radius_are_ignored() {
    let wide = GridSize { width: 30, height: 1 };
    let size = ImageSize { width: 30, height: 1 };
    let one_hot = |place: &dyn Fn(usize) -> usize| {
        let mut data = vec![0.0; 31 * 30];
        (0..30).for_each(|cell| data[place(cell) * 30 + cell] = 1.0);
        let map = FeatureMap::new(31, 1, wide.width, data).unwrap().into_normalized();
        let image = RgbImage::new(size.width, size.height);
        Arc::new(DescribedPicture { picture: Picture { path: "wide".into(), image }, map })
    };
    let mask: Vec<u8> = (0..30).map(|x| u8::from(x == 0)).collect();
    for (moved_to, arrives) in [(12, 1), (13, 0)] {
        let mut propagator = MaskPropagator::new(&one_hot(&|cell| cell), &mask);
        let propagated = propagator.propagate_to(&one_hot(&|cell| if cell == moved_to { 0 } else { 30 }));
        assert_eq!(propagated[moved_to], arrives, "{moved_to}");
    }
}
