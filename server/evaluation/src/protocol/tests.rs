//! Tests on images of blocks of 8 × 8 pixels, each block of a different colour, and a method that recognizes blocks by their
//! colour, so that all matches are known.

use std::fs;
use std::path::Path;

use ::image::{GrayImage, Luma, Rgb};
use ndarray::{Array2, Array3};
use tempfile::TempDir;

use super::super::error::FeatureMethodError;
use super::*;
use crate::dataset::{Picture, Selection};
use densecl_vision::features::FeatureMap;
use densecl_vision::image::RgbImage;

const BLOCK: u32 = 8;
const COLUMNS: usize = 12;
const ROWS: usize = 9;
const BLOCKS: usize = COLUMNS * ROWS;

/// Recognizes blocks by the red of their pixels.
struct BlockReader;

impl FeatureMethod for BlockReader {
    fn name(&self) -> &'static str {
        "blocks"
    }

    fn describe(&mut self, picture: &Picture) -> Result<FeatureMap, FeatureMethodError> {
        if picture.image.get_pixel(0, 0).0[2] == 255 {
            return Err("a picture nobody can read".into());
        }
        let mut data = vec![0.0; 256 * BLOCKS];
        for cell in 0..BLOCKS {
            let (x, y) = ((cell % COLUMNS) as u32 * BLOCK, (cell / COLUMNS) as u32 * BLOCK);
            data[usize::from(picture.image.get_pixel(x, y).0[0]) * BLOCKS + cell] = 1.0;
        }
        Ok(FeatureMap::new(256, ROWS, COLUMNS, data)?)
    }
}

/// Has its own keypoints, but never finds any.
struct Blind;

impl FeatureMethod for Blind {
    fn name(&self) -> &'static str {
        "blind"
    }

    fn describe(&mut self, picture: &Picture) -> Result<FeatureMap, FeatureMethodError> {
        BlockReader.describe(picture)
    }

    fn keypoint_matches(&mut self, _: &Picture, _: &Picture) -> Result<Option<Vec<PointMatch>>, FeatureMethodError> {
        Ok(Some(Vec::new()))
    }
}

/// The image whose block `i` has the colour `places(i)`.
fn picture(places: &dyn Fn(usize) -> usize) -> RgbImage {
    RgbImage::from_fn(COLUMNS as u32 * BLOCK, ROWS as u32 * BLOCK, |x, y| {
        let block = (y / BLOCK) as usize * COLUMNS + (x / BLOCK) as usize;
        Rgb([places(block) as u8, 0, 0])
    })
}

/// The view of a camera that moved two blocks to the right; the last columns have new colours.
fn moved(block: usize) -> usize {
    let (column, row) = (block % COLUMNS, block / COLUMNS);
    if column + 2 < COLUMNS { block + 2 } else { BLOCKS + 2 * row + column + 2 - COLUMNS }
}

fn options() -> EvaluationOptions {
    EvaluationOptions { refine: Refinement::None, grid_points: 12, ..EvaluationOptions::default() }
}

fn run(folder: &Path) -> Result<MethodResult, EvaluationError> {
    let dataset = Dataset::open(folder, &Selection::default())?;
    let mut calls = Vec::new();
    let measured = measure(&dataset, &mut BlockReader, &options(), &mut |done| calls.push(done))?;
    assert_eq!(calls, (1..=dataset.pairs()).collect::<Vec<_>>());
    Ok(measured)
}

fn score(measured: &MethodResult, pair: usize, id: &str) -> f64 {
    measured.pair_results[pair]
        .score(id)
        .unwrap_or_else(|| panic!("no {id} in {:?}", measured.pair_results[pair].scores))
}

fn assert_scores(measured: &MethodResult, pair: usize, expected: &[(&str, f64)]) {
    for &(id, value) in expected {
        let found = score(measured, pair, id);
        assert!((found - value).abs() < 1e-9, "{id} is {found}, not {value}");
    }
}

fn write_sequence(folder: &Path, name: &str, homography: &str) {
    let sequence = folder.join(name);
    fs::create_dir_all(&sequence).unwrap();
    picture(&|block| block).save(sequence.join("1.png")).unwrap();
    picture(&moved).save(sequence.join("2.png")).unwrap();
    fs::write(sequence.join("H_1_2"), homography).unwrap();
}

#[test]
fn hpatches_scores_equal_hand_computed_ones() {
    let folder = TempDir::new().unwrap();
    write_sequence(folder.path(), "v_right", "1 0 -16 0 1 0 0 0 1");
    // The ground truth is 4 pixels from every match.
    write_sequence(folder.path(), "i_off", "1 0 -12 0 1 0 0 0 1");
    let measured = run(folder.path()).unwrap();
    let names: Vec<&str> = measured.pair_results.iter().map(|result| result.name.as_str()).collect();
    assert_eq!(names, ["i_off 1-2", "v_right 1-2"]);
    assert_eq!(measured.pair_results[0].group.as_deref(), Some("illumination"));
    // Ten of twelve columns are in both pictures.
    let off = [("matches", 90.0), ("mma_3px", 0.0), ("mma_5px", 1.0), ("homography_3px", 0.0), ("homography_5px", 1.0)];
    assert_scores(&measured, 0, &off);
    let right = [("matches", 90.0), ("mma_1px", 1.0), ("homography_1px", 1.0), ("pck_5px", 1.0), ("pck_side_0.1", 1.0)];
    assert_scores(&measured, 1, &right);
    assert_eq!(measured.pair_results[0].curves[0].shares, [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    let illustration = &measured.pair_results[0].illustration;
    assert!(
        illustration.matches.len() == 90 && illustration.matches.iter().all(|one| (one.error_px - 4.0).abs() < 1e-9)
    );
}

#[test]
fn a_pair_without_matches_scores_zero() {
    let folder = TempDir::new().unwrap();
    write_sequence(folder.path(), "v_none", "1 0 0 0 1 0 0 0 1");
    let dataset = Dataset::open(folder.path(), &Selection::default()).unwrap();
    let measured = measure(&dataset, &mut Blind, &options(), &mut |_| ()).unwrap();
    assert_scores(&measured, 0, &[("matches", 0.0), ("mma_10px", 0.0), ("homography_5px", 0.0)]);
}

#[test]
fn spair_scores_equal_hand_computed_ones() {
    let folder = TempDir::new().unwrap();
    let pictures = folder.path().join("JPEGImages/cat");
    fs::create_dir_all(&pictures).unwrap();
    for (name, image) in [("a", picture(&|block| block)), ("b", picture(&moved))] {
        image.save(pictures.join("made.png")).unwrap();
        fs::rename(pictures.join("made.png"), pictures.join(format!("{name}.jpg"))).unwrap();
    }
    // Found at (11.5, 11.5), (19.5, 27.5), (51.5, 35.5): off by 0, 3.5 and 5 pixels, and the box's longer side is 40.
    let annotation = serde_json::json!({
        "src_imname": "a.jpg", "trg_imname": "b.jpg", "category": "cat", "trg_bndbox": [10, 0, 30, 40],
        "src_kps": [[27.5, 11.5], [35.5, 27.5], [67.5, 35.5]], "trg_kps": [[11.5, 11.5], [23, 27.5], [54.5, 39.5]],
    });
    let annotations = folder.path().join("PairAnnotation/test");
    fs::create_dir_all(&annotations).unwrap();
    fs::write(annotations.join("1.json"), annotation.to_string()).unwrap();
    let measured = run(folder.path()).unwrap();
    let third = 1.0 / 3.0;
    let scores =
        [("keypoints", 3.0), ("pck_image_0.1", 2.0 * third), ("pck_point_0.1", 2.0 * third), ("pck_image_0.05", third)];
    assert_scores(&measured, 0, &scores);
    let weights: Vec<f64> = measured.pair_results[0].scores.iter().map(|score| score.weight).collect();
    assert_eq!(weights, [1.0, 1.0, 3.0, 1.0, 3.0]);
    let beyond = annotation.to_string().replace("[27.5,11.5]", "[96,11.5]");
    fs::write(annotations.join("1.json"), beyond).unwrap();
    let refusal = run(folder.path()).unwrap_err().to_string();
    assert!(refusal.contains("of `1`, point 0 at (96, 11.5) is outside the 96 x 72 image"), "{refusal}");
}

/// Two frames, the second as the camera moved; the object is the six blocks from column 4 to 6 in rows 2 and 3.
fn write_scene(folder: &Path) {
    let scene = folder.join("0000");
    for kind in ["frames", "masks", "positions", "visible"] {
        fs::create_dir_all(scene.join(kind)).unwrap();
    }
    let object = |left: u32| {
        GrayImage::from_fn(96, 72, |x, y| {
            Luma([u8::from((left..left + 3).contains(&(x / BLOCK)) && (2..4).contains(&(y / BLOCK)))])
        })
    };
    picture(&|block| block).save(scene.join("frames/0000.png")).unwrap();
    picture(&moved).save(scene.join("frames/0001.png")).unwrap();
    object(4).save(scene.join("masks/0000.png")).unwrap();
    object(2).save(scene.join("masks/0001.png")).unwrap();
    let positions =
        Array3::from_shape_fn((72, 96, 2), |(y, x, axis)| if axis == 0 { x as f32 - 16.0 } else { y as f32 });
    ndarray_npy::write_npy(scene.join("positions/0001.npy"), &positions).unwrap();
    let visible = Array2::from_shape_fn((72, 96), |(_, x)| u8::from(x >= 16));
    ndarray_npy::write_npy(scene.join("visible/0001.npy"), &visible).unwrap();
}

#[test]
fn scene_scores_equal_hand_computed_ones() {
    let folder = TempDir::new().unwrap();
    write_scene(folder.path());
    let measured = run(folder.path()).unwrap();
    // Points at 4, 12, … are half a pixel from the centres of the blocks that they are found at. Of 12 columns of points
    // the first two are hidden. Those in the second have a little of their neighbour in them, find it, and the way back
    // ends within a cell of them: only half of the hidden points are not mutual.
    let scores = [
        ("epe_median", 0.5_f64.sqrt()),
        ("epe_mean", 0.5_f64.sqrt()),
        ("pck_5px", 1.0),
        ("occlusion_auc", 1.0),
        ("occlusion_auc_mutual", 0.75),
        ("occlusion_ap", 1.0),
        ("occlusion_share", 2.0 / 12.0),
    ];
    assert_scores(&measured, 0, &scores);
    // Both ways of carrying masks find the object's blocks, whose corners interpolation rounds off.
    for kind in ["davis", "served"] {
        let (region, boundary) = (score(&measured, 0, &format!("j_{kind}")), score(&measured, 0, &format!("f_{kind}")));
        assert!(region > 0.9 && region < 1.0 && boundary > 0.85, "{kind}: {region} {boundary}");
        let both = score(&measured, 0, &format!("jf_{kind}"));
        assert!((both - f64::midpoint(region, boundary)).abs() < 1e-12);
    }
}

#[test]
fn visible_points_are_not_occluded() {
    let folder = TempDir::new().unwrap();
    write_scene(folder.path());
    let scene = folder.path().join("0000");
    // All points are visible, so that there are no scores of hidden points.
    ndarray_npy::write_npy(scene.join("visible/0001.npy"), &Array2::<u8>::ones((72, 96))).unwrap();
    let measured = run(folder.path()).unwrap();
    assert_eq!(measured.pair_results[0].score("occlusion_auc"), None);
    assert!((score(&measured, 0, "pck_5px") - 10.0 / 12.0).abs() < 1e-9);
}

#[test]
fn frames_of_different_sizes_are_refused() {
    let folder = TempDir::new().unwrap();
    write_scene(folder.path());
    let frame = folder.path().join("0000/frames/0001.png");
    RgbImage::new(96, 80).save(&frame).unwrap();
    let refusal = run(folder.path()).unwrap_err().to_string();
    assert!(refusal.contains("frames/0001.png is of 96 x 80, and its picture of 96 x 72"), "{refusal}");
}

#[test]
fn the_error_of_a_method_names_the_image() {
    let folder = TempDir::new().unwrap();
    write_sequence(folder.path(), "v_one", "1 0 0 0 1 0 0 0 1");
    RgbImage::from_pixel(96, 72, Rgb([0, 0, 255])).save(folder.path().join("v_one/2.png")).unwrap();
    let error = run(folder.path()).unwrap_err();
    assert!(error.to_string().contains("2.png"), "{error}");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "a picture nobody can read");
}
