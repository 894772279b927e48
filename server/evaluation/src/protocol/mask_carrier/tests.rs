//! Maps whose cells all differ, so that what goes where is known.

use super::*;
use crate::dataset::Picture;
use densecl_vision::features::FeatureMap;
use densecl_vision::image::RgbImage;

const GRID: GridSize = GridSize { width: 4, height: 3 };
const SIZE: ImageSize = ImageSize { width: 32, height: 24 };

/// Cell `i` of the frame has the descriptor of the world's place `places[i]`: one hot.
fn frame(places: [usize; 12]) -> Arc<Described> {
    let mut data = vec![0.0; 16 * 12];
    for (cell, place) in places.into_iter().enumerate() {
        data[place * 12 + cell] = 1.0;
    }
    let map = FeatureMap::new(16, GRID.height, GRID.width, data).unwrap().into_normalized();
    let image = RgbImage::new(SIZE.width, SIZE.height);
    Arc::new(Described { picture: Picture { path: "frame".into(), image }, map })
}

fn still() -> [usize; 12] {
    std::array::from_fn(|cell| cell)
}

/// Label 7 in the cell at row 1, column 1: pixels 8 to 15 of both axes.
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
fn an_object_is_followed_to_where_its_cell_went() {
    let mut carrier = MaskCarrier::new(&frame(still()), &mask());
    let mut places = still();
    places.swap(5, 6);
    let carried = carrier.carry_to(&frame(places));
    // One cell of cosine 1 and four of 0: the object's share is 1 / (1 + 4 e^-10).
    assert!((carrier.before[0].shares[[6, 1]] - 1.0 / (1.0 + 4.0 * (-10.0_f32).exp())).abs() < 1e-6);
    let at = |x: usize, y: usize| carried[y * 32 + x];
    assert_eq!((at(19, 11), at(11, 11), at(0, 0)), (7, 0, 0));
}

#[test]
fn the_frames_before_have_a_say() {
    // The first frame does not show the cell's new look, the second does.
    let mut carrier = MaskCarrier::new(&frame(still()), &mask());
    carrier.before.push_back(Labelled {
        frame: frame(std::array::from_fn(|cell| if cell == 5 { 15 } else { cell })),
        shares: cell_shares(&mask(), &[0, 7], SIZE, GRID),
    });
    let carried = carrier.carry_to(&frame(std::array::from_fn(|cell| if cell == 9 { 15 } else { cell })));
    assert_eq!(carried[20 * 32 + 11], 7);
    for _ in 0..20 {
        carrier.carry_to(&frame(still()));
    }
    assert_eq!(carrier.before.len(), FRAMES_BEFORE);
}

#[test]
fn the_nearest_are_few_and_in_order() {
    let mut nearest = Nearest::default();
    for (cell, similarity) in [0.1, 0.9, 0.5, 0.8, 0.2, 0.7, 0.9].into_iter().enumerate() {
        nearest.offer(similarity, 0, cell);
    }
    assert_eq!(nearest.0.iter().map(|(_, _, cell)| *cell).collect::<Vec<_>>(), [1, 6, 3, 5, 2]);
    let weights = nearest.weights();
    assert!((weights.iter().map(|(weight, ..)| weight).sum::<f32>() - 1.0).abs() < 1e-6);
    assert!((weights[2].0 / weights[0].0 - (-1.0_f32).exp()).abs() < 1e-6);
}

#[test]
fn cells_far_away_are_not_looked_at() {
    let wide = GridSize { width: 30, height: 1 };
    let size = ImageSize { width: 30, height: 1 };
    let one_hot = |place: &dyn Fn(usize) -> usize| {
        let mut data = vec![0.0; 31 * 30];
        (0..30).for_each(|cell| data[place(cell) * 30 + cell] = 1.0);
        let map = FeatureMap::new(31, 1, wide.width, data).unwrap().into_normalized();
        let image = RgbImage::new(size.width, size.height);
        Arc::new(Described { picture: Picture { path: "wide".into(), image }, map })
    };
    let mask: Vec<u8> = (0..30).map(|x| u8::from(x == 0)).collect();
    for (moved_to, arrives) in [(12, 1), (13, 0)] {
        let mut carrier = MaskCarrier::new(&one_hot(&|cell| cell), &mask);
        let carried = carrier.carry_to(&one_hot(&|cell| if cell == moved_to { 0 } else { 30 }));
        assert_eq!(carried[moved_to], arrives, "{moved_to}");
    }
}
