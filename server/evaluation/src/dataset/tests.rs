//! Tests on folders with missing or invalid files.

use std::fs;

use ::image::{ImageFormat, Rgb};
use ndarray::{Array2, Array3};
use tempfile::TempDir;

use super::*;
use densecl_vision::features::PixelPoint;
use densecl_vision::image::{ImageSize, RgbImage};

fn write_picture(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let format = if path.extension().unwrap() == "ppm" { ImageFormat::Pnm } else { ImageFormat::Png };
    RgbImage::from_pixel(8, 6, Rgb([9, 8, 7])).save_with_format(path, format).unwrap();
}

fn open(folder: &TempDir) -> Result<Dataset, DatasetError> {
    Dataset::open(folder.path(), &Selection::default())
}

fn refusal(folder: &TempDir) -> String {
    open(folder).unwrap_err().to_string()
}

#[test]
fn an_empty_folder_is_refused_with_the_known_layouts() {
    let folder = TempDir::new().unwrap();
    assert!(refusal(&folder).contains("HPatches"));
    assert!(refusal(&folder).contains("PairAnnotation"));
    let gone = Dataset::open(&folder.path().join("gone"), &Selection::default());
    assert!(matches!(gone, Err(DatasetError::Unreadable { .. })));
}

#[test]
fn hpatches_sequences_are_checked() {
    let folder = TempDir::new().unwrap();
    let sequence = folder.path().join("v_one");
    write_picture(&sequence.join("1.ppm"));
    assert!(refusal(&folder).contains("v_one has no picture 2.ppm"));
    write_picture(&sequence.join("2.png"));
    assert!(refusal(&folder).contains("H_1_2 is missing"));
    fs::write(sequence.join("H_1_2"), "1 0 0 0 1 0 0 0").unwrap();
    assert!(matches!(open(&folder), Err(DatasetError::Homography { .. })));
    fs::write(sequence.join("H_1_2"), "1 0 0 0 1 0 0 0 1").unwrap();
    let dataset = open(&folder).unwrap();
    assert_eq!((dataset.layout(), dataset.sequences(), dataset.pairs()), (DatasetLayout::HPatches, 1, 1));
    assert_eq!(dataset.title(), "pairs with homographies");
    assert_eq!(read_picture(&sequence.join("1.ppm")).unwrap().image.get_pixel(0, 0).0, [9, 8, 7]);
    fs::write(sequence.join("2.png"), "no picture").unwrap();
    assert!(matches!(read_picture(&sequence.join("2.png")), Err(DatasetError::Picture { .. })));
    fs::remove_file(sequence.join("1.ppm")).unwrap();
    assert!(refusal(&folder).contains("no picture 1.ppm"));
}

fn write_scene(folder: &TempDir) -> PathBuf {
    let scene = folder.path().join("0000");
    for frame in ["0000", "0001"] {
        write_picture(&scene.join("frames").join(format!("{frame}.png")));
        fs::create_dir_all(scene.join("masks")).unwrap();
        let mask = ::image::GrayImage::from_pixel(8, 6, ::image::Luma([3]));
        mask.save(scene.join("masks").join(format!("{frame}.png"))).unwrap();
    }
    for kind in ["positions", "visible"] {
        fs::create_dir_all(scene.join(kind)).unwrap();
    }
    let mut positions = Array3::<f32>::zeros((6, 8, 2));
    (positions[[2, 5, 0]], positions[[2, 5, 1]]) = (6.5, 1.0);
    ndarray_npy::write_npy(scene.join("positions/0001.npy"), &positions).unwrap();
    let mut visible = Array2::<u8>::zeros((6, 8));
    visible[[2, 5]] = 1;
    ndarray_npy::write_npy(scene.join("visible/0001.npy"), &visible).unwrap();
    scene
}

#[test]
fn scenes_are_checked() {
    let folder = TempDir::new().unwrap();
    let path = write_scene(&folder);
    let Dataset::Scenes(scenes) = open(&folder).unwrap() else { panic!("the folder holds scenes") };
    let size = ImageSize { width: 8, height: 6 };
    let (frame, truth) = &scenes[0].later[0];
    assert_eq!(frame.read_mask(size).unwrap(), [3; 48]);
    let truth = truth.read(size).unwrap();
    assert_eq!(truth.visible_at(5, 2), Some(PixelPoint { x: 6.5, y: 1.0 }));
    assert_eq!((truth.visible_at(4, 2), truth.visible_at(8, 2)), (None, None));
    let other = ImageSize { width: 8, height: 7 };
    assert!(frame.read_mask(other).unwrap_err().to_string().contains("masks/0001.png is of 6 x 8"));
    assert!(scenes[0].later[0].1.read(other).unwrap_err().to_string().contains("positions/0001.npy is of 6 x 8 x 2"));
    fs::write(path.join("visible/0001.npy"), "no array").unwrap();
    assert!(matches!(scenes[0].later[0].1.read(size), Err(DatasetError::Array { .. })));
    for (missing, role) in
        [("visible/0001.npy", "which points"), ("masks/0000.png", "mask"), ("frames/0001.png", "two")]
    {
        fs::remove_file(path.join(missing)).unwrap();
        let refusal = refusal(&folder);
        assert!(refusal.contains(&format!("{missing} is missing")) && refusal.contains(role), "{refusal}");
        drop(fs::remove_dir_all(&path));
        write_scene(&folder);
    }
}

const ANNOTATION: &str = r#"{"src_imname": "a.jpg", "trg_imname": "b.jpg", "category": "cat", "trg_bndbox": [10, 20, 50, 40],
    "src_bndbox": [0, 0, 1, 1], "src_kps": [[1, 2], [3, 4]], "trg_kps": [[11, 21], [13, 24]], "mirror": 0}"#;

fn write_pair(folder: &TempDir, annotation: &str) {
    let annotations = folder.path().join("PairAnnotation/test");
    fs::create_dir_all(&annotations).unwrap();
    fs::write(annotations.join("000001-a-b:cat.json"), annotation).unwrap();
}

#[test]
fn spair_pairs_are_checked() {
    let folder = TempDir::new().unwrap();
    write_pair(&folder, ANNOTATION);
    assert!(refusal(&folder).contains("JPEGImages is missing"));
    write_picture(&folder.path().join("JPEGImages/cat/a.png"));
    assert!(refusal(&folder).contains("JPEGImages/cat/a.jpg is missing"));
    for name in ["a", "b"] {
        let pictures = folder.path().join("JPEGImages/cat");
        write_picture(&pictures.join("made.png"));
        fs::rename(pictures.join("made.png"), pictures.join(format!("{name}.jpg"))).unwrap();
    }
    let Dataset::Spair(pairs) = open(&folder).unwrap() else { panic!("the folder is SPair's") };
    assert_eq!((pairs.len(), pairs[0].category.as_str(), pairs[0].keypoints.len()), (1, "cat", 2));
    assert!((pairs[0].target_box_px - 40.0).abs() < 1e-12);
    assert_eq!(pairs[0].keypoints[1], (PixelPoint { x: 3.0, y: 4.0 }, PixelPoint { x: 13.0, y: 24.0 }));
    for (annotation, reason) in [
        (ANNOTATION.replace("[3, 4]", "[3, 4], [5, 6]"), "3 keypoints in the source and 2 in the target"),
        (ANNOTATION.replace("[10, 20, 50, 40]", "[10, 20, 10, 20]"), "no extent"),
        (ANNOTATION.replace("src_kps", "points"), "is not an annotation of SPair-71k"),
    ] {
        write_pair(&folder, &annotation);
        assert!(refusal(&folder).contains(reason), "{}", refusal(&folder));
    }
    let other = Selection { split: "trn".parse().unwrap(), limit: None };
    let missing = Dataset::open(folder.path(), &other).unwrap_err().to_string();
    assert!(missing.contains("PairAnnotation/trn is missing"), "{missing}");
}

#[test]
fn what_systems_leave_is_no_part_of_a_data_set() {
    let folder = TempDir::new().unwrap();
    let scene = write_scene(&folder);
    fs::write(scene.join("frames/._0001.png"), "").unwrap();
    for name in ["__MACOSX/frames", "@eaDir/x", ".v_hidden", "lost+found"] {
        fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    let dataset = open(&folder).unwrap();
    assert_eq!((dataset.layout(), dataset.sequences(), dataset.pairs()), (DatasetLayout::Scenes, 1, 1));
}

#[test]
fn thinned_items_are_spread_over_the_whole() {
    assert_eq!(thinned((0..10).collect(), Some(3)), [3, 6, 9]);
    assert_eq!(thinned((0..3).collect(), Some(7)), [0, 1, 2]);
    assert_eq!(thinned((0..3).collect(), None), [0, 1, 2]);
}
